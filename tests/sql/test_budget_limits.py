"""Budgets made, changed and removed: what is refused, and that their windows are right from the first moment on."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import CheckViolation

from tests.conftest import HOSTED_DEFAULT_PRIVILEGES
from tests.sql.helpers import (
    NOON,
    Connection,
    Row,
    a_cost,
    acquire,
    assert_waits_for_lock,
    audit,
    call,
    connect,
    record,
    renew,
    set_budget,
    spent,
    the_window,
    windows,
    wish,
)
from tests.support.postgres import PostgresServer
from tests.support.supabase_cli import db_push

REPOSITORY = Path(__file__).parents[2]
SEED = REPOSITORY / "supabase" / "seed.sql"

LIMITS = ("minute_limit", "daily_limit", "monthly_limit", "total_limit")

# What a budget may not be, and words that its refusal must hold: what is wrong, and what to do.
SHADOWED = ("CET", "EET", "MET", "WET")  # zones of which PostgreSQL takes the names for abbreviations

GARBAGE: list[tuple[Row, str, str]] = [
    *(({limit: value}, "finite number, 0 or more", "to lift a limit") for limit in LIMITS for value in ("-0.01", "NaN")),
    ({"daily_limit": "Infinity"}, "finite number", "NULL"),
    ({"daily_limit": None}, "needs a limit", "daily_limit"),
    ({"entity_type": "team"}, "entity_type 'team' is unknown", "organization, service, tier"),
    ({"entity_type": None}, "entity_type NULL is unknown", "organization"),
    ({"entity_id": ""}, "entity_id is empty", "*"),
    ({"organization_id": ""}, "organization_id is empty", "NULL"),
    ({"metric": "euro"}, "metric 'euro' is unknown", "cost_usd, tokens, calls"),
    ({"action": "explode"}, "action 'explode' is unknown", "alert, throttle, downgrade, block"),
    ({"when_unavailable": "maybe"}, "when_unavailable 'maybe' is unknown", "allow, deny"),
    ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is no IANA time zone", "Europe/Berlin"),
    ({"timezone": "CEST"}, "timezone 'CEST'", "UTC"),
    *(({"timezone": name}, f"timezone '{name}' would be read as a fixed offset", "Europe/") for name in SHADOWED),
    ({"timezone": "+02:00"}, "timezone '+02:00'", "UTC"),
    ({"timezone": ""}, "timezone ''", "UTC"),
    *(
        ({"alert_thresholds": [value]}, "alert_thresholds", "{0.5,0.8,1.0}")
        for value in ("0", "-1", "NaN", "Infinity", "10.1", None)
    ),
    ({"alert_thresholds": ["0.5"] * 11}, "at most ten", "{0.5,0.8,1.0}"),
    ({"throttle_interval": "0"}, "throttle_interval", "10 seconds"),
    ({"throttle_interval": "-1 second"}, "throttle_interval", "10 seconds"),
    ({"throttle_interval": "25 hours"}, "at most a day", "10 seconds"),
    ({"downgrade_to": ""}, "downgrade_to is empty", "NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "problem", "fix"), GARBAGE, ids=lambda value: str(value)[:40])
def test_a_wrong_budget_is_refused_with_a_hint_how_to_fix_it(
    db: Connection, columns: Row, problem: str, fix: str
) -> None:
    """If this failed, a slip of an admin's would stop every call, or none, without a word."""
    budget = {"entity_type": "user", "action": "block", "daily_limit": 5, **columns}
    with pytest.raises(CheckViolation) as refused:
        set_budget(db, **budget)
    assert problem in str(refused.value.diag.message_primary)
    assert fix in str(refused.value.diag.message_hint)
    good = set_budget(db, daily_limit=5)["id"]
    names = ", ".join(f"{name} = %({name})s" for name in columns)
    with pytest.raises(CheckViolation) as refused, db.transaction():
        db.execute(f"update budget_limits set {names} where id = {good}", columns)  # type: ignore[arg-type]
    assert problem in str(refused.value.diag.message_primary)
    assert fix in str(refused.value.diag.message_hint)


