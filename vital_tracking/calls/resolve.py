"""Makes the record of an observed call: what was used, what of it is billed, which model answered, what is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from vital_tracking.calls.attribution import graph_path
from vital_tracking.calls.names_of import model_of
from vital_tracking.calls.observed import ObservedCall, SharedFacts
from vital_tracking.calls.quirks import ASKED_FACTS, ENDS_WITH_REASON, FREE_REFUSALS, NOT_IN_FORCE
from vital_tracking.calls.usage_of import estimated_usage, reported_cost_of, usage_of
from vital_tracking.core.providers import provider_id
from vital_tracking.core.record import PRICE_FACTS, CallRecord
from vital_tracking.core.sanitize import clean_text
from vital_tracking.core.usage import TokenUsage

_INTERNAL_TAGS: Final = ("seq:step", "map:key", "graph:step", "langsmith:")
_MOST_OF_A_REASON: Final = 32
MOST_OF_A_FACT: Final = 32
_NOTHING: Final = TokenUsage()


class _Bill(NamedTuple):
    usage: TokenUsage
    billed: bool = True
    cache_hit: bool = False
    notes: tuple[str, ...] = ()


def record_of(call: ObservedCall) -> CallRecord:
    """The record of a call."""
    bill = _bill(call)
    model = _model(call)
    # A call that was stopped was never admitted, whatever its budgets had said of it before.
    admitted = call.stopped_by is None
    sent = call.requested_model
    requested = call.dearer_model if admitted and call.dearer_model is not None else sent
    run_id, error = _as_text(call.run_id), call.error
    return CallRecord(
        id=call.id,
        created_at=_moment(call.started),
        clocked=False,
        context=call.shared.context,
        provider=call.provider,
        model=model,
        requested_model=other_than(model, requested),
        sent_model=other_than(model, sent),
        call_type=call.call_type,
        run_id=run_id,
        parent_run_id=_as_text(call.parent_run_id) or None,
        # LangSmith's trace id is the id of the root run.
        trace_id=_as_text(call.trace_id) or _as_text(call.root_run_id) or _as_text(call.parent_run_id) or run_id,
        langsmith_project=call.project,
        usage=bill.usage,
        billed=bill.billed,
        status=call.status,
        error_type=error.name if error is not None and call.status != "ok" else None,
        latency_ms=None if "start_missed" in call.notes else call.duration_ms,
        ttft_ms=call.ttft_ms,
        first_word_ms=call.first_word_ms,
        cache_hit=bill.cache_hit,
        price_facts=_price_facts(call),
        reported_cost=_reported_cost(call) if bill.billed and not bill.cache_hit else None,
        budget_action=call.stopped_by or call.budget_action,
        blocked_by=call.blocked_by,
        throttled_ms=call.throttled_ms if admitted else None,
        request_hash=call.request_hash,
        prefix_hashes=tuple(call.prefix_hashes or ()),
        prompt_bytes=call.hashed_bytes if call.prefix_hashes else None,
        tags=own_tags(call.tags),
        metadata=_metadata(call),
        notes=bill.notes,
        replaces_abandoned=call.replaces_abandoned,
    )


def _moment(seconds: float) -> datetime:
    """When a call began; a number that is no time at all becomes one that the database cannot hold, which is seen to later."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC)


def own_tags(tags: Sequence[object] | None) -> list[str]:
    """A call's tags without those that LangChain and LangSmith add."""
    return [tag for tag in tags or () if isinstance(tag, str) and not tag.startswith(_INTERNAL_TAGS)]


def least_record_of(call: ObservedCall) -> CallRecord:
    """A minimal record, where the full one cannot be made: that the call was made, and its usage or the sizes of its texts."""
    prompt_bytes, answer_bytes, _ = _sizes(call)
    usage = None
    with suppress(Exception):
        usage = usage_of(call.provider, call.usage)
    return CallRecord(
        id=call.id,
        created_at=_moment(call.started),
        clocked=False,
        context=call.shared.context,
        provider=_text(call.provider),
        model=_text(call.requested_model),
        call_type=call.call_type,
        run_id=_as_text(call.run_id),
        usage=usage or estimated_usage(prompt_bytes, answer_bytes),
        billed=call.status != "blocked" and (call.error is None or not call.error.refused),
        status=call.status,
        cache_hit=from_cache(call.usage),
        notes=("shortened",) if usage or call.estimate or prompt_bytes else ("shortened", "usage_missing"),
        replaces_abandoned=call.replaces_abandoned,
    )


