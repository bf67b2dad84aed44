"""Calls and service runs as records of the spool's log, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TypeAlias
from uuid import UUID

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record, pack_run, unpack_record
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.observed import ObservedCall
from vital_tracking.calls.resolve import least_record_of, record_of
from vital_tracking.calls.wire import pack_call, unpack_call
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.spool.log_record import MAX_BODY, LogRecord, RecordKind

EndedCall: TypeAlias = CallRecord | LiveCall
"""A call that has ended: as it will be stored, or with the facts that its record is made of."""

Recordable: TypeAlias = EndedCall | RunRecord


def key_of(call: EndedCall) -> bytes:
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
    if isinstance(item, LiveCall):  # the common case, in the caller's thread
        kind, key = RecordKind.CALL, item.id.bytes
        payload, short = _packed(pack_call, item, short)
    elif isinstance(item, CallRecord):
        kind, key = RecordKind.RECORD, id_bytes(item.id)
        payload, short = _packed(pack_record, by_clock(item, skew_s), short)
    else:
        return LogRecord(RecordKind.RUN, os.urandom(16), pack_run(item)), False
    if len(payload) >= MAX_BODY:
        raise ValueError("The record is too long.")
    return LogRecord(kind, key, payload), short


def _packed(pack: Callable[..., bytes], call: EndedCall, short: bool) -> tuple[bytes, bool]:
    """A call as bytes, and whether it was shortened."""
    payload = pack(call, short=short)
    if len(payload) > LONGEST and not short:
        return pack(call, short=True), True
    return payload, short


def decoded(record: LogRecord, skew_s: float, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of the call that a log record holds.

    `skew_s` is added to a time that was read from an uncorrected clock, in seconds; `fault` is told why a record could not be
    made in full. Raises whatever decoding raises, such as ValueError for a kind that holds no call or is not known.
    """
    if record.item is not None:  # it has never left this process's memory
        return recorded(record.item, skew_s, fault)
    if record.kind in (RecordKind.CALL, RecordKind.OPENED):
        return _resolved(unpack_call(record.id, record.payload, skew_s), fault)
    if record.kind in (RecordKind.RECORD, RecordKind.BEGUN):
        call = unpack_record(record.payload, skew_s)
        with contextlib.suppress(ValueError):
            call.id = str(UUID(bytes=record.id))
        return call
    raise ValueError(f"A log record of kind {record.kind} holds no call.")


def recorded(call: EndedCall, skew_s: float, fault: Callable[[BaseException], None]) -> CallRecord:
    """The record of a call that is in memory; `skew_s` and `fault` as for `decoded`."""
    if isinstance(call, CallRecord):
        return call
    try:
        observed = call.observed(skew_s)
    except Exception as error:  # noqa: BLE001 - one bad call must not be lost, nor take its neighbours with it
        fault(error)
        return least_record_of(call.least_observed(skew_s))
    return _resolved(observed, fault)


def _resolved(observed: ObservedCall, fault: Callable[[BaseException], None]) -> CallRecord:
    try:
        return record_of(observed)
    except Exception as error:  # noqa: BLE001 - as above
        fault(error)
        return least_record_of(observed)
