"""What is recorded: a call, and one state of a service run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from vital_tracking.core.context import CallContext
from vital_tracking.core.cost import Cost
from vital_tracking.core.usage import TokenUsage

Status = Literal["ok", "error", "cancelled", "abandoned", "blocked"]


HUNG_UP: Final = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt"})
"""Classes of errors by which the caller ends a call or a run: it was cancelled, it did not fail."""


STATUSES: Final = ("ok", "error", "cancelled", "abandoned", "blocked")


PRICE_FACTS: Final = (
    "service_tier",
    "speed",
    "latency",
    "inference_geo",
    "search_context_size",
    "search_tool",
    "processing",
)
"""Facts of a call that choose between prices of one model, in the words of its provider."""


CallType = Literal["chat", "completion", "embedding"]


RunStatus = Literal["running", "ok", "error", "cancelled", "abandoned"]
RUN_STATUSES: Final = get_args(RunStatus)


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class CallRecord(NamedTuple):
    """One billed request to a model as it will be stored; `delivery.rows` makes its row of `token_usage_logs`.

    `model` is the one that answered, `sent_model` the one that was sent and `requested_model` the one that was asked for before a
    downgrade, each where it is another. `latency_ms`, `ttft_ms` (to the first token of any kind) and `first_word_ms` (to the
    first that is no thought) are milliseconds on a monotonic clock, `created_at` is the call's start. `price_facts` are what
    else decides the price (PRICE_FACTS); `reported_cost` is the provider's own figure in US dollars. `notes` says what is not
    as reported, in fixed words; `billed` is False where the provider refused the request; `hold` is what its budgets had set
    aside for it; `clocked` says that `created_at` was read from this machine's clock and is still to be corrected;
    `replaces_abandoned` marks the true end of a call given up.
    `prefix_hashes` are keyed hashes of the prompt's first 4,096, 8,192, ... bytes, of `prompt_bytes` in all with its tools.
    `calls` is more than 1 where calls were merged because there was room for nothing but their money; `cost` is then their cost.
    """

    id: str
    created_at: datetime
    context: CallContext = CallContext()
    provider: str | None = None
    model: str | None = None
    requested_model: str | None = None
    sent_model: str | None = None
    call_type: CallType = "chat"
    run_id: str | None = None
    parent_run_id: str | None = None
    trace_id: str | None = None
    langsmith_project: str | None = None
    usage: TokenUsage = TokenUsage()
    billed: bool = True
    status: Status = "ok"
    error_type: str | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    first_word_ms: float | None = None
    cache_hit: bool = False
    price_facts: Mapping[str, str] = NOTHING
    reported_cost: Decimal | None = None
    budget_action: str | None = None
    blocked_by: Mapping[str, object] | None = None
    throttled_ms: float | None = None
    request_hash: str | None = None
    prefix_hashes: Sequence[str] = ()
    prompt_bytes: int | None = None
    tags: Iterable[str] = ()
    metadata: Mapping[str, Any] = NOTHING
    notes: tuple[str, ...] = ()
    hold: Any = None
    clocked: bool = True
    replaces_abandoned: bool = False
    calls: int = 1
    cost: Cost | None = None


class Used(NamedTuple):
    """What budgets look at of a call that has ended.

    `counts` is False where it takes nothing, as one that was stopped; `teaches` says that estimates may learn from its usage.
    """

    usage: TokenUsage
    counts: bool = True
    teaches: bool = True

    @classmethod
    def by(cls, record: CallRecord) -> Used:
        """What the call of a `record` has used."""
        cached = record.cache_hit
        return cls(record.usage, record.status != "blocked" and not cached, record.billed and not cached)


class RunRecord(NamedTuple):
    """One state of a service run: sent when it starts (`running`) and again when it ends, or its process has (`abandoned`)."""

    id: str
    context: CallContext
    started_at: datetime
    status: RunStatus = "running"
    ended_at: datetime | None = None
    error_type: str | None = None
    parent_run_id: str | None = None
    ancestor_run_ids: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = NOTHING

    def abandoned(self, at: datetime) -> RunRecord:
        """The same at its end, where its process has ended first: `at` is that process's last sign of life."""
        return self._replace(status="abandoned", ended_at=max(at, self.started_at))
