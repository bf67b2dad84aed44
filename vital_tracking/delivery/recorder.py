"""The one way in: takes finished calls and service runs, prices them, and has the writer deliver them to the store."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import orjson

from vital_tracking.context import CallContext
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.writer import Writer
from vital_tracking.errors import StoreError, StoreNotReady, StoreRejected, StoreUnavailable
from vital_tracking.pricing import Price, PriceBook, ceiling_rates
from vital_tracking.settings import Settings
from vital_tracking.stores.protocol import Store
from vital_tracking.usage import CallRecord, Cost, RunRecord, call_row, clean_text, run_row

logger = logging.getLogger("vital_tracking.delivery")

_PRICES_EVERY_S: Final = 300.0
_UNFORESEEN_TRIES: Final = 4


class Unrecorded(Protocol):
    """A finished call that still has to be made a record of: done on the writer's thread, not the caller's."""

    @property
    def hold(self) -> Any:
        """What its budgets had set aside for it, or None."""

    def record(self) -> CallRecord:
        """The record."""

    def shortest(self) -> CallRecord:
        """The record where `record` failed: what is known for sure, and a note. Must not raise."""


class Holds(Protocol):
    """What budgets have set aside for calls: told what each call used, and when the database knows."""

    def settle(self, hold: Any, record: CallRecord, cost: Decimal | None) -> list[tuple[int, str]]:
        """Replace a hold by what the call cost; what its row must say of it: [(window id, amount), ...]. Idempotent."""

    def posted(self, holder: str, draws: list[tuple[int, str]]) -> None:
        """Rows that said so are in the database, or never will be."""

    def give_back(self, hold: Any) -> None:
        """There will be no record of the call. May be called from anywhere, in the middle of anything."""

    def prices_changed(self) -> None:
        """The team's prices were read anew."""


