"""Old months of calls as Parquet files, one a month: written, read back and compared, and only then dropped from the database."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from vital_tracking.errors import StoreError, StoreUnavailable, VitalError
from vital_tracking.queries.export import CallTotals, Export, call_totals
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.parquet import Contents, ParquetWriter, read_back
from vital_tracking.queries.retention import Month, Months
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores import Store

_CHANGED: Final = "55000"
_REFUSED: Final = re.compile(r"(?!08)[0-9A-Z]{5}")
"""SQLSTATEs by which PostgreSQL says that nothing was done; without one, or if the connection broke (08), that is unknown."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A month that is in a file. `bytes_before`: its size in the database with indexes; `dropped`: it is no longer in there.

    `odd_amounts` are columns with more digits than in other files, with their type: such a file is read by itself.
    """

    month: str
    file: Path
    rows: int
    total_cost: Decimal
    bytes_before: int | None
    bytes_after: int
    dropped: bool
    odd_amounts: tuple[str, ...]


def months_to_archive(listed: Months, wanted: Sequence[str] = ()) -> list[Month]:
    """The months to archive, the oldest first: those wanted, such as 2026-07, or those that retention would delete.

    There may be two of one name, where calls came late. Raises VitalError where there are no calls of a month, or it is not over.
    """
    rows = listed["months"]
    if not wanted:
        kept_from = listed["kept_from"]
        return [row for row in rows if kept_from is not None and row["month"] < f"{kept_from:%Y-%m}"]
    if missing := set(wanted) - {row["month"] for row in rows}:
        raise VitalError(f"There are no calls of {min(missing)}. The months: vital-tracking retention partitions")
    if max(wanted) >= f"{listed['now'].astimezone(UTC):%Y-%m}":
        raise VitalError(f"{max(wanted)} is not over yet.")
    return [row for row in rows if row["month"] in wanted]


def archive_month(
    store: Store,
    month: Month,
    folder: Path,
    *,
    drop: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _rows, _total: None,
) -> Archived:
    """Write a month to token_usage_logs_2026_07.parquet in a folder, read it back, and with `drop` take it out of the database.

    A file of other calls is replaced only with `force`. `progress` is told how many rows of how many are written. Raises
    VitalError where calls came meanwhile, older months are still there, or the month has not ended 31 days ago.
    """
    name, late = month["month"], month["gone"]
    since, until = _span(name)
    totals = call_totals(store, since=since, until=until)
    path = _path(folder, month)
    if path.exists() and not force:
        _refuse_foreign(path, month, _contents(totals))
    odd = _write(store, path, Export(filters=Filters(since=since, until=until)), name, totals, progress)
    try:
        dropped = store.call(
            "archive_month_v1",
            month=since.date(),
            held=totals["rows"],
            total_cost=format(totals["total_cost"], "f"),
            file=path.name,
            drop_rows=drop,
        )["dropped"]
    except StoreError as error:
        if late:
            _take_back(path, name, error)
        if error.sqlstate != _CHANGED:
            raise
        state = "No file is written" if late else "Its file is written"
        raise VitalError(
            f"{name} stays in the database. {state}, but calls came meanwhile, older months are still there, it has "
            "not ended 31 days ago, or `vital-tracking backfill` has not counted it. Run it again."
        ) from None
    return Archived(
        month=name,
        file=path,
        rows=totals["rows"],
        total_cost=totals["total_cost"],
        bytes_before=month["bytes"],
        bytes_after=path.stat().st_size,
        dropped=dropped,
        odd_amounts=odd,
    )


def _span(month: str) -> tuple[datetime, datetime]:
    year, number = int(month[:4]), int(month[5:])
    return datetime(year, number, 1, tzinfo=UTC), datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _contents(totals: CallTotals) -> Contents:
    return Contents(totals["rows"], totals["total_cost"])


def _path(folder: Path, month: Month) -> Path:
    """The month's file. Calls that came after their month was dropped go into a file beside it: ..._2.parquet."""
    first = path = folder / f"token_usage_logs_{month['month'].replace('-', '_')}.parquet"
    number = 1
    while month["gone"] and path.exists():
        number += 1
        path = first.with_stem(f"{first.stem}_{number}")
    return path


def _refuse_foreign(path: Path, month: Month, held: Contents) -> None:
    """Only a file of this database's calls is replaced: of those that it holds now, or that it noted when it was written."""
    found, known = read_back(path), month["archived"]
    ours = known is not None and found == Contents(known["rows"], known["total_cost"])
    if found != held and not ours:
        raise VitalError(
            f"{path} holds other calls: {counted(found.rows, 'row')}, {usd(found.total_cost)}. Name another folder (--to), or "
            "replace the file: --force"
        )


def _take_back(path: Path, month: str, error: StoreError) -> None:
    """Remove the file of late calls that the database keeps: they would be in the next file, too."""
    if isinstance(error, StoreUnavailable) and not _REFUSED.fullmatch(error.sqlstate or ""):
        raise VitalError(
            f"{error} Whether it took the late calls of {month} out, nobody knows. If `vital-tracking archive {month}` still "
            f"finds them, remove {path}; if not, keep it."
        ) from None
    path.unlink(missing_ok=True)


def _write(
    store: Store, path: Path, calls: Export, month: str, totals: CallTotals, progress: Callable[[int, int], None]
) -> tuple[str, ...]:
    """Write the month anew, always: rows and dollars may agree with a file that was written before a person was forgotten.

    It has its name once it is read back; until then a file that was there before stays. Returns the odd amounts.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        progress(0, totals["rows"])
        with ParquetWriter(fresh, calls.relation, totals["digits"]) as writer:
            for batch in calls.batches(store):
                writer.write(batch)
                progress(writer.rows, totals["rows"])
        if read_back(fresh) != _contents(totals):
            raise VitalError(f"Calls of {month} changed while they were written. Run it again.")
        fresh.replace(path)
    except OSError as error:
        raise VitalError(f"{path} cannot be written ({error.strerror or type(error).__name__}).") from None
    finally:
        fresh.unlink(missing_ok=True)
    return tuple(writer.odd)
