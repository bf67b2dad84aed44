"""Events, other costs and executions: each once, priced as of when they arose, and always in the sums."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.sql.helpers import ADMIN, ALICE, BOB, STRANGER, Connection, Row, a_call, acting_as, call, call_id, record
from tests.sql.platform_rows import FUNCTIONS, MOMENT, SCORES, a_cost, an_event, an_execution, differences, later, send
from tests.sql.test_budget_properties import SETTINGS
from tests.sql.test_retention import NOW
from tests.support.effort import examples

ROWS = {"platform_events": an_event, "tenant_cost_events": a_cost, "agent_executions": an_execution}
TIMES = {"platform_events": "occurred_at", "tenant_cost_events": "occurred_at", "agent_executions": "started_at"}
MOMENTS = [MOMENT, later(MOMENT, minutes=4.9), later(MOMENT, minutes=5), later(MOMENT, days=1), later(MOMENT, days=-40)]

OWNERS = st.fixed_dictionaries(
    {
        "organization_id": st.sampled_from(["acme", "other", None]),
        "user_id": st.sampled_from([ALICE, BOB, None]),
    }
)
AMOUNTS = st.decimals("-1000", "1000", places=9) | st.just(Decimal("0.0000000001"))
EVENTS = st.fixed_dictionaries(
    {
        "session_id": st.sampled_from(["s-1", None]),
        "category": st.sampled_from(["user_behavior", "system_health", "business"]),
        "event_name": st.sampled_from(["page_view", "revenue"]),
        "value": st.none() | AMOUNTS,
        "properties": st.sampled_from(
            [{}, {"status": 503}, {"status": "503"}, {"success": False}, {"error_type": "X"}]
        ),
    }
)
COSTS = st.fixed_dictionaries(
    {
        "cost_type": st.sampled_from(["storage", "compute", "search", "other"]),
        "service": st.sampled_from(["files", None]),
        "resource": st.sampled_from(["bucket", None]),
        "quantity": AMOUNTS,
        "unit_price": st.none() | st.decimals("0", "10", places=6),
        "cost_usd": st.none() | AMOUNTS,
    }
)
EXECUTIONS = st.fixed_dictionaries(
    {
        "agent_id": st.sampled_from(["cardio", "legal"]),
        "success": st.booleans(),
        "duration_ms": st.none() | st.integers(0, 10**6),
        "total_tokens": st.none() | st.integers(0, 10**6),
        "cost_usd": st.none() | st.decimals("0", "10", places=6),
        "rating": st.none() | st.decimals("1", "5", places=1),
        "citations": st.none() | st.integers(0, 20),
        **{score: st.none() | st.decimals("0", "1", places=3) for score in SCORES},
    }
)
KINDS = {"platform_events": EVENTS, "tenant_cost_events": COSTS, "agent_executions": EXECUTIONS}


def in_month(moment: datetime) -> datetime:
    """When the month of a moment began (UTC)."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class PlatformLedger(RuleBasedStateMachine):
    """Rows come in any order of time, come again, get prices, are forgotten, archived, dropped, and come late."""

    db: Connection

    def __init__(self) -> None:
        super().__init__()
        self.transaction = self.db.transaction(force_rollback=True)
        self.transaction.__enter__()
        self.number = 0
        self.sent: dict[str, list[Row]] = {table: [] for table in ROWS}
        self.gone: dict[str, list[Row]] = {table: [] for table in ROWS}
        self.db.execute("update retention_policies set keep = '100 years' where table_name ~ 'min$|daily|hourly'")

    def teardown(self) -> None:
        self.transaction.__exit__(None, None, None)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for table in ROWS:
            self.add(table, data)

    @rule(table=st.sampled_from(list(ROWS)), data=st.data())
    def record(self, table: str, data: st.DataObject) -> None:
        self.add(table, data)

    def add(self, table: str, data: st.DataObject) -> None:
        """New rows, some that were sent before, and one that is none."""
        fresh = []
        for one in data.draw(
            st.lists(st.tuples(KINDS[table], OWNERS, st.sampled_from(MOMENTS)), min_size=1, max_size=6)
        ):
            self.number += 1
            detail, owner, moment = one
            fresh.append(ROWS[table](self.number, **detail, **owner, **{TIMES[table]: moment}))
        again = data.draw(st.lists(st.sampled_from(self.sent[table]), max_size=3)) if self.sent[table] else []
        bad = data.draw(st.sampled_from([[], [{"id": "poison"}]]))
        answer = send(self.db, table, *again, *bad, *fresh, fresh[-1])
        assert len(answer["rejected"]) == len(bad)
        self.sent[table] += fresh

    @rule(again=st.booleans())
    def reprice(self, again: bool) -> None:
        price = {"cost_type": "compute", "unit": "hour", "unit_price": "0.5", "valid_from": "2020-01-01T00:00:00Z"}
        self.db.execute("select add_resource_price_v1(%s)", [json.dumps(price)])
        self.db.execute("select reprice_costs_v1(again => %s)", [again])

    @rule(who=st.sampled_from([ALICE, BOB]), organization=st.sampled_from(["acme", None]))
    def forget(self, who: str, organization: str | None) -> None:
        answer = self.db.execute("select forget_user(%s, %s) as done", [who, organization]).fetchone()
        assert answer is not None
        assert answer["done"]["done"]
        for table in ROWS:
            left = self.db.execute(
                f"select count(*) as n from {table} where user_id = %s and (%s::text is null or organization_id = %s)",  # type: ignore[arg-type]
                [who, organization, organization],
            ).fetchone()
            assert left == {"n": 0}
        self.sent = {table: [] for table in ROWS}  # what is sent again after that is new
        for row in (row for rows in self.gone.values() for row in rows):
            if row["user_id"] == who and organization in (None, row["organization_id"]):
                row |= {"user_id": None, "session_id": None}

    @rule()
    def make_partitions(self) -> None:
        self.db.execute("select maintain_partitions()")

    @rule(table=st.sampled_from(list(ROWS)), drop=st.booleans())
    def archive(self, table: str, drop: bool) -> None:
        """The oldest month, as `vital-tracking archive` does it."""
        rows = self.db.execute(f"select * from {table} order by {TIMES[table]}").fetchall()  # type: ignore[arg-type]
        oldest = [row for row in rows if in_month(row[TIMES[table]]) == in_month(rows[0][TIMES[table]])]
        if not oldest:
            return
        since = in_month(rows[0][TIMES[table]])
        span = {"since": since, "until": in_month(since + timedelta(days=31))}
        held = call(self.db, "row_totals_v1", table_name=table, **span)
        assert held["rows"] == len(oldest)
        whole = {"table_name": table, "month": since.date(), "held": held["rows"], "amount": held["amount"]}
        for wrong in ({"held": len(oldest) + 1}, {"amount": "0.5555"}, {"ids": "-1"}):
            with (
                pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="have changed"),
                self.db.transaction(),
            ):
                call(
                    self.db,
                    "archive_month_v1",
                    **{**whole, "ids": held["ids"], "file": "f", "drop_rows": drop, **wrong},
                )
        call(self.db, "archive_month_v1", **whole, ids=held["ids"], file="f", drop_rows=drop)
        if drop:
            self.take_away(table, oldest)

    @rule(table=st.sampled_from(list(ROWS)))
    def expire(self, table: str) -> None:
        """Retention deletes what is older than the newest month with rows."""
        rows = self.db.execute(f"select * from {table} order by {TIMES[table]}").fetchall()  # type: ignore[arg-type]
        keep = "update retention_policies set keep = now() - %s where table_name = %s"
        self.db.execute(keep, [in_month(rows[-1][TIMES[table]]) if rows else NOW - timedelta(days=31), table])
        self.db.execute("select apply_retention(false)")
        left = self.db.execute(f"select id from {table}").fetchall()  # type: ignore[arg-type]
        self.take_away(table, [row for row in rows if {"id": row["id"]} not in left])
        self.db.execute("update retention_policies set keep = null where table_name = %s", [table])

    def take_away(self, table: str, rows: list[Row]) -> None:
        self.gone[table] += rows
        self.sent[table] = [row for row in self.sent[table] if row["id"] not in {str(one["id"]) for one in rows}]

    @invariant()
    def sums_are_those_of_the_rows(self) -> None:
        assert differences(self.db, self.gone) == []


