"""The spool: what this process has recorded and the store has not yet acknowledged, in files that outlive the process.

Any thread appends a frame with one write and no lock of ours: the page cache has it then, which survives kill -9. One thread
syncs the files every 50 ms while anything is written. The writer's thread alone reads them, in order, and removes the settled.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from vital_tracking.spool.log_record import BEGINNINGS, ROWS, LogRecord, RecordKind, framed, frames_in
from vital_tracking.spool.owner import OwnerFolder
from vital_tracking.spool.segment import CAN_LOCK, PASSING, Segment, bytes_in

logger = logging.getLogger("vital_tracking.delivery")

_TRY_AGAIN_S: Final = 1.0
_PATIENCE_S: Final = 5.0  # for another thread that opens a segment: what it cannot wait for is not safe from a kill
_PRESSED: Final = 0.75
_VOID: Final = int(RecordKind.VOID)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RESERVE_BYTES: Final = 256 << 10

Position = tuple[int, int]
"""A place in the spool: the number of a segment and an offset in it."""


class Spool:
    """One process's spool. `append` is safe from any thread, also in the middle of itself; all else is the writer's.

    `folder` is that of the database, `about` what people call that; `root` holds the folders of all databases, which together may
    take `limit_bytes`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        root: Path | None = None,
        about: str = "",
        segment_bytes: int = 8 << 20,
        limit_bytes: int = 256 << 20,
        sync_s: float = 0.05,
        background: bool = True,
    ) -> None:
        self.folder = folder
        self._root = root or folder
        self._about = about
        self._limit_bytes = limit_bytes
        # However small the limit, there is room for several segments: they are removed one by one.
        self._segment_bytes = max(min(segment_bytes, limit_bytes // 8), 4096)
        self._sync_s = sync_s
        self._background = background
        self._owner: OwnerFolder | None = None
        self._segment: Segment | None = None
        self._segments: dict[int, Segment] = {}
        self._last = 0  # the number of the newest segment
        self._retired: deque[Segment] = deque()
        self._opening = threading.RLock()
        self._busy = False  # what the lock is for is being done
        self._closed = False
        self._clock: bytes | None = None
        self._trouble: int | None = None
        self._trouble_logged = False
        self._try_again_at = 0.0
        self.pressed = False
        # Ends that wait: one entry each, since a deque's length is exact where a counter of many threads is not.
        self.waiting: deque[None] = deque()
        self._begun: set[bytes] = set()
        self.damaged = 0
        self._read: Position = (1, 0)
        self._settled: Position = (1, 0)
        self._surveyed: Position = (1, 0)
        self._taken = 0
        self._uncounted = 0
        self._opened: dict[bytes, Segment] = {}
        self._dirty = False
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._syncing = False

    # For any thread

    @property
    def healthy(self) -> bool:
        """Whether the last append has worked."""
        return self._trouble is None

    @property
    def size(self) -> int:
        """What this process's segments take up."""
        return sum(segment.size for segment in list(self._segments.values()))

    @property
    def path(self) -> Path | None:
        """The folder of this process, once it has one."""
        return self._owner.path if self._owner is not None else None

    def append(self, kind: int, id: bytes, payload: bytes, *, vital: bool = False) -> bool:  # noqa: A002 - the format's word
        """Append one frame; False where that cannot be, now. A `vital` one is small, and may go over the limit."""
        if kind >= _VOID and self._is_needless(kind, id, payload):
            return True
        segment = self._segment
        if segment is None or self._trouble is not None:
            segment = self._ready()
            if segment is None and not vital:
                return False
        frame = framed(kind, id, payload)
        appended = False
        if segment is not None:
            try:
                segment.append(frame)
            except OSError as error:
                self._failed(error, segment)
            else:
                # Whoever has opened another segment meanwhile may have read this one to its end.
                appended = segment is self._segment or self._arrived(segment, frame)
        if not appended and not (vital and self._from_reserve(frame)):
            return False
        if kind in ROWS:
            self.waiting.append(None)
            self._begun.discard(id)
        elif kind in BEGINNINGS:
            self._begun.add(id)
        elif kind == _VOID:
            self._begun.discard(id)
        if not self._dirty:
            self._dirty = True
            self._wake.put(True)
        if segment is not None and segment.size >= self._segment_bytes and self._trouble is None:
            self._rotate(segment)
        return True

    def _is_needless(self, kind: int, id: bytes, payload: bytes) -> bool:  # noqa: A002
        """Whether nobody would miss this: the end of what has no beginning here, or has an end. The clock's goes everywhere."""
        if kind == RecordKind.CLOCK:  # into every segment from now on, since each may be the last that is left
            self._clock = framed(kind, id, payload)
            return self._segment is None
        return kind == _VOID and id not in self._begun

    def _arrived(self, segment: Segment, frame: bytes) -> bool:
        """Whether a frame in a segment that is no longer the newest will be read; where it was too late, it is appended anew."""
        with self._opening:
            if segment.number in self._segments and self._read[0] <= segment.number:
                return True
            if segment.was_read(frame):
                return True
            newest = self._segment
            if newest is None:
                return False
            try:
                newest.append(frame)
            except OSError as error:
                self._failed(error, newest)
                return False
            return True

    def end(self) -> Position:
        """The place behind everything that was appended before."""
        segment = self._segment
        return (segment.number, segment.bytes_written) if segment is not None else (self._last + 1, 0)

    # For the writer

    @property
    def settled(self) -> Position:
        """The place before which everything is settled."""
        return self._settled

    def take(self, limit: int) -> list[LogRecord]:
        """The next frames to deliver, at most `limit`; `settle` or `rewind` comes before the next `take`."""
        frames: list[LogRecord] = []
        while len(frames) < limit:
            number, position = self._read
            last = self._last  # before the look: one that comes between the two is not gone
            segment = self._segments.get(number)
            if segment is None:
                if number > last:
                    break
                self._read = (number + 1, 0)
                continue
            sealed = segment is not self._segment
            data = self._bytes_of(segment, position)
            if data is None:
                break
            behind = self._through(segment, data, position, frames, limit) if data else position
            if behind > position:
                self._read = (number, behind)
            elif not sealed:
                break
            else:
                with self._opening:  # what is appended from now on goes to another segment, see `_arrived`
                    if self._bytes_of(segment, position) == data:
                        if data and (number + 1, 0) > self._surveyed:  # a last frame that was never completed
                            self.damaged += 1
                        segment.passed = position
                        self._read = (number + 1, 0)
        self._surveyed = max(self._surveyed, self._read)
        self._count()
        self._taken = len(frames)
        if not frames:
            self._settled = self._read
            self._remove_settled()
        return frames

    def _bytes_of(self, segment: Segment, position: int) -> bytes | None:
        """What a segment holds from a position on; nothing where it can never be read again, None where it cannot be now."""
        try:
            return segment.read(position)
        except OSError as error:
            if error.errno in PASSING:
                return None
            self._failed(error, segment)  # nor can it be written to
            return b""

    def _through(self, segment: Segment, data: bytes, position: int, frames: list[LogRecord], limit: int) -> int:
        """Sort the frames of `data` into what is delivered and what is only noted; the place behind the last one."""
        behind = position
        for frame, end in frames_in(data, ended=False):
            behind = position + end
            if frame is None:
                self.damaged += (segment.number, behind) > self._surveyed
            elif frame.kind in BEGINNINGS:
                if frame.id not in self._opened:
                    self._opened[frame.id] = segment
                    segment.opened.add(frame.id)
            elif frame.kind == RecordKind.VOID:
                self.ended(frame.id)
            elif frame.kind in ROWS:
                self.ended(frame.id)
                frames.append(frame)
                if len(frames) >= limit:
                    break
        return behind

    def ended(self, id: bytes) -> None:  # noqa: A002
        """The call of that id has an end: its beginning holds up nothing any more."""
        segment = self._opened.pop(id, None)
        if segment is not None:
            segment.opened.discard(id)
        self._begun.discard(id)

    def gone(self, id: bytes) -> None:  # noqa: A002
        """The call of that id is in the store: if its end took another way than through here, say so of its beginning."""
        if id in self._begun:
            self.append(_VOID, id, b"", vital=True)
            self.ended(id)

    def settle(self) -> None:
        """What was taken last is in the store, or will never be: forget it."""
        self._uncounted += self._taken
        self._taken = 0
        self._count()
        self._settled = self._read
        self._remove_settled()

    def _count(self) -> None:
        """Settled ends wait no longer. A thread may come to say that its one waits only when it is settled already."""
        while self._uncounted and self.waiting:
            self.waiting.popleft()
            self._uncounted -= 1

    def rewind(self) -> None:
        """What was taken last is to be taken again."""
        self._taken = 0
        self._read = self._settled

    def _remove_settled(self) -> None:
        removed = False
        for number, segment in list(self._segments.items()):
            if number >= self._settled[0]:
                break
            if not segment.opened and segment is not self._segment:
                del self._segments[number]
                segment.remove()
                removed = True
        if removed:  # there is room again
            if self._trouble is not None:
                self._try_again_at = 0.0
            elif self.pressed:
                self._measure()

    def sync(self) -> None:
        """Have everything that was appended survive a power cut, and go on elsewhere where the file was taken from us."""
        self._dirty = False
        with contextlib.suppress(OSError, IndexError):
            while self._retired:
                self._retired.popleft().sync()
        segment = self._segment
        if segment is not None:
            with contextlib.suppress(OSError):
                segment.sync()
            if segment.is_lost:
                with self._opening:
                    if self._segment is segment:
                        self._segment = None

    def close(self, *, idle: bool = True) -> bool:
        """Stop, and let others deliver what is left; whether nothing is. `idle`: the writer has nothing in hand."""
        with self._opening:
            if self._closed:  # another thread, or what this signal handler has interrupted, is at it or has done it
                return False
            self._closed = True
            segment, self._segment = self._segment, None
        self._wake.put(False)
        if segment is not None:
            self._retired.append(segment)
        self.sync()
        with self._opening:
            empty = idle and not self.take(1) and not self._opened
            self._segments.clear()  # whoever appends only now is told that it was in vain
        if self._owner is not None:
            if empty:
                self._owner.remove()
            else:
                self._owner.spend_reserve()
                self._owner.let_go()
        return empty

    def let_go(self) -> None:
        """In a forked child: close this process's copies of the files and of their lock, which are the parent's."""
        for segment in {*self._segments.values(), *self._retired, *([self._segment] if self._segment else [])}:
            segment.let_go()
        if self._owner is not None:
            self._owner.let_go()

    # Opening, rotating, failing

    def _ready(self) -> Segment | None:
        """The segment to append to, made where there is none; None where that cannot be now."""
        if self._closed or not CAN_LOCK or (self._trouble is not None and time.monotonic() < self._try_again_at):
            return None
        if not self._enter(_PATIENCE_S):
            return None
        try:
            segment = self._segment
            if segment is None:
                self._open()
            elif self._trouble in _NO_ROOM and segment.size >= self._segment_bytes:
                self._check_room()
                self._next(segment)
            elif self._trouble is not None:
                self._measure()
            self._trouble = None
        except OSError as error:
            self._failed(error, None)
            return None
        finally:
            self._leave()
        return self._segment

    def _enter(self, timeout: float) -> bool:
        """Take the lock; False where another thread keeps it, or where this one is in the middle of such work already, as when
        garbage collection has ended a call there."""
        if not (self._opening.acquire(timeout=timeout) if timeout else self._opening.acquire(blocking=False)):
            return False
        if self._busy or self._closed:
            self._opening.release()
            return False
        self._busy = True
        return True

    def _leave(self) -> None:
        self._busy = False
        self._opening.release()

    def _open(self) -> None:
        self._check_room()
        self._next(None)
        if self._background and self._sync_s > 0 and not self._syncing:
            self._syncing = True
            try:
                threading.Thread(target=self._sync_always, name="vital-tracking-spool", daemon=True).start()
            except RuntimeError:  # the interpreter is shutting down, or has no threads
                self._syncing = False

    def _next(self, sealed: Segment | None) -> None:
        """Open the next segment, in another folder where somebody has taken this one from us."""
        owner = self._owner
        if owner is None or not owner.hold():
            if owner is not None:
                owner.let_go()
            owner = self._owner = OwnerFolder.create(self.folder, self._about)
        number = self._last + 1
        segment = Segment(owner.segment_path(number), number, create=True)
        if self._clock is not None:
            with contextlib.suppress(OSError):
                segment.append(self._clock)
        self._segments[number] = segment
        self._last = number
        if sealed is not None and self._sync_s > 0:
            self._retired.append(sealed)
        self._segment = segment
        if self._trouble is None:
            owner.reserve(min(_RESERVE_BYTES, self._limit_bytes // 64))

    def _rotate(self, segment: Segment) -> None:
        """Open the next segment. Where another thread is at it, or this one in the middle of it, it is done already."""
        if not self._enter(0):
            return
        try:
            if self._segment is segment:
                self._check_room()
                self._next(segment)
        except OSError as error:
            self._failed(error, None)
        finally:
            self._leave()

    def _check_room(self) -> None:
        """OSError where the spool has reached its limit."""
        if self._measure() + self._segment_bytes > self._limit_bytes:
            raise OSError(errno.ENOSPC, "the spool's limit is reached")

    def _measure(self) -> int:
        used = bytes_in(self._root)
        self.pressed = used > _PRESSED * self._limit_bytes
        return used

    def _failed(self, error: OSError, segment: Segment | None) -> None:
        code = error.errno or errno.EIO
        self._trouble = code
        self._try_again_at = time.monotonic() + _TRY_AGAIN_S
        self.pressed = True
        if segment is not None and (segment.torn or code not in _NO_ROOM):
            with self._opening:
                if self._segment is segment:  # whatever has become of this file, the next one may fare better
                    self._segment = None
                if not segment.size and segment.number in self._segments:
                    del self._segments[segment.number]
                    segment.remove()
        if not self._trouble_logged:
            self._trouble_logged = True
            logger.warning(
                "The spool in %s takes no more (%s); calls wait in memory, and in the end their money alone is kept.",
                self.folder,
                errno.errorcode.get(code, code),
            )

    def _from_reserve(self, frame: bytes) -> bool:
        """Append where the limit is reached or the disk is full: the room set aside for this is given up."""
        if not CAN_LOCK or not self._enter(_PATIENCE_S):
            return False
        try:
            for tries in range(3):  # as it is, in another file, in the reserve's room
                try:
                    if self._segment is None:
                        self._next(None)
                    self._segment.append(frame)  # type: ignore[union-attr]
                    return True
                except OSError as error:
                    self._failed(error, self._segment)
                    if self._owner is not None and (tries or self._segment is not None):
                        self._owner.spend_reserve()
            return False
        finally:
            self._leave()

    def _sync_always(self) -> None:
        wake = self._wake
        while wake.get():
            time.sleep(self._sync_s)
            if self._closed or self._wake is not wake:
                return
            self.sync()
