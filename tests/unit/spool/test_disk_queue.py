"""The spool of one process: what is appended is read, what is settled goes, and nothing that is done to it loses a frame."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import REPOSITORY
from tests.support.waiting import until
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.spool.orphans import claim
from vital_tracking.spool.owner import OwnerFolder, is_alive, owners_in
from vital_tracking.spool.segment import Segment, segments_of

SEGMENT = 4096  # the smallest there is
Make = Callable[..., Spool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes spools of tiny segments, that nobody syncs; they are closed at the end."""
    made: list[Spool] = []

    def make(folder: Path = tmp_path / "spool", **options: Any) -> Spool:
        made.append(Spool(folder, **{"segment_bytes": SEGMENT, "sync_s": 0, **options}))
        return made[-1]

    yield make
    for spool in made:
        spool.close()


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def put(spool: Spool, *numbers: int, size: int = 500) -> None:
    for number in numbers:
        assert spool.append(RecordKind.CALL, key(number), b"x" * size), number


def taken(spool: Spool, limit: int = 1000) -> list[int]:
    return [int.from_bytes(frame.id, "big") for frame in spool.read(limit)]


def drained(spool: Spool, limit: int = 7) -> list[int]:
    """Everything there is, taken and settled in small bites."""
    found: list[int] = []
    while numbers := taken(spool, limit):
        found += numbers
        spool.ack()
    return found


def on_disk(spool: Spool) -> list[int]:
    """The segments there are."""
    assert spool.path is not None
    return [number for number, _ in segments_of(spool.path)]


def again(spool: Spool) -> None:
    """Let the second pass that a spool waits after a failure."""
    spool.writer._try_again_at = 0.0


# Taking, settling, rewinding


def test_frames_are_taken_in_order_over_many_segments(make: Make) -> None:
    """If this failed, calls would be lost or sent twice where one file ends and the next begins."""
    spool = make()
    put(spool, *range(100))
    assert len(on_disk(spool)) > 10
    assert len(spool.waiting) == 100
    assert drained(spool) == list(range(100))
    assert len(spool.waiting) == 0
    assert len(on_disk(spool)) == 1  # the one that is written to
    put(spool, 100)
    assert drained(spool) == [100]


def test_calls_in_hand_in_an_outage_are_taken_again(make: Make) -> None:
    """If this failed, calls in hand when the database goes away would be lost, or hold up their files for ever."""
    spool = make()
    spool.append(RecordKind.OPENED, key(0), b"{}")
    put(spool, *range(50))
    for _ in range(3):
        assert taken(spool, 20) == list(range(20))
        spool.rewind()
        assert len(spool.waiting) == 50
    assert taken(spool, 20) == list(range(20))
    spool.ack()
    assert taken(spool, 20) == list(range(20, 40))
    spool.rewind()
    assert drained(spool) == list(range(20, 50))
    assert len(on_disk(spool)) == 1


def test_a_flush_can_tell_whether_all_before_it_is_settled(make: Make) -> None:
    """If this failed, a flush would return too early, or never."""
    spool = make()
    assert spool.acked >= spool.end()
    put(spool, *range(30))
    end = spool.end()
    assert spool.acked < end
    taken(spool, 29)
    spool.ack()
    assert spool.acked < end
    put(spool, 30)
    drained(spool)
    assert spool.acked >= end
    assert spool.acked >= spool.end()


def test_a_segment_stays_while_a_call_that_began_in_it_has_no_end(make: Make) -> None:
    """If this failed, a call in flight when its process is killed would not be recorded at all."""
    spool = make()
    spool.append(RecordKind.OPENED, key(1000), b"{}")
    spool.append(RecordKind.BEGUN, key(1001), b"{}")
    put(spool, *range(40))
    drained(spool)
    first, *rest = on_disk(spool)
    assert (first, len(rest)) == (1, 1)
    put(spool, 1000)
    drained(spool)
    assert on_disk(spool)[0] == 1
    assert spool.append(RecordKind.TOMBSTONE, key(1001), b"", critical=True)
    put(spool, *range(40, 50))
    drained(spool)
    assert len(on_disk(spool)) == 1
    assert on_disk(spool)[0] > 1


