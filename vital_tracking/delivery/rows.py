"""Makes rows of records: of `token_usage_logs` and of `service_runs`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from vital_tracking.calls.json_codec import mended
from vital_tracking.calls.row_literal import encoded_row
from vital_tracking.core.context import CONTEXT_FIELDS, INTEGER_FIELDS, SERVICE_TYPES, CallContext
from vital_tracking.core.cost import Cost
from vital_tracking.core.draws import Draw
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.core.sanitize import (
    MAX_METADATA,
    clean_metadata,
    clean_text,
    duration_ms,
    json_bytes,
    money,
    timestamp,
    token_count,
)

_MOST_SEATS: Final = 32767
_MOST_TAGS: Final = 32
# Types of which equal values have the same columns. Others are not looked up: as a key 1 is True and 1.0 as well.
_PLAIN: Final = frozenset({str, int, type(None)})


def call_row(record: CallRecord, cost: Cost | None, ceiling: Decimal | None = None) -> dict[str, Any]:
    """The row of `token_usage_logs` for a record: every value clean, bounded and ready for JSON; money as text.

    `ceiling` is what budgets count where no price is known. What is NULL or the column's default is left out.
    """
    columns, notes = context_columns(record.context)
    return {**columns, **_own_columns(record, cost, ceiling, notes)}


def encode_call(record: CallRecord, cost: Cost | None, ceiling: Decimal | None, draws: Collection[Draw]) -> str:
    """The literal of `call_row`, with what the call draws on its process's grants."""
    row = call_row(record, cost, ceiling)
    return encoded_row({**row, "draws": draws} if draws else row)


def _own_columns(
    record: CallRecord, cost: Cost | None, ceiling: Decimal | None, context_notes: tuple[str, ...]
) -> dict[str, Any]:
    """The columns that are not the context's."""
    usage = record.usage
    row: dict[str, Any] = {
        "id": record.id,
        "created_at": timestamp(record.created_at),
        "call_type": record.call_type,
        "status": record.status,
    }
    if (provider := record.provider) is not None:
        row["provider"] = clean_text(provider)
    if (model := record.model) is not None:
        row["model"] = clean_text(model)
    if (requested_model := record.requested_model) is not None:
        row["requested_model"] = clean_text(requested_model)
    if (sent_model := record.sent_model) is not None:
        row["sent_model"] = clean_text(sent_model)
    if (run_id := record.run_id) is not None:
        row["run_id"] = clean_text(run_id)
    if (parent_run_id := record.parent_run_id) is not None:
        row["parent_run_id"] = clean_text(parent_run_id)
    if (trace_id := record.trace_id) is not None:
        row["trace_id"] = clean_text(trace_id)
    if (project := record.langsmith_project) is not None:
        row["langsmith_project"] = clean_text(project)
    if (error_type := record.error_type) is not None:
        row["error_type"] = clean_text(error_type)
    if (budget_action := record.budget_action) is not None:
        row["budget_action"] = clean_text(budget_action)
    if record.blocked_by:
        row["blocked_by"] = mended(record.blocked_by)
    if (request_hash := record.request_hash) is not None:
        row["request_hash"] = clean_text(request_hash)
    if record.prefix_hashes:
        row["prefix_hashes"] = list(record.prefix_hashes)
        if record.prompt_bytes is not None:
            row["prompt_bytes"] = record.prompt_bytes
    if prompt := usage.prompt_tokens:
        row["prompt_tokens"] = prompt
    if completion := usage.completion_tokens:
        row["completion_tokens"] = completion
    if total := prompt + completion:
        row["total_tokens"] = total
    if tokens := usage.cache_read_tokens:
        row["cache_read_tokens"] = tokens
    if tokens := usage.cache_write_tokens:
        row["cache_write_tokens"] = tokens
    if tokens := usage.cache_write_1h_tokens:
        row["cache_write_1h_tokens"] = tokens
    if tokens := usage.reasoning_tokens:
        row["reasoning_tokens"] = tokens
    if tokens := usage.audio_output_tokens:
        row["audio_output_tokens"] = tokens
    if tokens := usage.audio_input_tokens + usage.audio_output_tokens:
        row["audio_tokens"] = tokens
    too_large: tuple[str, ...] = ()
    if usage.units or usage.passes:
        units = usage.billed_units()
        if json_bytes(units) > MAX_METADATA:
            too_large = ("billed_units_too_large",)
            units.pop("passes", None)
        if units and (not too_large or json_bytes(units) <= MAX_METADATA):
            row["billed_units"] = units
    if usage.estimated:
        row["usage_estimated"] = True
    row["priced"] = cost is not None
    if cost is not None:
        row["input_cost"] = money(cost.input)
        row["output_cost"] = money(cost.output)
        row["fees"] = money(cost.fees)
        row["total_cost"] = money(cost.total)
        row["potential_cost"] = money(cost.potential)
        row["price_version"] = clean_text(cost.version)
    elif ceiling is not None:
        row["ceiling_cost"] = money(ceiling)
    if (reported := record.reported_cost) is not None:
        row["reported_cost"] = money(reported)
    if (latency := duration_ms(record.latency_ms)) is not None:
        row["latency_ms"] = latency
    if (first_token := duration_ms(record.ttft_ms)) is not None:
        row["ttft_ms"] = first_token
    if (first_word := duration_ms(record.first_word_ms)) is not None:
        row["first_word_ms"] = first_word
    if (throttled := duration_ms(record.throttled_ms)) is not None:
        row["throttled_ms"] = throttled
    if record.cache_hit:
        row["cache_hit"] = True
    if record.calls > 1:
        row["calls"] = record.calls
    if record.tags and (tags := row_tags(record.tags)):
        row["tags"] = tags
    metadata = record.metadata
    notes = (*record.notes, *context_notes, *usage.notes, *too_large)
    if cost is not None and cost.notes:
        notes = (*notes, *cost.notes)
    if metadata or notes or record.price_facts:
        row["metadata"] = clean_metadata(metadata, notes, record.price_facts)
    if record.replaces_abandoned:
        row["replaces_abandoned"] = True
    return row


