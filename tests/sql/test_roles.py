"""Who may see and do what, by role, on every table, view, partition and function, on every kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    STRANGER,
    Connection,
    Row,
    a_call,
    a_run,
    acting_as,
    call_id,
    record,
    record_runs,
)

# Calls 1 to 5 and runs r-1 to r-5: Alice and Bob for acme, Carol for another, Alice for herself, and nobody for nobody.
OWNERS = [(ALICE, "acme"), (BOB, "acme"), (CAROL, "other"), (ALICE, None), (None, None)]

READERS: dict[str, tuple[str, Row, set[int]]] = {
    "owner of rows": ("authenticated", {"sub": ALICE}, {1, 4}),
    "plain member": ("authenticated", {"sub": BOB}, {2}),
    "organization admin": ("authenticated", {"sub": ADMIN}, {1, 2}),
    "admin of another": ("authenticated", {"sub": CAROL}, {3}),
    "stranger": ("authenticated", {"sub": STRANGER}, set()),
    "signed in without a subject": ("authenticated", {}, set()),
    "subject that is no uuid": ("authenticated", {"sub": "user_2x'; --"}, set()),
    "subject of another type": ("authenticated", {"sub": {"user": ALICE}}, set()),
    "subject null": ("authenticated", {"sub": None}, set()),
    "service role": ("service_role", {"role": "service_role"}, {1, 2, 3, 4, 5}),
}

CALL_RELATIONS = ("token_usage_logs", "agent_usage_detailed")
RUN_RELATIONS = (("service_runs", "id"), ("workflow_analytics", "service_run_id"))

# Who may read. Nobody may write anywhere, but for the members that the service role manages.
READABLE = {
    "public.agent_usage_detailed": {"authenticated", "service_role"},
    "public.model_prices": {"authenticated", "service_role"},
    "public.organization_members": {"authenticated", "service_role"},
    "public.service_runs": {"authenticated", "service_role"},
    "public.token_usage_logs": {"authenticated", "service_role"},
    "public.workflow_analytics": {"authenticated", "service_role"},
}

EXECUTABLE = {
    "public.add_model_price_v1": {"service_role"},
    "public.cost_breakdown": {"authenticated", "service_role"},
    "public.ensure_partitions_v1": {"service_role"},
    "public.model_prices_v1": {"service_role"},
    "public.record_calls_v1": {"service_role"},
    "public.record_runs_v1": {"service_role"},
    "public.reprice_calls_v1": {"service_role"},
    "public.tracking_status_v1": {"service_role"},
    "public.unpriced_calls_v1": {"service_role"},
    "vital_private.administered_organizations": {"authenticated", "service_role"},
    "vital_private.insert_calls": set(),
    "vital_private.move_default_rows": set(),
    "vital_private.record_batch": set(),
    "vital_private.row_id": set(),
    "vital_private.upsert_runs": set(),
}

RELATIONS = """
    select c.oid, n.nspname || '.' || c.relname as name, c.relkind, c.relrowsecurity, c.reloptions
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in ('public', 'vital_private') and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""
FUNCTIONS = """
    select p.oid, n.nspname || '.' || p.proname as name, p.proconfig
    from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname in ('public', 'vital_private')
"""
CLIENTS = ("anon", "authenticated", "service_role")


@contextmanager
def populated(connection: Connection) -> Iterator[Connection]:
    """The rows of OWNERS, for the length of the block."""
    with connection.transaction(force_rollback=True):
        people = [
            {"user_id": user, "organization_id": organization, "agent_id": f"agent-{number}"}
            for number, (user, organization) in enumerate(OWNERS, start=1)
        ]
        runs = [a_run(f"r-{number}", **person) for number, person in enumerate(people, start=1)]
        calls = [
            a_call(number, service_run_id=f"r-{number}", **person) for number, person in enumerate(people, start=1)
        ]
        assert record_runs(connection, *runs)["inserted"] == 5
        assert record(connection, *calls)["inserted"] == 5
        connection.execute(
            "insert into organization_members values"
            " ('acme', %s, 'admin'), ('acme', %s, 'member'), ('acme', %s, 'member'), ('other', %s, 'admin')",
            [ADMIN, ALICE, BOB, CAROL],
        )
        connection.execute(
            """select add_model_price_v1('{"model": "m", "input_usd_per_mtok": "1", "valid_from": "2026-01-01Z"}')"""
        )
        yield connection


