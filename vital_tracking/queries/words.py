"""Counts, sizes and amounts in words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
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


def closest(word: str, choices: Sequence[str]) -> list[str]:
    """The choices that somebody may have meant; one that lies in folders, such as a time zone, is also known by its last part."""
    short: dict[str, str] = {}
    for choice in choices:
        short.setdefault(choice.lower(), choice)
        short.setdefault(choice.rpartition("/")[2].lower(), choice)
    wanted = word.strip().lower().replace(" ", "_")
    close = [wanted] if wanted in short else difflib.get_close_matches(wanted, short, n=3, cutoff=0.7)
    return list(dict.fromkeys(short[name] for name in close))


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """The closest choices as the end of a sentence: `; did you mean users?`, or `.` where there are none."""
    names = closest(word, choices)
    return f"; did you mean {' or '.join(names)}?" if names else "."
