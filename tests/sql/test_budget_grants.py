"""Grants: what a process is given to spend, how it is drawn, renewed and lost, and what each action does at the limit."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import (
    Amount,
    Connection,
    Row,
    a_cost,
    acquire,
    alerts,
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


def granted(db: Connection, **wanted: Any) -> list[Decimal]:
    return [row["granted"] for row in windows(db, **wanted)]


def grants(db: Connection) -> dict[str, Decimal]:
    """What each holder holds; of one window."""
    found = db.execute("select holder, amount from budget_grants order by holder").fetchall()
    return {row["holder"]: row["amount"] for row in found}


def amounts(answer: Row) -> list[Decimal]:
    return [Decimal(window["amount"]) for window in answer["windows"]]


def draw(db: Connection, holder: str | None, number: int, cost: Amount, *draws: list[Any]) -> Row:
    """Record a call that draws on grants; the report."""
    sent = json.dumps([a_cost(number, cost, draws=list(draws))])
    return dict(call(db, "record_calls_v1", calls=sent, holder=holder))


def lapse(db: Connection, holder: str = "h") -> None:
    db.execute("update budget_grants set expires_at = now() - interval '1 second' where holder = %s", [holder])


# Sizes


@pytest.mark.parametrize(
    ("room", "unit", "want", "amount"),
    [
        ("100", "1", "0", "1"),  # what it needs
        ("100", "1", "3", "3"),  # what it wants
        ("100", "1", "50", "5"),  # a twentieth of what is left
        ("100", "0.3", "50", "4.8"),  # in whole units
        ("100", "7", "50", "7"),  # at least what it needs
        ("100", "100", "500", "100"),  # to the last cent
        ("10", "1", "50", "1"),  # near the limit exactly one
        ("0.00000000000000000001", "0.00000000000000000001", "1", "0.00000000000000000001"),
    ],
)
def test_a_grant_is_what_a_call_needs_and_a_share_of_what_is_left(
    db: Connection, room: str, unit: str, want: str, amount: str
) -> None:
    """If this failed, one process could take all the money, or would ask for every single call far from the limit."""
    budget = set_budget(db, total_limit=room)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=unit, want=want)])
    [window] = answer["windows"]
    assert answer["admitted"]
    assert (window["id"], Decimal(window["amount"])) == (the_window(db)["id"], Decimal(amount))
    assert (window["budget"], window["entity"], window["period"]) == (budget, "u-1", "total")
    assert (window["limit"], window["spent"], window["granted"], window["over"]) == (room, "0", "0", False)
    assert window["ends_at"] is None
    assert granted(db) == [Decimal(amount)]
    assert audit(db) == []


def test_a_grant_tops_up_what_a_process_has_left(db: Connection) -> None:
    """If this failed, leftovers would lie idle in one process while another is refused."""
    budget = set_budget(db, total_limit=10)["id"]
    [first] = acquire(db, "h", [wish(budget, unit="0.4")])
    window = first["windows"][0]["id"]
    [more] = acquire(db, "h", [wish(budget, unit=1, have={str(window): "0.4"})])
    assert amounts(more) == [Decimal("0.6")]
    [enough] = acquire(db, "h", [wish(budget, unit=1, have={str(window): "1"})])
    assert amounts(enough) == [0]
    assert grants(db) == {"h": 1}
    record(db, a_cost(1, 9))
    [exhausted] = acquire(db, "h", [wish(budget, unit=1, have={str(window): "1"})])
    assert exhausted["admitted"]


def test_a_process_cannot_spend_what_it_was_never_granted_or_has_expired(db: Connection) -> None:
    """If this failed, a process that slept past its grants' end would spend money that others have been given meanwhile."""
    budget = set_budget(db, total_limit=10)["id"]
    [first] = acquire(db, "h", [wish(budget, unit=4)])
    window = first["windows"][0]["id"]
    have = {str(window): "4"}
    [other] = acquire(db, "other", [wish(budget, unit=4, have=have)])
    assert amounts(other) == [4]
    lapse(db)
    [answer] = acquire(db, "h", [wish(budget, unit=4, have=have)])
    assert amounts(answer) == [4]
    assert grants(db) == {"h": 4, "other": 4}
    [refused] = acquire(db, "third", [wish(budget, unit=4, have=have)])
    assert not refused["admitted"]