def test_what_is_allowed_is_kept_as_given(db: Connection) -> None:
    """If this failed, an admin would get another budget than the one they wrote."""
    columns = {
        "organization_id": "acme",
        "entity_type": "tier",
        "entity_id": "tier_2",
        "metric": "tokens",
        "minute_limit": "0",
        "daily_limit": "5.000000000000000000000000000001",
        "monthly_limit": None,
        "total_limit": None,
        "action": "throttle",
        "alert_thresholds": ["0.01", "10"],
        "throttle_interval_s": "0.5",
        "downgrade_to": None,
        "timezone": "America/Argentina/Buenos_Aires",
        "enforce": False,
        "strict": True,
        "when_unavailable": "deny",
    }
    stored = set_budget(db, **columns)
    assert Decimal(stored["throttle_interval_s"]) == Decimal("0.5")
    assert {**{name: stored[name] for name in columns}, "throttle_interval_s": "0.5"} == columns
    listed = call(db, "budgets_v1")
    assert listed["budgets"] == [stored]
    assert datetime.fromisoformat(stored["counting_since"]).second == 0


def test_a_budget_is_changed_in_the_columns_given_and_no_others(db: Connection) -> None:
    """If this failed, raising a limit would silently reset the budget's zone or action."""
    first = set_budget(db, daily_limit=5, timezone="Asia/Kolkata", strict=True, alert_thresholds=["0.9"], enforce=False)
    second = set_budget(db, monthly_limit=50, when_unavailable="deny")
    changed = {"monthly_limit": "50", "when_unavailable": "deny", "updated_at": second["updated_at"]}
    assert second == {**first, **changed}
    assert set_budget(db, daily_limit=None, enforce=True)["daily_limit"] is None
    with pytest.raises(CheckViolation):
        set_budget(db, monthly_limit=None)


def test_each_organization_entity_metric_and_action_has_one_budget(db: Connection) -> None:
    """If this failed, a second budget for the same thing would be in force beside the first."""
    keys: list[Row] = [
        {},
        {"organization_id": "acme"},
        {"entity_id": "u-1"},
        {"metric": "calls"},
        {"action": "alert"},
        {"entity_type": "session"},
    ]
    first = [set_budget(db, daily_limit=5, **key)["id"] for key in keys]
    assert len(set(first)) == len(keys)
    assert [set_budget(db, daily_limit=6, **key)["id"] for key in keys] == first
    with pytest.raises(psycopg.errors.UniqueViolation), db.transaction():
        db.execute("insert into budget_limits (entity_type, daily_limit, action) values ('user', 1, 'block')")


@pytest.mark.parametrize("budget", ["[]", "3", "null", '"text"'])
def test_nonsense_makes_no_budget(db: Connection, budget: str) -> None:
    """If this failed, nonsense would make a budget of nothing but defaults."""
    with pytest.raises(psycopg.DataError), db.transaction():
        call(db, "set_budget_v1", budget=budget)


def test_the_version_changes_with_every_change(db: Connection) -> None:
    """If this failed, processes would go on with budgets that are no longer in force."""
    seen = call(db, "budgets_v1")["version"]
    for change in (
        lambda: set_budget(db, daily_limit=5),
        lambda: set_budget(db, daily_limit=6),
        lambda: db.execute("update budget_limits set enforce = false"),
        lambda: set_budget(db, entity_type="session", daily_limit=6),
        lambda: db.execute("delete from budget_limits where entity_type = 'session'"),
    ):
        change()
        version = call(db, "budgets_v1")["version"]
        assert version != seen
        assert call(db, "renew_grants_v1", holder="h")["version"] == version
        seen = version


def now(db: Connection) -> datetime:
    """The moment at which the test's transaction began, and with it all that the database calls now."""
    found = db.execute("select now()").fetchone()
    assert found is not None
    return found["now"]  # type: ignore[no-any-return]


def test_windows_that_run_when_a_budget_is_made_hold_what_was_spent_before(db: Connection) -> None:
    """If this failed, a budget made at noon would let the morning's money be spent again."""
    moment = now(db)
    month = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    record(
        db,
        a_cost(1, 1, created_at=moment.isoformat()),
        a_cost(2, 2, created_at=month.isoformat()),
        a_cost(3, 4, created_at=(month - timedelta(microseconds=1)).isoformat()),
        a_cost(4, 8, created_at=NOON),
        a_cost(5, 16, created_at=moment.isoformat(), user_id="u-2"),
    )
    budget = set_budget(db, minute_limit=9, daily_limit=9, monthly_limit=9, total_limit=9)["id"]
    same_minute = month == moment.replace(second=0, microsecond=0)
    same_day = moment.day == 1
    running = {
        row["period"]: int(row["spent"])
        for row in windows(db, budget_id=budget, entity_id="u-1")
        if row["starts_at"] <= moment
    }
    assert running == {
        "minute": 3 if same_minute else 1,
        "day": 3 if same_day else 1,
        "month": 3,
        "total": 11 if same_minute else 9,
    }
    assert {row["spent"] for row in windows(db, budget_id=budget, entity_id="u-2")} == {16}
    assert audit(db) == []


