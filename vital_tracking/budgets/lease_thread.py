"""The one thread of an admission controller: it serves the calls that wait, renews grants, and has alerts delivered in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from vital_tracking.budgets.availability import Availability
from vital_tracking.budgets.lease_client import LeaseClient
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.pending import PendingRequest
from vital_tracking.errors import StoreError
from vital_tracking.settings import Settings

_TICK_S: Final = 1.0
_GLANCE_S: Final = 0.1
_ALERTS_EVERY_S: Final = 30.0


class LeaseThread:
    """Takes requests from any thread and has the lease client serve them in their order; `submit` never raises.

    `fault` is told of errors of ours. `deliver_alerts` is called on a thread of its own, as it may take long; None where there
    is nobody to deliver alerts to.
    """

    def __init__(
        self,
        client: LeaseClient,
        ledger: Ledger,
        availability: Availability,
        settings: Settings,
        *,
        fault: Callable[[BaseException], object],
        deliver_alerts: Callable[[], object] | None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self.availability = availability
        self._refresh_s = settings.budget_refresh_s
        self._fault = fault
        self._deliver_alerts = deliver_alerts
        self._queue: SimpleQueue[PendingRequest | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._closing = False
        self._look_due = 0.0
        self._alerts_due = 0.0
        self._delivering: threading.Thread | None = None

    # For any thread

    def submit(self, pending: PendingRequest) -> None:
        """Have a request served; it is left unanswered at once where the database is known to be away or too slow."""
        if self._closing or self.availability.hopeless:
            pending.leave()
            return
        self._queue.put(pending)
        if not self._running:
            self.start()

    def start(self) -> None:
        """Have the thread run."""
        if self._running:
            return
        with self._lock:
            if self._running or self._closing:
                return
            self._running = True
            thread = threading.Thread(target=self._run, name="vital-tracking-budgets", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._running = False
                return
            self._thread = thread

    def look_for_alerts(self) -> None:
        """Have the alerts delivered that are due now."""
        self._alerts_due = 0.0
        if self._running:
            self._queue.put(None)
        else:
            self.start()

    def turns_came_back(self) -> None:
        """Throttled calls that were given a turn are not made: others may have it now."""
        self._queue.put(None)

    def close(self, timeout: float) -> None:
        """Give back what is not needed, let alerts be delivered, for at most `timeout` seconds, and stop."""
        deadline = time.monotonic() + timeout
        self._closing = True
        self._queue.put(None)
        for thread in (self._thread, self._delivering):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))

    # On the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._once()
            if self._ledger.has_grants:
                with suppress(StoreError):  # then they lapse
                    self._client.renew(everything_back=True)
        except Exception as error:  # noqa: BLE001 - the next request starts another thread
            self._fault(error)
        finally:
            self._running = False
            for pending in self._waiting():
                pending.leave()

    def _once(self) -> None:
        requests: list[PendingRequest] = []
        with suppress(Empty):
            first = self._queue.get(timeout=self._pause_s())
            requests = [first] if first is not None else []
        requests += self._waiting()
        try:
            self._client.return_turns()
            if requests:
                self._client.serve(requests)
                self._client.return_turns()
            self._housekeep()
        except StoreError as error:
            self.availability.failed(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours lets calls go
            self._fault(error)
            self.availability.rest()
        finally:
            for pending in requests:
                pending.leave()

    def _pause_s(self) -> float:
        """How long to wait for a request before something else is due."""
        now = time.monotonic()
        troubled, rests_until = self.availability.troubled, self.availability.rests_until
        due = rests_until if troubled else max(self._client.policy_due, rests_until)
        pause = _TICK_S if self._ledger.has_grants and not troubled else max(due - now, 0.001)
        if self._deliver_alerts is not None and not troubled:
            pause = min(pause, max(self._alerts_due - now, _GLANCE_S))
        return min(pause, self._refresh_s)

    def _waiting(self) -> list[PendingRequest]:
        """What is in the queue now."""
        requests: list[PendingRequest] = []
        while not self._queue.empty():
            pending = self._queue.get_nowait()
            if pending is not None:
                requests.append(pending)
        return requests

    def _housekeep(self) -> None:
        now = time.monotonic()
        if now < self.availability.rests_until:
            return
        self._client.forget_lapsed_grants()
        if self.availability.troubled or now >= min(self._client.policy_due, self._look_due):
            self._look_due = now + _TICK_S
            self._client.renew()
        # While alerts are being delivered, those that have become due since wait for the next delivery.
        delivering = self._delivering is not None and self._delivering.is_alive()
        if self._deliver_alerts is not None and now >= self._alerts_due and not delivering:
            self._alerts_due = now + _ALERTS_EVERY_S
            self._delivering = threading.Thread(target=self._deliver_alerts, name="vital-tracking-alerts", daemon=True)
            self._delivering.start()
