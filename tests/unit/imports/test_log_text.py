"""A log is the same lines at the same places, however it lies there and in however large pieces it is read."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.unit.imports.test_access_log import read
from vital_tracking.errors import VitalError
from vital_tracking.imports import log_text
from vital_tracking.imports.identity import Beginning, line_ids
from vital_tracking.imports.log_text import HEAD, LogText, TooLong

Line = tuple[int, bytes | int]


def lines_of(path: Path, place: int = 0, *, rest: bool = True) -> list[Line]:
    """Every line with its place; of one that is too long its length."""
    log = LogText(str(path))
    log.go_to(place)
    found: list[Line] = []
    while (block := log.next() or (log.rest() if rest else None)) is not None:
        at = block.place
        for line in block.lines:
            length = line.length if isinstance(line, TooLong) else len(line)
            found.append((at, length if isinstance(line, TooLong) else line))
            at += length + 1
        assert at - (not block.ended) == block.end
    log.close()
    return found


def meant(text: bytes) -> list[Line]:
    found: list[Line] = []
    place = 0
    for line in text.split(b"\n"):
        found.append((place, line))
        place += len(line) + 1
    return found[:-1] if text.endswith(b"\n") or not text else found


@settings(max_examples=examples(60))
@given(
    lines=st.lists(
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ").replace(b"\x1f", b"")), max_size=30
    ),
    end=st.booleans(),
    size=st.integers(1, 100),
    data=st.data(),
)
def test_lines_are_the_same_plain_and_compressed_and_from_any_place(
    lines: list[bytes], end: bool, size: int, data: st.DataObject
) -> None:
    text = b"\n".join(lines) + (b"\n" if end and lines else b"")
    with tempfile.TemporaryDirectory() as folder, patch.object(log_text, "BLOCK", size):
        plain, packed = Path(folder, "a.log"), Path(folder, "a.log.2.gz")
        plain.write_bytes(text)
        half = len(text) // 2
        packed.write_bytes(
            gzip.compress(text[:half]) + gzip.compress(text[half:])
        )  # members, as logrotate appends them
        wanted = meant(text)
        place = data.draw(st.sampled_from([0, *(place for place, _ in wanted), len(text)]))
        for path in (plain, packed):
            assert lines_of(path, place) == [one for one in wanted if one[0] >= place]


@pytest.mark.parametrize("length", [2 * log_text.LONGEST_LINE, 3 * log_text.BLOCK])
def test_a_line_without_bounds_takes_no_memory_and_the_next_one_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a\n" + b"x" * length + b"\nb\n")
    with patch.object(log_text, "BLOCK", 1 << 15):
        found = lines_of(path)
    assert found == [(0, b"a"), (2, length), (3 + length, b"b")]


def test_what_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    whole = gzip.compress(b"".join(b"line %d\n" % number for number in range(10_000)), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    log = LogText(str(path))
    seen = 0
    while (block := log.next()) is not None:
        seen += len(block.lines)
    log.close()
    assert seen > 3000
    assert log.fault == "a.log.gz is not a whole gzip file (EOFError)"


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(VitalError, match="cannot be read: No such file"):
        LogText(str(tmp_path / "none.log"))


def beginning(text: bytes, *, server: str | None = None, complete: bool = False) -> Beginning:
    return Beginning(text[:HEAD], database_id="d", server=server, complete=complete)


@given(
    st.lists(st.binary(min_size=1, max_size=400).map(lambda line: line.replace(b"\n", b" ")), min_size=1, max_size=30),
    st.data(),
)
def test_a_log_that_has_grown_begins_as_it_did(lines: list[bytes], data: st.DataObject) -> None:
    """If this failed, a log would be another one after its next line, and all of it be recorded again."""
    text = b"".join(line + b"\n" for line in lines)
    ends = [*[place for place, _ in meant(text)][1:], len(text)]
    early, late = sorted(data.draw(st.tuples(st.sampled_from(ends), st.sampled_from(ends))))
    known = beginning(text[:early]).hash_at(early)
    assert known in beginning(text[:late]).hashes()
    assert known not in beginning(text[:late], server="another").hashes()


def test_what_is_hashed_holds_no_address() -> None:
    """If this failed, one could try out all addresses on the hash of a log of one line."""
    line = b'%s - - [30/Nov/2026:13:37:05 +0000] "GET / HTTP/1.1" 200 1\n'
    several = [b"192.0.2.7", b"203.0.113.255", b"2001:db8::1", b"::1", b"2001:db8:1:2:3:4:5:6"]
    assert len({beginning(line % address).hash_at(100) for address in several}) == 1
    assert beginning(line % b"192.0.2.7").hash_at(99) != beginning(
        (line % b"192.0.2.7").replace(b"13:37", b"13:38")
    ).hash_at(99)


def test_ids_follow_time_and_differ_by_log_place_and_kind() -> None:
    moments = [read(b'{"timestamp": %d}' % second).time for second in (1_700_000_000, 1_700_000_001)]
    ids = [
        line_ids(key, of=of)(moment, place)
        for moment in moments
        for key in ("a" * 16, "b" * 16)
        for of in ("", "search")
        for place in (0, 7)
    ]
    assert len(set(ids)) == len(ids) == 16
    assert max(ids[:8]) < min(ids[8:])
    assert {(one[12], one[16]) for one in ids} <= {("8", letter) for letter in "89ab"}