def test_a_limit_that_changes_changes_the_running_windows(db: Connection) -> None:
    """If this failed, a raised limit would stop calls until the next day."""
    budget = set_budget(db, daily_limit=5, total_limit=50)["id"]
    record(db, a_cost(1, 4))
    db.execute("update budget_windows set ends_at = '2020-01-02Z', starts_at = '2020-01-01Z' where period = 'day'")
    record(db, a_cost(2, 3))
    set_budget(db, daily_limit=7, total_limit=70)
    found = [(row["period"], row["limit_amount"], row["spent"]) for row in windows(db, budget_id=budget)]
    assert found == [("day", 5, 4), ("day", 7, 3), ("total", 70, 7)]
    set_budget(db, daily_limit="0", total_limit="0.5")
    assert [row["limit_amount"] for row in windows(db, budget_id=budget)] == [5, 0, Decimal("0.5")]


def test_a_limit_that_is_lifted_takes_its_windows_and_grants_along(db: Connection) -> None:
    """If this failed, the audit would cry, or a limit that was lifted would come back with stale sums."""
    budget = set_budget(db, daily_limit=50, monthly_limit=50, total_limit=50)["id"]
    record(db, a_cost(1, 1, created_at=now(db).isoformat()))
    acquire(db, "h", [wish(budget, unit=2)])
    set_budget(db, daily_limit=None)
    assert [(row["period"], row["granted"]) for row in windows(db)] == [("month", 2), ("total", 2)]
    record(db, a_cost(2, 4, created_at=now(db).isoformat()))
    set_budget(db, daily_limit=60)
    assert [(row["period"], row["spent"], row["granted"], row["limit_amount"]) for row in windows(db)] == [
        ("day", 5, 0, 60),
        ("month", 5, 2, 50),
        ("total", 5, 2, 50),
    ]
    assert audit(db) == []


def make_older(db: Connection, days: int) -> None:
    """The budgets, the calls and the running windows, in UTC: as if all of it had been so many days ago."""
    ago = timedelta(days=days)
    db.execute("update token_usage_logs set created_at = created_at - %s", [ago])
    db.execute("alter table budget_limits disable trigger user")
    db.execute("update budget_limits set counting_since = counting_since - %s", [ago])
    db.execute("alter table budget_limits enable trigger user")
    db.execute("update vital_private.budget_periods set since = since - %s", [ago])
    db.execute(
        "update budget_windows set ends_at = vital_private.window_end(period, now() - %(ago)s, 'UTC'),"
        " starts_at = vital_private.window_start(period, now() - %(ago)s, 'UTC', starts_at - %(ago)s)",
        {"ago": ago},
    )


def test_a_limit_added_later_counts_from_then_on(db: Connection) -> None:
    """If this failed, days before the limit would have windows without their calls, and late calls would fill them by halves."""
    moment = now(db)
    set_budget(db, total_limit=50, timezone="UTC")
    record(db, a_cost(1, 1, created_at=moment.isoformat()))
    make_older(db, days=70)
    past = (moment - timedelta(days=70)).isoformat()
    set_budget(db, daily_limit=50, monthly_limit=50)
    assert [(row["period"], row["spent"]) for row in windows(db)] == [("total", 1)]
    record(db, a_cost(2, 2, created_at=past), a_cost(3, 4, created_at=moment.isoformat()))
    assert [(row["period"], row["spent"]) for row in windows(db)] == [("day", 4), ("month", 4), ("total", 7)]
    assert audit(db) == []


def test_a_total_limit_added_later_counts_from_the_budget_s_beginning(db: Connection) -> None:
    """If this failed, what the budget counts from, as it says itself, and what its total holds would differ."""
    moment = now(db)
    budget = set_budget(db, daily_limit=50, timezone="UTC")["id"]
    record(db, a_cost(1, 1, created_at=moment.isoformat()))
    make_older(db, days=70)
    record(db, a_cost(2, 2, created_at=moment.isoformat()))
    since = datetime.fromisoformat(set_budget(db, total_limit=50)["counting_since"])
    [answer] = acquire(db, "h", [wish(budget, unit=4)])
    assert answer["admitted"]
    total = the_window(db, period="total")
    assert (total["starts_at"], total["spent"], total["granted"]) == (since, 3, 4)
    assert moment - since > timedelta(days=69)
    assert audit(db) == []


