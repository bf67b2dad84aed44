"""`vital-tracking spool inspect`: the frames in the spool, one by one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from vital_tracking.cli.render.console import console, say, table
from vital_tracking.core.record import CallRecord
from vital_tracking.errors import VitalError
from vital_tracking.queries.spool import TAIL, frames_of, place_of, record_of, skew_of
from vital_tracking.queries.words import size
from vital_tracking.settings import Settings
from vital_tracking.spool.log_record import BEGINNINGS, LogRecord, RecordKind
from vital_tracking.spool.owner import is_alive, owners_in
from vital_tracking.spool.segment import segments_of

Row = dict[str, Any]
_FRAMES_SHOWN: Final = 100


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
    frames = _frame_rows(_segments(what))
    if json_:
        for row in islice(frames, limit):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    rows = list(islice(frames, limit or _FRAMES_SHOWN))
    if not rows:
        say("There is no frame. What there is: vital-tracking spool status")
        return
    console.print(table("", _FRAME_HEADINGS, [_frame_cells(row) for row in rows]))
    if more := sum(1 for _ in frames):
        say(f"and {more:,} more; for all of them: --limit {len(rows) + more}")


def _segments(what: str | None) -> list[Path]:
    """The segments that somebody means."""
    given = Path(what).expanduser() if what is not None else None
    if given is not None and given.is_file():
        return [given]
    if given is not None and given.is_dir():
        folders = [given, *owners_in(given), *(owner for database in _below(given) for owner in owners_in(database))]
        return [path for folder in folders for _, path in segments_of(folder)]
    root = place_of(Settings.from_env()).root
    if given is not None and given.is_absolute():
        raise VitalError(f"There is no {given}. What there is: vital-tracking spool status")
    owners = [owner for database in _below(root) for owner in owners_in(database)]
    if what is None:
        return [path for owner in owners for _, path in segments_of(owner)]
    name, _, segment = what.partition("/")
    meant = [owner for owner in owners if owner.name.endswith(name)]
    if len(meant) > 1:
        raise VitalError(f"{name} may be one of {len(meant)} folders: give more of its name, or its path.")
    found = [path for owner in meant for _, path in segments_of(owner) if segment in ("", path.name, path.stem)]
    if found or (meant and not segment):
        return found
    raise VitalError(f"There is no {what} in {root}. What there is: vital-tracking spool status")


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _frame_rows(segments: list[Path]) -> Iterator[Row]:
    folder, alive, skew_s = None, False, 0.0
    for path in segments:
        if path.parent != folder:
            folder, alive, skew_s = path.parent, is_alive(path.parent), 0.0
        for frame, start, end in frames_of(path, alive=alive):
            if frame is not None and frame.kind == RecordKind.CLOCK:
                skew_s = skew_s or skew_of(frame)
            yield _frame_row(frame, skew_s) | {
                "bytes": end - start,
                "offset": start,
                "segment": f"{folder}/{path.name}",
            }


def _frame_row(frame: LogRecord | None, skew_s: float) -> Row:
    row: Row = dict.fromkeys(("kind", "id", "time", "model", "status", "prompt_tokens", "completion_tokens", "calls"))
    if frame is None:
        return row | {"kind": "damaged"}
    known = frame.kind in set(RecordKind)
    row["kind"] = RecordKind(frame.kind).name.lower() if known else f"unknown ({frame.kind})"
    record = record_of(frame, skew_s)
    if isinstance(record, CallRecord):
        usage = record.usage
        row |= {
            "id": str(UUID(bytes=frame.id)),
            "time": record.created_at.isoformat(),
            "model": record.model or record.requested_model,
            "status": None if frame.kind in BEGINNINGS else record.status,
            "calls": record.calls,
        }
        if frame.kind not in BEGINNINGS:
            row |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    elif record is not None:
        row |= {
            "id": record.id,
            "time": (record.ended_at or record.started_at).isoformat(),
            "status": record.status,
        }
    elif frame.kind == RecordKind.CLOCK:
        row["status"] = f"{skew_of(frame):+.3f} s"
    else:
        row["id"] = str(UUID(bytes=frame.id))
        row["status"] = None if frame.kind == RecordKind.TOMBSTONE else "cannot be read"
    return row


_FRAME_HEADINGS = (
    ("segment", False),
    ("at", True),
    ("kind", False),
    ("id", False),
    ("time (UTC)", True),
    ("model", False),
    ("status", False),
    ("tokens", True),
)


def _frame_cells(row: Row) -> tuple[str, ...]:
    folder, _, name = str(row["segment"]).rpartition("/")
    damaged = row["kind"] == "damaged"
    tokens = None if row["prompt_tokens"] is None else row["prompt_tokens"] + row["completion_tokens"]
    merged = f" x {row['calls']}" if (row["calls"] or 1) > 1 else ""
    return (
        f"{Path(folder).name[TAIL:]}/{name.removesuffix('.segment')}",
        f"{row['offset']:,}",
        row["kind"] + merged,
        f"{size(row['bytes'])} that cannot be read" if damaged else row["id"] or "-",
        (row["time"] or "-")[5:19].replace("T", " ") or "-",
        row["model"] or "-",
        row["status"] or "-",
        "-" if tokens is None else f"{tokens:,}",
    )
