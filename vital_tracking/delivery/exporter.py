"""Turns frames into rows and carries them to the store: decodes, prices, settles holds, sets aside what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from vital_tracking.calls.json_codec import unpack_record, unpack_run
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.observed import ObservedCall
from vital_tracking.calls.resolve import least_record_of, record_of
from vital_tracking.calls.wire import pack_call, unpack_call
from vital_tracking.core.pricing import Price, PriceBook, ceiling_rates
from vital_tracking.core.record import CallRecord, Cost, RunRecord
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.dead_letters import DeadLetters
from vital_tracking.delivery.rows import Draws, Row, encode_call, run_row, shortened
from vital_tracking.delivery.stats import Counts
from vital_tracking.errors import StoreError, StoreNotReady, StoreRejected, StoreUnavailable
from vital_tracking.settings import Settings
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.spool.orphans import OrphanedSegments, claim
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.delivery")

_PRICES_EVERY_S: Final = 300.0
_ORPHANS_EVERY_S: Final = 60.0
_PARTITIONS_EVERY_S: Final = 86_400.0
_MOST_ORPHANS: Final = 16  # at once: each takes a file descriptor
_UNFORESEEN_TRIES: Final = 4
_MOST_UNSETTLED: Final = 10_000  # what does not fit is settled when its row is made
_REFUSED: Final = (
    "The database refused a row (SQLSTATE %s, %s); its neighbours were stored. See: vital-tracking spool rejected"
)


class Holds(Protocol):
    """What budgets have set aside for calls: told what each call used, and when the database knows."""

    def settle(self, hold: Any, record: CallRecord, cost: Decimal | None) -> Draws:
        """Replace a hold by what the call cost; what its row must say of it. Idempotent."""

    def posted(self, holder: str, draws: Draws) -> None:
        """Rows that said so are in the database, or never will be."""

    def give_back(self, hold: Any) -> None:
        """There will be no record of the call. May be called from anywhere, in the middle of anything."""

    def prices_changed(self) -> None:
        """The team's prices were read anew."""


