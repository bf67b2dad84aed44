"""Old months of calls, events, costs and executions as Parquet files, one a month.

They are written, read back and compared, and only then dropped from the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from vital_tracking.errors import StoreError, StoreUnavailable, VitalError
from vital_tracking.queries.export import Export, RowTotals, row_totals
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.parquet import Contents, ParquetWriter, read_back
from vital_tracking.queries.retention import Month, Months, months
from vital_tracking.stores import Store
from vital_tracking.stores.relations import MONTHLY, Relation

_CHANGED: Final = "55000"
_REFUSED: Final = re.compile(r"(?!08)[0-9A-Z]{5}")
"""SQLSTATEs by which PostgreSQL says that nothing was done; without one, or if the connection broke (08), that is unknown."""


@dataclass(frozen=True, slots=True)
class Archivable:
    """What can be archived of one of MONTHLY (`what`), and its months."""

    what: str
    relation: Relation
    listed: Months

    def chosen(self, wanted: Sequence[str] = ()) -> list[Month]:
        """The months to archive, the oldest first: those wanted, such as 2026-07, or those that are old enough.

        There may be two of one name, where rows came late. Raises VitalError where a month has no rows or is not over.
        """
        rows, until = self.listed["months"], self.listed["archived_until"]
        if not wanted:
            return [row for row in rows if until is not None and row["month"] < f"{until:%Y-%m}"]
        if missing := set(wanted) - {row["month"] for row in rows}:
            raise VitalError(
                f"There are no {self.what} of {min(missing)}. The months: vital-tracking retention partitions --of {self.what}"
            )
        if max(wanted) >= f"{self.listed['now'].astimezone(UTC):%Y-%m}":
            raise VitalError(f"{max(wanted)} is not over yet.")
        return [row for row in rows if row["month"] in wanted]


def archivable(store: Store, what: str) -> Archivable:
    """What can be archived of one of MONTHLY. Raises StoreError."""
    relation = MONTHLY[what]
    return Archivable(what, relation, months(store, relation))


@dataclass(frozen=True, slots=True)
class Archived:
    """A month that is in a file. `bytes_before`: its size in the database with indexes; `dropped`: it is no longer in there.

    `amount` is the sum of a column, which is `amount_of`. `odd_amounts` are columns with more digits than in other files, with
    their type: such a file is read by itself.
    """

    what: str
    month: str
    file: Path
    rows: int
    amount: Decimal
    amount_of: str
    bytes_before: int | None
    bytes_after: int
    dropped: bool
    odd_amounts: tuple[str, ...]


def archive_month(
    store: Store,
    of: Archivable,
    month: Month,
    folder: Path,
    *,
    drop: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _rows, _total: None,
) -> Archived:
    """Write a month to token_usage_logs_2026_07.parquet or its like, read it back, and with `drop` take it out of the database.

    A file of other rows is replaced only with `force`. `progress` is told how many rows of how many are written. Raises
    VitalError where rows came meanwhile, older months are still there, or the month has not ended so long ago as it must have.
    """
    name, late, amount_of = month["month"], month["gone"], of.listed["amount"]
    since, until = _span(name)
    totals = row_totals(store, of.relation, since=since, until=until)
    held = Contents(totals["rows"], totals["amount"], totals["ids"])
    path = _path(folder, of.relation, month)
    if path.exists() and not force:
        _refuse_foreign(path, month, held, amount_of)
    odd = _write(
        store, path, Export(what=of.what, filters=Filters(since=since, until=until)), totals, held, amount_of, progress
    )
    try:
        dropped = store.call(
            "archive_month_v1",
            table_name=of.relation.name,
            month=since.date(),
            held=held.rows,
            amount=format(held.amount, "f"),
            ids=format(held.ids, "f"),
            file=path.name,
            drop_rows=drop,
        )["dropped"]
    except StoreError as error:
        if late:
            _take_back(path, of.what, name, error)
        if error.sqlstate != _CHANGED:
            raise
        state = "No file is written" if late else "Its file is written"
        raise VitalError(
            f"{name} stays in the database. {state}, but rows came or changed meanwhile, older months are still there, it has "
            "not ended long enough ago, or `vital-tracking backfill` has not counted it. Run it again."
        ) from None
    return Archived(
        what=of.what,
        month=name,
        file=path,
        rows=held.rows,
        amount=held.amount,
        amount_of=amount_of,
        bytes_before=month["bytes"],
        bytes_after=path.stat().st_size,
        dropped=dropped,
        odd_amounts=odd,
    )


def _span(month: str) -> tuple[datetime, datetime]:
    year, number = int(month[:4]), int(month[5:])
    return datetime(year, number, 1, tzinfo=UTC), datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _path(folder: Path, relation: Relation, month: Month) -> Path:
    """The month's file. Rows that came after their month was dropped go into a file beside it: ..._2.parquet."""
    first = path = folder / f"{relation.name}_{month['month'].replace('-', '_')}.parquet"
    number = 1
    while month["gone"] and path.exists():
        number += 1
        path = first.with_stem(f"{first.stem}_{number}")
    return path


def _refuse_foreign(path: Path, month: Month, held: Contents, amount_of: str) -> None:
    """Only a file of this database's rows is replaced: of those that it holds now, or that it noted when it was written."""
    found, known = read_back(path, amount_of), month["archived"]
    ours = known is not None and found == Contents(known["rows"], known["amount"], known["ids"])
    if found != held and not ours:
        raise VitalError(
            f"{path} holds other rows: {found.rows:,}, with a {amount_of} of {found.amount:f}. Name another folder (--to), or "
            "replace the file: --force"
        )


def _take_back(path: Path, what: str, month: str, error: StoreError) -> None:
    """Remove the file of late rows that the database keeps: they would be in the next file, too."""
    if isinstance(error, StoreUnavailable) and not _REFUSED.fullmatch(error.sqlstate or ""):
        raise VitalError(
            f"{error} Whether it took the late {what} of {month} out, nobody knows. If `vital-tracking archive {month}` still "
            f"finds them, remove {path}; if not, keep it."
        ) from None
    path.unlink(missing_ok=True)


def _write(
    store: Store,
    path: Path,
    rows: Export,
    totals: RowTotals,
    held: Contents,
    amount_of: str,
    progress: Callable[[int, int], None],
) -> tuple[str, ...]:
    """Write the month anew, always, and read it back; returns the odd amounts.

    It has its name once it is read back; until then a file that was there before stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        progress(0, held.rows)
        with ParquetWriter(fresh, rows.relation, totals["digits"]) as writer:
            for batch in rows.batches(store):
                writer.write(batch)
                progress(writer.rows, held.rows)
        if read_back(fresh, amount_of) != held:
            raise VitalError(f"{rows.relation.name} changed while it was written. Run it again.")
        fresh.replace(path)
    except OSError as error:
        raise VitalError(f"{path} cannot be written ({error.strerror or type(error).__name__}).") from None
    finally:
        fresh.unlink(missing_ok=True)
    return tuple(writer.odd)
