"""Frames in a file: whatever happens to the file, only the frame it happened to is lost."""

from __future__ import annotations

import os
import struct
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from vital_tracking.spool.log_record import (
    HEAD_BYTES,
    MAGIC,
    MAX_BODY,
    LogRecord,
    RecordKind,
    encoded_record,
    read_records,
)

TRIES = settings(max_examples=60, deadline=None, derandomize=True)

# Every byte of an id is possible, also those that a frame begins with; a payload is UTF-8.
IDS = st.binary(min_size=16, max_size=16) | st.just(MAGIC * 8)
PAYLOADS = st.text(max_size=80).map(str.encode)
ONE = st.tuples(st.sampled_from([int(kind) for kind in RecordKind]), IDS, PAYLOADS).map(
    lambda fields: LogRecord(*fields)
)
FRAMES = st.lists(ONE, max_size=6)
SOME = st.lists(ONE, min_size=1, max_size=6)
GARBAGE = st.binary(min_size=1, max_size=60) | st.sampled_from(
    [b"\xff", MAGIC, MAGIC * 3, MAGIC + struct.pack("<II", 40, 7), MAGIC + struct.pack("<II", MAX_BODY, 0), bytes(50)]
)


def encoded(frames: list[LogRecord]) -> list[bytes]:
    return [encoded_record(frame.kind, frame.id, frame.payload) for frame in frames]


def whole(data: bytes, *, ended: bool = True) -> list[LogRecord]:
    return [frame for frame, _ in read_records(data, ended=ended) if frame is not None]


def damaged(data: bytes, *, ended: bool = True) -> int:
    return sum(frame is None for frame, _ in read_records(data, ended=ended))


@TRIES
@given(FRAMES)
def test_frames_are_read_as_they_were_written(frames: list[LogRecord]) -> None:
    """If this failed, what a process has recorded would be something else when it is read."""
    parts = encoded(frames)
    data = b"".join(parts)
    for ended in (True, False):
        found = list(read_records(data, ended=ended))
        assert [frame for frame, _ in found] == frames
        assert [end for _, end in found] == [sum(map(len, parts[: index + 1])) for index in range(len(parts))]


@TRIES
@given(SOME, st.data())
def test_a_flipped_bit_costs_its_own_frame(frames: list[LogRecord], data: st.DataObject) -> None:
    """If this failed, one bad cell of a disk would take calls with it that it does not hold."""
    parts = encoded(frames)
    whole_file = b"".join(parts)
    bit = data.draw(st.integers(0, len(whole_file) * 8 - 1))
    flipped = bytearray(whole_file)
    flipped[bit // 8] ^= 1 << bit % 8
    hit = next(index for index in range(len(parts)) if bit // 8 < sum(map(len, parts[: index + 1])))
    rest = [*frames[:hit], *frames[hit + 1 :]]
    assert whole(bytes(flipped)) == rest
    assert damaged(bytes(flipped)) == 1
    assert whole(bytes(flipped), ended=False) == rest


@TRIES
@given(SOME, st.data())
def test_a_cut_tail_costs_what_was_cut_off(frames: list[LogRecord], data: st.DataObject) -> None:
    """If this failed, a power cut would lose what was on the disk."""
    parts = encoded(frames)
    whole_file = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole_file)))
    kept = [frame for index, frame in enumerate(frames) if sum(map(len, parts[: index + 1])) <= cut]
    left = cut - sum(map(len, parts[: len(kept)]))
    assert whole(whole_file[:cut]) == kept
    assert damaged(whole_file[:cut]) == (left > 0)
    # Of a file that is written to, the rest may still come.
    assert list(read_records(whole_file[:cut], ended=False)) == list(read_records(b"".join(parts[: len(kept)])))


@TRIES
@given(FRAMES, FRAMES, GARBAGE)
def test_garbage_between_frames_costs_none_of_them(
    before: list[LogRecord], after: list[LogRecord], garbage: bytes
) -> None:
    """If this failed, a torn write would swallow the calls behind it."""
    data = b"".join([*encoded(before), garbage, *encoded(after)])
    assert whole(data) == [*before, *after]
    assert damaged(data) == 1
    if after:
        assert whole(data, ended=False) == [*before, *after]


@TRIES
@given(SOME, SOME, st.data())
def test_a_torn_frame_costs_no_whole_one_behind_it(
    before: list[LogRecord], after: list[LogRecord], data: st.DataObject
) -> None:
    """If this failed, a full disk would cost the calls that came when there was room again."""
    *parts, last = encoded(before)
    torn = last[: data.draw(st.integers(1, len(last) - 1))]
    behind = b"".join(encoded(after))
    assert whole(b"".join(parts) + torn + behind) == [*before[:-1], *after]
    assert whole(b"".join(parts) + torn + behind, ended=False) == [*before[:-1], *after]


