"""`vital-tracking import list`: which files were imported, how far, and what was wrong in them."""

from __future__ import annotations

from typing import Annotated

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_json, console, say
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import short_time
from vital_tracking.imports.files import imported_files


def list_files(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many files at most.")] = 50,
    json_: Json = False,
) -> None:
    """List imported files, the last read first: how far each was read, and its bad lines of the last 30 days."""
    with opened() as store:
        files = imported_files(store, limit=limit)
    if json_:
        as_json(files)
        return
    if not files:
        say("No file was imported yet. Import one: vital-tracking import access-log access.log")
        return
    columns = [
        Column("file", False, lambda f: f["name"] or ""),
        Column("server", False, lambda f: f["server"] or ""),
        Column("bytes", True, lambda f: f"{f['place']:,}"),
        Column("lines", True, lambda f: f"{f['lines']:,}"),
        Column("events", True, lambda f: f"{f['events']:,}"),
        Column("costs", True, lambda f: f"{f['costs']:,}"),
        Column("bad lines", True, lambda f: f"{f['bad_lines']:,}"),
        Column("last read (UTC)", False, lambda f: short_time(f["last_read_at"])),
    ]
    console.print(fitted("Imported files", columns, files))
    for file in files:
        for line in file["bad"]:
            say(f"{file['name']}: line {line['line_number']:,}, at byte {line['place']:,}: {line['reason']}")