def test_beginnings_that_are_read_twice_hold_up_nothing_longer(make: Make) -> None:
    """If this failed, each outage would leave files behind that are never removed while the process lives."""
    spool = make()
    spool.append(RecordKind.OPENED, key(1), b"{}")
    put(spool, *range(100, 105))
    for _ in range(3):
        taken(spool)
        spool.rewind()
    put(spool, 1, *range(105, 125))
    assert drained(spool) == [*range(100, 105), 1, *range(105, 125)]
    assert len(on_disk(spool)) == 1
    assert spool.close()


def test_a_call_that_was_not_made_and_is_in_no_file_leaves_no_trace(make: Make) -> None:
    """If this failed, a spool at its limit would grow by every call that is merged."""
    spool = make()
    put(spool, 1)
    size = spool.end()
    for number in range(1000):
        assert spool.append(RecordKind.TOMBSTONE, key(number), b"", critical=True)
    assert spool.end() == size


def leave(spool: Spool) -> None:
    """As if the process had died: the lock is free, nothing else was done."""
    assert spool.writer.owner is not None
    spool.writer.owner.let_go()


# Many threads


def test_eight_threads_and_a_reader_lose_nothing(make: Make) -> None:
    """If this failed, calls of busy processes would be lost at the moment when one file is full."""
    spool = make(limit_bytes=64 << 20)
    names = itertools.count()
    begin = threading.Barrier(9)
    found: list[int] = []
    appended: list[int] = []
    done = threading.Event()

    def append() -> None:
        mine = []
        begin.wait(30)
        for _ in range(1500):
            number = next(names)
            until(lambda number=number: spool.append(RecordKind.CALL, key(number), b"y" * 300))  # type: ignore[misc]
            mine.append(number)
        appended.extend(mine)

    def read() -> None:
        begin.wait(30)
        while True:
            last = done.is_set()
            numbers = taken(spool, 50)
            if numbers and numbers[0] % 3 == 0:  # the database was away
                spool.rewind()
                more = taken(spool, 50)
                assert more[: len(numbers)] == numbers
                numbers = more
            found.extend(numbers)
            spool.ack()
            if last and not numbers:
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writers = [threading.Thread(target=append) for _ in range(8)]
        reader = threading.Thread(target=read)
        for thread in (*writers, reader):
            thread.start()
        for thread in writers:
            thread.join(60)
        done.set()
        reader.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(appended) == 12_000
    assert sorted(found) == sorted(appended)
    assert len(spool.waiting) == 0
    assert spool.damaged == 0
    assert spool.close()


class Paused(Segment):
    """A segment whose next append stops before or behind the write, until it is told to go on."""

    before: threading.Event | None = None
    behind: threading.Event | None = None
    stopped = threading.Event()

    def append(self, frame: bytes) -> None:
        before, behind = self.before, self.behind
        self.before = self.behind = None
        if before is not None:
            self.stopped.set()
            assert before.wait(30)
        super().append(frame)
        if behind is not None:
            self.stopped.set()
            assert behind.wait(30)


