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

from vital_tracking.delivery.frames import BEGINNINGS, ROWS, Frame, Kind, framed, frames_in
from vital_tracking.delivery.segments import CAN_LOCK, OwnerFolder, Segment, bytes_in

logger = logging.getLogger("vital_tracking.delivery")

_TRY_AGAIN_S: Final = 1.0
_PRESSED: Final = 0.75
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RESERVE: Final = "reserve"
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
        self.damaged = 0
        self._reset()

    def _reset(self) -> None:
        self._owner: OwnerFolder | None = None
        self._segment: Segment | None = None
        self._segments: dict[int, Segment] = {}
        self._retired: deque[Segment] = deque()
        self._opening = threading.RLock()
        self._closed = False
        self._trouble: int | None = None
        self._trouble_logged = False
        self._try_again_at = 0.0
        self.pressed = False
        self._reserved = False
        # Ends that wait: one entry each, since a deque's length is exact where a counter of many threads is not.
        self.waiting: deque[None] = deque()
        self._read: Position = (1, 0)
        self._settled: Position = (1, 0)
        self._taken = 0
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
        segment = self._segment
        if segment is None or self._trouble is not None:
            segment = self._ready(vital)
            if segment is None:
                return False
        frame = framed(kind, id, payload)
        try:
            segment.append(frame)
            # Whoever has opened another segment meanwhile may have read this one to its end.
            while segment is not self._segment:
                current = self._segment
                if current is None:
                    return False
                segment = current
                segment.append(frame)
        except OSError as error:
            self._failed(error, segment)
            if not (vital and self._from_reserve(frame)):
                return False
        if kind in ROWS:
            self.waiting.append(None)
        if not self._dirty:
            self._dirty = True
            self._wake.put(True)
        if segment.size >= self._segment_bytes and self._trouble is None:
            self._rotate(segment)
        return True

    def end(self) -> Position:
        """The place behind everything that was appended before."""
        segment = self._segment
        if segment is None:
            last = max(self._segments.copy(), default=None)
            segment = self._segments.get(last) if last is not None else None
        return (segment.number, segment.bytes_written) if segment is not None else self._settled

    # For the writer

    @property
    def settled(self) -> Position:
        """The place before which everything is settled."""
        return self._settled

    def take(self, limit: int) -> list[Frame]:
        """The next frames to deliver, at most `limit`; `settle` or `rewind` comes before the next `take`."""
        frames: list[Frame] = []
        while len(frames) < limit:
            segment = self._segments.get(self._read[0])
            if segment is None:
                break
            sealed = segment is not self._segment  # asked before the read: nothing that counts is appended afterwards
            position = self._read[1]
            data = segment.read(position)
            behind = self._through(segment, data, position, frames, limit, ended=False)
            if behind > position:
                self._read = (segment.number, behind)
                continue
            if not sealed:
                break
            if data:  # a last frame that was never completed
                self.damaged += 1
            self._read = (segment.number + 1, 0)
        self._taken = len(frames)
        if not frames:
            self._settled = self._read
            self._remove_settled()
        return frames

    def _through(
        self, segment: Segment, data: bytes, position: int, frames: list[Frame], limit: int, *, ended: bool
    ) -> int:
        """Sort the frames of `data` into what is delivered and what is only noted; the place behind the last one."""
        behind = position
        for frame, end in frames_in(data, ended=ended):
            behind = position + end
            if frame is None:
                self.damaged += 1
            elif frame.kind in BEGINNINGS:
                self._opened[frame.id] = segment
                segment.opened += 1
            elif frame.kind == Kind.VOID:
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
            segment.opened -= 1

    def settle(self) -> None:
        """What was taken last is in the store, or will never be: forget it."""
        for _ in range(self._taken):
            if self.waiting:
                self.waiting.popleft()
        self._taken = 0
        self._settled = self._read
        self._remove_settled()

    def rewind(self) -> None:
        """What was taken last is to be taken again."""
        self._taken = 0
        self._read = self._settled

    def _remove_settled(self) -> None:
        for number, segment in list(self._segments.items()):
            if number >= self._settled[0]:
                break
            if segment.opened <= 0:
                del self._segments[number]
                segment.remove()
                if self._trouble is not None:
                    self._try_again_at = 0.0  # there is room again

    def sync(self) -> None:
        """Have everything that was appended survive a power cut."""
        self._dirty = False
        with contextlib.suppress(OSError):
            while self._retired:
                self._retired.popleft().sync()
            segment = self._segment
            if segment is not None:
                segment.sync()

    def close(self, *, idle: bool = True) -> bool:
        """Stop, and let others deliver what is left; whether nothing is. `idle`: the writer has nothing in hand."""
        with self._opening:
            self._closed = True
            segment, self._segment = self._segment, None
        self._wake.put(False)
        if segment is not None:
            self._retired.append(segment)
        self.sync()
        empty = idle and not self.take(1) and not self._opened
        if self._owner is not None:
            if empty:
                self._owner.remove()
            else:
                with contextlib.suppress(OSError):
                    (self._owner.path / _RESERVE).unlink()
                self._owner.let_go()
        self._segments.clear()
        return empty

    def reset_after_fork(self) -> None:
        """In a forked child: the files and their lock are the parent's; close this process's copies of them."""
        for segment in {*self._segments.values(), *self._retired, *([self._segment] if self._segment else [])}:
            segment.let_go()
        if self._owner is not None:
            self._owner.let_go()
        self._reset()

    # Opening, rotating, failing

    def _ready(self, vital: bool) -> Segment | None:
        """The segment to append to, made where there is none; None where that cannot be now."""
        if self._closed or not CAN_LOCK:
            return None
        if self._trouble is not None and time.monotonic() < self._try_again_at:
            return self._segment if vital else None
        with self._opening:
            try:
                if self._segment is None and not self._closed:
                    self._open()
                elif (
                    self._trouble in _NO_ROOM
                    and self._segment is not None
                    and self._segment.size >= self._segment_bytes
                ):
                    self._check_room()
                    self._next(self._segment)
            except OSError as error:
                self._failed(error, None)
                return self._segment if vital else None
            if self._trouble is not None:
                self._trouble = None
        return self._segment

    def _open(self) -> None:
        if self._owner is None:
            self._check_room()
            self._owner = OwnerFolder.create(self.folder, self._about)
            self._reserve(self._owner)
        self._next(None)
        if self._background and self._sync_s > 0 and not self._syncing:
            self._syncing = True
            try:
                threading.Thread(target=self._sync_always, name="vital-tracking-spool", daemon=True).start()
            except RuntimeError:  # the interpreter is shutting down, or has no threads
                self._syncing = False

    def _next(self, sealed: Segment | None) -> None:
        if self._owner is None:
            raise OSError(errno.ENOENT, "there is no folder")
        number = max(self._segments, default=self._read[0] - 1) + 1
        segment = Segment(self._owner.segment_path(number), number, create=True)
        self._segments[number] = segment
        if sealed is not None:
            self._retired.append(sealed)
        self._segment = segment

    def _rotate(self, segment: Segment) -> None:
        """Open the next segment. Where another thread is at it, or this one in the middle of it, it is done already."""
        if not self._opening.acquire(blocking=False):
            return
        try:
            if self._segment is segment and not self._closed:
                self._check_room()
                self._next(segment)
        except OSError as error:
            self._failed(error, None)
        finally:
            self._opening.release()

    def _check_room(self) -> None:
        """OSError where the spool has reached its limit."""
        used = bytes_in(self._root)
        self.pressed = used > _PRESSED * self._limit_bytes
        if used + self._segment_bytes > self._limit_bytes:
            raise OSError(errno.ENOSPC, "the spool's limit is reached")

    def _failed(self, error: OSError, segment: Segment | None) -> None:
        code = error.errno or errno.EIO
        self._trouble = code
        self._try_again_at = time.monotonic() + _TRY_AGAIN_S
        self.pressed = True
        if segment is not None and (segment.torn or code not in _NO_ROOM):
            with self._opening:
                if self._segment is segment:  # whatever has become of this file, the next one may fare better
                    self._segment = None
        if not self._trouble_logged:
            self._trouble_logged = True
            logger.warning(
                "The spool in %s takes no more (%s); calls wait in memory, and in the end their money alone is kept.",
                self.folder,
                errno.errorcode.get(code, code),
            )

    # The reserve: room set aside for what must be kept when the disk is full.

    def _reserve(self, owner: OwnerFolder) -> None:
        with contextlib.suppress(OSError):
            (owner.path / _RESERVE).write_bytes(bytes(min(_RESERVE_BYTES, self._limit_bytes // 64)))
            self._reserved = True

    def _from_reserve(self, frame: bytes) -> bool:
        owner = self._owner
        if owner is None or self._closed:
            return False
        with self._opening, contextlib.suppress(OSError):
            if self._reserved:
                self._reserved = False
                (owner.path / _RESERVE).unlink()
            if self._segment is None:
                self._next(None)
            self._segment.append(frame)  # type: ignore[union-attr]
            return True
        return False

    def _sync_always(self) -> None:
        wake = self._wake
        while wake.get():
            time.sleep(self._sync_s)
            if self._closed or self._wake is not wake:
                return
            self.sync()
