"""The rows that records become: of `token_usage_logs` and of `service_runs`."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from vital_tracking.core.context import CONTEXT_FIELDS, SERVICE_TYPES, CallContext
from vital_tracking.core.record import CallRecord, Cost, RunRecord
from vital_tracking.core.sanitize import _duration, clean_metadata, clean_text, money, timestamp, token_count

_TEXT_FIELDS: Final = (
    "provider",
    "model",
    "requested_model",
    "run_id",
    "parent_run_id",
    "trace_id",
    "langsmith_project",
    "error_type",
    "budget_action",
    "request_hash",
)


_DURATION_FIELDS: Final = ("latency_ms", "ttft_ms", "throttled_ms")


_USAGE_COLUMNS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
)


_INTEGER_FIELDS: Final = frozenset({"panel_position", "panel_size"})


def call_row(record: CallRecord, cost: Cost | None, ceiling: Decimal | None = None) -> dict[str, Any]:
    """The row of `token_usage_logs` for a record: every value clean, bounded and ready for JSON; money as text.

    `ceiling` is what budgets count where no price is known. What is NULL or the column's default is left out.
    """
    usage = record.usage
    columns, context_notes = context_columns(record.context)
    row = columns.copy()
    row["id"] = record.id
    row["created_at"] = timestamp(record.created_at)
    row["call_type"] = record.call_type
    row["status"] = record.status
    for name in _TEXT_FIELDS:
        value = getattr(record, name)
        if value is not None:
            row[name] = clean_text(value)
    for name in _USAGE_COLUMNS:
        tokens = getattr(usage, name)
        if tokens:
            row[name] = tokens
    if audio := usage.audio_input_tokens + usage.audio_output_tokens:
        row["audio_tokens"] = audio
    if usage.estimated:
        row["usage_estimated"] = True
    row["priced"] = cost is not None
    if cost is not None:
        row["input_cost"] = money(cost.input)
        row["output_cost"] = money(cost.output)
        row["total_cost"] = money(cost.total)
        row["potential_cost"] = money(cost.potential)
        row["price_version"] = clean_text(cost.version)
    elif ceiling is not None:
        row["ceiling_cost"] = money(ceiling)
    for name in _DURATION_FIELDS:
        value = getattr(record, name)
        if value is not None and (duration := _duration(value)) is not None:
            row[name] = duration
    if record.cache_hit:
        row["cache_hit"] = True
    if record.calls > 1:
        row["calls"] = record.calls
    if record.tags and (tags := [tag for tag in map(clean_text, list(record.tags)[:32]) if tag]):
        row["tags"] = tags
    metadata = dict(record.metadata)
    if record.service_tier:
        metadata["service_tier"] = record.service_tier
    notes = [*record.notes, *context_notes, *usage.notes]
    if metadata or notes:
        row["metadata"] = clean_metadata(metadata, notes)
    if record.replaces_abandoned:
        row["replaces_abandoned"] = True
    return row


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
    try:
        return _known_columns(context)
    except TypeError:  # a value that cannot be hashed, so certainly no text: cleaned like the others, not kept
        return _context_columns(context)


def _context_columns(context: CallContext) -> tuple[dict[str, Any], tuple[str, ...]]:
    columns: dict[str, Any] = {}
    notes: list[str] = []
    for name in CONTEXT_FIELDS:
        value = getattr(context, name)
        if value is None:
            continue
        if name in _INTEGER_FIELDS:
            number = token_count(value)
            if number is None or number > 32767:
                notes.append(f"invalid_{name}")
            else:
                columns[name] = number
        elif name == "service_type" and value not in SERVICE_TYPES:
            notes.append("invalid_service_type")
        else:
            columns[name] = clean_text(value)
    return columns, tuple(notes)


_known_columns = lru_cache(maxsize=512)(_context_columns)


def shortened(record: CallRecord) -> CallRecord:
    """A record's money and owners, without anything that might be what nobody foresaw."""
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
        notes=("shortened",),
        clocked=record.clocked,
        hold=record.hold,
        calls=record.calls,
        cost=record.cost,
    )