@pytest.mark.parametrize("reader", READERS)
def test_everyone_sees_exactly_the_calls_and_runs_that_are_theirs(anywhere: Connection, reader: str) -> None:
    """If this failed, a customer would read another customer's bill, or miss lines of their own."""
    role, claims, mine = READERS[reader]
    with populated(anywhere), acting_as(anywhere, role, claims):
        for relation in CALL_RELATIONS:
            seen = anywhere.execute(sql.SQL("select id::text from {}").format(sql.Identifier(relation))).fetchall()
            assert {row["id"] for row in seen} == {call_id(number) for number in mine}, relation
        for relation, column in RUN_RELATIONS:
            query = sql.SQL("select {} as id from {}").format(sql.Identifier(column), sql.Identifier(relation))
            assert {row["id"] for row in anywhere.execute(query)} == {f"r-{number}" for number in mine}, relation
        breakdown = anywhere.execute("select label, calls from cost_breakdown('agent')").fetchall()
        assert {row["label"]: row["calls"] for row in breakdown} == {f"agent-{number}": 1 for number in mine}


def test_a_breakdown_of_an_organization_one_does_not_administer_is_empty(anywhere: Connection) -> None:
    """If this failed, naming a competitor's organization would show what it spends."""
    with populated(anywhere), acting_as(anywhere, "authenticated", {"sub": CAROL}):
        assert anywhere.execute("select * from cost_breakdown('user', organization => 'acme')").fetchall() == []


def test_a_workflow_s_totals_count_only_calls_that_the_reader_may_see(anywhere: Connection) -> None:
    """If this failed, a user would read other users' spending out of the totals of a run they share."""
    with populated(anywhere):
        record(anywhere, a_call(6, service_run_id="r-1", user_id=BOB))
        query = "select calls, total_cost from workflow_analytics where service_run_id = 'r-1'"
        with acting_as(anywhere, "service_role"):
            everything = anywhere.execute(query).fetchone()
        with acting_as(anywhere, "authenticated", {"sub": ALICE}):
            own = anywhere.execute(query).fetchone()
    assert everything is not None
    assert own is not None
    assert (everything["calls"], str(everything["total_cost"])) == (2, "0.84")
    assert (own["calls"], str(own["total_cost"])) == (1, "0.42")


@pytest.mark.parametrize(
    ("sub", "seen"),
    [
        (ALICE, [("acme", ALICE)]),
        (ADMIN, [("acme", ALICE), ("acme", BOB), ("acme", ADMIN)]),
        (CAROL, [("other", CAROL)]),
        (STRANGER, []),
        ("not-a-uuid", []),
    ],
)
def test_members_see_themselves_and_admins_their_members(
    anywhere: Connection, sub: str, seen: list[tuple[str, str]]
) -> None:
    """If this failed, anyone could list who works for whom."""
    with populated(anywhere), acting_as(anywhere, "authenticated", {"sub": sub}):
        rows = anywhere.execute("select * from organization_members order by organization_id, user_id").fetchall()
    assert [(row["organization_id"], row["user_id"]) for row in rows] == seen


def test_prices_are_for_organization_admins(anywhere: Connection) -> None:
    """If this failed, every signed-in end user could read the prices that the team has negotiated."""
    seen = {
        ("authenticated", ADMIN): ["m"],
        ("authenticated", STRANGER): [],
        ("authenticated", ALICE): [],
        ("service_role", STRANGER): ["m"],
    }
    with populated(anywhere):
        for (role, sub), models in seen.items():
            with acting_as(anywhere, role, {"sub": sub}):
                assert [row["model"] for row in anywhere.execute("select model from model_prices")] == models
        with acting_as(anywhere, "anon"), pytest.raises(InsufficientPrivilege):
            anywhere.execute("select model from model_prices")


