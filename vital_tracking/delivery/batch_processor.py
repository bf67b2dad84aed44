"""One daemon thread that reads items from their sources and delivers them in batches. It knows sources and exporter, nothing of
calls.

An item leaves its source when the store has it, or will never take it: a thread that dies loses nothing, the next one goes on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence, Sized
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

from vital_tracking.errors import StoreError, StoreNotReady, StoreRejected, StoreUnavailable

logger = logging.getLogger("vital_tracking.delivery")

Item = TypeVar("Item")
Encoded = TypeVar("Encoded")
Item_contra = TypeVar("Item_contra", contravariant=True)
_Result = TypeVar("_Result")

# Spreads retries. A generator of our own, since an application may have seeded the common one and rely on its numbers.
_spread: Final = random.Random().uniform  # noqa: S311

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 30.0
_WAITED_FOR_S: Final = 0.5
_AFTER_FAULT_S: Final = 0.5  # until what a fault of ours has interrupted is tried again
_LAST_WORDS_S: Final = 0.5


class Source(Protocol[Item]):
    """Where items wait. Read by one thread; `ack` or `rewind` comes before the next `read`."""

    def read(self, limit: int) -> list[Item]:
        """The next items, at most `limit`."""

    def ack(self) -> None:
        """What was read last is done with."""

    def rewind(self) -> None:
        """What was read last is to be read again."""


class OwnSource(Source[Item], Protocol[Item]):
    """A source that goes on being filled."""

    @property
    def waiting(self) -> Sized:
        """What is not acknowledged."""

    def end(self) -> Any:
        """The place behind everything that was put before; comparable with `acked`."""

    @property
    def acked(self) -> Any:
        """The place before which everything is acknowledged."""


class Exporter(Protocol[Item_contra, Encoded]):
    """Encodes items and sends them. Raises StoreUnavailable or StoreNotReady to be asked again, StoreRejected to be split."""

    def encode(self, items: Sequence[Item_contra]) -> list[Encoded]:
        """Turn items into what is sent; called once for a batch, again only where it raised."""

    def send(self, batch: Sequence[Encoded]) -> None:
        """Send a batch whole; returns when the store has acknowledged it."""

    def refused(self, row: Encoded, error: StoreError) -> None:
        """Set aside one row that the store will never take."""

    def unreadable(self, item: Item_contra, error: Exception) -> None:
        """Set aside one item that cannot be encoded."""


class BatchProcessor(Generic[Item, Encoded]):
    """Delivers items in the background: as soon as `batch_size` wait or `interval_s` have passed, up to `max_batch` at once.

    Without `background` there is no thread but while somebody waits in `flush`. `further_sources` gives sources that are only
    emptied, after the others, but not while the process is ending; `on_tick` does what is due from time to time, at least once an
    interval. Both are called on the processor's thread.
    """

    def __init__(
        self,
        exporter: Exporter[Item, Encoded],
        sources: Sequence[OwnSource[Item]],
        *,
        batch_size: int = 100,
        max_batch: int = 1000,
        interval_s: float = 5.0,
        background: bool = True,
        further_sources: Callable[[], Sequence[Source[Item]]] = tuple,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._exporter = exporter
        self._sources = sources
        self._batch_size = batch_size
        self._max_batch = max_batch
        self._interval_s = interval_s
        self._background = background
        self._further_sources = further_sources
        self._on_tick = on_tick
        self._wake: SimpleQueue[None] = SimpleQueue()
        # Reentrant: garbage collection may end a call, which calls `notice`, while this thread holds the lock.
        self._lock = threading.RLock()
        self._working = threading.RLock()
        self._moved = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running = False
        self._signalled = False
        self._in_hand = 0
        self._closing = False
        self._flushing = 0
        self._deadline: float | None = None
        self.troubled = False
        self._faulty = False

    @property
    def waiting(self) -> int:
        """Items that wait or are being sent."""
        return sum(len(source.waiting) for source in self._sources)

    @property
    def closing(self) -> bool:
        """Whether `close` was called: nothing is accepted any more."""
        return self._closing

    def notice(self, waiting: int) -> None:
        """Something was put into a source, where so many wait now."""
        if waiting - self._in_hand >= self._batch_size and not self._signalled:
            self._signalled = True
            self._wake.put(None)
        if not self._running:
            self.start()

    def start(self) -> None:
        """Have the thread run, so that `on_tick` is called although nothing is put."""
        if not self._running and self._background:
            self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put before is stored or set aside; False where `timeout` seconds were not enough."""
        if self._closing:
            return not self.waiting
        ends = [(source, source.end()) for source in self._sources]

        def done() -> bool:
            return all(source.acked >= end for source, end in ends)

        if done():
            return True
        if threading.current_thread() is self._thread:
            return False  # called from within a delivery, which would wait for itself
        with self._lock:
            self._flushing += 1
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            left = timeout
            while not (done() or self._closing or (left is not None and left <= 0)):
                if not self._running and not self._start():
                    self._work_inline(left)
                    break
                self._wake.put(None)
                with self._moved:  # a thread that dies over it is replaced
                    self._moved.wait_for(lambda: done() or self._closing or not self._running, left)
                left = None if deadline is None else deadline - time.monotonic()
            return done()
        finally:
            with self._lock:
                self._flushing -= 1
            if not self._background:
                self._wake.put(None)  # let the thread go

    def close(self, timeout: float = 5.0, *, patience: float | None = None) -> bool:
        """Deliver what waits, for at most `timeout` seconds, and stop; False where the thread has something in hand.

        With `patience` it gives up sooner: where nothing was acknowledged for so many seconds.
        """
        self._deadline = time.monotonic() + timeout
        self._closing = True
        self._wake.put(None)
        with self._moved:
            self._moved.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            before = None
            while thread.is_alive() and (left := self._deadline - time.monotonic()) > 0:
                if patience is not None:
                    acked = [source.acked for source in self._sources]
                    if acked == before:
                        break
                    before, left = acked, min(left, patience)
                thread.join(left)
            if self._late():
                thread.join(_LAST_WORDS_S)  # it notices the deadline no sooner than we do
        if thread is not None and thread.is_alive():
            return False
        self._turn()
        return True

    def empty(self, source: Source[Item], deadline: float, on_progress: Callable[[int], None]) -> None:
        """Deliver what one source holds, on the caller's thread, until it is empty or the deadline comes."""
        with self._working:
            self._deadline = deadline
            try:
                while not self._late() and (delivered := self._deliver(source)):
                    on_progress(delivered)
            finally:
                self._deadline = None

    def _start(self) -> bool:
        with self._lock:
            if self._running:
                return True
            if self._closing:
                return False
            thread = threading.Thread(target=self._run, name="vital-tracking-writer", daemon=True)
            self._running = True
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down, or has no threads
                self._running = False
                return False
            self._thread = thread
            return True

    def _run(self) -> None:
        wake = self._wake
        try:
            if self._further_sources():
                wake.put(None)  # they need not wait for an interval
            pause = self._interval_s
            while self._goes_on():
                with suppress(Empty):
                    wake.get(timeout=pause)
                pause = self._interval_s if self._turn() else min(self._interval_s, _AFTER_FAULT_S)
            if self._closing:
                self._turn()
        finally:
            # Whether it has died or is done: the next `notice` or `flush` starts another thread.
            with self._lock:
                if self._thread is threading.current_thread():
                    self._signalled = self._running = False
            with self._moved:
                self._moved.notify_all()

    def _goes_on(self) -> bool:
        """Whether the thread has more to do; if not, a `flush` from now on starts another thread."""
        with self._lock:
            if self._closing or not (self._background or self._flushing):
                self._running = False
                return False
            return True

    def _turn(self) -> bool:
        """Deliver what waits; False where a fault of ours came between."""
        try:
            self._work_through()
        except Exception as error:  # noqa: BLE001 - the next turn does again what this one was doing
            if not self._faulty:
                self._faulty = True
                logger.warning("The writer met a fault of its own (%s) and goes on.", type(error).__name__)
            return False
        return True

    def _work_inline(self, timeout: float | None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._turn()
        finally:
            self._deadline = None

    def _work_through(self) -> None:
        with self._working:
            more = True
            while more and not self._late():
                self._on_tick()
                self._signalled = False
                done = [self._deliver(source) for source in self._sources]
                if None in done:
                    return  # the deadline came first
                if not self._closing:
                    done += [self._deliver(source) for source in self._further_sources()]
                more = any(done) and (self._is_due() or any(done[len(self._sources) :]))
            self._on_tick()

    def _is_due(self) -> bool:
        """Whether to go on at once: a few items wait for more, unless the processor closes or somebody waits in `flush`."""
        return self._closing or self._flushing > 0 or self.waiting >= self._batch_size

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _deliver(self, source: Source[Item]) -> int | None:
        """Deliver one batch of a source: how many items it had, None where a deadline came first."""
        done = False
        try:
            items = source.read(self._max_batch)
            self._in_hand = len(items) if source in self._sources else 0
            done = not items or self._deliver_items(items)
        finally:
            if done:
                source.ack()
                with self._moved:
                    self._moved.notify_all()
            else:
                source.rewind()
            self._in_hand = 0
        return len(items) if done else None

    def _deliver_items(self, items: Sequence[Item]) -> bool:
        """Encode and send; False where a deadline came first."""
        try:
            encoded = self._persist(lambda: self._exporter.encode(items))
            return encoded is not None and self._send(encoded)
        except Exception as error:  # noqa: BLE001 - an exporter that breaks its word must not end the delivery of the rest
            if len(items) == 1:
                self._exporter.unreadable(items[0], error)
                return True
            middle = len(items) // 2
            return self._deliver_items(items[:middle]) and self._deliver_items(items[middle:])

    def _send(self, rows: list[Encoded]) -> bool:
        """Send rows; where the store refuses them whole, halve until the refused ones stand alone."""
        try:
            return not rows or self._persist(lambda: self._sent(rows)) is not None
        except StoreRejected as error:
            if len(rows) == 1:
                self._exporter.refused(rows[0], error)
                return True
            middle = len(rows) // 2
            return self._send(rows[:middle]) and self._send(rows[middle:])

    def _sent(self, rows: list[Encoded]) -> bool:
        self._exporter.send(rows)
        return True

    def _persist(self, attempt: Callable[[], _Result]) -> _Result | None:
        """Try until it works, backing off from a quarter of a second to half a minute; None once a deadline has come."""
        delay = _FIRST_DELAY_S
        while True:
            try:
                result = attempt()
            except (StoreUnavailable, StoreNotReady) as error:
                self._say_troubled(error)
            else:
                self._say_recovered()
                return result
            wait = delay * _spread(0.5, 1.0)
            if self._deadline is not None:
                wait = min(wait, self._deadline - time.monotonic())
                if wait <= 0:
                    return None
            if not (self._background or self._flushing):
                return None  # without `background`, the thread works only while somebody waits in `flush`
            if self._flushing:
                wait = min(wait, _WAITED_FOR_S)
            self._on_tick()
            # An exit or a flush cuts the wait short.
            with suppress(Empty):
                self._wake.get(timeout=wait)
            delay = min(delay * 2, _LONGEST_DELAY_S)

    def _say_recovered(self) -> None:
        if self.troubled:
            self.troubled = False
            logger.warning("The database takes calls again.")

    def _say_troubled(self, error: StoreError) -> None:
        if not self.troubled:
            self.troubled = True
            logger.warning("%s Calls wait and are sent again (%d waiting).", error, self.waiting)