@pytest.fixture
def paused(make: Make, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """A spool whose segments can be paused, with one in it."""
    Paused.stopped = threading.Event()
    monkeypatch.setattr("vital_tracking.spool.disk_writer.Segment", Paused)
    spool = make()
    put(spool, 0)
    assert drained(spool) == [0]
    return spool


def stalled(spool: Spool, number: int, where: str) -> tuple[threading.Thread, threading.Event, list[bool]]:
    """A thread that is in the middle of an append."""
    go, told = threading.Event(), []
    setattr(spool.writer.current, where, go)
    thread = threading.Thread(target=lambda: told.append(spool.append(RecordKind.CALL, key(number), b"{}")))
    thread.start()
    assert Paused.stopped.wait(30)
    return thread, go, told


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_thread_that_is_late_by_a_segment_loses_nothing(paused: Spool, where: str) -> None:
    """If this failed, a call would be lost where its thread is stopped at the wrong instruction."""
    thread, go, told = stalled(paused, 1, where)
    put(paused, *range(100, 120))
    found = drained(paused)  # the first segment is read to its end, and removed
    go.set()
    thread.join(30)
    assert told == [True]
    found += drained(paused)
    assert sorted(found) == [1, *range(100, 120)]
    assert len(paused.waiting) == 0


@pytest.mark.parametrize("read_on", [True, False])
def test_a_write_that_worked_while_another_failed_is_told_the_truth(paused: Spool, read_on: bool) -> None:
    """If this failed, the money of a call would be counted with the sums although its row is delivered too."""
    thread, go, told = stalled(paused, 1, "behind")
    with paused.writer.lock:
        paused.writer.fail(OSError(errno.EIO, "broken"), paused.writer.current)
    found = drained(paused) if read_on else []
    go.set()
    thread.join(30)
    again(paused)
    put(paused, 2)
    found += drained(paused)
    # Where it was read already, or will be, it must not be kept in another way as well.
    assert (found, told) == ([1, 2], [True])


def test_a_service_run_that_goes_on_for_long_keeps_no_segment(make: Make) -> None:
    """If this failed, a few conversations that are open for hours would fill the spool with what was delivered long ago."""
    spool = make()
    for number in (1, 2, 3):
        assert spool.append(RecordKind.RUN_BEGUN, key(number), b'{"run":%d}' % number)
    found = drained(spool)
    put(spool, 50)
    assert spool.append(RecordKind.OPENED, key(4), b"{}")
    for number in range(100, 300):
        put(spool, number)
        if number == 200:
            assert spool.append(RecordKind.RUN, key(2), b"{}")
            assert spool.append(RecordKind.CALL, key(4), b"{}")
        found += drained(spool)
    assert set(found) == {1, 2, 3, 4, 50, *range(100, 300)}
    assert len(spool.writer.segments) <= 2
    assert len(spool.waiting) == 0
    leave(spool)
    [orphan] = claim(owners_in(spool.folder))
    assert sorted((record.kind, record.payload) for record in orphan._first) == [(8, b'{"run":1}'), (8, b'{"run":3}')]
    assert orphan.abandoned == 0
    orphan.let_go()


def test_room_is_kept_on_the_disk_for_what_must_be_written_when_it_is_full(make: Make) -> None:
    """If this failed, the sums of merged calls would go with their process, where the disk is full."""
    spool = make(limit_bytes=64 << 16)
    put(spool, 1)
    assert spool.path is not None
    reserve = spool.path / "reserve"
    assert reserve.stat().st_size == 64 << 10
    assert reserve.stat().st_mode & 0o777 == 0o600
    writer = spool.writer
    assert writer.current is not None
    full = OSError(errno.ENOSPC, "no room")

    def until_there_is_room(record: bytes) -> None:
        if reserve.exists():
            raise full
        Segment.append(segment, record)

    segment = writer.current
    segment.append = until_there_is_room  # type: ignore[method-assign]
    assert not spool.append(RecordKind.RECORD, key(2), b"{}")
    assert reserve.exists()
    assert spool.append(RecordKind.RECORD, key(3), b"{}", critical=True)
    assert not reserve.exists()
    assert drained(spool) == [1, 3]


# In the middle of itself


def test_an_append_inside_an_append_is_not_lost(make: Make) -> None:
    """If this failed, a stream that is collected at the wrong moment would cost calls, or stop the program."""
    spool = make(sync_s=0.01)
    numbers = itertools.count()
    asked: list[int] = []
    refused: list[int] = []

    def append() -> None:
        number = next(numbers)
        asked.append(number)
        if not spool.append(RecordKind.CALL, key(number), b"z" * 400):
            refused.append(number)

    class Stream:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            append()

    thresholds = gc.get_threshold()
    found = []
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(150):
            Stream()
            append()
            if len(asked) % 50 == 0:
                found += drained(spool)
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    found += drained(spool)
    assert sorted(asked) == sorted([*found, *refused]) == list(range(300))
    assert len(refused) <= 20  # only what came in the middle of opening a segment
    assert spool.healthy
    assert spool.damaged == 0


# What others do to its files


def close_files(spool: Spool, *, lock: bool = False) -> None:
    """As a program does that turns itself into a daemon."""
    for segment in spool.writer.segments.values():
        os.close(segment.fd)
    if lock:
        assert spool.writer.owner is not None
        os.close(spool.writer.owner._lock)


def test_a_file_closed_behind_its_back_costs_nothing(make: Make) -> None:
    """If this failed, a program that closes all its files would lose what it had recorded, or never spool again."""
    spool = make()
    put(spool, *range(20))
    close_files(spool)
    assert spool.end()
    assert not spool.append(RecordKind.CALL, key(20), b"{}")
    assert not spool.healthy
    again(spool)
    put(spool, *range(21, 40))
    assert spool.healthy
    assert drained(spool) == [*range(20), *range(21, 40)]
    assert spool.close()
    assert owners_in(spool.folder) == []


def test_files_of_others_that_took_its_numbers_are_left_alone(make: Make, tmp_path: Path) -> None:
    """If this failed, a daemon would find its own files closed, or their text among its calls."""
    spool = make()
    put(spool, *range(20))
    numbers = sorted(segment.fd for segment in spool.writer.segments.values())
    assert spool.writer.owner is not None
    numbers.append(spool.writer.owner._lock)
    close_files(spool, lock=True)
    others = []
    while not set(numbers) <= {other.fileno() for other in others}:
        other = (tmp_path / f"other {len(others)}").open("w+b", buffering=0)
        other.write(b"somebody's text")
        others.append(other)
    try:
        spool.sync()  # notices, before anything is appended
        put(spool, *range(20, 40))
        assert drained(spool) == list(range(40))
        assert spool.close()
        for other in others:
            os.fstat(other.fileno())
            other.seek(0)
            assert other.read() == b"somebody's text"
    finally:
        for other in others:
            other.close()


def test_a_lock_closed_behind_its_back_is_taken_again(make: Make) -> None:
    """If this failed, another process would deliver the calls in flight of a living one as abandoned."""
    spool = make()
    put(spool, *range(5))
    folder = spool.path
    assert folder is not None
    close_files(spool, lock=True)
    assert not is_alive(folder)
    assert not spool.append(RecordKind.CALL, key(5), b"{}")
    again(spool)
    put(spool, 6)
    assert spool.path == folder
    assert is_alive(folder)
    assert list(claim(owners_in(spool.folder))) == []
    assert drained(spool) == [*range(5), 6]


@pytest.mark.parametrize("synced", [True, False])
def test_a_folder_deleted_under_it_is_made_anew(make: Make, synced: bool) -> None:
    """If this failed, whoever empties a temporary folder would end the safety of a process's calls, unnoticed."""
    spool = make()
    put(spool, *range(20))
    first = spool.path
    shutil.rmtree(spool.folder)
    if synced:
        spool.sync()
    else:
        put(spool, *range(20, 30))  # to the end of the segment that is gone
        again(spool)
    put(spool, 30)
    assert spool.path != first
    assert spool.path is not None
    assert segments_of(spool.path)
    assert is_alive(spool.path)
    found = drained(spool)
    assert found == [*range(20), *([] if synced else range(20, 30)), 30]
    assert spool.close()
    assert owners_in(spool.folder) == []


def test_files_gone_and_closed_hold_up_nothing(make: Make) -> None:
    """If this failed, delivery would stumble over a lost file for ever, and deliver nothing more."""
    spool = make()
    put(spool, *range(20))
    shutil.rmtree(spool.folder)
    close_files(spool, lock=True)
    assert drained(spool) == []  # they are lost
    again(spool)
    put(spool, *range(30, 60))
    assert drained(spool) == list(range(30, 60))
    assert spool.acked >= spool.end()


def test_a_batch_takes_no_more_memory_than_it_may(make: Make) -> None:
    """If this failed, one batch of long records would take as much memory as a thousand of them have."""
    spool = make()
    sizes = [100, 30_000, 700_000, 10, *[200_000] * 20, 900_000, 5]
    for number, size in enumerate(sizes):
        assert spool.append(RecordKind.CALL, key(number), b"x" * size)
    batches = []
    while records := spool.read(1000):
        batches.append([len(record.payload) for record in records])
        spool.ack()
    assert [size for batch in batches for size in batch] == sizes
    assert max(map(sum, batches)) < 2_500_000


def test_a_file_that_cannot_be_read_now_is_read_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, a process with too many open files would delete calls that it has not read."""
    spool = make()
    put(spool, *range(20))

    def refuse(_segment: Segment, _position: int, _size: int) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "read", refuse)
        assert taken(spool) == []
    assert spool.acked < spool.end()
    assert drained(spool) == list(range(20))


@pytest.mark.parametrize("name", ["spool", "spool/folder"])
def test_a_folder_that_cannot_be_made_raises_nothing(make: Make, tmp_path: Path, name: str) -> None:
    """If this failed, a folder that cannot be made would raise in the caller's thread."""
    (tmp_path / "spool").write_text("a file")
    spool = make(tmp_path / name)
    assert not spool.append(RecordKind.CALL, key(1), b"{}")
    assert not spool.append(RecordKind.RECORD, key(1), b"{}", critical=True)
    assert not spool.healthy
    assert spool.read(10) == []
    assert spool.acked >= spool.end()
    (tmp_path / "spool").unlink()
    again(spool)
    put(spool, 2)
    assert drained(spool) == [2]


def test_a_read_only_disk_stops_nobody_who_records(make: Make, tmp_path: Path) -> None:
    """If this failed, a disk that the kernel has made read-only would stop the program that records."""
    folder = tmp_path / "read only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount here")
    try:
        spool = make(folder / "spool")
        assert not spool.append(RecordKind.CALL, key(1), b"{}")
        assert spool.writer.trouble == errno.EROFS
        assert spool.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Its limits


