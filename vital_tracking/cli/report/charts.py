"""Small charts of characters: a line of days, and a month with what it may still cost. ASCII where blocks cannot be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from rich.text import Text

from vital_tracking.cli.render.console import drawable

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS: Final = "_.:-=+*#"
_CHART_ROWS: Final = 7


def sparkline(values: Sequence[Decimal]) -> str:
    """One character a value, the higher the larger; the lowest one stands for zero alone."""
    levels = _LEVELS if drawable(_LEVELS) else _ASCII_LEVELS
    largest = max(values, default=Decimal(0))
    if largest <= 0:
        return levels[0] * len(values)
    top = len(levels) - 1
    return "".join(levels[max(1, round(top * value / largest)) if value > 0 else 0] for value in values)


def by_day(days: Mapping[date, Decimal], first: date, last: date, most: int = 31) -> list[Decimal]:
    """The amounts of all days from `first` to `last`, 0 where there is none; days are added up in groups where they are many."""
    together = days_together(first, last, most)
    # Counted from the end: the last group has as many days as the others, so that the cost does not seem to fall.
    amounts = [Decimal(0)] * -(-((last - first).days + 1) // together)
    for day, cost in days.items():
        amounts[-1 - (last - day).days // together] += cost
    return amounts


def days_together(first: date, last: date, most: int) -> int:
    """How many days one character stands for, so that there are at most `most` of them."""
    return -(-((last - first).days + 1) // most)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart: what stands below it, what was spent, and what it may become."""

    label: str
    spent: Decimal
    projected: Decimal

    @property
    def height(self) -> Decimal:
        """How high it is in all."""
        return max(self.spent, self.projected)


def chart(bars: Sequence[Bar], amount: str, width: int) -> Text:
    """Upright bars: what was spent, and on top of it what is projected. `amount` is the largest one, in words."""
    blocks = drawable(_LEVELS + "░")
    spent_levels = f" {_LEVELS if blocks else '...::::#'}"
    shade = "░" if blocks else "+"
    largest = max((bar.height for bar in bars), default=Decimal(0))
    scale = largest / _CHART_ROWS if largest > 0 else Decimal(1)
    thick = 2 if len(bars) * 3 + len(amount) + 2 <= width else 1
    gap = " " if len(bars) * (thick + 1) + len(amount) + 2 <= width else ""
    drawn = Text()
    for row in reversed(range(_CHART_ROWS)):
        drawn.append(f"{amount if row == _CHART_ROWS - 1 else '':>{len(amount)}} ", "dim")
        for bar in bars:
            full, whole = bar.spent / scale - row, bar.height / scale - row
            eighths = min(max(round(full * 8), 1 if row == 0 and full > 0 else 0), 8)
            if eighths == 8 or (eighths and bar.height == bar.spent):
                drawn.append(spent_levels[eighths] * thick + gap, "green")
            elif whole >= Decimal("0.5") or (whole > 0 and row == 0):
                drawn.append(shade * thick + gap, "cyan")
            else:
                drawn.append(" " * thick + gap)
        drawn.append("\n")
    drawn.append(" " * (len(amount) + 1))
    step = max(1, -(-3 // (thick + len(gap))))
    for number, bar in enumerate(bars):
        if number % step == 0:
            room = (thick + len(gap)) * min(step, len(bars) - number)
            drawn.append(f"{bar.label:<{room}}"[:room], "dim")
    return drawn
