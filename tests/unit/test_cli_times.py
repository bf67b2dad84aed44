"""The instants that words of the command line name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from vital_tracking.cli.render.times import _named, moment

# A Monday, shortly after clocks have changed in Berlin.
NOW = datetime(2026, 3, 30, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("word", "day"), [("today", 30), ("yesterday", 29), ("monday", 30), ("sunday", 29), ("tuesday", 24)]
)
def test_a_word_names_the_midnight_of_its_day_in_the_zone(word: str, day: int) -> None:
    """If this failed, `--since yesterday` would leave calls out, or count those of another day."""
    assert _named(word, NOW) == datetime(2026, 3, day, tzinfo=ZoneInfo("Europe/Berlin"))


def test_words_dates_and_spans_are_told_from_now_on() -> None:
    """If this failed, a report of the last day would be one of another time."""
    before = datetime.now(UTC)
    yesterday, span = moment("yesterday", "--since"), moment("36h", "--since")
    today = before.replace(hour=0, minute=0, second=0, microsecond=0)
    assert yesterday in (today - timedelta(days=1), today)  # at midnight it is the next day meanwhile
    assert timedelta(0) <= span - (before - timedelta(hours=36)) < timedelta(minutes=5)
    assert moment("2026-03-01", "--since", "Europe/Berlin") == datetime(2026, 2, 28, 23, tzinfo=UTC)
