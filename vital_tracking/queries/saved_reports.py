"""Reports that somebody keeps by name: what the page `explore` was asked. Each sees his own, the operators theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from vital_tracking.queries.reports import WEEKDAYS
from vital_tracking.stores.protocol import Store

Every = Literal["day", "week", "month"]

KINDS: Final = ("summary", "caches")
"""Reports that are not the page `explore`, as their parameter `report` names them: the summary, and caches that answer less."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a report is sent, and to which channel. `weekday` (1 is Monday) is that of weekly ones, `day` that of monthly ones.

    It is due next at `due_at`. `failures` counts how often that could not be sent, `problem` is why not last time.
    """

    every: Every
    weekday: int | None
    day: int | None
    hour: int
    timezone: str
    channel: str
    due_at: datetime
    sent_at: datetime | None
    failures: int
    problem: str | None

    @property
    def text(self) -> str:
        """When it is sent, in words: Mondays at 08:00 (UTC)."""
        days = {
            "day": "every day",
            "week": f"{WEEKDAYS[(self.weekday or 1) - 1]}s",
            "month": f"on day {self.day} of the month",
        }
        return f"{days[self.every]} at {self.hour:02}:00 ({self.timezone})"


@dataclass(frozen=True, slots=True)
class SavedReport:
    """A report: its name, what is asked, as pairs of a parameter and its value, whose it is (None: the operators'), and when
    it is sent (None: never).
    """

    id: int
    owner: str | None
    name: str
    asked: tuple[tuple[str, str], ...]
    schedule: Schedule | None

    @property
    def kind(self) -> str:
        """One of KINDS, or `explore`."""
        return kind_of(self.asked)


def saved_reports(store: Store, *, everybody: bool = False) -> list[SavedReport]:
    """The reports of whoever asks, by name; of `everybody`, for operators: all of them, the operators' own first."""
    return [_report(row) for row in store.call("saved_reports_v1", everybody=everybody)]


def save_report(store: Store, name: str, asked: Iterable[tuple[str, str]]) -> None:
    """Keep a report; one of the same name asks this from now on. Raises StoreRejected for a name or question that is too long."""
    store.call("save_report_v1", name=name, asked=json.dumps(list(asked)))


def remove_report(store: Store, name: str) -> bool:
    """Remove a report of one's own, with its schedule; False where there is none of that name."""
    return bool(store.call("remove_report_v1", name=name))


def kind_of(asked: Sequence[tuple[str, str]]) -> str:
    """Which report it is that asks this: one of KINDS, or `explore`."""
    return dict(asked).get("report", "explore")


def pairs(asked: Any) -> tuple[tuple[str, str], ...]:
    """What a report asks, from the JSON of the database."""
    return tuple((str(name), str(value)) for name, value in asked)


def _report(row: Mapping[str, Any]) -> SavedReport:
    when = row["schedule"]
    return SavedReport(
        row["id"], row["owner"], row["name"], pairs(row["asked"]), None if when is None else _schedule(when)
    )


def _schedule(when: Mapping[str, Any]) -> Schedule:
    sent = when["sent_at"]
    return Schedule(
        every=when["every"],
        weekday=when["weekday"],
        day=when["day"],
        hour=when["hour"],
        timezone=when["timezone"],
        channel=when["channel"],
        due_at=datetime.fromisoformat(when["due_at"]),
        sent_at=None if sent is None else datetime.fromisoformat(sent),
        failures=when["failures"],
        problem=when["problem"],
    )