def test_windows_that_have_ended_stay_true_whatever_becomes_of_the_budget(db: Connection) -> None:
    """If this failed, the audit would find differences where nothing is wrong, and nobody would believe it any more."""
    moment = now(db)
    budget = set_budget(db, daily_limit=50, monthly_limit=50, timezone="UTC")["id"]
    record(db, a_cost(1, 1, created_at=moment.isoformat()))
    make_older(db, days=70)
    record(db, a_cost(2, 2, created_at=moment.isoformat()))
    assert len(windows(db, budget_id=budget)) == 4
    for change in (
        {"daily_limit": 60},
        {"daily_limit": None},
        {"total_limit": 9},
        {"daily_limit": 40},
        {"monthly_limit": None},
        {"timezone": "Asia/Tokyo"},
        {"monthly_limit": 7, "timezone": "UTC"},
    ):
        set_budget(db, **change)
        assert audit(db) == [], change


CHANGES: list[tuple[str, Any, dict[str, int]]] = [
    ("timezone", "Pacific/Kiritimati", {"u-1": 3, "u-2": 4}),
    ("metric", "calls", {"u-1": 2, "u-2": 1}),
    ("entity_id", "u-2", {"u-2": 4}),
    ("entity_type", "agent", {"a-1": 7}),
    ("organization_id", "acme", {"u-1": 2, "u-2": 4}),
    ("action", "alert", {"u-1": 3, "u-2": 4}),
]


@pytest.mark.parametrize(("column", "value", "after"), CHANGES, ids=[case[0] for case in CHANGES])
def test_a_budget_that_counts_other_calls_is_filled_again(
    db: Connection, column: str, value: Any, after: dict[str, int]
) -> None:
    """If this failed, a changed budget would go on with sums of the calls that it counted before."""
    budget = set_budget(db, daily_limit=50, total_limit=50)["id"]
    record(
        db,
        a_cost(1, 1, agent_id="a-1"),
        a_cost(2, 2, agent_id="a-1", organization_id="acme"),
        a_cost(3, 4, agent_id="a-1", organization_id="acme", user_id="u-2"),
    )
    acquire(db, "h", [wish(budget, unit=5)])
    db.execute(f"update budget_limits set {column} = %s", [value])  # type: ignore[arg-type]
    assert spent(db, period="total") == after
    if column == "action":
        assert the_window(db, period="total", entity_id="u-1")["granted"] == 5
    else:
        assert db.execute("select from budget_grants").fetchall() == []
        assert renew(db, "h", {}) == {}
    assert audit(db) == []


def test_a_draw_on_a_removed_window_loses_no_call(db: Connection) -> None:
    """If this failed, a call under way while its budget is changed could not be recorded."""
    budget = set_budget(db, total_limit=50)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=5)])
    gone = answer["windows"][0]["id"]
    set_budget(db, timezone="Asia/Tokyo", total_limit=50)
    db.execute("update budget_limits set metric = 'calls'")
    assert (
        call(db, "record_calls_v1", calls=json.dumps([a_cost(1, 4, draws=[[gone, "4"]])]), holder="h")["inserted"] == 1
    )
    assert the_window(db)["spent"] == 1
    assert audit(db) == []


def test_a_removed_budget_takes_its_windows_along_and_leaves_its_alerts(db: Connection) -> None:
    """If this failed, a removed budget would go on stopping calls, or take the history of alerts with it."""
    budget = set_budget(db, total_limit=5)["id"]
    acquire(db, "h", [wish(budget, unit=1)])
    record(db, a_cost(1, 5))
    assert call(db, "remove_budget_v1", budget_id=budget) == {"removed": 1}
    assert call(db, "remove_budget_v1", budget_id=budget) == {"removed": 0}
    assert (windows(db), db.execute("select from vital_private.budget_periods").fetchall()) == ([], [])
    assert len(call(db, "cost_alerts_v1")) == 3
    record(db, a_cost(2, 5))
    [answer] = acquire(db, "h", [wish(budget, unit=1)])
    assert (answer["admitted"], answer["windows"]) == (True, [])


def test_plain_sql_cannot_backdate_a_budget(db: Connection) -> None:
    """If this failed, an admin's slip in counting_since would have the audit find differences for ever."""
    db.execute(
        "insert into budget_limits (entity_type, total_limit, counting_since, created_at)"
        " values ('user', 1, '2020-01-01Z', '2020-01-01Z')"
    )
    db.execute("update budget_limits set counting_since = '2020-01-01Z'")
    [budget] = call(db, "budgets_v1")["budgets"]
    minute = now(db).replace(second=0, microsecond=0)
    assert datetime.fromisoformat(budget["counting_since"]) == minute


