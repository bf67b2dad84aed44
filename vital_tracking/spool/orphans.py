"""What dead processes have left in the spool: claimed by lock, delivered, then removed.

First what they had begun and not ended, then segment by segment what they had recorded. A segment goes when all of it is in the
store, so that a process which dies over this leaves a smaller orphan, of which what comes twice is stored once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from vital_tracking.spool.log_record import BEGINNINGS, ENDS, ROWS, LogRecord, RecordKind, framed, frames_in
from vital_tracking.spool.owner import OwnerFolder, owners_in
from vital_tracking.spool.segment import CAN_LOCK, segments_of

_LITTER_S: Final = 3600.0
_LOOK_EVERY_S: Final = 60.0
_MOST_CLAIMED: Final = 16  # at once: each takes a file descriptor


class Tally:
    """What the frames of one process come to: `begun` are its calls without an end, `ended` the ids of those with one."""

    def __init__(self) -> None:
        self.begun: dict[bytes, LogRecord] = {}
        self.ended: set[bytes] = set()  # not a count: a frame stands twice where two threads met at a segment's end
        self.runs = 0
        self.damaged = 0
        self.skew_s: float | None = None

    def add(self, frame: LogRecord | None) -> None:
        """Count a frame, or a stretch that cannot be read."""
        if frame is None:
            self.damaged += 1
        elif frame.kind in BEGINNINGS:
            self.begun[frame.id] = frame
        elif frame.kind in ENDS:
            self.begun.pop(frame.id, None)
            self.ended.add(frame.id)
        elif frame.kind == RecordKind.VOID:
            self.begun.pop(frame.id, None)
        elif frame.kind == RecordKind.RUN:
            self.runs += 1
        elif frame.kind == RecordKind.CLOCK and self.skew_s is None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self.skew_s = float(orjson.loads(frame.payload)["skew"])


class OrphanedSegments:
    """The spool of one dead process, as a source of the writer's."""

    def __init__(self, owner: OwnerFolder) -> None:
        self._owner = owner
        self._segments = segments_of(owner.path)
        self._position = 0
        self._taken = (0, 0, 0)  # how many of the first ones, and how far in which segment
        self._finished = False
        tally = Tally()
        for _, path in self._segments:
            for frame, _ in frames_in(_bytes_of(path)):
                tally.add(frame)
        self.damaged = tally.damaged
        self.calls, self.runs, self.abandoned = len(tally.ended), tally.runs, len(tally.begun)
        self.skew_s = tally.skew_s
        self._first = [self._of_another(frame) for frame in tally.begun.values()]

    @property
    def path(self) -> Path:
        """The folder of the dead process."""
        return self._owner.path

    def take(self, limit: int) -> list[LogRecord]:
        """The next frames to deliver, at most `limit`; none when all is delivered."""
        if self._first:
            frames = self._first[:limit]
            self._taken = (len(frames), 0, 0)
            return frames
        frames = []
        self._taken = (0, 0, self._position)
        for index, (_, path) in enumerate(self._segments):
            position = self._position if index == 0 else 0
            try:
                data = _bytes_of(path)
            except OSError:
                break  # not now
            for frame, end in frames_in(data, position):
                position = end
                if frame is not None and frame.kind in ROWS:
                    frames.append(self._of_another(frame))
                    if len(frames) == limit:
                        break
            if frames:
                self._taken = (0, index, position)
                break
        else:
            self._finished = True
        return frames

    def _of_another(self, frame: LogRecord) -> LogRecord:
        return frame._replace(skew_s=self.skew_s, legacy=True)

    def date(self, skew_s: float) -> None:
        """Its own process never knew the database's time: whoever delivers the rest is to go by what this one found."""
        if self.skew_s is None:
            self.skew_s = skew_s
            with contextlib.suppress(OSError, IndexError), self._segments[-1][1].open("ab") as file:
                file.write(framed(RecordKind.CLOCK, bytes(16), b'{"skew":%.6f}' % skew_s))

    def settle(self) -> None:
        """What was taken last is in the store: remove the segments before it, and after the last one the folder."""
        if self._finished:
            self._owner.remove()
            return
        first, index, position = self._taken
        del self._first[:first]
        for _, path in self._segments[:index]:
            with contextlib.suppress(OSError):
                path.unlink()
        del self._segments[:index]
        if not first:
            self._position = position
        self._taken = (0, 0, self._position)

    def rewind(self) -> None:
        """What was taken last is to be taken again."""

    @property
    def finished(self) -> bool:
        """Whether all of it is delivered."""
        return self._finished

    def let_go(self) -> None:
        """Leave the rest to whoever comes next."""
        self._owner.let_go()


class Orphans:
    """The orphaned segments of one database that this process has claimed; it looks for more at the start and once a minute.

    `folder` is the database's, `own_path` tells this process's own folder in it. `clock_skew_s` tells how far this machine's
    clock was from the database's when it was first known. `found` is called with each that was claimed.
    """

    def __init__(
        self,
        folder: Path | None,
        own_path: Callable[[], Path | None],
        clock_skew_s: Callable[[], float | None],
        *,
        found: Callable[[OrphanedSegments], None],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._folder = folder
        self._own_path = own_path
        self._clock_skew_s = clock_skew_s
        self._found = found
        self._fault = fault
        self._claimed: list[OrphanedSegments] = []
        self._due = 0.0

    def sources(self) -> Sequence[OrphanedSegments]:
        """What is to be delivered."""
        if self._folder is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_EVERY_S
            try:
                for orphan in islice(self.claim(), _MOST_CLAIMED - len(self._claimed)):
                    self._found(orphan)
            except Exception as error:  # noqa: BLE001 - this process's own calls come first
                self._fault(error)
        claimed, self._claimed = len(self._claimed), [orphan for orphan in self._claimed if not orphan.finished]
        if claimed == _MOST_CLAIMED and not self._claimed:
            self._due = 0.0  # there may be more
        return self._claimed

    def claim(self) -> Iterator[OrphanedSegments]:
        """Claim whatever there is, one after the other."""
        if self._folder is None:
            return
        for orphan in claim(self._folder, self._own_path()):
            self._claimed.append(orphan)
            if (skew_s := self._clock_skew_s()) is not None:
                orphan.date(skew_s)
            yield orphan

    def date(self, skew_s: float) -> None:
        """This machine's clock is known now: calls whose own process never knew the database's time go by that."""
        for orphan in self._claimed:
            orphan.date(skew_s)

    def let_go(self) -> None:
        """Leave the rest to whoever comes next. In a forked child: it is the parent's."""
        for orphan in self._claimed:
            orphan.let_go()


def claim(folder: Path, known: Path | None = None) -> Iterator[OrphanedSegments]:
    """The orphans in the folder of a database that nobody else has claimed; `known` is this process's own."""
    if not CAN_LOCK:
        return
    for path in owners_in(folder):
        if path == known:
            continue
        owner = OwnerFolder.claim(path)
        if owner is None:
            continue
        if segments_of(path):
            try:
                orphan = OrphanedSegments(owner)
            except OSError:
                owner.let_go()  # not now
                continue
            yield orphan
        elif _is_litter(path):
            owner.remove()
        else:
            owner.let_go()  # it is only now being made


def _is_litter(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _LITTER_S
    except OSError:
        return False


def _bytes_of(path: Path) -> bytes:
    """What a segment holds; OSError where it may be read later."""
    try:
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return b""
        raise
