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
    a_cost,
    a_run,
    acquire,
    acting_as,
    audit,
    call,
    call_id,
    record,
    record_runs,
    renew,
    set_budget,
    wish,
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

# Who may read. Nobody may write anywhere, but for the members and the budgets that the service role manages.
READABLE = {
    "public.agent_usage_detailed": {"authenticated", "service_role"},
    "public.budget_grants": {"service_role"},
    "public.budget_limits": {"authenticated", "service_role"},
    "public.budget_status": {"authenticated", "service_role"},
    "public.budget_windows": {"authenticated", "service_role"},
    "public.cost_alerts": {"authenticated", "service_role"},
    "public.model_prices": {"authenticated", "service_role"},
    "public.organization_members": {"authenticated", "service_role"},
    "public.service_runs": {"authenticated", "service_role"},
    "public.token_usage_logs": {"authenticated", "service_role"},
    "public.workflow_analytics": {"authenticated", "service_role"},
}

EXECUTABLE = {
    "public.acquire_grants_v1": {"service_role"},
    "public.add_model_price_v1": {"service_role"},
    "public.audit_budgets_v1": {"service_role"},
    "public.budget_windows_v1": {"service_role"},
    "public.budgets_v1": {"service_role"},
    "public.check_budget": {"authenticated", "service_role"},
    "public.check_budget_v1": {"service_role"},
    "public.claim_alerts_v1": {"service_role"},
    "public.cost_alerts_v1": {"service_role"},
    "public.cost_breakdown": {"authenticated", "service_role"},
    "public.database_time_v1": {"service_role"},
    "public.ensure_partitions_v1": {"service_role"},
    "public.model_prices_v1": {"service_role"},
    "public.record_calls_v1": {"service_role"},
    "public.record_runs_v1": {"service_role"},
    "public.recount_budgets_v1": {"service_role"},
    "public.remove_budget_v1": {"service_role"},
    "public.renew_grants_v1": {"service_role"},
    "public.reprice_calls_v1": {"service_role"},
    "public.set_budget_v1": {"service_role"},
    "public.settle_alerts_v1": {"service_role"},
    "public.tracking_status_v1": {"service_role"},
    "public.unpriced_calls_v1": {"service_role"},
    "public.usage_history_v1": {"service_role"},
    "vital_private.administered_organizations": {"authenticated", "service_role"},
    # What check_budget, which runs with the rights of its caller, needs of a calendar.
    "vital_private.local_day": {"authenticated", "service_role"},
    "vital_private.local_midnight": {"authenticated", "service_role"},
    "vital_private.window_end": {"authenticated", "service_role"},
    "vital_private.window_start": {"authenticated", "service_role"},
    **dict.fromkeys(
        (
            "vital_private.alert_json",
            "vital_private.alerts_of_this_transaction",
            "vital_private.answer_ask",
            "vital_private.before_budgets_change",
            "vital_private.budget_json",
            "vital_private.budget_model",
            "vital_private.budgets_version",
            "vital_private.check_budget_limit",
            "vital_private.counted",
            "vital_private.counts_otherwise",
            "vital_private.grant_share",
            "vital_private.insert_calls",
            "vital_private.limits_of",
            "vital_private.lock_budgets",
            "vital_private.make_windows",
            "vital_private.move_default_rows",
            "vital_private.open_windows",
            "vital_private.post_spend",
            "vital_private.postings_of",
            "vital_private.record_batch",
            "vital_private.row_id",
            "vital_private.sums_of",
            "vital_private.take_back_lapsed",
            "vital_private.upsert_runs",
        ),
        frozenset[str](),
    ),
}

