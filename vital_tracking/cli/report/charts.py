"""Small charts of characters: a line of days, and a month with what it may still cost. ASCII where blocks cannot be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from rich.text import Text

from vital_tracking.cli.render.console import drawable
from vital_tracking.queries.usage import Period

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


def course(costs: Mapping[Period, Decimal], periods: Sequence[Period], most: int = 31) -> list[Decimal]:
    """The amounts of all these periods, 0 where there is none; added up in groups, counted from the end, where they are many."""
    together = max(-(-len(periods) // most), 1)
    amounts = [Decimal(0)] * -(-len(periods) // together)
    for place, period in enumerate(reversed(periods)):
        amounts[-1 - place // together] += costs.get(period, Decimal(0))
    return amounts


def periods_between(grain: str, since: datetime, until: datetime, timezone: str) -> list[Period]:
    """The beginnings of all hours, days, weeks or months of a time zone that the time touches, as reports name them."""
    if grain == "hour":
        hours = int((until - since) / timedelta(hours=1))
        return [since.astimezone(UTC) + timedelta(hours=n) for n in range(hours)]
    zone = ZoneInfo(timezone)
    first, last = since.astimezone(zone).date(), (until - timedelta(microseconds=1)).astimezone(zone).date()
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    if grain == "week":
        return list(dict.fromkeys(day - timedelta(days=day.weekday()) for day in days))
    return list(dict.fromkeys(day.replace(day=1) for day in days)) if grain == "month" else list(days)


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
