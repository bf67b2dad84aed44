"""When a budget will be reached: told from a window's own rate, from the one before it, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast

import pytest

from vital_tracking.queries.budgets import BudgetWindow
from vital_tracking.queries.outlook import outlook

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)


def a_window(spent: str, *, begins: datetime = MIDNIGHT, hours: int | None = 24) -> BudgetWindow:
    """A window of $10 for a user."""
    ends = begins + timedelta(hours=hours) if hours is not None else None
    row = {"budget_id": 1, "entity_id": "u-1", "period": "day", "starts_at": begins, "ends_at": ends}
    return cast("BudgetWindow", {**row, "limit_amount": Decimal(10), "spent": Decimal(spent), "metric": "cost_usd"})


@pytest.mark.parametrize(
    ("spent", "now", "reached", "rests_on"),
    [
        ("6", NOON, NOON + timedelta(hours=8), "this window"),  # $0.50 an hour, $4 left
        ("5", NOON, None, "this window"),  # the limit and the window's end together: it lasts
        ("0", NOON, None, "this window"),
        ("10", NOON, None, "reached"),
        ("12", NOON, None, "reached"),
        ("6", MIDNIGHT + timedelta(hours=1), None, "too little"),
        ("6", MIDNIGHT + timedelta(hours=24), None, "ended"),
    ],
)
def test_a_window_is_reached_at_its_own_rate(
    spent: str, now: datetime, reached: datetime | None, rests_on: str
) -> None:
    """If this failed, an admin would be told a time that the rate does not give, or none where there is one."""
    told = outlook(a_window(spent), None, now)
    assert (told.reached_at, told.rests_on) == (reached, rests_on)


def test_a_young_window_is_told_from_the_one_before() -> None:
    """If this failed, the first call of a day would foretell the end of the budget within minutes."""
    yesterday = a_window("24", begins=MIDNIGHT - timedelta(days=1))
    told = outlook(a_window("1"), yesterday, MIDNIGHT + timedelta(hours=1))
    assert told.reached_at == MIDNIGHT + timedelta(hours=10)  # $1 an hour, $9 left
    assert (told.rate_per_hour, told.rests_on) == (Decimal(1), "the window before")


def test_a_window_that_never_ends_needs_a_day() -> None:
    """If this failed, a total limit would be told from the hour in which it was made."""
    endless = a_window("5", hours=None)
    assert outlook(endless, None, NOON).rests_on == "too little"
    told = outlook(endless, None, MIDNIGHT + timedelta(hours=48))
    assert told.reached_at == MIDNIGHT + timedelta(hours=96)
    assert outlook(a_window("0.0000001", hours=None), None, MIDNIGHT + timedelta(days=2)).reached_at is None
