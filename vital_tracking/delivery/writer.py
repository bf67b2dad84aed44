"""A bounded queue and one daemon thread that delivers it in batches. It knows queue, clock and courier, nothing of calls.

`put` never blocks, takes no lock in its common path, and may be entered again while it runs: garbage collection can end a
call, and so put an item, in the middle of another put on the same thread.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

from vital_tracking.errors import StoreError, StoreNotReady, StoreRejected, StoreUnavailable

logger = logging.getLogger("vital_tracking.delivery")

Item = TypeVar("Item")
_Item_contra = TypeVar("_Item_contra", contravariant=True)
Encoded = TypeVar("Encoded")
_Result = TypeVar("_Result")

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 30.0


class Courier(Protocol[_Item_contra, Encoded]):
    """Encodes items and sends them. Raises StoreUnavailable or StoreNotReady to be asked again, StoreRejected to be split."""

    def encode(self, items: Sequence[_Item_contra]) -> list[Encoded]:
        """Turn items into what is sent; called once for a batch, again only where it raised."""

    def send(self, batch: Sequence[Encoded]) -> bool:
        """Send a batch whole; True when the store has acknowledged it."""

    def refused(self, row: Encoded, error: StoreError) -> None:
        """Take note of one row that the store will never take."""

    def tick(self) -> None:
        """Do what is due from time to time; called on the writer's thread at least once an interval."""


@dataclass(slots=True)
class _Marker:
    """Put behind items by `flush`: reached when everything before it is settled, or will never be."""

    reached: threading.Event = field(default_factory=threading.Event)
    settled: bool = False

    def reach(self, *, settled: bool) -> None:
        self.settled = settled
        self.reached.set()


