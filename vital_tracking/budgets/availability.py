"""Whether the database answers, and soon enough for calls to wait for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from vital_tracking.errors import StoreError, StoreNotReady

logger = logging.getLogger("vital_tracking.budgets")

_SLOW_PART: Final = 0.8  # share of the deadline: a database that takes longer is too slow to wait for
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0  # short, since grants in hand must be renewed as soon as that works again

_Result = TypeVar("_Result")


class Availability:
    """What the lease thread knows of the database. All other threads read it to decide whether to wait for an answer.

    `troubled`: the database is away or too slow; until it answers in time again no call waits for it. `rests_until`: until
    that moment of our monotonic clock it is left alone by housekeeping, too.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._asked_at: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self.troubled = False
        self.rests_until = 0.0

    @property
    def hopeless(self) -> bool:
        """Whether no call should wait for an answer now."""
        return self.troubled or self._owing_s() > self._deadline_s

    def timed(self, work: Callable[[], _Result]) -> _Result:
        """Do work that waits for the database, and note how long it took."""
        self._asked_at = time.monotonic()
        try:
            answer = work()
            slow = self._owing_s() > self._deadline_s * _SLOW_PART
        finally:
            self._asked_at = None
        if slow and self.troubled:
            self.rest()
        elif not slow:
            self._pause_s = _FIRST_PAUSE_S
            if self.troubled:
                self.troubled = False
                logger.warning("The database answers in time again; budgets are checked.")
        return answer

    def waited_in_vain(self) -> None:
        """A call has waited until its deadline. If the database is to blame, and not the queue, no other call waits for it."""
        if self._owing_s() > self._deadline_s / 2:
            self._say_troubled(f"The database did not answer within {self._deadline_s:g} s.")

    def failed(self, error: StoreError) -> None:
        """The database cannot be asked: leave it alone for a moment, and let budgets decide by `when_unavailable`."""
        self.rest()
        self._say_troubled(f"{error}{' Budgets are not checked.' if isinstance(error, StoreNotReady) else ''}")

    def rest(self) -> None:
        """Leave the database alone for a moment, longer every time."""
        self.rests_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _owing_s(self) -> float:
        """For how many seconds the database has been owing an answer."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    def _say_troubled(self, problem: str) -> None:
        if not self.troubled:
            self.troubled = True
            logger.warning(
                "%s Calls go on by the grants in hand, then as each budget's when_unavailable says.", problem
            )