def test_a_subject_of_another_identity_provider_sees_its_rows(anywhere: Connection) -> None:
    """If this failed, users signed in through Clerk, Firebase or Auth0 would get an error or nothing."""
    with populated(anywhere):
        record(anywhere, a_call(7, user_id="user_2abc"))
        with acting_as(anywhere, "authenticated", {"sub": "user_2abc"}):
            assert len(anywhere.execute("select from token_usage_logs").fetchall()) == 1


@pytest.mark.parametrize("relation", sorted(READABLE))
def test_anonymous_visitors_see_nothing(anywhere: Connection, relation: str) -> None:
    """If this failed, the publishable key in every browser would open the books."""
    with populated(anywhere), acting_as(anywhere, "anon", {"role": "anon"}), pytest.raises(InsufficientPrivilege):
        anywhere.execute(sql.SQL("select * from {}").format(sql.SQL(relation)))


def test_claims_that_are_missing_or_empty_show_nothing(anywhere: Connection) -> None:
    """If this failed, a request without a token could see rows, or fail where it should be empty."""
    with populated(anywhere), acting_as(anywhere, "authenticated", ""):
        assert anywhere.execute("select from token_usage_logs").fetchall() == []


def test_reading_is_granted_as_written_here_and_nowhere_else(anywhere: Connection) -> None:
    """If this failed, a table or partition was added without deciding who may read it."""
    found: dict[str, set[str]] = {}
    for relation in anywhere.execute(RELATIONS).fetchall():
        for role in CLIENTS:
            rights = anywhere.execute(
                "select has_table_privilege(%(role)s, %(oid)s, 'select')"
                " or has_any_column_privilege(%(role)s, %(oid)s, 'select') as granted",
                {"role": role, "oid": relation["oid"]},
            ).fetchone()
            assert rights is not None
            if rights["granted"]:
                found.setdefault(relation["name"], set()).add(role)
    assert found == READABLE


def test_no_client_can_write_to_anything(anywhere: Connection) -> None:
    """If this failed, a user could change what a call cost, and the bill would no longer be the truth."""
    writable = anywhere.execute(
        f"""
        select relation.name, role, privilege
        from ({RELATIONS}) as relation,
          unnest(array['anon', 'authenticated', 'service_role']) as role,
          unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
        where has_table_privilege(role, relation.oid, privilege)
          or (privilege in ('insert', 'update', 'references') and has_any_column_privilege(role, relation.oid, privilege))
        """
    ).fetchall()
    assert {(row["name"], row["role"], row["privilege"]) for row in writable} == {
        ("public.organization_members", "service_role", privilege) for privilege in ("insert", "update", "delete")
    }
    sequences = anywhere.execute(
        """
        select c.relname, role from pg_class as c, unnest(array['anon', 'authenticated', 'service_role']) as role
        where c.relkind = 'S' and c.relnamespace = 'public'::regnamespace
          and has_sequence_privilege(role, c.oid, 'usage, select, update')
        """
    ).fetchall()
    assert sequences == []


@pytest.mark.parametrize("role", CLIENTS)
@pytest.mark.parametrize(
    "statement",
    [
        "insert into token_usage_logs (id, created_at, priced) values (gen_random_uuid(), '2026-01-01Z', false)",
        "update token_usage_logs set total_cost = 0",
        "update agent_usage_detailed set total_cost = 0",
        "delete from token_usage_logs",
        "delete from service_runs",
        "delete from vital_private.token_usage_logs_default",
        "update model_prices set input_usd_per_mtok = 0",
        "truncate token_usage_logs",
    ],
)
def test_writing_fails_for_every_client(anywhere: Connection, role: str, statement: str) -> None:
    """If this failed, rights that the catalog does not show would let a client write."""
    with populated(anywhere), acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(InsufficientPrivilege):
        anywhere.execute(statement)


