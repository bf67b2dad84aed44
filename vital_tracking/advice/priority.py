"""How pressing a recommendation is, and how long it takes: the rules that docs/advice.md writes down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from vital_tracking.advice.recommendation import Level
from vital_tracking.core.cost import MONEY

HIGH_PERCENT: Final = 10
"""From which share of the month's bill on a saving is of high priority."""

MEDIUM_PERCENT: Final = 2
"""From which share of the month's bill on it is of medium priority."""

HOURS: Final[Mapping[Level, int]] = {Level.low: 1, Level.medium: 8, Level.high: 40}
"""The working hours of an effort: an hour, a day, a week of five days."""

_DOWN: Final = {Level.high: Level.medium, Level.medium: Level.low, Level.low: Level.low}
_A_DAY: Final = HOURS[Level.medium]
_A_WEEK: Final = HOURS[Level.high]


def priority_of(
    amount: Decimal, monthly_bill: Decimal, *, confidence: Level = Level.high, counted: bool = True
) -> Level:
    """By the share of the month's bill that `amount` US dollars a month are.

    One step lower where confidence is low, or where it is no part of the total (an upper bound, or no part of the bill).
    """
    found = _by_share(amount, monthly_bill)
    return _DOWN[found] if confidence is Level.low or not counted else found


def _by_share(amount: Decimal, monthly_bill: Decimal) -> Level:
    if amount <= 0:
        return Level.low
    hundredfold = MONEY.multiply(amount, Decimal(100))
    if hundredfold >= MONEY.multiply(monthly_bill, Decimal(HIGH_PERCENT)):
        return Level.high
    return Level.medium if hundredfold >= MONEY.multiply(monthly_bill, Decimal(MEDIUM_PERCENT)) else Level.low


def time_in_words(efforts: Iterable[Level]) -> str:
    """How long all of it takes, as a sum in words: 1 week, 2 days and 3 hours. Nothing takes no time."""
    hours = sum(HOURS[effort] for effort in efforts)
    weeks, rest = divmod(hours, _A_WEEK)
    days, left = divmod(rest, _A_DAY)
    parts = [
        f"{number} {unit}{'' if number == 1 else 's'}"
        for number, unit in ((weeks, "week"), (days, "day"), (left, "hour"))
        if number
    ]
    if not parts:
        return "no time"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