@pytest.mark.parametrize("by", ["function", "plain SQL"])
def test_a_call_recorded_while_a_budget_is_made_is_neither_missed_nor_doubled(
    own_db: Connection, database_url: str, by: str
) -> None:
    """If this failed, a budget made under load would start with wrong sums, and keep them."""

    def make(connection: Connection) -> None:
        if by == "function":
            set_budget(connection, total_limit=50, daily_limit=50)
        else:
            connection.execute(
                "insert into budget_limits (entity_type, total_limit, daily_limit) values ('user', 50, 50)"
            )

    with connect(database_url) as recorder, connect(database_url) as admin, ThreadPoolExecutor(1) as pool:
        with recorder.transaction():
            record(recorder, a_cost(1, 1))
            made = pool.submit(make, admin)
            assert_waits_for_lock(own_db)
        made.result(30)
        with admin.transaction():
            set_budget(admin, entity_id="u-1", total_limit=50)
            recorded = pool.submit(record, recorder, a_cost(2, 2))
            assert_waits_for_lock(own_db)
        recorded.result(30)
    assert [row["spent"] for row in windows(own_db)] == [3, 3, 3]
    assert audit(own_db) == []


def test_budgets_made_and_changed_while_four_processes_record_stay_exact(own_db: Connection, database_url: str) -> None:
    """If this failed, admins could change budgets only while nobody works."""
    start = threading.Barrier(5)

    def send(worker: int) -> None:
        with connect(database_url) as connection:
            start.wait(60)
            for number in range(25):
                record(connection, a_cost(worker * 100 + number, 1, user_id=f"u-{number % 3}"))

    def administer() -> None:
        with connect(database_url) as connection:
            start.wait(60)
            for number in range(6):
                set_budget(connection, total_limit=number, metric="calls")
                set_budget(connection, total_limit=9, daily_limit=None if number % 2 else 9)
                connection.execute("update budget_limits set timezone = %s", ["UTC" if number % 2 else "Asia/Tokyo"])
                if number % 3 == 2:
                    connection.execute("delete from budget_limits where metric = 'calls'")

    with ThreadPoolExecutor(5) as pool:
        done = [*(pool.submit(send, worker) for worker in range(4)), pool.submit(administer)]
        for one in done:
            one.result(60)
    set_budget(own_db, total_limit=9, entity_id="u-1")
    assert [row["spent"] for row in windows(own_db, metric="cost_usd", period="total", entity_id="u-1")] == [32, 32]
    assert audit(own_db) == []


SEEDED = {
    ("organization", "mvp", 50, 500, "alert"),
    ("service", "1:1_conversation", 5, 100, "alert"),
    ("service", "virtual_panel", 10, 200, "alert"),
    ("service", "workflow", 15, 300, "alert"),
    ("service", "solution_builder", 20, 400, "alert"),
    ("tier", "tier_1", 30, 600, "alert"),
    ("tier", "tier_2", 15, 300, "throttle"),
    ("tier", "tier_3", 5, 100, "downgrade"),
    ("user", "*", 5, 100, "alert"),
}


def budgets(db: Connection) -> set[tuple[str, str, int, int, str]]:
    found = db.execute("select * from budget_limits").fetchall()
    assert {(row["organization_id"], row["metric"], row["minute_limit"], row["total_limit"]) for row in found} == {
        (None, "cost_usd", None, None)
    }
    return {
        (row["entity_type"], row["entity_id"], row["daily_limit"], row["monthly_limit"], row["action"]) for row in found
    }


def test_the_seed_makes_the_default_budgets_and_leaves_changed_ones_alone(db: Connection) -> None:
    """If this failed, a new team would start with other budgets than were promised, or a second run would undo changes."""
    db.execute(SEED.read_bytes())
    assert budgets(db) == SEEDED
    db.execute("update budget_limits set daily_limit = 7 where entity_type = 'user'")
    db.execute(SEED.read_bytes())
    assert budgets(db) == (SEEDED - {("user", "*", 5, 100, "alert")}) | {("user", "*", 7, 100, "alert")}


def test_supabase_db_push_includes_the_seed(postgres_server: PostgresServer) -> None:
    """If this failed, `supabase db push --include-seed` would push no budgets, since the path in config.toml is wrong."""
    postgres_server.create_database("seeded")
    try:
        with psycopg.connect(postgres_server.url("seeded"), autocommit=True) as connection:
            connection.execute(HOSTED_DEFAULT_PRIVILEGES)  # type: ignore[arg-type]
        pushed = db_push(postgres_server.url("seeded"), REPOSITORY, "--include-seed")
        assert pushed.returncode == 0, pushed.stderr
        with connect(postgres_server.url("seeded")) as connection:
            assert budgets(connection) == SEEDED
    finally:
        postgres_server.drop_database("seeded")