def test_fetching_ahead_takes_whole_units_and_is_never_refused(db: Connection) -> None:
    """If this failed, fetching ahead would take crumbs that pay for no call, or raise alarms about calls nobody makes."""
    budget = set_budget(db, total_limit=100)["id"]

    def ahead(unit: str, want: str) -> Row:
        [answer] = acquire(db, "h", {"ahead": True, "windows": [wish(budget, unit=unit, want=want)]})
        return answer

    assert amounts(ahead("2", "50")) == [4]
    assert amounts(ahead("6", "50")) == [0]
    record(db, a_cost(1, 96))
    answer = ahead("1", "50")
    assert (answer["admitted"], amounts(answer), answer["windows"][0]["over"]) == (True, [0], False)
    assert "0.0" not in [alert[2] for alert in alerts(db)]


# All or nothing


def test_a_request_is_granted_by_all_of_its_windows_or_none(db: Connection) -> None:
    """If this failed, a call that is refused by one budget would leave money of another set aside for nothing."""
    user = set_budget(db, minute_limit=50, daily_limit=50, monthly_limit=50, total_limit=50)["id"]
    organization = set_budget(db, entity_type="organization", total_limit=5)["id"]
    wishes = [wish(user, unit=2, want=9), wish(organization, "acme", unit=2, want=9)]
    first, second, third = acquire(db, "h", wishes, wishes, wishes)
    assert [answer["admitted"] for answer in (first, second, third)] == [True, True, False]
    assert [window["period"] for window in first["windows"] if window["budget"] == user] == [
        "day",
        "minute",
        "month",
        "total",
    ]
    assert amounts(first) == [2] * 5
    assert amounts(third) == [0] * 5
    assert [(window["budget"], window["over"], window["stops"]) for window in third["windows"]] == [
        *[(user, False, False)] * 4,
        (organization, True, True),
    ]
    assert granted(db) == [4] * 5
    assert audit(db) == []


def test_a_small_request_passes_after_a_large_one_that_did_not(db: Connection) -> None:
    """If this failed, one large call would shut out all the small ones that still fit."""
    budget = set_budget(db, total_limit=5)["id"]
    answers = acquire(
        db, "h", [wish(budget, unit=6)], [wish(budget, unit=4)], [wish(budget, unit=2)], [wish(budget, unit=1)]
    )
    assert [answer["admitted"] for answer in answers] == [False, True, False, True]
    assert granted(db) == [5]


def test_every_entity_has_its_own_window(db: Connection) -> None:
    """If this failed, one user's spending would stop another."""
    budget = set_budget(db, total_limit=5)["id"]
    record(db, a_cost(1, 5))
    one, other = acquire(db, "h", [wish(budget, unit=1)], [wish(budget, "u-2", unit=1)])
    assert (one["admitted"], other["admitted"]) == (False, True)


def test_a_removed_budget_stops_no_call(db: Connection) -> None:
    """If this failed, a process that has not yet heard of a removed budget would stop calls."""
    budget = set_budget(db, total_limit=5)["id"]
    [answer, nothing] = acquire(db, "h", [wish(budget, unit=1), wish(budget + 1000, unit=1)], [wish(budget + 1000)])
    assert (answer["admitted"], len(answer["windows"])) == (True, 1)
    assert (nothing["admitted"], nothing["windows"]) == (True, [])
    assert acquire(db, "h") == []


# What each action does


