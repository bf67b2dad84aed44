"""The database is away, slow, not migrated, or its answers are lost: no call is lost, none is stored twice, and nobody waits."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Rows, dollars, record, said
from tests.support.effort import LONG
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer, outage
from tests.support.slow_proxy import SlowProxy
from tests.support.stores import WatchedStore, stored_ids
from tests.support.waiting import until
from vital_tracking import Settings, VitalTracker
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

NEVER_S = 3600.0
CALLS = 10_000


@pytest.fixture(autouse=True)
def _give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vital_tracking.stores.postgres._CONNECT_TIMEOUT_S", 1)


def speed(store: WatchedStore, count: int) -> float:
    """Calls a second over the last so many, from the first batch's acknowledgement to the last's."""
    batches: list[tuple[float, int]] = []
    for batch in reversed(store.inserted):
        batches.insert(0, batch)
        if sum(number for _, number in batches) >= count:
            break
    return sum(number for _, number in batches[1:]) / (batches[-1][0] - batches[0][0])


def resident_bytes() -> int:
    """What this process takes up in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def make_calls(tracker: VitalTracker, count: int, session: str, pace_s: float = 0.0) -> list[str]:
    """Make calls on four threads, each fourth of them LangChain's; the ids of the others."""
    handler, model = tracker.handler, FakeUsageModel(responses=["Well."])
    ids: list[str] = []

    def work() -> None:
        for number in range(count // 4):
            if number % 4:
                ids.extend(record(tracker, 1, session_id=session))
            else:
                model.invoke("Hi", {"callbacks": [handler], "metadata": {"vital_session_id": session}})
            if pace_s:
                time.sleep(pace_s)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(170)
    return ids


def speed_of_plain_delivery(database_url: str) -> float:
    """Calls a second that go from memory to the database, when nothing is in the way."""
    store = WatchedStore(PostgresStore(database_url))
    tracker = VitalTracker(store, settings=Settings(spool=False, background=False))
    make_calls(tracker, 8, "before")
    assert tracker.flush(60).complete
    make_calls(tracker, CALLS // 2, "plain")
    assert tracker.flush(60).inserted == 8 + CALLS // 2
    tracker.close()
    return speed(store, CALLS // 2)


def test_ten_thousand_calls_during_an_outage_arrive_once(
    postgres_server: PostgresServer, database_url: str, spool_dir: Path, rows: Rows
) -> None:
    """If this failed, an hour without the database would lose calls, fill the memory, or take hours to catch up with."""
    plain = speed_of_plain_delivery(database_url)
    store = WatchedStore(PostgresStore(database_url))
    tracker = VitalTracker(store, settings=Settings(flush_interval_s=0.05, spool_dir=spool_dir))
    make_calls(tracker, 8, "before")
    assert tracker.flush(60).complete
    before = resident_bytes()
    with outage(postgres_server):
        ids = make_calls(tracker, CALLS, "outage", pace_s=60 * 4 / CALLS if LONG else 0.0)
        grown = resident_bytes() - before
        stats = tracker.stats()
        assert (stats.waiting, stats.spooled, stats.dropped, stats.merged) == (CALLS, CALLS, 0, 0)
        assert tracker._recorder._queue.bytes == 0
    started = time.perf_counter()
    delivered = tracker.flush(120)
    took = time.perf_counter() - started
    drained = speed(store, CALLS)
    tracker.close()
    assert (delivered.complete, delivered.waiting, delivered.dropped, delivered.rejected) == (True, 0, 0, 0)
    print(
        f"drained {drained:.0f}/s, plain {plain:.0f}/s, ratio {drained / plain:.2f};",
        f"all in {took:.1f} s; memory +{grown >> 20} MiB",
    )
    found = rows("select * from token_usage_logs where session_id = 'outage'")
    assert len(found) == CALLS
    assert {str(row["id"]) for row in found if row["run_id"] is None} == set(ids)
    assert len({row["run_id"] for row in found} - {None}) == CALLS // 4
    assert len(set(ids)) == CALLS * 3 // 4
    direct, asked = dollars((10, "0.15"), (1, "0.60")), dollars((100, "0.15"), (20, "0.60"))
    assert sum(row["total_cost"] for row in found) == direct * len(ids) + asked * (CALLS // 4)
    assert grown < 24 << 20
    assert drained > plain * 0.2


@pytest.mark.parametrize("what", ["request", "answer"])
def test_requests_and_answers_that_are_lost_double_nothing_and_lose_nothing(
    what: Any, postgres_server: PostgresServer, database_url: str, spool_dir: Path, rows: Rows
) -> None:
    """If this failed, a network that breaks at the wrong moment would bill calls twice, or not at all."""
    cuts = 12
    with FaultProxy(postgres_server.port) as proxy:
        settings = Settings(flush_interval_s=0.02, batch_size=50, spool_dir=spool_dir)
        # One description for both ways to the database: what is left in the spool belongs to the same one.
        tracker = VitalTracker(PostgresStore(proxy.url(database_url), description="one database"), settings=settings)
        ids: list[str] = []
        chance = random.Random(5)
        for number in range(cuts):
            proxy.lose(1, b"record_calls_v", what)
            ids += record(tracker, chance.randrange(1, 400))
            until(lambda number=number: proxy.lost > number, 30)  # type: ignore[misc]
            delivered = tracker.flush(60)
        assert (delivered.complete, delivered.dropped, delivered.rejected) == (True, 0, 0)
        assert delivered.inserted + delivered.duplicate == len(ids)
        if what == "answer":  # the database had these all the time
            assert delivered.duplicate >= cuts
        else:
            assert delivered.duplicate == 0
        tracker.close()
    assert stored_ids(rows) == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_a_process_that_dies_between_commit_and_answer_leaves_nothing_to_be_billed_twice(
    postgres_server: PostgresServer, database_url: str, spool_dir: Path, rows: Rows
) -> None:
    """If this failed, a crash right after a commit would bill its calls again at the next start."""
    with FaultProxy(postgres_server.port) as proxy:
        url = proxy.url(database_url)
        settings = Settings(flush_interval_s=NEVER_S, batch_size=1000, spool_dir=spool_dir)
        tracker = VitalTracker(PostgresStore(url, description="one database"), settings=settings)
        ids = record(tracker, 1)
        assert tracker.flush(60).complete
        proxy.lose(1_000_000, b"record_calls_v", "answer")
        ids += record(tracker, 500)
        assert not tracker.flush(0.5).complete
        until(lambda: proxy.lost, 30)
        until(lambda: len(stored_ids(rows)) > 1, 30)
        assert not tracker.close(1).complete
    heir = VitalTracker(PostgresStore(database_url, description="one database"), settings=settings)
    assert heir._recorder.replay(60)
    stats = heir.stats()
    assert stats.inserted + stats.duplicate == stats.replayed
    assert stats.duplicate > 0
    heir.close()
    assert stored_ids(rows) == sorted(ids)


def test_five_seconds_of_latency_delay_no_caller(
    postgres_server: PostgresServer, database_url: str, spool_dir: Path, rows: Rows
) -> None:
    """If this failed, a slow network would slow down every model call, or hang the program where it flushes."""
    with SlowProxy(postgres_server.port) as proxy:
        store = PostgresStore(proxy.url(database_url), description="far away")
        tracker = VitalTracker(store, settings=Settings(flush_interval_s=0.02, spool_dir=spool_dir))
        model = FakeUsageModel(responses=["Well."])
        record(tracker, 1)
        model.invoke("Hi", {"callbacks": [tracker.handler]})
        assert tracker.flush(60).complete
        proxy.delay_s = 5.0
        slowest = 0.0
        began = time.perf_counter()
        for number in range(300):
            started = time.perf_counter()
            if number % 3:
                record(tracker, 1)
            else:
                model.invoke("Hi", {"callbacks": [tracker.handler]})
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 1.0  # a thousand times what it takes, a fraction of one answer of the database
        assert time.perf_counter() - began < 4.0
        started = time.perf_counter()
        delivered = tracker.flush(0.5)
        assert 0.4 < time.perf_counter() - started < 1.5
        assert (delivered.complete, delivered.waiting, delivered.spooled) == (False, 300, 300)
        proxy.delay_s = 0.0
        delivered = tracker.flush(60)
        assert (delivered.complete, delivered.inserted, delivered.duplicate) == (True, 302, 0)
        tracker.close()
    assert len(set(stored_ids(rows))) == 302


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Any:
    """A database that nobody has migrated."""
    name = f"not_migrated_{os.getpid()}_{time.monotonic_ns()}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.mark.parametrize("who", ["the same process", "a later process"])
def test_calls_wait_for_missing_migrations(
    who: str, empty_database: str, spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, calls made before the first `migrate` would be dropped, or set aside as refused."""
    settings = Settings(flush_interval_s=0.05, spool_dir=spool_dir)
    tracker = VitalTracker(PostgresStore(empty_database), settings=settings)
    ids = record(tracker, 250)
    for _ in range(2):
        delivered = tracker.flush(0.3)
        assert (delivered.complete, delivered.waiting, delivered.spooled) == (False, 250, 250)
        assert (delivered.dropped, delivered.rejected) == (0, 0)
    assert said(caplog, "vital-tracking migrate") == 1
    if who == "a later process":
        assert not tracker.close().complete
        assert said(caplog, str(spool_dir)) == 1
    with_rights = PostgresStore(empty_database)
    with_rights.migrate(find_migrations())
    if who == "a later process":
        tracker = VitalTracker(PostgresStore(empty_database), settings=settings)
        assert tracker._recorder.replay(60)
        assert tracker.stats().inserted == 250
    else:
        delivered = tracker.flush(60)
        assert (delivered.complete, delivered.inserted, delivered.rejected) == (True, 250, 0)
    found = with_rights.read("token_usage_logs", columns=["id", "total_cost"], limit=1000)
    with_rights.close()
    assert sorted(str(row["id"]) for row in found) == sorted(ids)
    assert all(row["total_cost"] == dollars((10, "0.15"), (1, "0.60")) for row in found)
    tracker.close()
    assert not list(spool_dir.rglob("*.segment"))
    assert not list(spool_dir.rglob("rejected.jsonl"))
