"""Figures as pages show them: amounts never rounded to nothing, durations in the unit that fits, what is unknown said."""

from __future__ import annotations

from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.csv import plain

NOTHING: Final = "\N{EN DASH}"


def usd(value: Decimal | None) -> str:
    """An amount of US dollars in cents, below ten cents in two significant digits, halves to even; never rounded to 0."""
    return NOTHING if value is None else amount_text(value, "cost_usd", rounding=ROUND_HALF_EVEN)


def usd_exact(value: Decimal | None) -> str:
    """An amount of US dollars with all its digits."""
    return NOTHING if value is None else amount_text(value, "cost_usd", exact=True)


def count(value: Decimal | int | float | None) -> str:
    """A number of calls, tokens or users, with thousands told apart."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{Decimal(str(value)).normalize():,f}"


def compact(value: Decimal | int | float | None) -> str:
    """A large number in a few characters: 18.4 M."""
    if value is None:
        return NOTHING
    sizes: tuple[tuple[int, str], ...] = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k"))
    for size, letter in sizes:
        if abs(float(value)) >= size:
            unit = 10**3 if letter == "k" else size
            return f"{Decimal(str(value)) / unit:,.1f}\N{NO-BREAK SPACE}{letter}"
    return count(value if isinstance(value, int) else int(value))


def percent(value: Decimal | float | None) -> str:
    """A share in percent with one digit; what is more than nothing is never shown as nothing, nor less than all as all."""
    if value is None:
        return NOTHING
    exact = Decimal(str(value))
    rounded = exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
    if rounded == 0 and exact > 0:
        return "<\N{NARROW NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
    if rounded == 100 and exact < 100:
        return ">\N{NARROW NO-BREAK SPACE}99.9\N{NO-BREAK SPACE}%"
    return f"{rounded:f}\N{NO-BREAK SPACE}%"


def duration(milliseconds: Decimal | float | None) -> str:
    """How long something took, in two or three digits."""
    if milliseconds is None:
        return NOTHING
    value = float(milliseconds)
    if value < 999.5:
        return f"{value:.0f}\N{NO-BREAK SPACE}ms" if value >= 9.95 or value == 0 else f"{value:.1f}\N{NO-BREAK SPACE}ms"
    seconds = value / 1000
    if seconds < 99.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s"
    return f"{minutes // 60:,}\N{NO-BREAK SPACE}h {minutes % 60}\N{NO-BREAK SPACE}min"


def moment(value: datetime | None, timezone: str = "UTC") -> str:
    """An instant in a time zone, to the second."""
    return NOTHING if value is None else f"{value.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M:%S}"


def change(now: Decimal | float | None, before: Decimal | float | None) -> Decimal | None:
    """By how many percent something grew; None where there was nothing before."""
    if now is None or not before:
        return None
    return (Decimal(str(now)) - Decimal(str(before))) / Decimal(str(before)) * 100


def change_text(value: Decimal | None) -> str:
    """A change in percent with its sign."""
    if value is None:
        return "new"
    rounded = value.quantize(Decimal("0.1") if abs(value) < 10 else Decimal(1), ROUND_HALF_UP)
    sign = "+" if rounded > 0 else "\N{MINUS SIGN}" if rounded < 0 else "\N{PLUS-MINUS SIGN}"
    return f"{sign}{abs(rounded):,f}\N{NO-BREAK SPACE}%"


def points(value: Decimal | None) -> str:
    """By how many whole points a score rose or fell, with its sign."""
    if value is None:
        return NOTHING
    rounded = int(value.quantize(Decimal(1), ROUND_HALF_UP))
    sign = "+" if rounded > 0 else "\N{MINUS SIGN}" if rounded < 0 else "\N{PLUS-MINUS SIGN}"
    return f"{sign}{abs(rounded)}"


def changed(now: Decimal, before: Decimal) -> tuple[str, Literal["", "up", "down"]]:
    """A change as a card shows it: in percent with its sign, and the way it went; no way where it is shown as nothing."""
    told = change_text(change(now, before))
    ways: dict[str, Literal["", "up", "down"]] = {"+": "up", "\N{MINUS SIGN}": "down"}
    return told, ways.get(told[:1], "")


def machine(value: Any) -> str:
    """A value as programs read it: all digits, ISO times, nothing for what is unknown."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Decimal | date | str):
        return plain(value)
    return str(value)