def test_block_refuses_at_the_limit_and_notes_it_once(db: Connection) -> None:
    """If this failed, calls would go on over the limit, or every refusal would send an alert."""
    budget = set_budget(db, total_limit=5, alert_thresholds=["5"])["id"]
    record(db, a_cost(1, "4.5"))
    for _ in range(3):
        [answer] = acquire(db, "h", {"max_wait": 60, "windows": [wish(budget, unit=1, want=9)]})
        [window] = answer["windows"]
        assert (answer["admitted"], answer["again"], answer["wait"]) == (False, False, 0)
        assert (window["over"], window["stops"], window["spent"], window["amount"]) == (True, True, "4.5", "0")
    assert (granted(db), grants(db), alerts(db)) == ([0], {}, [("u-1", "total", "0.0", False)])
    [last] = acquire(db, "h", [wish(budget, unit="0.5")])
    assert last["admitted"]


def test_a_call_that_costs_nothing_passes_an_exhausted_budget(db: Connection) -> None:
    """If this failed, answers from a cache and free local models would be blocked for want of money."""
    budget = set_budget(db, total_limit=5)["id"]
    record(db, a_cost(1, 7))
    [answer] = acquire(db, "h", [wish(budget, unit=0, want=0)])
    assert (answer["admitted"], amounts(answer), answer["windows"][0]["over"]) == (True, [0], False)


def test_a_limit_of_zero_lets_no_call_pass(db: Connection) -> None:
    """If this failed, `daily_limit = 0` would not switch an entity off."""
    budget = set_budget(db, total_limit=0)["id"]
    assert [
        answer["admitted"] for answer in acquire(db, "h", [wish(budget, unit="0.000001")], [wish(budget, unit=0)])
    ] == [
        False,
        True,
    ]


@pytest.mark.parametrize("garbage", ["NaN", "Infinity"])
def test_a_call_of_unknown_size_is_granted_nothing(db: Connection, garbage: str) -> None:
    """If this failed, one NaN would make a window worthless for good."""
    budget = set_budget(db, total_limit=5)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=garbage)])
    assert not answer["admitted"]
    [answer] = acquire(db, "h", [wish(budget, unit=1, want=garbage)])
    assert amounts(answer) == [1]
    assert granted(db) == [1]


@pytest.mark.parametrize(("passes", "admitted"), [(True, True), (False, False)])
def test_downgrade_lets_only_cheaper_models_pass(db: Connection, passes: bool, admitted: bool) -> None:
    """If this failed, dear models would go on over the limit, or cheap ones would be stopped with them."""
    budget = set_budget(db, action="downgrade", total_limit=5)["id"]
    record(db, a_cost(1, 5))
    [answer] = acquire(db, "h", [wish(budget, unit=1, want=9, **{"pass": passes})])
    [window] = answer["windows"]
    assert (answer["admitted"], window["over"], window["stops"]) == (admitted, True, not admitted)
    assert amounts(answer) == [0]


@pytest.mark.parametrize("action", ["alert", "throttle", "downgrade", "block"])
def test_a_shadow_budget_stops_no_call_and_says_what_it_would_have_stopped(db: Connection, action: str) -> None:
    """If this failed, trying a budget out would already stop calls, or would not show what it would stop."""
    budget = set_budget(db, action=action, total_limit=5, enforce=False)["id"]
    record(db, a_cost(1, 5))
    for _ in range(2):
        [answer] = acquire(db, "h", [wish(budget, unit=1)])
        [window] = answer["windows"]
        assert (answer["admitted"], answer["wait"], window["over"], window["stops"]) == (True, 0, True, False)
    assert (the_window(db)["next_slot_at"], granted(db)) == (None, [0])