class Writer(Generic[Item, Encoded]):
    """Delivers items in the background: as soon as `batch_size` wait or `interval_s` have passed, up to `max_batch` at once.

    At most `capacity` items wait; what comes on top is dropped, counted and logged once an outage.
    """

    def __init__(
        self,
        courier: Courier[Item, Encoded],
        *,
        batch_size: int = 100,
        max_batch: int = 1000,
        interval_s: float = 5.0,
        capacity: int = 10_000,
    ) -> None:
        self._courier = courier
        self._batch_size = batch_size
        self._max_batch = max_batch
        self._interval_s = interval_s
        self._capacity = capacity
        self._dropped = 0
        self._reset()

    def _reset(self) -> None:
        self._items: deque[Item | _Marker] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        # Reentrant: see the module's first lines.
        self._lock = threading.RLock()
        self._working = threading.RLock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._signalled = False
        self._closing = False
        self._deadline: float | None = None
        self._in_hand = 0
        self._troubled = False
        self._drops = itertools.count(1)
        self._drop_logged = False

    @property
    def waiting(self) -> int:
        """Items that wait or are being sent."""
        return sum(not isinstance(item, _Marker) for item in self._items.copy()) + self._in_hand

    @property
    def dropped(self) -> int:
        """Items lost because the queue was full or the process ended first."""
        return self._dropped

    def put(self, item: Item) -> bool:
        """Queue an item; False where it had to be dropped."""
        items = self._items
        if self._closing or len(items) >= self._capacity:
            self._drop(1)
            return False
        items.append(item)
        if len(items) >= self._batch_size and not self._signalled:
            self._signalled = True
            self._wake.put(None)
        if not self._running:
            self._start()
        return True

    def start(self) -> None:
        """Have the thread run, so that the courier is ticked although nothing is put."""
        if not self._running:
            self._start()

    def refuse(self) -> None:
        """Count an item that came after the end."""
        self._drop(1)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put before is settled (stored or refused); False where `timeout` seconds were not enough."""
        if self._closing or not (self._running or self._items):
            return not self.waiting
        marker = _Marker()
        self._items.append(marker)
        if not self._running:
            self._start()
        self._wake.put(None)
        return marker.reached.wait(timeout) and marker.settled

    def close(self, timeout: float = 5.0) -> bool:
        """Deliver what waits, for at most `timeout` seconds, and stop; False where something had to be left behind."""
        self._deadline = time.monotonic() + timeout
        self._closing = True
        dropped = self._dropped
        self._wake.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        if self._items and not (thread and thread.is_alive()):
            self._work_through()
        if not (thread and thread.is_alive()):
            self._drop(self._in_hand)
            self._in_hand = 0  # else a request is still under way, and may yet be answered
        while self._items:
            item = self._items.popleft()
            if isinstance(item, _Marker):
                item.reach(settled=False)
            else:
                self._drop(1)
        if self._in_hand:
            logger.warning(
                "Time is over with %d calls on their way; whether they are stored is unknown.", self._in_hand
            )
        return not (self._in_hand or self._dropped > dropped)

    def reset_after_fork(self) -> None:
        """In a forked child: start empty; what the parent had queued is the parent's to send."""
        self._dropped = 0
        self._reset()

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._dropped = next(self._drops)
        if count and not self._drop_logged:
            self._drop_logged = True
            logger.warning(
                "Calls are being dropped: %s. Raise VITAL_QUEUE_SIZE, or see what `vital-tracking doctor` says.",
                "the tracker is closed or the process is ending" if self._closing else "the queue is full",
            )

    def _start(self) -> None:
        with self._lock:
            if self._running or self._closing:
                return
            thread = threading.Thread(target=self._run, name="vital-tracking-writer", daemon=True)
            self._running = True
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down; close() delivers inline
                self._running = False
                return
            self._thread = thread

    def _run(self) -> None:
        try:
            while not self._closing:
                with suppress(Empty):
                    self._wake.get(timeout=self._interval_s)
                self._work_through()
            self._work_through()
        finally:
            # Dead or done: the next put starts another.
            self._running = False

    def _work_through(self) -> None:
        with self._working:
            more = True
            while more and self._items and not self._late():
                self._courier.tick()
                self._signalled = False
                batch, marker = self._take()
                delivered = not batch or self._deliver(batch)
                if marker is not None:
                    marker.reach(settled=delivered)
                if not delivered:
                    return
                self._in_hand = 0
                more = self._is_due()
            self._courier.tick()

    def _is_due(self) -> bool:
        """Whether to go on at once: few items wait for company, unless somebody waits for them."""
        if self._closing or len(self._items) >= self._batch_size:
            return True
        return any(isinstance(item, _Marker) for item in self._items.copy())

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _take(self) -> tuple[list[Item], _Marker | None]:
        batch: list[Item] = []
        while self._items and len(batch) < self._max_batch:
            self._in_hand = len(batch) + 1
            item = self._items.popleft()
            if isinstance(item, _Marker):
                self._in_hand = len(batch)
                return batch, item
            batch.append(item)
        return batch, None

    def _deliver(self, items: list[Item]) -> bool:
        """Encode and send; False where the deadline of `close` came first."""
        try:
            encoded = self._persist(lambda: self._courier.encode(items))
            return encoded is not None and self._send(encoded)
        except Exception as error:  # noqa: BLE001 - a courier that breaks its word must not end the delivery of the rest
            logger.warning("A batch of %d calls was lost to a fault of ours (%s).", len(items), type(error).__name__)
            self._drop(len(items))
            return True

    def _send(self, rows: list[Encoded]) -> bool:
        """Send rows; where the store refuses them whole, halve until the refused ones stand alone."""
        try:
            return not rows or self._persist(lambda: self._courier.send(rows)) is not None
        except StoreRejected as error:
            if len(rows) == 1:
                self._courier.refused(rows[0], error)
                return True
            middle = len(rows) // 2
            return self._send(rows[:middle]) and self._send(rows[middle:])

    def _persist(self, attempt: Callable[[], _Result]) -> _Result | None:
        """Try until it works, backing off from a quarter of a second to half a minute; None once the deadline has come."""
        delay = _FIRST_DELAY_S
        while True:
            try:
                result = attempt()
            except (StoreUnavailable, StoreNotReady) as error:
                self._say_troubled(error)
            else:
                self._say_recovered()
                return result
            wait = delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
            if self._deadline is not None:
                wait = min(wait, self._deadline - time.monotonic())
                if wait <= 0:
                    return None
            self._courier.tick()
            # An exit or a flush cuts the wait short.
            with suppress(Empty):
                self._wake.get(timeout=wait)
            delay = min(delay * 2, _LONGEST_DELAY_S)

    def _say_recovered(self) -> None:
        if self._troubled:
            self._troubled = False
            self._drop_logged = False
            logger.warning("The database takes calls again.")

    def _say_troubled(self, error: StoreError) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning("%s Calls wait in memory and are sent again (%d waiting).", error, self.waiting)