# Budgets 1 to 9: of each user for all, for acme and for another; of organizations; of a service; of Alice and Bob themselves.
BUDGETS: list[Row] = [
    {"entity_type": "user"},
    {"entity_type": "user", "organization_id": "acme"},
    {"entity_type": "user", "organization_id": "other"},
    {"entity_type": "organization", "entity_id": "acme"},
    {"entity_type": "organization", "entity_id": "other"},
    {"entity_type": "service", "organization_id": "acme"},
    {"entity_type": "service"},
    {"entity_type": "user", "entity_id": ALICE},
    {"entity_type": "user", "entity_id": BOB},
]
# Which budgets a reader sees, and of which of them the windows and alerts, by the names of their entities.
BUDGET_READERS: dict[str, tuple[set[int], set[tuple[int, str]]]] = {
    "owner of rows": ({1, 2, 8}, {(1, ALICE), (2, ALICE), (8, ALICE)}),
    "plain member": ({1, 2, 9}, {(1, BOB), (2, BOB), (9, BOB)}),
    "organization admin": ({1, 2, 4, 6}, {(2, ALICE), (2, BOB), (4, "acme"), (6, "workflow")}),
    "admin of another": ({1, 3, 5}, {(1, CAROL), (3, CAROL), (5, "other")}),
    "stranger": ({1}, set()),
    "signed in without a subject": ({1}, set()),
    "subject that is no uuid": ({1}, set()),
    "subject of another type": ({1}, set()),
    "subject null": ({1}, set()),
    "service role": (
        set(range(1, 10)),
        {(1, ALICE), (1, BOB), (1, CAROL), (2, ALICE), (2, BOB), (3, CAROL), (4, "acme"), (5, "other")}
        | {(6, "workflow"), (7, "workflow"), (8, ALICE), (9, BOB)},
    ),
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


@contextmanager
def budgeted(connection: Connection) -> Iterator[dict[int, int]]:
    """The BUDGETS, each with what Alice, Bob and Carol have spent and an alert of it; their ids by their numbers."""
    with populated(connection):
        ids = {
            number: set_budget(connection, total_limit=1, alert_thresholds=["1"], **budget)["id"]
            for number, budget in enumerate(BUDGETS, start=1)
        }
        for number, (user, organization) in enumerate(OWNERS[:3], start=21):
            record(connection, a_cost(number, 2, user_id=user, organization_id=organization, service_type="workflow"))
        acquire(connection, "h", [wish(ids[1], ALICE, unit=0, want=0)])
        yield ids


@pytest.mark.parametrize("reader", READERS)
def test_everyone_sees_exactly_the_budgets_windows_and_alerts_that_are_theirs(
    anywhere: Connection, reader: str
) -> None:
    """If this failed, a customer would read what another may spend and has spent, or not see their own limits."""
    role, claims, _ = READERS[reader]
    budgets, windows = BUDGET_READERS[reader]
    with budgeted(anywhere) as ids, acting_as(anywhere, role, claims):
        numbers = {budget_id: number for number, budget_id in ids.items()}
        seen = anywhere.execute("select id from budget_limits").fetchall()
        assert {numbers[row["id"]] for row in seen} == budgets
        for relation in ("budget_windows", "budget_status", "cost_alerts"):
            query = sql.SQL("select budget_id, entity_id from {}").format(sql.Identifier(relation))
            assert {(numbers[row["budget_id"]], row["entity_id"]) for row in anywhere.execute(query)} == windows, (
                relation
            )


@pytest.mark.parametrize("reader", READERS)
def test_asking_what_a_call_would_meet_shows_no_more_than_the_tables(anywhere: Connection, reader: str) -> None:
    """If this failed, naming another user would show what they have spent."""
    role, claims, _ = READERS[reader]
    budgets, windows = BUDGET_READERS[reader]
    met = {1: ALICE, 2: ALICE, 4: "acme", 6: "workflow", 7: "workflow", 8: ALICE}
    with budgeted(anywhere) as ids, acting_as(anywhere, role, claims):
        numbers = {budget_id: number for number, budget_id in ids.items()}
        found = anywhere.execute(
            "select * from check_budget(organization_id => 'acme', user_id => %s, service_type => 'workflow')", [ALICE]
        ).fetchall()
    shown = {numbers[row["budget_id"]]: (row["entity_id"], row["spent"] > 0) for row in found}
    assert shown == {
        number: (entity, True) for number, entity in met.items() if number in budgets and (number, entity) in windows
    }


def test_grants_are_for_the_service_role_alone(anywhere: Connection) -> None:
    """If this failed, users would see which processes run and what they hold."""
    with budgeted(anywhere) as ids:
        acquire(anywhere, "h", [wish(ids[1], "u-9", unit="0.5")])
        with acting_as(anywhere, "service_role"):
            assert len(anywhere.execute("select from budget_grants").fetchall()) == 1
        for role in ("authenticated", "anon"):
            with acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(InsufficientPrivilege):
                anywhere.execute("select from budget_grants")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "statement",
    [
        "insert into budget_limits (entity_type, daily_limit) values ('user', 5)",
        "update budget_limits set daily_limit = 1000",
        "delete from budget_limits",
    ],
)
def test_no_user_changes_a_budget(anywhere: Connection, role: str, statement: str) -> None:
    """If this failed, users would lift their own limits."""
    with budgeted(anywhere), acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(InsufficientPrivilege):
        anywhere.execute(statement)