def test_what_comes_after_a_torn_write_is_kept_in_another_file(make: Make) -> None:
    """If this failed, calls behind a full disk would be lost, or calls recorded later overwritten."""
    spool = make()
    spool.append(RecordKind.OPENED, key(0), b"{}")  # holds the first file
    put(spool, *range(1, 10))
    for round_ in range(5):
        segment = spool.writer.current
        assert segment is not None
        os.write(segment.fd, b"\xffV\x30\x00\x00\x00half")  # what a full disk has left of a frame
        segment.torn = True
        spool.writer.fail(OSError(errno.ENOSPC, "full"), segment)
        end = spool.end()
        drained(spool)  # to the end of what there is: its number must not be given twice
        assert spool.acked >= end
        assert spool.damaged == round_ + 1
        again(spool)
        put(spool, 100 + round_)
        assert taken(spool) == [100 + round_]
        spool.ack()
        assert spool.path is not None
        assert (spool.path / f"{spool.writer.last:08d}.segment").exists()
    spool.append(RecordKind.TOMBSTONE, key(0), b"")
    assert drained(spool) == []
    assert spool.close()


def test_the_spool_keeps_its_limit_and_uses_room_again(make: Make) -> None:
    """If this failed, an outage would fill the disk, or calls would not be spooled long after it."""
    spool = make(limit_bytes=16 * SEGMENT)
    fitted = 0
    while spool.append(RecordKind.CALL, key(fitted), b"x" * 500):
        fitted += 1
    used = sum(path.stat().st_size for path in spool.folder.rglob("*") if path.is_file())
    assert 0.7 * 16 * SEGMENT < used <= 16 * SEGMENT
    assert spool.nearly_full
    assert not spool.healthy
    assert spool.append(RecordKind.RECORD, key(5000), b"{}", critical=True)  # the sums of what did not fit
    assert drained(spool) == [*range(fitted), 5000]
    put(spool, 6000)  # at once, without a second's wait
    put(spool, *range(6001, 6010))
    assert spool.healthy
    assert not spool.nearly_full
    assert drained(spool) == list(range(6000, 6010))


