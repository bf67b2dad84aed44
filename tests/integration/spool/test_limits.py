"""Neither the disk nor the memory has room, and the database is away: the money of every call arrives all the same, to the cent.

If one of these fails, the bill is not whole after an outage, or the program that records has felt it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.budgets.helpers import set_budget
from tests.sql.helpers import any_row
from tests.support.folders import REPOSITORY
from tests.support.forked import run_forked
from tests.support.postgres import PostgresServer, free_port, outage
from tests.support.stores import AwayStore
from tests.support.waiting import until
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.row_literal import decoded_row
from vital_tracking.delivery import exporter
from vital_tracking.delivery.dead_letters import FILE, forget_taken, letters_in, take_letters
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.spool.location import folders_in
from vital_tracking.spool.owner import owners_in
from vital_tracking.spool.segment import bytes_in, segments_of
from vital_tracking.stores.postgres import PostgresStore

Rows = Callable[..., list[dict[str, Any]]]
KIB = 1 << 10
PRICES = {"gpt-4o-mini": (Decimal("0.15"), Decimal("0.60")), "gpt-4o": (Decimal("2.50"), Decimal("10.00"))}
LONG_S = 2.0  # for one call: no call waits for the database, or for a retry

SUMS = """
select coalesce(sum(calls), 0)::int as calls, coalesce(sum(prompt_tokens), 0)::bigint as prompt,
  coalesce(sum(completion_tokens), 0)::bigint as completion, coalesce(sum(total_cost), 0) as cost
from token_usage_logs
"""


class Book:
    """What was recorded, as the one who records it knows it."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {"calls": 0, "prompt": 0, "completion": 0, "cost": Decimal(0)}
        self.slowest = 0.0
        self._lock = threading.Lock()

    def record(self, tracker: VitalTracker, number: int, **fields: Any) -> None:
        model = ("gpt-4o-mini", "gpt-4o")[number % 2]
        prompt, completion = 100 + number % 7, 10 + number % 3
        known = {"user_id": f"u-{number % 5}", "organization_id": "o", "metadata": {"department": "d" * 150}, **fields}
        begun = time.perf_counter()
        tracker.record(provider="openai", model=model, prompt_tokens=prompt, completion_tokens=completion, **known)
        self.add(model, prompt, completion, time.perf_counter() - begun)

    def add(self, model: str, prompt: int, completion: int, took: float = 0.0) -> None:
        rates = PRICES[model]
        with self._lock:
            self.slowest = max(self.slowest, took)
            self.sums["calls"] += 1
            self.sums["prompt"] += prompt
            self.sums["completion"] += completion
            self.sums["cost"] += (prompt * rates[0] + completion * rates[1]) / 1_000_000

    def agrees(self, rows: Rows) -> None:
        assert rows(SUMS) == [self.sums]


Track = Callable[..., VitalTracker]


@pytest.fixture
def track(database_url: str, tmp_path: Path) -> Iterator[Track]:
    """Makes trackers with little room, on a store of their own that can be away; they share one spool."""
    made: list[VitalTracker] = []

    def make(*, away: bool = False, **options: Any) -> VitalTracker:
        store = AwayStore(PostgresStore(database_url), away=away)
        known: dict[str, Any] = {
            "spool_dir": tmp_path / "spool",
            "flush_interval_s": 3600,
            "spool_bytes": 256 * KIB,
            "queue_bytes": 64 * KIB,
            "budgets": False,
        }
        made.append(VitalTracker(store, settings=Settings(**{**known, **options})))
        return made[-1]

    yield make
    for tracker in made:
        tracker.store.away = False  # type: ignore[attr-defined]
        tracker.close()


def owners(root: Path) -> list[Path]:
    """The folders of all processes in a spool."""
    return [owner for folder in folders_in(root) for owner in owners_in(folder)]


def away(tracker: VitalTracker, is_away: bool) -> None:
    tracker.store.away = is_away  # type: ignore[attr-defined]


def queued(tracker: VitalTracker) -> int:
    return tracker._recorder._queue.bytes


