"""What is spent in the windows of budgets: which calls count, in which windows, once each, and by which clock."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.helpers import (
    NOON,
    Connection,
    Row,
    a_call,
    a_cost,
    acquire,
    an_unpriced_call,
    audit,
    call,
    connect,
    record,
    set_budget,
    spent,
    the_window,
    windows,
    wish,
)

COLUMNS = {
    "organization": "organization_id",
    "service": "service_type",
    "tier": "agent_tier",
    "user": "user_id",
    "session": "session_id",
    "agent": "agent_id",
    "workflow": "workflow_id",
    "panel": "panel_id",
    "solution": "solution_id",
    "model": "model",
}


@pytest.mark.parametrize("entity_type", COLUMNS)
def test_a_call_counts_for_its_entity_by_name_and_by_star(db: Connection, entity_type: str) -> None:
    """If this failed, a budget would count other people's calls, or none."""
    column = COLUMNS[entity_type]
    one, other = ("workflow", "virtual_panel") if entity_type == "service" else ("a", "b")
    each = set_budget(db, entity_type=entity_type, daily_limit=100)
    named = set_budget(db, entity_type=entity_type, entity_id=one, daily_limit=100, monthly_limit=100, total_limit=100)
    nobody = {"user_id": None}
    calls = [
        a_cost(1, "0.1", **{**nobody, column: one}),
        a_cost(2, "0.02", **{**nobody, column: other}),
        a_cost(3, "0.003", **{**nobody, column: None}),
        a_cost(4, "0.0004", **{**nobody, column: one}),
    ]
    record(db, *calls)
    assert spent(db, budget_id=each["id"]) == {one: Decimal("0.1004"), other: Decimal("0.02")}
    assert {row["period"]: row["spent"] for row in windows(db, budget_id=named["id"])} == dict.fromkeys(
        ("day", "month", "total"), Decimal("0.1004")
    )
    assert {row["entity_id"] for row in windows(db, budget_id=named["id"])} == {one}
    assert audit(db) == []


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"model": "gpt-5-2025-08-07", "requested_model": "gpt-5"}, "gpt-5"),
        ({"model": "gpt-5", "requested_model": None}, "gpt-5"),
        ({"model": "claude-haiku-4-5-20251001", "requested_model": "opus", "budget_action": "downgrade"}, "claude-haiku-4-5"),
        ({"model": "gpt-5-mini-2025-08-07", "requested_model": "gpt-5", "budget_action": "downgrade"}, "gpt-5-mini"),
        ({"model": "gpt-5-mini", "requested_model": "gpt-5", "budget_action": "throttle"}, "gpt-5"),
        ({"model": "gpt-5-2025-08-07", "sent_model": "gpt-5"}, "gpt-5"),
        ({"model": "x", "requested_model": "opus", "sent_model": "haiku", "budget_action": "downgrade"}, "haiku"),
    ],
)  # fmt: skip
def test_a_model_s_budget_counts_the_model_that_was_asked_for(db: Connection, changes: Row, model: str) -> None:
    """If this failed, a dated name of the provider's, or a downgrade, would slip past a model's budget."""
    record(db, a_cost(1, 3, **changes))
    set_budget(db, entity_type="model", entity_id="*", total_limit=9, daily_limit=9)
    record(db, a_cost(2, 4, **changes))
    assert {row["entity_id"]: row["spent"] for row in windows(db, period="day")} == {model: 7}
    assert audit(db) == []


def test_each_metric_counts_what_is_billed(db: Connection) -> None:
    """If this failed, answers from a cache or blocked calls would use up budgets, or unpriced ones would be free."""
    free = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}
    for metric in ("cost_usd", "tokens", "calls"):
        set_budget(db, metric=metric, daily_limit=1000)
    record(
        db,
        a_cost(1, 2),
        a_cost(2, 0, cache_hit=True, potential_cost="5"),
        a_call(3, created_at=NOON, user_id="u-1", status="blocked", **{**free, "potential_cost": "0"}),
        a_cost(4, 3, status="error"),
        a_cost(5, 4, status="cancelled"),
        an_unpriced_call(6, created_at=NOON, user_id="u-1", ceiling_cost="0.5"),
        an_unpriced_call(7, created_at=NOON, user_id="u-1"),
        an_unpriced_call(8, created_at=NOON, user_id="u-1", cache_hit=True),
    )
    assert {row["metric"]: row["spent"] for row in windows(db)} == {
        "cost_usd": Decimal("9.5"),
        "tokens": 120 * 6,  # a blocked call has none; here it pretends to
        "calls": 5,
    }
    assert audit(db) == []


