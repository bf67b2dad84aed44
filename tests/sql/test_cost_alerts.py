"""Alerts: written once for each threshold and window, whoever crosses it, and given to one process to deliver."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
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
    alerts,
    an_unpriced_call,
    call,
    connect,
    record,
    set_budget,
    wish,
)

HALF, MOST, ALL = ("u-1", "total", "0.5", False), ("u-1", "total", "0.8", False), ("u-1", "total", "1.0", False)


def superseded(alert: tuple[str, str, str, bool]) -> tuple[str, str, str, bool]:
    return (*alert[:3], True)


def told(db: Connection, *calls: Row) -> list[str]:
    """Record calls; the thresholds that the report tells. In a transaction of its own, for the report is of one."""
    answer = call(db, "record_calls_v1", calls=json.dumps(calls))
    return [alert["threshold"] for alert in answer["alerts"] or []]


def test_each_threshold_is_alerted_once(own_db: Connection) -> None:
    """If this failed, an admin would hear of the same threshold with every call, or never."""
    set_budget(own_db, total_limit=10)
    steps = [("4.99", []), ("0.01", ["0.5"]), ("2.9", []), ("0.1", ["0.8"]), ("1.99", []), ("0.01", ["1.0"]), ("5", [])]
    for number, (cost, expected) in enumerate(steps):
        assert told(own_db, a_cost(number, cost)) == expected, number
    assert alerts(own_db) == [HALF, MOST, ALL]


def test_of_several_thresholds_crossed_at_once_only_the_highest_is_sent(own_db: Connection) -> None:
    """If this failed, one large call would send three messages."""
    set_budget(own_db, total_limit=10)
    assert told(own_db, a_cost(1, 5), a_cost(2, 4)) == ["0.8"]
    assert alerts(own_db) == [superseded(HALF), MOST]
    assert told(own_db, a_cost(3, 1)) == ["1.0"]
    assert alerts(own_db) == [superseded(HALF), MOST, ALL]


def test_an_alert_says_what_was_crossed(db: Connection) -> None:
    """If this failed, a message would name the wrong entity, window or amount."""
    budget = set_budget(
        db, organization_id="acme", daily_limit=10, timezone="Asia/Tokyo", action="throttle", metric="tokens"
    )
    record(db, a_cost(1, 5, organization_id="acme"))
    *_, alert = call(db, "cost_alerts_v1")
    assert {name: value for name, value in alert.items() if name not in ("id", "created_at")} == {
        "budget_id": budget["id"],
        "organization_id": "acme",
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "tokens",
        "action": "throttle",
        "enforce": True,
        "period": "day",
        "window_starts_at": "2033-05-09T15:00:00+00:00",
        "window_ends_at": "2033-05-10T15:00:00+00:00",
        "threshold": "0.5",
        "limit_amount": "10",
        "spent": "120",
        "held": None,
        "superseded": True,
        "delivered_at": None,
        "pattern": None,
        "severity": None,
    }


def test_every_window_has_its_own_alerts(db: Connection) -> None:
    """If this failed, the second day, or the second user, over the limit would pass in silence."""
    set_budget(db, daily_limit=10, alert_thresholds=["1"])
    record(db, a_cost(1, 10), a_cost(2, 10, user_id="u-2"), a_cost(3, 10, created_at="2033-05-11T12:00:00Z"))
    assert alerts(db) == [("u-1", "day", "1.0", False)] * 2 + [("u-2", "day", "1.0", False)]


def test_a_limit_of_zero_is_reached_by_the_first_cent(db: Connection) -> None:
    """If this failed, a budget of 0 would either always alarm or never."""
    set_budget(db, total_limit=0)
    record(db, a_cost(1, 0))
    assert alerts(db) == []
    record(db, a_cost(2, "0.000001"))
    assert alerts(db) == [superseded(HALF), superseded(MOST), ALL]


def test_thresholds_beyond_the_limit_are_alerted(db: Connection) -> None:
    """If this failed, nobody would hear that twice the limit is gone."""
    set_budget(db, total_limit=10, action="alert", alert_thresholds=["2", "1"])
    record(db, a_cost(1, 15))
    record(db, a_cost(2, 5))
    assert alerts(db) == [ALL, ("u-1", "total", "2.0", False)]


def test_crossing_a_threshold_again_sends_no_second_alert(db: Connection) -> None:
    """If this failed, every repricing would have the same threshold told again."""
    set_budget(db, total_limit=10)
    record(db, an_unpriced_call(1, created_at=NOON, user_id="u-1", ceiling_cost="6"))
    assert alerts(db) == [HALF]
    price = {
        "input_cost": "1",
        "output_cost": "0",
        "fees": "0",
        "total_cost": "1",
        "potential_cost": "1",
        "price_version": "v",
    }
    call(db, "reprice_calls_v1", prices=json.dumps([{"id": a_call(1)["id"], "created_at": NOON, **price}]))
    record(db, a_cost(2, 4))
    record(db, a_cost(3, 3))
    assert alerts(db) == [HALF, MOST]


def test_a_limit_lowered_below_what_is_spent_is_alerted_by_the_next_call(db: Connection) -> None:
    """If this failed, nobody would hear of a budget that was over its limit before it got it."""
    set_budget(db, total_limit=100)
    record(db, a_cost(1, 60))
    set_budget(db, total_limit=50)
    record(db, a_cost(2, 1))
    assert alerts(db) == [HALF, superseded(MOST), ALL]


def test_a_budget_made_after_the_money_was_spent_is_alerted_by_the_next_call(db: Connection) -> None:
    """If this failed, a budget made at noon would not tell that the morning has used it up."""
    record(db, a_cost(1, 60))
    set_budget(db, total_limit=50)
    assert alerts(db) == []
    record(db, a_cost(2, 1))
    assert alerts(db) == [superseded(HALF), superseded(MOST), ALL]


def test_a_call_that_no_longer_fits_is_alerted_once(db: Connection) -> None:
    """If this failed, nobody would hear of calls that are refused while some money is left, or with every one of them."""
    budget = set_budget(db, total_limit=10)["id"]
    record(db, a_cost(1, 9))
    refused = ("u-1", "total", "0.0", False)
    for _ in range(2):
        answer = call(db, "acquire_grants_v1", holder="h", asks=json.dumps([{"windows": [wish(budget, unit=2)]}]))
        assert answer["alerts"]
        assert alerts(db) == [refused, superseded(HALF), MOST]
    record(db, a_cost(2, 1))
    assert alerts(db) == [refused, superseded(HALF), MOST, ALL]


def test_a_budget_without_thresholds_sends_no_alert(db: Connection) -> None:
    """If this failed, alerts could not be switched off."""
    budget = set_budget(db, total_limit=10, alert_thresholds=[])["id"]
    record(db, a_cost(1, 50))
    assert not acquire(db, "h", [wish(budget)])[0]["admitted"]
    assert alerts(db) == []


def test_an_alert_of_a_call_that_did_not_fit_tells_what_is_known_at_that_moment(db: Connection) -> None:
    """An admin would read that $0 of $10 is spent, and nothing of the calls that left no room."""
    budget = set_budget(db, total_limit=10)["id"]
    record(db, a_cost(1, 1))
    acquire(db, "other", [wish(budget, unit=2)])
    [first] = acquire(db, "h", [wish(budget, unit=6)])
    window = str(first["windows"][0]["id"])
    # Of the 6, calls under way hold 1 and ended ones have spent 4.5; the row of one of these, of 0.5, is stored by now.
    drawn = json.dumps([a_cost(2, "0.5", draws=[[int(window), "0.5"]])])
    call(db, "record_calls_v1", calls=drawn, holder="h")
    here = {window: {"granted": "6", "held": "1", "unposted": "4.5"}}
    [answer] = acquire(db, "h", [wish(budget, unit=3, have={window: "0.5"}, here=here)])
    assert not answer["admitted"]
    alert = next(alert for alert in call(db, "cost_alerts_v1") if alert["threshold"] == "0")
    assert [Decimal(alert[name]) for name in ("spent", "held", "limit_amount")] == [Decimal("5.5"), 3, 10]


def test_an_alert_of_a_process_that_holds_nothing_tells_what_others_hold(db: Connection) -> None:
    """As above: what all grants come to is set aside, as far as anybody knows."""
    budget = set_budget(db, total_limit=10)["id"]
    acquire(db, "other", [wish(budget, unit=9)])
    acquire(db, "h", [wish(budget, unit=2)])
    [alert] = call(db, "cost_alerts_v1")
    assert (alert["threshold"], alert["spent"], alert["held"]) == ("0", "0", "9")


def test_processes_that_cross_a_threshold_together_send_one_alert(own_db: Connection, database_url: str) -> None:
    """If this failed, processes that cross a threshold together would each tell it."""
    set_budget(own_db, total_limit=100)
    start = threading.Barrier(8)

    def spend(worker: int) -> list[str]:
        heard: list[str] = []
        with connect(database_url) as connection:
            start.wait(60)
            for number in range(15):
                heard += told(connection, a_cost(worker * 100 + number, 1))
        return heard

    with ThreadPoolExecutor(8) as pool:
        assert sorted(one for heard in pool.map(spend, range(8)) for one in heard) == ["0.5", "0.8", "1.0"]
    assert alerts(own_db) == [HALF, MOST, ALL]


# Delivery


def claim(db: Connection, holder: str = "h", **options: Any) -> list[int]:
    return [alert["id"] for alert in call(db, "claim_alerts_v1", holder=holder, **options)]


def settle(db: Connection, ids: list[int], *, delivered: bool, **holder: str) -> int:
    return int(call(db, "settle_alerts_v1", ids=json.dumps(ids), delivered=delivered, **holder)["settled"])


@pytest.fixture
def three(db: Connection) -> list[int]:
    """Three alerts that nobody has delivered, and one that is superseded."""
    set_budget(db, total_limit=10)
    record(db, a_cost(1, 5), a_cost(2, 8, user_id="u-2"))
    record(db, a_cost(3, 3))
    found = db.execute("select id from cost_alerts where not superseded order by id").fetchall()
    assert len(found) == 3
    return [row["id"] for row in found]


def test_alerts_are_claimed_oldest_first_and_listed_newest_first(db: Connection, three: list[int]) -> None:
    """If this failed, old news would drown new ones."""
    assert claim(db, max_rows=2) == three[:2]
    assert claim(db, max_rows=2) == three[2:]
    newest = [alert["id"] for alert in call(db, "cost_alerts_v1")]
    assert newest == sorted(newest, reverse=True)
    assert len(newest) == 4
    assert [alert["id"] for alert in call(db, "cost_alerts_v1", max_rows=1)] == newest[:1]
    assert call(db, "cost_alerts_v1", since="2100-01-01Z") == []


def test_an_alert_is_not_delivered_twice(db: Connection, three: list[int]) -> None:
    """If this failed, every process would send every alert."""
    assert claim(db, "one") == three
    assert claim(db, "other") == []
    assert settle(db, three[:1], delivered=True) == 1
    assert settle(db, three[1:2], delivered=False) == 1
    assert claim(db, "other") == three[1:2]
    assert settle(db, [*three[:2], 10**9], delivered=True) == 1
    assert settle(db, [], delivered=True) == 0
    assert claim(db, "other") == []


def test_an_alert_whose_claim_expired_is_delivered_by_another(db: Connection, three: list[int]) -> None:
    """If this failed, the alerts of a process that died while it told them would never be told."""
    claim(db, "dead")
    db.execute("update cost_alerts set claimed_until = now() - interval '1 second' where claimed_by = 'dead'")
    assert claim(db, "other") == three
    assert settle(db, three[:1], delivered=False, holder="dead") == 0
    assert claim(db, "third") == []
    assert settle(db, three[:1], delivered=True, holder="dead") == 1
    assert settle(db, three[1:2], delivered=False, holder="other") == 1
    assert claim(db, "third") == three[1:2]


def test_alerts_a_day_old_are_not_sent_any_more(db: Connection, three: list[int]) -> None:
    """If this failed, a process that starts after a week would send a week's alerts."""
    db.execute("update cost_alerts set created_at = now() - interval '1 day' where id = %s", [three[0]])
    db.execute("update cost_alerts set created_at = now() - interval '23 hours' where id = %s", [three[1]])
    assert claim(db) == three[1:]