def run_key_of_message(message_id: str | None) -> int | None:
    """The key of the run that made a message, where LangChain gave the message its id: `lc_run--<run id>-<n>`."""
    if not isinstance(message_id, str) or not message_id.startswith("lc_run--"):
        return None
    try:
        return int(message_id[8:44].replace("-", ""), 16)
    except ValueError:
        return None


def _made_by_another(call: ObservedCall) -> bool:
    """Whether another run than this has made the message."""
    source = run_key_of_message(call.message_id)
    return source is not None and f"{source:032x}" != str(call.run_id).replace("-", "")


def _bill(call: ObservedCall) -> _Bill:
    """What was used, whether the provider billed it, whether a cache answered, and notes."""
    notes = tuple(call.notes)
    if call.status == "blocked":
        return _Bill(_NOTHING, billed=False, notes=notes)
    error = call.error
    model = _model(call)
    known = usage_of(call.provider, call.usage, call.token_usage, call.response, model)
    if known is None and _claims_counts(call.usage):
        notes = (*notes, "usage_invalid")
    if known is not None and "audio" in call.hidden and not (known.audio_input_tokens or "audio" in str(known.units)):
        known = known.with_notes("modality_hidden")
    if call.status == "ok":
        return _bill_of_success(call, known, notes)
    prompt_bytes, answer_bytes, thought_bytes = _sizes(call)
    if error is not None and call.status == "error":
        paid = usage_of(call.provider, None, error.usage, model=model) if error.usage is not None else None
        if paid is not None and paid.prompt_tokens and paid.completion_tokens and not _broken_off(call):
            return _Bill(paid, notes=notes)
        known = known or paid
        counted = known is not None and known.total_tokens > 0
        if known is not None and counted and (_finished(call.response) or not answer_bytes):
            return _Bill(known, notes=notes)
        came = answer_bytes or counted or error.answered or error.perhaps_billed
        if not came or (error.refused and not (answer_bytes or counted)):
            return _Bill(_NOTHING, billed=False, notes=notes)
    return _Bill(estimated_usage(prompt_bytes, answer_bytes, known, thought_bytes=thought_bytes), notes=notes)


def _bill_of_success(call: ObservedCall, known: TokenUsage | None, notes: tuple[str, ...]) -> _Bill:
    cached = from_cache(call.usage)
    if call.answered_inside and not cached:
        # A model that called another one and passed its answer on: the inner call carries the bill.
        return _Bill(_NOTHING, billed=False, notes=(*notes, "billed_by_inner_call"))
    if known is None and call.batch_size > 1 and call.batch_reported and call.token_usage == {}:
        # One request served the whole batch; its first run carries the usage of all.
        return _Bill(_NOTHING, notes=(*notes, "billed_with_batch"))
    prompt_bytes, answer_bytes, thought_bytes = _sizes(call)
    # Every request has a prompt, and every answer with text has tokens: counts of 0 are what an integration reports where the
    # provider sent no usage.
    whole = known is not None and known.prompt_tokens and "token_total_missing" not in known.notes
    if known is not None and not known.completion_tokens and not answer_bytes and _declined(call):
        return _Bill(_NOTHING, billed=False, notes=notes)
    ended = not _broken_off(call)
    if known is not None and whole and ended and (known.completion_tokens or not answer_bytes):
        return _Bill(known, cache_hit=cached, notes=notes)
    replayed = call.usage is None and call.token_usage is None and _made_by_another(call)
    usage = estimated_usage(prompt_bytes, answer_bytes, known, thought_bytes=thought_bytes, ended=ended)
    return _Bill(usage, cache_hit=cached or replayed, notes=notes)


def _sizes(call: ObservedCall) -> tuple[int, int, int]:
    """Bytes of the prompt's text, of the answer's, and of the thoughts in that, in place of token counts."""
    if call.estimate:
        prompt_bytes, answer_bytes, *thought_bytes = call.estimate
        return prompt_bytes, answer_bytes, thought_bytes[0] if thought_bytes else 0
    return (call.prompt_bytes or 0, 0, 0) if call.duration_ms is None else (0, 0, 0)