def test_a_vital_frame_finds_its_place_behind_a_torn_one(make: Make) -> None:
    """If this failed, a process that ends on a full disk would lose the sums of its calls."""
    spool = make()
    put(spool, 1)
    assert spool.writer.current is not None
    spool.writer.current.torn = True
    spool.writer.fail(OSError(errno.ENOSPC, "full"), spool.writer.current)
    assert not spool.append(RecordKind.CALL, key(2), b"{}")
    assert spool.append(RecordKind.RECORD, key(3), b"{}", critical=True)
    assert drained(spool) == [1, 3]


def test_files_do_not_add_up_while_none_can_be_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, a disk that fails for an hour would cost the program all its file numbers."""
    spool = make()
    put(spool, 1)

    def refuse(_segment: Segment, _frame: bytes) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "append", refuse)
        for number in range(10, 60):
            assert not spool.append(RecordKind.CALL, key(number), b"{}")
            again(spool)
    assert len(on_disk(spool)) <= 2
    put(spool, 2)
    assert drained(spool) == [1, 2]
    assert spool.acked >= spool.end()


@pytest.mark.parametrize("sync_s", [0, 0.01])
def test_what_is_settled_holds_no_file_open(make: Make, sync_s: float) -> None:
    """If this failed, files that are gone would keep their room on the disk, and the process its numbers."""
    spool = make(sync_s=sync_s)
    for number in range(200):
        put(spool, number)
        assert drained(spool) == [number]

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, Segment) and one.fd >= 0 for one in gc.get_objects() if type(one) is Segment)

    before = held()
    until(lambda: held() <= before and len(spool.writer._retired) <= 1)
    assert len(spool.writer.segments) == 1
    assert len(spool.writer._retired) <= 1


# Its end


def test_the_folder_goes_when_all_is_settled(make: Make) -> None:
    """If this failed, every process that ends would leave a folder behind."""
    spool = make()
    put(spool, *range(30))
    folder = spool.path
    assert folder is not None
    assert is_alive(folder)
    drained(spool)
    assert spool.close()
    assert not folder.exists()
    assert not spool.append(RecordKind.CALL, key(1), b"{}")
    assert not spool.append(RecordKind.RECORD, key(1), b"{}", critical=True)


def test_what_cannot_be_read_at_the_end_is_there_for_the_next_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a process with too many open files would delete what it has not delivered, as it ends."""
    spool = make()
    put(spool, *range(20))

    def refuse(_segment: Segment, _position: int, _size: int) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "read", refuse)
        assert not spool.close()
    [orphan] = claim(owners_in(spool.folder))
    found: list[int] = []
    while records := orphan.read(5):
        found += [int.from_bytes(record.id, "big") for record in records]
        orphan.ack()
    orphan.ack()
    assert found == list(range(20))


