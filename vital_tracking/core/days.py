"""The days that anything here can be of: beyond them clocks, databases and calendars each have ends of their own."""

from __future__ import annotations

from datetime import date
from typing import Final, TypeVar

FIRST_DAY: Final = date(1970, 1, 1)
LAST_DAY: Final = date(2999, 12, 31)

_When = TypeVar("_When", bound=date)


def known_day(when: _When) -> _When:
    """A day or an instant, if its day is one of these; ValueError names them. Beside each there is room for any zone."""
    if not FIRST_DAY <= date(when.year, when.month, when.day) <= LAST_DAY:
        raise ValueError(f"days are from {FIRST_DAY} to {LAST_DAY}")
    return when
