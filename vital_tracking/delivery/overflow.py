"""What is left of calls for which there is room neither on disk nor in memory: their money, exactly.

Calls of the same owner, model and quarter of an hour become one row, which says how many they were. A quarter, since the days of
all time zones begin at one: so each sum falls into one window of each budget by the day.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.core.context import CallContext
from vital_tracking.core.pricing import MONEY
from vital_tracking.core.record import CallRecord, Cost
from vital_tracking.core.sanitize import clean_text
from vital_tracking.core.usage import TokenUsage
from vital_tracking.ids import new_id

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
_COUNTED: Final = tuple(f.name for f in fields(TokenUsage) if f.name not in ("estimated", "notes"))
# Past so many sums only these are told apart.
_TOLD_APART: Final = (
    (frozenset(_OWNERS) - {"session_id", "agent_id"}, 10_000),
    (frozenset({"organization_id", "service_type"}), 20_000),
    (frozenset[str](), 30_000),
)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER: Final = timedelta(minutes=15)


@dataclass(slots=True)
class _Sum:
    first: CallRecord
    calls: int = 0
    usage: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    estimated: bool = False
    cost: Cost | None = None
    draws: dict[int, Decimal] = field(default_factory=dict)
    ids: list[bytes] = field(default_factory=list)


class Overflow:
    """The sums of calls that could not be kept one by one. Bounded: past ten thousand, sessions and agents are no longer told
    apart, past twenty thousand users neither, past thirty thousand nothing but models, prices and times."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._lock = threading.RLock()
        self._sums: dict[tuple[Any, ...], _Sum] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(
        self, record: CallRecord, cost: Cost | None, holder: str | None, draws: list[tuple[int, str]], *ids: bytes
    ) -> None:
        """Add a call with its cost, None where it has no price, what it drew on the grants of `holder`, and its id."""
        with self._lock:
            # Clean and short, as the row will have them: whoever they are, they can be told apart and take little room.
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
                clean_text(record.service_tier),
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
                    call_type=record.call_type,
                    billed=record.billed,
                    status=record.status,
                    cache_hit=record.cache_hit,
                    service_tier=clean_text(record.service_tier),
                    budget_action=clean_text(record.budget_action),
                    notes=("merged",),
                    clocked=record.clocked,
                )
                total = self._sums[key] = _Sum(first)
            total.calls += record.calls
            for name in _COUNTED:
                total.usage[name] += getattr(record.usage, name)
            total.estimated |= record.usage.estimated
            total.ids += ids
            if cost is not None:
                total.cost = cost if total.cost is None else _added(total.cost, cost)
            for window, amount in draws:
                total.draws[window] = MONEY.add(total.draws.get(window, Decimal(0)), Decimal(amount))

    def take(self) -> list[tuple[CallRecord, list[tuple[int, str]], str | None, list[bytes]]]:
        """The sums as records, with what they drew and on whose grants, and the ids of their calls; nothing is left here."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [
            (
                _record(total),
                [(window, format(amount, "f")) for window, amount in total.draws.items()],
                key[-2],
                total.ids,
            )
            for key, total in sums.items()
        ]


def _record(total: _Sum) -> CallRecord:
    usage = TokenUsage(**total.usage, estimated=total.estimated)
    return replace(total.first, usage=usage, calls=total.calls, cost=total.cost)


def _added(one: Cost, other: Cost) -> Cost:
    """The sum, exact whatever precision the thread's own decimal context has."""
    return Cost(
        MONEY.add(one.input, other.input),
        MONEY.add(one.output, other.output),
        MONEY.add(one.total, other.total),
        MONEY.add(one.potential, other.potential),
        one.version,
    )


def _budget_model(record: CallRecord) -> tuple[bool, str | None]:
    """What beside its model says which model's budget a call is counted for, as the database does."""
    return record.budget_action == "downgrade", clean_text(record.requested_model)


def _quarter(moment: datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _BEGINNING) // _QUARTER
