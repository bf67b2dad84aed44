"""Puts delivery together for one process, from recorder to store; a forked child makes another one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.batch_processor import BatchProcessor
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.dead_letters import DeadLetters, move_letters
from vital_tracking.delivery.encoding import decoded
from vital_tracking.delivery.exporter import Row, StoreExporter
from vital_tracking.delivery.memory_queue import MemoryQueue
from vital_tracking.delivery.overflow import Overflow
from vital_tracking.delivery.settlement import Holds, Settlement
from vital_tracking.delivery.stats import Counts, Delivered, Stats
from vital_tracking.delivery.tallies import Tallies
from vital_tracking.delivery.upkeep import Upkeep
from vital_tracking.errors import StoreError
from vital_tracking.settings import Settings
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.location import SpoolLocation
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.spool.orphans import OrphanedSegments, Orphans
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.delivery")

_LEFT: Final = (
    "%d calls wait in the spool (%s) until the database takes them: the next process delivers them, "
    "or run: vital-tracking spool replay"
)
_ANOTHER: Final = (
    "%s is another database than before: what was left for the former one stays in the spool. "
    "See: vital-tracking spool status"
)
_HOPELESS_S: Final = 1.0
_PATIENCE_S: Final = 3.0


class Pipeline:
    """The parts of delivery, and how they call each other.

    `location` is where the database's spool lies, None where there is none; `owner` is whose scopes are added up. `on_tick`
    holds what is to be done from time to time, on the delivering thread; `on_alerts` is told of alerts that became due.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        settings: Settings,
        *,
        clock: DatabaseClock,
        location: SpoolLocation | None,
        holds: Holds | None,
        owner: object,
        on_tick: Sequence[Callable[[], None]],
        on_alerts: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._location = location
        self._on_tick = on_tick
        self._learning = threading.Lock()
        self.counts = counts = Counts()
        costs = Costs(prices, settings.ceiling_price)
        self.settlement = settlement = Settlement(costs, counts, holds)
        self.tallies = Tallies(costs, counts.fault, owner)
        self.queue: MemoryQueue[LogRecord] = MemoryQueue(settings.queue_bytes)
        self.spool = spool = self._make_spool()
        self.overflow = Overflow(spool, self.queue, settlement, costs, clock, counts)
        self.orphans = Orphans(
            location,
            lambda: spool.path if spool is not None else None,
            ask=self._ask_who_it_is,
            found=self._found,
            fault=counts.fault,
        )
        self._dead_letters = DeadLetters(self.folder)
        self.upkeep = Upkeep(
            store,
            prices,
            clock,
            counts.fault,
            on_prices=settlement.prices_changed,
            on_database=self._database_known,
        )
        exporter = StoreExporter(
            store,
            costs,
            settlement,
            self.tallies,
            self.upkeep,
            clock,
            self._dead_letters,
            counts,
            on_alerts=on_alerts,
            on_posted=spool.delivered if spool is not None else lambda _keys: None,
        )
        self.processor: BatchProcessor[LogRecord, Row] = BatchProcessor(
            exporter,
            [self.queue] if spool is None else [spool, self.queue],
            batch_size=settings.batch_size,
            max_batch=max(settings.max_batch_size, settings.batch_size),
            interval_s=settings.flush_interval_s,
            background=settings.background,
            further_sources=self.orphans.sources,
            on_tick=self.tick,
        )

    @property
    def folder(self) -> Path | None:
        """The database's folder in the spool; None where there is no spool."""
        return self._location.folder if self._location is not None else None

    def _make_spool(self) -> Spool | None:
        location, settings = self._location, self._settings
        if location is None:
            return None
        return Spool(
            location.folder,
            root=location.root,
            about=location.about,
            segment_bytes=settings.segment_bytes,
            limit_bytes=settings.spool_bytes,
            sync_s=settings.sync_interval_s,
            background=settings.background,
        )

    def let_go(self) -> None:
        """In a forked child: close this process's copies of the files, which are the parent's."""
        if self.spool is not None:
            self.spool.let_go()
        self.orphans.let_go()

    # What the parts report

    def tick(self) -> None:
        """Do what is due now."""
        troubled = self.processor.troubled
        self.settlement.settle_many_pending(troubled=troubled)
        self.settlement.forget_lapsed()
        sums: Callable[[], object] = partial(self.tallies.tick, troubled=troubled)
        for work in (sums, self.overflow.spill_if_room, *self._on_tick):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - housekeeping must not stop delivery
                self.counts.fault(error)

    def _database_known(self, database_id: str) -> None:
        """The database has told its id: from now on only what belongs to it is taken from the spool."""
        location = self._location
        if location is None:
            return
        with self._learning:  # another thread that refreshes waits here, and sends nothing before this is done
            if location.confirmed and location.database_id == database_id:
                return
            if location.learn(database_id):
                self.orphans.let_go()
                self.counts.say_once(_ANOTHER, self._store.description)
            if self.spool is not None:
                self.spool.move_on(location.folder, location.about)
            self._dead_letters.folder = location.folder
            for folder in location.former_folders:
                move_letters(folder, location.folder)
            self.orphans.look_again()

    def _ask_who_it_is(self) -> None:
        with suppress(StoreError):  # it will be asked again
            self.upkeep.refresh()

    def _found(self, orphan: OrphanedSegments) -> None:
        self.counts.stats.damaged += orphan.damaged

    # The end, and what is left

    def flush(self, timeout: float | None = None) -> Delivered:
        """Send what waits and wait for the store's acknowledgement, at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        complete = merged = True
        while complete and merged:  # sums that found no room may find some once other rows have been sent
            self.overflow.spill_if_room()
            merged = self.overflow.holds_sums
            complete = self.processor.flush(None if deadline is None else max(deadline - time.monotonic(), 0))
        if self.spool is not None and not self._settings.background:
            self.spool.sync()
        return self.delivered(complete)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop. What is left stays in the spool."""
        spool = self.spool
        patience = None
        if spool is not None and spool.healthy:  # what waits is safe where it is
            patience = _PATIENCE_S
            if self.processor.troubled:
                timeout = min(timeout, _HOPELESS_S)
        idle = self.processor.close(timeout, patience=patience)
        try:
            if spool is not None:
                self.overflow.rescue(spool, idle=idle)
                self.overflow.spill(critical=True)
                spool.close(idle=idle)
        except Exception as error:  # noqa: BLE001 - a process must be able to end
            self.counts.fault(error)
        self.orphans.let_go()
        waiting = 0 if spool is None else len(spool.waiting)
        in_memory = len(self.queue.waiting)
        lost = self.overflow.drain()
        self.counts.drop(lost, "the process is ending")
        if in_memory and not idle:
            logger.warning("Time is over with %d calls on their way; whether they are stored is unknown.", in_memory)
        elif in_memory:
            self.counts.drop(self._drain_queue(), "the process is ending")
        if waiting:
            logger.warning(_LEFT, waiting, self.folder)
        return self.delivered(not (waiting or in_memory or lost))

    def _drain_queue(self) -> int:
        """Drop what waits in memory; returns how many calls and runs that were, a merged row counting as all its calls."""
        count = 0
        for record in self.queue.read(len(self.queue.waiting)):
            call = decoded(record, self.counts.fault) if record.kind == RecordKind.RECORD else None
            count += 1 if call is None else call.calls
        self.queue.ack()
        return count

    def delivered(self, complete: bool) -> Delivered:
        """The counts as they stand."""
        stats = self.stats()
        return Delivered(
            stats.inserted, stats.duplicate, stats.rejected, stats.dropped, stats.waiting, stats.spooled, complete
        )

    def stats(self) -> Stats:
        """A copy of the counts."""
        stats = self.counts.stats.copy()
        stats.waiting = self.processor.waiting
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
        self._ask_who_it_is()
        for orphan in self.orphans.claim():
            try:
                self.processor.empty(orphan, deadline, partial(on_progress, orphan))
            finally:
                if not orphan.finished:
                    orphan.let_go()
            if not orphan.finished:
                return False
        return True
