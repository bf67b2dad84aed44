"""The one way in: notes calls that begin, takes calls and service runs that have ended, and sees to it that none is lost.

A log record goes to the spool; where the spool takes no more, to memory; where memory is full, the call's money alone is kept.
The batch processor empties all three.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record
from vital_tracking.calls.live import LiveCall
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord
from vital_tracking.delivery.batch_processor import BatchProcessor
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.dead_letters import DeadLetters
from vital_tracking.delivery.encoding import Call, Recordable, as_log_record, by_clock, decoded, key_of
from vital_tracking.delivery.exporter import Row, StoreExporter
from vital_tracking.delivery.memory_queue import RECORD_OVERHEAD, MemoryQueue
from vital_tracking.delivery.overflow import Overflow
from vital_tracking.delivery.settlement import Holds, Settlement
from vital_tracking.delivery.stats import Counts, Delivered, Stats
from vital_tracking.delivery.upkeep import Upkeep
from vital_tracking.settings import Settings
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.location import spool_folder
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.spool.orphans import OrphanedSegments, Orphans
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.delivery")

_LEFT: Final = (
    "%d calls wait in the spool (%s) until the database takes them: the next process delivers them, "
    "or run: vital-tracking spool replay"
)
_AS_IT_IS: Final = 4096  # bytes of a queued call that is not packed: about as many, with what it refers to
_MOST_AS_THEY_ARE: Final = 1000  # calls in memory: what waits behind them is packed, and smaller
_HOPELESS_S: Final = 1.0
_PATIENCE_S: Final = 3.0


class Recorder:
    """Takes what was recorded and has it delivered. Everything that a caller's thread passes here is safe from any thread.

    `on_tick` holds what is to be done from time to time, on the delivering thread; `on_alerts` is told of alerts that became due;
    `holds` are the budgets, which have set something aside for calls. These three are hung on here by those who stand above.
    """

    def __init__(self, store: Store, prices: PriceBook, settings: Settings) -> None:
        self.store = store
        self.prices = prices
        self.clock = DatabaseClock()
        self.on_tick: list[Callable[[], None]] = []
        self.on_alerts: Callable[[list[dict[str, Any]]], None] | None = None
        self._settings = settings
        self.folder = None if getattr(store, "in_memory", False) else spool_folder(settings, store.description)
        self._build(None)

    def _build(self, holds: Holds | None) -> None:
        """Make all parts; in a forked child anew, since those of the parent are in the middle of whatever its threads do."""
        settings, store, clock = self._settings, self.store, self.clock
        self._counts = counts = Counts()
        self.fault = counts.fault
        costs = Costs(self.prices, settings.ceiling_price)
        self._settlement = settlement = Settlement(costs, counts, holds)
        self.settle_held = settlement.settle_pending
        self._queue: MemoryQueue[LogRecord] = MemoryQueue(settings.queue_bytes)
        self.spool = spool = self._make_spool()
        self._overflow = Overflow(spool, self._queue, settlement, costs, clock, counts)
        self._orphans = Orphans(
            self.folder,
            lambda: spool.path if spool is not None else None,
            lambda: clock.first_s,
            found=self._found,
            fault=counts.fault,
        )
        upkeep = Upkeep(
            store, self.prices, clock, counts.fault, on_prices=settlement.prices_changed, on_clock=self._clock_known
        )
        self.refresh_prices = upkeep.refresh
        self._writer: BatchProcessor[LogRecord, Row] = BatchProcessor(
            StoreExporter(
                store,
                costs,
                settlement,
                upkeep,
                clock,
                DeadLetters(self.folder),
                counts,
                on_alerts=self._tell_alerts,
                on_posted=spool.gone if spool is not None else lambda _key: None,
            ),
            [self._queue] if spool is None else [spool, self._queue],
            batch_size=settings.batch_size,
            max_batch=max(settings.max_batch_size, settings.batch_size),
            interval_s=settings.flush_interval_s,
            background=settings.background,
            further_sources=self._orphans.sources,
            on_tick=self.tick,
        )
        self._notice = self._writer.notice
        self.start = self._writer.start

    def _make_spool(self) -> Spool | None:
        if self.folder is None:
            return None
        settings = self._settings
        return Spool(
            self.folder,
            root=self.folder.parent,
            about=self.store.description,
            segment_bytes=settings.segment_bytes,
            limit_bytes=settings.spool_bytes,
            sync_s=settings.sync_interval_s,
            background=settings.background,
        )

    def reset_after_fork(self) -> None:
        """In a forked child: no queue, no spool, no counts, no connections of the parent's."""
        if self.spool is not None:
            self.spool.let_go()
        self._orphans.let_go()
        self._build(self._settlement.holds)
        self.store.after_fork()

    @property
    def holds(self) -> Holds | None:
        """The budgets, which have set something aside for calls."""
        return self._settlement.holds

    @holds.setter
    def holds(self, holds: Holds | None) -> None:
        self._settlement.holds = holds

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
            if spool is None and len(self._queue.waiting) < _MOST_AS_THEY_ARE and isinstance(item, LiveCall):
                item.keep()
                record = LogRecord(RecordKind.CALL, item.id.bytes, b"", item=item)
            else:
                short = spool.pressed if spool is not None else self._queue.nearly_full
                record, short = as_log_record(item, self.clock.skew_s, short=short)
        except Exception as error:  # noqa: BLE001 - what cannot be packed is kept as what is known for sure
            self.fault(error)
            return self._merge(item)
        try:
            spooled = spool is not None and spool.append(record.kind, record.id, record.payload)
        except Exception as error:  # noqa: BLE001 - there is memory still
            self.fault(error)
            spooled = False
        if spool is not None and spooled:
            waiting = len(spool.waiting)
        elif self._writer.closing:  # memory has no future
            self.refuse()
            return False
        elif self._queue.put(record, len(record.payload) + RECORD_OVERHEAD if record.item is None else _AS_IT_IS):
            waiting = len(self._queue.waiting)
        else:
            return self._merge(item)
        if short:
            self._counts.stats.shortened += 1
        self._notice(waiting)
        return True

    def put_held(self, item: Call) -> bool:
        """Record a call for which budgets hold something; where it is lost, its hold is given back."""
        key = key_of(item)
        self._settlement.register(key, item)
        if self.put(item):
            return True
        self._settlement.give_back(key, item.hold)
        return False

    def refuse(self) -> None:
        """Count a call that came after the end."""
        self._counts.drop(1, "the tracker is closed")

    def _merge(self, item: Recordable) -> bool:
        merged = self._overflow.merge(item)
        if merged:
            self._notice(0)
        return merged

    # What the parts tell

    def tick(self) -> None:
        """Do what is due now."""
        self._settlement.settle_many_pending()
        for work in (self._overflow.spill_if_room, *self.on_tick):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - housekeeping must not stop delivery
                self.fault(error)

    def _clock_known(self, skew_s: float) -> None:
        """Before the first rows are sent: whoever delivers the rest of them must give them the same times."""
        if self.spool is not None:
            self.spool.append(RecordKind.CLOCK, bytes(16), b'{"skew":%.6f}' % skew_s)
        self._orphans.date(skew_s)

    def _tell_alerts(self, alerts: list[dict[str, Any]]) -> None:
        if self.on_alerts is not None:
            self.on_alerts(alerts)

    def _found(self, orphan: OrphanedSegments) -> None:
        self._counts.stats.damaged += orphan.damaged

    # The end, and what is left

    def flush(self, timeout: float | None = None) -> Delivered:
        """Send what waits and wait for the store's acknowledgement, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        complete = merged = True
        while complete and merged:  # sums that found no room for their rows find some when others have gone
            self._overflow.spill_if_room()
            merged = self._overflow.holds_calls
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
                self._overflow.rescue(spool, idle=idle)
                self._overflow.spill(critical=True)
                spool.close(idle=idle)
        except Exception as error:  # noqa: BLE001 - a process must be able to end
            self.fault(error)
        self._orphans.let_go()
        waiting = 0 if spool is None else len(spool.waiting)
        in_memory = len(self._queue.waiting)
        lost = self._overflow.drain()
        self._counts.drop(lost, "the process is ending")
        if in_memory and not idle:
            logger.warning("Time is over with %d calls on their way; whether they are stored is unknown.", in_memory)
        elif in_memory:
            self._counts.drop(self._drain_queue(), "the process is ending")
        if waiting:
            logger.warning(_LEFT, waiting, self.folder)
        return self.delivered(not (waiting or in_memory or lost))

    def _drain_queue(self) -> int:
        """Give up what waits in memory: how many calls and runs that were, merged ones each for itself."""
        count = 0
        for record in self._queue.take(len(self._queue.waiting)):
            call = decoded(record, 0.0, self.fault) if record.kind == RecordKind.RECORD else None
            count += 1 if call is None else call.calls
        self._queue.settle()
        return count

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
        self, timeout: float, on_progress: Callable[[OrphanedSegments, int], None] = lambda _orphan, _calls: None
    ) -> bool:
        """Deliver now what dead processes have left, for at most `timeout` seconds; whether all of it is delivered."""
        deadline = time.monotonic() + timeout
        for orphan in self._orphans.claim():
            try:
                self._writer.empty(orphan, deadline, partial(on_progress, orphan))
            finally:
                if not orphan.finished:
                    orphan.let_go()
            if not orphan.finished:
                return False
        return True
