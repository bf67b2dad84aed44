"""The spool: what this process has recorded and the store has not yet acknowledged, in files that outlive the process.

Invariants, kept by `disk_writer` and `disk_reader` together:

1. A record is appended with one write, without a lock of ours; the page cache has it then, which survives kill -9. While anything
   is written, one thread syncs the files every 50 ms, so a power cut costs no more than that.
2. Segments are numbered upwards from 1; only the newest is appended to. Under `lock` it is replaced, and under `lock` the
   reader leaves a segment behind, for good, when it has read all of it. A thread whose record came too late for that notices it,
   and appends the record once more.
3. One thread reads, in order. What was read is acknowledged or read again: `acked` never passes what the store has.
4. A segment is removed when it is acknowledged to its end, is not the newest, and no call has begun in it that has no end. A
   service run that has none is written anew: it may go on for days.
5. Where a segment cannot be written, the next one is tried after a second; until then `append` returns False.
6. All segments lie in one folder, whose lock this process holds as long as it lives.
7. `append` may be interrupted by itself, as when garbage collection ends a call in the middle of it; it never waits for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from vital_tracking.spool.disk_reader import SpoolReader
from vital_tracking.spool.disk_writer import Position, SpoolWriter
from vital_tracking.spool.log_record import LogRecord, RecordKind


class Spool:
    """One process's spool. `append` is safe from any thread, and may interrupt itself; only one thread reads.

    `folder` is that of the database, `about` says which one it is; `root` holds the folders of all databases, which together may
    take `limit_bytes`. Nothing is made before the first append.
    """

    def __init__(
        self,
        folder: Path,
        *,
        root: Path | None = None,
        about: Mapping[str, str] = MappingProxyType({}),
        segment_bytes: int = 8 << 20,
        limit_bytes: int = 256 << 20,
        sync_s: float = 0.05,
        background: bool = True,
    ) -> None:
        self.writer = SpoolWriter(
            folder,
            root=root or folder,
            about=about,
            segment_bytes=segment_bytes,
            limit_bytes=limit_bytes,
            sync_s=sync_s,
            background=background,
        )
        self.reader = SpoolReader(self.writer)
        self.append = self.writer.append
        self.waiting = self.writer.waiting

    @property
    def folder(self) -> Path:
        """The database's folder, in which this process's own folder is made."""
        return self.writer.folder

    @property
    def path(self) -> Path | None:
        """The folder of this process, once it has one."""
        return self.writer.owner.path if self.writer.owner is not None else None

    @property
    def ready(self) -> bool:
        """Whether a record can be appended without a file or folder having to be made first."""
        return self.writer.ready

    @property
    def healthy(self) -> bool:
        """Whether the last append has worked."""
        return self.writer.trouble is None

    @property
    def nearly_full(self) -> bool:
        """Whether three quarters of its limit are taken. A disk that takes no more says nothing of what waits."""
        return self.writer.nearly_full

    @property
    def size(self) -> int:
        """What this process's segments take up, in bytes."""
        return self.writer.size

    @property
    def damaged(self) -> int:
        """Stretches that could not be read."""
        return self.reader.damaged

    # As a source of the batch processor

    def end(self) -> Position:
        """The place behind everything that was appended before."""
        return self.writer.end()

    @property
    def acked(self) -> Position:
        """The place before which everything is acknowledged."""
        return self.reader.acked

    def read(self, limit: int) -> list[LogRecord]:
        """The next records to deliver, at most `limit`; `ack` or `rewind` comes before the next `read`."""
        return self.reader.read(limit)

    def ack(self) -> None:
        """What was read last is in the store, or will never be: forget it."""
        self.reader.ack()

    def rewind(self) -> None:
        """What was read last is to be read again."""
        self.reader.rewind()

    # Around reading and writing

    def has_begun(self, id: bytes) -> bool:  # noqa: A002 - the format's word
        """Whether the beginning of that call lies here, and no end."""
        return id in self.writer.begun

    def delivered(self, ids: Iterable[bytes]) -> None:
        """Calls of these ids are in the store. If an end did not go through this spool, a tombstone takes its beginning back."""
        for id in self.writer.begun.intersection(ids):  # noqa: A001 - the format's word
            self.append(RecordKind.TOMBSTONE, id, b"", critical=True)
            self.reader.ended(id)

    def move_on(self, folder: Path, about: Mapping[str, str]) -> None:
        """The database's id has become known: note it in the folder in use. A further folder, if any, is made in `folder`."""
        self.writer.move_on(folder, about)

    def sync(self) -> None:
        """Have everything that was appended survive a power cut."""
        self.writer.sync()

    def close(self, *, idle: bool = True) -> bool:
        """Stop, and leave the rest to other processes; returns whether nothing is left. `idle`: nothing is being sent."""
        if not self.writer.seal():
            return False
        with self.writer.lock:
            empty = idle and not self.read(1) and self.reader.at_end and not self.reader.has_open_calls
            self.writer.segments.clear()  # an append that is still under way returns False
        self.writer.leave(empty=empty)
        return empty

    def let_go(self) -> None:
        """In a forked child: close this process's copies of the files and of their lock, which are the parent's."""
        self.writer.let_go()
