"""The batch processor against a real database: when it sends, what it survives, and what it says about it."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.helpers import record, said
from tests.sql.helpers import a_call, call_id
from tests.support.postgres import PostgresServer, outage
from tests.support.stores import WatchedStore, stored_ids
from vital_tracking import Settings, VitalTracker
from vital_tracking.delivery.batch_processor import BatchProcessor
from vital_tracking.delivery.memory_queue import MemoryQueue
from vital_tracking.errors import StoreError
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

Rows = Callable[..., list[dict[str, Any]]]
NEVER_S = 3600.0


@pytest.fixture
def watched(database_url: str) -> Iterator[WatchedStore]:
    store = WatchedStore(PostgresStore(database_url))
    yield store
    store.go.set()
    store.close()


@pytest.fixture
def track(watched: WatchedStore) -> Iterator[Callable[..., VitalTracker]]:
    """Makes trackers on the watched store that send nothing for the passing of time, unless told."""
    made: list[VitalTracker] = []

    def make(**settings: Any) -> VitalTracker:
        made.append(VitalTracker(watched, settings=Settings(**{"flush_interval_s": NEVER_S, **settings})))
        return made[-1]

    yield make
    watched.go.set()
    for tracker in made:
        tracker.close()


@pytest.fixture(autouse=True)
def _give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vital_tracking.stores.postgres._CONNECT_TIMEOUT_S", 1)


def test_a_hundred_calls_are_sent_without_being_asked_for(
    watched: WatchedStore, track: Callable[..., VitalTracker], rows: Rows
) -> None:
    """If this failed, a busy process would show its costs only when it ends."""
    ids = record(track(), 100)
    watched.wait_for(100)
    assert watched.batches == [100]
    assert stored_ids(rows) == sorted(ids)


def test_a_few_calls_are_sent_after_a_while(watched: WatchedStore, track: Callable[..., VitalTracker]) -> None:
    """If this failed, a quiet process would show its costs only when it ends."""
    tracker = track(flush_interval_s=0.1)
    record(tracker, 3)
    watched.wait_for(3)
    record(tracker, 2)
    watched.wait_for(5)


def test_up_to_a_thousand_calls_go_at_once_where_more_wait(
    watched: WatchedStore, track: Callable[..., VitalTracker], rows: Rows
) -> None:
    """If this failed, a backlog would be worked off in small steps, or in requests too large for the API."""
    tracker = track()
    watched.go.clear()
    record(tracker, 100)
    assert watched.entered.wait(30)
    record(tracker, 2500)
    watched.go.set()
    assert tracker.flush(60).complete
    assert sum(watched.batches) == 2600
    assert max(watched.batches) == 1000
    assert len(watched.batches) <= 4
    assert len(stored_ids(rows)) == 2600


def test_calls_made_while_the_database_is_down_arrive_once(
    watched: WatchedStore,
    track: Callable[..., VitalTracker],
    postgres_server: PostgresServer,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If this failed, an outage of the database would lose or double the calls made meanwhile."""
    tracker = track()
    ids: list[str] = []
    half = threading.Barrier(5)

    def work() -> None:
        ids.extend(record(tracker, 400))
        half.wait(60)  # the database goes down here
        half.wait(60)
        ids.extend(record(tracker, 400))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    half.wait(60)
    with outage(postgres_server):
        half.wait(60)
        for worker in workers:
            worker.join(60)
        assert not tracker.flush(0.2).complete
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.waiting, delivered.dropped, delivered.rejected) == (True, 0, 0, 0)
    assert delivered.inserted + delivered.duplicate == 3200
    assert stored_ids(rows) == sorted(ids)
    assert len(set(ids)) == 3200
    assert said(caplog, "sent again") <= 2  # once for what was in hand as the server went, once for the outage
    assert said(caplog, "takes calls again") == said(caplog, "sent again")


