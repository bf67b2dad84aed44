"""`vital-tracking export`: calls and sums as CSV or Parquet, streamed in the memory of a few thousand rows."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.times import moment
from vital_tracking.errors import VitalError
from vital_tracking.queries.csv import safe_cell
from vital_tracking.queries.parquet import ParquetWriter, part_of
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store
from vital_tracking.stores.relations import RELATIONS, ColumnKind, Relation, Values

STDOUT: Final = "-"


class Format(StrEnum):
    """How rows are written."""

    csv = "csv"
    parquet = "parquet"


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[WHAT] FILE",
            help=f"What: {', '.join(RELATIONS)} (by default calls). The file: x.csv, x.parquet; - for the standard output.",
        ),
    ],
    format_: Annotated[
        Format | None, typer.Option("--format", help="By default what the file's name says, else CSV.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Of the last so many days.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: a span back such as 30d, or a date (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, and without it.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Say as JSON what was written.")] = False,
) -> None:
    """Write calls, or sums of them, to a CSV or Parquet file.

    However many rows there are, they take no more memory than a few thousand. Amounts keep all their digits. In CSV, text that a
    spreadsheet would run as a formula (it begins with = + - @, a tab or a line's end) begins with an apostrophe instead; NULL and
    empty text are both an empty cell. Parquet needs the extra `parquet`, keeps types, and takes a fifth of the room.

    \b
    Examples:
      vital-tracking export calls.parquet --days 30
      vital-tracking export daily - --since 2026-01-01 --until 2026-02-01 | head
      vital-tracking export acme.csv --organization acme
    """
    what, file = _asked(words)
    relation = RELATIONS[what]
    filters = {
        column: value
        for column, value in (("organization_id", organization), ("user_id", user))
        if value is not None and _has(relation, column, what)
    }
    if days is not None and since is not None:
        raise typer.BadParameter("--days and --since both say from when on: give one of them")
    since = f"{days}d" if days is not None else since
    first, last = (moment(text, option) if text else None for text, option in ((since, "--since"), (until, "--until")))
    chosen = format_ or (Format.parquet if Path(file).suffix in (".parquet", ".pq") else Format.csv)
    path = None if file == STDOUT else _free(Path(file), force=force)
    store = open_store(Settings.from_env())
    try:
        totals = _totals(store, relation, first, last, organization, user, wanted=chosen is Format.parquet)
        batches = store.stream(relation, equals=filters, since=first, until=last)
        rows = _write(path, chosen, relation, _shown(batches, what, totals.get("rows")), totals.get("digits"))
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:
        raise VitalError(f"{file} cannot be written ({error.strerror or type(error).__name__}).") from None
    finally:
        store.close()
    if path is None:
        return
    written = path.stat().st_size
    if json_:
        as_json({"file": str(path), "format": chosen.value, "rows": rows, "bytes": written})
        return
    say(f"{path}: {counted(rows, 'row')}, {size(written)}")
    if chosen is Format.parquet and rows:
        say(f"To read it: duckdb -c \"from '{path}' limit 10\"")


def _asked(words: Sequence[str]) -> tuple[str, str]:
    """What is to be written, and where to."""
    what, file = ("calls", words[0]) if len(words) == 1 else (words[0], words[1])
    if len(words) > 2:
        raise typer.BadParameter("one table and one file at a time: vital-tracking export daily daily.csv")
    if what not in RELATIONS:
        raise typer.BadParameter(f"there is no {what} to export. There are: {', '.join(RELATIONS)}")
    if file in RELATIONS:
        raise typer.BadParameter(f"name the file too: vital-tracking export {file} {file}.csv")
    return what, file


def _has(relation: Relation, column: str, what: str) -> bool:
    if column not in relation.filters:
        option = {"organization_id": "--organization", "user_id": "--user"}[column]
        raise typer.BadParameter(f"{option} does not go with {what}, which are of no {option[2:]}")
    return True


def _free(path: Path, *, force: bool) -> Path:
    if path.is_dir():
        raise VitalError(f"{path} is a folder. Name a file in it, such as {path / 'calls.parquet'}")
    if path.exists() and not force:
        raise VitalError(f"{path} is there already. To replace it: --force")
    return path


def _totals(
    store: Store,
    relation: Relation,
    since: datetime | None,
    until: datetime | None,
    organization: str | None,
    user: str | None,
    *,
    wanted: bool,
) -> dict[str, Any]:
    """How many rows there are, and the digits of their amounts; only for calls, and only where somebody wants to know."""
    if relation is not RELATIONS["calls"] or not (wanted or sys.stderr.isatty()):
        return {}
    found: dict[str, Any] = store.call(
        "call_totals_v1", since=since, until=until, organization=organization, user_id=user
    )
    return found


def _shown(batches: Iterator[list[Values]], what: str, total: int | None) -> Generator[list[Values]]:
    """The same batches, with a bar on the standard error where somebody watches."""
    with progress_bar() as bar:
        task = bar.add_task(f"exporting {what}", total=total)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch))


def _write(path: Path | None, chosen: Format, relation: Relation, batches: Generator[list[Values]], digits: Any) -> int:
    """Write the batches; how many rows they were."""
    with contextlib.closing(batches):
        if chosen is Format.parquet:
            with ParquetWriter(path or sys.stdout.buffer, relation, digits) as writer:
                for batch in batches:
                    writer.write(batch)
            return writer.rows
        if path is None:
            return write_csv(sys.stdout, relation, batches)
        partial = part_of(path)
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                rows = write_csv(file, relation, batches)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return rows


def write_csv(file: IO[str], relation: Relation, batches: Iterable[list[Values]]) -> int:
    """Write a heading and rows; how many. Cells of text are made safe, numbers and times are what they are."""
    writer = csv.writer(file)
    writer.writerow(relation.columns)
    texts = [place for place, kind in enumerate(relation.columns.values()) if kind is ColumnKind.text]
    rows = 0
    for batch in batches:
        rows += len(batch)
        writer.writerows(_safe(row, texts) for row in batch)
    return rows


def _safe(row: Values, texts: Sequence[int]) -> Sequence[str | None]:
    """A row whose texts no spreadsheet runs. What begins with a letter or a digit, as nearly all does, need not be looked at."""
    if odd := [place for place in texts if (text := row[place]) and not text[0].isalnum()]:
        cells = list(row)
        for place in odd:
            cells[place] = safe_cell(cells[place])
        return cells
    return row