@pytest.mark.parametrize("poison", [[], [{"id": "garbage"}]], ids=["whole", "row by row"])
def test_a_merged_row_counts_its_calls_and_its_money_once(db: Connection, poison: list[Row]) -> None:
    """If this failed, calls that were merged in need would slip past a budget of calls, or be charged more than they cost."""
    limits = dict.fromkeys(("minute_limit", "daily_limit", "monthly_limit", "total_limit"), 1000)
    for metric in ("cost_usd", "tokens", "calls"):
        set_budget(db, metric=metric, **limits)
    merged = a_cost(1, 21, calls=7, prompt_tokens=700, completion_tokens=140, total_tokens=840)
    free = {"input_cost": "0", "output_cost": "0", "total_cost": "0", "potential_cost": "0"}
    record(
        db,
        merged,
        a_cost(2, 2),
        a_cost(3, 0, cache_hit=True, calls=5),
        a_cost(4, calls=3, status="blocked", **free),
        *poison,
    )
    record(db, merged, *poison)
    # A blocked row has no tokens; here it pretends to.
    amounts = {"cost_usd": 23, "tokens": 840 + 2 * 120, "calls": 8}
    right = {(row["metric"], row["period"]): row["spent"] for row in windows(db)}
    assert right == {
        (metric, period): amounts[metric] for metric in amounts for period in ("minute", "day", "month", "total")
    }
    assert audit(db) == []
    filled = set_budget(db, metric="calls", action="throttle", total_limit=1000)["id"]
    assert spent(db, budget_id=filled) == {"u-1": 8}
    db.execute("delete from budget_windows where period = 'day'")
    db.execute("update budget_windows set spent = 1 where period = 'month'")
    assert call(db, "recount_budgets_v1") == {"mended": 6}
    assert {(row["metric"], row["period"]): row["spent"] for row in windows(db, action="block")} == right
    assert audit(db) == []


def test_cost_is_exact_to_the_last_decimal(db: Connection) -> None:
    """If this failed, a month of small calls would not add up."""
    set_budget(db, total_limit=1)
    record(db, *[a_cost(number, "0.000000000000000000001") for number in range(100)])
    assert the_window(db)["spent"] == Decimal("0.0000000000000000001")


def test_budgets_of_an_organization_count_its_calls_and_those_of_none_count_all(db: Connection) -> None:
    """If this failed, one customer's calls would use up another's budget."""
    acme = set_budget(db, organization_id="acme", daily_limit=10)["id"]
    other = set_budget(db, organization_id="other", daily_limit=10)["id"]
    everyone = set_budget(db, daily_limit=10)["id"]
    record(
        db,
        a_cost(1, 1, organization_id="acme"),
        a_cost(2, 2, organization_id="other"),
        a_cost(3, 4, organization_id=None),
        a_cost(4, 8, organization_id="acme", user_id="u-2"),
    )
    assert spent(db, budget_id=acme) == {"u-1": 1, "u-2": 8}
    assert spent(db, budget_id=other) == {"u-1": 2}
    assert spent(db, budget_id=everyone) == {"u-1": 7, "u-2": 8}
    assert audit(db) == []


def test_budgets_of_one_entity_with_several_actions_count_alike(db: Connection) -> None:
    """If this failed, throttle at 4 and block at 5 would not see the same spending."""
    for action, limit in (("throttle", 4), ("block", 5)):
        set_budget(db, action=action, daily_limit=limit)
    record(db, a_cost(1, 3))
    assert [(row["action"], row["limit_amount"], row["spent"]) for row in windows(db)] == [
        ("throttle", 4, 3),
        ("block", 5, 3),
    ]


def test_only_new_rows_are_posted(db: Connection) -> None:
    """If this failed, a batch that is sent again, or holds a bad row, would be charged twice or not at all."""
    set_budget(db, total_limit=100)
    bad: list[Any] = [{"id": "garbage"}, {}, a_cost(9, 64, status="nonsense")]
    for batch, total in (
        ([a_cost(1, 1), a_cost(1, 1), a_cost(2, 2)], 3),
        ([a_cost(1, 1), a_cost(2, 2)], 3),
        ([a_cost(2, 2), a_cost(3, 4)], 7),
        ([*bad, a_cost(3, 4), a_cost(4, 8), a_cost(4, 8)], 15),
        ([a_cost(4, 8), *bad], 15),
        (bad, 15),
    ):
        record(db, *batch)
        assert the_window(db)["spent"] == total
        assert audit(db) == []