class TextExporter:
    """Sends texts as they are to the real function, so that a batch can be refused whole."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.refusals: list[str] = []
        self.requests = 0

    def encode(self, items: Sequence[str]) -> list[str]:
        return list(items)

    def send(self, batch: Sequence[str]) -> None:
        self.requests += 1
        self.store.call("record_calls_v1", calls=f"[{','.join(batch)}]")

    def refused(self, row: str, error: StoreError) -> None:
        self.refusals.append(row)

    def unreadable(self, item: str, error: Exception) -> None:
        self.refusals.append(item)


class TextProcessor(BatchProcessor[str, str]):
    """A batch processor with a queue of its own."""

    def __init__(self, exporter: TextExporter) -> None:
        self.queue: MemoryQueue[str] = MemoryQueue()
        super().__init__(exporter, [self.queue], interval_s=NEVER_S)

    def put(self, text: str) -> None:
        assert self.queue.put(text, len(text))
        self.notice(len(self.queue.waiting))


def test_what_the_database_refuses_whole_is_halved_until_the_bad_stand_alone(watched: WatchedStore, rows: Rows) -> None:
    """If this failed, one poisonous row would hold up every call behind it for ever, or take a batch with it."""
    exporter = TextExporter(watched)
    processor = TextProcessor(exporter)
    poison = {7: "{not json", 8: "}", 600: '"\ud800"'}
    for number in range(800):
        processor.put(poison.get(number) or json.dumps(a_call(number)))
    assert processor.flush(60)
    assert sorted(exporter.refusals) == sorted(poison.values())
    assert stored_ids(rows) == [call_id(number) for number in range(800) if number not in poison]
    assert exporter.requests < 100
    assert processor.close()


def test_calls_wait_for_the_migrations_and_are_told_once(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, calls made before the first `migrate` would be lost, or fill the log."""
    postgres_server.create_database("migrated_later")
    url = postgres_server.url("migrated_later")
    tracker = VitalTracker(PostgresStore(url), settings=Settings(flush_interval_s=NEVER_S))
    record(tracker, 250)
    for _ in range(3):
        delivered = tracker.flush(0.3)
        assert (delivered.complete, delivered.inserted, delivered.dropped, delivered.waiting) == (False, 0, 0, 250)
    assert said(caplog, "vital-tracking migrate") == 1
    with_rights = PostgresStore(url)
    with_rights.migrate(find_migrations())
    with_rights.close()
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.dropped) == (True, 250, 0)
    assert said(caplog, "takes calls again") == 1
    tracker.close()
    postgres_server.drop_database("migrated_later")