class StoreExporter:
    """The writer's exporter between the spool and a store. All of it runs on the writer's thread but what says otherwise."""

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        settings: Settings,
        counts: Counts,
        *,
        folder: Path | None,
    ) -> None:
        self.store = store
        self.prices = prices
        self.clock = DatabaseClock()
        self.holds: Holds | None = None
        self.on_tick: list[Callable[[], None]] = []
        self.on_alerts: Callable[[list[dict[str, Any]]], None] | None = None
        self.on_clock: Callable[[float], None] = lambda _skew_s: None
        self.on_gone: Callable[[bytes], None] = lambda _key: None
        self.own_path: Callable[[], Path | None] = lambda: None
        self._folder = folder
        self._counts = counts
        self._ceiling = ceiling_rates(settings.ceiling_price)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """In a forked child: what is held, claimed and known is the parent's."""
        self.letters = DeadLetters(self._folder)
        self.held: dict[bytes, Any] = {}
        self.drawn: dict[bytes, tuple[str | None, Draws]] = {}
        self._unsettled: deque[tuple[CallRecord | LiveCall, Any]] = deque(maxlen=_MOST_UNSETTLED)
        for orphan in getattr(self, "orphans", ()):
            orphan.let_go()
        self.orphans: list[OrphanedSegments] = []
        self._orphans_due = 0.0
        self._prices_due = 0.0
        self._partitions_due = 0.0
        self._clock_told = False
        self._unforeseen = 0

    # Any thread

    def hold(self, key: bytes, hold: Any, item: CallRecord | LiveCall) -> None:
        """Remember what budgets hold for a call that is about to be put."""
        self.held[key] = hold
        self._unsettled.append((item, hold))

    def settle_held(self) -> bool:
        """Settle the holds of calls that have ended and wait; whether there were any."""
        found = False
        while self._unsettled:
            try:
                item, hold = self._unsettled.popleft()
                if self.holds is not None and hold.settled is None:
                    record = self.recorded(item)
                    self.holds.settle(hold, record, self.counted(record, self.cost_of(record)))
                    found = True
            except IndexError:  # another thread is at it too
                break
            except Exception as error:  # noqa: BLE001 - its row will be made all the same
                self._counts.fault(error)
        return found

    def recorded(self, item: CallRecord | LiveCall, skew_s: float = 0.0) -> CallRecord:
        """The record of a call that is in memory."""
        if isinstance(item, CallRecord):
            return item
        try:
            observed = item.observed(skew_s)
        except Exception as error:  # noqa: BLE001 - one bad item must not be lost, nor sink its neighbours
            self._counts.fault(error)
            return least_record_of(item.least_observed(skew_s))
        return self._record(observed)

    def _record(self, observed: ObservedCall) -> CallRecord:
        try:
            return record_of(observed)
        except Exception as error:  # noqa: BLE001 - as above
            self._counts.fault(error)
            return least_record_of(observed)

    def cost_of(self, record: CallRecord) -> Cost | None:
        """What a call cost; None where no price is known."""
        return record.cost if record.cost is not None else self.prices.cost_of(record)

    def counted(self, record: CallRecord, cost: Cost | None) -> Decimal | None:
        """What budgets count of a call, in US dollars: its cost, else what it costs at the ceiling price."""
        if cost is not None:
            return cost.total
        if "usage_missing" in record.notes or record.cache_hit:
            return None
        ceiling = self._ceiling.cost(record.usage)
        return None if ceiling is None else ceiling.total

    # What the writer asks

    def tick(self) -> None:
        """Let the others do what is due: close calls that never ended, and the like."""
        if len(self._unsettled) > _MOST_UNSETTLED // 10:
            self.settle_held()  # in an outage: what is held for them is of use to others, and they take up memory
        for work in self.on_tick:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - housekeeping must not stop delivery
                self._counts.fault(error)

    def further_sources(self) -> Sequence[OrphanedSegments]:
        """What dead processes have left for this database; looked for at the start and once a minute."""
        if self._folder is not None and time.monotonic() >= self._orphans_due:
            self._orphans_due = time.monotonic() + _ORPHANS_EVERY_S
            try:
                for orphan in islice(claim(self._folder, self.own_path()), _MOST_ORPHANS - len(self.orphans)):
                    self._counts.stats.damaged += orphan.damaged
                    self.orphans.append(orphan)
            except Exception as error:  # noqa: BLE001 - this process's own calls come first
                self._counts.fault(error)
        known, self.orphans = len(self.orphans), [orphan for orphan in self.orphans if not orphan.finished]
        if known == _MOST_ORPHANS and not self.orphans:
            self._orphans_due = 0.0  # there may be more
        return self.orphans

    def encode(self, items: Sequence[LogRecord]) -> list[Row]:
        """Price the items and turn them into rows. One that cannot be turned is kept in its shortest form, and flagged."""
        self.refresh_prices()
        if self.clock.first_s is not None:
            for orphan in self.orphans:
                orphan.date(self.clock.first_s)
        calls: dict[str, Row] = {}
        runs: dict[str, RunRecord] = {}
        for frame in items:
            try:
                if frame.kind == RecordKind.RUN:
                    run = unpack_run(frame.payload)
                    runs[run.id] = run  # a run that began and ended in one batch is sent once
                    continue
                record = self.decoded(frame)
            except Exception as error:  # noqa: BLE001 - as above
                self.unreadable(frame, error)
                continue
            record.hold = self.held.get(frame.id)
            # The true end of a call given up in the same batch takes its place.
            row = self._call(record, calls.get(record.id), self.drawn.get(frame.id))
            row.key = frame.id
            calls[record.id] = row
            self._counts.stats.replayed += frame.legacy
        while self._unsettled and self._unsettled[0][1].settled is not None:
            self._unsettled.popleft()
        rows = list(calls.values())
        for run in runs.values():
            try:
                rows.append(Row("record_runs_v1", run.id, orjson.dumps(run_row(self._by_database_clock(run))).decode()))
            except Exception as error:  # noqa: BLE001 - as above
                self._counts.fault(error)
        return rows

    def send(self, batch: Sequence[Row]) -> None:
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
                self._counts.fault(error)
                self._unforeseen += 1
                failed = StoreUnavailable if self._unforeseen % _UNFORESEEN_TRIES else StoreRejected
                raise failed(f"The store failed ({type(error).__name__}).") from None
            self._unforeseen = 0
            if rejected:
                known = {row.id: row for row in rows}
                for one in rejected:
                    self._set_aside(known.get(one.get("id")), function, one.get("sqlstate"), one.get("rule"))
            self._gone(rows)
            if function == "record_calls_v1":
                self._counts.stats.inserted += inserted
                self._counts.stats.duplicate += duplicate
            if self.on_alerts is not None and (alerts := report.get("alerts")):
                self.on_alerts(alerts)
        self._keep_partitions()

    def refused(self, row: Row, error: StoreError) -> None:
        """Set aside a row that the store refused alone."""
        self._set_aside(row, row.function, error.sqlstate, None)
        self._gone([row])

    def unreadable(self, item: LogRecord, error: Exception) -> None:
        """Set aside a frame of which no row can be made, such as one of a later version's."""
        self._counts.fault(error)
        self._counts.stats.rejected += 1
        hold = self.held.pop(item.id, None)
        if hold is not None and self.holds is not None:
            self.holds.give_back(hold)
        payload = item.payload
        if item.item is not None:
            with contextlib.suppress(Exception):  # nothing is left to try
                payload = pack_call(item.item, short=True)
        self.letters.add("frame", payload.decode("utf-8", "replace"), None, type(error).__name__)

    def refresh_prices(self) -> None:
        """Take the team's prices and the time from the store before the first batch and every five minutes."""
        now = time.monotonic()
        if now >= self._prices_due:
            try:
                before = datetime.now(UTC)
                self.clock.sample(
                    datetime.fromisoformat(self.store.call("database_time_v1")), before, datetime.now(UTC)
                )
                self.prices.set_team_prices(team_prices(self.store.call("model_prices_v1")))
                if self.holds is not None:
                    self.holds.prices_changed()
            except (StoreUnavailable, StoreNotReady):
                raise  # without the team's prices rows would be priced wrongly; without the store they cannot go anyway
            except Exception as error:  # noqa: BLE001 - an answer nobody foresaw must not stop delivery
                self._counts.fault(error)
            self._prices_due = now + _PRICES_EVERY_S
        if not self._clock_told and self.clock.first_s is not None:
            self._clock_told = True
            self.on_clock(self.clock.first_s)

    # Within

    def _keep_partitions(self) -> None:
        """Have the database make its months ahead, after the first batch and once a day; it asks nothing of anybody else."""
        if time.monotonic() >= self._partitions_due:
            self._partitions_due = time.monotonic() + _PARTITIONS_EVERY_S
            try:
                self.store.call("maintain_partitions_v1")
            except StoreError:
                pass  # an older database has no such function, and where the store has gone a later process tries again
            except Exception as error:  # noqa: BLE001 - what was sent is stored
                self._counts.fault(error)

    def decoded(self, frame: LogRecord) -> CallRecord:
        """The record of the call that a frame holds."""
        skew_s = (frame.skew_s if frame.skew_s is not None else self.clock.first_s) or 0.0
        if frame.item is not None:
            return self.recorded(frame.item, skew_s)
        if frame.kind in (RecordKind.RECORD, RecordKind.BEGUN):
            return _a_record(frame.id, frame.payload, skew_s)
        return self._record(unpack_call(frame.id, frame.payload, skew_s))

    def _call(self, record: CallRecord, before: Row | None, drawn: tuple[str | None, Draws] | None) -> Row:
        row = Row("record_calls_v1", record.id)
        hold = record.hold
        try:
            cost = self.cost_of(record)
        except Exception as error:  # noqa: BLE001 - a value nobody foresaw: the money is kept, the detail goes
            self._counts.fault(error)
            record = shortened(record)
            cost = self.cost_of(record)
        counted = self.counted(record, cost)
        if hold is not None and self.holds is not None:
            row.draws, row.holder = self.holds.settle(hold, record, counted), hold.holder
        elif drawn is not None:
            row.holder, row.draws = drawn
        elif before is not None:
            row.draws, row.holder = before.draws, before.holder
        ceiling = counted if cost is None else None
        try:
            row.text = encode_call(record, cost, ceiling, row.draws)
        except Exception as error:  # noqa: BLE001 - as above
            self._counts.fault(error)
            record = shortened(record)
            row.text = encode_call(record, cost, ceiling, row.draws)
        stats = self._counts.stats
        stats.blocked += record.status == "blocked"
        stats.unpriced += cost is None
        stats.estimated += record.usage.estimated
        stats.abandoned += record.status == "abandoned"
        return row

    def _gone(self, rows: Sequence[Row]) -> None:
        """These rows have left our hands: what they drew is the database's affair now."""
        for row in rows:
            self.held.pop(row.key, None)
            self.drawn.pop(row.key, None)
            self.on_gone(row.key)
            if self.holds is not None and row.draws and row.holder is not None:
                self.holds.posted(row.holder, row.draws)
                row.draws = []  # said once, though the batch may be sent again for its other rows

    def _set_aside(self, row: Row | None, function: str, sqlstate: str | None, rule: str | None) -> None:
        self._counts.stats.rejected += 1
        if row is not None:
            self.letters.add(function, row.text, sqlstate, rule)
        self._counts.say_once(_REFUSED, sqlstate, rule or function)

    def _by_database_clock(self, run: RunRecord) -> RunRecord:
        if not self.clock.skew_s:
            return run
        ended = run.ended_at
        return dataclasses.replace(
            run,
            started_at=self.clock.corrected(run.started_at),
            ended_at=None if ended is None else self.clock.corrected(ended),
        )


def team_prices(rows: Any) -> list[Price]:
    """Prices from the JSON of `model_prices_v1`, oldest first; an entry that cannot be read is left out and logged."""
    prices: list[Price] = []
    for row in reversed(rows or []):
        try:
            prices.append(Price.from_row(row))
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("Entry %s of model_prices cannot be used (%s).", row.get("id"), type(error).__name__)
    return prices


def _a_record(key: bytes, payload: bytes, skew_s: float) -> CallRecord:
    record = unpack_record(payload, skew_s)
    with contextlib.suppress(ValueError):
        record.id = str(UUID(bytes=key))
    return record
