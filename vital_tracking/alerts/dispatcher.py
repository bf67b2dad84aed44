"""Alerts of budgets: what they say, and how they get to people: the log, callbacks and, with the extra `alerts`, apprise.

The database holds every alert and who is delivering it (`claim_alerts_v1`), so any process may deliver what another one
crossed, and each is delivered once. Only where a process dies between telling and noting it down is one told again.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import SecretStr

from vital_tracking.alerts.channel import Channel, Notification, Pause, Recent
from vital_tracking.alerts.wording import at_the_limit, entity, percent, period_now, spent_text, used
from vital_tracking.errors import StoreError
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.budgets")

_CLAIM: Final = 1000  # as many as the database gives at once: a storm is one notification
_CLAIM_TO_CALL_BACK: Final = 100  # a claim lasts a minute, in which all callbacks must have been called
_LISTED: Final = 20
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A threshold of a budget that was crossed in one of its windows.

    `limit` and `spent` are in the budget's `metric` (US dollars, tokens or calls); `spent` is what it was at that moment.
    `threshold` is the share of the limit: 0.8 is four fifths; 0 tells that a call did not fit under the limit any more.
    `enforce` is False for a budget that only watches. `window_ends_at` is None where the window never ends.
    """

    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    enforce: bool
    period: str
    window_starts_at: datetime
    window_ends_at: datetime | None
    threshold: Decimal
    limit: Decimal
    spent: Decimal
    created_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> BudgetAlert:
        """An alert from the JSON of the database; KeyError, TypeError or ValueError where that is no alert."""
        return cls(
            organization_id=row["organization_id"],
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            metric=row["metric"],
            action=row["action"],
            enforce=row["enforce"],
            period=row["period"],
            window_starts_at=datetime.fromisoformat(row["window_starts_at"]),
            window_ends_at=datetime.fromisoformat(row["window_ends_at"]) if row["window_ends_at"] else None,
            threshold=Decimal(str(row["threshold"])),
            limit=Decimal(str(row["limit_amount"])),
            spent=Decimal(str(row["spent"])),
            created_at=datetime.fromisoformat(row["created_at"]),
        )

    @property
    def reached(self) -> bool:
        """Whether the limit itself is reached, and not only a share of it."""
        return self.threshold >= 1 or self.refused or self.spent >= self.limit

    @property
    def refused(self) -> bool:
        """Whether this tells of a call that did not fit under the limit any more (`threshold` 0)."""
        return not self.threshold

    @property
    def message(self) -> str:
        """One sentence for people: user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block."""
        whose = entity(self.entity_type, self.entity_id, self.organization_id)
        share = f" ({percent(self.spent, self.limit)} %)" if self.limit else ""
        return (
            f"{whose} has {used(self.metric)} {spent_text(self.spent, self.limit, self.metric)} {period_now(self.period)}"
            f"{share}; {at_the_limit(self.action, enforce=self.enforce, reached=self.reached, fits=not self.refused)}"
        )


def log(alerts: Iterable[Mapping[str, Any]] | None) -> None:
    """Log alerts, the rows that `record_calls_v1` reports: done once, by the process whose calls crossed the threshold."""
    for alert in read(alerts).values():
        logger.warning("%s", alert.message)


def read(rows: Iterable[Mapping[str, Any]] | None) -> dict[int, BudgetAlert]:
    """Alerts by their ids from the JSON of the database; a row that cannot be read is left out, and said."""
    alerts: dict[int, BudgetAlert] = {}
    for row in rows or ():
        try:
            alerts[int(row["id"])] = BudgetAlert.from_row(row)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            logger.warning("An alert of the database cannot be read (%s).", type(error).__name__)
    return alerts


def digest(alerts: Sequence[BudgetAlert]) -> Notification:
    """One notification for alerts: those that reached their limit first, then by what share of it is gone."""
    first = sorted(alerts, key=lambda alert: (alert.reached, alert.threshold), reverse=True)
    reached = sum(alert.reached for alert in alerts)
    if len(alerts) == 1:
        whose = entity(first[0].entity_type, first[0].entity_id, first[0].organization_id)
        title = f"Budget {'reached' if reached else 'alert'}: {whose}"
    else:
        title = f"{len(alerts)} budget alerts"
        if reached:
            title += f", {reached} {'limit' if reached == 1 else 'limits'} reached"
    lines = [alert.message for alert in first[:_LISTED]]
    if len(alerts) > _LISTED:
        lines.append(f"and {len(alerts) - _LISTED} more. See: vital-tracking alerts list")
    return Notification(title, "\n".join(lines), urgent=bool(reached))


class Alerts:
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
        self._channels = [Channel(url, number, len(urls)) for number, url in enumerate(urls, 1)]
        self._claim = _CLAIM_TO_CALL_BACK if self._callbacks else _CLAIM
        self._faults = 0
        self.reset_after_fork()

    @property
    def active(self) -> bool:
        """Whether there is anybody to tell; if not, `deliver` leaves the alerts to a process that has somebody."""
        return bool(self._callbacks or self._channels)

    @property
    def faults(self) -> int:
        """How often a callback has raised."""
        return self._faults

    def reset_after_fork(self) -> None:
        """In a forked child: what the parent has in hand is the parent's to deliver."""
        self._lock = threading.Lock()
        self._pause = Pause()
        self._told = Recent()
        self._unsettled: set[int] = set()
        for channel in self._channels:
            channel.reset()

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
            return 0  # who records calls says that the database is away
        finally:
            self._lock.release()

    def _deliver(self, timeout_s: float) -> int:
        self._settle_rest()
        ready = [channel for channel in self._channels if channel.ready]
        if not ready and (self._channels or not self._pause.over):
            return 0
        claimed = read(self._store.call("claim_alerts_v1", holder=self._holder, max_rows=self._claim))
        told = {number for number, alert in claimed.items() if self._call_back(number, alert)}
        if self._channels:
            done = set(claimed) if self._send(ready, claimed, timeout_s) else set()
            self._told.add(told - done)
        else:
            done = told
            self._pause.after(worked=bool(done) or not claimed)
        self._unsettled |= done
        with suppress(
            StoreError
        ):  # what is not given back falls free in a minute; what was delivered is noted down later
            if failed := claimed.keys() - done:
                self._settle(failed, delivered=False)
            self._settle_rest()
        return len(done)

    def _call_back(self, number: int, alert: BudgetAlert) -> bool:
        """Call every callback; whether one of them took the alert."""
        if number in self._told:  # in vain for the alert URLs, which is no reason to call back twice
            return True
        took = False
        for callback in self._callbacks:
            try:
                callback(alert)
                took = True
            except Exception as error:  # noqa: BLE001 - theirs must not stop the others, nor us
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

    def _settle_rest(self) -> None:
        """Note down what has been delivered; where the database cannot be reached now, before anything else next time."""
        if self._unsettled:
            self._settle(self._unsettled, delivered=True)
            self._unsettled = set()

    def _settle(self, numbers: Iterable[int], *, delivered: bool) -> None:
        self._store.call("settle_alerts_v1", ids=json.dumps(sorted(numbers)), delivered=delivered, holder=self._holder)
