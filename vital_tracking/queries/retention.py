"""How long rows are kept, which ones have expired, and deleting those; the months that have rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreError, StoreRejected, VitalError
from vital_tracking.queries.answers import FiniteTime, answer_type, typed
from vital_tracking.stores import Store
from vital_tracking.stores.relations import CALLS, MONTHLY, Relation

_A_BATCH: Final = 20_000
_NOT_YET: Final = "55000"
_TOO_SHORT: Final = "23514"


@answer_type
class ExpiredMonth(TypedDict):
    """A month that has expired; `archived` where all of it, as it is now, is in a file."""

    month: str
    rows: int
    archived: bool


@answer_type
class TableRetention(TypedDict):
    """How long a table keeps its rows (None: for ever), its bytes with indexes, and how many rows have expired."""

    table_name: str
    keep: str | None
    kept_from: datetime | None
    bytes: int
    rows: int
    months: list[ExpiredMonth]
    more: bool


@answer_type
class Retention(TypedDict):
    """What would be deleted, or was; `waiting` where something was in use, `more` where another run is needed."""

    dry_run: bool
    more: bool
    waiting: bool
    tables: list[TableRetention]


def retention_plan(store: Store) -> Retention:
    """How long each table keeps its rows, and what has expired. Deletes nothing. Raises StoreError."""
    return typed(Retention, store.call("retention_plan_v1"))


@answer_type
class KeptTable(TypedDict):
    """How long a table keeps its rows (None: for ever), and the instant before which they have expired."""

    table_name: str
    keep: str | None
    kept_from: datetime | None


@answer_type
class Keeping(TypedDict):
    """How long rows are kept. The next month expires at `next_at`; `scheduled`: pg_cron then deletes it in the night.

    There are no tables for whoever may not see it: members who neither administer nor audit an organization.
    """

    scheduled: bool
    next_at: datetime
    tables: list[KeptTable]


def keeping(store: Store) -> Keeping:
    """How long rows are kept, as far as whoever asks may see it. Raises StoreError."""
    return typed(Keeping, store.call("retention_v1"))


def expired_rows(plan: Retention) -> int:
    """How many rows have expired."""
    return sum(table["rows"] for table in plan["tables"])


def expired_months(plan: Retention) -> dict[str, list[ExpiredMonth]]:
    """By what can be archived (one of MONTHLY), the months of it that have expired; none without any."""
    of_tables = {table["table_name"]: table["months"] for table in plan["tables"]}
    found = {what: [month for month in of_tables[relation.name] if month["rows"]] for what, relation in MONTHLY.items()}
    return {what: expired for what, expired in found.items() if expired}


@answer_type
class RetentionPolicy(TypedDict):
    """How long a table keeps its rows: a span as PostgreSQL writes it, or None for ever."""

    table_name: str
    keep: str | None


def set_retention(store: Store, table: str, keep: str | None) -> RetentionPolicy:
    """Keep a table's rows so long: a span such as `90 days`, or None for ever. Deletes nothing.

    Raises VitalError where the table has no retention, or the span is shorter than the 31 days that budgets need.
    """
    try:
        return typed(RetentionPolicy, store.call("set_retention_v1", table_name=table, keep=keep))
    except StoreRejected as error:
        known = {row["table_name"] for row in retention_plan(store)["tables"]}
        if table not in known:
            raise VitalError(f"{table} has no retention. The tables: {', '.join(sorted(known))}") from None
        if error.sqlstate == _TOO_SHORT:
            raise VitalError("At least 31 days: budgets are counted from the calls of the month that runs.") from None
        raise


@dataclass(frozen=True, slots=True)
class Deleted:
    """The rows deleted by table, and whether a month was in use and was left where it is."""

    rows: dict[str, int]
    waiting: bool


def delete_expired(store: Store, progress: Callable[[int], None] = lambda _: None) -> Deleted:
    """Delete what has expired, batch by batch, for good; `progress` is told how many rows are gone.

    Stopping it half-way does no harm. Raises VitalError where days that would go are in no sum yet.
    """
    deleted: Counter[str] = Counter()
    while True:
        try:
            report = typed(Retention, store.call("apply_retention", dry_run=False, max_rows=_A_BATCH))
        except StoreError as error:
            if error.sqlstate != _NOT_YET:
                raise
            raise VitalError("Days that would go are not in the sums yet. First run: vital-tracking backfill") from None
        deleted.update({table["table_name"]: table["rows"] for table in report["tables"] if table["rows"]})
        progress(sum(deleted.values()))
        if not report["more"]:
            return Deleted(dict(deleted), report["waiting"])


@answer_type
class ArchiveFile(TypedDict):
    """The file that a month was written to, when, and what it held."""

    rows: int
    amount: Decimal
    ids: Decimal
    file: str
    at: datetime


@answer_type
class Month(TypedDict):
    """A month with rows, such as 2026-07. `rows` is about right where it has a partition, exact elsewhere; `bytes` with indexes.

    `gone`: the month was dropped before, and these rows came late.
    """

    month: str
    partition: bool
    rows: int
    bytes: int | None
    gone: bool
    archived: ArchiveFile | None


@answer_type
class Months(TypedDict):
    """The months of a table with rows, the oldest first, and the bytes of all of them.

    Months that ended by `archived_until` are archived unless told otherwise (None: none are), compared by the column `amount`.
    """

    now: datetime
    archived_until: FiniteTime
    amount: str
    bytes: int
    months: list[Month]


def months(store: Store, relation: Relation = CALLS) -> Months:
    """The months of one of MONTHLY that have rows. Raises StoreError."""
    return typed(Months, store.call("months_v1", table_name=relation.name))