@pytest.mark.parametrize("left", ["a call", "a call in hand", "a beginning"])
def test_what_is_not_delivered_is_there_for_the_next_process(make: Make, left: str) -> None:
    """If this failed, what the database did not take before the end would be lost."""
    spool = make()
    put(spool, *range(20))
    if left == "a beginning":
        spool.append(RecordKind.OPENED, key(50), b"{}")
    elif left == "a call":
        put(spool, 50)
    drained(spool, 20) if left != "a call" else [taken(spool, 20), spool.ack()]
    folder = spool.path
    assert folder is not None
    assert not spool.close(idle=left != "a call in hand")
    assert folder.exists()
    assert not is_alive(folder)
    assert not (folder / "reserve").exists()
    [orphan] = claim(owners_in(spool.folder))
    delivered: list[LogRecord] = []
    while frames := orphan.read(5):
        delivered += frames
        orphan.ack()
    orphan.ack()
    assert not folder.exists()
    assert left == "a call in hand" or key(50) in {frame.id for frame in delivered}


def test_a_folder_that_was_never_used_is_never_made(make: Make, tmp_path: Path) -> None:
    """If this failed, every process that only imports the package would leave files."""
    spool = make()
    assert spool.read(10) == []
    assert spool.close()
    assert list(tmp_path.iterdir()) == []


