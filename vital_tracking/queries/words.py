"""Counts, sizes and amounts in words."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB")


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 call, 2,000 calls."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: float) -> str:
    """A number of bytes."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:,.0f} {_UNITS[unit]}" if unit == 0 else f"{number:,.1f} {_UNITS[unit]}"


def usd(value: Decimal | None) -> str:
    """An amount of US dollars with all its digits, or that none is known."""
    if value is None:
        return "unpriced"
    text = format(value.normalize() if value else Decimal(0), "f")
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction:0<4}"