def test_the_strictest_of_several_budgets_decides(db: Connection) -> None:
    """If this failed, a call could wait for a slot only to be refused, and others would wait behind it."""
    throttle = set_budget(db, action="throttle", total_limit=4)["id"]
    block = set_budget(db, total_limit=5)["id"]
    both = [wish(throttle, unit=1), wish(block, unit=1)]
    record(db, a_cost(1, 4))
    [rung] = acquire(db, "h", both)
    assert (rung["admitted"], rung["wait"], amounts(rung)) == (True, 0, [0, 1])
    slot = the_window(db, action="throttle")["next_slot_at"]
    [refused] = acquire(db, "h", {"max_wait": 60, "windows": both})
    assert (refused["admitted"], refused["wait"], [window["stops"] for window in refused["windows"]]) == (
        False,
        0,
        [False, True],
    )
    assert the_window(db, action="throttle")["next_slot_at"] == slot


# Throttling


def throttled(db: Connection, interval_s: float = 10, **limits: Amount) -> int:
    """A throttling budget that is used up."""
    budget = set_budget(db, action="throttle", throttle_interval_s=interval_s, **(limits or {"total_limit": 5}))["id"]
    [moment] = [row["now"].isoformat() for row in db.execute("select now()").fetchall()]
    record(db, a_cost(1, 9, created_at=moment))
    return int(budget)


def paced(budget: int, max_wait: float = 3600) -> Row:
    return {"max_wait": max_wait, "windows": [wish(budget, unit=1, want=5)]}


def test_over_the_limit_calls_pass_one_an_interval_across_all_processes(db: Connection) -> None:
    """If this failed, a throttle would let as many calls pass as there are processes."""
    budget = throttled(db)
    waits = [acquire(db, f"h{number}", paced(budget))[0]["wait"] for number in range(4)]
    waits += [answer["wait"] for answer in acquire(db, "h", paced(budget), paced(budget))]
    assert waits[0] == 0
    for number, wait in enumerate(waits):
        assert number * 10 - 2 < wait <= number * 10
    assert granted(db) == [0]


def test_a_call_that_would_wait_too_long_is_told_how_long_and_takes_no_slot(db: Connection) -> None:
    """If this failed, callers that give up would push the queue back for those who wait."""
    budget = throttled(db)
    acquire(db, "h", paced(budget))
    for _ in range(3):
        [answer] = acquire(db, "h", paced(budget, max_wait=5))
        assert (answer["admitted"], answer["again"], answer["windows"][0]["stops"]) == (False, False, False)
        assert 8 < answer["wait"] <= 10
    [answer] = acquire(db, "h", paced(budget, max_wait=10))
    assert answer["admitted"]
    assert 8 < answer["wait"] <= 10


def test_under_the_limit_no_call_is_throttled(db: Connection) -> None:
    """If this failed, a throttle would slow calls that are within the budget."""
    budget = set_budget(db, action="throttle", total_limit=5)["id"]
    assert [answer["wait"] for answer in acquire(db, "h", *[paced(budget)] * 5)] == [0] * 5
    assert granted(db) == [5]
    assert the_window(db)["next_slot_at"] is None


def test_a_window_that_ends_before_the_slot_says_to_ask_again(db: Connection) -> None:
    """If this failed, calls would go on waiting in a window that is over, while the new one has money."""
    budget = throttled(db, interval_s=86_400, daily_limit=5)
    acquire(db, "h", paced(budget))
    [left] = [
        row["left"]
        for row in db.execute("select extract(epoch from ends_at - clock_timestamp()) as left from budget_windows")
    ]
    [answer] = acquire(db, "h", paced(budget, max_wait=86_400))
    assert (answer["admitted"], answer["again"], amounts(answer)) == (False, True, [0])
    assert 0 < float(left) - answer["wait"] < 5
    [impatient] = acquire(db, "h", paced(budget, max_wait=0))
    assert (impatient["admitted"], impatient["again"]) == (False, False)


def test_several_throttles_make_one_wait_for_the_latest_slot(db: Connection) -> None:
    """If this failed, a call would take a slot of one budget and break the pace of the other."""
    user = throttled(db, interval_s=10)
    organization = set_budget(db, entity_type="organization", action="throttle", throttle_interval_s=30, total_limit=0)[
        "id"
    ]
    both = {"max_wait": 3600, "windows": [wish(user, unit=1), wish(organization, "acme", unit=1)]}
    waits = [acquire(db, "h", both)[0]["wait"] for _ in range(3)]
    assert [round(wait / 10) for wait in waits] == [0, 3, 6]
    [alone] = acquire(db, "h", paced(user))
    assert round(alone["wait"] / 10) == 7


