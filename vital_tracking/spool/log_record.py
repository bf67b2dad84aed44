"""The format of log records in a file: damage costs the record in which it lies and no other.

A record is two bytes 0xFF 0x56, the length of its body and the CRC-32 of its body (both 32 bits, little endian), then the body:
one byte that says what it is, the 16 bytes of its id, and JSON in UTF-8. The byte 0xFF never occurs in UTF-8, so behind damage
the next record is found by its first two bytes, and confirmed by its CRC.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

MAGIC: Final = b"\xffV"
_HEAD: Final = struct.Struct("<2sII")
HEAD_BYTES: Final = _HEAD.size
_BODY_START: Final = 17
MAX_BODY: Final = 1 << 20
"""Bytes of the longest body; no writer makes longer ones, so a length above it is damage."""

_START: Final = struct.Struct("<2sIIB16s")
_START_BYTES: Final = _START.size
_pack_start = _START.pack
_KIND_CHECKSUMS: Final = tuple(crc32(bytes([kind])) for kind in range(256))


class RecordKind(IntEnum):
    """What a log record says.

    OPENED and CALL: a call of LangChain's has begun, and has ended. BEGUN and RECORD: the same of any other call. TOMBSTONE: a
    call that has begun here has no end here, because it was not made after all, or its end went another way. RUN_BEGUN and RUN: a
    service run has begun, and has ended; earlier versions have written RUN for both. CLOCK: what corrects the times of calls
    whose own records do not say it; earlier versions have written it. EVENT, COST and EXECUTION: what is not a call to a model.
    """

    OPENED = 1
    CALL = 2
    BEGUN = 3
    RECORD = 4
    RUN = 5
    TOMBSTONE = 6
    CLOCK = 7
    RUN_BEGUN = 8
    EVENT = 9
    COST = 10
    EXECUTION = 11


# Members of an enumeration take long to find: for what is done with every call these are its plain numbers.
OPENED: Final = int(RecordKind.OPENED)
CALL: Final = int(RecordKind.CALL)
RUN_BEGUN: Final = int(RecordKind.RUN_BEGUN)

TOMBSTONE: Final = int(RecordKind.TOMBSTONE)


def _numbers(*kinds: RecordKind) -> frozenset[int]:
    return frozenset(map(int, kinds))


BEGINNINGS: Final = _numbers(RecordKind.OPENED, RecordKind.BEGUN, RecordKind.RUN_BEGUN)
ENDS: Final = _numbers(RecordKind.CALL, RecordKind.RECORD)
RUNS: Final = _numbers(RecordKind.RUN, RecordKind.RUN_BEGUN)
PLATFORM: Final = _numbers(RecordKind.EVENT, RecordKind.COST, RecordKind.EXECUTION)
ROWS: Final = ENDS | RUNS | PLATFORM


class LogRecord(NamedTuple):
    """One log record: what it is, its id's bytes, its JSON.

    Where it never left this process's memory, `item` is the call itself, in place of the JSON. Where a dead process has left
    it, `orphan` is that process's OrphanedSegments, and `former_skew_s` what corrects a time that an earlier version has left to
    be corrected, in seconds.
    """

    kind: int
    id: bytes
    payload: bytes
    item: Any = None
    orphan: Any = None
    former_skew_s: float = 0.0


def encoded_record(kind: int, id: bytes, payload: bytes) -> bytes:  # noqa: A002 - the word of the format
    """The bytes of one record in a file."""
    checksum = crc32(payload, crc32(id, _KIND_CHECKSUMS[kind]))  # in turn: joining them would copy the payload twice
    return _pack_start(MAGIC, _BODY_START + len(payload), checksum, kind, id) + payload


def clock_skew(payload: bytes) -> float | None:
    """How far, in seconds, a record of the kind CLOCK says that the clock was off; None where that cannot be read."""
    try:
        return float(orjson.loads(payload)["skew"])
    except (ValueError, KeyError, TypeError):
        return None


def read_records(data: bytes, start: int = 0, *, ended: bool = True) -> Iterator[tuple[LogRecord | None, int]]:
    """The records in `data` from `start` on, each with the position behind it; None for each stretch that cannot be read.

    Where the file is still written to (`ended` false), a last record that is not complete is left for later, unless a whole one
    stands behind its beginning: then it never will be.
    """
    position, size = start, len(data)
    while position < size:
        found = _record_at(data, position)
        if found is not None:
            yield found
            position = found[1]
            continue
        behind = _next_record(data, position + 1)
        if behind is None:
            if ended or not _incomplete(data, position):
                # Of a file that is written to, only what cannot be the beginning of a record is given up.
                end = size if ended else _last_beginning(data, position)
                if end > position:
                    yield None, end
            return
        yield None, behind
        position = behind


def _record_at(data: bytes, position: int) -> tuple[LogRecord, int] | None:
    payload_start = position + _START_BYTES
    if payload_start > len(data):
        return None
    magic, length, checksum, kind, id = _START.unpack_from(data, position)  # noqa: A001 - the format's word
    end = position + HEAD_BYTES + length
    if magic != MAGIC or not _BODY_START <= length <= MAX_BODY or end > len(data):
        return None
    payload = data[payload_start:end]
    if crc32(payload, crc32(id, _KIND_CHECKSUMS[kind])) != checksum:
        return None
    # As in `tuple.__new__` elsewhere: a call of the class goes through Python, which takes twice as long.
    return tuple.__new__(LogRecord, (kind, id, payload, None, None, 0.0)), end


def _next_record(data: bytes, position: int) -> int | None:
    """Where the next whole record begins."""
    while (position := data.find(MAGIC, position)) >= 0:
        if _record_at(data, position) is not None:
            return position
        position += 1
    return None


def _incomplete(data: bytes, position: int) -> bool:
    """Whether here may stand the beginning of a record whose rest is still to come."""
    rest = data[position : position + HEAD_BYTES]
    if len(rest) < HEAD_BYTES:
        return MAGIC.startswith(rest[:2])
    magic, length, _ = _HEAD.unpack(rest)
    return bool(magic == MAGIC and length <= MAX_BODY and position + HEAD_BYTES + length > len(data))


def _last_beginning(data: bytes, position: int) -> int:
    """The first place behind `position` where the beginning of a record may stand; the end where there is none."""
    while (position := data.find(MAGIC[:1], position + 1)) >= 0:
        if _incomplete(data, position):
            return position
    return len(data)
