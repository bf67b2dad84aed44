"""The one way in: notes calls that begin, takes calls and service runs that have ended, and sees to it that none is lost.

A frame goes to the spool; where the spool takes no more, to memory; where memory is full, the call's money alone is kept. The
writer empties all three.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record, pack_run
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.wire import pack_call
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.delivery.batch_processor import BatchProcessor
from vital_tracking.delivery.exporter import StoreExporter
from vital_tracking.delivery.memory_queue import Queue
from vital_tracking.delivery.overflow import Overflow
from vital_tracking.delivery.rows import Draws, Row, by_clock
from vital_tracking.delivery.stats import Counts, Delivered, Stats
from vital_tracking.settings import Settings
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.location import spool_folder
from vital_tracking.spool.log_record import MAX_BODY, LogRecord, RecordKind
from vital_tracking.spool.orphans import OrphanedSegments, claim
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.delivery")

_DROPPED: Final = "Calls are being dropped: %s. See what `vital-tracking doctor` says."
_LEFT: Final = (
    "%d calls wait in the spool (%s) until the database takes them: the next process delivers them, "
    "or run: vital-tracking spool replay"
)
_OVERHEAD: Final = 200  # bytes of a queued frame beside its JSON
_AS_IT_IS: Final = 4096  # bytes of a queued call that is not packed: about as many, with what it refers to
_MOST_AS_THEY_ARE: Final = 1000  # calls in memory: what waits behind them is packed, and smaller
_HOPELESS_S: Final = 1.0
_PATIENCE_S: Final = 3.0


Recordable: TypeAlias = CallRecord | RunRecord | LiveCall
_MADE: Final = (CallRecord, RunRecord)


class Recorder:
    """Takes what was recorded and has it delivered. Everything that a caller's thread passes here is safe from any thread."""

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        settings: Settings,
    ) -> None:
        self.store = store
        self.prices = prices
        self._settings = settings
        self._counts = Counts()
        self.fault = self._counts.fault
        self.folder = None if getattr(store, "in_memory", False) else spool_folder(settings, store.description)
        self._exporter = StoreExporter(store, prices, settings, self._counts, folder=self.folder)
        self._exporter.on_clock = self._tell_clock
        self.on_tick = self._exporter.on_tick
        self.on_tick.append(self._keep_losses)
        self.settle_held = self._exporter.settle_held
        self.refresh_prices = self._exporter.refresh_prices
        self.clock = self._exporter.clock
        self._queue: Queue[LogRecord] = Queue(settings.queue_bytes)
        self._overflow = Overflow()
        self._spilling = threading.RLock()
        self.spool = self._open_spool()
        self._writer: BatchProcessor[LogRecord, Row] = BatchProcessor(
            self._exporter,
            [self._queue] if self.spool is None else [self.spool, self._queue],
            batch_size=settings.batch_size,
            max_batch=max(settings.max_batch_size, settings.batch_size),
            interval_s=settings.flush_interval_s,
            background=settings.background,
        )
        self._notice = self._writer.notice
        self.start = self._writer.start

    def _open_spool(self) -> Spool | None:
        if self.folder is None:
            return None
        settings = self._settings
        spool = Spool(
            self.folder,
            root=self.folder.parent,
            about=self.store.description,
            segment_bytes=settings.segment_bytes,
            limit_bytes=settings.spool_bytes,
            sync_s=settings.sync_interval_s,
            background=settings.background,
        )
        self._exporter.own_path = lambda: spool.path
        self._exporter.on_gone = spool.gone
        return spool

    # What the others hang on here

    @property
    def holds(self) -> Any:
        """What budgets hold; see `exporter.Holds`."""
        return self._exporter.holds

    @holds.setter
    def holds(self, holds: Any) -> None:
        self._exporter.holds = holds

    @property
    def on_alerts(self) -> Callable[[list[dict[str, Any]]], None] | None:
        """Told of alerts that became due."""
        return self._exporter.on_alerts

    @on_alerts.setter
    def on_alerts(self, told: Callable[[list[dict[str, Any]]], None] | None) -> None:
        self._exporter.on_alerts = told

    # Calls that begin

    def opened(self, kind: RecordKind, key: bytes, payload: bytes) -> None:
        """A call has begun: if this process dies before its end, it is recorded as abandoned."""
        if self.spool is not None and len(payload) < LONGEST:
            self.spool.append(kind, key, payload)

    def begun(self, record: CallRecord) -> CallRecord:
        """The same for a call that LangChain does not make, with the record that it becomes if no end comes.

        Returned as it was dated: its end must have the same time.
        """
        if self.spool is not None:
            try:
                record = by_clock(record, self.clock.skew_s)
                self.opened(RecordKind.BEGUN, id_bytes(record.id), pack_record(record))
            except Exception as error:  # noqa: BLE001 - only its beginning is lost
                self.fault(error)
        return record

    def void(self, call_id: str) -> None:
        """A call that had begun was not made after all."""
        if self.spool is not None:
            try:
                self.spool.append(RecordKind.VOID, id_bytes(call_id), b"", vital=True)
            except Exception as error:  # noqa: BLE001 - the call will be there as abandoned
                self.fault(error)

    # Calls and runs that have ended

    def put(self, item: Recordable) -> bool:
        """Record a call or one state of a service run; False where it was lost, which is counted and logged."""
        spool = self.spool
        if self._writer.closing and spool is None:
            self.refuse()
            return False
        short = False
        try:
            if spool is None and len(self._queue.waiting) < _MOST_AS_THEY_ARE and not isinstance(item, _MADE):
                item.keep()
                frame = LogRecord(RecordKind.CALL, item.id.bytes, b"", item=item)
            else:
                short = spool.pressed if spool is not None else self._queue.pressed
                frame, short = self._packed(item, short=short)
        except Exception as error:  # noqa: BLE001 - what cannot be packed is kept as what is known for sure
            self.fault(error)
            return self._merge(item)
        try:
            spooled = spool is not None and spool.append(frame.kind, frame.id, frame.payload)
        except Exception as error:  # noqa: BLE001 - there is memory still
            self.fault(error)
            spooled = False
        if spool is not None and spooled:
            waiting = len(spool.waiting)
        elif self._writer.closing:  # memory has no future
            self.refuse()
            return False
        elif self._queue.put(frame, len(frame.payload) + _OVERHEAD if frame.item is None else _AS_IT_IS):
            waiting = len(self._queue.waiting)
        else:
            return self._merge(item)
        if short:
            self._counts.stats.shortened += 1
        self._notice(waiting)
        return True

    def put_held(self, item: CallRecord | LiveCall) -> bool:
        """Record a call for which budgets hold something; where it is lost, its hold is given back."""
        hold = item.hold
        key = _key_of(item)
        self._exporter.hold(key, hold, item)
        if self.put(item):
            return True
        self._exporter.held.pop(key, None)
        if self._exporter.holds is not None:
            self._exporter.holds.give_back(hold)
        return False

    def refuse(self) -> None:
        """Count a call that came after the end."""
        self._drop(1, "the tracker is closed")

    def _packed(self, item: Recordable, *, short: bool) -> tuple[LogRecord, bool]:
        """The frame of an item, and whether it was shortened."""
        if not isinstance(item, _MADE):
            kind, key, pack = RecordKind.CALL, item.id.bytes, partial(pack_call, item)
        elif isinstance(item, CallRecord):
            record = by_clock(item, self.clock.skew_s)
            kind, key, pack = RecordKind.RECORD, id_bytes(item.id), partial(pack_record, record)
        else:
            return LogRecord(RecordKind.RUN, os.urandom(16), pack_run(item)), False
        payload = pack(short=short)
        if len(payload) > LONGEST and not short:
            short, payload = True, pack(short=True)
        if len(payload) >= MAX_BODY:
            raise ValueError("The record is too long.")
        return LogRecord(kind, key, payload), short

    def _merge(self, item: Recordable) -> bool:
        """Keep a call's money, where there is no room for more."""
        if isinstance(item, RunRecord):
            self._drop(1, "neither disk nor memory has room")
            return False
        try:
            self._lose(self._exporter.recorded(item), item.hold)
        except Exception as error:  # noqa: BLE001 - nothing is left to try
            self.fault(error)
            self._drop(1, "a fault of ours")
            return False
        self._counts.stats.merged += 1
        self._counts.say_once(
            "Neither disk nor memory has room for more calls: of those that come now only the money is kept, in sums. "
            "Mend the database, or raise VITAL_SPOOL_MIB."
        )
        self._notice(0)
        return True

    def _lose(self, record: CallRecord, hold: Any) -> None:
        """Add a call to the sums."""
        if record.replaces_abandoned:  # a row of it is in the database already, or on its way there
            self._drop(1, "neither disk nor memory has room for a late end")
            return
        exporter = self._exporter
        record = by_clock(record, self.clock.skew_s)
        cost = exporter.cost_of(record)
        draws: Draws = []
        if hold is not None and exporter.holds is not None:
            draws = exporter.holds.settle(hold, record, exporter.counted(record, cost))
        key = id_bytes(record.id)
        self._overflow.add(record, cost, None if hold is None else hold.holder, draws, key)
        exporter.held.pop(key, None)

    def _keep_losses(self) -> None:
        """Turn the sums into rows as soon as there is room for them."""
        with self._spilling:
            spool = self.spool
            if self._overflow and ((spool is not None and spool.healthy) or not self._queue.pressed):
                self._spill_losses()

    def _spill_losses(self, *, vital: bool = False) -> None:
        with self._spilling:  # so that nobody finds neither the sums nor their rows
            for record, draws, holder, ids in self._overflow.take():
                key, payload = id_bytes(record.id), pack_record(record, short=True)
                if draws:
                    self._exporter.drawn[key] = (holder, draws)
                if not (
                    (self.spool is not None and self.spool.append(RecordKind.RECORD, key, payload, vital=vital))
                    or self._queue.put(LogRecord(RecordKind.RECORD, key, payload), len(payload) + _OVERHEAD)
                ):
                    self._exporter.drawn.pop(key, None)
                    self._overflow.add(record, record.cost, holder, draws, *ids)
                elif self.spool is not None:
                    # Only now: until the sum is safe, each of its calls is better there as abandoned than not at all.
                    for key in ids:
                        self.spool.gone(key)

    def _drop(self, count: int, why: str) -> None:
        self._counts.stats.dropped += count
        if count:
            self._counts.say_once(_DROPPED, why)

    def _tell_clock(self, skew_s: float) -> None:
        """Before the first rows are sent: whoever delivers the rest of them must give them the same times."""
        if self.spool is not None:
            self.spool.append(RecordKind.CLOCK, bytes(16), b'{"skew":%.6f}' % skew_s)

    # The end, and what is left

    def tick(self) -> None:
        """Do what is due now."""
        self._exporter.tick()

    def flush(self, timeout: float | None = None) -> Delivered:
        """Send what waits and wait for the store's acknowledgement, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        complete = merged = True
        while complete and merged:  # sums that found no room for their rows find some when others have gone
            self._keep_losses()
            with self._spilling:
                merged = bool(self._overflow)
            complete = self._writer.flush(None if deadline is None else max(deadline - time.monotonic(), 0))
        if self.spool is not None and not self._settings.background:
            self.spool.sync()
        return self.delivered(complete)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop. What is left stays in the spool."""
        spool = self.spool
        patience = None
        if spool is not None and spool.healthy:  # what waits is safe where it is
            patience = _PATIENCE_S
            if self._writer.troubled:
                timeout = min(timeout, _HOPELESS_S)
        idle = self._writer.close(timeout, patience=patience)
        try:
            if spool is not None:
                self._rescue(spool, idle)
                self._spill_losses(vital=True)
                spool.close(idle=idle)
        except Exception as error:  # noqa: BLE001 - a process must be able to end
            self.fault(error)
        for orphan in self._exporter.orphans:
            orphan.let_go()
        waiting = 0 if spool is None else len(spool.waiting)
        in_memory = len(self._queue.waiting)
        lost = sum(record.calls for record, *_ in self._overflow.take())
        self._drop(lost, "the process is ending")
        if in_memory and not idle:
            logger.warning("Time is over with %d calls on their way; whether they are stored is unknown.", in_memory)
        elif in_memory:
            self._drop(self._calls_in_memory(), "the process is ending")
            self._queue.reset()
        if waiting:
            logger.warning(_LEFT, waiting, self.folder)
        return self.delivered(not (waiting or in_memory or lost))

    def _calls_in_memory(self) -> int:
        """How many calls wait in memory, merged ones each for itself."""
        count = 0
        for frame in self._queue.take(len(self._queue.waiting)):
            item = self._exporter.decoded(frame) if frame.kind == RecordKind.RECORD else None
            count += item.calls if isinstance(item, CallRecord) else 1
        return count

    def _rescue(self, spool: Spool, idle: bool) -> None:
        """Move to the spool what waits in memory: whole where there is room, else its money.

        What is on its way at this moment may be sent twice, and counts once; so of that nothing is merged.
        """
        for frame in self._queue.take(len(self._queue.waiting)):
            if spool.append(frame.kind, frame.id, frame.payload):
                continue
            if not idle:
                self._queue.rewind()
                return
            if frame.kind == RecordKind.RUN:
                self._drop(1, "neither disk nor memory has room")
            else:
                record = self._exporter.decoded(frame)
                self._lose(record, self._exporter.held.get(frame.id))
                self._counts.stats.merged += 1
        self._queue.settle()

    def delivered(self, complete: bool) -> Delivered:
        """The counts as they stand."""
        stats = self.stats()
        return Delivered(
            stats.inserted, stats.duplicate, stats.rejected, stats.dropped, stats.waiting, stats.spooled, complete
        )

    def stats(self) -> Stats:
        """A copy of the counts."""
        stats = self._counts.stats.copy()
        stats.waiting = self._writer.waiting
        if self.spool is not None:
            stats.spooled = len(self.spool.waiting)
            stats.spool_bytes = self.spool.size
            stats.damaged += self.spool.damaged
        return stats

    def replay(
        self, timeout: float, on_progress: Callable[[OrphanedSegments, int], None] = lambda _estate, _calls: None
    ) -> bool:
        """Deliver now what dead processes have left, for at most `timeout` seconds; whether all of it is delivered."""
        if self.folder is None:
            return True
        deadline = time.monotonic() + timeout
        for orphan in claim(self.folder, self.spool.path if self.spool is not None else None):
            self._exporter.orphans.append(orphan)
            try:
                self._writer.empty(orphan, deadline, partial(on_progress, orphan))
            finally:
                if not orphan.finished:
                    orphan.let_go()
            if not orphan.finished:
                return False
        return True

    def reset_after_fork(self) -> None:
        """In a forked child: no queue, no spool, no counts, no connections of the parent's."""
        self._counts.reset()
        self._queue.reset()
        self._overflow.reset()
        self._spilling = threading.RLock()
        if self.spool is not None:
            self.spool.reset_after_fork()
        self._exporter.reset_after_fork()
        self._writer.reset_after_fork()
        self.store.after_fork()


def _key_of(item: CallRecord | LiveCall) -> bytes:
    return id_bytes(item.id) if isinstance(item.id, str) else item.id.bytes