def test_anonymous_visitors_cannot_ask_what_a_call_would_meet(anywhere: Connection) -> None:
    """If this failed, the publishable key would show budgets."""
    with budgeted(anywhere), acting_as(anywhere, "anon"), pytest.raises(InsufficientPrivilege):
        anywhere.execute("select * from check_budget(user_id => %s)", [ALICE])


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
        (relation, "service_role", privilege)
        for relation in ("public.budget_limits", "public.organization_members")
        for privilege in ("insert", "update", "delete")
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
        "update budget_windows set spent = 0",
        "delete from budget_windows",
        "update budget_grants set amount = 0",
        "insert into budget_grants select id, 'me', 1, now() from budget_windows",
        "update cost_alerts set delivered_at = now()",
        "delete from cost_alerts",
        "update vital_private.budget_periods set limit_amount = 0",
        "insert into vital_private.incoming_calls (id) values (gen_random_uuid())",
        "truncate budget_limits cascade",
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


def test_the_service_role_manages_budgets(anywhere: Connection) -> None:
    """If this failed, budgets could be set with our command line only, and not from Supabase's own table editor."""
    with acting_as(anywhere, "service_role"):
        anywhere.execute("insert into budget_limits (entity_type, daily_limit) values ('user', 5)")
        assert record(anywhere, a_cost(1))["inserted"] == 1
        anywhere.execute("update budget_limits set daily_limit = 6")
        assert [row["limit_amount"] for row in anywhere.execute("select limit_amount from budget_windows")] == [6]
        assert len(anywhere.execute("delete from budget_limits returning id").fetchall()) == 1
        assert anywhere.execute("select from budget_windows").fetchall() == []


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
        "budgets_v1()",
        "set_budget_v1('{}')",
        "remove_budget_v1(1)",
        "acquire_grants_v1('h', '[]')",
        "renew_grants_v1('h')",
        "check_budget_v1('{}')",
        "budget_windows_v1()",
        "cost_alerts_v1()",
        "claim_alerts_v1('h')",
        "settle_alerts_v1('[]', true)",
        "audit_budgets_v1()",
        "recount_budgets_v1()",
        "usage_history_v1()",
        "database_time_v1()",
        "vital_private.insert_calls('[]', 'h')",
        "vital_private.answer_ask('h', '{}', '{}', 60)",
        "vital_private.post_spend(null, 'h', null)",
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
        for asked in ("model_prices_v1()", "unpriced_calls_v1(null, null, 10)", "reprice_calls_v1('[]')"):
            anywhere.execute(f"select {asked}")
        budget = set_budget(anywhere, total_limit=5)["id"]
        [answer] = acquire(anywhere, "h", [wish(budget)])
        assert answer["admitted"]
        assert record(anywhere, a_cost(10, 5))["inserted"] == 1
        assert len(call(anywhere, "claim_alerts_v1", holder="h")) == 1
        assert call(anywhere, "settle_alerts_v1", ids="[]", delivered=True) == {"settled": 0}
        assert len(call(anywhere, "budget_windows_v1")) == 1
        assert audit(anywhere) == []
        renew(anywhere, "h")
        for asked in (
            "budgets_v1()",
            "usage_history_v1()",
            "database_time_v1()",
            "cost_alerts_v1()",
            "check_budget_v1('{}')",
        ):
            anywhere.execute(f"select {asked}")
        assert call(anywhere, "remove_budget_v1", budget_id=budget) == {"removed": 1}
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
    assert {row["name"] for row in views} == {
        "public.agent_usage_detailed",
        "public.budget_status",
        "public.workflow_analytics",
    }
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
    assert len(policies) == 21
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
        ("budget_limits", ("service_role",)),
        ("organization_members", ("service_role",)),
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
