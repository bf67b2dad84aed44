"""What dead processes have left: each call of theirs comes to the database once, whatever has become of the files."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.folders import REPOSITORY
from tests.support.forked import Forked, run_forked
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.json_codec import id_bytes, pack_record
from vital_tracking.core.context import CallContext
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage
from vital_tracking.ids import new_id
from vital_tracking.spool.location import folders_in
from vital_tracking.spool.log_record import LogRecord, RecordKind, encoded_record
from vital_tracking.spool.orphans import OrphanedSegments, claim
from vital_tracking.spool.owner import OwnerFolder, owners_in
from vital_tracking.spool.segment import segments_of
from vital_tracking.stores.postgres import PostgresStore

Rows = Callable[..., list[dict[str, Any]]]
TRIES = settings(max_examples=40, deadline=None, derandomize=True)
BEGUN_AT = datetime(2026, 3, 1, 12, 30, 7, tzinfo=UTC)


def a_record(call_id: str | None = None, **fields: Any) -> CallRecord:
    known: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": TokenUsage(100, 20),
        "clocked": False,
    }
    return CallRecord(
        call_id or new_id(), BEGUN_AT, CallContext(user_id=fields.pop("user_id", "u")), **{**known, **fields}
    )


def a_frame(record: CallRecord, kind: RecordKind = RecordKind.RECORD) -> LogRecord:
    return LogRecord(kind, id_bytes(record.id), pack_record(record))


def plain(number: int, kind: RecordKind = RecordKind.CALL) -> LogRecord:
    return LogRecord(kind, number.to_bytes(16, "big"), b'{"of":%d}' % number)


def encoded(frames: Sequence[LogRecord]) -> bytes:
    return b"".join(encoded_record(frame.kind, frame.id, frame.payload) for frame in frames)


def left_behind(folder: Path, *segments: Sequence[LogRecord] | bytes) -> Path:
    """The folder of a process that has died, with what each of its segments holds."""
    owner = OwnerFolder.create(folder, {})
    for number, held in enumerate(segments, 1):
        owner.segment_path(number).write_bytes(held if isinstance(held, bytes) else encoded(held))
    owner.let_go()
    return owner.path


def delivered(orphan: OrphanedSegments, limit: int = 3) -> list[int]:
    """All that an orphan has, taken and settled as the batch processor does, with a failure after each batch."""
    found: list[int] = []
    while frames := orphan.read(limit):
        orphan.rewind()
        assert orphan.read(limit) == frames
        found += [int.from_bytes(frame.id, "big") for frame in frames]
        assert all(frame.orphan is orphan for frame in frames)
        orphan.ack()
    assert orphan.finished
    orphan.ack()
    return found


# The files


def test_orphaned_segments_are_delivered_in_order_and_removed_one_by_one(tmp_path: Path) -> None:
    """If this failed, a replayer that dies would begin all over, or would have removed what it had not delivered."""
    segments = [
        [plain(100, RecordKind.OPENED), plain(1), plain(2)],
        [],
        [plain(3), plain(4, RecordKind.RECORD)],
        [plain(5)],
    ]
    path = left_behind(tmp_path, *segments)
    # Each time a replayer dies after one more: what was in a file before it does not come again.
    for expected, files in (([100, 1], 4), ([100, 1, 2], 4), ([100, 1, 2, 3], 2), ([3, 4], 2), ([3, 4, 5], 1)):
        [orphan] = claim(owners_in(tmp_path))
        for number in expected:
            [frame] = orphan.read(1)
            assert int.from_bytes(frame.id, "big") == number
            orphan.ack()
        assert len(segments_of(path)) == files
        orphan.let_go()
    [orphan] = claim(owners_in(tmp_path))
    assert (orphan.calls, orphan.abandoned, orphan.damaged) == (1, 0, 0)
    assert delivered(orphan) == [5]
    assert list(tmp_path.iterdir()) == []


@TRIES
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_or_a_torn_end_costs_one_frame(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    """If this failed, a bad disk or a power cut would cost calls that are there to be read."""
    folder = tmp_path_factory.mktemp("orphans")
    numbers = iter(range(100))
    segments = [[plain(next(numbers)) for _ in range(size)] for size in sizes]
    files = [bytearray(encoded(frames)) for frames in segments]
    hurt = data.draw(st.integers(0, len(files) - 1))
    lost: list[LogRecord] = []
    stretches = 0
    if files[hurt]:
        place = data.draw(st.integers(0, len(files[hurt]) - 1))
        ends = [len(encoded(segments[hurt][: index + 1])) for index in range(len(segments[hurt]))]
        hit = next(index for index, end in enumerate(ends) if place < end)
        if data.draw(st.booleans()):
            files[hurt][place] ^= 1 << data.draw(st.integers(0, 7))
            lost, stretches = [segments[hurt][hit]], 1
        else:
            del files[hurt][place:]
            lost, stretches = segments[hurt][hit:], int(place not in (0, *ends))
    left_behind(folder, *map(bytes, files))
    [orphan] = claim(owners_in(folder))
    assert orphan.damaged == stretches
    kept = [int.from_bytes(frame.id, "big") for frames in segments for frame in frames if frame not in lost]
    assert delivered(orphan, data.draw(st.integers(1, 5))) == kept
    assert owners_in(folder) == []


def test_damage_in_orphaned_segments_is_counted(tmp_path: Path) -> None:
    """If this failed, nobody would learn that a disk loses what is written to it."""
    whole = encoded([plain(number) for number in range(6)])
    size = len(whole) // 6
    broken = bytearray(whole)
    broken[size + 20] ^= 4
    broken[4 * size + 2] ^= 1
    left_behind(tmp_path, bytes(broken), whole[: size // 2], b"\0" * 4096)
    [orphan] = claim(owners_in(tmp_path))
    assert orphan.damaged == 4
    assert delivered(orphan) == [0, 2, 3, 5]


def test_of_beginnings_without_an_end_those_that_were_made_are_billed(tmp_path: Path) -> None:
    """If this failed, a call in flight at the kill would be missing from the bill, or one that was not made would be on it."""
    first = [plain(number, RecordKind.OPENED) for number in (1, 2, 3)] + [
        plain(4, RecordKind.BEGUN),
        plain(5, RecordKind.BEGUN),
    ]
    second = [plain(1), plain(2, RecordKind.TOMBSTONE), plain(4, RecordKind.TOMBSTONE), plain(6, RecordKind.RUN)]
    left_behind(tmp_path, first, second)
    [orphan] = claim(owners_in(tmp_path))
    assert (orphan.abandoned, orphan.calls, orphan.runs) == (2, 1, 1)
    assert delivered(orphan) == [3, 5, 1, 6]


@pytest.mark.parametrize("at", ["survey", "take"])
def test_an_orphaned_segment_that_cannot_be_read_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """If this failed, a process with too many open files would delete what it has not read."""
    left_behind(tmp_path, [plain(1), plain(2)], [plain(3)])

    def refuse(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    orphan = None
    if at == "take":
        [orphan] = claim(owners_in(tmp_path))
        assert len(orphan.read(1)) == 1
        orphan.ack()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        if orphan is None:
            assert list(claim(owners_in(tmp_path))) == []
        else:
            assert orphan.read(5) == []
            orphan.ack()
            assert not orphan.finished
    if orphan is None:
        [orphan] = claim(owners_in(tmp_path))
        assert delivered(orphan) == [1, 2, 3]
    else:
        assert delivered(orphan) == [2, 3]


def test_of_two_replayers_only_one_takes_a_folder(tmp_path: Path) -> None:
    """If this failed, two replayers would send everything twice and remove files from under each other."""
    left_behind(tmp_path, [plain(1)])
    known = left_behind(tmp_path, [plain(2)])
    alive = OwnerFolder.create(tmp_path, {})
    alive.segment_path(1).write_bytes(encoded([plain(3)]))
    [orphan] = claim(owners_in(tmp_path), known)
    assert list(claim(owners_in(tmp_path), known)) == []
    assert delivered(orphan) == [1]
    alive.let_go()
    assert sorted(number for one in claim(owners_in(tmp_path)) for number in delivered(one)) == [2, 3]


# The database


@pytest.fixture
def replayer(database_url: str, tmp_path: Path) -> Iterator[Callable[[], VitalTracker]]:
    """Makes trackers that share a spool, and deliver orphans only when they are told."""
    made: list[VitalTracker] = []

    def make() -> VitalTracker:
        settings = Settings(spool_dir=tmp_path / "spool", flush_interval_s=3600, background=False, budgets=False)
        made.append(VitalTracker(PostgresStore(database_url), settings=settings))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


Replayer = Callable[[], VitalTracker]


def folder_of(tracker: VitalTracker) -> Path:
    folder = tracker._recorder.folder
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def owners(tracker: VitalTracker) -> list[Path]:
    """The folders of all processes in the spool of a tracker."""
    return [owner for folder in folders_in(folder_of(tracker).parent) for owner in owners_in(folder)]


def test_a_segment_that_is_there_twice_is_stored_once(replayer: Replayer, rows: Rows) -> None:
    """If this failed, a folder that an admin restores from a backup would double its costs."""
    tracker = replayer()
    frames = [a_frame(a_record()) for _ in range(50)]
    left_behind(folder_of(tracker), frames)
    left_behind(folder_of(tracker), frames, frames[:10])
    assert tracker._recorder.replay(60)
    stats = tracker.stats()
    assert (stats.inserted, stats.duplicate, stats.rejected, stats.faults) == (50, 60, 0, 0)
    assert [id_bytes(str(row["id"])) for row in rows()] == sorted(frame.id for frame in frames)
    assert owners(tracker) == []


def test_of_two_payloads_of_one_id_the_first_stays(replayer: Replayer, rows: Rows) -> None:
    """If this failed, a call would be billed twice, or the batch that holds both would be refused for ever."""
    tracker = replayer()
    call_id = new_id()
    left_behind(folder_of(tracker), [a_frame(a_record(call_id, user_id="first"))])
    left_behind(folder_of(tracker), [a_frame(a_record(call_id, user_id="second", usage=TokenUsage(9, 9)))])
    twice = new_id()
    left_behind(folder_of(tracker), [a_frame(a_record(twice, user_id="one")), a_frame(a_record(twice, user_id="two"))])
    assert tracker._recorder.replay(60)
    found = {str(row["id"]): row["user_id"] for row in rows()}
    assert found.keys() == {call_id, twice}
    assert found[call_id] == "first"
    stats = tracker.stats()
    assert (stats.rejected, stats.faults) == (0, 0)


# What this version writes, byte by byte. A later one may write something else, but reads this.
SHARED = (
    b'{"context":{"user_id":"u-1","workflow_step":"triage","framework":"langgraph","message_type":"chat"},"scope":{},'
    b'"keys":{"kept":["langgraph_node"],"allowed":["langgraph_node"],"unknown":[]}}'
)
BEGAN = (
    b'[1772368207.5,-10.0,"chat","00000000-0000-0000-0000-000000000007",null,null,null,null,null,"openai","gpt-4o-mini",'
    b'40,1,null,null,["t"],null,null,null,"triage"]'
)
ENDED = (
    b'["ok",1500.0,null,null,{"model_name":"gpt-4o-mini"},{"input_tokens":100,"output_tokens":20,"total_tokens":120},'
    b"null,null,null,false,true,false,[],null,null,[]]"
)
RECORD = (
    b'{"id":"%b","created_at":"2026-03-01T12:30:07+00:00","provider":"openai","model":"gpt-4o-mini","status":"ok",'
    b'"clocked":false,"context":{"user_id":"u-2"},"usage":{"prompt_tokens":100,"completion_tokens":20}}'
)
RUN = (
    b'{"parent_run_id":null,"error_type":null,"id":"%b","status":"%b","ancestor_run_ids":[],'
    b'"started_at":"2026-03-01T12:30:00+00:00","ended_at":%b,"context":{"service_type":"workflow"},"metadata":{}}'
)


def test_what_lies_in_a_spool_is_read_after_an_upgrade(replayer: Replayer, rows: Rows) -> None:
    """If this failed, calls that wait while a server gets a new version would be lost."""
    ids = sorted(new_id() for _ in range(7))
    keys = [id_bytes(each) for each in ids]
    names = [each.encode() for each in ids]
    written = [
        (1, keys[0], SHARED + b"\n" + BEGAN),
        (2, keys[1], SHARED + b"\n" + BEGAN + b"\n" + ENDED),
        (3, keys[2], RECORD % names[2]),
        (4, keys[3], RECORD % names[3]),
        (5, keys[4], RUN % (names[4], b"ok", b'"2026-03-01T12:31:00+00:00"')),
        (8, keys[5], RUN % (names[5], b"running", b"null")),
        (1, keys[6], SHARED + b"\n" + BEGAN),
        (6, keys[6], b""),
    ]
    tracker = replayer()
    left_behind(folder_of(tracker), b"".join(encoded_record(*each) for each in written))
    assert tracker.replay(60)
    assert (tracker.stats().rejected, tracker.stats().damaged, tracker.stats().faults) == (0, 0, 0)
    found = [
        (
            str(row["id"]),
            row["status"],
            row["user_id"],
            row["total_tokens"],
            (row["created_at"] - BEGUN_AT).total_seconds(),
        )
        for row in rows()
    ]
    assert found == [
        (ids[0], "abandoned", "u-1", 10, -9.5),
        (ids[1], "ok", "u-1", 120, -9.5),
        (ids[2], "ok", "u-2", 120, 0),
        (ids[3], "ok", "u-2", 120, 0),
    ]
    assert rows()[1]["metadata"] == {"langgraph_node": "triage"}
    runs = rows("select id, status from service_runs order by id")
    assert runs == [{"id": ids[4], "status": "ok"}, {"id": ids[5], "status": "abandoned"}]


def test_an_earlier_versions_correction_of_the_clock_still_holds(replayer: Replayer, rows: Rows) -> None:
    """If this failed, calls that were stored before an upgrade and are sent again after it would count twice."""
    tracker = replayer()
    clock = LogRecord(RecordKind.CLOCK, bytes(16), b'{"skew":7200.5}')
    uncorrected, corrected = (a_frame(a_record(clocked=clocked)) for clocked in (True, False))
    left_behind(folder_of(tracker), [uncorrected], [corrected, clock])
    left_behind(folder_of(tracker), [a_frame(a_record(clocked=True))])  # one that has never known the clock
    now = datetime.now(UTC)
    tracker._recorder.clock.sample(now - timedelta(hours=1), now, now)
    assert tracker._recorder.replay(60)
    found = sorted((row["created_at"] - BEGUN_AT).total_seconds() for row in rows())
    assert found == [0, 0, 7200.5]


def test_damage_is_counted_by_whoever_finds_it(replayer: Replayer) -> None:
    """If this failed, `spool replay` would say that all is delivered, where a torn file has cost calls."""
    tracker = replayer()
    whole = encoded([a_frame(a_record()), a_frame(a_record())])
    left_behind(folder_of(tracker), whole[:-9])
    left_behind(folder_of(tracker), whole[:40] + b"?" + whole[41:])
    assert tracker.replay(60)
    assert (tracker.stats().inserted, tracker.stats().damaged) == (2, 2)


def test_two_replayers_at_once_double_nothing(replayer: Replayer, rows: Rows) -> None:
    """If this failed, two processes that start together would bill a third one's calls twice, or one would wait for ever."""
    first, second = replayer(), replayer()
    ids = []
    for _ in range(6):
        records = [a_record() for _ in range(40)]
        ids += [record.id for record in records]
        left_behind(folder_of(first), list(map(a_frame, records)))
    begin = threading.Barrier(2)
    done: list[bool] = []

    def replay(tracker: VitalTracker) -> None:
        begin.wait(30)
        done.append(tracker._recorder.replay(60))

    threads = [threading.Thread(target=replay, args=(tracker,)) for tracker in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [True, True]
    assert sorted(str(row["id"]) for row in rows()) == sorted(ids)
    assert first.stats().inserted + second.stats().inserted == 240
    assert first.stats().duplicate + second.stats().duplicate == 0
    assert owners(first) == []


DIES = """
import os, sys
from pathlib import Path
from uuid import uuid4
from langchain_core.messages import HumanMessage
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

settings = Settings(spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600, budgets=False)
tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=settings)

def start(user):
    run_id = uuid4()
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "vital_user_id": user}
    tracker.handler.on_chat_model_start({}, [[HumanMessage("q" * 400)]], run_id=run_id, metadata=metadata)
    return run_id

start("in flight")
admitted = tracker.admit(provider="openai", model="gpt-4o-mini", prompt="q" * 400, user_id="admitted")
tracker.admit(provider="openai", model="gpt-4o-mini", prompt="q" * 400, user_id="not made").release()
tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=5, completion_tokens=5, user_id="ended")
os.kill(os.getpid(), 9)
"""


def test_calls_in_flight_at_a_kill_are_billed_as_abandoned(
    replayer: Replayer, rows: Rows, database_url: str, tmp_path: Path
) -> None:
    """If this failed, what a killed process had begun would be missing from the bill, or stand there as if it had ended."""
    before = datetime.now(UTC)
    environment = {"SPOOL": str(tmp_path / "spool"), "DATABASE": database_url, "PATH": ""}
    killed = run_forked([sys.executable, "-c", DIES], REPOSITORY, environment)
    after = datetime.now(UTC)
    assert killed.returncode == -9, killed.stderr
    tracker = replayer()
    assert tracker._recorder.replay(60)
    found = {row["user_id"]: row for row in rows()}
    assert {user: row["status"] for user, row in found.items()} == {
        "in flight": "abandoned",
        "admitted": "abandoned",
        "ended": "ok",
    }
    for user in ("in flight", "admitted"):
        row = found[user]
        assert before <= row["created_at"] <= after
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (100, 0, True), user
        assert row["latency_ms"] is None
        assert row["total_cost"] > 0
    assert tracker.stats().abandoned == 2
    assert replayer()._recorder.replay(60)  # nothing is left


REPLAYS = """
import os
from pathlib import Path
from tests.support.stores import SteppedStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

settings = Settings(spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600, budgets=False, max_batch_size=100, batch_size=10)
tracker = VitalTracker(SteppedStore(PostgresStore(os.environ["DATABASE"])), settings=settings)
tracker._recorder.replay(60)
"""


def test_a_replayer_that_is_killed_in_the_middle_changes_nothing(
    replayer: Replayer, rows: Rows, database_url: str, tmp_path: Path
) -> None:
    """If this failed, a crash over what a crash has left would lose or double calls."""
    tracker = replayer()
    records = [a_record() for _ in range(350)]
    open_ = a_record(status="abandoned", usage=TokenUsage(7, estimated=True))
    frames = [a_frame(open_, RecordKind.BEGUN), *map(a_frame, records)]
    left_behind(folder_of(tracker), frames[:150], frames[150:160], frames[160:])
    environment = {"SPOOL": str(tmp_path / "spool"), "DATABASE": database_url, "PATH": ""}
    for answers in (1, 3):  # killed after the database has answered, before anything is settled
        killed = Forked([sys.executable, "-c", REPLAYS], REPOSITORY, environment)
        for _ in range(answers):
            assert killed.stdout.readline()
            killed.stdin.write("\n")
            killed.stdin.flush()
        killed.kill()
        killed.communicate(timeout=30)
    assert 100 <= len(rows()) < 351
    assert tracker._recorder.replay(60)
    assert sorted(str(row["id"]) for row in rows()) == sorted([open_.id, *(record.id for record in records)])
    assert rows("select count(*) as n from token_usage_logs where status = 'abandoned'")[0]["n"] == 1
    assert owners(tracker) == []


def test_damage_to_a_killed_processes_files_costs_only_what_it_hit(
    replayer: Replayer, rows: Rows, database_url: str, tmp_path: Path
) -> None:
    """If this failed, one bad block would cost more than the call that it held, or nobody would be told."""
    tracker = replayer()
    records = [a_record() for _ in range(60)]
    path = left_behind(folder_of(tracker), list(map(a_frame, records[:30])), list(map(a_frame, records[30:])))
    chance = random.Random(7)
    (_, first), (_, second) = segments_of(path)
    broken = bytearray(first.read_bytes())
    size = len(broken) // 30
    for index in (3, 17):
        broken[index * size + chance.randrange(40, size - 20)] ^= 16
    first.write_bytes(broken)
    with second.open("r+b") as file:
        file.truncate(second.stat().st_size - 5)
    shutil.copytree(path, tmp_path / "evidence")
    assert tracker._recorder.replay(60)
    lost = {records[3].id, records[17].id, records[59].id}
    assert sorted(str(row["id"]) for row in rows()) == sorted({record.id for record in records} - lost)
    assert tracker.stats().replayed == 57
    assert not path.exists()
    assert os.path.exists(tmp_path / "evidence")


def test_orphaned_segments_are_delivered_beside_a_processes_own_calls(
    database_url: str, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, what a crashed server left would wait until somebody runs the command line."""
    options = Settings(spool_dir=tmp_path / "spool", flush_interval_s=3600, budgets=False)
    with VitalTracker(PostgresStore(database_url), settings=options) as tracker:
        damaged = encoded_record(RecordKind.RECORD, bytes(16), b"{}")[:-1]
        left_behind(folder_of(tracker), encoded([a_frame(a_record()) for _ in range(20)]) + damaged)
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1, completion_tokens=1)
        assert tracker.flush(60).complete
        deadline = time.monotonic() + 60
        while tracker.stats().replayed < 20 or owners(tracker) != [tracker._recorder.spool.path]:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(rows()) == 21
        stats = tracker.stats()
        assert (stats.damaged, stats.inserted, stats.rejected) == (1, 21, 0)
