"""The writing side of a process's spool: any thread appends to the newest segment; full segments and failing files are left."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from vital_tracking.spool.log_record import BEGINNINGS, ROWS, TOMBSTONE, encoded_record
from vital_tracking.spool.owner import OwnerFolder
from vital_tracking.spool.segment import CAN_LOCK, Segment, bytes_in

logger = logging.getLogger("vital_tracking.delivery")

_TRY_AGAIN_S: Final = 1.0
_PATIENCE_S: Final = 5.0  # for another thread that opens a segment; after that the record waits in memory alone
_NEARLY_FULL: Final = 0.75
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RESERVE_BYTES: Final = 256 << 10

Position = tuple[int, int]
"""A place in the spool: the number of a segment and an offset in it."""


class SpoolWriter:
    """Appends log records to segments in a folder of this process's own. See the invariants in `disk_queue`.

    The reader looks into `segments` (by number, with those that are still to be read or acknowledged), `current` (the one that is
    appended to) and `last` (the newest number), and sets `unread_from`. `lock` is held while segments change.
    """

    def __init__(
        self,
        folder: Path,
        *,
        root: Path,
        about: Mapping[str, str],
        segment_bytes: int,
        limit_bytes: int,
        sync_s: float,
        background: bool,
    ) -> None:
        self.folder = folder
        self._root = root
        self._about = about
        self._limit_bytes = limit_bytes
        # However small the limit, there is room for several segments: they are removed one by one.
        self._segment_bytes = max(min(segment_bytes, limit_bytes // 8), 4096)
        self._sync_s = sync_s
        self._background = background
        self.owner: OwnerFolder | None = None
        self.current: Segment | None = None
        self.segments: dict[int, Segment] = {}
        self.last = 0
        self.unread_from = 1  # segments before this one are read to their ends
        self.lock = threading.RLock()
        self._busy = False  # segments are being changed; the lock alone does not say so, as it is reentrant
        self._retired: deque[Segment] = deque()  # no longer appended to, not yet synced
        self._closed = False
        self.trouble: int | None = None
        self._trouble_logged = False
        self._try_again_at = 0.0
        self.nearly_full = False
        # Rows that wait: one entry each, since a deque's length is exact where a counter of many threads is not.
        self.waiting: deque[None] = deque()
        self.begun: set[bytes] = set()  # calls and runs that have begun here and have no end here
        self._dirty = False
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._syncing = False

    @property
    def ready(self) -> bool:
        """Whether a record can be appended without a file or folder having to be made first."""
        return self.current is not None and self.trouble is None

    @property
    def size(self) -> int:
        """What this process's segments take up, in bytes."""
        return sum(segment.size for segment in list(self.segments.values()))

    def append(self, kind: int, id: bytes, payload: bytes, *, critical: bool = False) -> bool:  # noqa: A002 - the format's word
        """Append one log record; False where that cannot be, now. A `critical` one is small, and may go over the limit."""
        if kind == TOMBSTONE and id not in self.begun:
            return True  # what it would take back is not here
        segment = self.current
        if segment is None or self.trouble is not None:
            segment = self._ready()
            if segment is None and not critical:
                return False
        record = encoded_record(kind, id, payload)
        appended = False
        if segment is not None:
            try:
                segment.append(record)
            except OSError as error:
                self.fail(error, segment)
            else:
                # Where another segment was opened meanwhile, the reader may have left this one already.
                appended = segment is self.current or self._arrived(segment, record)
        if not appended and not (critical and self._from_reserve(record)):
            return False
        if kind in ROWS:
            self.waiting.append(None)
        if kind in BEGINNINGS:
            self.begun.add(id)
        else:
            self.begun.discard(id)
        if not self._dirty:
            self._dirty = True
            self._wake.put(True)
        full = segment is not None and segment.size >= self._segment_bytes
        if full and self.trouble is None and not self._left_to_thread():
            self._rotate(segment)
        return True

    def end(self) -> Position:
        """The place behind everything that was appended before."""
        segment = self.current
        return (segment.number, segment.bytes_written) if segment is not None else (self.last + 1, 0)

    def move_on(self, folder: Path, about: Mapping[str, str]) -> None:
        """The database's id has become known: note it in the folder in use. A further folder, if any, is made in `folder`."""
        with self.lock:
            self.folder, self._about = folder, about
            if self.owner is not None:
                with contextlib.suppress(OSError):
                    self.owner.note(about)

    def sync(self) -> None:
        """Have everything that was appended survive a power cut; leave a segment whose file somebody has deleted or closed."""
        self._dirty = False
        with contextlib.suppress(OSError, IndexError):
            while self._retired:
                self._retired.popleft().sync()
        segment = self.current
        if segment is not None:
            with contextlib.suppress(OSError):
                segment.sync()
            if segment.is_lost:
                with self.lock:
                    if self.current is segment:
                        self.current = None

    def seal(self) -> bool:
        """Stop appending; False where it was stopped before."""
        with self.lock:
            if self._closed:  # by another thread, or by the code that this signal handler has interrupted
                return False
            self._closed = True
            segment, self.current = self.current, None
        self._wake.put(False)
        if segment is not None:
            self._retired.append(segment)
        self.sync()
        return True

    def leave(self, *, empty: bool) -> None:
        """Delete the folder where it is `empty`; else others may deliver what is in it."""
        if self.owner is not None:
            if empty:
                self.owner.remove()
            else:
                self.owner.spend_reserve()
                self.owner.let_go()

    def let_go(self) -> None:
        """In a forked child: close this process's copies of the files and of their lock, which are the parent's."""
        for segment in {*self.segments.values(), *self._retired, *([self.current] if self.current else [])}:
            segment.let_go()
        if self.owner is not None:
            self.owner.let_go()

    def room_again(self) -> None:
        """A segment was removed."""
        if self.trouble is not None:
            self._try_again_at = 0.0
        elif self.nearly_full:
            self._measure()

    def fail(self, error: OSError, segment: Segment | None) -> None:
        """A segment could not be written or read, or none could be opened: it is tried again in a second."""
        code = error.errno or errno.EIO
        self.trouble = code
        self._try_again_at = time.monotonic() + _TRY_AGAIN_S
        if segment is not None and (segment.torn or code not in _NO_ROOM):
            with self.lock:
                if self.current is segment:  # this file may be damaged: the next append opens another
                    self.current = None
                if not segment.size and segment.number in self.segments:
                    del self.segments[segment.number]
                    segment.remove()
        if not self._trouble_logged:
            self._trouble_logged = True
            logger.warning(
                "The spool in %s takes no more (%s); calls wait in memory, and in the end their money alone is kept.",
                self.folder,
                errno.errorcode.get(code, code),
            )

    # Appending

    def _arrived(self, segment: Segment, record: bytes) -> bool:
        """Whether a record in a segment that is no longer the newest will be read; one that was too late is appended anew."""
        with self.lock:
            if segment.number in self.segments and self.unread_from <= segment.number:
                return True
            if segment.was_read(record):
                return True
            newest = self.current
            if newest is None:
                return False
            try:
                newest.append(record)
            except OSError as error:
                self.fail(error, newest)
                return False
            return True

    def _from_reserve(self, record: bytes) -> bool:
        """Append where the limit is reached or the disk is full, in the room that was set aside for this."""
        if not CAN_LOCK or not self._enter(_PATIENCE_S):
            return False
        try:
            for tries in range(3):  # in the current file, in another file, and once the reserve is given up
                try:
                    if self.current is None:
                        self._next(None)
                    self.current.append(record)  # type: ignore[union-attr]
                    return True
                except OSError as error:
                    self.fail(error, self.current)
                    if self.owner is not None and (tries or self.current is not None):
                        self.owner.spend_reserve()
            return False
        finally:
            self._leave()

    # Opening and rotating segments

    def _ready(self) -> Segment | None:
        """The segment to append to, made where there is none; None where that cannot be now."""
        if self._closed or not CAN_LOCK or (self.trouble is not None and time.monotonic() < self._try_again_at):
            return None
        if self._left_to_thread():
            return None
        if not self._enter(_PATIENCE_S):
            return None
        try:
            segment = self.current
            if segment is None:
                self._open()
            elif self.trouble in _NO_ROOM and segment.size >= self._segment_bytes:
                self._check_room()
                self._next(segment)
            elif self.trouble is not None:
                self._measure()
            self.trouble = None
        except OSError as error:
            self.fail(error, None)
            return None
        finally:
            self._leave()
        return self.current

    def _enter(self, timeout: float) -> bool:
        """Take the lock to change segments; False where another thread keeps it, or where this thread is changing them already
        (garbage collection may end a call, and so append, in the middle of that)."""
        if not (self.lock.acquire(timeout=timeout) if timeout else self.lock.acquire(blocking=False)):
            return False
        if self._busy or self._closed:
            self.lock.release()
            return False
        self._busy = True
        return True

    def _leave(self) -> None:
        self._busy = False
        self.lock.release()

    def _open(self) -> None:
        self._check_room()
        self._next(None)
        self._start_thread()

    def _start_thread(self) -> None:
        if self._background and self._sync_s > 0 and not self._syncing:
            self._syncing = True
            try:
                threading.Thread(target=self._sync_always, name="vital-tracking-spool", daemon=True).start()
            except RuntimeError:  # the interpreter is shutting down, or has no threads
                self._syncing = False

    def _left_to_thread(self) -> bool:
        """Whether this is an event loop, in which folders and files are not to be made: the thread does so, at once."""
        if not _in_event_loop():
            return False
        self._start_thread()
        if self._syncing:
            self._wake.put(True)
        return self._syncing

    def _next(self, sealed: Segment | None) -> None:
        """Open the next segment; in another folder where this one was deleted, or its lock is another process's now."""
        owner = self.owner
        if owner is None or not owner.hold():
            if owner is not None:
                owner.let_go()
            owner = self.owner = OwnerFolder.create(self.folder, self._about)
        number = self.last + 1
        segment = Segment(owner.segment_path(number), number, create=True)
        self.segments[number] = segment
        self.last = number
        if sealed is not None and self._sync_s > 0:
            self._retired.append(sealed)
        self.current = segment
        if self.trouble is None:
            owner.reserve(min(_RESERVE_BYTES, self._limit_bytes // 64))

    def _rotate(self, segment: Segment | None) -> None:
        """Open the next segment, unless another thread is doing so, or this call has interrupted that."""
        if not self._enter(0):
            return
        try:
            if self.current is segment:
                self._check_room()
                self._next(segment)
        except OSError as error:
            self.fail(error, None)
        finally:
            self._leave()

    def _check_room(self) -> None:
        """OSError where the spool has reached its limit."""
        if self._measure() + self._segment_bytes > self._limit_bytes:
            raise OSError(errno.ENOSPC, "the spool's limit is reached")

    def _measure(self) -> int:
        used = bytes_in(self._root)
        self.nearly_full = used > _NEARLY_FULL * self._limit_bytes
        return used

    def _sync_always(self) -> None:
        while self._wake.get():
            segment = self.current
            if segment is None or self.trouble is not None:
                self._ready()
            elif segment.size >= self._segment_bytes:
                self._rotate(segment)
            time.sleep(self._sync_s)
            if self._closed:
                return
            self.sync()


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # who has an event loop has it
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