Recordable: TypeAlias = CallRecord | RunRecord | Unrecorded
_Clocked = TypeVar("_Clocked", CallRecord, RunRecord)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the store has acknowledged since the tracker was made, and whether everything is settled.

    `duplicate`: rows the store already had. `rejected`: rows it refused for what they hold. `dropped`: lost before they were
    sent. `waiting`: neither yet. `complete`: nothing waits.
    """

    inserted: int
    duplicate: int
    rejected: int
    dropped: int
    waiting: int
    complete: bool


@dataclass(slots=True)
class Stats:
    """What a tracker has done since it was made: counts of calls, and what went wrong on our side."""

    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0
    dropped: int = 0
    waiting: int = 0
    in_flight: int = 0
    unpriced: int = 0
    estimated: int = 0
    abandoned: int = 0
    blocked: int = 0
    unchecked: int = 0
    faults: int = 0


@dataclass(slots=True)
class _Row:
    """One encoded row: its JSON text and the function it is for."""

    function: str
    text: str
    holder: str | None = None
    draws: list[tuple[int, str]] = dataclasses.field(default_factory=list)


class Recorder:
    """Prices records and hands them to the writer. `put` costs the caller a queue operation; all else happens behind."""

    def __init__(self, store: Store, prices: PriceBook, settings: Settings) -> None:
        self.store = store
        self.prices = prices
        self.clock = DatabaseClock()
        self.holds: Holds | None = None
        self.on_tick: list[Callable[[], None]] = []
        self.on_alerts: Callable[[list[dict[str, Any]]], None] | None = None
        self._ceiling = ceiling_rates(settings.ceiling_price)
        self._held: deque[CallRecord | Unrecorded] = deque(maxlen=100_000)
        self._stats = Stats()
        self._prices_due = 0.0
        self._unforeseen = 0
        self._rejection_logged = False
        self._fault_logged = False
        self._writer: Writer[Recordable, _Row] = Writer(
            self,
            batch_size=settings.batch_size,
            max_batch=max(settings.max_batch_size, settings.batch_size),
            interval_s=settings.flush_interval_s,
            capacity=settings.queue_size,
        )
        self.put = self._writer.put
        self.start = self._writer.start
        self.refuse = self._writer.refuse

    def flush(self, timeout: float | None = None) -> Delivered:
        """Send what waits and wait for the store's acknowledgement, at most `timeout` seconds."""
        complete = self._writer.flush(timeout)
        return self.delivered(complete)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop."""
        return self.delivered(self._writer.close(timeout))

    def delivered(self, complete: bool) -> Delivered:
        """The counts as they stand."""
        stats = self.stats()
        return Delivered(stats.inserted, stats.duplicate, stats.rejected, stats.dropped, stats.waiting, complete)

    def stats(self) -> Stats:
        """A copy of the counts."""
        stats = Stats(**asdict(self._stats))
        stats.waiting = self._writer.waiting
        stats.dropped = self._writer.dropped
        return stats

    def reset_after_fork(self) -> None:
        """In a forked child: no queue, no counts, no connections of the parent's."""
        self._stats = Stats()
        self._prices_due = 0.0
        self._held.clear()
        self._writer.reset_after_fork()
        self.store.after_fork()

    def fault(self, error: BaseException) -> None:
        """Count a fault of ours; the first is logged by its class alone, since its text might hold a user's."""
        self._stats.faults += 1
        if not self._fault_logged:
            self._fault_logged = True
            logger.warning(
                "vital_tracking met a fault of its own (%s); calls go on. See tracker.stats().", type(error).__name__
            )

    def put_held(self, item: CallRecord | Unrecorded) -> bool:
        """Queue a call for which budgets hold something; False where it had to be dropped, and its hold was given back."""
        if self.put(item):
            self._held.append(item)
            return True
        if self.holds is not None:
            self.holds.give_back(item.hold)
        return False

    def settle_held(self) -> bool:
        """Settle the holds of calls that have ended and wait in the queue; whether there were any."""
        found = False
        while self._held:
            try:
                item = self._held.popleft()
                record = item if isinstance(item, CallRecord) else self._record(item)
                if self.holds is not None and record.hold is not None and record.hold.settled is None:
                    self.holds.settle(record.hold, record, self._counted(record, self.prices.cost_of(record)))
                    found = True
            except IndexError:  # another thread is at it too
                break
            except Exception as error:  # noqa: BLE001 - its row will be made all the same
                self.fault(error)
        return found

    # What the writer asks of its courier, on the writer's thread.

    def tick(self) -> None:
        """Let the others do what is due: close calls that never ended, and the like."""
        for work in self.on_tick:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - housekeeping must not stop delivery
                self.fault(error)

    def encode(self, items: Sequence[Recordable]) -> list[_Row]:
        """Price the items and turn them into rows. One that cannot be turned is kept in its shortest form, and flagged."""
        self.refresh_prices()
        calls: dict[str, _Row] = {}
        runs: dict[str, RunRecord] = {}
        for item in items:
            if isinstance(item, RunRecord):
                runs[item.id] = item  # a run that began and ended in one batch is sent once
                continue
            record = item if isinstance(item, CallRecord) else self._record(item)
            if record.id in calls:
                record.replaces_abandoned = False  # what it would replace has not been sent
            # The true end of a call given up in the same batch takes its place.
            calls[record.id] = self._call(record, calls.get(record.id))
        while self._held and (hold := self._held[0].hold) is not None and hold.settled is not None:
            self._held.popleft()
        rows = list(calls.values())
        for run in runs.values():
            try:
                rows.append(_Row("record_runs_v1", orjson.dumps(run_row(self._by_database_clock(run))).decode()))
            except Exception as error:  # noqa: BLE001 - as above
                self.fault(error)
        return rows

    def send(self, batch: Sequence[_Row]) -> bool:
        """Call the recording functions, one request each for the batch's calls and runs."""
        holders = dict.fromkeys(row.holder for row in batch if row.function == "record_calls_v1")
        for function, argument, holder in (
            ("record_runs_v1", "runs", None),
            *(("record_calls_v1", "calls", holder) for holder in holders),
        ):
            rows = [row for row in batch if row.function == function and row.holder == holder]
            if not rows:
                continue
            named: dict[str, object] = {argument: f"[{','.join(row.text for row in rows)}]"}
            if holder is not None:
                named["holder"] = holder
            try:
                report = self.store.call(function, **named)
                inserted, duplicate, rejected = report["inserted"], report["duplicate"], report["rejected"]
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - nobody foresaw it: tried again, then split to find what it is
                self.fault(error)
                self._unforeseen += 1
                failed = StoreUnavailable if self._unforeseen % _UNFORESEEN_TRIES else StoreRejected
                raise failed(f"The store failed ({type(error).__name__}).") from None
            self._unforeseen = 0
            self._gone(rows)
            if function == "record_calls_v1":
                self._stats.inserted += inserted
                self._stats.duplicate += duplicate
            self._stats.rejected += len(rejected)
            if rejected:
                self._log_rejection(rejected[0].get("sqlstate"), rejected[0].get("rule"))
            if self.on_alerts is not None and (alerts := report.get("alerts")):
                self.on_alerts(alerts)
        return True

    def refused(self, row: _Row, error: StoreError) -> None:
        """Count a row that the store refused alone."""
        self._stats.rejected += 1
        self._gone([row])
        self._log_rejection(error.sqlstate, row.function)

    def _gone(self, rows: Sequence[_Row]) -> None:
        """These rows have left our hands: what they drew is the database's affair now."""
        for row in rows:
            if self.holds is not None and row.draws and row.holder is not None:
                self.holds.posted(row.holder, row.draws)
                row.draws = []  # said once, though the batch may be sent again for its other rows

    def _log_rejection(self, sqlstate: str | None, rule: str | None) -> None:
        if not self._rejection_logged:
            self._rejection_logged = True
            logger.warning("The database refused a row (SQLSTATE %s, %s); its neighbours were stored.", sqlstate, rule)

    def _record(self, item: Unrecorded) -> CallRecord:
        try:
            return item.record()
        except Exception as error:  # noqa: BLE001 - one bad item must not be lost, nor sink its neighbours
            self.fault(error)
            return item.shortest()

    def _call(self, record: CallRecord, before: _Row | None = None) -> _Row:
        row = _Row("record_calls_v1", "")
        hold = record.hold
        try:
            record = self._by_database_clock(record)
            cost = self.prices.cost_of(record)
        except Exception as error:  # noqa: BLE001 - a value nobody foresaw: the money is kept, the detail goes
            self.fault(error)
            record = _shortened(record)
            cost = self.prices.cost_of(record)
        counted = self._counted(record, cost)
        if hold is not None and self.holds is not None:
            row.draws, row.holder = self.holds.settle(hold, record, counted), hold.holder
        elif before is not None:
            row.draws, row.holder = before.draws, before.holder
        ceiling = counted if cost is None else None
        try:
            row.text = _encoded(record, cost, ceiling, row.draws)
        except Exception as error:  # noqa: BLE001 - as above
            self.fault(error)
            record = _shortened(record)
            row.text = _encoded(record, cost, ceiling, row.draws)
        self._stats.blocked += record.status == "blocked"
        self._stats.unpriced += cost is None
        self._stats.estimated += record.usage.estimated
        self._stats.abandoned += record.status == "abandoned"
        return row

    def _counted(self, record: CallRecord, cost: Cost | None) -> Decimal | None:
        """What budgets count of a call, in US dollars: its cost, else what it costs at the ceiling price."""
        if cost is not None:
            return cost.total
        if "usage_missing" in record.notes or record.cache_hit:
            return None
        ceiling = self._ceiling.cost(record.usage)
        return None if ceiling is None else ceiling.total

    def _by_database_clock(self, record: _Clocked) -> _Clocked:
        if not self.clock.skew:
            return record
        if isinstance(record, RunRecord):
            ended = record.ended_at
            return dataclasses.replace(
                record,
                started_at=self.clock.corrected(record.started_at),
                ended_at=None if ended is None else self.clock.corrected(ended),
            )
        if not record.clocked:
            return record
        return dataclasses.replace(record, created_at=self.clock.corrected(_aware(record.created_at)))

    def refresh_prices(self) -> None:
        """Take the team's prices from the store before the first batch and every five minutes."""
        now = time.monotonic()
        if now < self._prices_due:
            return
        try:
            before = datetime.now(UTC)
            self.clock.sample(datetime.fromisoformat(self.store.call("database_time_v1")), before, datetime.now(UTC))
            self.prices.set_team_prices(team_prices(self.store.call("model_prices_v1")))
            if self.holds is not None:
                self.holds.prices_changed()
        except (StoreUnavailable, StoreNotReady):
            raise  # without the team's prices the rows would be priced wrongly; without the store they cannot go anyway
        except Exception as error:  # noqa: BLE001 - an answer nobody foresaw must not stop delivery
            self.fault(error)
        self._prices_due = now + _PRICES_EVERY_S


def team_prices(rows: Any) -> list[Price]:
    """Prices from the JSON of `model_prices_v1`, oldest first; an entry that cannot be read is left out and logged."""
    prices: list[Price] = []
    for row in reversed(rows or []):
        try:
            prices.append(Price.from_row(row))
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("Entry %s of model_prices cannot be used (%s).", row.get("id"), type(error).__name__)
    return prices


def _encoded(record: CallRecord, cost: Cost | None, ceiling: Decimal | None, draws: list[tuple[int, str]]) -> str:
    row = call_row(record, cost, ceiling)
    if draws:
        row["draws"] = draws
    return orjson.dumps(row).decode()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shortened(record: CallRecord) -> CallRecord:
    context = CallContext().replace(
        {
            name: value
            for name in ("organization_id", "user_id", "session_id", "service_run_id")
            if isinstance(value := getattr(record.context, name), str)
        }
    )
    return CallRecord(
        id=record.id,
        created_at=record.created_at,
        context=context,
        provider=clean_text(record.provider),
        model=clean_text(record.model),
        call_type=record.call_type,
        usage=record.usage,
        billed=record.billed,
        status=record.status,
        cache_hit=record.cache_hit,
        notes=("shortened",),
        clocked=record.clocked,
    )
