"""The reading side of a process's spool: one thread reads the segments in order, and removes those that are acknowledged."""

from __future__ import annotations

from typing import Final

from vital_tracking.spool.disk_writer import Position, SpoolWriter
from vital_tracking.spool.log_record import BEGINNINGS, ROWS, RUN_BEGUN, TOMBSTONE, LogRecord, read_records
from vital_tracking.spool.segment import LONGEST_READ, PASSING, Segment

_READ_BYTES: Final = 256 << 10
_BATCH_BYTES: Final = 768 << 10


class SpoolReader:
    """Reads what a writer has appended. For one thread; `ended` may be called from any."""

    def __init__(self, writer: SpoolWriter) -> None:
        self._writer = writer
        self.acked: Position = (1, 0)
        """The place before which everything is acknowledged."""
        self.damaged = 0
        self._position: Position = (1, 0)
        self._furthest: Position = (1, 0)  # damage before this place was counted already
        self._in_hand = 0
        self._uncounted = 0
        self._runs: dict[bytes, bytes] = {}  # the JSON of those of them that are service runs
        self._open: dict[bytes, Segment] = {}  # where calls and runs have begun that were read and have no end

    @property
    def has_open_calls(self) -> bool:
        """Whether a call that was read has begun and has no end."""
        return bool(self._open)

    @property
    def at_end(self) -> bool:
        """Whether all segments are read; not where one that nothing is appended to any more cannot be read now."""
        return self._position[0] > self._writer.last

    def read(self, limit: int) -> list[LogRecord]:
        """The next records to deliver, at most `limit` and not many more than 768 KiB, which are held in memory until they are
        delivered; `ack` or `rewind` comes before the next `read`."""
        writer = self._writer
        records: list[LogRecord] = []
        left = _BATCH_BYTES
        while len(records) < limit and left > 0:
            number, offset = self._position
            last = writer.last  # read before `segments`: a segment made in between is new, not removed
            segment = writer.segments.get(number)
            if segment is None:
                if number > last:
                    break
                self._go_to((number + 1, 0))
                continue
            sealed = segment is not writer.current
            data = self._bytes_of(segment, offset, _READ_BYTES)
            if data is None:
                break
            behind = self._sort(segment, data, offset, records, limit) if data else offset
            if behind == offset and len(data) == _READ_BYTES:  # a longer record
                data = self._bytes_of(segment, offset)
                if data is None:
                    break
                behind = self._sort(segment, data, offset, records, limit)
            if behind > offset:
                left -= behind - offset
                self._go_to((number, behind))
            elif not sealed:
                break
            else:
                with writer.lock:  # what is appended from now on goes to another segment
                    if self._bytes_of(segment, offset) == data:
                        if data and (number + 1, 0) > self._furthest:  # a last record that was never completed
                            self.damaged += 1
                        segment.passed = offset
                        self._go_to((number + 1, 0))
        self._furthest = max(self._furthest, self._position)
        self._count()
        self._in_hand = len(records)
        if not records:
            self.acked = self._position
            self._remove_acked()
        return records

    def ack(self) -> None:
        """What was read last is in the store, or will never be: forget it."""
        self._uncounted += self._in_hand
        self._in_hand = 0
        self._count()
        self.acked = self._position
        self._remove_acked()

    def rewind(self) -> None:
        """What was read last is to be read again."""
        self._in_hand = 0
        self._go_to(self.acked)

    def ended(self, id: bytes) -> None:  # noqa: A002 - the format's word
        """The call of that id has an end: its beginning no longer keeps its segment from being removed."""
        if self._runs:
            self._runs.pop(id, None)
        segment = self._open.pop(id, None)
        if segment is not None:
            segment.opened.discard(id)
        self._writer.begun.discard(id)

    def _go_to(self, position: Position) -> None:
        self._position = position
        self._writer.unread_from = position[0]

    def _bytes_of(self, segment: Segment, offset: int, size: int = LONGEST_READ) -> bytes | None:
        """What a segment holds from an offset on; nothing where it can never be read again, None where it cannot be now."""
        try:
            return segment.read(offset, size)
        except OSError as error:
            if error.errno in PASSING:
                return None
            self._writer.fail(error, segment)  # nor can it be written to
            return b""

    def _sort(self, segment: Segment, data: bytes, offset: int, records: list[LogRecord], limit: int) -> int:
        """Sort the records in `data` into what is delivered and what is only noted; the place behind the last one."""
        behind, begun = offset, self._open
        for record, end in read_records(data, ended=False):
            behind = offset + end
            if record is None:
                self.damaged += (segment.number, behind) > self._furthest
                continue
            kind, id, payload, *_ = record  # noqa: A001 - the format's word
            if kind in BEGINNINGS:
                if id not in begun:
                    begun[id] = segment
                    segment.opened.add(id)
                if kind == RUN_BEGUN:
                    self._runs[id] = bytes(payload)
            elif kind in ROWS or kind == TOMBSTONE:
                self.ended(id)
            if kind in ROWS:
                records.append(record)
                if len(records) >= limit:
                    break
        return behind

    def _count(self) -> None:
        """Take acknowledged rows out of `waiting`. A row may be acknowledged before its own thread has added it there."""
        waiting = self._writer.waiting
        while self._uncounted and waiting:
            waiting.popleft()
            self._uncounted -= 1

    def _remove_acked(self) -> None:
        segments, removed = self._writer.segments, False
        for number, segment in list(segments.items()):
            if number >= self.acked[0]:
                break
            if segment is self._writer.current:
                continue
            if segment.opened and segment.opened <= self._runs.keys():
                self._carry_runs(segment)
            if not segment.opened:
                del segments[number]
                segment.remove()
                removed = True
        if removed:
            self._writer.room_again()

    def _carry_runs(self, segment: Segment) -> None:
        """Write the beginnings of service runs anew, which may go on for days: they must not keep a segment that long.

        One that ends at this moment may be written after its end, and be sent as abandoned some day: the database keeps the end.
        """
        for id in tuple(segment.opened):  # noqa: A001 - the format's word
            if id in self._writer.begun and not self._writer.append(RUN_BEGUN, id, self._runs[id]):
                return
            segment.opened.discard(id)
            self._open.pop(id, None)  # it is found again where it lies now