@pytest.mark.parametrize("poison", [[], [{"id": "garbage"}]], ids=["whole", "row by row"])
@pytest.mark.parametrize("given_up", ["abandoned", "cancelled"])
def test_the_true_end_of_an_abandoned_call_replaces_what_it_counted(
    db: Connection, given_up: str, poison: list[Row]
) -> None:
    """If this failed, a slow call would be charged twice: as what it was held to cost, and as what it cost."""
    for metric in ("cost_usd", "tokens", "calls"):
        set_budget(db, metric=metric, total_limit=1000)
    late = a_cost(1, 2, replaces_abandoned=True, prompt_tokens=200, total_tokens=220)
    record(db, a_cost(1, 5, status=given_up), a_cost(2, 1))
    assert {row["metric"]: row["spent"] for row in windows(db)} == {"cost_usd": 6, "tokens": 240, "calls": 2}
    record(db, late, *poison)
    record(db, late)
    assert {row["metric"]: row["spent"] for row in windows(db)} == {"cost_usd": 3, "tokens": 340, "calls": 2}
    record(db, a_cost(1, 5, status=given_up), *poison)
    assert {row["metric"]: row["spent"] for row in windows(db)} == {"cost_usd": 3, "tokens": 340, "calls": 2}
    assert audit(db) == []


def test_a_price_that_becomes_known_replaces_the_ceiling(db: Connection) -> None:
    """If this failed, budgets would go on counting the ceiling of calls whose true cost is known."""
    for metric in ("cost_usd", "tokens", "calls"):
        set_budget(db, metric=metric, total_limit=1000, daily_limit=1000)
    who = {"created_at": NOON, "user_id": "u-1"}
    record(db, an_unpriced_call(1, **who, ceiling_cost="7", calls=4), an_unpriced_call(2, **who), a_cost(3, 1))
    assert [row["spent"] for row in windows(db, metric="cost_usd")] == [8, 8]
    price = {
        "input_cost": "0.5",
        "output_cost": "0",
        "fees": "0",
        "total_cost": "0.5",
        "potential_cost": "0.5",
        "price_version": "v",
    }
    prices = json.dumps([{"id": a_call(number)["id"], "created_at": NOON, **price} for number in (1, 2, 2, 3)])
    assert call(db, "reprice_calls_v1", prices=prices) == 2
    assert call(db, "reprice_calls_v1", prices=prices) == 0
    assert [row["spent"] for row in windows(db, metric="cost_usd")] == [2, 2]
    assert [row["spent"] for row in windows(db, metric="calls")] == [6, 6]
    assert audit(db) == []


def test_calls_that_cost_nothing_touch_no_window(db: Connection) -> None:
    """If this failed, a storm of blocked calls would queue for the lock of the very window that blocks them."""
    set_budget(db, total_limit=1)
    record(db, a_cost(1, 0), a_cost(2, 0, status="blocked"))
    assert windows(db) == []
    assert audit(db) == []


def test_the_budget_audit_finds_sums_that_were_tampered_with(db: Connection) -> None:
    """If this failed, nobody would notice that sums are wrong."""
    budget = set_budget(db, total_limit=100, daily_limit=100)["id"]
    record(db, a_cost(1, 2))
    acquire(db, "h", [wish(budget, unit=3)])
    assert audit(db) == []
    for change, found in (
        ("update budget_windows set spent = 1 where period = 'day' and spent > 0", [("day", "spent", "1", "2")]),
        ("update budget_windows set granted = 5 where period = 'total'", [("total", "granted", "5", "3")]),
        ("update budget_grants set amount = 1", [("day", "granted", "3", "1"), ("total", "granted", "3", "1")]),
        ("delete from budget_grants", [("day", "granted", "3", "0"), ("total", "granted", "3", "0")]),
        ("delete from budget_windows where period = 'total'", [("total", "spent", "0", "2")]),
        ("delete from token_usage_logs", [("day", "spent", "2", "0"), ("total", "spent", "2", "0")]),
        (
            "insert into budget_windows (budget_id, entity_id, period, starts_at, limit_amount, spent)"
            f" values ({budget}, 'u-9', 'total', '2033-01-01Z', 1, 4)",
            [("total", "spent", "4", "0")],
        ),
    ):
        with db.transaction(force_rollback=True):
            db.execute(change)
            differences = [(row["period"], row["kind"], row["found"], row["expected"]) for row in audit(db)]
            assert sorted(differences) == found, change