def row_tags(tags: Iterable[str]) -> list[str]:
    """The column `tags`."""
    return [tag for tag in map(clean_text, list(tags)[:_MOST_TAGS]) if tag]


def run_row(record: RunRecord) -> dict[str, Any]:
    """The row of `service_runs` for one state of a service run."""
    row, notes = context_columns(record.context)
    kept: dict[str, Any] = {
        name: row.get(name)
        for name in (
            "organization_id",
            "user_id",
            "session_id",
            "service_type",
            "service_id",
            "service_name",
            "agent_id",
            "workflow_id",
            "panel_id",
            "panel_size",
            "solution_id",
        )
    }
    kept |= {
        "id": clean_text(record.id),
        "started_at": timestamp(record.started_at),
        "ended_at": timestamp(record.ended_at) if record.ended_at else None,
        "status": record.status,
        "error_type": clean_text(record.error_type),
        "parent_run_id": clean_text(record.parent_run_id),
        "ancestor_run_ids": [text for text in map(clean_text, record.ancestor_run_ids) if text],
        "metadata": clean_metadata(record.metadata, notes),
    }
    return {name: value for name, value in kept.items() if value is not None}


def context_columns(context: CallContext) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A context's columns, clean, and notes on what was not; the same for all calls of a scope, so they are kept."""
    values = _values_of(context)
    return (_known_columns if _PLAIN.issuperset(map(type, values)) else _columns_of)(values)


def _columns_of(values: tuple[Any, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    columns: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in zip(CONTEXT_FIELDS, values, strict=True):
        if value is None:
            continue
        if name in INTEGER_FIELDS:
            number = token_count(value)
            if number is None or number > _MOST_SEATS:
                notes.append(f"invalid_{name}")
            else:
                columns[name] = number
            continue
        text = clean_text(value)
        if name == "service_type" and text not in SERVICE_TYPES:
            notes.append("invalid_service_type")
        else:
            columns[name] = text
    return columns, tuple(notes)


_values_of: Final = attrgetter(*CONTEXT_FIELDS)
_known_columns = lru_cache(maxsize=512)(_columns_of)


def shortened(record: CallRecord) -> CallRecord:
    """A record's money and owners, without the fields whose values might be what no row could be made of."""
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
        sent_model=clean_text(record.sent_model),
        price_facts=record.price_facts,
        reported_cost=record.reported_cost,
        notes=("shortened",),
        clocked=record.clocked,
        hold=record.hold,
        calls=record.calls,
        cost=record.cost,
    )
