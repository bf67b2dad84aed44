"""Times as people write them on the command line, and as they read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_SPAN: Final = re.compile(r"(\d+)\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str) -> datetime:
    """The instant that an option names: a date or time (UTC where it says nothing else), or a span back from now."""
    try:
        if match := _SPAN.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        named = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{option} takes a span such as 30m, 24h or 7d, or a date such as 2026-01-31"
        ) from None
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def duration(milliseconds: float | None) -> str:
    """How long something took, in two or three digits: 850 ms, 12.4 s, 3 min 20 s."""
    if milliseconds is None:
        return "-"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60):,} min {int(seconds % 60)} s"


def days_text(since: datetime, until: datetime) -> str:
    """The days (UTC) from an instant up to another: 24 Oct to 22 Nov 2026, 30 days."""
    first, last = since.astimezone(UTC), (until - timedelta(microseconds=1)).astimezone(UTC)
    number = (last.date() - first.date()).days + 1
    if number <= 1:
        return f"{first.day} {first:%b %Y}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day} {first:%b}{year} to {last.day} {last:%b %Y}, {number} days"


def short_time(moment: datetime | None) -> str:
    """An instant in UTC without its year, for tables: 11-22 14:05:09."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%m-%d %H:%M:%S}"
