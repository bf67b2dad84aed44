"""The calls themselves, the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.catalogue import FILTERS
from vital_tracking.stores import Store

_VIEW: Final = "agent_usage_detailed"


@answer_type
class StoredCall(TypedDict):
    """A call: costs in US dollars (None where the model has no known price), times in milliseconds, tokens disjoint by kind.

    `model` is the one that answered; what the request named (`sent_model`) and what was asked for (`requested_model`) are None
    where they are the same. `billed_units` counts what is billed beside plain tokens, and `fees` is its part of the total;
    `reported_cost` is the provider's own figure. `calls` is more than 1 where a row stands for several, of which only the money
    was kept.
    """

    id: UUID
    created_at: datetime
    organization_id: str | None
    user_id: str | None
    session_id: str | None
    service_type: str | None
    service_id: str | None
    agent_id: str | None
    agent_name: str | None
    agent_tier: str | None
    workflow_id: str | None
    workflow_step: str | None
    panel_id: str | None
    panel_position: int | None
    solution_id: str | None
    framework: str | None
    provider: str | None
    model: str | None
    requested_model: str | None
    sent_model: str | None
    call_type: str
    message_type: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    billed_units: dict[str, Any] | None
    usage_estimated: bool
    input_cost: Decimal | None
    output_cost: Decimal | None
    fees: Decimal | None
    total_cost: Decimal | None
    potential_cost: Decimal | None
    reported_cost: Decimal | None
    priced: bool
    response_time_ms: float | None
    ttft_ms: float | None
    first_word_ms: float | None
    cache_hit: bool
    status: str
    error_type: str | None
    metadata: dict[str, Any]


CALL_COLUMNS: Final = tuple(StoredCall.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilters:
    """Which calls: only those of the named user, service and so on; None for any. `since` cuts by their start."""

    user: str | None = None
    session: str | None = None
    organization: str | None = None
    agent: str | None = None
    model: str | None = None
    service: str | None = None
    status: str | None = None
    unpriced: bool = False
    since: datetime | None = None

    @property
    def equals(self) -> dict[str, object]:
        """The columns that must hold a value, with the value."""
        named = ((name, getattr(self, name)) for name in FILTERS if name != "unpriced" and name in self.__slots__)
        wanted = {FILTERS[name]: value for name, value in named if value is not None}
        return {**wanted, FILTERS["unpriced"]: False} if self.unpriced else wanted


def recent_calls(store: Store, filters: CallFilters | None = None, *, limit: int = 100) -> list[StoredCall]:
    """The newest calls, at most `limit` of them (a project's API gives 1,000 at once). Raises StoreError."""
    chosen = filters or CallFilters()
    rows = store.read(_VIEW, columns=CALL_COLUMNS, equals=chosen.equals, since=chosen.since, limit=limit)
    return typed(list[StoredCall], rows)


def last_call_at(store: Store, *, organization: str | None = None) -> datetime | None:
    """When the last call began, of an organization or of all; None where there is none."""
    newest = store.read(_VIEW, columns=("created_at",), equals=CallFilters(organization=organization).equals, limit=1)
    return typed(list[_Beginning], newest)[0]["created_at"] if newest else None


class _Beginning(TypedDict):
    created_at: datetime
