"""What alerts and budgets say: one plain sentence, and never more than is true."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from vital_tracking.alerts import wording
from vital_tracking.alerts.alert import BudgetAlert, digest
from vital_tracking.alerts.wording import limit_text, one_line, sentence, time_left
from vital_tracking.core.amounts import amount_text
from vital_tracking.core.entities import ACTIONS, ENTITY_TYPES, METRICS, PERIODS

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 16, tzinfo=UTC)


def an_alert(**changes: Any) -> BudgetAlert:
    alert = BudgetAlert(
        organization_id=None,
        entity_type="user",
        entity_id="u-1",
        metric="cost_usd",
        action="block",
        enforce=True,
        period="day",
        window_starts_at=NOON,
        window_ends_at=MIDNIGHT,
        threshold=Decimal("0.8"),
        limit=Decimal(5),
        spent=Decimal("4.0213"),
        created_at=NOON,
    )
    return replace(alert, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block."),
        (
            {"enforce": False},
            "user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block (shadow: nothing is stopped).",
        ),
        (
            {"threshold": Decimal(1), "spent": Decimal("4.999")},
            "user u-1 has spent $4.99 of $5.00 today (99 %); the limit is reached: calls are blocked.",
        ),
        (
            {"spent": Decimal("5.10"), "action": "throttle", "organization_id": "acme", "period": "minute"},
            "user u-1 of organization acme has spent $5.10 of $5.00 this minute (102 %); the limit is reached: "
            "calls pass one by one.",
        ),
        (
            {"entity_type": "organization", "entity_id": "acme", "organization_id": "acme", "action": "downgrade"},
            "organization acme has spent $4.02 of $5.00 today (80 %); at the limit: downgrade.",
        ),
        (
            {"metric": "tokens", "limit": Decimal(5000), "spent": Decimal(4020), "period": "month", "action": "alert"},
            "user u-1 has used 4,020 of 5,000 tokens this month (80 %); at the limit: alert.",
        ),
        (
            {"metric": "calls", "limit": Decimal(0), "spent": Decimal(1), "period": "total", "enforce": False},
            "user u-1 has made 1 of 0 calls in all; the limit is reached: calls would be blocked (shadow).",
        ),
        (
            {"threshold": Decimal(0), "spent": Decimal("0.02"), "held": Decimal("4.90"), "action": "throttle"},
            "user u-1 has spent $0.02 of $5.00 today (0 %), and $4.90 is set aside for other calls; a call did not fit: "
            "calls pass one by one.",
        ),
        (
            {
                "threshold": Decimal(0),
                "metric": "tokens",
                "limit": Decimal(5000),
                "spent": Decimal(0),
                "held": Decimal(4020),
            },
            "user u-1 has used 0 of 5,000 tokens today (0 %), and 4,020 tokens are set aside for other calls; "
            "a call did not fit: it is blocked, and all that need as much.",
        ),
        (
            {"entity_id": "u\n2026-01-15 CRITICAL\x1b[31m forged"},
            "user u 2026-01-15 CRITICAL [31m forged has spent $4.02 of $5.00 today (80 %); at the limit: block.",
        ),
    ],
)
def test_an_alert_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    """People would not know who has spent what of what; a name could forge a second line of the log."""
    assert an_alert(**changes).message == message


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        ("4.9999", "cost_usd", "$4.99"),
        ("0.00419", "cost_usd", "$0.0041"),
        ("0.019", "cost_usd", "$0.019"),
        ("1234567.891", "cost_usd", "$1,234,567.89"),
        ("0", "cost_usd", "$0.00"),
        ("-0.5", "cost_usd", "-$0.50"),
        ("0.0000000000000001", "cost_usd", "$0.0000000000000001"),
        ("1E+3", "tokens", "1,000"),
    ],
)
def test_an_amount_never_reads_as_more_than_it_is(value: str, metric: str, text: str) -> None:
    """Somebody at $4.9999 of $5 would be told that the limit is reached."""
    assert amount_text(Decimal(value), metric) == text


def test_limits_and_spans_read_as_people_write_them() -> None:
    """The tables would show 5E+2 or lose digits of a limit."""
    assert [limit_text(Decimal(text), "cost_usd") for text in ("5", "5.00", "0.5", "0.125", "5E+2")] == [
        *("$5", "$5", "$0.50", "$0.125", "$500"),
    ]
    assert [limit_text(Decimal(number), "calls") for number in (1, 2000)] == ["1 call", "2,000 calls"]
    moments = {
        "2026-01-15T12:00:30": "in 30 s",
        "2026-01-15T17:12:00": "in 5 h 12 min",
        "2026-01-24T15:00": "in 9 d 3 h",
    }
    assert [time_left(datetime.fromisoformat(text).replace(tzinfo=UTC), NOON) for text in moments] == list(
        moments.values()
    )
    assert (time_left(None, NOON), time_left(NOON, MIDNIGHT)) == ("never", "over")
    assert one_line("x" * 200) == "x" * 99 + "…"


BUDGET = {
    "organization_id": None,
    "entity_type": "user",
    "entity_id": "*",
    "metric": "cost_usd",
    "minute_limit": None,
    "daily_limit": "5",
    "monthly_limit": "100",
    "total_limit": None,
    "action": "block",
    "alert_thresholds": ["0.5", "0.8", "1.0"],
    "throttle_interval_s": "10.000000",
    "downgrade_to": None,
    "enforce": True,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Each user may spend $5 a day and $100 a month; over that, calls are blocked."),
        (
            {"enforce": False},
            "Each user may spend $5 a day and $100 a month; over that, calls would be blocked, but it only watches (shadow): "
            "nothing is stopped.",
        ),
        (
            {"action": "alert", "entity_id": "u-1", "organization_id": "acme"},
            "User u-1 of organization acme may spend $5 a day and $100 a month; an alert is raised at 50 %, 80 % and 100 %, and "
            "nothing is stopped.",
        ),
        (
            {"action": "throttle", "metric": "tokens", "entity_type": "tier", "entity_id": "tier_3"},
            "Agent tier tier_3 may use 5 tokens a day and 100 a month; over that, calls pass one every 10 s.",
        ),
        (
            {"action": "downgrade", "metric": "calls", "monthly_limit": None, "total_limit": "1000"},
            "Each user may make 5 calls a day and 1,000 in all; over that, only the cheaper models that the code offers pass.",
        ),
        (
            {"action": "downgrade", "downgrade_to": "gpt-4o-mini", "minute_limit": "0.5"},
            "Each user may spend $0.50 a minute, $5 a day and $100 a month; over that, only models no dearer than "
            "gpt-4o-mini pass.",
        ),
        (
            {"action": "throttle", "throttle_interval_s": "0.500000", "enforce": False, "monthly_limit": None},
            "Each user may spend $5 a day; over that, calls would pass one every 500 ms, but it only watches (shadow): nothing "
            "is stopped.",
        ),
        (
            {"action": "alert", "alert_thresholds": []},
            "Each user may spend $5 a day and $100 a month; nothing is stopped, nobody is told.",
        ),
    ],
)
def test_a_budget_is_one_plain_sentence(changes: dict[str, Any], said: str) -> None:
    """An admin would not see what a budget does before it does it."""
    assert sentence({**BUDGET, **changes}) == said


def test_every_metric_period_and_action_has_its_words() -> None:
    """Else the first alert of a new metric says nothing, or fails while it is being told."""
    assert wording._DONE.keys() == wording._MAY_DO.keys() == set(METRICS)
    assert wording._THIS_PERIOD.keys() == wording._PER_PERIOD.keys() == PERIODS.keys()
    assert wording._AT_THE_LIMIT.keys() == set(ACTIONS) - {"alert"}
    assert wording._NOUNS.keys() <= set(ENTITY_TYPES)


def test_one_alert_is_a_notification_of_its_own() -> None:
    """The title is all that a phone shows."""
    assert digest([an_alert()]).title == "Budget alert: user u-1"
    reached = digest([an_alert(threshold=Decimal(1))])
    assert (reached.title, reached.urgent) == ("Budget reached: user u-1", True)


def test_many_alerts_are_a_digest_with_the_worst_first() -> None:
    """The one that is blocked would stand below twenty that are half spent."""
    alerts = [an_alert(entity_id=f"u-{number}", threshold=Decimal("0.5")) for number in range(30)]
    alerts[25] = an_alert(entity_id="u-worst", threshold=Decimal(1))
    made = digest(alerts)
    lines = made.body.splitlines()
    assert made.title == "30 budget alerts, 1 limit reached"
    assert "u-worst" in lines[0]
    assert len(lines) == 21
    assert lines[-1] == "and 10 more. See: vital-tracking alerts list"


def test_an_alert_about_abuse_says_whose_and_what_was_done() -> None:
    """If this failed, people would read of a stolen key as of a budget, and look in the wrong place."""
    row = {
        "organization_id": "acme",
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "calls",
        "action": "block",
        "enforce": True,
        "period": "5 minutes",
        "window_starts_at": "2026-11-30T12:00:00+00:00",
        "window_ends_at": None,
        "threshold": "6.8667",
        "limit_amount": "60",
        "spent": "412",
        "held": None,
        "created_at": "2026-11-30T12:05:00+00:00",
        "pattern": "user_calls",
        "severity": "high",
    }
    alert = BudgetAlert.from_row(row)
    assert alert.message == (
        "user u-1 of organization acme looks like abuse (user_calls, high): 412 calls within 5 minutes; it is met by block. "
        "See: vital-tracking abuse list"
    )
    told = digest([alert])
    assert (told.title, told.urgent) == ("Abuse? user u-1 of organization acme", True)
    dear = BudgetAlert.from_row(
        {**row, "metric": "cost_usd", "spent": "21.5", "period": "day", "action": "alert", "severity": "low"}
    )
    assert "$21.50 within a day; nothing is done yet" in dear.message
    assert digest([dear, alert]).title == "2 alerts, 2 of what looks like abuse"