# Forks

FORK = """
import os, signal, sys
from pathlib import Path
from vital_tracking.spool.log_record import RecordKind
from vital_tracking.spool.disk_queue import Spool

spool = Spool(Path(sys.argv[1]), sync_s=0.01)
assert spool.append(RecordKind.CALL, bytes(15) + b"\\1", b"{}")
folder = spool.path
read, write = os.pipe()
child = os.fork()
if child == 0:
    spool.let_go()
    spool = Spool(Path(sys.argv[1]), sync_s=0.01)
    assert spool.read(10) == []
    assert len(spool.waiting) == 0
    for number in range(20):
        assert spool.append(RecordKind.CALL, bytes(15) + bytes([100 + number]), b"{}")
    assert spool.path != folder
    os.write(write, b"c")
    signal.pause()
assert os.read(read, 1) == b"c"
assert spool.append(RecordKind.CALL, bytes(15) + b"\\2", b"{}")
assert [frame.id[-1] for frame in spool.read(10)] == [1, 2]
print(folder, child, flush=True)
signal.pause()
"""


def test_a_fork_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """If this failed, a worker that outlives its parent would keep the parent's calls, or write into its files."""
    spool = tmp_path / "spool"
    parent = subprocess.Popen(
        [sys.executable, "-c", FORK, str(spool)],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = 0
    try:
        name, number = parent.stdout.readline().split()
        child, folder = int(number), Path(name)
        assert len(owners_in(spool)) == 2
        assert all(map(is_alive, owners_in(spool)))
        assert list(claim(owners_in(spool))) == []
        parent.kill()
        parent.wait(30)
        [orphan] = claim(owners_in(spool))  # of the parent, though its child lives on
        assert orphan.path == folder
        assert [frame.id[-1] for frame in orphan.read(10)] == [1, 2]
        orphan.let_go()
        [other] = [path for path in owners_in(spool) if path != folder]
        assert is_alive(other)
        os.kill(child, 9)
        child = 0
        until(lambda: not is_alive(other))
        orphans = {orphan.path: orphan for orphan in claim(owners_in(spool))}
        assert [frame.id[-1] for frame in orphans[other].read(50)] == list(range(100, 120))
        for orphan in orphans.values():
            orphan.let_go()
    finally:
        parent.kill()
        parent.wait(30)
        parent.stdout.close()
        if child:
            os.kill(child, 9)


def test_a_folder_that_is_only_now_being_made_is_left_alone(tmp_path: Path) -> None:
    """If this failed, a process that starts while another one looks for orphans would lose its folder."""
    owner = OwnerFolder.create(tmp_path, {})
    owner.let_go()
    assert list(claim(owners_in(tmp_path))) == []
    assert owner.path.exists()
    os.utime(owner.path, (1, 1))
    assert list(claim(owners_in(tmp_path))) == []
    assert not owner.path.exists()  # nothing was ever in it
