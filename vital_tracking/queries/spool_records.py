"""The log records in the spool, one by one: calls, service runs, and what cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypedDict
from uuid import UUID

from vital_tracking.calls import resolve
from vital_tracking.calls.json_codec import unpack_record, unpack_run
from vital_tracking.calls.wire import unpack_call
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.spool.log_record import BEGINNINGS, RUNS, LogRecord, RecordKind, clock_skew, read_records
from vital_tracking.spool.owner import is_alive

_TAIL: Final = -12


class _Row(TypedDict):
    kind: str
    id: str | None
    time: str | None
    model: str | None
    status: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    calls: int | None


class RecordRow(_Row):
    """A record: its kind, what it tells of a call or run, its size in bytes, and where it is: offset, and path of the segment.

    The `status` of a record of the clock is by how much the machine's clock was wrong.
    """

    bytes: int
    offset: int
    segment: str


def short_name(folder: Path) -> str:
    """The part of a process's folder's name that tells it from the others."""
    return folder.name[_TAIL:]


def log_records(path: Path, *, alive: bool = False) -> Iterator[tuple[LogRecord | None, int, int]]:
    """The records of a segment, each with where it begins and ends; None for a stretch that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:  # delivered meanwhile
        return
    start = 0
    for record, end in read_records(data, ended=not alive):
        yield record, start, end
        start = end


def record_rows(segments: Sequence[Path]) -> Iterator[RecordRow]:
    """What lies in segments, record by record, damaged stretches too; none of it is text of a prompt or an answer."""
    folder, alive, skew_s = None, False, 0.0
    for path in segments:
        if path.parent != folder:
            folder, alive, skew_s = path.parent, is_alive(path.parent), 0.0
        for entry, start, end in log_records(path, alive=alive):
            if entry is not None and entry.kind == RecordKind.CLOCK:
                skew_s = skew_s or clock_skew(entry.payload) or 0.0
            found = _record_row(entry, skew_s)
            yield RecordRow(**found, bytes=end - start, offset=start, segment=f"{folder}/{path.name}")


def _record_row(entry: LogRecord | None, skew_s: float) -> _Row:
    row = _Row(
        kind="damaged",
        id=None,
        time=None,
        model=None,
        status=None,
        prompt_tokens=None,
        completion_tokens=None,
        calls=None,
    )
    if entry is None:
        return row
    known = entry.kind in set(RecordKind)
    row["kind"] = RecordKind(entry.kind).name.lower() if known else f"unknown ({entry.kind})"
    record = _record_of(entry, skew_s)
    if isinstance(record, CallRecord):
        row["id"] = str(UUID(bytes=entry.id))
        row["time"] = record.created_at.isoformat()
        row["model"] = record.model or record.requested_model
        row["calls"] = record.calls
        if entry.kind not in BEGINNINGS:
            row["status"] = record.status
            row["prompt_tokens"] = record.usage.prompt_tokens
            row["completion_tokens"] = record.usage.completion_tokens
    elif record is not None:
        row["id"] = record.id
        row["time"] = (record.ended_at or record.started_at).isoformat()
        row["status"] = record.status
    elif entry.kind == RecordKind.CLOCK:
        row["status"] = f"{(clock_skew(entry.payload) or 0.0):+.3f} s"
    else:
        row["id"] = str(UUID(bytes=entry.id))
        row["status"] = None if entry.kind == RecordKind.TOMBSTONE else "cannot be read"
    return row


def _record_of(entry: LogRecord, skew_s: float = 0.0) -> CallRecord | RunRecord | None:
    """The call or run that a log record holds, as it would be recorded; None where it holds neither, or cannot be read."""
    with contextlib.suppress(Exception):  # a record of another version may be unreadable: shown without details
        if entry.kind in (RecordKind.CALL, RecordKind.OPENED):
            return resolve.record_of(unpack_call(entry.id, entry.payload, skew_s))
        if entry.kind in (RecordKind.RECORD, RecordKind.BEGUN):
            return unpack_record(entry.payload, skew_s)
        if entry.kind in RUNS:
            return unpack_run(entry.payload)
    return None
