"""What is left of calls for which there is room neither on disk nor in memory: their money, exactly.

Calls of the same owner, model and quarter of an hour become one row, which says how many they were. A quarter, since the days of
all time zones begin at one: so each sum falls into one window of each budget by the day.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from vital_tracking.context import CallContext
from vital_tracking.ids import new_id
from vital_tracking.usage import CallRecord, Cost, TokenUsage

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
_MOST: Final = 10_000


@dataclass(slots=True)
class _Sum:
    first: CallRecord
    calls: int = 0
    usage: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    estimated: bool = False
    cost: Cost | None = None
    draws: dict[int, Decimal] = field(default_factory=dict)


class Losses:
    """The sums of calls that could not be kept one by one. Bounded: past ten thousand owners, sessions and agents are no longer
    told apart."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._lock = threading.RLock()
        self._sums: dict[tuple[Any, ...], _Sum] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, record: CallRecord, cost: Cost | None, holder: str | None, draws: list[tuple[int, str]]) -> None:
        """Add a call with its cost, None where it has no price, and what it drew on the grants of `holder`."""
        with self._lock:
            owners: list[Any] = [getattr(record.context, name) for name in _OWNERS]
            if len(self._sums) >= _MOST:
                owners = [owners[0], owners[1], None, owners[3], None, *owners[5:]]
            key = (
                *owners,
                record.provider,
                record.model,
                record.call_type,
                record.status == "blocked",
                record.cache_hit,
                cost.version if cost is not None else None,
                holder,
                _quarter(record.created_at),
            )
            total = self._sums.get(key)
            if total is None:
                context = CallContext(**dict(zip(_OWNERS, owners, strict=True)))
                total = self._sums[key] = _Sum(replace(record, id=new_id(), context=context))
            total.calls += record.calls
            for name in _COUNTED:
                total.usage[name] += getattr(record.usage, name)
            total.estimated |= record.usage.estimated
            if cost is not None:
                total.cost = cost if total.cost is None else _added(total.cost, cost)
            for window, amount in draws:
                total.draws[window] = total.draws.get(window, Decimal(0)) + Decimal(amount)

    def take(self) -> list[tuple[CallRecord, list[tuple[int, str]], str | None]]:
        """The sums as records, with what they drew and on whose grants; nothing is left here."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [
            (_record(total), [(window, format(amount, "f")) for window, amount in total.draws.items()], key[-2])
            for key, total in sums.items()
        ]


def _record(total: _Sum) -> CallRecord:
    first = total.first
    return CallRecord(
        id=first.id,
        created_at=first.created_at,
        context=first.context,
        provider=first.provider,
        model=first.model,
        call_type=first.call_type,
        usage=replace(TokenUsage(**total.usage), estimated=total.estimated),
        billed=first.billed,
        status=first.status,
        cache_hit=first.cache_hit,
        notes=("merged",),
        clocked=first.clocked,
        calls=total.calls,
        cost=total.cost,
    )


def _added(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.input + other.input,
        one.output + other.output,
        one.total + other.total,
        one.potential + other.potential,
        one.version,
    )


def _quarter(moment: datetime) -> int:
    return int(moment.timestamp()) // 900
