"""What waits in memory: bounded, in order, and safe from itself."""

from __future__ import annotations

import gc
import itertools
import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vital_tracking import PriceBook, Settings
from vital_tracking.delivery import Recorder
from vital_tracking.delivery.memory_queue import MemoryQueue
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.testing import MemoryStore

LIMIT = 1000


class Waiting(RuleBasedStateMachine):
    """A queue beside a list of what must be in it.

    If this failed, calls that wait in memory would be lost, sent twice, or grow past what they may take.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue: MemoryQueue[int] = MemoryQueue(LIMIT)
        self.numbers = itertools.count()
        self.held: list[tuple[int, int]] = []
        self.taken = 0
        self.done = 0

    @rule(size=st.integers(0, 1500))
    def put(self, size: int) -> None:
        number = next(self.numbers)
        fits = not self.held or sum(size for _, size in self.held) + size <= LIMIT
        assert self.queue.put(number, size) == fits
        if fits:
            self.held.append((number, size))

    @precondition(lambda self: not self.taken)
    @rule(limit=st.integers(1, 10))
    def take(self, limit: int) -> None:
        found = self.queue.read(limit)
        assert found == [number for number, _ in self.held[:limit]]
        self.taken = len(found)

    @rule()
    def settle(self) -> None:
        self.queue.ack()
        del self.held[: self.taken]
        self.done += self.taken
        self.taken = 0

    @rule()
    def rewind(self) -> None:
        self.queue.rewind()
        self.taken = 0

    @invariant()
    def agrees(self) -> None:
        held = sum(size for _, size in self.held)
        assert (len(self.queue.waiting), self.queue.bytes) == (len(self.held), held)
        assert (self.queue.acked, self.queue.end()) == (self.done, self.done + len(self.held))
        assert self.queue.nearly_full == (held > 0.75 * LIMIT)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True)


def test_eight_threads_and_a_reader_lose_nothing() -> None:
    """If this failed, calls of busy processes would be lost where there is no spool."""
    queue: MemoryQueue[tuple[int, int]] = MemoryQueue(20_000)
    begin = threading.Barrier(9)
    found: list[tuple[int, int]] = []

    def put(thread: int) -> None:
        begin.wait(30)
        for number in range(500):
            while not queue.put((thread, number), 100):
                pass

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    begin.wait(30)
    while len(found) < 4000:
        found += queue.read(50)
        queue.ack()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [(thread, number) for thread in range(8) for number in range(500)]
    for thread_number in range(8):
        assert [number for thread, number in found if thread == thread_number] == list(range(500))
    assert (queue.bytes, len(queue.waiting), queue.acked) == (0, 0, 4000)


def test_a_put_from_garbage_collection_in_any_step_is_kept() -> None:
    """If this failed, garbage collection at the wrong moment would stop the program, or break the sums of the queue."""
    queue: MemoryQueue[int] = MemoryQueue()
    numbers = itertools.count()

    class Stream:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            queue.put(next(numbers), 10)

    thresholds = gc.get_threshold()
    found: list[int] = []
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(200):
            Stream()
            queue.put(next(numbers), 10)
            found += queue.read(2)
            queue.ack()
            queue.end()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    found += queue.read(1000)
    queue.ack()
    assert sorted(found) == list(range(400))
    assert queue.bytes == 0


def test_a_forked_child_starts_with_an_empty_queue() -> None:
    """If this failed, a forked child would send its parent's calls, or wait for a lock that nobody holds."""
    recorder = Recorder(MemoryStore(), PriceBook(), Settings(background=False, queue_bytes=100))
    queue = recorder._queue
    record = LogRecord(RecordKind.RUN, bytes(16), b"{}")
    queue.put(record, 90)
    queue.read(1)
    queue._lock.acquire()
    recorder.reset_after_fork()
    queue = recorder._queue
    thread = threading.Thread(target=lambda: queue.put(record, 90))
    thread.start()
    thread.join(30)
    assert queue.read(10) == [record]
    queue.ack()
    assert (queue.bytes, queue.end()) == (0, 1)
