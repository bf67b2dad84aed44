"""One alert URL: apprise sends to it. The only file that imports apprise.

Alert URLs hold secrets, and apprise and the libraries below it log them at some levels: nothing that they log while they work
for us gets out. Its thread pool is not used, since it does not survive a fork: each URL has a thread of its own while it sends.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import threading
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from vital_tracking.alerts.alert import Digest, Notification
from vital_tracking.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    from vital_tracking.alerts.alert import BudgetAlert

logger = logging.getLogger("vital_tracking.budgets")

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 300.0
_KEPT: Final = 1000
_KEPT_S: Final = 86_400.0  # a day old they are news no more

# Those whose lines may hold a URL: apprise and what its services are built on.
_TALKERS: Final = (
    "apprise",
    "urllib3",
    "requests",
    "oauthlib",
    "requests_oauthlib",
    "slixmpp",
    "paho",
    "gntp",
    "asyncio",
)
_HTTP_STATUS: Final = re.compile(r"\berror[=:]\s?([1-5]\d\d)\b")


class Pause:
    """How long to leave something alone that has failed: doubles up to five minutes, and ends when it works again."""

    def __init__(self) -> None:
        self._length_s = 0.0
        self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be tried."""
        return time.monotonic() >= self._until

    def after(self, *, worked: bool) -> None:
        """Take note of a try."""
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
    """An alert URL with what it still has to take. `number` of `count` is all that messages say of it, and its service's name."""

    def __init__(self, url: SecretStr, number: int, count: int) -> None:
        self._place = f"alert URL {number} of {count}"
        self._apprise, self._service, name = _open(url, self._place)
        self._place += f" ({name})"
        self._troubled = False
        self.reset()

    def reset(self) -> None:
        """Start with nothing in hand."""
        self._kept: dict[int, tuple[BudgetAlert, float]] = {}
        self._taken = Recent()
        self._pause = Pause()
        self._thread: threading.Thread | None = None
        self._trying = self._took = False
        self._status: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it may be sent to: its pause is over, and it does not still send."""
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
        self._thread, self._status = None, None
        self._trying, self._took = bool(waiting), not waiting
        if not waiting:
            return
        work = (digest(list(waiting.values())), set(waiting))
        thread = threading.Thread(target=self._send, args=work, name="vital-tracking-alerts", daemon=True)
        # A RuntimeError means that the interpreter is shutting down: then it was not taken.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def finish(self, deadline: float) -> bool:
        """Wait until it is sent, but no longer than the deadline; whether it was taken."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self._status = "no answer in time"
        took = self._took
        if self._trying:
            self._pause.after(worked=took)
            self._say(took)
        if took:
            self._kept.clear()
        return took

    def _send(self, notification: Notification, numbers: Collection[int]) -> None:
        with _hushed() as statuses:
            try:
                took = bool(
                    self._service.notify(
                        title=notification.title,
                        body=notification.body,
                        notify_type=self._apprise.NotifyType.FAILURE
                        if notification.urgent
                        else self._apprise.NotifyType.WARNING,
                        body_format=self._apprise.NotifyFormat.TEXT,
                    )
                )
            except Exception as error:  # noqa: BLE001 - whatever a service of apprise raises
                took = False
                statuses.append(type(error).__name__)
        if took:
            self._taken.add(numbers)  # also where nobody waits for it any more, so that it is not sent again
            self._took = True
        elif statuses:
            self._status = statuses[-1]

    def _say(self, took: bool) -> None:
        if not took and not self._troubled:
            reason = f": {self._status}" if self._status else ""
            logger.warning("Alerts cannot be sent to %s%s. They are kept and tried again.", self._place, reason)
        elif took and self._troubled:
            logger.warning("Alerts go to %s again.", self._place)
        self._troubled = not took


def _open(url: SecretStr, place: str) -> tuple[Any, Any, str]:
    """apprise, the service of a URL in it, and its name."""
    with _hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its services some import what is deprecated
        try:
            apprise = importlib.import_module("apprise")
        except ImportError:
            raise MissingExtra("alerts", "Sending alerts to VITAL_ALERT_URLS") from None
        asset = _asset(apprise)
        try:
            service = apprise.Apprise.instantiate(url.get_secret_value().strip(), asset=asset)
        except Exception:  # noqa: BLE001 - whatever a service of apprise raises, its text may hold the URL
            service = None
        if service is not None:
            sender = apprise.Apprise(asset=asset)
            sender.add(service)
            return apprise, sender, str(service.service_name)
    raise SettingsError(
        "VITAL_ALERT_URLS",
        f"holds one that apprise cannot use: {place}",
        "One looks like slack://token/token/token, mailto://user:password@host or json://host/path; "
        "see https://appriseit.com/services/.",
    )


def _asset(apprise: Any) -> Any:
    """Settings of apprise: no threads of its own, and so no time limit of its own either."""
    names = {"app_id": "vital_tracking", "app_desc": "Budget alerts of vital_tracking", "async_mode": False}
    try:
        return apprise.AppriseAsset(**names, service_timeout=0)
    except Exception:  # noqa: BLE001 - before 2.0 there was no time limit to switch off
        return apprise.AppriseAsset(**names)


_statuses: ContextVar[list[str] | None] = ContextVar("vital_tracking_alerts", default=None)


def _is_of_others(record: logging.LogRecord) -> bool:
    """Let pass what others log; of what is logged while we send, note the HTTP status alone."""
    statuses = _statuses.get()
    if statuses is None:
        return True
    with contextlib.suppress(Exception):
        statuses += [f"HTTP {status}" for status in _HTTP_STATUS.findall(record.getMessage())]
    return False


@contextlib.contextmanager
def _hushed() -> Iterator[list[str]]:
    """What apprise and the libraries below it log in here does not get out; gives the HTTP statuses it named."""
    for name in ("apprise", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in _TALKERS:
            logging.getLogger(name).addFilter(_is_of_others)
    statuses: list[str] = []
    token = _statuses.set(statuses)
    try:
        yield statuses
    finally:
        _statuses.reset(token)