def test_a_recount_corrects_every_window(db: Connection) -> None:
    """If this failed, wrong sums would stay until their windows end."""
    budget = set_budget(db, total_limit=100, daily_limit=100, minute_limit=100, timezone="Asia/Tokyo")["id"]
    set_budget(db, entity_type="service", total_limit=9)
    record(db, a_cost(1, 2), a_cost(2, 4, user_id="u-2"))
    acquire(db, "h", [wish(budget, unit=3)])
    right = [{**row, "id": None, "unasked": None} for row in windows(db)]
    db.execute("update budget_windows set spent = spent + 1 where period = 'minute' and spent > 0")
    db.execute("update budget_windows set granted = 5 where period = 'total' and entity_id = 'u-1'")
    db.execute("delete from budget_windows where period = 'day' and entity_id = 'u-2'")
    assert len(audit(db)) == 4
    assert call(db, "recount_budgets_v1") == {"mended": 4}
    assert audit(db) == []
    assert [{**row, "id": None, "unasked": None} for row in windows(db)] == right
    assert call(db, "recount_budgets_v1") == {"mended": 0}


def test_a_tampered_sum_keeps_no_call_from_being_recorded(db: Connection) -> None:
    """If this failed, one wrong sum would have every call of a window refused, and money would be lost from the books."""
    budget = set_budget(db, total_limit=100)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=3)])
    db.execute("update budget_windows set granted = 0")
    drawing = a_cost(1, 2, draws=[[answer["windows"][0]["id"], "2"]])
    assert call(db, "record_calls_v1", calls=json.dumps([drawing]), holder="h")["inserted"] == 1
    assert the_window(db)["spent"] == 2


def test_the_audit_tells_by_how_much_blocking_budgets_are_over(db: Connection) -> None:
    """If this failed, an admin could not see what the promise's X came to."""
    set_budget(db, total_limit=5)
    set_budget(db, total_limit=1, action="alert")
    set_budget(db, total_limit=1, entity_type="service", enforce=False)
    record(db, a_cost(1, "7.5", service_type="workflow"))
    [over] = call(db, "audit_budgets_v1")["overshoot"]
    assert (over["entity_id"], over["limit_amount"], over["overshoot"]) == ("u-1", "5", "2.5")
    causes = {name: Decimal(over[name]) for name in ("beyond_hold", "unasked", "late", "before")}
    assert causes["beyond_hold"] == causes["late"] == 0
    assert causes["unasked"] + causes["before"] >= Decimal("2.5")


def test_late_calls_count_only_in_windows_that_were_the_budget_s_own(db: Connection) -> None:
    """If this failed, a window that ended before there was a budget would fill with the few calls that came late."""
    [moment] = [row["now"] for row in db.execute("select now()").fetchall()]
    set_budget(db, minute_limit=10, daily_limit=10, monthly_limit=10, total_limit=10, timezone="UTC")
    record(db, a_cost(1, 1, created_at=(moment - timedelta(days=40)).isoformat()))
    assert windows(db) == []
    record(db, a_cost(2, 2, created_at=moment.isoformat()), a_cost(3, 3, created_at="2040-01-01T00:00:00Z"))
    assert sorted((row["period"], row["spent"]) for row in windows(db)) == [
        ("day", 2), ("day", 3), ("minute", 2), ("minute", 3), ("month", 2), ("month", 3), ("total", 5),
    ]  # fmt: skip
    assert audit(db) == []


