"""Our tables in a database: their history, drift, names that are taken, and taking all out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.sql.helpers import a_call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.errors import StoreNotReady
from vital_tracking.migrate import Migration, find_migrations, objects_of
from vital_tracking.stores.postgres import PostgresStore

MIGRATIONS = find_migrations()
EVERYTHING = """
    select pg_describe_object('pg_class'::regclass, c.oid, 0) as name from pg_class as c
    where c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all
    select pg_describe_object('pg_proc'::regclass, p.oid, 0) from pg_proc as p
    where p.pronamespace::regnamespace::text !~ '^(pg_|information_schema|auth)'
    union all
    select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp' and nspname <> 'auth'
"""


@pytest.fixture
def empty_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = f"schema_{uuid.uuid4().hex[:8]}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def everything(url: str) -> set[str]:
    with connect(url) as connection:
        return {row["name"] for row in connection.execute(EVERYTHING).fetchall()}


def test_uninstalling_leaves_what_was_there_before_and_nothing_else(empty_url: str) -> None:
    """If this failed, something of ours would stay behind for good, or something of the team's would go with it."""
    with connect(empty_url) as connection:
        connection.execute("create table shops (id bigint primary key); create view shop_ids as select id from shops")
        connection.execute("create function prices() returns integer language sql set search_path = '' as 'select 1'")
    before = everything(empty_url)
    store = PostgresStore(empty_url)
    store.migrate(MIGRATIONS)
    with connect(empty_url) as connection:
        record(connection, a_call(1))
        # What an earlier version made, of which this one does not know.
        connection.execute(
            "create function budgets_v0() returns void language sql set search_path = ''"
            " as 'select vital_private.lock_budgets(true)'"
        )
    there = store.installed(MIGRATIONS)
    assert (there.calls, there.schema) == (1, True)
    assert {"public.token_usage_logs", "public.mv_service_costs", "public.budget_limits"} <= set(there.relations)
    store.uninstall(MIGRATIONS)
    assert everything(empty_url) == before
    assert store.installed(MIGRATIONS) == ([], 0, False, None)
    store.uninstall(MIGRATIONS)
    assert len(store.migrate(MIGRATIONS)) == len(MIGRATIONS)
    store.close()


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("create view costs as select total_cost from token_usage_logs", "view costs"),
        (
            "create table mine (dimension text references vital_private.usage_dimensions)",
            "constraint mine_dimension_fkey on table mine",
        ),
        (
            "create table mine (id bigint); alter table mine enable row level security; create policy p on mine"
            " using (id::text = any(vital_private.administered_organizations()))",
            "policy p on table mine",
        ),
    ],
)
def test_what_others_built_on_us_is_named_and_kept(database_url: str, made: str, named: str) -> None:
    """If this failed, taking us out would take the team's own views along, without a word."""
    store = PostgresStore(database_url)
    with connect(database_url) as connection:
        connection.execute(made.encode())
    before = everything(database_url)
    with pytest.raises(StoreNotReady, match=named) as refused:
        store.uninstall(MIGRATIONS)
    assert "Nothing was removed" in str(refused.value)
    assert everything(database_url) == before
    store.close()


def test_files_that_have_changed_since_are_named_and_nothing_is_applied(database_url: str) -> None:
    """If this failed, a database would be half of one version and half of another."""
    store = PostgresStore(database_url)
    changed = [*MIGRATIONS]
    changed[4] = Migration(changed[4].version, changed[4].name, changed[4].sql + "select 1;")
    new = Migration("20991231000000", "new", "create table public.new (id int);")
    with pytest.raises(StoreNotReady, match=f"{changed[4]} has changed since") as refused:
        store.migrate([*changed, new])
    assert "migrate --uninstall" in str(refused.value)
    commented = Migration(changed[4].version, changed[4].name, "-- Said better.\n" + MIGRATIONS[4].sql)
    assert store.migrate([*MIGRATIONS[:4], commented, *MIGRATIONS[5:], new]) == [new]
    assert store.migrate(MIGRATIONS) == [], "a later version has been here, and is left alone"
    store.close()


def test_a_role_that_may_not_read_the_project_s_history_migrates_all_the_same(empty_url: str) -> None:
    """If this failed, a team with a role of its own for us could not use it in a project of Supabase's."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(
            "create schema supabase_migrations; create table supabase_migrations.schema_migrations (version text)"
        )
        connection.execute("drop role if exists schema_migrator; create role schema_migrator login createrole")
        connection.execute(f"grant create on database {connection.info.dbname} to schema_migrator")
        connection.execute("grant create on schema public to schema_migrator")
    store = PostgresStore(empty_url.replace("postgres@", "schema_migrator@"))
    assert len(store.migrate(MIGRATIONS)) == len(MIGRATIONS)
    store.close()
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("drop owned by schema_migrator cascade; drop role schema_migrator")


def test_what_the_files_make_is_what_the_database_has(database_url: str) -> None:
    """If this failed, doctor would not notice that something is missing, and uninstalling would leave it behind."""
    with connect(database_url) as connection:
        relations = connection.execute(
            "select 'public.' || relname as name from pg_class"
            " where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')"
        ).fetchall()
        functions = connection.execute(
            "select distinct 'public.' || proname as name from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchall()
        hashes = connection.execute(
            "select vital_private.migration_hash(f) as hash from unnest(%s::text[]) as f", [[m.sql for m in MIGRATIONS]]
        ).fetchall()
    made = objects_of(MIGRATIONS)
    for kind, there in (("relation", relations), ("function", functions)):
        assert {one.name for one in made if one.kind == kind and one.name.startswith("public.")} == {
            row["name"] for row in there
        }
    assert [row["hash"] for row in hashes] == [migration.hash for migration in MIGRATIONS]
