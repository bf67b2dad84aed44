"""Where everything enters delivery: calls that begin, and calls and service runs that have ended.

A log record goes to the spool; where the spool takes no more, to memory; where memory is full, the call's money alone is kept.
The batch processor empties all three.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record
from vital_tracking.calls.live import LiveCall
from vital_tracking.core.frames import ScopeFrame
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.core.tally import Spent
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.encoding import EndedCall, Recordable, as_log_record, dated, key_of
from vital_tracking.delivery.memory_queue import as_queued
from vital_tracking.delivery.pipeline import Pipeline
from vital_tracking.delivery.platform_record import PlatformRecord
from vital_tracking.delivery.settlement import Holds
from vital_tracking.delivery.stats import Delivered, Stats
from vital_tracking.settings import Settings
from vital_tracking.spool.location import spool_location
from vital_tracking.spool.log_record import CALL, LogRecord, RecordKind
from vital_tracking.spool.orphans import OrphanedSegments
from vital_tracking.stores.protocol import Store

_MOST_AS_THEY_ARE: Final = 1000  # calls that wait in memory unpacked; further ones are packed, which is smaller


class Recorder:
    """Takes what was recorded and has it delivered. Everything that a caller's thread passes here is safe from any thread.

    Set by those who use it: `on_tick`, what is to be done from time to time, on the delivering thread; `on_alerts`, told of
    alerts that became due; `holds`, the budgets, which have set something aside for calls.
    """

    def __init__(self, store: Store, prices: PriceBook, settings: Settings) -> None:
        self.store = store
        self.prices = prices
        self.clock = DatabaseClock()
        self.on_tick: list[Callable[[], None]] = []
        self.on_alerts: Callable[[list[dict[str, Any]]], None] | None = None
        self._settings = settings
        self._runs: dict[str, RunRecord] = {}  # service runs that have begun in this process and not ended
        self._owner: object = None
        self._location = None if store.in_memory else spool_location(settings, store.identity, store.description)
        self._make_pipeline(None)

    def _make_pipeline(self, holds: Holds | None) -> None:
        self._pipeline = pipeline = Pipeline(
            self.store,
            self.prices,
            self._settings,
            clock=self.clock,
            location=self._location,
            holds=holds,
            owner=self._owner,
            on_tick=self.on_tick,
            on_alerts=self._tell_alerts,
        )
        self.spool = pipeline.spool
        self._counts = pipeline.counts
        self._queue = pipeline.queue
        self._overflow = pipeline.overflow
        self._settlement = pipeline.settlement
        self._tallies = pipeline.tallies
        self._writer = pipeline.processor
        self._notice = pipeline.processor.notice
        self.start = pipeline.processor.start

    def reset_after_fork(self) -> None:
        """In a forked child: no queue, no spool, no counts, no connections of the parent's."""
        self._pipeline.let_go()
        self._runs = {}  # the parent's
        self._make_pipeline(self.holds)
        self.store.after_fork()

    @property
    def folder(self) -> Path | None:
        """The database's folder in the spool; None where there is no spool."""
        return self._pipeline.folder

    @property
    def holds(self) -> Holds | None:
        """The budgets, which have set something aside for calls."""
        return self._settlement.holds

    @holds.setter
    def holds(self, holds: Holds | None) -> None:
        self._settlement.holds = holds

    @property
    def owner(self) -> object:
        """What the frames of scopes name as theirs whose calls are recorded here."""
        return self._owner

    @owner.setter
    def owner(self, owner: object) -> None:
        self._owner = self._tallies.owner = owner

    def spent(self, frame: ScopeFrame) -> Spent:
        """What the calls of the scope of that `frame`, and of those inside it, have used and cost so far."""
        return self._tallies.spent(frame)

    def _tell_alerts(self, alerts: list[dict[str, Any]]) -> None:
        if self.on_alerts is not None:
            self.on_alerts(alerts)

    def fault(self, error: BaseException) -> None:
        """Count a fault of ours, and log the first."""
        self._counts.fault(error)

    def settle_held(self) -> bool:
        """Settle the holds of calls that have ended and still wait for delivery; whether there were any."""
        return self._settlement.settle_pending()

    def refresh_prices(self) -> None:
        """Take prices and time from the database where they are due; StoreUnavailable or StoreNotReady where it is away."""
        self._pipeline.upkeep.refresh()

    def tick(self) -> None:
        """Do what is due now."""
        self._pipeline.tick()

    # Calls that begin

    def opened(self, kind: int, key: bytes, payload: bytes) -> None:
        """A call has begun: if this process dies before its end, it is recorded as abandoned."""
        if self.spool is not None and len(payload) < LONGEST:
            self.spool.append(kind, key, payload)

    def begun(self, record: CallRecord) -> CallRecord:
        """Note that a call has begun which LangChain does not make; `record` is what it becomes if no end is recorded.

        Returns the record with its time corrected: the record of its end must have the same time.
        """
        if self.spool is not None:
            try:
                record = dated(record, self.clock.skew_s)
                self.opened(RecordKind.BEGUN, id_bytes(record.id), pack_record(record))
            except Exception as error:  # noqa: BLE001 - only its beginning is lost
                self.fault(error)
        return record

    def void(self, call_id: str) -> None:
        """A call that had begun was not made after all."""
        if self.spool is not None:
            try:
                self.spool.append(RecordKind.TOMBSTONE, id_bytes(call_id), b"", critical=True)
            except Exception as error:  # noqa: BLE001 - the call will be there as abandoned
                self.fault(error)

    # Calls and runs that have ended

    def put(self, item: Recordable) -> bool:
        """Record a call, one state of a service run, or what is no call; False where it was lost, which is counted and logged."""
        return self._put(item, None)

    def _put(self, item: Recordable, held: bytes | None) -> bool:
        """As `put`; `held` is the key of a call for which budgets hold something."""
        spool = self.spool
        if self._writer.closing and spool is None:
            self.refuse()
            return False
        short = False
        try:
            if spool is None and len(self._queue.waiting) < _MOST_AS_THEY_ARE and isinstance(item, LiveCall):
                item.keep()
                record = LogRecord(
                    CALL, item.id.bytes, b"", item=item if _is_dated(item) else dated(item, self.clock.skew_s)
                )
            else:
                short = self._queue.nearly_full or (spool is not None and spool.nearly_full)
                record, short = as_log_record(item, None if _is_dated(item) else self.clock.skew_s, short=short)
        except Exception as error:  # noqa: BLE001 - what cannot be packed is kept as what is known for sure
            self.fault(error)
            return self._merge(item)
        try:
            spooled = spool is not None and spool.append(record.kind, record.id, record.payload)
        except Exception as error:  # noqa: BLE001 - then it waits in memory
            self.fault(error)
            spooled = False
        if spool is not None and spooled:
            waiting = len(spool.waiting)
        elif self._writer.closing:  # the process is ending, and its memory with it
            self.refuse()
            return False
        elif self._queue.put(*as_queued(record)):
            waiting = len(self._queue.waiting)
        else:
            merged = self._merge(item)
            if merged:
                self._noted(item, record, None)
            return merged
        self._noted(item, record, held)
        if short:
            self._counts.stats.shortened += 1
        self._notice(waiting)
        return True

    def _noted(self, item: Recordable, record: LogRecord, held: bytes | None) -> None:
        """Have sums and budgets know of what was recorded."""
        if isinstance(item, (RunRecord, PlatformRecord)):
            return
        if held is not None:
            self._settlement.ended(held, item, record)
        try:
            self._tallies.ended(item, record)
        except Exception as error:  # noqa: BLE001 - it is missing in what its scope says, and nowhere else
            self.fault(error)

    def put_run(self, run: RunRecord) -> bool:
        """Record one state of a service run; one that has no end when the process ends is recorded as abandoned."""
        if run.status == "running":
            self._runs[run.id] = run
        else:
            known = self._runs.pop(run.id, None)
            if known is not None and known.context.session_id != run.context.session_id:
                run = run._replace(context=known.context)
        return self.put(run)

    def serves_thread(self, run_id: str | None, thread: str | None) -> None:
        """A graph with a thread has started in a service run: the run is a part of that thread's session, unless it has one."""
        run = self._runs.get(run_id or "")
        if run is not None and thread and run.context.session_id is None:
            self.put_run(run._replace(context=run.context.replace({"session_id": thread})))

    def put_held(self, item: EndedCall) -> bool:
        """Record a call for which budgets hold something; where it is lost, its hold is given back."""
        key = key_of(item)
        self._settlement.register(key, item.hold)
        if self._put(item, key):
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

    # The end, and what is left

    def flush(self, timeout: float | None = None) -> Delivered:
        """Send what waits and wait for the store's acknowledgement, at most `timeout` seconds."""
        return self._pipeline.flush(timeout)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop. What is left stays in the spool."""
        for run in list(self._runs.values()):
            self.put_run(run.abandoned(datetime.now(UTC)))
        return self._pipeline.close(timeout)

    def stats(self) -> Stats:
        """A copy of the counts."""
        return self._pipeline.stats()

    def replay(
        self, timeout: float, on_progress: Callable[[OrphanedSegments, int], None] = lambda _orphan, _calls: None
    ) -> bool:
        """Deliver now what dead processes have left, for at most `timeout` seconds; whether all of it is delivered."""
        return self._pipeline.replay(timeout, on_progress)


def _is_dated(item: Recordable) -> bool:
    """Whether a call's time is settled, so that nobody needs to know the database's."""
    return isinstance(item, LiveCall) and item.skew_s is not None