def _finished(response: Mapping[str, Any]) -> bool:
    """Whether the answer came to its end, so that its counts are no lower bound."""
    return bool(response.get("finish_reason") or response.get("stop_reason"))


def _declined(call: ObservedCall) -> bool:
    """Whether the provider declined the request, in an answer that says so."""
    reason = call.response.get("stop_reason")
    return reason is not None and reason == FREE_REFUSALS.get(provider_id(call.provider) or "")


def _broken_off(call: ObservedCall) -> bool:
    """Whether a stream ended before its answer did, so that its counts are those so far."""
    always_says = provider_id(call.provider) in ENDS_WITH_REASON
    return always_says and call.ttft_ms is not None and not _finished(call.response)


def _counts(call: ObservedCall) -> Mapping[str, Any]:
    """The provider's own counts, also where an error carried them."""
    return call.token_usage or (call.error.usage if call.error is not None else None) or {}


def _model(call: ObservedCall) -> str | None:
    """The model that answered, else the one that was sent."""
    return model_of(call.requested_model, {"model": _counts(call).get("model"), **call.response})


def _reported_cost(call: ObservedCall) -> Decimal | None:
    """What the provider itself says that the call cost."""
    return reported_cost_of(_counts(call), call.response)


def other_than(model: str | None, other: str | None) -> str | None:
    """Another model's name, None where it is the same as their columns will have it."""
    return None if other == model or clean_text(other) == clean_text(model) else other


def _price_facts(call: ObservedCall) -> dict[str, str]:
    """What else decides the price, as the answer says it, else as it was asked for where that holds."""
    counts = _counts(call)
    facts = {}
    for name in PRICE_FACTS:
        value = call.response.get(name) or counts.get(name)
        if value is None and name in ASKED_FACTS:
            value = call.response.get(f"asked_{name}")
        if not isinstance(value, str) or value in NOT_IN_FORCE or len(value) > MOST_OF_A_FACT:
            continue
        if text := clean_text(value):
            facts[name] = text
    return facts


def _metadata(call: ObservedCall) -> dict[str, Any]:
    kept = kept_metadata(
        call.shared,
        call.values,
        attempt=call.attempt,
        batch_size=call.batch_size,
        tool=call.tool,
        reason=reason_of(call.response),
    )
    if (error := call.error) is not None and call.status != "ok":
        if error.code:
            kept["error_code"] = error.code
        if error.status:
            kept["http_status"] = error.status
    if call.shared.unknown_keys:
        kept["unknown_keys"] = call.shared.unknown_keys
    return kept


def kept_metadata(
    shared: SharedFacts,
    values: Sequence[Any],
    *,
    attempt: int | None,
    batch_size: int,
    tool: str | None,
    reason: str | None,
) -> dict[str, Any]:
    """What is worth keeping of a call's metadata and of how it was made, but for what an error says and `unknown_keys`.

    `values` are those of its metadata in the order of the names in `shared`; `attempt`, `batch_size` and `tool` are the call's,
    `reason` is why its answer ended.
    """
    kept: dict[str, Any] = dict(shared.scope)
    for place, name in shared.stored:
        kept[name] = values[place]
    if shared.own >= 0 and isinstance(own := values[shared.own], Mapping):
        kept |= own
    if shared.namespace >= 0 and (path := graph_path(values[shared.namespace])):
        kept["langgraph_path"] = path
    if attempt is not None:
        kept["attempt"] = attempt
    if batch_size > 1:
        kept["batch_size"] = batch_size
    if tool is not None:
        kept["tool"] = tool
    if reason is not None:
        kept["finish_reason"] = reason
    return kept


def reason_of(response: Mapping[str, Any]) -> str | None:
    """Why an answer ended, in its provider's word."""
    reason = response.get("finish_reason") or response.get("stop_reason")
    return reason if isinstance(reason, str) and len(reason) <= _MOST_OF_A_REASON else None


def from_cache(usage: Mapping[str, Any] | None) -> bool:
    """Whether LangChain's cache answered: it sets the `total_cost` of the usage to 0."""
    cost = usage.get("total_cost") if isinstance(usage, Mapping) else None
    return type(cost) is int and cost == 0


def _claims_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether usage says anything of tokens; LangChain's cache makes one that says nothing but `total_cost`."""
    return usage is not None and bool(usage.keys() - {"total_cost"})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _as_text(value: object) -> str | None:
    return value if type(value) is str or value is None else str(value)