# Local days and months: zone, period, the window in UTC, and moments in it; the moment before and the end lie outside.
WINDOWS: list[tuple[str, str, str, str, list[str]]] = [
    ("UTC", "day", "2026-01-31T00:00", "2026-02-01T00:00", ["2026-01-31T23:59:59.999999"]),
    ("UTC", "month", "2026-01-01T00:00", "2026-02-01T00:00", ["2026-01-31T23:59:59.999999"]),
    ("UTC", "month", "2028-02-01T00:00", "2028-03-01T00:00", ["2028-02-29T12:00"]),
    ("UTC", "day", "2028-02-29T00:00", "2028-03-01T00:00", ["2028-02-29T12:00"]),
    ("UTC", "month", "2027-02-01T00:00", "2027-03-01T00:00", ["2027-02-28T23:59:59"]),
    ("UTC", "month", "2026-12-01T00:00", "2027-01-01T00:00", ["2026-12-31T23:59:59"]),
    # An hour is missing, an hour comes twice.
    ("Europe/Berlin", "day", "2026-03-28T23:00", "2026-03-29T22:00", ["2026-03-29T00:59:59", "2026-03-29T01:00"]),
    ("Europe/Berlin", "day", "2026-10-24T22:00", "2026-10-25T23:00", ["2026-10-25T00:30", "2026-10-25T01:30"]),
    ("Europe/Berlin", "month", "2026-02-28T23:00", "2026-03-31T22:00", ["2026-03-29T01:00"]),
    ("America/New_York", "day", "2026-03-08T05:00", "2026-03-09T04:00", ["2026-03-08T07:00"]),
    ("America/New_York", "day", "2026-11-01T04:00", "2026-11-02T05:00", ["2026-11-01T05:30", "2026-11-01T06:30"]),
    ("America/New_York", "month", "2026-11-01T04:00", "2026-12-01T05:00", ["2026-11-01T06:30"]),
    # Midnight comes twice: 01:00 is 00:00 again.
    ("America/Havana", "day", "2026-11-01T04:00", "2026-11-02T05:00", ["2026-11-01T04:30", "2026-11-01T05:30"]),
    ("America/Havana", "month", "2026-11-01T04:00", "2026-12-01T05:00", ["2026-11-01T04:30", "2026-11-01T05:30"]),
    # There is no midnight: 00:00 is 01:00.
    ("Africa/Cairo", "day", "2024-04-25T22:00", "2024-04-26T21:00", ["2024-04-26T00:00"]),
    ("Asia/Beirut", "day", "2026-03-28T22:00", "2026-03-29T21:00", ["2026-03-29T00:00"]),
    ("America/Sao_Paulo", "day", "2018-11-04T03:00", "2018-11-05T02:00", ["2018-11-04T12:00"]),
    # 24:00 is 23:00 of the same day.
    ("America/Sao_Paulo", "day", "2018-02-17T02:00", "2018-02-18T03:00", ["2018-02-18T01:59:59", "2018-02-18T02:30"]),
    # A minute of the first of November, then an hour of October again: the day that has begun stays.
    ("America/St_Johns", "day", "2009-11-01T02:30", "2009-11-02T03:30", ["2009-11-01T02:31", "2009-11-01T03:30"]),
    ("America/St_Johns", "month", "2009-11-01T02:30", "2009-12-01T03:30", ["2009-11-01T02:31", "2009-11-01T03:29"]),
    # Two hours come twice, from midnight on.
    ("Asia/Magadan", "day", "2014-10-25T12:00", "2014-10-26T14:00", ["2014-10-25T13:00", "2014-10-25T14:00"]),
    # Half an hour.
    ("Australia/Lord_Howe", "day", "2026-04-04T13:00", "2026-04-05T13:30", ["2026-04-04T15:15"]),
    ("Asia/Kolkata", "day", "2026-05-09T18:30", "2026-05-10T18:30", ["2026-05-10T12:00"]),
    ("Asia/Kolkata", "month", "2026-04-30T18:30", "2026-05-31T18:30", ["2026-05-10T12:00"]),
    ("Pacific/Kiritimati", "day", "2026-05-09T10:00", "2026-05-10T10:00", ["2026-05-10T09:59:59"]),
    # Days that never were.
    ("Pacific/Kiritimati", "day", "1994-12-30T10:00", "1994-12-31T10:00", ["1994-12-31T09:59:59"]),
    ("Pacific/Apia", "day", "2011-12-29T10:00", "2011-12-30T10:00", ["2011-12-30T09:59:59"]),
]  # fmt: skip


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
@pytest.mark.parametrize("session_zone", ["UTC", "Europe/Berlin"])
def test_days_and_months_begin_at_local_midnight(
    db: Connection, case: tuple[str, str, str, str, list[str]], session_zone: str
) -> None:
    """If this failed, money would be counted on the wrong day when clocks change, or by the clock of who asks."""
    zone, period, start, end, moments = case
    db.execute("select set_config('timezone', %s, true)", [session_zone])
    inside = [utc(start), *map(utc, moments), utc(end) - timedelta(microseconds=1)]
    outside = [utc(start) - timedelta(microseconds=1), utc(end)]
    for moment in (*inside, *outside):
        found = db.execute(
            "select vital_private.window_start(%(period)s, %(moment)s, %(zone)s, null) as start,"
            " vital_private.window_end(%(period)s, %(moment)s, %(zone)s) as end",
            {"period": period, "moment": moment, "zone": zone},
        ).fetchone()
        assert found is not None
        if moment in inside:
            assert (found["start"], found["end"]) == (utc(start), utc(end)), moment
        else:
            assert utc(end) == found["start"] or utc(start) == found["end"], moment


