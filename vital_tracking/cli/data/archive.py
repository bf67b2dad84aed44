"""`vital-tracking archive`: old months of calls as Parquet files, read back, and only then dropped from the database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say, usd
from vital_tracking.errors import StoreError, StoreUnavailable, VitalError
from vital_tracking.queries.parquet import Contents, ParquetWriter, read_back
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store
from vital_tracking.stores.relations import CALLS

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_CHANGED: Final = "55000"
_REFUSED: Final = re.compile(r"(?!08)[0-9A-Z]{5}")
"""SQLSTATEs with which PostgreSQL says that nothing was done; without one, or where the connection broke (08), nobody knows."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A month that is in a file: `bytes_before` with its indexes, in the database; `dropped`: it is no more in there."""

    month: str
    file: str
    rows: int
    total_cost: str
    bytes_before: int | None
    bytes_after: int
    written: bool
    dropped: bool


def archive(
    months: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MONTH]...", help="Such as 2026-07; by default those that retention would delete."),
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder of the files.")] = Path("archive"),
    drop: Annotated[bool, typer.Option("--drop", help="Then drop the months from the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --drop: do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is of another database or content.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
) -> None:
    """Write old months of calls to Parquet files, one a month: token_usage_logs_2026_07.parquet.

    Each file is read back and compared with the database, in rows and dollars, before anything is dropped; and what is dropped
    is compared once more. Sums and budgets stay as they are. Needs the extra `parquet`. Months go in their order, and not
    before they ended 31 days ago. Calls that came after their month was dropped go only with --drop, into a file of their own.

    \b
    Examples:
      vital-tracking archive --to archive
      vital-tracking archive 2026-06 2026-07 --to archive --drop
      duckdb -c "select model, sum(total_cost) from 'archive/*.parquet' group by 1"
    """
    store = open_store(Settings.from_env())
    done: list[Archived] = []
    try:
        listed = store.call("months_v1")
        found = _chosen(listed, months or [])
        late = [] if drop else [row for row in found if row["gone"]]
        chosen = [row for row in found if row not in late]
        if drop and chosen and not yes:
            names = ", ".join(dict.fromkeys(row["month"] for row in chosen))
            typer.confirm(f"Drop {names} from the database, once they are in files?", abort=True)
        if chosen:
            _folder(to)
        for row in chosen:
            done.append(_archive(store, row, to, drop=drop, force=force))
            if not json_:
                _tell(done[-1])
        after = store.call("months_v1")["bytes"] if done else listed["bytes"]
    finally:
        store.close()
    if json_:
        months_done = [asdict(one) for one in done]
        months_late = [{"month": row["month"], "rows": row["rows"]} for row in late]
        as_json({"bytes_before": listed["bytes"], "bytes_after": after, "months": months_done, "late": months_late})
        return
    for row in late:
        say(
            f"{row['month']}  {counted(row['rows'], 'row')} came after the month was dropped: --drop writes them to a file of "
            "their own and takes them out"
        )
    if not done and not late:
        _tell_nothing(listed)
    elif done:
        files = sum(one.bytes_after for one in done)
        say(f"Calls in the database: {size(listed['bytes'])} before, {size(after)} after; files: {size(files)}")
        say(f"To read them: duckdb -c \"from '{to}/*.parquet' limit 10\"")
        if not drop:
            say("The months are still in the database: --drop takes them out, and so does vital-tracking retention run")


def _chosen(listed: dict[str, Any], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The months to archive, the oldest first; there may be two of one name, where calls came late."""
    if bad := [name for name in wanted if not _MONTH.fullmatch(name)]:
        raise typer.BadParameter(f"{bad[0]} is no month: write it as 2026-07")
    rows: list[dict[str, Any]] = listed["months"]
    if not wanted:
        kept_from = listed["kept_from"]
        return [row for row in rows if kept_from is not None and row["month"] < kept_from[:7]]
    if missing := set(wanted) - {row["month"] for row in rows}:
        raise VitalError(f"There are no calls of {min(missing)}. The months: vital-tracking retention partitions")
    if max(wanted) >= listed["now"][:7]:
        raise VitalError(f"{max(wanted)} is not over yet.")
    return [row for row in rows if row["month"] in wanted]


def _folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitalError(f"{to} cannot be made a folder ({error.strerror}). Name another one: --to") from None


def _archive(store: Store, row: dict[str, Any], to: Path, *, drop: bool, force: bool) -> Archived:
    month: str = row["month"]
    since, until = _span(month)
    totals = store.call("call_totals_v1", since=since, until=until)
    held = Contents(totals["rows"], Decimal(totals["total_cost"]))
    path = _path(to, row)
    _refuse_foreign(path, row, held, force=force)
    _write(store, path, month, since, until, totals)
    try:
        answer = store.call(
            "archive_month_v1",
            month=since.date(),
            held=held.rows,
            total_cost=format(held.total_cost, "f"),
            file=path.name,
            drop_rows=drop,
        )
    except StoreError as error:
        if row["gone"]:
            _take_back(path, month, error)
        if error.sqlstate != _CHANGED:
            raise
        state = "No file is written" if row["gone"] else "Its file is written"
        raise VitalError(
            f"{month} stays in the database. {state}, but calls came meanwhile, older months are still there, it has "
            "not ended 31 days ago, or `vital-tracking backfill` has not counted it. Run it again."
        ) from None
    return Archived(
        month=month,
        file=str(path),
        rows=held.rows,
        total_cost=format(held.total_cost, "f"),
        bytes_before=row["bytes"],
        bytes_after=path.stat().st_size,
        written=True,
        dropped=answer["dropped"],
    )


def _path(to: Path, row: dict[str, Any]) -> Path:
    """The month's file. Calls that came after their month was dropped go into a file beside it: ..._2.parquet."""
    path = to / f"token_usage_logs_{row['month'].replace('-', '_')}.parquet"
    number = 1
    first = path
    while row["gone"] and path.exists():
        number += 1
        path = first.with_stem(f"{first.stem}_{number}")
    return path


def _refuse_foreign(path: Path, row: dict[str, Any], held: Contents, *, force: bool) -> None:
    """A file of that name is replaced if it is one of this database's."""
    if not path.exists() or force:
        return
    found = read_back(path)
    known = row["archived"]
    ours = known is not None and found == Contents(known["rows"], Decimal(known["total_cost"]))
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


def _write(store: Store, path: Path, month: str, since: datetime, until: datetime, totals: dict[str, Any]) -> None:
    """Write the month anew, always: rows and dollars may agree with a file that was written before a person was forgotten.

    It has its name once it is read back; until then a file that was there before stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with progress_bar() as bar, ParquetWriter(fresh, CALLS, totals["digits"]) as writer:
            task = bar.add_task(f"archiving {month}", total=totals["rows"])
            for batch in store.stream(CALLS, since=since, until=until):
                writer.write(batch)
                bar.advance(task, len(batch))
        if read_back(fresh) != Contents(totals["rows"], Decimal(totals["total_cost"])):
            raise VitalError(f"Calls of {month} changed while they were written. Run it again.")
        fresh.replace(path)
    except OSError as error:
        raise VitalError(f"{path} cannot be written ({error.strerror or type(error).__name__}).") from None
    finally:
        fresh.unlink(missing_ok=True)
    if writer.odd:
        typer.echo(
            f"{path}: amounts have more digits than in other files; read it by itself: {', '.join(writer.odd)}",
            err=True,
        )


def _span(month: str) -> tuple[datetime, datetime]:
    year, number = int(month[:4]), int(month[5:])
    return datetime(year, number, 1, tzinfo=UTC), datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _tell(one: Archived) -> None:
    before = f"{size(one.bytes_before)} with indexes -> " if one.bytes_before else ""
    share = f" ({100 * one.bytes_after / one.bytes_before:.1f} %)" if one.bytes_before else ""
    state = "written and read back" + (", dropped" if one.dropped else "")
    say(
        f"{one.month}  {counted(one.rows, 'row')}, {usd(Decimal(one.total_cost))}  {before}{size(one.bytes_after)}{share}  "
        f"{one.file}: {state}"
    )


def _tell_nothing(listed: dict[str, Any]) -> None:
    if listed["kept_from"] is None:
        say("Calls are kept for ever. Name the months: vital-tracking archive 2026-07")
    else:
        say(
            f"Nothing to archive: no calls from before {listed['kept_from'][:10]}, when retention begins. "
            "To archive later ones, name the month: vital-tracking archive 2026-07"
        )