def test_two_who_claim_at_once_get_different_alerts(own_db: Connection, database_url: str) -> None:
    """If this failed, an alert would be sent twice, or the second process would wait for the first."""
    set_budget(own_db, total_limit=10, alert_thresholds=["0.1"])
    record(own_db, *[a_cost(number, 1, user_id=f"u-{number}") for number in range(20)])
    with connect(database_url) as first, connect(database_url) as second:
        second.execute("set lock_timeout = '5s'")
        with first.transaction():
            mine = claim(first, "one", max_rows=8)
            theirs = claim(second, "other")
    assert (len(mine), len(theirs), set(mine) & set(theirs)) == (8, 12, set())

    start = threading.Barrier(4)
    own_db.execute("update cost_alerts set claimed_until = null")

    def take(worker: int) -> list[int]:
        taken: list[int] = []
        with connect(database_url) as connection:
            start.wait(60)
            while batch := claim(connection, f"h{worker}", max_rows=3):
                taken += batch
                settle(connection, batch, delivered=True)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [one for batch in pool.map(take, range(4)) for one in batch]
    assert sorted(taken) == sorted(mine + theirs)


def test_alerts_outlive_their_budget_s_changes(db: Connection) -> None:
    """If this failed, changing a limit would send the same threshold again, or change what was told."""
    budget = set_budget(db, total_limit=10)["id"]
    record(db, a_cost(1, 5))
    moved = timedelta(days=1)
    db.execute("update cost_alerts set created_at = created_at - %s", [moved])
    set_budget(db, total_limit=5)
    db.execute("update budget_limits set action = 'alert', total_limit = 8 where id = %s", [budget])
    record(db, a_cost(2, 1))
    assert alerts(db) == [HALF]
    [alert] = call(db, "cost_alerts_v1")
    assert (alert["action"], alert["limit_amount"]) == ("block", "10")