# Where clocks were changed at midnight, across it, by half an hour or by a day.
AWKWARD = (
    "Africa/Cairo", "America/Havana", "America/Nuuk", "America/Sao_Paulo", "America/St_Johns", "Antarctica/Casey",
    "Asia/Beirut", "Asia/Chita", "Asia/Colombo", "Asia/Gaza", "Asia/Pyongyang", "Australia/Lord_Howe", "Europe/Berlin",
    "Pacific/Apia", "Pacific/Kiritimati",
)  # fmt: skip


@pytest.mark.parametrize("zone", AWKWARD)
def test_days_follow_each_other_without_gap_around_every_change_of_clocks(db: Connection, zone: str) -> None:
    """If this failed, some calls would be in no window, or a window would be made twice under two names."""
    wrong = db.execute(
        """
        with days as (
          select day, (day at time zone %(zone)s) - (day at time zone 'UTC') as shift
          from generate_series(timestamptz '1990-01-01Z', timestamptz '2026-01-01Z', interval '1 day') as day
        ),

        changes as (
          select day from (select day, shift, lag(shift) over (order by day) as before from days) as d where shift <> before
        ),

        moments as (
          select day - step * interval '30 minutes' + aside as moment
          from changes, generate_series(-2, 50) as step,
            unnest(array[interval '0', interval '-1 microsecond', interval '1 minute']) as aside
        ),

        framed as (
          select
            m.moment, vital_private.window_start('day', m.moment, %(zone)s, null) as starts_at,
            vital_private.window_end('day', m.moment, %(zone)s) as ends_at
          from moments as m
        )

        select f.* from framed as f
        where not (f.starts_at <= f.moment and f.moment < f.ends_at)
          or extract(epoch from f.starts_at)::bigint %% 900 <> 0
        union all
        select f.moment, f.starts_at, f.ends_at
        from (select distinct on (starts_at, ends_at) * from framed) as f
        where vital_private.window_start('day', f.ends_at, %(zone)s, null) <> f.ends_at
          or vital_private.window_end('day', f.starts_at - interval '1 microsecond', %(zone)s) <> f.starts_at
        """,
        {"zone": zone},
    ).fetchall()
    assert wrong == []


def test_calls_are_posted_to_the_day_they_began_in(db: Connection) -> None:
    """If this failed, a call that runs over midnight, or is delivered a day later, would be charged to the wrong day."""
    set_budget(db, daily_limit=99, monthly_limit=99, minute_limit=99, timezone="Europe/Berlin")
    at = {
        1: "2032-02-29T22:59:59.999999Z",
        2: "2032-02-29T23:00:00Z",
        4: "2032-02-29T23:00:59.9Z",
        8: "2032-02-28T23:00:00Z",
    }
    record(db, *[a_cost(cost, cost, created_at=moment) for cost, moment in at.items()])
    found = {(row["period"], f"{row['starts_at']:%d %H:%M}"): int(row["spent"]) for row in windows(db)}
    assert found == {
        ("day", "28 23:00"): 9,
        ("day", "29 23:00"): 6,
        ("month", "31 23:00"): 9,
        ("month", "29 23:00"): 6,
        ("minute", "29 22:59"): 1,
        ("minute", "29 23:00"): 6,
        ("minute", "28 23:00"): 8,
    }
    assert audit(db) == []


@pytest.mark.parametrize(
    "zone", ["America/Havana", "Asia/Beirut", "Asia/Kolkata", "Pacific/Kiritimati", "Europe/Berlin"]
)
def test_rows_and_windows_agree_on_the_day_in_every_zone(db: Connection, zone: str) -> None:
    """If this failed, a budget made in mid-month would be filled otherwise than it is counted on."""
    shuffled = random.Random(zone)
    first = utc("2032-10-20T00:00")
    calls = [
        a_cost(
            number,
            shuffled.randint(1, 9),
            created_at=(first + timedelta(minutes=shuffled.randrange(30_000))).isoformat(),
        )
        for number in range(60)
    ]
    record(db, *calls[:30])
    limits = {"minute_limit": 9, "daily_limit": 9, "monthly_limit": 9, "total_limit": 9}
    filled = set_budget(db, **limits, timezone=zone)["id"]
    record(db, *calls[30:])
    assert audit(db) == []
    assert sum(row["spent"] for row in windows(db, budget_id=filled)) == 4 * sum(
        int(one["total_cost"]) for one in calls
    )