def merged_rows_are_few(rows: Rows) -> None:
    """One for each owner, model and quarter of an hour."""
    merged = rows("select * from token_usage_logs where metadata -> 'notes' ? 'merged'")
    assert merged
    kinds = {(row["user_id"], row["model"], int(row["created_at"].timestamp()) // 900) for row in merged}
    assert len(kinds) >= 10
    assert all(row["organization_id"] == "o" and row["latency_ms"] is None for row in merged)


# Limits of our own


def test_where_room_ends_detail_goes_first_and_money_never(track: Track, rows: Rows, tmp_path: Path) -> None:
    """What is lost of a call is what matters least, and nothing grows past its limit."""
    tracker, book = track(away=True), Book()
    seen: list[tuple[int, int]] = []
    for number in range(3000):
        book.record(tracker, number)
        stats = tracker.stats()
        seen.append((stats.shortened, stats.merged))
        assert stats.spool_bytes <= 256 * KIB
        assert queued(tracker) <= 64 * KIB
        if number % 100 == 0:
            assert bytes_in(tmp_path / "spool") <= 256 * KIB + 4 * KIB
    first_short = next(index for index, (shortened, _) in enumerate(seen) if shortened)
    first_merged = next(index for index, (_, merged) in enumerate(seen) if merged)
    assert 100 < first_short < first_merged - 50
    stats = tracker.stats()
    assert (stats.dropped, stats.faults, stats.inserted) == (0, 0, 0)
    assert stats.waiting + stats.merged == 3000
    assert stats.merged > 1000
    assert book.slowest < LONG_S
    assert bytes_in(tmp_path / "spool") <= 256 * KIB + 4 * KIB
    away(tracker, False)
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.waiting, delivered.dropped, delivered.rejected) == (True, 0, 0, 0)
    book.agrees(rows)
    merged_rows_are_few(rows)
    # In the order of time: whole rows, then shortened ones, then sums.
    kinds = rows(
        "select id, calls, metadata ? 'department' as whole, metadata -> 'notes' ? 'shortened' as short"
        " from token_usage_logs where not coalesce(metadata -> 'notes' ? 'merged', false) order by id"
    )
    assert [row["whole"] for row in kinds[:100]] == [True] * 100
    assert all(bool(row["whole"]) != bool(row["short"]) for row in kinds)
    changes = [index for index in range(1, len(kinds)) if kinds[index]["whole"] != kinds[index - 1]["whole"]]
    assert len(changes) <= 9  # once for good, but for single ones that found the room of a moment
    # There is room again: all of a call is kept.
    book.record(tracker, 1, user_id="afterwards")
    book.record(tracker, 2, user_id="afterwards")
    assert tracker.flush(60).complete
    after = rows("select metadata from token_usage_logs where user_id = 'afterwards' order by id")
    assert "department" in after[-1]["metadata"]
    book.agrees(rows)


@pytest.mark.parametrize("room", ["a spool alone", "memory alone", "neither"])
def test_whatever_room_there_is_the_sums_are_exact(track: Track, rows: Rows, room: str) -> None:
    """Each of the two can be missing."""
    options: dict[str, Any] = {
        "a spool alone": {"queue_bytes": 1},
        "memory alone": {"spool": False},
        "neither": {"spool": False, "queue_bytes": 1},
    }[room]
    tracker, book = track(away=True, **options), Book()
    begin = threading.Barrier(4)

    def work(thread: int) -> None:
        begin.wait(30)
        for number in range(400):
            book.record(tracker, number + thread)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stats = tracker.stats()
    assert stats.waiting + stats.merged == 1600
    assert stats.merged > 0
    assert book.slowest < LONG_S
    away(tracker, False)
    assert tracker.flush(60).complete
    stats = tracker.stats()
    assert (stats.dropped, stats.faults, stats.rejected) == (0, 0, 0)
    book.agrees(rows)
    merged_rows_are_few(rows)


def test_an_end_without_room_leaves_the_sums_for_the_next_process(track: Track, rows: Rows, tmp_path: Path) -> None:
    """The hardest end of all: the process goes, the database is away, the spool is full, and so is the memory."""
    tracker, book = track(away=True), Book()
    for number in range(2500):
        book.record(tracker, number)
    assert tracker.stats().merged > 500
    begun = time.monotonic()
    delivered = tracker.close(1)
    assert time.monotonic() - begun < 4
    assert (delivered.complete, delivered.inserted, delivered.dropped) == (False, 0, 0)
    assert rows(SUMS)[0]["calls"] == 0
    following = track(background=False)
    assert following._recorder.replay(60)
    stats = following.stats()
    assert (stats.rejected, stats.damaged, stats.faults) == (0, 0, 0)
    book.agrees(rows)
    merged_rows_are_few(rows)
    assert owners(tmp_path / "spool") == []


def test_room_that_is_found_again_is_used_again(track: Track, rows: Rows, tmp_path: Path) -> None:
    """Room that is found again is used again, as often as it takes."""
    tracker, book = track(), Book()
    for round_ in range(4):
        away(tracker, True)
        for number in range(1500):
            book.record(tracker, number)
        assert tracker.stats().merged > round_ * 200
        away(tracker, False)
        assert tracker.flush(60).complete
        book.agrees(rows)
        assert bytes_in(tmp_path / "spool") < 80 * KIB
    stats = tracker.stats()
    assert (stats.waiting, stats.dropped, stats.faults, stats.damaged) == (0, 0, 0, 0)
    assert tracker.close().complete
    assert not any(map(segments_of, owners(tmp_path / "spool")))


def test_a_server_that_stops_and_starts_costs_no_money_of_any_call(
    database_url: str, postgres_server: PostgresServer, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops and starts, under threads that record."""
    monkeypatch.setattr("vital_tracking.stores.postgres._CONNECT_TIMEOUT_S", 1)
    settings = Settings(
        spool_dir=tmp_path / "spool", spool_bytes=128 * KIB, queue_bytes=32 * KIB, flush_interval_s=0.1, budgets=False
    )
    book = Book()
    with VitalTracker(PostgresStore(database_url), settings=settings) as tracker:
        for number in range(100):
            book.record(tracker, number)
        assert tracker.flush(60).complete
        with outage(postgres_server):
            threads = [
                threading.Thread(target=lambda: [book.record(tracker, number) for number in range(500)])
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not tracker.flush(0.2).complete
            assert tracker.stats().merged > 0
        assert tracker.flush(90).complete
        assert book.slowest < LONG_S
        stats = tracker.stats()
        assert (stats.waiting, stats.dropped, stats.faults, stats.rejected) == (0, 0, 0, 0)
    book.agrees(rows)


def test_without_a_database_nothing_raises_and_the_end_comes_in_time(tmp_path: Path) -> None:
    """Nothing is raised, nothing takes long, and the end comes in time."""
    store = PostgresStore(f"postgresql://postgres@127.0.0.1:{free_port()}/absent")
    settings = Settings(spool_dir=tmp_path / "spool", spool_bytes=64 * KIB, queue_bytes=16 * KIB, budgets=False)
    tracker, book = VitalTracker(store, settings=settings), Book()
    for number in range(1500):
        book.record(tracker, number)
    stats = tracker.stats()
    assert stats.waiting + stats.merged == 1500
    assert (stats.dropped, stats.faults) == (0, 0)
    begun = time.monotonic()
    delivered = tracker.close(1)
    assert time.monotonic() - begun < 6
    assert book.slowest < LONG_S
    assert delivered.dropped == 0
    assert delivered.spooled > 0


def test_budgets_agree_with_what_was_merged(track: Track, store: PostgresStore, rows: Rows) -> None:
    """Windows count the calls of a sum as they would have counted each, and what was granted for them is given back."""
    set_budget(store, metric="cost_usd", daily_limit="1000", total_limit="1000")
    set_budget(store, entity_type="model", metric="tokens", monthly_limit="100000000")
    set_budget(store, entity_type="organization", metric="calls", total_limit="1000000", action="downgrade")
    tracker, book = track(budgets=True, grant_lifetime_s=3600, budget_deadline_s=0.5), Book()
    tracker._controller.start()
    until(lambda: tracker._controller.policy is not None)

    def admitted(number: int) -> None:
        model = ("gpt-4o-mini", "gpt-4o")[number % 2]
        begun = time.perf_counter()
        call = tracker.admit(
            provider="openai",
            model=model,
            prompt_tokens=100,
            max_tokens=20,
            user_id=f"u-{number % 5}",
            organization_id="o",
        )
        if number % 50 == 49:
            call.release()
            return
        call.record(prompt_tokens=100, completion_tokens=20, metadata={"department": "d" * 150})
        book.add(model, 100, 20, time.perf_counter() - begun)

    for number in range(20):
        admitted(number)
    assert tracker.flush(60).complete
    away(tracker, True)
    for number in range(1500):
        admitted(number)
    assert tracker.stats().merged > 100
    assert tracker.stats().faults == 0
    away(tracker, False)
    assert tracker.flush(60).complete
    book.agrees(rows)
    assert rows("select count(*) as n from token_usage_logs where status <> 'ok'") == [{"n": 0}]
    assert store.call("audit_budgets_v1")["differences"] == []
    assert tracker.close().complete
    found = store.call("audit_budgets_v1")
    assert (found["differences"], found["overshoot"]) == ([], [])
    spent = rows(
        "select b.metric, w.period, sum(w.spent) as spent, sum(w.granted) as granted from budget_windows as w"
        " join budget_limits as b on b.id = w.budget_id group by 1, 2 order by 1, 2"
    )
    expected = {
        "calls": book.sums["calls"],
        "cost_usd": book.sums["cost"],
        "tokens": book.sums["prompt"] + book.sums["completion"],
    }
    assert {(row["metric"], row["spent"]) for row in spent} == set(expected.items())
    assert {row["granted"] for row in spent} == {0}


# Disks that are full for real

FILLS = """
import json, os, resource, sys, time
from pathlib import Path
from tests.support.stores import AwayStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

if int(os.environ["FILE_BYTES"]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_BYTES"]), resource.RLIM_INFINITY))
store = AwayStore(PostgresStore(os.environ["DATABASE"]), away=True)
settings = Settings(
    spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600, queue_bytes=64 << 10, budgets=False,
    spool_bytes=int(os.environ["SPOOL_BYTES"]), segment_bytes=int(os.environ["SEGMENT_BYTES"]),
)
tracker = VitalTracker(store, settings=settings)
slowest = 0.0
number = 0

def record():
    global slowest, number
    begun = time.perf_counter()
    tracker.record(
        provider="openai", model=("gpt-4o-mini", "gpt-4o")[number % 2], prompt_tokens=100 + number % 7,
        completion_tokens=10 + number % 3, user_id=f"u-{number % 5}", organization_id="o",
        metadata={"department": "d" * 150},
    )
    slowest = max(slowest, time.perf_counter() - begun)
    number += 1

while number < 3000 and tracker.stats().merged < 500:
    record()
ends = time.monotonic() + 1.2
while time.monotonic() < ends:  # it tries again every second, and fails again
    record()
    time.sleep(0.002)
stats = tracker.stats()
said = {"slowest": slowest, "calls": number, "merged": stats.merged, "shortened": stats.shortened, "dropped": stats.dropped,
    "faults": stats.faults, "files": len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0}
if os.environ["ENDS"] == "in time":
    store.away = False
    said["complete"] = tracker.flush(60).complete
    said["dropped"] = tracker.close().dropped
else:
    delivered = tracker.close(0.5)
    said["dropped"] = delivered.dropped
    said["complete"] = delivered.complete
print(json.dumps(said))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount here; files of limited length stand in for a full disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(database: str, folder: Path, ends: str, *, file_bytes: int = 0, **sizes: int) -> dict[str, Any]:
    """A process that records until the disk is full, and on; what it says of itself."""
    known = {"SPOOL_BYTES": 256 << 20, "SEGMENT_BYTES": 64 << 10, **sizes}
    environment = {"DATABASE": database, "SPOOL": str(folder), "ENDS": ends, "FILE_BYTES": str(file_bytes), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", FILLS],
        env={**environment, **{name: str(size) for name, size in known.items()}, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["merged"] >= 500
    assert said["shortened"] > 0
    assert (said["dropped"], said["faults"]) == (0, 0), done.stderr
    assert said["slowest"] < LONG_S
    assert said["files"] < 60
    assert said["complete"] == (ends == "in time")
    return said


def expected_of(calls: int) -> Book:
    book = Book()
    for number in range(calls):
        book.add(("gpt-4o-mini", "gpt-4o")[number % 2], 100 + number % 7, 10 + number % 3)
    return book


@pytest.mark.parametrize(
    ("segments", "ends"), [(1024, "in time"), (1024, "while it is away"), (16, "while it is away")]
)
def test_on_a_full_disk_the_sums_reach_the_next_process(
    small_disk: Path, database_url: str, track: Track, rows: Rows, ends: str, segments: int
) -> None:
    """The sums find room where nothing else does, and the next process delivers them."""
    said = fill(database_url, small_disk / "spool", ends, SEGMENT_BYTES=segments << 10)
    if ends != "in time":
        following = track(spool_dir=small_disk / "spool", spool_bytes=64 << 20, background=False)
        assert following._recorder.replay(60)
        assert following.stats().rejected == 0
        following.close()
    expected_of(said["calls"]).agrees(rows)


@pytest.mark.parametrize("ends", ["in time", "while it is away"])
def test_where_files_may_not_grow_the_sums_reach_the_next_process(
    tmp_path: Path, database_url: str, track: Track, rows: Rows, ends: str
) -> None:
    """The same where the kernel refuses, in the middle of a frame."""
    sizes = {"SPOOL_BYTES": 128 << 10, "SEGMENT_BYTES": 64 << 10}
    said = fill(database_url, tmp_path / "spool", ends, file_bytes=9999, **sizes)
    assert bytes_in(tmp_path / "spool") < (128 << 10) + 9999
    if ends != "in time":
        following = track(background=False)
        assert following._recorder.replay(60)
        assert following.stats().rejected == 0
    expected_of(said["calls"]).agrees(rows)


GROWS = """
import gc, os, sys
from pathlib import Path
from tests.support.stores import AwayStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore

tracker = VitalTracker(AwayStore(MemoryStore(), away=True), settings=Settings(spool=False, queue_bytes=4 << 20, budgets=False))

def used():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def record(number):
    for each in range(number):
        tracker.record(
            provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=5, user_id=f"u-{each % 50}",
            metadata={"department": "d" * 50}
        )

record(10)
before = used()
record(8000)
stats = tracker.stats()
assert stats.merged > 1000 and stats.waiting + stats.merged == 8010, stats
print(used() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="nobody else says what a process takes")
def test_what_waits_in_memory_takes_no_more_than_it_may() -> None:
    """If this failed, an outage would cost a server its memory: what is counted must be what is taken."""
    done = subprocess.run(
        [sys.executable, "-c", GROWS],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12 << 20


MERGED = """
import os, resource, signal
from pathlib import Path
from tests.support.stores import AwayStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

store = AwayStore(PostgresStore(os.environ["DATABASE"]), away=True)
settings = Settings(spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600, queue_bytes=1, budgets=False)
tracker = VitalTracker(store, settings=settings)
calls = [tracker.admit(provider="openai", model="gpt-4o-mini", prompt_tokens=100, max_tokens=10) for _ in range(50)]
[segment] = Path(os.environ["SPOOL"]).rglob("*.segment")
resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size, resource.RLIM_INFINITY))
for call in calls[:40]:
    call.record(prompt_tokens=100, completion_tokens=10)
assert tracker.stats().merged >= 38, tracker.stats()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tracker._recorder.spool.writer.room_again()
tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=10)
store.away = os.environ["ENDS"] == "before it is sent"
flushed = tracker.flush(0.1 if store.away else 60)
assert flushed.complete is not store.away
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("ends", "in_memory"), [("once it is sent", 0), ("before it is sent", 1)])
def test_a_call_that_was_merged_is_not_there_as_abandoned_too(
    ends: str, in_memory: int, database_url: str, tmp_path: Path, track: Track, rows: Rows
) -> None:
    """Its beginning lies in the spool when its process is killed: if its sum did not take that back, it would count twice."""
    environment = {"DATABASE": database_url, "SPOOL": str(tmp_path / "spool"), "ENDS": ends, "PATH": ""}
    dead = run_forked([sys.executable, "-c", MERGED], REPOSITORY, environment, timeout=120)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert track(background=False).replay(60)
    found = rows("select status, sum(calls)::int as calls from token_usage_logs group by 1 order by 1")
    # The end of the one that waited in memory has gone with the process.
    assert found == [{"status": "abandoned", "calls": 10 + in_memory}, {"status": "ok", "calls": 41 - in_memory}]


NO_SPOOL = """
import os, resource, sys
from pathlib import Path
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

spool = Path(os.environ["SPOOL"])
if os.environ["WHY"] == "no such folder":
    spool.parent.mkdir(parents=True, exist_ok=True)
    spool.write_text("somebody's file")
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=Settings(spool_dir=spool, budgets=False))
for number in range(200):
    known = {"metadata": {"department": "d"}, "tags": ["t"]}
    tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=1, **known)
assert tracker.close(60).complete
stats = tracker.stats()
assert (stats.shortened, stats.merged, stats.dropped, stats.faults) == (0, 0, 0, 0), stats
"""


@pytest.mark.parametrize("why", ["no such folder", "a full disk"])
def test_a_spool_that_takes_nothing_costs_no_detail_while_the_database_does(
    why: str, database_url: str, tmp_path: Path, rows: Rows
) -> None:
    """Only the pressure of what waits may shorten: with the database up, nothing waits for long."""
    done = subprocess.run(
        [sys.executable, "-c", NO_SPOOL],
        env={"DATABASE": database_url, "SPOOL": str(tmp_path / "spool"), "WHY": why, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "takes no more" in done.stderr
    assert rows("select tags, metadata, count(*) as n from token_usage_logs group by 1, 2") == [
        {"tags": ["t"], "metadata": {"department": "d"}, "n": 200}
    ]


# Rows that the database refuses


def test_refused_rows_are_set_aside_and_their_neighbours_stored(
    track: Track, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad row costs one row, which is kept where only its owner can read it; a bad detail costs the row's details."""
    poison = {7: {"status": "no status"}, 23: {"prompt_tokens": -5}}
    details: dict[int, dict[str, Any]] = {
        61: {"created_at": "no time"},
        62: {"created_at": "0044-03-15T12:00:00+00:00"},
        99: {"metadata": []},
        100: {"billed_units": {"web_searches": -1}},
    }
    tracker, book = track(), Book()
    rows_made = 0
    encoded = exporter.encode_call

    def spoiled(*arguments: Any) -> str:
        nonlocal rows_made
        row = decoded_row(encoded(*arguments)) | poison.get(rows_made, {}) | details.get(rows_made, {})
        rows_made += 1
        return any_row(row)

    monkeypatch.setattr(exporter, "encode_call", spoiled)
    for number in range(150):
        book.record(tracker, number, user_id=f"n-{number}")
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.rejected) == (True, 148, 2)
    stored = {row["user_id"] for row in rows()}
    assert stored == {f"n-{number}" for number in range(150) if number not in poison}
    folder = tracker._recorder.folder
    assert folder is not None
    letters = list(letters_in(folder / FILE))
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert {letter.fields["user_id"] for letter in letters} == {f"n-{number}" for number in poison}
    assert {letter.function for letter in letters} == {"record_calls_v1"}
    assert {letter.sqlstate for letter in letters} == {"23514"}
    assert {letter.rule for letter in letters if letter.rule} >= {"token_usage_logs_status"}
    # Mended by hand, they can be sent again, from the file as it is.
    change = {"status": "ok", "prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0}
    mended = [letter.fields | change for letter in letters]
    assert [letter.row for letter in take_letters(folder)] == [letter.row for letter in letters]
    text = json.dumps([row | {"created_at": "2026-05-05T12:00:00Z", "metadata": {}} for row in mended])
    assert tracker.store.call("record_calls_v1", calls=text)["inserted"] == 2
    forget_taken(folder)
    assert len(rows()) == 150
    assert not (folder / FILE).exists()
    without = {
        row["user_id"]: (
            row["metadata"],
            row["total_cost"] > 0,
            abs(row["created_at"] - row["recorded_at"]).seconds < 600,
        )
        for row in rows("select * from token_usage_logs where metadata ? 'notes'")
    }
    said = {61: "22007", 62: "token_usage_logs_created_at", 99: "token_usage_logs_metadata_small"} | {
        100: "token_usage_logs_billed_units"
    }
    assert without == {f"n-{number}": ({"notes": [f"refused:{rule}"]}, True, True) for number, rule in said.items()}


class LateAnswer(datetime):
    """Such a time as other libraries make: it is a datetime, and no time."""

    def replace(self, *_: Any, **__: Any) -> Any:
        raise ValueError


@pytest.mark.parametrize("spool", [True, False])
def test_a_detail_that_no_row_can_hold_is_left_out_and_said(track: Track, rows: Rows, spool: bool) -> None:
    """If this failed, a call would be set aside, its money with it, for a date or a count beside the bill."""
    tracker = track(spool=spool)
    zone = timezone(timedelta(hours=14))
    odd: dict[str, dict[str, Any]] = {
        "before": {"started_at": datetime(1066, 10, 14, tzinfo=UTC)},
        "after": {"started_at": datetime.max.replace(tzinfo=UTC)},
        "edge": {"started_at": datetime.min.replace(tzinfo=zone)},
        "other": {"started_at": LateAnswer(2026, 1, 1)},
        "text": {"started_at": "yesterday"},
        "units": {"billed_units": {f"{'🙂' * 60}{number}": 10**11 + number for number in range(64)}},
        "small": {"metadata": {f"key{number}": 10.0**-300 for number in range(16)}},
    }
    for user, fields in odd.items():
        tracker.record(
            provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=10, user_id=user, **fields
        )
    assert tracker.flush(60).rejected == 0
    found = {row["user_id"]: row for row in rows()}
    assert found.keys() == odd.keys()
    assert {row["total_cost"] for row in found.values()} == {Decimal("0.000021")}
    assert all(abs(row["created_at"] - row["recorded_at"]).total_seconds() < 600 for row in found.values())
    notes = {user: row["metadata"].get("notes", []) for user, row in found.items()}
    for user in ("before", "after", "edge", "other", "text"):
        assert notes[user] == ["invalid_started_at"]
    assert len(found["units"]["billed_units"]) == 16
    assert "invalid_unit" in notes["units"]
    assert found["small"]["metadata"]["key1"] == "1e-300"


def test_a_machine_at_an_impossible_time_costs_no_call(
    track: Track, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of LangChain's on a machine whose battery is dead, or whose clock has run wild."""
    tracker = track()
    for seconds in (-(10.0**9), 10.0**12, -(10.0**17)):
        with monkeypatch.context() as patch:
            patch.setattr("vital_tracking.calls.live.time.time", lambda seconds=seconds: seconds)
            FakeUsageModel(responses=["Well."]).invoke("Hi", {"callbacks": [tracker.handler]})
    assert tracker.flush(60).rejected == 0
    found = rows()
    assert [row["metadata"]["notes"] for row in found] == [["invalid_created_at"]] * 3
    assert all(row["total_cost"] > 0 for row in found)
    assert all(abs(row["created_at"] - row["recorded_at"]).total_seconds() < 600 for row in found)


def test_a_batch_that_is_refused_whole_is_halved_to_the_bad_row(
    track: Track, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no function of the database can read at all is found all the same."""
    tracker, book = track(), Book()
    encoded = exporter.encode_call

    def bad(record: Any, *arguments: Any) -> str:
        return "no row" if record.context.user_id == "n-40" else encoded(record, *arguments)

    monkeypatch.setattr(exporter, "encode_call", bad)
    for number in range(100):
        book.record(tracker, number, user_id=f"n-{number}")
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.rejected) == (True, 99, 1)
    folder = tracker._recorder.folder
    assert folder is not None
    [letter] = letters_in(folder / FILE)
    assert (letter.row, letter.fields) == ("no row", {})
    assert len(rows()) == 99
