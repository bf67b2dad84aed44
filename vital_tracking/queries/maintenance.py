"""What keeps reports right and fresh: refreshing materialized views, counting days anew, and partitions ahead.

All functions raise StoreError where the database cannot answer. Each can be run again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store


@answer_type
class RefreshedView(TypedDict):
    """A materialized view that was refreshed, and how many seconds it took."""

    name: str
    seconds: float
    refreshed_at: datetime


@answer_type
class _Refreshed(TypedDict):
    views: list[RefreshedView]
    busy: bool


def refresh_views(store: Store) -> list[RefreshedView] | None:
    """Refresh all materialized views; None where somebody else does so just now. Readers are never held up."""
    answer = typed(_Refreshed, store.call("refresh_analytics"))
    return None if answer["busy"] else answer["views"]


@answer_type
class _Waiting(TypedDict):
    left: int


def queue_days(store: Store, *, since: datetime, until: datetime) -> int:
    """Ask that the sums of the days (UTC) of a time be counted anew; how many days wait now."""
    return typed(_Waiting, store.call("queue_backfill_v1", since=since, until=until))["left"]


@answer_type
class SummedDay(TypedDict):
    """A day that was counted anew, its calls, and how many days are left; `day` None where others have taken those."""

    day: date | None
    calls: int
    left: int


def sum_up_days(store: Store) -> Iterator[SummedDay]:
    """Count the days that wait, the newest first, each done once it is yielded; several at once take different days."""
    while True:
        answer = typed(SummedDay, store.call("backfill_usage_v1"))
        yield answer
        if answer["day"] is None or not answer["left"]:
            return


@answer_type
class PartitionsKept(TypedDict):
    """Partitions made, calls moved to theirs, and months left waiting because something else held them."""

    made: int
    moved: int
    waiting: int
    busy: bool


def keep_partitions(store: Store, *, thorough: bool = False) -> PartitionsKept:
    """Make the months' partitions ahead, and move calls that are in none into theirs.

    Without `thorough` it does nothing, and takes no lock, where partitions reach half a year ahead and every call is in one.
    """
    return typed(PartitionsKept, store.call("maintain_partitions" if thorough else "maintain_partitions_v1"))


def make_partitions(store: Store, first_month: date, months: int) -> int:
    """Make the partitions of so many months from a month on; how many were not there yet."""
    made: int = store.call("ensure_partitions_v1", first_month=first_month, months=months)
    return made
