"""`vital-tracking spool inspect`: the log records in the spool, one by one."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.console import console, say, table
from vital_tracking.queries.spool import find_segments
from vital_tracking.queries.spool_records import RecordRow, record_rows, short_name
from vital_tracking.queries.words import size
from vital_tracking.settings import Settings

_SHOWN: Final = 100


def inspect(
    what: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER|SEGMENT", help="As a path, or as `status` and this command name them."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many frames; a table shows the first 100.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each frame.")] = False,
) -> None:
    """Show the frames in the spool, or in a part of it.

    Damaged stretches too. Asks no database. A frame holds what the row of a call will: no text of a prompt or an answer is in
    there.

    \b
    Examples:
      vital-tracking spool inspect
      vital-tracking spool inspect 2b9f6a1f0c3d
      vital-tracking spool inspect 2b9f6a1f0c3d/00000001 --json
    """
    records = record_rows(find_segments(Settings.from_env(), what))
    if json_:
        for row in islice(records, limit):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    rows = list(islice(records, limit or _SHOWN))
    if not rows:
        say("There is no frame. What there is: vital-tracking spool status")
        return
    console.print(table("", _HEADINGS, [_cells(row) for row in rows]))
    if more := sum(1 for _ in records):
        say(f"and {more:,} more; for all of them: --limit {len(rows) + more}")


_HEADINGS = (
    ("segment", False),
    ("at", True),
    ("kind", False),
    ("id", False),
    ("time (UTC)", True),
    ("model", False),
    ("status", False),
    ("tokens", True),
)


def _cells(row: RecordRow) -> tuple[str, ...]:
    folder, _, name = str(row["segment"]).rpartition("/")
    damaged = row["kind"] == "damaged"
    tokens = None if row["prompt_tokens"] is None else row["prompt_tokens"] + (row["completion_tokens"] or 0)
    merged = f" x {row['calls']}" if (row["calls"] or 1) > 1 else ""
    return (
        f"{short_name(Path(folder))}/{name.removesuffix('.segment')}",
        f"{row['offset']:,}",
        row["kind"] + merged,
        f"{size(row['bytes'])} that cannot be read" if damaged else row["id"] or "-",
        (row["time"] or "-")[5:19].replace("T", " ") or "-",
        row["model"] or "-",
        row["status"] or "-",
        "-" if tokens is None else f"{tokens:,}",
    )
