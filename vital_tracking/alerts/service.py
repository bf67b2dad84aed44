"""An alert URL as a service of apprise. The only file that imports apprise.

Alert URLs hold secrets, and apprise and the libraries below it log them at some levels: nothing that they log while they work
for us gets out. apprise's own thread pool is not used, since it does not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from pydantic import SecretStr

from vital_tracking.alerts.alert import Notification
from vital_tracking.errors import MissingExtra, SettingsError

# Loggers of apprise and of what its services are built on: their lines may hold a URL.
_LOGGERS: Final = (
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


class AlertService:
    """The service that an alert URL names, such as Slack or a mail server. Messages show its `name` alone.

    The URL is number `number` of `count` that `variable` holds. Raises SettingsError where apprise cannot use it, MissingExtra
    where apprise is not installed. `troubled`: the log says that nothing can be sent to it.
    """

    def __init__(self, url: SecretStr, number: int, count: int, variable: str = "VITAL_ALERT_URLS") -> None:
        place = f"{'alert' if variable == 'VITAL_ALERT_URLS' else 'channel'} URL {number} of {count}"
        self._apprise, self._sender, service_name = _open(url, place, variable)
        self.name = f"{place} ({service_name})"
        self.troubled = False

    def send(self, notification: Notification) -> tuple[bool, str | None]:
        """Send a notification; whether it was taken, and else what is known of the reason: an HTTP status or an error's class."""
        types, formats = self._apprise.NotifyType, self._apprise.NotifyFormat
        kind, body, body_format = types.WARNING, notification.body, formats.TEXT
        if notification.html:
            # Said to be in the service's own format, so that apprise leaves it as it is: Markdown is text, too. Since apprise 2
            # a service has several.
            service = self._sender[0]
            kind = types.INFO
            body_format = service.resolve_format() if hasattr(service, "resolve_format") else service.notify_format
            body = notification.html if body_format == formats.HTML else notification.body
        with _silenced() as statuses:
            try:
                took = bool(
                    self._sender.notify(
                        title=notification.title,
                        body=body,
                        notify_type=types.FAILURE if notification.urgent else kind,
                        body_format=body_format,
                    )
                )
            except Exception as error:  # noqa: BLE001 - whatever a service of apprise raises
                took = False
                statuses.append(type(error).__name__)
        return took, statuses[-1] if statuses else None


def _open(url: SecretStr, place: str, variable: str) -> tuple[Any, Any, str]:
    """apprise, a sender to the URL, and the name of its service."""
    with _silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its services import what is deprecated
        try:
            apprise = importlib.import_module("apprise")
        except ImportError:
            raise MissingExtra("alerts", f"Sending to {variable}") from None
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
        variable,
        f"holds one that apprise cannot use: {place}",
        "One looks like slack://token/token/token, mailto://user:password@host or json://host/path; "
        "see https://appriseit.com/services/.",
    )


def _asset(apprise: Any) -> Any:
    """Settings of apprise: no threads of its own, and so no time limit of its own either."""
    names = {"app_id": "vital_tracking", "app_desc": "Alerts and reports of vital_tracking", "async_mode": False}
    try:
        return apprise.AppriseAsset(**names, service_timeout=0)
    except Exception:  # noqa: BLE001 - before 2.0 there was no time limit to switch off
        return apprise.AppriseAsset(**names)


_statuses: ContextVar[list[str] | None] = ContextVar("vital_tracking_alerts", default=None)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """A filter of loggers: drops what is logged while we send and notes the HTTP statuses in it; lets everything else pass."""
    statuses = _statuses.get()
    if statuses is None:
        return True
    with contextlib.suppress(Exception):
        statuses += [f"HTTP {status}" for status in _HTTP_STATUS.findall(record.getMessage())]
    return False


@contextlib.contextmanager
def _silenced() -> Iterator[list[str]]:
    """Keep back what apprise and the libraries below it log in here; gives the HTTP statuses that they named."""
    for name in ("apprise", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in _LOGGERS:
            logging.getLogger(name).addFilter(_is_not_ours)
    statuses: list[str] = []
    token = _statuses.set(statuses)
    try:
        yield statuses
    finally:
        _statuses.reset(token)