# Draws


def test_what_a_call_cost_is_taken_out_of_its_grant(db: Connection) -> None:
    """If this failed, money would be counted twice: as spent, and as set aside."""
    budget = set_budget(db, total_limit=100, daily_limit=100)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=4)])
    [day, total] = [window["id"] for window in answer["windows"]]
    draw(db, "h", 1, 3, [day, "3"], [total, "3"])
    assert granted(db, period="total") == [1]
    draw(db, "h", 1, 3, [day, "3"], [total, "3"])
    assert granted(db, period="total") == [1]
    draw(db, "h", 2, 5, [total, "1"])
    assert [(row["spent"], row["granted"]) for row in windows(db, period="total")] == [(8, 0)]
    assert granted(db, id=day) == [1]
    assert audit(db) == []


def test_a_call_whose_row_is_refused_or_known_draws_nothing(db: Connection) -> None:
    """If this failed, a batch that is sent again would take grants away that other calls hold."""
    budget = set_budget(db, total_limit=100)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=9)])
    window = answer["windows"][0]["id"]
    calls = [
        a_cost(1, 1, draws=[[window, "1"]]),
        a_cost(2, 2, draws=[[window, "2"]]),
        a_cost(3, 4, draws=[[window, "4"]], status="nonsense"),
    ]
    for _ in range(2):
        call(db, "record_calls_v1", calls=json.dumps(calls), holder="h")
    assert [(row["spent"], row["granted"]) for row in windows(db)] == [(3, 6)]
    assert audit(db) == []


@pytest.mark.parametrize(
    ("holder", "amount", "left"),
    [("h", "100", 0), ("h", "0", 4), ("h", "-3", 4), ("other", "3", 4), (None, "3", 4), ("h", "NaN", 0)],
)
def test_draws_beyond_a_grant_or_on_another_s_draw_no_more_than_there_is(
    db: Connection, holder: str | None, amount: str, left: int
) -> None:
    """If this failed, a confused process could make granted negative, or take what another one holds."""
    budget = set_budget(db, total_limit=100)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=4)])
    window = answer["windows"][0]["id"]
    assert draw(db, holder, 1, 2, [window, amount])["inserted"] == 1
    assert (grants(db), granted(db)) == ({"h": left}, [left])
    assert audit(db) == []


def test_a_call_that_ends_after_its_grant_expired_is_still_recorded(db: Connection) -> None:
    """If this failed, calls that end late would be lost from the books."""
    budget = set_budget(db, total_limit=10)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=4)], lifetime_s=60)
    window = answer["windows"][0]["id"]
    lapse(db)
    draw(db, "h", 1, 1, [window, "1"])
    assert (granted(db), audit(db)) == ([3], [])
    renew(db, "somebody")
    assert (granted(db), grants(db)) == ([0], {})
    draw(db, "h", 2, 3, [window, "3"])
    assert [(row["spent"], row["granted"]) for row in windows(db)] == [(4, 0)]
    assert audit(db) == []


@pytest.mark.parametrize("draws", ["text", 3, {"a": 1}, ["x"], [["x", "1"]], [[1, "x"]], [[None, None]]])
def test_draws_that_cannot_be_read_set_one_row_aside(db: Connection, draws: Any) -> None:
    """If this failed, one garbled row would keep its whole batch out."""
    set_budget(db, total_limit=10)
    sent = json.dumps([a_cost(1, 1), a_cost(2, 2, draws=draws)])
    answer = call(db, "record_calls_v1", calls=sent, holder="h")
    assert answer["inserted"] + len(answer["rejected"]) == 2
    assert answer["inserted"] >= 1
    assert audit(db) == []


# Renewing