@TRIES
@given(FRAMES, st.booleans(), GARBAGE, SOME, st.data())
def test_a_growing_file_gives_each_frame_once(
    before: list[LogRecord], broken: bool, garbage: bytes, after: list[LogRecord], data: st.DataObject
) -> None:
    """If this failed, calls would be lost or sent twice, depending on when the batch processor looks."""
    file = b"".join([*encoded(before), *([garbage] if broken else []), *encoded(after)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(file)), max_size=12)))
    position, found = 0, []
    for cut in [*cuts, len(file)]:
        start = position
        for frame, end in read_records(file[start:cut], ended=False):
            assert end > position - start
            position = start + end
            if frame is not None:
                found.append(frame)
    assert found == [*before, *after]
    assert position == len(file)


@TRIES
@given(SOME)
def test_every_growth_by_a_byte_gives_each_frame_once(frames: list[LogRecord]) -> None:
    """If this failed, a frame would be given up whose last bytes are being written."""
    file = b"".join(encoded(frames[:3]))
    position, found = 0, []
    for size in range(len(file) + 1):
        for frame, end in list(read_records(file[:size], position, ended=False)):
            found.append(frame)
            position = end
    assert found == frames[:3]


def test_a_frame_of_the_longest_body_is_read_and_a_longer_one_is_damage() -> None:
    """If this failed, a length of four gigabytes would stop the reader for ever."""
    longest = LogRecord(RecordKind.CALL, bytes(16), b"x" * (MAX_BODY - 17))
    assert whole(encoded_record(*longest[:3])) == [longest]
    too_long = encoded_record(RecordKind.CALL, bytes(16), b"x" * (MAX_BODY - 16))
    small = LogRecord(RecordKind.RUN, bytes(16), b"{}")
    for ended in (True, False):
        assert whole(too_long + encoded_record(*small[:3]), ended=ended) == [small]
    assert list(read_records(MAGIC + struct.pack("<II", 0xFFFFFFFF, 0) + b"y" * 100, ended=False)) == [(None, 110)]


def test_a_length_too_small_for_a_frame_is_damage() -> None:
    """If this failed, a body without an id would be read past its end."""
    short = MAGIC + struct.pack("<II", 3, crc32(b"abc")) + b"abc"
    frame = LogRecord(RecordKind.CALL, os.urandom(16), b"{}")
    assert whole(short) == []
    assert whole(short + encoded_record(*frame[:3])) == [frame]
    assert len(short) == HEAD_BYTES + 3


def test_a_wrong_length_does_not_hold_up_what_is_behind_it() -> None:
    """If this failed, one flipped bit would hold up a process's calls until a megabyte of others had come."""
    frames = [LogRecord(RecordKind.CALL, os.urandom(16), b"{}") for _ in range(3)]
    first, second, third = map(bytearray, encoded(frames))
    second[4] |= 0x08  # half a megabyte
    assert whole(bytes(first + second), ended=False) == frames[:1]
    assert whole(bytes(first + second + third), ended=False) == [frames[0], frames[2]]


GOLDEN = {
    RecordKind.OPENED: "ff5618000000deee2d6c01000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.CALL: "ff5618000000f647333402000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.BEGUN: "ff5618000000d12216b503000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.RECORD: "ff5618000000a6150e8404000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.RUN: "ff561800000081702b0505000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.TOMBSTONE: "ff5618000000a9d9355d06000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.CLOCK: "ff56180000008ebc10dc07000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.RUN_BEGUN: "ff561800000047b7053f08000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.EVENT: "ff561800000060d220be09000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.COST: "ff5618000000487b3ee60a000102030405060708090a0b0c0d0e0f7b226b223a317d",
    RecordKind.EXECUTION: "ff56180000006f1e1b670b000102030405060708090a0b0c0d0e0f7b226b223a317d",
}


def test_the_bytes_of_a_log_record_are_what_they_were() -> None:
    """If this failed, what lies in a spool while a process gets a new version would be lost, or taken for something else."""
    assert GOLDEN.keys() == set(RecordKind)
    for kind, written in GOLDEN.items():
        assert encoded_record(kind, bytes(range(16)), b'{"k":1}').hex() == written
        [(record, end)] = read_records(bytes.fromhex(written))
        assert (record, end) == (LogRecord(kind, bytes(range(16)), b'{"k":1}'), len(written) // 2)
