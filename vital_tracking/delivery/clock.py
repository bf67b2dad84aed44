"""The database's clock, as far as this process knows it: windows and rows are dated by it, not by this machine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

_AGREES_S: Final = 1.0

# A clock that nobody sets. Where the system has one that goes on while the machine sleeps, as the time of day does, it is that.
_STEADY_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def _time_of_day() -> float:
    return time.time()


def _steady() -> float:
    return time.monotonic() if _STEADY_CLOCK is None else time.clock_gettime(_STEADY_CLOCK)


class Reading(NamedTuple):
    """A reading of this machine's clock, and how far it was ahead of the steady one at that moment, in seconds."""

    moment: datetime
    apart_s: float


class DatabaseClock:
    """How far this machine's clock is from the database's. Clocks within a second of each other are taken to agree.

    A call's time is corrected once, by the difference known when it began, and goes to the spool with that; so a call that is
    sent twice, or by two processes, has one time.

    `time_of_day` and `steady` read this machine's clock and one that nobody sets, both in seconds: where the first has gone
    another way than the second since the difference was measured, somebody has set it.
    """

    def __init__(self, time_of_day: Callable[[], float] = _time_of_day, steady: Callable[[], float] = _steady) -> None:
        self._time_of_day = time_of_day
        self._steady = steady
        self._measured: tuple[float, float] | None = None  # the difference, and how far apart our two clocks were then

    @property
    def skew_s(self) -> float | None:
        """What a reading of our clock must be corrected by now, in seconds; None before the first answer of the database's."""
        return None if self._measured is None else self._skew_at(self._apart_s(), *self._measured)

    @staticmethod
    def _skew_at(now_apart_s: float, skew_s: float, apart_s: float) -> float:
        stepped_s = now_apart_s - apart_s
        if abs(stepped_s) <= _AGREES_S:
            return skew_s
        skew_s -= stepped_s
        return skew_s if abs(skew_s) > _AGREES_S else 0.0

    def sample(self, database_now: datetime, before: datetime, after: datetime) -> None:
        """Compare: the database answered with its time, between two readings of our own."""
        skew_s = (database_now - (before + (after - before) / 2)).total_seconds()
        # How long the answer travelled is unknown, so a difference smaller than the round trip says nothing.
        unsure_s = max(_AGREES_S, (after - before).total_seconds())
        known_s = self.skew_s
        if known_s is not None and abs(skew_s - known_s) <= unsure_s:
            return
        self._measured = (skew_s if abs(skew_s) > unsure_s else 0.0, self._apart_s())

    def read(self) -> Reading:
        """A reading of our clock, to be taken before the database is asked."""
        moment = self._time_of_day()
        return Reading(datetime.fromtimestamp(moment, UTC), moment - self._steady())

    def heard(self, answer: object, before: Reading) -> None:
        """Compare with the time that an answer of the database's brings, which was asked for at `before`; some bring none."""
        if isinstance(answer, dict) and "now" in answer:
            self.told(datetime.fromisoformat(answer["now"]), before)

    def told(self, database_now: datetime, before: Reading) -> None:
        """Compare with what the database has told just now; where our clock was set since `before`, that is read as it is now."""
        after = self.read()
        stepped_s = after.apart_s - before.apart_s
        began = before.moment + timedelta(seconds=stepped_s) if abs(stepped_s) > _AGREES_S else before.moment
        self.sample(database_now, began, after.moment)

    def now(self) -> tuple[datetime, bool]:
        """The time by the database's clock; and whether it is still by our own, as nobody knows how far that is off."""
        moment, apart_s = self.read()  # once: the clock may be set between two readings
        if self._measured is None:
            return moment, True
        return moment + timedelta(seconds=self._skew_at(apart_s, *self._measured)), False

    def corrected(self, moment: datetime) -> datetime:
        """A reading of our clock as the database's would have been."""
        return moment + timedelta(seconds=self.skew_s or 0.0)

    def _apart_s(self) -> float:
        return self._time_of_day() - self._steady()
