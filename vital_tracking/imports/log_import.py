"""Imports access logs: each line once, however often a file is read and wherever a run was killed.

What was read of a log moves in the database in the transaction that records it (`import_lines_v1`). Lines are read while those
before them are being recorded, by one thread each, so batches arrive in the order of the lines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from vital_tracking.errors import StoreRejected, StoreUnavailable, VitalError
from vital_tracking.imports.access_log import LogFormat
from vital_tracking.imports.identity import Beginning
from vital_tracking.imports.line_batch import BadLineAt, LineBatch, LineReader
from vital_tracking.imports.log_text import Block, LogText, TooLong
from vital_tracking.imports.request_costs import CostRule
from vital_tracking.stores import Store

_SHOWN: Final = 20
_TRIES: Final = 100  # another run that is faster takes a block each time


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How logs are read. `server` tells logs apart that begin alike; `organization` is that of lines that name none.

    `rules` say which requests cost something; `hash_key` keys the hashes of addresses, None: none is kept. `again` reads from the
    beginning what was read before, `whole` takes a last line that has no end yet; with `dry_run` nothing is recorded.
    """

    log_format: LogFormat = "auto"
    server: str | None = None
    organization: str | None = None
    rules: tuple[CostRule, ...] = ()
    hash_key: bytes | None = None
    again: bool = False
    whole: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class Imported:
    """What became of the lines that were read: `known` were there already. `bad` holds the first of the bad ones, by log."""

    lines: int = 0
    events: int = 0
    known: int = 0
    costs: int = 0
    bad_lines: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[str, BadLineAt]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, batch: LineBatch, answer: dict[str, Any]) -> None:
        """Count a batch that was taken."""
        self.lines += len(batch.lines)
        self.events += answer["events"]
        self.known += batch.event_count - answer["events"]
        self.costs += answer["costs"]
        self.bad_lines += len(batch.bad)
        self.reasons += batch.reasons
        self.bad += [(name, line) for line in batch.bad[: max(0, _SHOWN - len(self.bad))]]


class _StandsElsewhere(Exception):
    """Another run has read further in the same log."""


class LogImport:
    """Imports logs into a store. `progress` is told of each log, and of what has become of all, after each batch.

    `wait` is asked when the database cannot be reached: True, after a while, has the same batch sent again; by default the
    error is raised.
    """

    def __init__(
        self,
        store: Store,
        options: ImportOptions,
        progress: Callable[[LogText, Imported], None] | None = None,
        *,
        wait: Callable[[], bool] | None = None,
    ) -> None:
        self.store = store
        self.options = options
        self.progress = progress or (lambda _log, _done: None)
        self.wait = wait or (lambda: False)
        self._database_id = str(store.call("database_id_v1"))
        self.done = Imported()

    def read(self, log: LogText) -> LogCursor:
        """Read a log to its end, as it is now; what goes on from there. Raises StoreError and VitalError."""
        for _ in range(_TRIES):
            try:
                cursor = LogCursor(log, self)
                cursor.go_on()
                return cursor
            except _StandsElsewhere:
                log.close()
            except BaseException:
                log.close()
                raise
            if log.path == "-":
                break
            log = LogText(log.path)
        raise VitalError(f"Another run is reading {log.name}, too: let it end, and run this again.")

    def beginning_of(self, log: LogText) -> Beginning:
        """How a log begins, as this database knows it."""
        return Beginning(
            log.head,
            database_id=self._database_id,
            server=self.options.server,
            complete=self.options.whole or not log.is_file,
        )