def test_renewing_keeps_what_is_needed_and_gives_back_the_rest(db: Connection) -> None:
    """If this failed, unused money would stay with a process that does not need it."""
    budget = set_budget(db, total_limit=100, daily_limit=100)["id"]
    [answer] = acquire(db, "h", [wish(budget, unit=4)])
    [other] = acquire(db, "other", [wish(budget, unit=7)])
    [day, total] = [window["id"] for window in answer["windows"]]
    assert renew(db, "h", {day: 3, total: 9}) == {day: 3, total: 4}
    assert (granted(db, period="day"), granted(db, period="total")) == ([10], [11])
    assert renew(db, "h", {total: "0.5"}) == {total: Decimal("0.5")}
    assert (granted(db, period="day"), granted(db, period="total")) == ([7], [Decimal("7.5")])
    assert renew(db, "h", {total: -1}) == {}
    assert renew(db, "h", {total: 5}) == {}
    assert granted(db) == [7, 7]
    assert amounts(other) == [7, 7]
    assert audit(db) == []


def test_renewing_extends_a_grant_s_life(db: Connection) -> None:
    """If this failed, long calls would lose what was set aside for them."""
    budget = set_budget(db, total_limit=100)["id"]
    acquire(db, "h", [wish(budget, unit=4)], lifetime_s=1)
    window = the_window(db)["id"]
    renew(db, "h", {window: 4}, lifetime_s=1000)
    [left] = db.execute("select extract(epoch from expires_at - clock_timestamp()) as s from budget_grants").fetchall()
    assert 900 < left["s"] <= 1000
    acquire(db, "h", [wish(budget, unit=1)], lifetime_s=5000)
    [left] = db.execute("select extract(epoch from expires_at - clock_timestamp()) as s from budget_grants").fetchall()
    assert 4900 < left["s"] <= 5000


def test_expired_grants_of_dead_processes_are_taken_back(db: Connection) -> None:
    """If this failed, a killed process would keep its money for ever."""
    budget = set_budget(db, total_limit=10)["id"]
    acquire(db, "dead", [wish(budget, unit=8)])
    [refused] = acquire(db, "h", [wish(budget, unit=5)])
    lapse(db, "dead")
    [admitted] = acquire(db, "h", [wish(budget, unit=5)])
    assert (refused["admitted"], admitted["admitted"], grants(db)) == (False, True, {"h": 5})
    lapse(db, "h")
    assert renew(db, "third") == {}
    assert (grants(db), granted(db), audit(db)) == ({}, [0], [])


def test_a_holder_that_renews_too_late_has_nothing(db: Connection) -> None:
    """If this failed, a process that slept would go on spending what others may have been given."""
    budget = set_budget(db, total_limit=10)["id"]
    acquire(db, "h", [wish(budget, unit=8)])
    lapse(db)
    assert renew(db, "h", {the_window(db)["id"]: 8}) == {}
    assert (granted(db), audit(db)) == ([0], [])


# Many at once


def test_exactly_as_many_are_admitted_as_the_limit_allows(own_db: Connection, database_url: str) -> None:
    """If this failed, processes that ask at the same moment would overspend."""
    budget = set_budget(own_db, total_limit=30)["id"]
    organization = set_budget(own_db, entity_type="organization", total_limit=45, metric="calls")["id"]
    start = threading.Barrier(8)

    def ask(worker: int) -> int:
        with connect(database_url) as connection:
            start.wait(60)
            answers = [
                answer
                for number in range(6)
                for answer in acquire(
                    connection, f"h{worker}", [wish(organization, "acme"), wish(budget, f"u-{(worker + number) % 2}")]
                )
            ]
        return sum(answer["admitted"] for answer in answers)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 45
    assert sum(granted(own_db, budget_id=budget)) == sum(granted(own_db, budget_id=organization)) == 45
    assert max(granted(own_db, budget_id=budget)) <= 30
    assert audit(own_db) == []