def test_the_service_role_manages_members(anywhere: Connection) -> None:
    """If this failed, nobody could be made an admin from the server side."""
    with acting_as(anywhere, "service_role"):
        anywhere.execute("insert into organization_members values ('acme', 'dave', 'member')")
        anywhere.execute("update organization_members set role = 'admin' where user_id = 'dave'")
        assert anywhere.execute(
            "delete from organization_members where user_id = 'dave' returning role"
        ).fetchall() == [{"role": "admin"}]


def test_no_user_makes_themselves_an_admin(anywhere: Connection) -> None:
    """If this failed, anyone could promote themselves and read a whole organization."""
    with populated(anywhere), acting_as(anywhere, "authenticated", {"sub": BOB}), pytest.raises(InsufficientPrivilege):
        anywhere.execute("insert into organization_members values ('other', %s, 'admin')", [BOB])
    with populated(anywhere), acting_as(anywhere, "authenticated", {"sub": BOB}), pytest.raises(InsufficientPrivilege):
        anywhere.execute("update organization_members set role = 'admin'")


def test_functions_may_be_called_as_written_here_and_by_nobody_else(anywhere: Connection) -> None:
    """If this failed, a function was added without deciding who may call it."""
    found: dict[str, set[str]] = {}
    for function in anywhere.execute(FUNCTIONS).fetchall():
        found[function["name"]] = set()
        for role in (*CLIENTS, "public"):
            allowed = anywhere.execute(
                "select has_function_privilege(%s, %s::oid, 'execute') as yes", [role, function["oid"]]
            ).fetchone()
            assert allowed is not None
            if allowed["yes"]:
                found[function["name"]].add(role)
    assert found == EXECUTABLE


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "call",
    [
        "record_calls_v1('[]')",
        "record_runs_v1('[]')",
        "add_model_price_v1('{}')",
        "model_prices_v1()",
        "reprice_calls_v1('[]')",
        "unpriced_calls_v1(null, null, 10)",
        "tracking_status_v1()",
        "ensure_partitions_v1('2026-01-01', 1)",
        "vital_private.insert_calls('[]')",
    ],
)
def test_clients_cannot_call_what_writes_or_reads_past_the_policies(anywhere: Connection, role: str, call: str) -> None:
    """If this failed, a browser could forge calls or read every organization's."""
    with acting_as(anywhere, role, {"sub": ALICE}), pytest.raises(InsufficientPrivilege):
        anywhere.execute(f"select {call}")


def test_the_service_role_can_do_its_work_through_functions(anywhere: Connection) -> None:
    """If this failed, the secret key of a project could not record anything."""
    with acting_as(anywhere, "service_role", {"role": "service_role"}):
        assert record(anywhere, a_call(9))["inserted"] == 1
        assert record_runs(anywhere, a_run("r-9"))["inserted"] == 1
        for call in ("model_prices_v1()", "unpriced_calls_v1(null, null, 10)", "reprice_calls_v1('[]')"):
            anywhere.execute(f"select {call}")
        status = anywhere.execute("select tracking_status_v1() as status").fetchone()
        assert status is not None
        assert status["status"]["migrations"]
        anywhere.execute("select ensure_partitions_v1('2031-05-01', 1)")
        seen = anywhere.execute("select total_cost from token_usage_logs where id = %s", [call_id(9)]).fetchall()
        assert [str(row["total_cost"]) for row in seen] == ["0.42"]


def test_the_private_schema_is_closed_to_anonymous_visitors(anywhere: Connection) -> None:
    """If this failed, helpers that trust their caller would be in everybody's reach."""
    rights = anywhere.execute(
        "select role, has_schema_privilege(role, 'vital_private', 'usage') as usage,"
        " has_schema_privilege(role, 'vital_private', 'create') as creates"
        " from unnest(array['anon', 'authenticated', 'service_role']) as role order by role"
    ).fetchall()
    assert [(row["role"], row["usage"], row["creates"]) for row in rights] == [
        ("anon", False, False),
        ("authenticated", True, False),
        ("service_role", True, False),
    ]


