"""What a call used, and the record of it: values in, values out.

Token buckets are disjoint inside their total: `prompt_tokens` holds uncached text, cache reads, cache writes and audio;
`completion_tokens` holds text, reasoning and audio. No prompt, completion or error text ever gets into a record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal

from vital_tracking.core.context import CONTEXT_FIELDS, SERVICE_TYPES, CallContext

Status = Literal["ok", "error", "cancelled", "abandoned", "blocked"]
HUNG_UP: Final = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt"})
"""Classes of errors by which the caller ends a call or a run: it was cancelled, it did not fail."""

STATUSES: Final = ("ok", "error", "cancelled", "abandoned", "blocked")
CallType = Literal["chat", "completion", "embedding"]
RunStatus = Literal["running", "ok", "error", "cancelled"]

MAX_TOKENS: Final = 10**12
"""A count above this is garbage: it is a million times the longest context of any model."""

MAX_TEXT: Final = 256
"""Characters kept of an id or a name; a longer one keeps its start and a digest, so that two stay two."""

MAX_METADATA: Final = 4096
"""Bytes of a row's metadata, measured as PostgreSQL prints jsonb."""


def token_count(value: object) -> int | None:
    """`value` as a token count, or None where it is none: a bool, negative, not whole, not finite, too large, no number."""
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    if not finite or not 0 <= value <= MAX_TOKENS or value != int(value):
        return None
    return int(value)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one call. Buckets are disjoint; `cache_write_1h_tokens` is the part of the cache writes kept an hour.

    `estimated`: nobody reported the counts. `notes`: what had to be mended, as short fixed words.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    estimated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def reported(
        cls,
        *,
        input_tokens: object,
        output_tokens: object,
        cache_read: object = 0,
        cache_write: object = 0,
        cache_write_1h: object = 0,
        reasoning: object = 0,
        audio_input: object = 0,
        audio_output: object = 0,
    ) -> TokenUsage | None:
        """Build disjoint buckets from counts as a provider reports them; None where both totals are unusable.

        The details are parts of their total. Where they exceed it they cannot be: then they stand beside it, as Amazon
        Bedrock has reported them (input 3 beside 13,216 read from the cache), and are added.
        """
        notes: list[str] = []

        def part(value: object) -> int:
            if value is None:
                return 0
            number = token_count(value)
            if number is None:
                notes.append("invalid_token_detail")
                return 0
            return number

        prompt, completion = token_count(input_tokens), token_count(output_tokens)
        if prompt is None and completion is None:
            return None
        if prompt is None or completion is None:
            notes.append("token_total_missing")
        prompt, completion = prompt or 0, completion or 0
        read, write, write_1h = part(cache_read), part(cache_write), part(cache_write_1h)
        write = max(write, write_1h)
        thought, heard, said = part(reasoning), part(audio_input), part(audio_output)
        if read + write > prompt:
            prompt += read + write
            notes.append("cache_beside_input")
        if thought > completion:
            completion += thought
            notes.append("reasoning_beside_output")
        if heard > prompt - read - write:
            heard = prompt - read - write  # cached audio is counted as cached
            notes.append("audio_overlaps_cache")
        if said > completion - thought:
            said = completion - thought
            notes.append("audio_overlaps_reasoning")
        return cls(prompt, completion, read, write, write_1h, thought, heard, said, notes=tuple(dict.fromkeys(notes)))


def estimate_tokens(size: int) -> int:
    """A rough token count of a text nobody counted: a token for every four bytes of UTF-8, rounded up.

    Four characters a token is the rule of thumb that OpenAI and Anthropic publish for English; bytes instead of characters
    keep it near one token a character for Chinese or Japanese.
    """
    return min(-(-size // 4), MAX_TOKENS)


@dataclass(slots=True)
class CallRecord:
    """One billed request to a model as it is handed to the writer; `call_row` makes its row of `token_usage_logs`.

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
_MAX_DURATION_MS: Final = 1e12
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


def money(value: Decimal) -> str:
    """An amount as PostgreSQL's numeric reads it: all its digits, no exponent."""
    return format(value, "f")


def timestamp(moment: datetime) -> str:
    """An instant as ISO 8601 with its offset; a naive one is taken as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _duration(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MAX_DURATION_MS:
        return None
    return round(float(value), 3)


def clean_text(value: object, limit: int = MAX_TEXT) -> str | None:
    """`value` as text that PostgreSQL takes: no NUL, no lone surrogate, at most `limit` characters."""
    if value is None:
        return None
    text = value if type(value) is str else _as_text(value)
    if len(text) > limit:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
        text = f"{text[: limit - 18]}~{digest}"
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - somebody's __str__; the row is worth more than this value
        return f"<{type(value).__name__}>"


def clean_metadata(metadata: Mapping[str, Any], notes: Iterable[str]) -> dict[str, Any]:
    """Metadata as a small flat JSON object: scalars and short lists of them, at most `MAX_METADATA` bytes, and the notes."""
    kept: dict[str, Any] = {}
    marks = list(dict.fromkeys(notes))
    for key, value in metadata.items():
        name = clean_text(key, 64)
        cleaned = _metadata_value(value)
        if name and cleaned is not None:
            kept[name] = cleaned
    if marks:
        kept["notes"] = marks
    # Six bytes is the most that a character takes, so most metadata need no measuring.
    if (
        6 * sum(len(name) + _length(value) for name, value in kept.items()) > MAX_METADATA
        and _size(kept) > MAX_METADATA
    ):
        kept = {"notes": [*marks, "metadata_too_large"]}
    return kept


def _size(value: Mapping[str, Any]) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _length(value: object) -> int:
    return len(value) + 4 if isinstance(value, str) else len(str(value)) + 4


def _metadata_value(value: object) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, Decimal)):
        return clean_text(value)
    if isinstance(value, int):
        return value if abs(value) <= 2**53 else clean_text(value)
    if isinstance(value, float):
        # jsonb writes a number out in full: 1e300 takes 301 bytes there.
        return value if abs(value) < 1e15 else clean_text(value) if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [item for item in map(_metadata_value, value[:16]) if item is not None and not isinstance(item, list)]
    return None