def test_eight_threads_do_everything_at_once_in_random_order(own_db: Connection, database_url: str) -> None:
    """If this failed, the database would report deadlocks under load, and the sums would drift."""
    kinds: list[Row] = [
        {"entity_type": "user", "total_limit": 40, "daily_limit": 1000},
        {"entity_type": "organization", "total_limit": 300, "monthly_limit": 1000},
        {"entity_type": "session", "total_limit": 15, "action": "throttle", "throttle_interval_s": "0.001"},
        {"entity_type": "agent", "total_limit": 60, "metric": "calls", "minute_limit": 1000},
        {"entity_type": "service", "total_limit": 20, "action": "alert"},
    ]
    budgets = [set_budget(own_db, **kind)["id"] for kind in kinds]
    start = threading.Barrier(8)

    def work(worker: int) -> int:
        chance = random.Random(worker)
        admitted = 0
        with connect(database_url) as connection:
            start.wait(60)
            for number in range(40):
                entities = [
                    f"u-{chance.randrange(4)}",
                    "acme",
                    f"s-{chance.randrange(6)}",
                    f"a-{chance.randrange(3)}",
                    "workflow",
                ]
                wishes = [wish(budget, entity, want=4) for budget, entity in zip(budgets, entities, strict=True)]
                chance.shuffle(wishes)
                doing = chance.random()
                if doing < 0.5:
                    answers = acquire(connection, f"h{worker}", wishes, wishes[:2], lifetime_s=chance.choice([0, 60]))
                    admitted += answers[0]["admitted"]
                    draws = [[window["id"], "1"] for window in answers[0]["windows"]]
                    chance.shuffle(draws)
                    calls: list[Any] = [
                        a_cost(
                            worker * 1000 + number * 2 + one,
                            user_id=entities[0],
                            organization_id="acme",
                            session_id=entities[2],
                            agent_id=entities[3],
                            service_type="workflow",
                            draws=draws,
                        )
                        for one in range(2)
                    ]
                    if chance.random() < 0.3:
                        calls.append({"id": "poison"})
                    call(connection, "record_calls_v1", calls=json.dumps(calls), holder=f"h{worker}")
                elif doing < 0.9:
                    kept = {window["id"]: 1 for window in windows(connection) if chance.random() < 0.7}
                    renew(connection, f"h{worker}", kept)
                else:
                    kind = chance.choice(kinds)
                    set_budget(connection, **{**kind, "total_limit": kind["total_limit"] + number})
        return admitted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) > 0
    assert audit(own_db) == []
    for worker in range(8):
        renew(own_db, f"h{worker}")
    assert set(granted(own_db)) == {0}
    [calls] = own_db.execute("select count(*) as calls from token_usage_logs").fetchall()
    assert spent(own_db, entity_type="organization", period="total") == {"acme": calls["calls"]}
    assert own_db.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone() == {
        "deadlocks": 0
    }


# What excludes each other


@pytest.mark.parametrize("changing", [True, False])
def test_an_ask_and_a_change_of_budgets_exclude_each_other(
    own_db: Connection, database_url: str, changing: bool
) -> None:
    """If this failed, a process could be granted money of windows that a change is just making anew. Asks exclude no asks."""
    budget = set_budget(own_db, entity_id="*", daily_limit="100")["id"]
    with connect(database_url) as one, connect(database_url) as other:
        other.execute("set lock_timeout = '50ms'")
        with one.transaction():  # as a change holds it, or an ask
            one.execute("select vital_private.lock_budgets(alone => %s)", [changing])
            with pytest.raises(psycopg.errors.LockNotAvailable):
                set_budget(other, entity_id="*", daily_limit="50")
            if changing:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    acquire(other, "h", [wish(budget)])
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    record(other, a_cost(1, "0.01"))
            else:
                assert acquire(other, "h", [wish(budget)])[0]["admitted"]
                assert record(other, a_cost(1, "0.01"))["inserted"] == 1
        set_budget(other, entity_id="*", daily_limit="50")
