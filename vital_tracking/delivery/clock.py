"""The database's clock, as far as this process knows it: windows and rows are dated by it, not by this machine's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

_AGREES: Final = timedelta(seconds=1)


class DatabaseClock:
    """How far this machine's clock is from the database's. Clocks within a second of each other are taken to agree.

    `skew_s` is the difference that was measured last, in seconds, None until there is one. A call's time is corrected once, by
    the difference known when it began, and goes to the spool with that; so a call that is sent twice, or by two processes, has
    one time.
    """

    def __init__(self) -> None:
        self.skew_s: float | None = None

    def sample(self, database_now: datetime, before: datetime, after: datetime) -> None:
        """Compare: the database answered with its time, between two readings of our own."""
        skew = database_now - (before + (after - before) / 2)
        # How long the answer travelled is unknown, so a difference smaller than the round trip says nothing.
        self.skew_s = skew.total_seconds() if abs(skew) > max(_AGREES, after - before) else 0.0

    def corrected(self, moment: datetime) -> datetime:
        """A reading of our clock as the database's would have been."""
        return moment + timedelta(seconds=self.skew_s) if self.skew_s else moment
