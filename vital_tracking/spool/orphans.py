"""What dead processes have left in the spool: claimed by lock, delivered, then removed.

First what they had begun and not ended, then segment by segment what they had recorded. A segment is deleted when all of it is in
the store. So a process that dies while it delivers leaves less than it found; rows that are sent twice are stored once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from vital_tracking.spool.location import SpoolLocation
from vital_tracking.spool.log_record import (
    BEGINNINGS,
    ENDS,
    ROWS,
    RUNS,
    LogRecord,
    RecordKind,
    clock_skew,
    read_records,
)
from vital_tracking.spool.owner import OwnerFolder
from vital_tracking.spool.segment import CAN_LOCK, segments_of

_LITTER_S: Final = 3600.0
_LOOK_EVERY_S: Final = 60.0
_MOST_CLAIMED: Final = 16  # at once: each takes a file descriptor


class Tally:
    """A count of one process's log records: `begun` are its calls and runs without an end, `ended` the ids of calls with one."""

    def __init__(self) -> None:
        self.begun: dict[bytes, LogRecord] = {}
        self.ended: set[bytes] = set()  # ids, not a count: a record may be written twice at the end of a segment
        self.runs = 0
        self.damaged = 0
        self.skew_s: float | None = None

    def add(self, record: LogRecord | None) -> None:
        """Count a record, or a stretch that cannot be read."""
        if record is None:
            self.damaged += 1
        elif record.kind in BEGINNINGS:
            self.begun[record.id] = record
            self.runs += record.kind == RecordKind.RUN_BEGUN
        elif record.kind in ENDS:
            self.begun.pop(record.id, None)
            self.ended.add(record.id)
        elif record.kind == RecordKind.TOMBSTONE:
            self.begun.pop(record.id, None)
        elif record.kind == RecordKind.RUN:
            self.begun.pop(record.id, None)
            self.runs += 1
        elif record.kind == RecordKind.CLOCK and self.skew_s is None:
            self.skew_s = clock_skew(record.payload)

    @property
    def calls_begun(self) -> int:
        """How many calls have no end."""
        return sum(record.kind not in RUNS for record in self.begun.values())


class OrphanedSegments:
    """The spool of one dead process, as a source of the batch processor."""

    def __init__(self, owner: OwnerFolder) -> None:
        self._owner = owner
        self._segments = segments_of(owner.path)
        self._position = 0
        self._in_hand = (0, 0, 0)  # what was read last: records of `_first`, a segment's index, the position in it
        self._finished = False
        self.released = False
        tally = Tally()
        for _, path in self._segments:
            for record, _ in read_records(_bytes_of(path)):
                tally.add(record)
        self.damaged = tally.damaged
        self.calls, self.runs, self.abandoned = len(tally.ended), tally.runs, tally.calls_begun
        self.last_written = _last_written(self._segments)
        self._former_skew_s = tally.skew_s or 0.0
        self._first = [self._of_another(record) for record in tally.begun.values()]

    @property
    def path(self) -> Path:
        """The folder of the dead process."""
        return self._owner.path

    def read(self, limit: int) -> list[LogRecord]:
        """The next records to deliver, at most `limit`; none when all is delivered, or left to others."""
        if self.released:
            return []
        if self._first:
            records = self._first[:limit]
            self._in_hand = (len(records), 0, 0)
            return records
        records = []
        self._in_hand = (0, 0, self._position)
        for index, (_, path) in enumerate(self._segments):
            position = self._position if index == 0 else 0
            try:
                data = _bytes_of(path)
            except OSError:
                break  # not now
            for record, end in read_records(data, position):
                position = end
                if record is not None and record.kind in ROWS - BEGINNINGS:  # a run's end says all of it
                    records.append(self._of_another(record))
                    if len(records) == limit:
                        break
            if records:
                self._in_hand = (0, index, position)
                break
        else:
            self._finished = True
        return records

    def _of_another(self, record: LogRecord) -> LogRecord:
        return record._replace(former_skew_s=self._former_skew_s, orphan=self)

    def ack(self) -> None:
        """What was read last is in the store: remove the segments before it, and after the last one the folder."""
        if self.released:
            return
        if self._finished:
            self._owner.remove()
            return
        first, index, position = self._in_hand
        del self._first[:first]
        for _, path in self._segments[:index]:
            with contextlib.suppress(OSError):
                path.unlink()
        del self._segments[:index]
        if not first:
            self._position = position
        self._in_hand = (0, 0, self._position)

    def rewind(self) -> None:
        """What was read last is to be read again."""

    @property
    def finished(self) -> bool:
        """Whether all of it is delivered."""
        return self._finished

    def let_go(self) -> None:
        """Leave the rest to other processes: one may have claimed already what was read last."""
        self.released = True
        self._owner.let_go()


class Orphans:
    """The orphaned segments of one database that this process has claimed; it looks for more at the start and once a minute.

    `own_path` tells this process's own folder. `ask` asks the database for its id, if it answers. `found` is called with each
    that was claimed.
    """

    def __init__(
        self,
        location: SpoolLocation | None,
        own_path: Callable[[], Path | None],
        *,
        ask: Callable[[], None],
        found: Callable[[OrphanedSegments], None],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._location = location
        self._own_path = own_path
        self._ask = ask
        self._found = found
        self._fault = fault
        self._claimed: list[OrphanedSegments] = []
        self._due = 0.0

    def sources(self) -> Sequence[OrphanedSegments]:
        """What is to be delivered."""
        if self._location is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK_EVERY_S
            try:
                if self._location.is_in_doubt():
                    self._ask()
                for _ in islice(self.claim(), _MOST_CLAIMED - len(self._claimed)):
                    pass
            except Exception as error:  # noqa: BLE001 - this process's own calls come first
                self._fault(error)
        claimed = len(self._claimed)
        self._claimed = [orphan for orphan in self._claimed if not (orphan.finished or orphan.released)]
        if claimed == _MOST_CLAIMED and not self._claimed:
            self._due = 0.0  # there may be more
        return self._claimed

    def claim(self) -> Iterator[OrphanedSegments]:
        """Claim whatever there is, one after the other."""
        if self._location is None:
            return
        for orphan in claim(self._location.owners(), self._own_path()):
            if not self._location.owns(orphan.path):  # its process has noted another database before it died
                orphan.let_go()
                continue
            self._claimed.append(orphan)
            self._found(orphan)
            yield orphan

    def look_again(self) -> None:
        """The database's id has become known: there may be more that belongs to it."""
        self._due = 0.0

    def let_go(self) -> None:
        """Leave the rest to other processes; in a forked child, to the parent."""
        for orphan in self._claimed:
            orphan.let_go()


def claim(owners: Iterable[Path], own_path: Path | None = None) -> Iterator[OrphanedSegments]:
    """What dead processes have left in these folders and no other process has claimed; `own_path` is this process's folder."""
    if not CAN_LOCK:
        return
    for path in owners:
        if path == own_path:
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
            owner.let_go()  # its process may be making it at this moment


def _is_litter(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _LITTER_S
    except OSError:
        return False


def _last_written(segments: Sequence[tuple[int, Path]]) -> datetime:
    """When a dead process has last written to its segments: its last sign of life."""
    times = [0.0]
    for _, path in segments:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def _bytes_of(path: Path) -> bytes:
    """What a segment holds; OSError where it may be read later."""
    try:
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return b""
        raise
