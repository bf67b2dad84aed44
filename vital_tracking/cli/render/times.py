"""Times as people write them on the command line, and as they read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import typer

from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.days import FIRST_DAY, known_day

_SPAN: Final = re.compile(r"(\d+)\s*([smhdw])")
MOST_DAYS: Final = 36_500
"""As many days as --days takes anywhere."""
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MONTH: Final = re.compile(r"\d{4}-\d{2}")
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WORDS: Final = ("today", "yesterday", "now", *_DAYS)
"""Words that name an instant: the beginning of a day, of the last such day where it is a weekday."""


def moment(text: str, option: str, timezone: str = "UTC") -> datetime:
    """The instant that an option names, in a time zone where it says nothing else.

    A date, a time or a month (its beginning), a span back from now such as 7d, or one of WORDS.
    """
    zone, wanted = ZoneInfo(timezone), text.strip().lower()
    try:
        if wanted in WORDS:
            return _named(wanted, datetime.now(zone))
        if match := _SPAN.fullmatch(wanted):
            return _known(datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])}), option)
        named = datetime.fromisoformat(f"{wanted}-01" if _MONTH.fullmatch(wanted) else text.strip())
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{option} takes a span such as 30m, 24h or 7d, a date such as 2026-01-31, a month, or a word such as "
            f"today, yesterday or monday{did_you_mean(wanted, WORDS)}"
        ) from None
    return _known(named if named.tzinfo else named.replace(tzinfo=zone), option)


def between(since: str | None, until: str | None, timezone: str = "UTC") -> tuple[datetime | None, datetime | None]:
    """What --since and --until name, the first before the second; None for what is not given."""
    first = moment(since, "--since", timezone) if since is not None else None
    last = moment(until, "--until", timezone) if until is not None else None
    if first is not None and last is not None and first >= last:
        raise typer.BadParameter("--since must be earlier than --until")
    return first, last


def days_back(days: int) -> datetime:
    """The instant so many days ago, or the first one that there is."""
    now = datetime.now(UTC)
    return now - timedelta(days=min(days, (now.date() - FIRST_DAY).days))


def _known(named: datetime, option: str) -> datetime:
    try:
        return known_day(named)
    except ValueError as wrong:
        raise typer.BadParameter(f"{option} names a day that there is not: {wrong}") from None


def _named(word: str, now: datetime) -> datetime:
    if word == "now":
        return now
    back = {"today": 0, "yesterday": 1}.get(word)
    day = now.date() - timedelta(days=(now.weekday() - _DAYS.index(word)) % 7 if back is None else back)
    return datetime(day.year, day.month, day.day, tzinfo=now.tzinfo)


def month(text: str, timezone: str = "UTC") -> tuple[datetime, datetime]:
    """The beginning of a month such as 2026-11 in a time zone, and of the next one."""
    zone = ZoneInfo(timezone)
    try:
        first = known_day(datetime.strptime(text.strip(), "%Y-%m").replace(tzinfo=zone))
        return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no month: it looks like 2026-11") from None


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


def days_text(since: datetime, until: datetime, timezone: str = "UTC") -> str:
    """The days of a time zone from an instant up to another: 24 Oct to 22 Nov 2026, 30 days."""
    zone = ZoneInfo(timezone)
    first, last = since.astimezone(zone), (until - timedelta(microseconds=1)).astimezone(zone)
    number = (last.date() - first.date()).days + 1
    if number <= 1:
        return f"{first.day} {first:%b %Y}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day} {first:%b}{year} to {last.day} {last:%b %Y}, {number} days"


def short_time(moment: datetime | None) -> str:
    """An instant in UTC without its year, for tables: 11-22 14:05:09."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%m-%d %H:%M:%S}"
