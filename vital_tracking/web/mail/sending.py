"""Sending saved reports that are due: each once, whichever process does it, and again after a pause where it was not taken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from vital_tracking.alerts.alert import Notification
from vital_tracking.alerts.service import AlertService
from vital_tracking.errors import StoreError, VitalError
from vital_tracking.queries.access import SEE_OTHERS, memberships, note_access
from vital_tracking.queries.report_schedules import DueReport, OwnersStore, claim_report, settle_report
from vital_tracking.stores.protocol import Store
from vital_tracking.web.mail.document import Document
from vital_tracking.web.mail.reports import due_document

logger = logging.getLogger("vital_tracking.reports")

_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a report: whether every address of its channel took it, or it had nothing to say, and else why not."""

    name: str
    owner: str | None
    channel: str
    due_at: datetime
    delivered: bool
    problem: str | None = None


class Channels:
    """The channels of this machine by name, each with the services that its apprise URLs stand for.

    A wrong URL is a SettingsError, apprise not being installed a MissingExtra.
    """

    def __init__(self, urls: Mapping[str, Sequence[SecretStr]]) -> None:
        self._services = {
            name: [
                AlertService(
                    url, number, len(of_name), "VITAL_ALERT_URLS" if name == "alerts" else "VITAL_REPORT_CHANNELS"
                )
                for number, url in enumerate(of_name, 1)
            ]
            for name, of_name in urls.items()
        }

    @property
    def names(self) -> list[str]:
        """The names of the channels."""
        return sorted(self._services)

    def send(
        self, channel: str, made: Document, taken: frozenset[int] = frozenset()
    ) -> tuple[frozenset[int], str | None]:
        """Send to every address that has not taken it; the places of those that have, and why another one did not."""
        notification = Notification(f"vital_tracking: {made.title}", made.markdown, html=made.html)
        problem = None
        for place, service in enumerate(self._services[channel], 1):
            if place not in taken:
                took, why = service.send(notification)
                if took:
                    taken |= {place}
                else:
                    problem = f"{service.name}: {why or 'was not taken'}"
        return taken, problem


def send_due(
    store: Store, channels: Channels, holder: str, *, public_url: str | None = None, report: int | None = None
) -> Iterator[Sent]:
    """Send what is due and goes to a channel of this machine, one after the other, or a certain report if it is due.

    `holder` names this process. Raises StoreError where the database cannot be asked what is due, or told what was sent: then
    a report that was sent is sent again in a quarter of an hour.
    """
    while channels.names and (due := claim_report(store, holder, channels=channels.names, report=report)) is not None:
        taken, problem = due.taken, None
        try:
            made = _document(store, due, public_url)
            if made is not None:
                taken, problem = channels.send(due.channel, made, due.taken)
        except VitalError as error:
            problem = type(error).__name__
        settle_report(store, due.id, holder, delivered=problem is None, taken=sorted(taken), problem=problem)
        yield Sent(due.name, due.owner, due.channel, due.due_at, problem is None, problem)


def _document(store: Store, due: DueReport, public_url: str | None) -> Document | None:
    made = due_document(store, due, public_url)
    if made is not None and due.owner is not None:
        for place in memberships(OwnersStore(store, due.id)):
            if place.role in SEE_OTHERS:
                note_access(store, "read", "report", actor=due.owner, organization=place.organization_id)
    return made


class Mailer:
    """Sends what is due from a thread of its own, once a minute, until it is closed."""

    def __init__(self, store: Store, channels: Channels, holder: str, public_url: str | None) -> None:
        self._work = (store, channels, holder, public_url)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vital-tracking-reports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin no further report, and wait for the one that is being sent."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        store, channels, holder, public_url = self._work
        while not self._ended.is_set():
            try:
                for sent in send_due(store, channels, holder, public_url=public_url):
                    if not sent.delivered:
                        logger.warning("The report %r was not sent to %s: %s.", sent.name, sent.channel, sent.problem)
                    if self._ended.is_set():
                        break
            except StoreError as error:
                logger.warning("It is not known which reports are due (%s).", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the pages go on, and so do the reports
                logger.warning("Reports could not be sent (%s).", type(error).__name__)
            self._ended.wait(_EVERY_S)
