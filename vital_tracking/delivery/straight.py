"""The straight way from a log record to a row, for calls of which nothing unusual has to be said.

What calls of a scope share is cleaned and encoded once and put before each row as it is; what calls of a model share likewise;
prices are whole numbers (`core.price_spans`). What is not known to be usual goes the long way by `encoding.decoded`, `PriceBook`
and `rows`, which say what a row is. A row that goes straight is the same, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import modf
from typing import Any, Final, NamedTuple

import orjson
import uuid_utils

from vital_tracking.calls.metadata_keys import remember
from vital_tracking.calls.names_of import first_text
from vital_tracking.calls.quirks import ENDS_WITH_REASON
from vital_tracking.calls.resolve import kept_metadata, other_than, own_tags, reason_of
from vital_tracking.calls.usual_usage import Facts, UsualUsage, is_usual, usual_facts, usual_usage
from vital_tracking.calls.wire import END_FACTS, START_FACTS, shared_from
from vital_tracking.core.context import CallContext
from vital_tracking.core.price_spans import Amounts, PriceSpan, PriceSpans
from vital_tracking.core.providers import provider_id
from vital_tracking.core.sanitize import LATEST, clean_metadata, clean_text, duration_ms
from vital_tracking.core.tally import Spent
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.rows import context_json, row_tags
from vital_tracking.spool.log_record import LogRecord

_STARTS: Final = len(START_FACTS)
_ENDS: Final = len(END_FACTS)
_MOST_METADATA: Final = 8  # of a scope: those of further calls are mostly not the same again
_PLAIN: Final = frozenset({str, int, type(None)})
_LATEST_S: Final = LATEST.timestamp() - 1


class _Scope:
    """What calls share whose first lines are the same: their context as the beginning of a row, and metadata by its values."""

    __slots__ = ("_metadata", "beginning", "shared", "usual")

    def __init__(self, first: bytes) -> None:
        self.shared = shared_from(orjson.loads(first))
        self.beginning, notes = context_json(self.shared.context)
        self.usual = not notes
        self._metadata: dict[tuple[Any, ...], orjson.Fragment | None] = {}

    def row_metadata(
        self, values: Sequence[Any], attempt: int | None, tool: str | None, reason: str | None, facts: Facts
    ) -> orjson.Fragment | None:
        """The column `metadata` as JSON; None where there is nothing to say."""
        key = (*values, attempt, tool, reason, facts)
        again = _PLAIN.issuperset(map(type, values))  # others may be equal and not the same, or be no keys
        if again and key in self._metadata:
            return self._metadata[key]
        kept = kept_metadata(self.shared, values, attempt=attempt, batch_size=1, tool=tool, reason=reason)
        if self.shared.unknown_keys:
            kept["unknown_keys"] = self.shared.unknown_keys
        found = orjson.Fragment(orjson.dumps(clean_metadata(kept, (), dict(facts)))) if kept or facts else None
        if again:
            if len(self._metadata) >= _MOST_METADATA:
                self._metadata.clear()
            self._metadata[key] = found
        return found


class _Model:
    """What calls share that were sent to one model and answered by one: these columns, and the prices."""

    __slots__ = ("columns", "facts", "models", "provider", "span")

    def __init__(self, columns: str, provider: str | None, models: tuple[str, ...], facts: Facts) -> None:
        self.columns = columns
        self.provider = provider
        self.models = models
        self.facts = facts
        self.span: PriceSpan | None = None


class StraightCall(NamedTuple):
    """A call on the straight way: whose it is, what it used and cost, and its row but for what it draws on grants."""

    id: str
    context: CallContext
    used: UsualUsage
    cost: Amounts
    columns: dict[str, Any]
    beginning: str

    def spent(self) -> Spent:
        """What it adds to the sums of its scopes."""
        return Spent(1, self.used.prompt, self.used.completion, self.cost.amount)

    def usage(self) -> TokenUsage:
        """What it used, as budgets look at it."""
        prompt, cache_read, completion, reasoning = self.used
        return TokenUsage(prompt, completion, cache_read, 0, 0, reasoning)

    def encoded(self, draws: Sequence[tuple[int, str]]) -> str:
        """The row's JSON, with what the call draws on its process's grants."""
        if draws:
            self.columns["draws"] = draws
        return self.beginning + orjson.dumps(self.columns)[1:].decode()


class StraightWay:
    """Makes the rows of usual calls. For one thread."""

    def __init__(self, spans: PriceSpans) -> None:
        self._spans = spans
        self._scopes: dict[bytes, _Scope] = {}
        self._models: dict[tuple[Any, ...], _Model] = {}
        self._second, self._as_text = -1, ""  # the last one

    def renew(self) -> None:
        """Take other prices where there are any; to be called before the calls of a batch."""
        if self._spans.renew():
            for model in self._models.values():
                model.span = None

    def call(self, record: LogRecord) -> StraightCall | None:
        """The call that a log record of the kind CALL holds; None where it has to go the long way."""
        lines = record.payload.split(b"\n")
        if len(lines) != 3:
            return None
        first, second, third = lines
        end = orjson.loads(third)
        if len(end) != _ENDS:
            return None
        (
            status,
            duration,
            ttft,
            _message_id,
            response,
            usage,
            token_usage,
            _estimate,
            error,
            answered_inside,
            _batch_reported,
            replaces_abandoned,
            notes,
            stopped_by,
            first_word,
            hidden,
            blocked_by,
        ) = end
        if (
            status != "ok"
            or error
            or answered_inside
            or replaces_abandoned
            or notes
            or stopped_by
            or hidden
            or blocked_by
        ):
            return None
        used, facts = usual_usage(usage, token_usage), usual_facts(response, token_usage)
        if used is None or facts is None:
            return None
        scope = self._scopes.get(first)
        if scope is None:
            scope = remember(self._scopes, first, _Scope(first))
        start = orjson.loads(second)
        values = start[_STARTS:]
        if not scope.usual or len(values) != len(scope.shared.names):
            return None
        (
            started,
            skew_s,
            call_type,
            run_id,
            parent_run_id,
            root_run_id,
            tool,
            trace_id,
            project,
            provider,
            sent,
            _prompt_bytes,
            batch_size,
            attempt,
            request_hash,
            tags,
            budget_action,
            throttled_ms,
            dearer,
            prefix_hashes,
            hashed_bytes,
        ) = start[:_STARTS]
        if batch_size != 1 or type(run_id) is not str or not is_usual(provider):
            return None
        reason = reason_of(response)
        if ttft is not None and reason is None and provider_id(provider) in ENDS_WITH_REASON:
            return None
        started += record.former_skew_s if skew_s is None else skew_s
        if not 0 <= started < _LATEST_S:
            return None
        moment, created_at = self._moment(started)
        answered = (response.get("model_name"), response.get("model"), response.get("model_id"))
        names = (call_type, provider, sent, dearer, facts, answered)
        model = self._models.get(names)
        if model is None:
            model = remember(self._models, names, _model(*names))
        span = model.span
        if span is None or not span.since <= moment < span.until:
            span = model.span = self._spans.at(model.provider, model.models, model.facts, moment)
        cost = span.cost(*used)
        if cost is None:
            return None
        id = str(uuid_utils.UUID(bytes=record.id))  # noqa: A001 - the column's name
        own: dict[str, Any] = {"run_id": clean_text(run_id)}
        if parent_run_id:
            own["parent_run_id"] = clean_text(parent_run_id)
        own["trace_id"] = clean_text(trace_id or root_run_id or parent_run_id or run_id)
        if project is not None:
            own["langsmith_project"] = clean_text(project)
        if budget_action is not None:
            own["budget_action"] = clean_text(budget_action)
        if request_hash is not None:
            own["request_hash"] = clean_text(request_hash)
        if prefix_hashes:
            own["prefix_hashes"] = prefix_hashes
            own["prompt_bytes"] = hashed_bytes
        own["prompt_tokens"] = used.prompt
        own["completion_tokens"] = used.completion
        own["total_tokens"] = used.prompt + used.completion
        if used.cache_read:
            own["cache_read_tokens"] = used.cache_read
        if used.reasoning:
            own["reasoning_tokens"] = used.reasoning
        own["priced"] = True
        own["input_cost"] = cost.input
        own["output_cost"] = cost.output
        own["fees"] = "0"
        own["total_cost"] = cost.total
        own["potential_cost"] = cost.potential
        own["price_version"] = span.version
        if (latency := duration_ms(duration)) is not None:
            own["latency_ms"] = latency
        if (first_token := duration_ms(ttft)) is not None:
            own["ttft_ms"] = first_token
        if (word := duration_ms(first_word)) is not None:
            own["first_word_ms"] = word
        if (throttled := duration_ms(throttled_ms)) is not None:
            own["throttled_ms"] = throttled
        if tags and (kept := row_tags(own_tags(tags))):
            own["tags"] = kept
        if metadata := scope.row_metadata(values, attempt, tool, reason, facts):
            own["metadata"] = metadata
        beginning = f'{scope.beginning}"id":"{id}","created_at":"{created_at}",{model.columns}'
        return StraightCall(id, scope.shared.context, used, cost, own, beginning)

    def _moment(self, seconds: float) -> tuple[int, str]:
        """An instant in microseconds since 1970, rounded as `datetime` rounds it, and in ISO format."""
        fraction, whole = modf(seconds)
        second, microsecond = int(whole), round(fraction * 1e6)
        if microsecond == 1_000_000:
            second, microsecond = second + 1, 0
        if second != self._second:
            self._second, self._as_text = second, datetime.fromtimestamp(second, UTC).isoformat()[:19]
        text = f"{self._as_text}.{microsecond:06d}+00:00" if microsecond else f"{self._as_text}+00:00"
        return second * 1_000_000 + microsecond, text


def _model(
    call_type: str, provider: str | None, sent: str | None, dearer: str | None, facts: Facts, answered: tuple[Any, ...]
) -> _Model:
    model = first_text(*answered) or sent
    columns = {
        "call_type": call_type,
        "status": "ok",
        "provider": clean_text(provider),
        "model": clean_text(model),
        "requested_model": clean_text(other_than(model, sent if dearer is None else dearer)),
        "sent_model": clean_text(other_than(model, sent)),
    }
    encoded = orjson.dumps({name: value for name, value in columns.items() if value is not None})
    models = tuple(name for name in (model, other_than(model, sent)) if name)
    return _Model(f"{encoded[1:-1].decode()},", provider, models, facts)
