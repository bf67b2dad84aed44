"""How alerts of budgets get to people: by the log, callbacks and, with the extra `alerts`, the alert URLs of apprise.

The database holds every alert and who is delivering it (`claim_alerts_v1`), so any process may deliver what another one
crossed, and each is delivered once. Only where a process dies between delivering one and confirming it is it delivered again.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import SecretStr

from vital_tracking.alerts.alert import BudgetAlert, digest, read
from vital_tracking.alerts.channel import Channel, Pause, Recent
from vital_tracking.alerts.service import AlertService
from vital_tracking.errors import StoreError
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.budgets")

_CLAIM: Final = 1000  # as many as the database gives at once, so that very many are still one notification
_CLAIM_TO_CALL_BACK: Final = 100  # so few that all callbacks are called within the minute that a claim lasts
_TIMEOUT_S: Final = 10.0


def log(alerts: Iterable[Mapping[str, Any]] | None) -> None:
    """Log alerts, the rows that `record_calls_v1` reports: done once, by the process whose calls crossed the threshold."""
    for alert in read(alerts).values():
        logger.warning("%s", alert.message)


class AlertDispatcher:
    """Delivers alerts to callbacks and alert URLs.

    `callbacks` are plain functions of one BudgetAlert; they are called on a background thread. `urls` are those of apprise;
    they hold secrets and are never shown. `holder` names this process. A wrong URL is a SettingsError, apprise not being
    installed a MissingExtra.
    """

    def __init__(
        self, store: Store, callbacks: Sequence[Callable[[BudgetAlert], None]], urls: Sequence[SecretStr], holder: str
    ) -> None:
        for callback in callbacks:
            if not callable(callback) or inspect.iscoroutinefunction(callback):
                raise TypeError("A callback for alerts is a plain function of one BudgetAlert, no coroutine function.")
        self._store = store
        self._callbacks = tuple(callbacks)
        self._holder = holder
        self._services = [AlertService(url, number, len(urls)) for number, url in enumerate(urls, 1)]
        self._claim = _CLAIM_TO_CALL_BACK if self._callbacks else _CLAIM
        self._faults = 0
        self.reset_after_fork()

    @property
    def active(self) -> bool:
        """Whether there are callbacks or URLs; without any, `deliver` leaves the alerts to other processes."""
        return bool(self._callbacks or self._services)

    @property
    def faults(self) -> int:
        """How often a callback has raised."""
        return self._faults

    def reset_after_fork(self) -> None:
        """In a forked child: forget the alerts in hand, which the parent delivers."""
        self._lock = threading.Lock()
        self._channels = [Channel(service) for service in self._services]
        self._pause = Pause()
        self._called_back = Recent()
        self._unconfirmed: set[int] = set()

    def deliver(self, timeout_s: float = _TIMEOUT_S) -> int:
        """Deliver the alerts that are due, by whichever process they were raised; returns how many were.

        Takes the time of the callbacks and at most `timeout_s` seconds for all alert URLs together. What could not be delivered
        is tried again: by this process after a pause that doubles up to five minutes, by others at once. While the database
        is away it does nothing.
        """
        if not self.active or not self._lock.acquire(blocking=False):
            return 0
        try:
            return self._deliver(timeout_s)
        except StoreError:
            return 0  # the batch processor logs that the database is away
        finally:
            self._lock.release()

    def _deliver(self, timeout_s: float) -> int:
        self._confirm()
        ready = [channel for channel in self._channels if channel.ready]
        if not ready and (self._channels or not self._pause.over):
            return 0
        claimed = read(self._store.call("claim_alerts_v1", holder=self._holder, max_rows=self._claim))
        told = {number for number, alert in claimed.items() if self._call_back(number, alert)}
        if self._channels:
            done = set(claimed) if self._send(ready, claimed, timeout_s) else set()
            self._called_back.add(told - done)
        else:
            done = told
            self._pause.after(worked=bool(done) or not claimed)
        self._unconfirmed |= done
        # If the database cannot be reached, the claims lapse in a minute, and what was delivered is confirmed next time.
        with suppress(StoreError):
            if failed := claimed.keys() - done:
                self._report(failed, delivered=False)
            self._confirm()
        return len(done)

    def _call_back(self, number: int, alert: BudgetAlert) -> bool:
        """Call every callback; whether one of them took the alert."""
        if number in self._called_back:  # no alert URL took it then, so it was claimed again
            return True
        took = False
        for callback in self._callbacks:
            try:
                callback(alert)
                took = True
            except Exception as error:  # noqa: BLE001 - a user's callback must not stop the others
                self._faults += 1
                if self._faults == 1:
                    logger.warning("A callback for alerts raised %s; the others are called.", type(error).__name__)
        return took

    def _send(self, ready: Sequence[Channel], claimed: Mapping[int, BudgetAlert], timeout_s: float) -> bool:
        """Send one notification to each URL; whether one of them took it. The others take it later, from this process."""
        deadline = time.monotonic() + timeout_s
        for channel in ready:
            channel.start(claimed, digest)
        took = [channel for channel in ready if channel.finish(deadline)]
        if took:
            for channel in self._channels:
                if channel not in took:
                    channel.keep(claimed)
        return bool(took)

    def _confirm(self) -> None:
        """Tell the database what has been delivered, if it was not told last time because it could not be reached."""
        if self._unconfirmed:
            self._report(self._unconfirmed, delivered=True)
            self._unconfirmed = set()

    def _report(self, numbers: Iterable[int], *, delivered: bool) -> None:
        self._store.call("settle_alerts_v1", ids=json.dumps(sorted(numbers)), delivered=delivered, holder=self._holder)
