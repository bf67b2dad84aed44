"""When saved reports are sent: schedules, what is due, and the database as the owner of a report sees it. For operators."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vital_tracking.errors import StoreDenied
from vital_tracking.queries.csv import plain
from vital_tracking.queries.saved_reports import Every, pairs
from vital_tracking.stores.protocol import Row, Store
from vital_tracking.stores.relations import Relation, Values


@dataclass(frozen=True, slots=True)
class DueReport:
    """A report that this process has claimed: what it asks, for whom, and to which channel it goes.

    `due_at` is the moment it is sent for, in the schedule's `timezone`, and `sent_at` when the one before was (None: none was);
    `taken` are the places of the channel's addresses that have taken it already.
    """

    id: int
    owner: str | None
    name: str
    asked: tuple[tuple[str, str], ...]
    channel: str
    every: Every
    due_at: datetime
    sent_at: datetime | None
    timezone: str
    taken: frozenset[int]


def schedule_report(
    store: Store,
    report: int,
    channel: str,
    *,
    every: Every = "week",
    weekday: int = 1,
    day: int = 1,
    hour: int = 8,
    timezone: str = "UTC",
) -> datetime:
    """Send a report from now on; returns when for the first time. Raises StoreRejected for what is no schedule."""
    answer = store.call(
        "schedule_report_v1",
        report=report,
        channel=channel,
        every=every,
        weekday=weekday,
        day=day,
        hour=hour,
        timezone=timezone,
    )
    return datetime.fromisoformat(answer["due_at"])


def unschedule_report(store: Store, report: int) -> bool:
    """Send a report no more; False where it was not sent."""
    return bool(store.call("unschedule_report_v1", report=report))


def claim_report(
    store: Store, holder: str, *, channels: Collection[str], report: int | None = None
) -> DueReport | None:
    """Claim the report that is due longest and goes to one of these channels, or this one if it is due; None where nothing is."""
    row = store.call("claim_report_v1", holder=holder, report=report, channels=json.dumps(sorted(channels)))
    if row is None:
        return None
    return DueReport(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        asked=pairs(row["asked"]),
        channel=row["channel"],
        every=row["every"],
        due_at=datetime.fromisoformat(row["due_at"]),
        sent_at=None if row["sent_at"] is None else datetime.fromisoformat(row["sent_at"]),
        timezone=row["timezone"],
        taken=frozenset(row["taken"]),
    )


def settle_report(
    store: Store, report: int, holder: str, *, delivered: bool, taken: Sequence[int] = (), problem: str | None = None
) -> bool:
    """Say what became of a claimed report; False where another process has it by now."""
    return bool(
        store.call(
            "settle_report_v1",
            report=report,
            holder=holder,
            delivered=delivered,
            taken=json.dumps(list(taken)),
            problem=problem,
        )
    )


class OwnersStore:
    """The database as the owner of a report sees it, over the operators' own store, which decides that by the report's id.

    It answers functions that change nothing and that signed-in users may call; of everything else StoreDenied is raised.
    """

    in_memory = False

    def __init__(self, store: Store, report: int) -> None:
        self._store = store
        self._report = report

    @property
    def description(self) -> str:
        """One line for people: what and where, never a password."""
        return self._store.description

    @property
    def identity(self) -> str:
        """How the database is reached."""
        return self._store.identity

    def call(self, function: str, /, **arguments: object) -> Any:
        """What a function answers to the owner."""
        given = json.dumps(arguments, default=plain)
        return self._store.call("ask_for_report_v1", report=self._report, asks=function, arguments=given)

    def read(self, relation: str, **_: Any) -> list[Row]:
        """Reports read no views."""
        raise _denied(relation)

    def stream(self, relation: Relation, **_: Any) -> Iterator[list[Values]]:
        """Reports export nothing."""
        raise _denied(relation.name)

    def breakdown(self, by: str, **_: Any) -> list[Row]:
        """Reports explore instead."""
        raise _denied(by)

    def as_user(self, *_: Any, **__: Any) -> Store:
        """An owner's store leads to nobody else's."""
        raise StoreDenied("A report is asked for its owner only.")

    def within(self, timeout_s: float) -> Store:
        """The same, with another limit."""
        return OwnersStore(self._store.within(timeout_s), self._report)

    def after_fork(self) -> None:
        """The connections are the other store's."""

    def close(self) -> None:
        """The connections are the other store's."""


def _denied(what: str) -> StoreDenied:
    return StoreDenied(f"A report asks functions for its owner, and does not read {what}.")