def test_eight_connections_with_overlapping_batches_post_each_call_once(own_db: Connection, database_url: str) -> None:
    """If this failed, writers with bad rows among their calls would lock windows out of order and deadlock, or charge twice."""
    set_budget(own_db, daily_limit=9)
    set_budget(own_db, entity_type="session", total_limit=9, action="alert")
    set_budget(own_db, entity_type="service", entity_id="workflow", monthly_limit=9, action="throttle")
    start = threading.Barrier(8)

    def send(worker: int) -> int:
        shuffled = random.Random(worker)
        inserted = 0
        with connect(database_url) as connection:
            for batch_number in range(3):
                own = range(1000 * worker + 100 * batch_number, 1000 * worker + 100 * batch_number + 20)
                shared = range(10_000 + batch_number * 20, 10_000 + batch_number * 20 + 40)
                calls: list[Any] = [
                    a_cost(n, user_id=f"u-{n * 5 % 7}", session_id=f"s-{n % 5}", service_type="workflow")
                    for n in shared
                ]
                calls += [
                    a_cost(n, user_id=f"u-{shuffled.randrange(7)}", session_id=f"s-{n % 5}", service_type="workflow")
                    for n in own
                ]
                if worker % 2:
                    calls += [{"id": "poison"}, {}]
                shuffled.shuffle(calls)
                start.wait(60)
                inserted += record(connection, *calls)["inserted"]
        return inserted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(8))) == 80 + 8 * 60
    assert audit(own_db) == []
    assert sum(spent(own_db, entity_type="user").values()) == 80 + 8 * 60
    assert own_db.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone() == {
        "deadlocks": 0
    }


# What people read


def test_check_budget_shows_every_window_that_a_call_would_meet(db: Connection) -> None:
    """If this failed, an admin could not see why a call is stopped, or what is left before it is."""
    user = set_budget(db, total_limit=10, daily_limit=50, timezone="Asia/Kolkata")["id"]
    model = set_budget(db, entity_type="model", entity_id="gpt-5", total_limit=3, action="downgrade", enforce=False)[
        "id"
    ]
    acme = set_budget(db, organization_id="acme", total_limit=100)["id"]
    set_budget(db, organization_id="other", total_limit=1)
    set_budget(db, entity_id="u-2", total_limit=1)
    set_budget(db, entity_type="session", total_limit=1)
    record(db, a_cost(1, 4, model="gpt-5", organization_id="acme"))
    acquire(db, "h", [wish(acme, unit=2)])
    for asked in ({"organization": "acme"}, {"organization_id": "acme"}):
        met = call(db, "check_budget_v1", entities=json.dumps({**asked, "user": "u-1", "model": "gpt-5"}))
        shown = [(row["budget_id"], row["period"], row["spent"], row["granted"], row["left"]) for row in met]
        assert shown == [
            (model, "total", "4", "0", "-1"),
            (user, "total", "4", "0", "6"),
            (user, "day", "0", "0", "50"),
            (acme, "total", "4", "2", "94"),
        ]
    day = met[2]
    assert (day["entity_type"], day["entity_id"], day["metric"], day["action"]) == ("user", "u-1", "cost_usd", "block")
    assert (day["organization_id"], day["timezone"], day["enforce"]) == (None, "Asia/Kolkata", True)
    starts, ends = datetime.fromisoformat(day["starts_at"]), datetime.fromisoformat(day["ends_at"])
    assert (ends - starts, starts.minute, starts.hour) == (timedelta(days=1), 30, 18)
    assert (met[0]["enforce"], met[1]["ends_at"]) == (False, None)
    assert call(db, "check_budget_v1", entities="{}") == []
    [row] = db.execute("select * from check_budget(user_id => 'u-9') where period = 'total'").fetchall()
    assert (row["spent"], row["remaining"]) == (0, 10)


