"""What waits in memory: everything where there is no spool, else what the spool could not take."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Generic, TypeVar

from vital_tracking.spool.log_record import LogRecord

Item = TypeVar("Item")

_RECORD_BYTES: Final = 350  # of a queued log record beside its JSON: two tuples, an id, a number, headers
_UNPACKED_BYTES: Final = 4096  # of a queued call that is not packed, with what it refers to


def as_queued(record: LogRecord) -> tuple[LogRecord, int]:
    """A log record as it is to wait in memory, and the bytes that it takes there.

    Its JSON is copied: what an encoder returns may keep the whole buffer that it was written into.
    """
    if record.item is not None:
        return record, _UNPACKED_BYTES
    payload = bytes(memoryview(record.payload))
    return record._replace(payload=payload), len(payload) + _RECORD_BYTES


class MemoryQueue(Generic[Item]):
    """A queue of at most so many bytes. Items stay in it until they are acknowledged.

    The lock may be entered again by the thread that holds it: garbage collection can end a call, and so put an item, in the
    middle of anything.
    """

    def __init__(self, limit_bytes: int = 16 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.RLock()
        self.waiting: deque[tuple[Item, int]] = deque()
        self.bytes = 0
        self._done = 0
        self._in_hand = 0

    def put(self, item: Item, size: int) -> bool:
        """Queue an item; False where there is no room for it. There is always room for one."""
        with self._lock:
            if self.waiting and self.bytes + size > self._limit_bytes:
                return False
            self.bytes += size
            self.waiting.append((item, size))
        return True

    @property
    def nearly_full(self) -> bool:
        """Whether three quarters of the room are taken."""
        return self.bytes > 0.75 * self._limit_bytes

    def end(self) -> int:
        """The place behind everything that was put before."""
        with self._lock:
            return self._done + len(self.waiting)

    @property
    def acked(self) -> int:
        """The place before which everything is acknowledged."""
        return self._done

    def read(self, limit: int) -> list[Item]:
        """The next items, at most `limit`; `ack` or `rewind` comes before the next `read`."""
        with self._lock:
            self._in_hand = min(limit, len(self.waiting))
            return [self.waiting[index][0] for index in range(self._in_hand)]

    def ack(self) -> None:
        """What was read last is done with."""
        with self._lock:
            for _ in range(self._in_hand):
                self.bytes -= self.waiting.popleft()[1]
            self._done += self._in_hand
            self._in_hand = 0

    def rewind(self) -> None:
        """What was read last is to be read again."""
        self._in_hand = 0