def test_sums_are_those_of_the_rows_whatever_happens_to_them(db: Connection) -> None:
    PlatformLedger.db = db
    run_state_machine_as_test(
        PlatformLedger, settings=settings(SETTINGS, max_examples=examples(16), stateful_step_count=8)
    )


@pytest.mark.parametrize("table", list(ROWS))
def test_a_row_is_stored_once_and_a_bad_one_alone_is_refused(db: Connection, table: str) -> None:
    rows = [ROWS[table](number) for number in range(1, 4)]
    far = {**ROWS[table](9), TIMES[table]: "20000-01-01T00:00:00Z"}
    assert send(db, table, *rows, far) == {
        "inserted": 3,
        "duplicate": 0,
        "rejected": [{"id": call_id(9), "sqlstate": "23514", "rule": f"{table}_{TIMES[table]}"}],
    }
    assert send(db, table, *rows) == {"inserted": 0, "duplicate": 3, "rejected": []}


def cost_of(db: Connection, **changes: Any) -> Row:
    """What the database makes of a cost."""
    assert send(db, "tenant_cost_events", a_cost(1, **changes))["inserted"] == 1
    row = db.execute(
        "select quantity, unit, unit_price, cost_usd, price_version, priced from tenant_cost_events"
    ).fetchone()
    assert row is not None
    return row