def test_a_full_queue_keeps_the_money_of_the_rest_and_says_so_once(
    watched: WatchedStore,
    track: Callable[..., VitalTracker],
    postgres_server: PostgresServer,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If this failed, a long outage would fill the memory, or calls would vanish without a word."""
    tracker = track(spool=False, queue_bytes=100_000)
    with outage(postgres_server):
        ids = record(tracker, 1000)
        stats = tracker.stats()
        assert (stats.dropped, stats.spooled) == (0, 0)
        assert 100 < stats.waiting < 400
        assert stats.merged + stats.waiting == 1000
        assert 0 < stats.shortened < stats.waiting
        assert said(caplog, "only the money is kept") == 1
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.dropped) == (True, 0)
    found = rows()
    merged = [row for row in found if row["calls"] > 1]
    assert {str(row["id"]) for row in found if row["calls"] == 1} < set(ids)
    assert [row["metadata"]["notes"] for row in merged] == [["merged", "shortened"]] * len(merged)
    assert sum(row["calls"] for row in merged) == stats.merged
    assert sum(row["calls"] for row in found) == 1000
    assert sum(row["prompt_tokens"] for row in found) == 10_000
    assert sum(row["total_cost"] for row in found) == 1000 * (10 * Decimal("0.15") + Decimal("0.60")) / 1_000_000


def test_flush_tells_the_truth_and_keeps_its_time(
    watched: WatchedStore, track: Callable[..., VitalTracker], postgres_server: PostgresServer, rows: Rows
) -> None:
    """If this failed, a program would believe its calls were safe, or hang where it asked."""
    tracker = track()
    assert tracker.flush(5).complete  # nothing to do
    with outage(postgres_server):
        record(tracker, 30)
        for _ in range(3):
            started = time.monotonic()
            delivered = tracker.flush(0.3)
            assert time.monotonic() - started < 3
            assert (delivered.complete, delivered.inserted, delivered.waiting) == (False, 0, 30)
        assert tracker.stats().waiting == 30
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.waiting) == (True, 30, 0)
    assert len(stored_ids(rows)) == 30


def test_close_keeps_its_time_while_the_database_is_down_and_counts_what_it_leaves(
    watched: WatchedStore,
    track: Callable[..., VitalTracker],
    postgres_server: PostgresServer,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If this failed, a program would hang at its end, or lose calls without a word."""
    tracker = track()
    record(tracker, 30)
    flushed: list[bool] = []
    with outage(postgres_server):
        waiting = threading.Thread(target=lambda: flushed.append(tracker.flush(None).complete))
        waiting.start()
        watched.entered.wait(30)
        started = time.monotonic()
        delivered = tracker.close()
        assert time.monotonic() - started < 7
        waiting.join(10)
    assert flushed == [False]
    assert (delivered.complete, delivered.inserted, delivered.dropped) == (False, 0, 0)
    assert (delivered.waiting, delivered.spooled) == (30, 30)
    assert said(caplog, "30 calls wait in the spool") == 1
    record(tracker, 1)
    assert tracker.stats().dropped == 1
    record(track(), 1)
    watched.wait_for(30)  # what the last one left is delivered as soon as the next one begins
    assert len(stored_ids(rows)) >= 30


def test_close_sends_what_waits(watched: WatchedStore, track: Callable[..., VitalTracker], rows: Rows) -> None:
    """If this failed, the last calls of every program would be lost."""
    tracker = track()
    ids = record(tracker, 42)
    delivered = tracker.close()
    assert (delivered.complete, delivered.inserted) == (True, 42)
    assert stored_ids(rows) == sorted(ids)
    assert tracker.close() == delivered


def test_many_threads_that_record_and_flush_lose_nothing(track: Callable[..., VitalTracker], rows: Rows) -> None:
    """If this failed, concurrency would lose or double calls."""
    tracker = track(batch_size=10)
    ids: list[str] = []

    def work() -> None:
        for _ in range(10):
            ids.extend(record(tracker, 20))
            assert tracker.flush(60).complete

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    delivered = tracker.flush(60)
    assert (delivered.inserted, delivered.duplicate, delivered.dropped) == (1600, 0, 0)
    assert stored_ids(rows) == sorted(ids)


def test_a_call_that_ends_in_garbage_collection_inside_another_put_is_stored(
    track: Callable[..., VitalTracker], rows: Rows
) -> None:
    """If this failed, a stream broken off at the wrong moment would deadlock the program."""
    tracker = track(batch_size=10)
    ids: list[str] = []

    class Stream:
        def __init__(self) -> None:
            self.itself = self  # only the collector ends it

        def __del__(self) -> None:
            ids.extend(record(tracker, 1))

    threshold = gc.get_threshold()
    try:
        gc.set_threshold(1, 1, 1)  # the collector runs at nearly every step of `put`
        for _ in range(300):
            Stream()
            ids.extend(record(tracker, 1))
        assert tracker.flush(60).complete
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert tracker.flush(60).complete
    assert len(ids) == 600
    assert stored_ids(rows) == sorted(ids)


def test_an_item_put_from_the_delivering_thread_is_sent_too(watched: WatchedStore, rows: Rows) -> None:
    """If this failed, a stream collected on the batch processor's own thread would deadlock delivery."""

    class Reentrant(TextExporter):
        def send(self, batch: Sequence[str]) -> None:
            if self.requests == 0:
                processor.put(json.dumps(a_call(2)))
            super().send(batch)

    processor = TextProcessor(Reentrant(watched))
    processor.put(json.dumps(a_call(1)))
    assert processor.flush(30)
    assert processor.close()
    assert stored_ids(rows) == [call_id(1), call_id(2)]
