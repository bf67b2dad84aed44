"""Rows in full, streamed: calls, runs, events, costs, sums, alerts and the audit, in the memory of a few thousand rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.catalogue import FILTERS
from vital_tracking.queries.csv import write_csv
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.parquet import ParquetWriter, part_of
from vital_tracking.stores import Store
from vital_tracking.stores.relations import CALLS, MONTHLY, RELATIONS, Relation, Values

EXPORTS: Final = tuple(RELATIONS)
"""What can be exported, by name."""


class Format(StrEnum):
    """How rows are written."""

    csv = "csv"
    parquet = "parquet"


@answer_type
class RowTotals(TypedDict):
    """What rows come to: how many they are and how many calls, the sum of their `amount` (US dollars, but of events any value).

    `ids` is the sum of what the last twelve hexadecimal digits of their ids say; `digits` are those of each column of amounts,
    before and behind the point.
    """

    rows: int
    calls: int
    amount: Decimal
    ids: Decimal
    digits: dict[str, Sequence[int]]


def row_totals(
    store: Store,
    relation: Relation = CALLS,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    organization: str | None = None,
    user: str | None = None,
) -> RowTotals:
    """What the rows of one of MONTHLY from one instant to another come to. Raises StoreError."""
    return typed(
        RowTotals,
        store.call(
            "row_totals_v1",
            table_name=relation.name,
            since=since,
            until=until,
            organization=organization,
            user_id=user,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be exported: rows of one of EXPORTS (`what`), those for which the `filters` hold."""

    what: str = "calls"
    filters: Filters = field(default_factory=Filters)

    @property
    def relation(self) -> Relation:
        """The table or view that is read."""
        return RELATIONS[self.what]

    @property
    def impossible_filters(self) -> list[str]:
        """The filters that were given and that no column of these rows can decide."""
        beyond = set(self.filters.beyond_equals)
        return [name for name in self.filters.given if name in beyond or _COLUMNS[name] not in self.relation.columns]

    def totals(self, store: Store) -> RowTotals | None:
        """What the rows come to, which is known of MONTHLY alone; with other filters than these, of more of them."""
        if self.relation not in MONTHLY.values():
            return None
        asked = self.filters
        return row_totals(
            store,
            self.relation,
            since=asked.since,
            until=asked.until,
            organization=asked.organization,
            user=asked.user,
        )

    @property
    def totals_are_exact(self) -> bool:
        """Whether `totals` are those of the rows, and not of more of them."""
        return not self.filters.given.keys() - {"organization", "user"}

    def batches(self, store: Store) -> Iterator[list[Values]]:
        """The rows, each once, in batches. Raises StoreError."""
        asked = self.filters
        return store.stream(self.relation, equals=asked.equals, since=asked.since, until=asked.until)


_COLUMNS: Final = {**FILTERS, "blocked": "status"}


def write_parquet(
    target: Path | IO[bytes],
    relation: Relation,
    batches: Iterable[list[Values]],
    digits: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """Write batches of rows as Parquet; how many rows. `digits` are those of RowTotals, for amounts with more than usual.

    A file has its name once all is written. Raises OSError, and MissingExtra without the extra `parquet`.
    """
    with ParquetWriter(target, relation, digits) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.rows


def write_csv_file(path: Path, relation: Relation, batches: Iterable[list[Values]]) -> int:
    """Write batches of rows to a CSV file, which has its name once all is written; how many rows. Raises OSError."""
    partial = part_of(path)
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            rows = write_csv(file, relation, batches)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows
