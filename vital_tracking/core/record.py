"""What is recorded: a call, and one state of a service run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from vital_tracking.core.context import CallContext
from vital_tracking.core.usage import TokenUsage

Status = Literal["ok", "error", "cancelled", "abandoned", "blocked"]


HUNG_UP: Final = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt"})
"""Classes of errors by which the caller ends a call or a run: it was cancelled, it did not fail."""


STATUSES: Final = ("ok", "error", "cancelled", "abandoned", "blocked")


CallType = Literal["chat", "completion", "embedding"]


RunStatus = Literal["running", "ok", "error", "cancelled"]


@dataclass(slots=True)
class CallRecord:
    """One billed request to a model as it will be stored; `delivery.rows` makes its row of `token_usage_logs`.

    `latency_ms` and `ttft_ms` are milliseconds on a monotonic clock, `created_at` is the call's start. `notes` says what is
    not as reported, in fixed words; `service_tier` is the provider's (`priority`, `flex`), which has prices of its own;
    `billed` is False where the provider refused the request; `hold` is what its budgets had set aside for it; `clocked` says
    that `created_at` was read from this machine's clock, not given; `replaces_abandoned` marks the true end of a call given up.
    `calls` is more than 1 where calls were merged because there was room for nothing but their money; `cost` is then their cost.
    """

    id: str
    created_at: datetime
    context: CallContext = field(default_factory=CallContext)
    provider: str | None = None
    model: str | None = None
    requested_model: str | None = None
    call_type: CallType = "chat"
    run_id: str | None = None
    parent_run_id: str | None = None
    trace_id: str | None = None
    langsmith_project: str | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    billed: bool = True
    status: Status = "ok"
    error_type: str | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    cache_hit: bool = False
    service_tier: str | None = None
    budget_action: str | None = None
    throttled_ms: float | None = None
    request_hash: str | None = None
    tags: Iterable[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hold: Any = None
    clocked: bool = True
    replaces_abandoned: bool = False
    calls: int = 1
    cost: Cost | None = None


@dataclass(slots=True)
class RunRecord:
    """One state of a service run: sent when it starts (`running`) and again when it ends."""

    id: str
    context: CallContext
    started_at: datetime
    status: RunStatus = "running"
    ended_at: datetime | None = None
    error_type: str | None = None
    parent_run_id: str | None = None
    ancestor_run_ids: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost, in US dollars, exactly. `potential` is what it would have cost without any cache."""

    input: Decimal
    output: Decimal
    total: Decimal
    potential: Decimal
    version: str