def test_a_cost_has_the_price_that_was_in_force_when_it_arose(db: Connection) -> None:
    def price(unit_price: str, since: str, resource: str | None = None) -> int:
        given = {"cost_type": "storage", "unit_price": unit_price, "valid_from": since, "resource": resource}
        added = db.execute("select add_resource_price_v1(%s) as id", [json.dumps(given)]).fetchone()
        assert added is not None
        number: int = added["id"]
        return number

    price("1", "2026-01-16T00:00:00Z")  # too late
    own = price("0.5", "2026-01-01T00:00:00Z", resource="vault")
    assert cost_of(db, resource="vault") == {
        "quantity": Decimal(10),
        "unit": "gb_month",
        "unit_price": Decimal("0.5"),
        "cost_usd": Decimal("5.0"),
        "price_version": f"resource_prices:{own}",
        "priced": True,
    }
    send(db, "tenant_cost_events", a_cost(2), a_cost(3, occurred_at="2026-01-17T00:00:00Z"))
    costs = db.execute("select cost_usd from tenant_cost_events where resource is null order by id").fetchall()
    assert [row["cost_usd"] for row in costs] == [Decimal("0.23"), Decimal(10)]
    assert price("0.5", "2026-01-01T00:00:00Z", resource="vault") == own
    audited = db.execute("select operation, changes -> 'unit_price' as price from admin_audit order by id").fetchall()
    assert [tuple(line.values()) for line in audited] == [("insert", [None, "1"]), ("insert", [None, "0.5"])]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="A price names its unit_price"), db.transaction():
        db.execute("""select add_resource_price_v1('{"cost_type": "other", "unit_price": 1}')""")
    with pytest.raises(psycopg.errors.UniqueViolation, match=r"There is another price of vault from"):
        price("0.6", "2026-01-01T00:00:00Z", resource="vault")


@pytest.mark.parametrize(
    ("given", "unit_price", "cost"),
    [
        ({"unit_price": "0.1"}, "0.1", "1.0"),
        ({"cost_usd": "7"}, None, "7"),
        ({"cost_usd": "7", "unit_price": "0.7"}, "0.7", "7.0"),
        ({"cost_usd": "7", "unit_price": "0.1"}, None, "7"),  # they contradict each other: what was paid counts
        ({"cost_usd": "-3"}, None, "-3"),  # a credit
    ],
)
def test_a_cost_that_brings_its_price_keeps_it(db: Connection, given: Row, unit_price: str | None, cost: str) -> None:
    row = cost_of(db, **given)
    assert (row["unit_price"], row["cost_usd"], row["price_version"]) == (
        None if unit_price is None else Decimal(unit_price),
        Decimal(cost),
        "given",
    )


def test_a_cost_without_a_price_is_null_until_there_is_one(db: Connection) -> None:
    row = cost_of(db, cost_type="compute")
    assert (row["unit"], row["cost_usd"], row["priced"]) == ("hour", None, False)
    given = {"cost_type": "compute", "unit_price": "0.25", "valid_from": "2026-01-01T00:00:00Z"}
    db.execute("select add_resource_price_v1(%s)", [json.dumps(given)])
    answer = db.execute("select reprice_costs_v1() as done").fetchone()
    assert answer == {"done": {"repriced": 1, "unpriced": 0, "next": None}}
    assert db.execute("select cost_usd from tenant_cost_events").fetchall() == [{"cost_usd": Decimal("2.50")}]


