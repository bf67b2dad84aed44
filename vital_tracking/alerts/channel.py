"""One alert URL and the alerts that it has yet to take: they are kept while it fails, and none is sent to it twice.

Each URL has a thread of its own while it sends, so that one that hangs holds up no other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from vital_tracking.alerts.alert import BudgetAlert, Digest, Notification
from vital_tracking.alerts.service import AlertService

logger = logging.getLogger("vital_tracking.budgets")

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 300.0
_KEPT: Final = 1000
_KEPT_S: Final = 86_400.0  # a day: older alerts tell nobody anything new


class Pause:
    """The pause after a failed attempt: it doubles up to five minutes, and ends when an attempt works."""

    def __init__(self) -> None:
        self._length_s = 0.0
        self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether the next attempt may be made."""
        return time.monotonic() >= self._until

    def after(self, *, worked: bool) -> None:
        """Note whether an attempt has worked."""
        self._length_s = 0.0 if worked else min(max(2 * self._length_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._until = time.monotonic() + self._length_s


class Recent:
    """The ids that were added last, a bounded number of them."""

    def __init__(self) -> None:
        self._ids: dict[int, None] = {}

    def add(self, ids: Iterable[int]) -> None:
        """Remember ids."""
        self._ids.update(dict.fromkeys(ids))
        for number in list(self._ids)[:-_KEPT]:
            del self._ids[number]

    def __contains__(self, number: object) -> bool:
        return number in self._ids


class Channel:
    """An alert URL, with the alerts that it has not taken yet."""

    def __init__(self, service: AlertService) -> None:
        self._service = service
        self._kept: dict[int, tuple[BudgetAlert, float]] = {}
        self._taken = Recent()
        self._pause = Pause()
        self._thread: threading.Thread | None = None
        self._trying = self._took = False
        self._problem: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the next notification may be sent: the pause is over, and no earlier one is still being sent."""
        return self._pause.over and not (self._thread and self._thread.is_alive())

    def keep(self, alerts: Mapping[int, BudgetAlert]) -> None:
        """Keep alerts that others took and this one did not, to send them with the next ones; the newest thousand, for a day."""
        until = time.monotonic() + _KEPT_S
        self._kept |= {number: (alert, until) for number, alert in alerts.items()}
        for number in list(self._kept)[:-_KEPT]:
            del self._kept[number]

    def start(self, alerts: Mapping[int, BudgetAlert], digest: Digest) -> None:
        """Begin to send one notification of the alerts and of what was kept; nothing where it has taken them all."""
        now = time.monotonic()
        self._kept = {
            number: kept for number, kept in self._kept.items() if kept[1] > now and number not in self._taken
        }
        waiting = {number: alert for number, (alert, _) in self._kept.items()}
        waiting |= {number: alert for number, alert in alerts.items() if number not in self._taken}
        self._thread, self._problem = None, None
        self._trying, self._took = bool(waiting), not waiting
        if not waiting:
            return
        work = (digest(list(waiting.values())), set(waiting))
        thread = threading.Thread(target=self._send, args=work, name="vital-tracking-alerts", daemon=True)
        # A RuntimeError means that the interpreter is shutting down: then nothing is sent.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def finish(self, deadline: float) -> bool:
        """Wait until it is sent, but no longer than the deadline, by the monotonic clock; whether it was taken."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self._problem = "no answer in time"
        took = self._took
        if self._trying:
            self._pause.after(worked=took)
            self._say(took)
        if took:
            self._kept.clear()
        return took

    def _send(self, notification: Notification, numbers: Collection[int]) -> None:
        took, problem = self._service.send(notification)
        if took:
            self._taken.add(numbers)  # also where `finish` waits no longer, so that it is not sent again
            self._took = True
        elif problem:
            self._problem = problem

    def _say(self, took: bool) -> None:
        service = self._service
        if not took and not service.troubled:
            reason = f": {self._problem}" if self._problem else ""
            logger.warning("Alerts cannot be sent to %s%s. They are kept and tried again.", service.name, reason)
        elif took and service.troubled:
            logger.warning("Alerts go to %s again.", service.name)
        service.troubled = not took
