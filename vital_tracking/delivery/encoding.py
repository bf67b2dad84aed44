"""Calls and service runs as records of the spool's log, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, timedelta
from functools import partial
from typing import Final, TypeAlias
from uuid import UUID

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record, pack_run, unpack_record
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.wire import unpack_call, unpack_opening
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.spool.log_record import MAX_BODY, LogRecord, RecordKind

Call: TypeAlias = CallRecord | LiveCall
"""A call that has ended: as it will be stored, or with the facts that its record is made of."""

Recordable: TypeAlias = Call | RunRecord


def key_of(call: Call) -> bytes:
    """The 16 bytes of a call's id."""
    return id_bytes(call.id) if isinstance(call, CallRecord) else call.id.bytes


def by_clock(record: CallRecord, skew_s: float | None) -> CallRecord:
    """A record with its time corrected, once, where it is known how far this machine's clock is from the database's."""
    if not record.clocked or skew_s is None:
        return record
    moment = record.created_at if record.created_at.tzinfo else record.created_at.replace(tzinfo=UTC)
    return dataclasses.replace(record, created_at=moment + timedelta(seconds=skew_s), clocked=False)


def as_log_record(item: Recordable, skew_s: float | None, *, short: bool = False) -> tuple[LogRecord, bool]:
    """The log record of a call or run, and whether it was shortened: on request, or because it is too long.

    Raises ValueError where even the short form is too long for the log.
    """
    if isinstance(item, RunRecord):
        return LogRecord(RecordKind.RUN, os.urandom(16), pack_run(item)), False
    if isinstance(item, CallRecord):
        kind = RecordKind.RECORD
        pack: Callable[..., bytes] = partial(pack_record, by_clock(item, skew_s))
    else:
        kind, pack = RecordKind.CALL, item.packed
    payload = pack(short=short)
    if len(payload) > LONGEST and not short:
        short, payload = True, pack(short=True)
    if len(payload) >= MAX_BODY:
        raise ValueError("The record is too long.")
    return LogRecord(kind, key_of(item), payload), short


def decoded(record: LogRecord, skew_s: float) -> Call:
    """The call that a log record holds. `skew_s` is added to a time that was read from an uncorrected clock, in seconds.

    Raises whatever decoding raises, such as KeyError for a kind that holds no call or is not known.
    """
    if record.item is not None:  # it has never left this process's memory
        call: LiveCall = record.item
        call.date(skew_s)
        return call
    return _DECODERS[record.kind](record.id, record.payload, skew_s)


def recorded(call: Call, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of a call; where it cannot be made, the shortest form, and `fault` is told why."""
    if isinstance(call, CallRecord):
        return call
    try:
        return call.record()
    except Exception as error:  # noqa: BLE001 - one bad call must not be lost, nor take its neighbours with it
        fault(error)
        return call.shortest()


def _unpack_record(key: bytes, payload: bytes, skew_s: float) -> CallRecord:
    record = unpack_record(payload, skew_s)
    with contextlib.suppress(ValueError):
        record.id = str(UUID(bytes=key))
    return record


_DECODERS: Final[dict[int, Callable[[bytes, bytes, float], Call]]] = {
    RecordKind.OPENED: unpack_opening,
    RecordKind.CALL: unpack_call,
    RecordKind.BEGUN: _unpack_record,
    RecordKind.RECORD: _unpack_record,
}
