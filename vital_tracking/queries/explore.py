"""Any measures of calls by any dimensions: what reports, pages and the API show of usage.

The database answers from the smallest sums that hold what was asked, else from the calls, and of what the asker may see. Amounts
are US dollars as Decimal with all their digits, latencies are in milliseconds, days are those of the period's time zone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from vital_tracking.queries.catalogue import MEASURES, Unit
from vital_tracking.stores import Store

Filters: TypeAlias = Mapping[str, Sequence[str | None]]
"""Values by the name of a dimension, or of `metadata.KEY`; None stands for calls that have none, ANY for those that have one."""

ANY: Final = "*"

TIMES: Final = ("hour", "day", "week", "month", "weekday", "hour_of_day")
"""The dimensions that are times: they come first in the order of rows, and nothing is filtered by them."""

DIMENSIONS: Final[Mapping[str, str]] = {
    "hour": "hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "weekday": "weekday",
    "hour_of_day": "hour of the day",
    "organization": "organization",
    "user": "user",
    "session": "session",
    "service": "service",
    "kind": "kind",
    "agent": "agent",
    "tier": "agent tier",
    "role": "agent role",
    "workflow": "workflow",
    "step": "step",
    "panel": "panel",
    "seat": "seat",
    "solution": "solution",
    "provider": "provider",
    "model": "model",
    "framework": "framework",
    "message_type": "message type",
    "status": "status",
    "error": "error",
    "endpoint": "endpoint",
    "run": "run",
}
"""The dimensions and their headings; beside them there is `metadata.KEY` for every key of the metadata."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time from `since` up to, and without, `until`, in the days of a time zone (IANA)."""

    since: datetime
    until: datetime
    timezone: str = "UTC"

    @classmethod
    def last_days(cls, days: int, *, timezone: str = "UTC", now: datetime | None = None) -> Period:
        """The last `days` whole days, today included: it ends where tomorrow begins."""
        today = (now or datetime.now(UTC)).astimezone(ZoneInfo(timezone)).date()
        return cls.of_days(today - timedelta(days=days - 1), today, timezone=timezone)

    @classmethod
    def of_days(cls, first: date, last: date, *, timezone: str = "UTC") -> Period:
        """The days from the first to the last, both included."""
        return cls(_midnight(first, timezone), _midnight(last + timedelta(days=1), timezone), timezone)

    @property
    def first_day(self) -> date:
        """The day that it begins on."""
        return self.since.astimezone(ZoneInfo(self.timezone)).date()

    @property
    def last_day(self) -> date:
        """The day that it ends on."""
        return (self.until - timedelta(microseconds=1)).astimezone(ZoneInfo(self.timezone)).date()

    @property
    def days(self) -> list[date]:
        """Its days, also those on which nothing happened."""
        return [self.first_day + timedelta(days=n) for n in range((self.last_day - self.first_day).days + 1)]

    def before(self) -> Period:
        """As many days before it."""
        first = self.first_day
        return Period.of_days(first - timedelta(days=len(self.days)), first - timedelta(days=1), timezone=self.timezone)


def _midnight(day: date, timezone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Explored:
    """An answer: a row for each group with its dimensions and measures, and what all of them come to.

    `rows` may be fewer than `groups`, as many as there are; `total` counts all. A row of what `top` left out has `others` True.
    `source` is the aggregation that it comes from, or `calls`. Of these a copy (docs/clickhouse.md) told those before
    `copied_until`, and PostgreSQL the others; None: all of them. Either way the answer is of `fresh_at`. `names` has the newest
    names of agents and steps, by their ids; `queries.names.with_names` adds those of users and organizations.
    """

    since: datetime
    until: datetime
    timezone: str
    source: str
    fresh_at: datetime
    groups: int
    total: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    copied_until: datetime | None = None


def explore(
    store: Store,
    period: Period,
    *,
    by: Sequence[str] = (),
    filters: Filters | None = None,
    measures: Sequence[str] | None = None,
    order_by: str = "total_cost",
    top: int | None = None,
    rows: int = 1000,
) -> Explored:
    """What the calls of a period come to by up to four dimensions.

    `measures` are names of `catalogue.MEASURES` and `active_users`, None: all of reports. `top` adds up, of the first dimension
    that is no time, all values after the greatest so many. Raises StoreRejected for what cannot be asked, with what can.
    """
    answer = store.call(
        "usage_explore_v1",
        since=period.since,
        until=period.until,
        dimensions=list(by),
        filters=json.dumps(dict(filters or {})),
        measures=None if measures is None else list(measures),
        timezone=period.timezone,
        order_by=order_by,
        top=top,
        max_rows=rows,
    )
    return Explored(
        since=datetime.fromisoformat(answer["since"]),
        until=datetime.fromisoformat(answer["until"]),
        timezone=answer["timezone"],
        source=answer["source"],
        fresh_at=datetime.fromisoformat(answer["fresh_at"]),
        groups=answer["groups"],
        total=_typed(answer["total"]),
        rows=[_typed(row) for row in answer["rows"]],
        names=answer["names"],
        copied_until=datetime.fromisoformat(answer["copied_until"]) if answer.get("copied_until") else None,
    )


def usage_version(store: Store, since: datetime) -> str:
    """A text that is another one as soon as usage since then has changed, or members or budgets, of what the asker may see."""
    version: str = store.call("usage_version_v1", since=since)
    return version


def each_day(found: Explored, period: Period) -> list[Mapping[str, Any]]:
    """The rows of what was explored by `day` alone, and one for each day on which nothing was called or spent."""
    rows = {row["day"]: row for row in found.rows}
    nothing = {name: _nothing(name) for name in found.total}
    return [rows.get(day) or {"day": day, **nothing} for day in period.days]


def _nothing(measure: str) -> Decimal | int | None:
    """What no calls come to; rates, latencies and savings of nothing are not known."""
    if measure == "total_cost":
        return Decimal(0)
    return 0 if measure.endswith(("calls", "tokens")) else None


_OF_TIME: Final[Mapping[str, Any]] = {
    "day": date.fromisoformat,
    "week": date.fromisoformat,
    "month": date.fromisoformat,
    "hour": datetime.fromisoformat,
}


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its amounts as Decimal and its times as dates or instants."""
    typed_row = dict(row)
    for name, value in row.items():
        if value is None:
            continue
        measure = MEASURES.get(name)
        if measure is not None and measure.unit is Unit.usd:
            typed_row[name] = Decimal(value)
        elif name in _OF_TIME:
            typed_row[name] = _OF_TIME[name](value)
    return typed_row