def test_every_function_pins_its_search_path(anywhere: Connection) -> None:
    """If this failed, a caller's own schema could slip a function of the same name under ours and run as its owner."""
    loose = [
        function["name"]
        for function in anywhere.execute(FUNCTIONS).fetchall()
        if 'search_path=""' not in (function["proconfig"] or [])
    ]
    assert loose == []


def test_every_view_reads_with_the_rights_of_its_reader(anywhere: Connection) -> None:
    """If this failed, a view would show every organization's rows to everyone."""
    views = [row for row in anywhere.execute(RELATIONS).fetchall() if row["relkind"] == "v"]
    assert {row["name"] for row in views} == {"public.agent_usage_detailed", "public.workflow_analytics"}
    assert [row["name"] for row in views if "security_invoker=true" not in (row["reloptions"] or [])] == []


def test_every_table_and_partition_has_row_level_security(anywhere: Connection) -> None:
    """If this failed, one forgotten grant on one month's partition would open that month."""
    with anywhere.transaction(force_rollback=True):
        anywhere.execute("select ensure_partitions_v1('2033-01-01', 1)")
        tables = [row for row in anywhere.execute(RELATIONS).fetchall() if row["relkind"] in ("r", "p")]
    assert len(tables) > 16
    assert [row["name"] for row in tables if not row["relrowsecurity"]] == []


def test_policies_ask_who_is_asking_once_a_statement(anywhere: Connection) -> None:
    """If this failed, the token would be parsed again for every row of a large table."""
    policies = anywhere.execute(
        "select policyname, coalesce(qual, '') || coalesce(with_check, '') as expression from pg_policies"
        " where schemaname in ('public', 'vital_private')"
    ).fetchall()
    assert len(policies) == 11
    for policy in policies:
        lowered = policy["expression"].lower()
        for function in ("auth.uid()", "auth.jwt()", "auth.role()", "vital_private.administered_organizations()"):
            assert lowered.count(function) == lowered.count(f"( select {function}"), policy


def test_no_policy_is_for_everybody_or_for_writing(anywhere: Connection) -> None:
    """If this failed, a policy would let roles in that nobody thought of."""
    policies = anywhere.execute(
        "select tablename, roles::text[] as roles, cmd from pg_policies where schemaname in ('public', 'vital_private')"
    ).fetchall()
    assert {role for policy in policies for role in policy["roles"]} == {"authenticated", "service_role"}
    assert {(p["tablename"], tuple(p["roles"])) for p in policies if p["cmd"] != "SELECT"} == {
        ("organization_members", ("service_role",))
    }


def test_no_materialized_view_is_readable_by_clients(anywhere: Connection) -> None:
    """If this failed, figures of all organizations would be open: materialized views know no policies."""
    readable = anywhere.execute(
        f"select relation.name, role from ({RELATIONS}) as relation,"
        " unnest(array['anon', 'authenticated']) as role"
        " where relkind = 'm' and has_table_privilege(role, relation.oid, 'select')"
    ).fetchall()
    assert readable == []


def test_no_role_inherits_another_s_rights(anywhere: Connection) -> None:
    """If this failed, signed-in users could act as the service role."""
    members = anywhere.execute(
        "select m.member::regrole::text as member, m.roleid::regrole::text as role from pg_auth_members as m"
        " where m.member in (select oid from pg_roles where rolname in ('anon', 'authenticated', 'service_role'))"
    ).fetchall()
    assert members == []


def test_migrating_needs_no_superuser(urls: dict[str, str]) -> None:
    """If this failed, teams on managed PostgreSQL could not install it."""
    with psycopg.connect(urls["no superuser"]) as connection:
        found = connection.execute(
            "select r.rolname, r.rolsuper from pg_class as c join pg_roles as r on r.oid = c.relowner"
            " where c.oid = 'public.token_usage_logs'::regclass"
        ).fetchone()
    assert found == ("migrator", False)
