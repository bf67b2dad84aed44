"""`vital-tracking export`: calls, events, costs and sums as CSV or Parquet, streamed in the memory of a few thousand rows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from vital_tracking.cli.render import filters
from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.session import opened
from vital_tracking.cli.render.times import MOST_DAYS, between, days_back
from vital_tracking.core.closest import did_you_mean
from vital_tracking.errors import VitalError
from vital_tracking.queries.csv import write_csv
from vital_tracking.queries.export import EXPORTS, Export, Format, RowTotals, write_csv_file, write_parquet
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.words import counted, size
from vital_tracking.stores.relations import Relation, Values

STDOUT: Final = "-"


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[WHAT] FILE",
            help=f"What: {', '.join(EXPORTS)} (by default calls). The file: x.csv, x.parquet; - for the standard output.",
        ),
    ],
    format_: Annotated[
        Format | None, typer.Option("--format", help="By default what the file's name says, else CSV.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=MOST_DAYS, help="Of the last so many days.")] = None,
    since: filters.Since = None,
    until: filters.Until = None,
    organization: filters.Organization = None,
    user: filters.User = None,
    session: filters.Session = None,
    service: filters.Service = None,
    agent: filters.Agent = None,
    workflow: filters.Workflow = None,
    panel: filters.Panel = None,
    solution: filters.Solution = None,
    framework: filters.Framework = None,
    provider: filters.Provider = None,
    model: filters.Model = None,
    message_type: filters.MessageType = None,
    status: filters.Status = None,
    unpriced: filters.Unpriced = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Say as JSON what was written.")] = False,
) -> None:
    """Write calls, events, costs, or sums of them, to a CSV or Parquet file.

    However many rows there are, they take no more memory than a few thousand. Amounts keep all their digits. In CSV, text that a
    spreadsheet would run as a formula (it begins with = + - @, a tab or a line's end) begins with an apostrophe instead; NULL and
    empty text are both an empty cell. Parquet needs the extra `parquet`, keeps types, and takes a fifth of the room.

    \b
    Examples:
      vital-tracking export calls.parquet --days 30
      vital-tracking export daily - --since 2026-01-01 --until 2026-02-01 | head
      vital-tracking export acme.csv --organization acme
      vital-tracking export tools.parquet --framework langgraph --message-type tool_execution
      vital-tracking export - --model gpt-4o --days 7 | gzip > calls.csv.gz

    To copy all of it into a ClickHouse: vital-tracking export clickhouse --help
    """
    what, file = _asked(words)
    if days is not None and since is not None:
        raise typer.BadParameter("--days and --since both say from when on: give one of them")
    first, last = between(since, until)
    wanted = Export(
        what=what,
        filters=Filters(
            since=days_back(days) if days is not None else first,
            until=last,
            organization=organization,
            user=user,
            session=session,
            service=service,
            agent=agent,
            workflow=workflow,
            panel=panel,
            solution=solution,
            framework=framework,
            provider=provider,
            model=model,
            message_type=message_type,
            status=status,
            unpriced=unpriced,
        ),
    )
    for name in wanted.impossible_filters:
        option = name.replace("_", "-")
        raise typer.BadParameter(f"--{option} does not go with {what}, which are of no {option.replace('-', ' ')}")
    chosen = _format(file, format_)
    path = None if file == STDOUT else _free(Path(file), force=force)
    try:
        with opened() as store:
            # Counting takes a while: only where the digits are needed, or a terminal shows the bar.
            totals = wanted.totals(store) if chosen is Format.parquet or sys.stderr.isatty() else None
            shown = totals if wanted.totals_are_exact else None
            with contextlib.closing(_shown(wanted.batches(store), what, shown)) as batches:
                rows = _write(path, chosen, wanted.relation, batches, totals)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:
        raise VitalError(f"{file} cannot be written ({error.strerror or type(error).__name__}).") from None
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
    if what not in EXPORTS:
        raise typer.BadParameter(
            f"there is no {what} to export{did_you_mean(what, list(EXPORTS))} There are: {', '.join(EXPORTS)}"
        )
    if file in EXPORTS:
        raise typer.BadParameter(f"name the file too: vital-tracking export {file} {file}.csv")
    return what, file


def _format(file: str, asked: Format | None) -> Format:
    """The format that a file's name or `--format` says; a name that says another one, or one that is not written, is refused."""
    suffix = "" if file == STDOUT else Path(file).suffix.lower()
    named = _SUFFIXES.get(suffix)
    if named is not None and asked not in (None, named):
        raise typer.BadParameter(f"{file} says {named}, and --format {asked}: name the file {Path(file).stem}.{asked}")
    if named is None and asked is None:
        either = " or ".join(f"{Path(file).stem.partition('.')[0]}{suffix}" for suffix in (".csv", ".parquet"))
        raise typer.BadParameter(
            f"{suffix} is not written. Name the file {either}; for another suffix say what is in it: --format csv"
        )
    return asked or named or Format.csv


_SUFFIXES: Final = {"": Format.csv, ".csv": Format.csv, ".parquet": Format.parquet, ".pq": Format.parquet}


def _free(path: Path, *, force: bool) -> Path:
    if path.is_dir():
        raise VitalError(f"{path} is a folder. Name a file in it, such as {path / 'calls.parquet'}")
    if path.exists() and not force:
        raise VitalError(f"{path} is there already. To replace it: --force")
    return path


def _shown(batches: Iterator[list[Values]], what: str, totals: RowTotals | None) -> Generator[list[Values]]:
    """The same batches, with a bar on the standard error where that is a terminal."""
    with progress_bar() as bar:
        task = bar.add_task(f"exporting {what}", total=totals["rows"] if totals else None)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch))


def _write(
    path: Path | None,
    chosen: Format,
    relation: Relation,
    batches: Iterator[list[Values]],
    totals: RowTotals | None,
) -> int:
    """Write the batches to a file or the standard output; how many rows they were."""
    if chosen is Format.parquet:
        return write_parquet(path or sys.stdout.buffer, relation, batches, totals["digits"] if totals else None)
    return write_csv_file(path, relation, batches) if path else write_csv(sys.stdout, relation, batches)