class LogCursor:
    """A log that is being imported, and how far that is."""

    def __init__(self, log: LogText, owner: LogImport) -> None:
        self.log = log
        self._owner = owner
        self._store, self._options = owner.store, owner.options
        self._beginning = owner.beginning_of(log)
        known = self._store.call("import_place_v1", heads=json.dumps(self._beginning.hashes()))
        self._key: str | None = known["file_key"]
        self._new = self._key is None
        self._line = 0 if self._options.again else known["lines"]
        log.go_to(0 if self._options.again else known["place"])
        self._reader: LineReader | None = None

    def go_on(self) -> None:
        """Import what there is of it now."""
        sending: Future[None] | None = None
        with ThreadPoolExecutor(1, "vital-import") as sender:
            while (block := self._next()) is not None:
                batch = self._batch(block)
                if sending is not None:
                    sending.result()
                sending = sender.submit(self._record, batch)
            if sending is not None:
                sending.result()

    def end(self) -> None:
        """Close the log, which is not read further, and note what is left of it."""
        if self.log.closed:
            return
        self.log.close()
        if self.log.fault:
            self._owner.done.faults.append(self.log.fault)
        elif self.log.unfinished:
            self._owner.done.waiting.append(self.log.name)

    def was_replaced(self) -> bool:
        """Whether its path leads to another log by now; what it still holds is to be imported first."""
        return self.log.was_replaced()

    def _next(self) -> Block | None:
        block = self.log.next()
        if block is None and (self._options.whole or not self.log.is_file) and not self.log.fault:
            block = self.log.rest()
        return block

    def _batch(self, block: Block) -> LineBatch:
        self._beginning.extend(block)
        if self._reader is None:
            self._key = self._key or self._beginning.hash_at(block.end)[:16]
            self._reader = LineReader(
                self._key,
                log_format=self._options.log_format,
                organization=self._options.organization,
                rules=self._options.rules,
                hash_key=self._options.hash_key,
            )
        batch = self._reader.read(block.place, self._line, block.lines, block.end)
        self._line += len(block.lines)
        return batch

    def _record(self, batch: LineBatch) -> None:
        """Record a batch; lines that the database refuses are set aside alone, by halves."""
        if self._options.dry_run:
            self._owner.done.add(self.log.name, batch, {"events": batch.event_count, "costs": len(batch.costs)})
        else:
            try:
                self._send(batch)
            except StoreRejected as error:
                if len(batch.lines) == 1:
                    if batch.bad:
                        raise
                    self._record(self._part(batch, 0, 1, refused=f"refused: {(error.sqlstate or 'unknown').lower()}"))
                else:
                    half = len(batch.lines) // 2
                    self._record(self._part(batch, 0, half))
                    self._record(self._part(batch, half, len(batch.lines)))
                return
        self._owner.progress(self.log, self._owner.done)

    def _send(self, batch: LineBatch) -> None:
        file: dict[str, Any] = {
            "key": self._key,
            "head": self._beginning.hash_at(batch.end),
            "name": self.log.name,
            "server": self._options.server,
        }
        if self._new:
            file["heads"] = self._beginning.hashes()
        text = batch.json(file=file, again=self._options.again)
        sent_before = False
        while True:
            try:
                answer = self._store.call("import_lines_v1", batch=text)
                break
            except StoreUnavailable:
                if not self._owner.wait():
                    raise
                sent_before = True
        if sent_before and not answer["taken"] and answer["place"] == batch.end:
            answer |= {"events": batch.event_count, "costs": len(batch.costs)}  # it had arrived, and the answer had not
        elif not answer["taken"]:
            raise _StandsElsewhere
        self._new = False
        self._owner.done.add(self.log.name, batch, answer)

    def _part(self, batch: LineBatch, first: int, last: int, *, refused: str = "") -> LineBatch:
        """Some lines of a batch, as a batch."""
        assert self._reader is not None  # noqa: S101 - it has made the batch
        place = batch.place + _length(batch.lines[:first])
        end = batch.end if last == len(batch.lines) else place + _length(batch.lines[first:last])
        return self._reader.read(place, batch.line + first, batch.lines[first:last], end, refused=refused)


def follow(importer: LogImport, cursors: Sequence[LogCursor], wait: Callable[[], bool]) -> None:
    """Go on importing what is added to logs, until `wait` says that it is enough, by False.

    A log that is rotated is read to its end, and then the one that has taken its name.
    """
    followed = [cursor for cursor in cursors if cursor.log.is_file]
    while followed and wait():
        for number, cursor in enumerate(followed):
            replaced = cursor.was_replaced()
            cursor.go_on()
            if replaced:
                cursor.end()
                followed[number] = importer.read(LogText(cursor.log.path))
    for cursor in followed:
        cursor.end()


def _length(lines: Sequence[bytes | TooLong]) -> int:
    return sum(line.length if isinstance(line, TooLong) else len(line) for line in lines) + len(lines)
