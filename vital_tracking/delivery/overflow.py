"""What is kept of calls for which there is room neither on disk nor in memory: their money, exactly.

Calls of the same owner, model and quarter of an hour become one row, which says how many they were. A quarter, because the days
of all time zones begin on one: so each sum falls into one window of each budget that counts by the day.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from vital_tracking.calls.json_codec import id_bytes, pack_record
from vital_tracking.core.context import CallContext
from vital_tracking.core.cost import MONEY, Cost
from vital_tracking.core.draws import Draw
from vital_tracking.core.record import CallRecord, RunRecord, Used
from vital_tracking.core.sanitize import clean_text
from vital_tracking.core.usage import TOKEN_FIELDS, Count, TokenUsage
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.encoding import Recordable, dated, decoded, recorded
from vital_tracking.delivery.memory_queue import MemoryQueue, as_queued
from vital_tracking.delivery.merged_costs import MergedCosts
from vital_tracking.delivery.platform_record import PlatformRecord
from vital_tracking.delivery.settlement import Settlement
from vital_tracking.delivery.stats import Counts
from vital_tracking.ids import new_id
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.log_record import PLATFORM, RUNS, LogRecord, RecordKind

# What budgets and aggregates are kept by; everything else is detail.
_OWNERS: Final = (
    "organization_id",
    "user_id",
    "session_id",
    "service_type",
    "agent_id",
    "agent_tier",
    "workflow_id",
    "panel_id",
    "solution_id",
)
# Owners that are still told apart once there are so many sums.
_TOLD_APART: Final = (
    (frozenset(_OWNERS) - {"session_id", "agent_id"}, 2_000),
    (frozenset({"organization_id", "service_type"}), 3_000),
    (frozenset[str](), 4_000),
)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER: Final = timedelta(minutes=15)


@dataclass(slots=True, eq=False, repr=False)
class _Sum:
    first: CallRecord
    calls: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * len(TOKEN_FIELDS))
    units: dict[str, Count] | None = None
    estimated: bool = False
    cost: Cost | None = None
    reported_cost: Decimal | None = None
    draws: dict[int, Decimal] | None = None
    ids: list[bytes] | None = None  # of those of its calls whose beginnings lie in the spool


class MergedCalls:
    """The sums of calls that could not be kept one by one. Bounded, each takes some 2 KiB: past two thousand, sessions
    and agents are no longer told apart, past three thousand users neither, past four thousand nothing but models, prices and
    times."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sums: dict[tuple[Any, ...], _Sum] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(
        self, record: CallRecord, cost: Cost | None, holder: str | None, draws: Collection[Draw], *ids: bytes
    ) -> None:
        """Add a call with its cost, None where it has no price, and what it drew on the grants of `holder`; `ids` are those of
        its calls whose beginnings lie in the spool."""
        with self._lock:
            # Clean and short, as the row will have them: so they can be hashed, and take little room.
            owners: list[Any] = [clean_text(getattr(record.context, name)) for name in _OWNERS]
            provider, model = clean_text(record.provider), clean_text(record.model)
            for told, most in _TOLD_APART:
                if len(self._sums) >= most:
                    owners = [owner if name in told else None for name, owner in zip(_OWNERS, owners, strict=True)]
            key = (
                *owners,
                provider,
                model,
                _budget_model(record),
                clean_text(record.sent_model),
                tuple(sorted(record.price_facts.items())),
                record.call_type,
                record.status,
                record.cache_hit,
                cost.version if cost is not None else None,
                holder,
                _quarter(record.created_at),
            )
            total = self._sums.get(key)
            if total is None:
                context = CallContext(**dict(zip(_OWNERS, owners, strict=True)))
                first = CallRecord(
                    id=new_id(),
                    created_at=record.created_at,
                    context=context,
                    provider=provider,
                    model=model,
                    requested_model=clean_text(record.requested_model),
                    sent_model=clean_text(record.sent_model),
                    call_type=record.call_type,
                    billed=record.billed,
                    status=record.status,
                    cache_hit=record.cache_hit,
                    price_facts=record.price_facts,
                    budget_action=clean_text(record.budget_action),
                    notes=("merged",),
                    clocked=record.clocked,
                )
                total = self._sums[key] = _Sum(first)
            total.calls += record.calls
            for place, name in enumerate(TOKEN_FIELDS):
                total.tokens[place] += getattr(record.usage, name)
            if record.usage.units:
                units = total.units = total.units or {}
                for unit, count in record.usage.units.items():
                    units[unit] = units.get(unit, 0) + count
            total.estimated |= record.usage.estimated
            if (reported := record.reported_cost) is not None:
                total.reported_cost = (
                    reported if total.reported_cost is None else MONEY.add(total.reported_cost, reported)
                )
            if ids:
                total.ids = [*(total.ids or ()), *ids]
            if cost is not None:
                total.cost = cost if total.cost is None else total.cost.plus(cost)
            if draws:
                drawn = total.draws = total.draws or {}
                for window, amount in draws:
                    drawn[window] = MONEY.add(drawn.get(window, Decimal(0)), Decimal(amount))

    def drain(self) -> list[tuple[CallRecord, list[Draw], str | None, list[bytes]]]:
        """The sums as records, with what they drew and on whose grants, and the ids of their calls; nothing is left here."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [
            (
                _record(total),
                [(window, format(amount, "f")) for window, amount in (total.draws or {}).items()],
                key[-2],
                total.ids or [],
            )
            for key, total in sums.items()
        ]


class Overflow:
    """Merges calls for which there is no room, and gives their sums to the spool or the queue as soon as there is some.

    `merge` is safe from any thread, and may interrupt itself.
    """

    def __init__(
        self,
        spool: Spool | None,
        queue: MemoryQueue[LogRecord],
        settlement: Settlement,
        costs: Costs,
        clock: DatabaseClock,
        counts: Counts,
    ) -> None:
        self._spool = spool
        self._queue = queue
        self._settlement = settlement
        self._costs = costs
        self._clock = clock
        self._counts = counts
        self._merged = MergedCalls()
        self._merged_costs = MergedCosts()
        self._spilling = threading.RLock()

    @property
    def holds_sums(self) -> bool:
        """Whether there are sums that have found no room."""
        with self._spilling:
            return bool(self._merged or self._merged_costs)

    def merge(self, item: Recordable) -> bool:
        """Keep a call's or cost's money, where there is no room for more; False where that was lost, which is counted."""
        if isinstance(item, RunRecord) or (isinstance(item, PlatformRecord) and item.kind != RecordKind.COST):
            self._counts.drop(1, "neither disk nor memory has room")
            return False
        try:
            if isinstance(item, PlatformRecord):
                self._merged_costs.add(item)
            else:
                self._add(recorded(dated(item, self._clock.skew_s), self._counts.fault))
        except Exception as error:  # noqa: BLE001 - nothing is left to try
            self._counts.fault(error)
            self._counts.drop(1, "a fault of ours")
            return False
        self._counts.stats.merged += 1
        self._counts.say_once(
            "Neither disk nor memory has room for more calls: of those that come now only the money is kept, in sums. "
            "Mend the database, or raise VITAL_SPOOL_MIB."
        )
        return True

    def spill_if_room(self) -> None:
        """Turn the sums into log records as soon as there is room for them."""
        with self._spilling:
            if self.holds_sums and ((self._spool is not None and self._spool.healthy) or not self._queue.nearly_full):
                self.spill()

    def spill(self, *, critical: bool = False) -> None:
        """Turn the sums into log records; those that find no room stay. `critical`: they may go over the spool's limit."""
        with self._spilling:  # so that `holds_sums` never looks while the sums are taken out and not yet kept
            for record, draws, holder, ids in self._merged.drain():
                key, payload = id_bytes(record.id), pack_record(record, short=True)
                self._settlement.register_merged(key, holder, draws)
                if self._kept(LogRecord(RecordKind.RECORD, key, payload), critical=critical):
                    if self._spool is not None:
                        # Only now: if the process dies before the sum is safe, its calls are at least recorded as abandoned.
                        self._spool.delivered(ids)
                else:
                    self._settlement.forget(key)
                    self._merged.add(record, record.cost, holder, draws, *ids)
            for cost in self._merged_costs.drain():
                if not self._kept(LogRecord(*cost), critical=critical):
                    self._merged_costs.add(cost)

    def rescue(self, spool: Spool, *, idle: bool) -> None:
        """At the end, move to the spool what waits in memory: whole where there is room, else its money.

        Without `idle` the batch processor has some of it in hand. That may be sent twice, and counts once; so it is not merged.
        """
        for waiting in self._queue.read(len(self._queue.waiting)):
            if spool.append(waiting.kind, waiting.id, waiting.payload):
                continue
            if not idle:
                self._queue.rewind()
                return
            if waiting.kind == RecordKind.COST:
                self._merged_costs.add(PlatformRecord(RecordKind.COST, waiting.id, waiting.payload))
                self._counts.stats.merged += 1
            elif waiting.kind in RUNS | PLATFORM:
                self._counts.drop(1, "neither disk nor memory has room")
            else:
                self._add(decoded(waiting, self._counts.fault))
                self._counts.stats.merged += 1
        self._queue.ack()

    def drain(self) -> int:
        """Drop the sums; returns how many calls and costs they stood for."""
        costs: int = sum(orjson.loads(cost.payload)["metadata"]["costs"] for cost in self._merged_costs.drain())
        return costs + sum(record.calls for record, *_ in self._merged.drain())

    def _add(self, record: CallRecord) -> None:
        if record.replaces_abandoned:  # a row of it is in the database already, or on its way there
            self._counts.drop(1, "neither disk nor memory has room for a late end")
            return
        cost = self._costs.cost_of(record)
        key = id_bytes(record.id)
        holder, draws = self._settlement.settle(key, Used.by(record), self._costs.counted(record, cost))
        begun = (key,) if self._spool is not None and self._spool.has_begun(key) else ()
        self._merged.add(record, cost, holder, draws, *begun)
        self._settlement.forget(key)

    def _kept(self, record: LogRecord, *, critical: bool) -> bool:
        return (
            self._spool is not None and self._spool.append(record.kind, record.id, record.payload, critical=critical)
        ) or self._queue.put(*as_queued(record))


def _record(total: _Sum) -> CallRecord:
    tokens: dict[str, Any] = dict(zip(TOKEN_FIELDS, total.tokens, strict=True))
    usage = TokenUsage(**tokens, units=total.units or {}, estimated=total.estimated)
    return total.first._replace(usage=usage, calls=total.calls, cost=total.cost, reported_cost=total.reported_cost)


def _budget_model(record: CallRecord) -> tuple[bool, str | None]:
    """What decides, beside the model, which model's budget counts a call: as the database does it."""
    return record.budget_action == "downgrade", clean_text(record.requested_model)


def _quarter(moment: datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _BEGINNING) // _QUARTER
