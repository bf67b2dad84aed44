"""Turns log records into rows and sends them to the store; what the store will never take is set aside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from vital_tracking.calls.json_codec import unpack_run
from vital_tracking.calls.row_literal import batch_of, decoded_row
from vital_tracking.calls.usual_usage import UsualUsage
from vital_tracking.calls.wire import pack_call
from vital_tracking.core.context import CallContext
from vital_tracking.core.record import CallRecord, RunRecord, Used
from vital_tracking.core.tally import Spent
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.dead_letters import DeadLetters
from vital_tracking.delivery.encoding import decoded
from vital_tracking.delivery.inexact import InexactCosts
from vital_tracking.delivery.least_row import least_row
from vital_tracking.delivery.platform_record import RECORDING
from vital_tracking.delivery.rows import encode_call, run_row, shortened
from vital_tracking.delivery.settlement import Settlement
from vital_tracking.delivery.stats import Counts
from vital_tracking.delivery.straight import StraightCall, StraightWay
from vital_tracking.delivery.tallies import Tallies
from vital_tracking.delivery.upkeep import Upkeep
from vital_tracking.errors import StoreError, StoreRejected, StoreUnavailable
from vital_tracking.spool.log_record import CALL, RUNS, LogRecord, RecordKind
from vital_tracking.stores.protocol import Store

CALLS: Final = "record_calls_v2"
CALLS_AS_JSON: Final = "record_calls_v1"
"""What takes calls as literals, and as JSON: what is left of those that were refused."""

_UNFORESEEN_TRIES: Final = 4
_REFUSED: Final = (
    "The database refused a row (SQLSTATE %s, %s); its neighbours were stored. See: vital-tracking spool rejected"
)

_WITHOUT_DETAILS: Final = (
    "The database refused a detail of a row (SQLSTATE %s, %s); the row was stored with its money, without details."
)


class Row(NamedTuple):
    """One encoded row, what takes it as which argument, and on whose grants the call has drawn, if it has.

    `text` is JSON, but for a call a literal.
    """

    function: str
    argument: str
    id: str
    text: str = ""
    key: bytes = b""
    holder: str | None = None

    def json(self) -> str:
        """The row as JSON, which is what people read and mend; what can be read as no row stays as it is."""
        if self.function != CALLS:
            return self.text
        try:
            return orjson.dumps(decoded_row(self.text)).decode()
        except ValueError:
            return self.text


class StoreExporter:
    """The batch processor's exporter for a store; used on the batch processor's thread alone.

    `on_alerts` is told of the alerts that became due with a batch, `on_posted` of the ids whose rows were
    stored or set aside.
    """

    def __init__(
        self,
        store: Store,
        costs: Costs,
        settlement: Settlement,
        tallies: Tallies,
        upkeep: Upkeep,
        clock: DatabaseClock,
        dead_letters: DeadLetters,
        counts: Counts,
        *,
        on_alerts: Callable[[list[dict[str, Any]]], None] = lambda _alerts: None,
        on_posted: Callable[[Sequence[bytes]], None] = lambda _keys: None,
    ) -> None:
        self._store = store
        self._costs = costs
        self._settlement = settlement
        self._tallies = tallies
        self._upkeep = upkeep
        self._clock = clock
        self._dead_letters = dead_letters
        self._counts = counts
        self._on_alerts = on_alerts
        self._on_posted = on_posted
        self._unforeseen = 0
        self._inexact = InexactCosts()
        self._straight = StraightWay(costs.spans())

    def encode(self, items: Sequence[LogRecord]) -> list[Row]:
        """Price the items and turn them into rows. One that cannot be turned is kept in its shortest form, and flagged."""
        self._upkeep.refresh()
        # Where `refresh` has found another database than before, what dead processes left for the former one is not sent.
        items = [item for item in items if item.orphan is None or not item.orphan.released]
        self._straight.renew()
        calls: dict[str, Row] = {}
        runs: dict[str, tuple[RunRecord, bytes]] = {}
        platform: list[Row] = []
        context: CallContext | None = None
        spent: list[tuple[bytes, UsualUsage, Decimal]] = []  # of calls of that context, which come one after the other
        for item in items:
            try:
                if item.kind in RUNS:
                    run, ended = unpack_run(item.payload), item.kind == RecordKind.RUN
                    if item.orphan is not None and not ended:
                        run, ended = run.abandoned(item.orphan.last_written), True
                    runs[run.id] = run, item.id if ended else b""  # one that began and ended in one batch is sent once
                    continue
                if item.kind in RECORDING:
                    function, argument = RECORDING[item.kind]
                    platform.append(Row(function, argument, str(UUID(bytes=item.id)), item.payload.decode(), item.id))
                    continue
                if (usual := self._usual(item)) is not None:
                    if usual.context is not context:
                        self._priced_together(context, spent)
                        context, spent = usual.context, []
                    spent.append((item.id, usual.used, usual.total))
                    calls[usual.id] = self._straight_row(item.id, usual)
                    if item.orphan is not None:
                        self._counts.stats.replayed += 1
                    continue
                record = decoded(item, self._counts.fault)
            except Exception as error:  # noqa: BLE001 - one bad item must not be lost, nor take its neighbours with it
                self.unreadable(item, error)
                continue
            # The true end of a call given up in the same batch takes its place.
            calls[record.id] = self._call(item.id, record)
            self._counts.stats.replayed += item.orphan is not None
        self._priced_together(context, spent)
        self._settlement.forget_settled()
        rows = list(calls.values())
        for run, key in runs.values():
            try:
                text = orjson.dumps(run_row(self._by_database_clock(run))).decode()
                rows.append(Row("record_runs_v1", "runs", run.id, text, key))
            except Exception as error:  # noqa: BLE001 - as above
                self._counts.fault(error)
        return rows + platform

    def send(self, batch: Sequence[Row]) -> None:
        """Call the recording functions, one request each for what the batch holds of each kind, service runs first."""
        together: dict[tuple[str, str, str | None], list[Row]] = {}
        for row in batch:
            together.setdefault((row.function, row.argument, row.holder), []).append(row)
        for (function, argument, holder), rows in sorted(
            together.items(), key=lambda kind: kind[0][0] != "record_runs_v1"
        ):
            refusals = self._record(function, argument, rows, holder)
            if refusals:
                self._record_least(function, argument, rows, holder, refusals)
            self._posted(rows)
        self._upkeep.keep_partitions()

    def refused(self, row: Row, error: StoreError) -> None:
        """Store what is left of a row that the store refused alone, else set it aside."""
        refusal = {"id": row.id, "sqlstate": error.sqlstate, "rule": None}
        try:
            self._record_least(row.function, row.argument, [row], row.holder, [refusal])
        except StoreError:
            self._set_aside(row, row.function, error.sqlstate, None)
        self._posted([row])

    def _record(self, function: str, argument: str, rows: Sequence[Row], holder: str | None) -> list[dict[str, Any]]:
        """Record rows in one request; returns those that were refused, each by its id, SQLSTATE and rule."""
        texts = [row.text for row in rows]
        named: dict[str, object] = {argument: batch_of(texts) if function == CALLS else f"[{','.join(texts)}]"}
        if holder is not None:
            named["holder"] = holder
        try:
            before = self._clock.read()
            report = self._store.call(function, **named)
            self._clock.heard(report, before)
            inserted, duplicate = report["inserted"], report["duplicate"]
            refusals: list[dict[str, Any]] = report["rejected"]
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - not foreseen: tried again, then split to find the row at fault
            self._counts.fault(error)
            self._unforeseen += 1
            failed = StoreUnavailable if self._unforeseen % _UNFORESEEN_TRIES else StoreRejected
            raise failed(f"The store failed ({type(error).__name__}).") from None
        self._unforeseen = 0
        if function in (CALLS, CALLS_AS_JSON):
            self._counts.stats.inserted += inserted
            self._counts.stats.duplicate += duplicate
        elif function != "record_runs_v1":
            self._counts.stats.platform_rows += inserted
        if alerts := report.get("alerts"):
            self._on_alerts(alerts)
        return refusals

    def _record_least(
        self,
        function: str,
        argument: str,
        rows: Sequence[Row],
        holder: str | None,
        refusals: Sequence[dict[str, Any]],
    ) -> None:
        """Record calls that were refused without their details, which may be at fault; what is refused again is set aside."""
        known: dict[Any, Row] = {row.id: row for row in rows}
        first = {one.get("id"): one for one in refusals}
        least = []
        if function in (CALLS, CALLS_AS_JSON):
            for id, one in first.items():  # noqa: A001 - the column's name
                row = known.get(id)
                text = None if row is None else least_row(row.json(), one.get("rule") or one.get("sqlstate"))
                if row is not None and text is not None:
                    least.append(row._replace(function=CALLS_AS_JSON, text=text))
        again = {one.get("id") for one in self._record(CALLS_AS_JSON, argument, least, holder)} if least else set()
        stored = {row.id for row in least} - again
        for one in refusals:
            if one.get("id") in stored:
                self._counts.say_once(_WITHOUT_DETAILS, one.get("sqlstate"), one.get("rule") or function)
            else:
                self._set_aside(known.get(one.get("id")), function, one.get("sqlstate"), one.get("rule"))

    def unreadable(self, item: LogRecord, error: Exception) -> None:
        """Set aside a log record of which no row can be made, such as one that a later version wrote."""
        self._counts.fault(error)
        self._counts.stats.rejected += 1
        self._settlement.give_back(item.id)
        payload = item.payload
        if item.item is not None:
            with contextlib.suppress(Exception):  # nothing is left to try
                payload = pack_call(item.item, short=True)
        self._dead_letters.add("frame", payload.decode("utf-8", "replace"), None, type(error).__name__)

    def _usual(self, item: LogRecord) -> StraightCall | None:
        """The call that an item holds, where it is a usual one."""
        if item.kind != CALL:
            return None
        try:
            if item.item is not None:  # packed, it is made a row of in a third of the time
                item = LogRecord(CALL, item.id, pack_call(item.item))
            return self._straight.call(item)
        except Exception:  # noqa: BLE001 - the long way says what is wrong with it, and stores what can be stored
            return None

    def _priced_together(self, context: CallContext | None, spent: Sequence[tuple[bytes, UsualUsage, Decimal]]) -> None:
        if context is not None:
            try:
                self._tallies.priced_together(context, spent)
            except Exception as error:  # noqa: BLE001 - it is missing in what its scope says, and nowhere else
                self._counts.fault(error)

    def _straight_row(self, key: bytes, call: StraightCall) -> Row:
        holder, draws = self._settlement.settle(key, call.used_by_budgets(), call.total)
        return tuple.__new__(Row, (CALLS, "calls", call.id, call.encoded(draws), key, holder))

    def _call(self, key: bytes, record: CallRecord) -> Row:
        try:
            cost = self._costs.cost_of(record)
        except Exception as error:  # noqa: BLE001 - an unforeseen value: the money is kept, the detail is left out
            self._counts.fault(error)
            record = shortened(record)
            cost = self._costs.cost_of(record)
        spent = Spent.by(record, None if cost is None else cost.total)
        self._tallies.priced(key, record.context, spent, record.status, replaces=record.replaces_abandoned)
        counted = self._costs.counted(record, cost)
        holder, draws = self._settlement.settle(key, Used.by(record), counted)
        ceiling = counted if cost is None else None
        try:
            text = encode_call(record, cost, ceiling, draws)
        except Exception as error:  # noqa: BLE001 - as above
            self._counts.fault(error)
            record = shortened(record)
            text = encode_call(record, cost, ceiling, draws)
        if record.usage.estimated or record.usage.notes or (cost is not None and cost.notes):
            self._inexact.look(record, cost)
        stats = self._counts.stats
        stats.blocked += record.status == "blocked"
        stats.unpriced += cost is None
        stats.estimated += record.usage.estimated
        stats.abandoned += record.status == "abandoned"
        return Row(CALLS, "calls", record.id, text, key, holder)

    def _posted(self, rows: Sequence[Row]) -> None:
        """These rows, of one holder, were stored or set aside."""
        keys = [row.key for row in rows]
        self._on_posted(keys)
        self._settlement.posted(keys, rows[0].holder)

    def _set_aside(self, row: Row | None, function: str, sqlstate: str | None, rule: str | None) -> None:
        self._counts.stats.rejected += 1
        if row is not None:
            self._dead_letters.add(CALLS_AS_JSON if function == CALLS else function, row.json(), sqlstate, rule)
        self._counts.say_once(_REFUSED, sqlstate, rule or function)

    def _by_database_clock(self, run: RunRecord) -> RunRecord:
        if not self._clock.skew_s:
            return run
        ended = run.ended_at
        return run._replace(
            started_at=self._clock.corrected(run.started_at),
            ended_at=None if ended is None else self._clock.corrected(ended),
        )
