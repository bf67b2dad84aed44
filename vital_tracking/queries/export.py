"""Rows in full, streamed: calls, runs, sums, alerts and the audit, in the memory of a few thousand rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.catalogue import FILTERS
from vital_tracking.queries.csv import write_csv
from vital_tracking.queries.parquet import ParquetWriter, part_of
from vital_tracking.stores import Store
from vital_tracking.stores.relations import CALLS, RELATIONS, Relation, Values

EXPORTS: Final = tuple(RELATIONS)
"""What can be exported, by name."""


class Format(StrEnum):
    """How rows are written."""

    csv = "csv"
    parquet = "parquet"


@answer_type
class CallTotals(TypedDict):
    """How many rows and calls there are, what they cost in US dollars, and by amount the digits before and behind the point."""

    rows: int
    calls: int
    total_cost: Decimal
    unpriced_calls: int
    digits: dict[str, Sequence[int]]


def call_totals(
    store: Store,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    organization: str | None = None,
    user: str | None = None,
) -> CallTotals:
    """What the calls from one instant to another come to. Raises StoreError."""
    return typed(
        CallTotals,
        store.call("call_totals_v1", since=since, until=until, organization=organization, user_id=user),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is to be exported: one of EXPORTS, from `since` up to, and without, `until`, of an organization and a user."""

    what: str = "calls"
    since: datetime | None = None
    until: datetime | None = None
    organization: str | None = None
    user: str | None = None

    @property
    def relation(self) -> Relation:
        """The table or view that is read."""
        return RELATIONS[self.what]

    @property
    def impossible_filters(self) -> list[str]:
        """The filters that were given and that these rows do not have: `organization`, `user`."""
        return [name for name in ("organization", "user") if getattr(self, name) and not self._has(name)]

    def totals(self, store: Store) -> CallTotals | None:
        """What the rows come to, which is known of calls alone."""
        if self.relation is not CALLS:
            return None
        return call_totals(store, since=self.since, until=self.until, organization=self.organization, user=self.user)

    def batches(self, store: Store) -> Iterator[list[Values]]:
        """The rows, each once, in batches. Raises StoreError."""
        wanted = {"organization": self.organization, "user": self.user}
        equals = {FILTERS[name]: value for name, value in wanted.items() if value is not None}
        return store.stream(self.relation, equals=equals, since=self.since, until=self.until)

    def _has(self, name: str) -> bool:
        return FILTERS[name] in self.relation.filters


def write_parquet(
    target: Path | IO[bytes],
    relation: Relation,
    batches: Iterable[list[Values]],
    digits: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """Write batches of rows as Parquet; how many rows. `digits` are those of CallTotals, for amounts with more than usual.

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
