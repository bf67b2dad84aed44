"""What events and other costs have in common for whoever asks: filters, pages of a list, and sums by a few dimensions.

The database answers from the smallest sums that hold what was asked, else from the rows, and of what the asker may see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from vital_tracking.queries.calls import place
from vital_tracking.queries.explore import Explored, Filters, Period
from vital_tracking.queries.names import with_names
from vital_tracking.stores import Store

What = Literal["events", "costs"]

EVENT_DIMENSIONS: Final = ("organization", "user", "session", "category", "event", "source")
"""What events are told apart and filtered by."""

COST_DIMENSIONS: Final = ("organization", "user", "cost_type", "service", "resource", "unit")
"""What other costs are told apart and filtered by."""

_AMOUNTS: Final = ("value", "quantity", "cost_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformFilters:
    """Only rows for which all that is given holds; `since` and `until` (without it) cut by time.

    `where` are values by dimension: one of several, None for rows that have none, ANY for those that have one. `flagged` leaves
    of events only those that say that something failed, of costs those without a price.
    """

    since: datetime | None = None
    until: datetime | None = None
    where: Filters = field(default_factory=dict)
    flagged: bool = False

    def text(self, what: What) -> str:
        """The filters as the database takes them."""
        times = {"since": self.since, "until": self.until}
        flag = {"events": "failed", "costs": "unpriced"}[what]
        given: dict[str, Any] = {name: at.isoformat() for name, at in times.items() if at is not None}
        given |= {name: list(values) for name, values in self.where.items()}
        return json.dumps({**given, flag: True} if self.flagged else given)


def page_of_rows(store: Store, what: What, filters: PlatformFilters | None, limit: int, after: str | None) -> Any:
    """The newest rows that filters let pass, after a place. Raises StoreError; ValueError where `after` is no place."""
    cursor = {} if after is None else dict(zip(("after_at", "after_id"), place(after), strict=True))
    text = (filters or PlatformFilters()).text(what)
    return store.call("platform_rows_v1", what=what, filters=text, max_rows=limit, **cursor)


def newest_at(store: Store, what: What) -> datetime | None:
    """When the newest event or cost arose that may be seen; None where there is none. Raises StoreError."""
    found = page_of_rows(store, what, None, 1, None)
    return datetime.fromisoformat(found[0]["occurred_at"]) if found else None


def place_of_row(row: Mapping[str, Any]) -> str:
    """Where an event or a cost stands among all of them, for the page after it."""
    return f"{row['occurred_at'].isoformat()}/{row['id']}"


def explore_platform(
    store: Store,
    what: What,
    period: Period,
    *,
    by: Sequence[str] = (),
    filters: Filters | None = None,
    rows: int = 1000,
    whole: bool = False,
) -> Explored:
    """What events or costs of a period come to by some dimensions, or by hour, day, week or month of its zone.

    Events have `events`, `failed_events`, `valued_events` and the sum of their `value`; costs have `costs`, `unpriced_costs`,
    `quantity` and `cost_usd` (US dollars of those with a price). What the sums that answered do not know is None. Times come
    first, then the most events or the dearest. Raises StoreRejected for what cannot be asked and, where the `whole` is needed,
    for parts of days whose rows are gone.
    """
    answer = store.call(
        "platform_explore_v1",
        what=what,
        since=period.since,
        until=period.until,
        dimensions=list(by),
        filters=json.dumps({name: list(values) for name, values in (filters or {}).items()}),
        timezone=period.timezone,
        max_rows=rows,
        whole=whole,
    )
    found = Explored(
        since=period.since,
        until=period.until,
        timezone=period.timezone,
        source=answer["source"],
        fresh_at=datetime.fromisoformat(answer["fresh_at"]),
        groups=answer["groups"],
        total=_typed(answer["total"]),
        rows=[_typed(row) for row in answer["rows"]],
    )
    return with_names(store, found)


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(row)
    for name, value in row.items():
        if value is None:
            continue
        if name in _AMOUNTS:
            made[name] = Decimal(value)
        elif name in ("day", "week", "month"):
            made[name] = date.fromisoformat(value)
        elif name == "hour":
            made[name] = datetime.fromisoformat(value)
    return made
