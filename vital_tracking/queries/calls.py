"""The calls themselves, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.core.days import known_day
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.paging import every_row
from vital_tracking.stores import Store


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
    service_name: str | None
    service_run_id: str | None
    agent_id: str | None
    agent_name: str | None
    agent_tier: str | None
    agent_role: str | None
    workflow_id: str | None
    workflow_step: str | None
    workflow_step_name: str | None
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
    input_cost: Amount | None
    output_cost: Amount | None
    fees: Amount | None
    total_cost: Amount | None
    potential_cost: Amount | None
    reported_cost: Amount | None
    priced: bool
    price_version: str | None
    response_time_ms: float | None
    ttft_ms: float | None
    first_word_ms: float | None
    throttled_ms: float | None
    cache_hit: bool
    status: str
    error_type: str | None
    budget_action: str | None
    blocked_by: dict[str, Any] | None
    run_id: str | None
    trace_id: str | None
    tags: list[str]
    metadata: dict[str, Any]


CALL_COLUMNS: Final = tuple(StoredCall.__annotations__)


def usage_records(
    store: Store, filters: Filters | None = None, *, limit: int = 100, after: str | None = None
) -> list[StoredCall]:
    """The newest calls that the filters let pass, at most `limit` of them (10,000 at once).

    The next page begins `after` the `place_of` the last one. Raises StoreError; ValueError where `after` is no place.
    """
    cursor = {} if after is None else dict(zip(("after_at", "after_id"), place(after), strict=True))
    answer = store.call("calls_v1", filters=(filters or Filters()).text(), max_rows=limit, **cursor)
    return typed(list[StoredCall], answer)


def every_call(store: Store, filters: Filters | None = None, *, at_once: int = 1000) -> Iterator[StoredCall]:
    """All calls that the filters let pass, the newest first, in the memory of `at_once` of them. Raises StoreError."""
    return every_row(lambda after: usage_records(store, filters, limit=at_once, after=after), place_of, at_once)


def call_of(store: Store, call_id: UUID) -> StoredCall | None:
    """The call of an id; None where there is none, or none that the asker may see. Raises StoreError."""
    found = usage_records(store, Filters(id=str(call_id)), limit=1)
    return found[0] if found else None


def place_of(call: StoredCall) -> str:
    """Where a call stands among all calls, for the page after it."""
    return f"{call['created_at'].isoformat()}/{call['id']}"


def place(text: str) -> tuple[datetime, str]:
    """The time and the id that a place names; ValueError where it is none."""
    at, _, number = text.partition("/")
    moment = known_day(datetime.fromisoformat(at))
    if not number or moment.tzinfo is None:
        raise ValueError(text)
    return moment, number


def metadata_keys(store: Store, filters: Filters | None = None) -> list[str]:
    """The keys that the metadata of such calls have, of the newest 10,000. Raises StoreError."""
    return typed(list[str], store.call("metadata_keys_v1", filters=(filters or Filters()).text()))


def last_call_at(store: Store, *, organization: str | None = None) -> datetime | None:
    """When the last call began, of an organization or of all; None where there is none."""
    newest = usage_records(store, Filters(organization=organization), limit=1)
    return newest[0]["created_at"] if newest else None
