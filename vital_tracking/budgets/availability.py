"""Whether the database can be waited for: whether it answers, and in time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from vital_tracking.errors import StoreError, StoreNotReady

logger = logging.getLogger("vital_tracking.budgets")

_SLOW_PART: Final = 0.8  # of the deadline: who takes longer is not waited for
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0  # grants in hand must be renewed as soon as that works again

_Result = TypeVar("_Result")


class Availability:
    """What one thread has found of the database. All threads read it to decide whether to wait.

    `troubled`: the database is away or too slow; until it answers in time again only the one thread asks it. `rests_until`: it
    is left alone so long, by our monotonic clock.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._asked_at: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self.troubled = False
        self.rests_until = 0.0

    @property
    def hopeless(self) -> bool:
        """Whether nobody should wait for an answer now."""
        return self.troubled or self._owing_s() > self._deadline_s

    def timed(self, work: Callable[[], _Result]) -> _Result:
        """Do work for which the database is waited for, and take note of how long it took."""
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
        """A call waited for its whole deadline. Where an answer of the database took that time, no other call waits for one."""
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