def test_windows_are_listed_with_the_fullest_first(db: Connection) -> None:
    """If this failed, what is about to stop calls would drown among what is not."""
    users = set_budget(db, total_limit=10)["id"]
    nothing = set_budget(db, total_limit=0, entity_type="agent")["id"]
    record(
        db,
        a_cost(1, 4),
        a_cost(2, 6, user_id="u-2"),
        a_cost(3, 1, user_id="u-3"),
        a_cost(4, 1, user_id="u-4", agent_id="a"),
    )
    acquire(db, "h", [wish(users, "u-3", unit=4)])
    listed = call(db, "budget_windows_v1")
    assert [(row["budget_id"], row["entity_id"]) for row in listed] == [
        (nothing, "a"), (users, "u-2"), (users, "u-3"), (users, "u-1"), (users, "u-4"),
    ]  # fmt: skip
    assert {name: listed[2][name] for name in ("spent", "granted", "limit_amount", "period", "ends_at", "timezone")} == {
        "spent": "1", "granted": "4", "limit_amount": "10", "period": "total", "ends_at": None, "timezone": "UTC",
    }  # fmt: skip
    assert [row["entity_id"] for row in call(db, "budget_windows_v1", max_rows=2)] == ["a", "u-2"]
    assert [row["entity_id"] for row in call(db, "budget_windows_v1", entity="u-1")] == ["u-1"]
    db.execute("update budget_windows set ends_at = now() where entity_id = 'u-1'")
    assert call(db, "budget_windows_v1", entity="u-1") == []
    assert len(call(db, "budget_windows_v1", entity="u-1", running_only=False)) == 1


# Exceptions that end


def test_a_raise_that_has_ended_no_longer_shows(db: Connection) -> None:
    """Whoever looks would read a limit that holds no more, until the next call came and made it true."""
    set_budget(db, daily_limit=10)
    record(db, a_cost(1, 4))
    raised = {
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "cost_usd",
        "raise_by": "5",
        "until": "2033-05-12T00:00:00Z",
    }
    call(db, "raise_budget_v1", raise_=json.dumps(raised))
    call(db, "raise_budget_v1", raise_=json.dumps({**raised, "raise_by": "1", "until": "2033-05-13T00:00:00Z"}))

    def shown() -> tuple[Any, ...]:
        row = db.execute("select limit_amount, remaining, spent_percent from budget_status").fetchone()
        assert row is not None
        [window] = call(db, "budget_windows_v1")
        return row["limit_amount"], row["remaining"], row["spent_percent"], window["limit_amount"]

    assert shown() == (16, 12, Decimal("25.0"), "16")
    over = "update vital_private.budget_overrides set since = now() - interval '2 hours', until = now() - interval '1 hour'"
    # Time passes: the first ends, and the moment that the window knows with it.
    db.execute(f"{over} where raise_by = 5")
    db.execute("update budget_windows set limit_until = now() - interval '1 hour' where limit_until is not null")
    assert shown() == (11, 7, Decimal("36.4"), "11")
    record(db, a_cost(2, 1))
    assert str(the_window(db)["limit_until"].date()) == "2033-05-13"
    db.execute(over)
    db.execute("update budget_windows set limit_until = now() - interval '1 hour'")
    assert shown() == (10, 5, Decimal("50.0"), "10")
    record(db, a_cost(3, 1))
    assert the_window(db)["limit_until"] is None
    assert shown() == (10, 4, Decimal("60.0"), "10")


def test_a_raise_does_not_open_a_budget_that_ends_by_itself(db: Connection) -> None:
    """If this failed, more calls for a busy day would lift the block of a user who was found abusing."""
    set_budget(db, metric="calls", entity_id="u-1", daily_limit=10)
    set_budget(db, metric="calls", entity_id="u-1", daily_limit=0, until="2033-05-12T00:00:00Z")
    raised = {"entity_type": "user", "entity_id": "u-1", "metric": "calls", "raise_by": "500"}
    told = call(db, "raise_budget_v1", raise_=json.dumps({**raised, "until": "2033-05-12T00:00:00Z"}))
    assert sorted(row["in_force"] for row in told) == ["0", "510"]


def test_a_budget_that_is_over_counts_and_alerts_no_more(db: Connection) -> None:
    ended = set_budget(db, daily_limit=10, until="2033-05-12T00:00:00Z")
    record(db, a_cost(1, 4))
    db.execute("update budget_limits set until = now() - interval '1 second'")
    record(db, a_cost(2, 8))
    assert spent(db, budget_id=ended["id"]) == {"u-1": 4}
    assert db.execute("select count(*) as n from cost_alerts").fetchone() == {"n": 0}
    assert audit(db) == []