def test_the_bill_of_a_tenant_is_one(db: Connection) -> None:
    record(
        db, a_call(1, organization_id="acme", user_id=ALICE), a_call(2, organization_id="acme", call_type="embedding")
    )
    send(db, "tenant_cost_events", a_cost(3, organization_id="acme", user_id=ALICE), a_cost(4, organization_id="other"))
    bill = db.execute(
        "select cost_type, costs, cost_usd from analytics.tenant_cost_summary where organization_id = 'acme' order by 1"
    ).fetchall()
    assert [tuple(row.values()) for row in bill] == [
        ("embedding", 1, Decimal("0.42")),
        ("llm", 1, Decimal("0.42")),
        ("storage", 1, Decimal("0.23")),
    ]
    send(db, "platform_events", an_event(5, organization_id="acme", category="business", event_name="revenue", value=2))
    day = db.execute(
        "select total_cost_usd, revenue_usd, margin_usd from analytics.tenant_daily_summary where organization_id = 'acme'"
    ).fetchall()
    assert [tuple(row.values()) for row in day] == [(Decimal("1.07"), Decimal(2), Decimal("0.93"))]
    for since, until, cost in (
        (None, None, "1.07"),
        ("2026-01-15 10:00Z", "2026-01-15 10:00:00.000001Z", "1.07"),  # parts of one day
        ("2026-01-14", "2026-01-16", "1.07"),
        ("2026-01-15 10:00:00.000001Z", None, "0"),
    ):
        found = db.execute("select get_tenant_cost('acme', %s, %s) as cost", [since, until]).fetchone()
        assert found == {"cost": Decimal(cost)}


VIEWS = (
    "platform_events",
    "tenant_cost_events",
    "agent_executions",
    "tenant_cost_summary",
    "tenant_daily_summary",
    "agent_performance_summary",
    "tenant_metrics_realtime",
    "cost_metrics_realtime",
)


def seen(db: Connection, view: str, role: str, who: str | None) -> set[str | None]:
    """Whose rows of a view somebody sees."""
    with acting_as(db, role, {"sub": who}):
        rows = db.execute(f"select distinct organization_id from analytics.{view}").fetchall()  # type: ignore[arg-type]
    return {row["organization_id"] for row in rows}


@pytest.mark.parametrize("view", VIEWS)
def test_who_sees_what(db: Connection, view: str) -> None:
    now = db.execute("select now() as now").fetchone()
    assert now is not None
    for number, (organization, who) in enumerate([("acme", ALICE), ("acme", BOB), ("other", BOB)], start=1):
        owner = {"organization_id": organization, "user_id": who}
        for table, row in ROWS.items():
            assert send(db, table, row(number, **owner, **{TIMES[table]: now["now"]}))["inserted"] == 1
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    assert seen(db, view, "service_role", None) == {"acme", "other"}
    assert seen(db, view, "authenticated", ADMIN) == {"acme"}
    assert seen(db, view, "authenticated", ALICE) == {"acme"}
    assert seen(db, view, "authenticated", BOB) == {"acme", "other"}
    assert seen(db, view, "authenticated", STRANGER) == set()
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        seen(db, view, "anon", None)


def test_a_user_sees_the_sums_of_what_is_his_own_alone(db: Connection) -> None:
    now = db.execute("select now() as now").fetchone()
    assert now is not None
    for number, who in enumerate((ALICE, BOB, BOB), start=1):
        for table, row in ROWS.items():
            send(db, table, row(number, organization_id="acme", user_id=who, **{TIMES[table]: now["now"]}))
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    for who, rows in ((ADMIN, 3), (ALICE, 1), (BOB, 2)):
        with acting_as(db, "authenticated", {"sub": who}):
            for view, measure in (
                ("tenant_cost_summary", "costs"),
                ("tenant_daily_summary", "events"),
                ("agent_performance_summary", "executions"),
                ("tenant_metrics_realtime", "events"),
                ("cost_metrics_realtime", "costs"),
            ):
                found = db.execute(f"select sum({measure}) as n from analytics.{view}").fetchone()  # type: ignore[arg-type]
                assert found == {"n": rows}, view


