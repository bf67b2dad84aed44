"""A call that waits for the database's answer: what passes between who asks and the lease client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vital_tracking.budgets.estimate import Amounts
from vital_tracking.budgets.ledger import Plan
from vital_tracking.core.admission import Admission, Request
from vital_tracking.errors import BudgetExceeded

_LONGEST_WAIT_S: Final = 1e9


class PendingRequest:
    """Who asks waits for `done`, or is told by `on_done`; then `error`, `again` or `admission` is the answer, if there is one."""

    __slots__ = (
        "_answered",
        "_lock",
        "admission",
        "again",
        "ahead",
        "amounts",
        "clamp",
        "done",
        "error",
        "gone",
        "limited",
        "max_wait",
        "on_done",
        "plan",
        "prepared",
        "request",
        "retried",
        "shortened",
        "wait_s",
        "waiting",
    )

    def __init__(self, request: Request, max_wait: float = 0.0, clamp: bool = False) -> None:
        self.request = request
        self.max_wait = min(max_wait, _LONGEST_WAIT_S) if max_wait > 0 else 0.0
        self.clamp = clamp
        self.ahead = False  # nobody waits for it
        self.plan: Plan  # both are there once it is prepared
        self.amounts: Amounts
        self.prepared = False
        self.limited: int | None = None
        self.shortened = self.retried = False
        self.waiting = 1  # calls of its kind that it asks for; 0: another one asks for more on behalf of all
        self.done = threading.Event()
        self.on_done: Callable[[], object] | None = None
        self.gone = False  # the asker waits no more
        self.again = False
        self.wait_s = 0.0
        self.admission: Admission | None = None
        self.error: BudgetExceeded | None = None
        self._lock = threading.Lock()
        self._answered = False

    # For who asks

    def give_up(self) -> bool:
        """Wait no longer; an answer that has just come still counts. Whether there is none."""
        with self._lock:
            self.gone = not self._answered
            return self.gone

    def cancel(self) -> Admission | None:
        """Want the answer no more; what was admitted by then, to be given back."""
        with self._lock:
            self.gone = True
            return self.admission

    # For who answers

    def answer(self, admission: Admission | None, error: BudgetExceeded | None, wait_s: float, *, again: bool) -> bool:
        """Give the answer; False where nobody waits for it any more."""
        with self._lock:
            if self.gone:
                return False
            self.admission, self.error, self.wait_s, self.again = admission, error, wait_s, again
            self._answered = True
        self._tell()
        return True

    def leave(self) -> None:
        """Let whoever asks decide alone; nothing where there is an answer already."""
        if not self._answered and not self.done.is_set():
            self._tell()

    def _tell(self) -> None:
        self.done.set()
        if self.on_done is not None:
            with suppress(RuntimeError):  # its event loop is closed
                self.on_done()
