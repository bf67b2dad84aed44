"""Calls and service runs as records of the spool's log, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TypeAlias, TypeVar
from uuid import UUID

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record, pack_run, unpack_record
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.observed import ObservedCall
from vital_tracking.calls.resolve import least_record_of, record_of
from vital_tracking.calls.wire import pack_call, unpack_call
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.core.sanitize import EARLIEST, LATEST
from vital_tracking.delivery.platform_record import PlatformRecord
from vital_tracking.ids import made_at
from vital_tracking.spool.log_record import CALL, MAX_BODY, LogRecord, RecordKind

EndedCall: TypeAlias = CallRecord | LiveCall
"""A call that has ended: as it will be stored, or with the facts that its record is made of."""

Recordable: TypeAlias = EndedCall | RunRecord | PlatformRecord

_Call = TypeVar("_Call", bound=EndedCall)


def key_of(call: EndedCall) -> bytes:
    """The 16 bytes of a call's id."""
    return id_bytes(call.id) if isinstance(call, CallRecord) else call.id.bytes


def dated(call: _Call, skew_s: float | None) -> _Call:
    """A call whose time is settled, for good: by what is known at this moment of how far this machine's clock is off, in
    seconds. Where that is not known its time is this machine's: what becomes known later must not change it, since the database
    knows a call again by its id and its time."""
    if isinstance(call, LiveCall):
        if call.skew_s is None:
            call.skew_s = skew_s or 0.0
        return call
    if not call.clocked:
        return call
    moment = call.created_at if call.created_at.tzinfo else call.created_at.replace(tzinfo=UTC)
    return call._replace(created_at=moment + timedelta(seconds=skew_s or 0.0), clocked=False)


def as_log_record(item: Recordable, skew_s: float | None, *, short: bool = False) -> tuple[LogRecord, bool]:
    """The log record of what was recorded, and whether it was shortened: on request, or because it is too long.

    Raises ValueError where even the short form is too long for the log.
    """
    if isinstance(item, LiveCall):  # the common case, in the caller's thread
        kind, key = CALL, item.id.bytes
        payload, short = _packed(pack_call, dated(item, skew_s), short)
    elif isinstance(item, CallRecord):
        kind, key = RecordKind.RECORD, id_bytes(item.id)
        payload, short = _packed(pack_record, dated(item, skew_s), short)
    elif isinstance(item, PlatformRecord):  # small as it is
        return LogRecord(*item), False
    else:
        kind = RecordKind.RUN_BEGUN if item.status == "running" else RecordKind.RUN
        return LogRecord(kind, id_bytes(item.id), pack_run(item)), False
    if len(payload) >= MAX_BODY:
        raise ValueError("The record is too long.")
    return LogRecord(kind, key, payload), short


def _packed(pack: Callable[..., bytes], call: EndedCall, short: bool) -> tuple[bytes, bool]:
    """A call as bytes, and whether it was shortened."""
    payload = pack(call, short=short)
    if len(payload) > LONGEST and not short:
        return pack(call, short=True), True
    return payload, short


def decoded(record: LogRecord, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of the call that a log record holds; `fault` is told why it could not be made in full.

    Raises whatever decoding raises, such as ValueError for a kind that holds no call or is not known.
    """
    if record.item is not None:  # it has never left this process's memory
        return recorded(record.item, fault)
    if record.kind in (RecordKind.CALL, RecordKind.OPENED):
        return _storable(_resolved(unpack_call(record.id, record.payload, record.former_skew_s), fault))
    if record.kind in (RecordKind.RECORD, RecordKind.BEGUN):
        call = unpack_record(record.payload, record.former_skew_s)
        with contextlib.suppress(ValueError):
            call = call._replace(id=str(UUID(bytes=record.id)))
        return _storable(call)
    raise ValueError(f"A log record of kind {record.kind} holds no call.")


def waiting_form(record: LogRecord) -> LogRecord | bytes:
    """What is kept in memory of a call that waits: the bytes of its log record where they say it all, else the log record.

    Bytes take less, and the garbage collector does not look at them.
    """
    return record.payload if record.kind == CALL and record.item is None else record


def decoded_waiting(key: bytes, kept: LogRecord | bytes, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of the call `key` of which `waiting_form` was `kept`; `fault`, and what it raises, as for `decoded`."""
    return decoded(LogRecord(CALL, key, kept) if isinstance(kept, bytes) else kept, fault)


def recorded(call: EndedCall, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of a call that is in memory; `fault` as for `decoded`."""
    if isinstance(call, CallRecord):
        return _storable(call)
    try:
        observed = call.observed()
    except Exception as error:  # noqa: BLE001 - one bad call must not be lost, nor take its neighbours with it
        fault(error)
        return _storable(least_record_of(call.least_observed()))
    return _storable(_resolved(observed, fault))


def _storable(call: CallRecord) -> CallRecord:
    """A call at a time that the database can hold: where its own is none, when its id was made, and the row says so."""
    moment = call.created_at if call.created_at.tzinfo else call.created_at.replace(tzinfo=UTC)
    if EARLIEST <= moment < LATEST:
        return call
    try:
        made = made_at(call.id)
    except ValueError:  # another's id
        made = EARLIEST
    return call._replace(created_at=made, notes=(*call.notes, "invalid_created_at"))


def _resolved(observed: ObservedCall, fault: Callable[[BaseException], None]) -> CallRecord:
    try:
        return record_of(observed)
    except Exception as error:  # noqa: BLE001 - as above
        fault(error)
        return least_record_of(observed)