def test_nobody_but_the_service_role_records(db: Connection) -> None:
    for function in (*FUNCTIONS.values(), "add_resource_price_v1"):
        with (
            acting_as(db, "authenticated", {"sub": ADMIN}),
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            db.transaction(),
        ):
            db.execute(f"select {function}('[]')")  # type: ignore[arg-type]


def test_retention_drops_months_of_events_and_keeps_their_sums(db: Connection) -> None:
    db.execute("select ensure_partitions_v1('2020-03-01', 1)")
    send(db, "platform_events", an_event(1, occurred_at="2020-03-05T00:00:00Z"), an_event(2))
    send(db, "tenant_cost_events", a_cost(3, occurred_at="2020-03-05T00:00:00Z"))
    before = db.execute("select * from platform_events_5min order by bucket").fetchall()
    db.execute("update retention_policies set keep = '20 years' where table_name like 'platform_events_%%'")
    answer = db.execute("select apply_retention(false) as done").fetchone()
    assert answer is not None
    of_tables = {table["table_name"]: table for table in answer["done"]["tables"]}
    assert of_tables["platform_events"]["rows"] == 1
    assert [month["month"] for month in of_tables["platform_events"]["months"] if month["rows"]] == ["2020-03"]
    assert of_tables["tenant_cost_events"]["rows"] == 0  # kept seven years
    assert db.execute("select id::text from platform_events").fetchall() == [{"id": call_id(2)}]
    assert db.execute("select * from platform_events_5min order by bucket").fetchall() == before


@pytest.mark.parametrize("table", list(ROWS))
def test_a_file_that_names_somebody_who_was_forgotten_meanwhile_is_no_archive(db: Connection, table: str) -> None:
    """If this failed, the month would go with the last trace in a file, or retention would call that file whole."""
    send(db, table, ROWS[table](1, user_id=ALICE, organization_id="acme"), ROWS[table](2, user_id=BOB))
    db.execute("select maintain_partitions()")

    def archive(totals: Row, *, drop: bool) -> None:
        whole = {"table_name": table, "month": MOMENT[:10], "held": totals["rows"], "file": "f", "drop_rows": drop}
        call(db, "archive_month_v1", **whole, amount=totals["amount"], ids=totals["ids"])

    def archived() -> bool:
        db.execute("update retention_policies set keep = '31 days' where table_name = %s", [table])
        plan = call(db, "retention_plan_v1")
        [month] = [m for t in plan["tables"] if t["table_name"] == table for m in t["months"] if m["rows"]]
        return bool(month["archived"])

    written = call(db, "row_totals_v1", table_name=table)
    archive(written, drop=False)
    assert archived()
    assert call(db, "forget_user", user_id=ALICE)["done"]
    now = call(db, "row_totals_v1", table_name=table)
    assert (now["rows"], now["amount"]) == (written["rows"], written["amount"])
    assert not archived()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="have changed"), db.transaction():
        archive(written, drop=True)
    archive(now, drop=True)
    [listed] = [call(db, "months_v1", table_name=table)["months"]]
    assert listed == []


def test_months_of_costs_do_not_go_too_early_and_then_whole_days_are_told(db: Connection) -> None:
    """If this failed, rows that come late would find a month with a hole, or costs could not be repriced any more."""
    send(db, "tenant_cost_events", a_cost(1, occurred_at=NOW - timedelta(days=70)), a_cost(2))
    asked = {"table_name": "tenant_cost_events", "held": 1, "file": "f", "drop_rows": True}
    for moment, number, complaint in (
        (NOW - timedelta(days=70), 1, "has not ended 90 days ago"),
        (NOW, 0, "has not ended"),
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=complaint), db.transaction():
            call(db, "archive_month_v1", **asked, month=moment.date(), amount="0.23", ids=str(number))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no months of budget_limits"), db.transaction():
        call(db, "months_v1", table_name="budget_limits")
    call(db, "archive_month_v1", **asked, month=MOMENT[:10], amount="0.23", ids="2")
    cost = "select get_tenant_cost('acme', '2026-01-15', %s) as cost"
    send(db, "tenant_cost_events", a_cost(3, organization_id="acme", occurred_at=NOW))
    assert db.execute(cost, ["2026-01-16"]).fetchone() == {"cost": 0}
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="whole days"), db.transaction():
        db.execute(cost, ["2026-01-15 10:30Z"])
