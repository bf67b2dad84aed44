"""The database's clock, as far as this process knows it: windows and rows go by that one, whatever this machine's says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

_AGREES: Final = timedelta(seconds=1)


class DatabaseClock:
    """How far this machine's clock is from the database's. Clocks within a second of each other are taken to agree."""

    def __init__(self) -> None:
        self.skew = timedelta()

    def sample(self, database_now: datetime, before: datetime, after: datetime) -> None:
        """Compare: the database answered with its time, between two readings of our own."""
        skew = database_now - (before + (after - before) / 2)
        # What the answer was under way for is unknown, so a difference smaller than that says nothing.
        self.skew = skew if abs(skew) > max(_AGREES, after - before) else timedelta()

    def corrected(self, moment: datetime) -> datetime:
        """A reading of our clock as the database's would have been."""
        return moment + self.skew if self.skew else moment
