"""Makes the record of a finished call: attribution, usage, model. Runs on the writer's thread."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from vital_tracking.calls.metadata_keys import MetadataKeys, remember, shape_of
from vital_tracking.calls.usage_of import (
    estimated_usage,
    longest_answer,
    model_of,
    provider_of,
    requested_model_of,
    usage_from_metadata,
    usage_from_token_usage,
)
from vital_tracking.core.admission import Request
from vital_tracking.core.context import METADATA_KEY, CallContext
from vital_tracking.core.frames import ScopeFrame, resolve
from vital_tracking.core.record import CallRecord
from vital_tracking.core.sanitize import clean_text, token_count
from vital_tracking.core.usage import TokenUsage

if TYPE_CHECKING:
    from vital_tracking.calls.live import LiveCall

# Metadata that LangChain and LangGraph add and that say something about cost; others only where the team allows them.
ALLOWED_METADATA: Final = frozenset(
    {
        "lc_agent_name",
        "langgraph_node",
        "langgraph_step",
        "langgraph_checkpoint_ns",
        "ls_max_tokens",
        "ls_temperature",
        "thread_id",
    }
)
_INTERNAL_TAGS: Final = ("seq:step", "map:key", "graph:step", "langsmith:")


class _Bill(NamedTuple):
    usage: TokenUsage
    billed: bool = True
    cache_hit: bool = False
    notes: tuple[str, ...] = ()


def record_of(call: LiveCall) -> CallRecord:
    """The record of a finished call."""
    metadata = call.metadata
    model, requested = model_of(metadata, call.params, call.response)
    run_id = run_id_of(call)
    bill = _bill(call)
    error = call.error
    ended = call.ended if call.ended is not None else call.touched
    admission = call.admission
    if admission is not None and admission.requested_model is not None:
        requested = admission.requested_model
    return CallRecord(
        id=str(call.id),
        created_at=datetime.fromtimestamp(call.started, UTC),
        clocked=call.clocked,
        context=call.context or call_context(call),
        provider=provider_of(metadata, call.params, call.serialized),
        model=model,
        requested_model=requested if requested != model else None,
        call_type=call.call_type,
        run_id=run_id,
        parent_run_id=str(call.parent_run_id) if call.parent_run_id else None,
        trace_id=trace_id_of(call, run_id),
        langsmith_project=project_of(call),
        usage=bill.usage,
        billed=bill.billed,
        status=call.status,
        error_type=error.name if error is not None and call.status != "ok" else None,
        latency_ms=None if call.lost or "start_missed" in call.notes else (ended - call.started_clock) * 1000,
        ttft_ms=None if call.first_token is None else (call.first_token - call.started_clock) * 1000,
        cache_hit=bill.cache_hit,
        service_tier=_text(call.response.get("service_tier")),
        budget_action=admission.action if admission is not None else None,
        throttled_ms=admission.throttled_ms if admission is not None else None,
        hold=call.hold,
        request_hash=call.hash,
        tags=[tag for tag in call.tags or () if isinstance(tag, str) and not tag.startswith(_INTERNAL_TAGS)],
        metadata=_metadata(call),
        notes=bill.notes,
        replaces_abandoned=call.replaces_abandoned,
    )


def request_of(call: LiveCall) -> Request:
    """What a call asks of the budgets before it is made."""
    metadata, params, messages = call.metadata, call.params, call.messages or ()
    return Request(
        context=call.context or call_context(call),
        provider=provider_of(metadata, params, call.serialized),
        model=requested_model_of(metadata, params),
        prompt_bytes=call.prompt_size(),
        messages=sum([len(part) if isinstance(part, list) else 1 for part in messages]),
        max_tokens=longest_answer(metadata, params),
        answers=token_count(params.get("n")) or 1,
        tools=params.get("tools"),
    )


def shortest_record_of(call: LiveCall) -> CallRecord:
    """What is known of a call for sure, where making its record failed: that it was, and its usage or the sizes of its texts."""
    usage = None
    with suppress(Exception):
        usage = usage_from_metadata(call.usage)
    return CallRecord(
        id=str(call.id),
        created_at=datetime.fromtimestamp(call.started, UTC),
        clocked=call.clocked,
        context=call.context or (call.frame.context if call.frame is not None else call.default or CallContext()),
        provider=_text(call.metadata.get("ls_provider")),
        model=_text(call.metadata.get("ls_model_name")),
        call_type=call.call_type,
        run_id=run_id_of(call),
        usage=usage or estimated_usage(*(call.estimate or (0, 0))),
        billed=call.status != "blocked" and (call.error is None or not call.error.refused),
        status=call.status,
        hold=call.hold,
        cache_hit=_from_cache(call),
        notes=("shortened",) if usage or call.estimate else ("shortened", "usage_missing"),
        replaces_abandoned=call.replaces_abandoned,
    )


def run_id_of(call: LiveCall) -> str:
    """The run's id as text; a run id that was no UUID is its own text."""
    return str(UUID(int=call.key)) if type(call.key) is int else str(call.key)


def run_key_of_message(message_id: str | None) -> int | None:
    """The key of the run that made a message, where LangChain gave the message its id: `lc_run--<run id>-<n>`."""
    if not isinstance(message_id, str) or not message_id.startswith("lc_run--"):
        return None
    try:
        return int(message_id[8:44].replace("-", ""), 16)
    except ValueError:
        return None


def _made_by_another(call: LiveCall) -> bool:
    """Whether another run than this has made the message."""
    source = run_key_of_message(call.message_id)
    return source is not None and f"{source:032x}" != run_id_of(call).replace("-", "")


def _bill(call: LiveCall) -> _Bill:
    """What was used, whether the provider billed it, whether a cache answered, and notes."""
    if call.status == "blocked":
        return _Bill(TokenUsage(), billed=False, notes=call.notes)
    known = usage_from_metadata(call.usage)
    if known is None and call.error is not None:
        known = call.error.usage
    notes = call.notes if known is not None or not _claims_counts(call.usage) else (*call.notes, "usage_invalid")
    prompt_bytes, answer_bytes = call.estimate or (0, 0)
    if call.status == "ok":
        return _bill_of_success(call, known, notes)
    error = call.error
    if error is not None and call.status == "error":
        if known is not None and known.total_tokens:
            return _Bill(known, notes=notes)
        if error.refused or not (answer_bytes or error.perhaps_billed):
            return _Bill(TokenUsage(), billed=False, notes=notes)
    return _Bill(estimated_usage(prompt_bytes, answer_bytes, known), notes=notes)


def _bill_of_success(call: LiveCall, known: TokenUsage | None, notes: tuple[str, ...]) -> _Bill:
    cached = _from_cache(call)
    if call.inner and not cached:
        # A model that asked another one inside and handed its answer on: the inner call carries the bill.
        return _Bill(TokenUsage(), billed=False, notes=(*notes, "billed_by_inner_call"))
    if known is None and call.token_usage is not None:
        if not call.token_usage and call.batch_size > 1 and call.batch_reported:
            # One request served the whole batch; its first run carries the usage of all.
            return _Bill(TokenUsage(), notes=(*notes, "billed_with_batch"))
        known = usage_from_token_usage(call.token_usage)
    prompt_bytes, answer_bytes = call.estimate or (0, 0)
    # No request has an empty prompt, and no answer with text took no tokens: such counts are what an integration makes of a
    # usage that never came.
    whole = known is not None and known.prompt_tokens and "token_total_missing" not in known.notes
    if known is not None and whole and (known.completion_tokens or not answer_bytes):
        return _Bill(known, cache_hit=cached, notes=notes)
    replayed = call.usage is None and call.token_usage is None and _made_by_another(call)
    usage = estimated_usage(prompt_bytes, answer_bytes, known, ended=True)
    return _Bill(usage, cache_hit=cached or replayed, notes=notes)


def call_context(call: LiveCall) -> CallContext:
    """Who and what a call is for."""
    in_tool = call.run is not None and call.run.tool is not None
    shape = call.shape = shape_of(call.allowed, call.metadata)
    return context_of(call.default or _NOBODY, call.frame, call.marked, call.metadata, shape, in_tool=in_tool)


def context_of(
    default: CallContext,
    frame: ScopeFrame | None,
    marked: ScopeFrame | None,
    metadata: Mapping[str, Any],
    shape: MetadataKeys,
    *,
    in_tool: bool,
) -> CallContext:
    """Who and what a call with such metadata is for. Calls of one scope that say the same themselves share one context."""
    own = shape.owners(metadata)
    if not (marked is frame or marked is None) or not HASHED_AS_THEY_ARE.issuperset(map(type, own)):
        return _context_of(default, frame, marked, metadata, in_tool)
    known = frame.known if frame is not None else _known_of(default)
    key = (shape, in_tool, marked is None, own)
    context = known.get(key)
    if context is None:
        context = remember(known, key, _context_of(default, frame, marked, metadata, in_tool))
    return context


_NOBODY: Final = CallContext()
HASHED_AS_THEY_ARE: Final = frozenset({str, int, type(None)})  # True is 1 as a key, and no position
_outside: dict[int, tuple[CallContext, dict[object, CallContext]]] = {}


def _known_of(default: CallContext) -> dict[object, CallContext]:
    """The contexts of calls outside of scopes, of a tracker with such a default."""
    known = _outside.get(id(default))
    if known is None or known[0] is not default:
        known = remember(_outside, id(default), (default, {}))
    return known[1]


def _context_of(
    default: CallContext,
    frame: ScopeFrame | None,
    marked: ScopeFrame | None,
    metadata: Mapping[str, Any],
    in_tool: bool,
) -> CallContext:
    """See `context.resolve`, and what LangGraph and LangChain say."""
    context = resolve(default, frame, marked, metadata)
    node = metadata.get("langgraph_node")
    framework = "langgraph" if node is not None else "langchain"
    message_type = "tool_execution" if in_tool else "chat"
    gaps = (clean_text(node), clean_text(metadata.get("thread_id")), clean_text(metadata.get("lc_agent_name")))
    return _filled(context, *gaps, framework, message_type)


def _filled(
    context: CallContext, node: str | None, thread: str | None, agent: str | None, framework: str, message_type: str
) -> CallContext:
    """The context with its gaps filled by what LangGraph and LangChain say of the call."""
    gaps: dict[str, Any] = {}
    if context.workflow_step is None and node is not None:
        gaps["workflow_step"] = node
    if context.session_id is None and thread is not None:
        gaps["session_id"] = thread
    if context.agent_id is None and agent is not None:
        gaps |= {"agent_id": agent, "agent_name": agent}
    if context.framework is None:
        gaps["framework"] = framework
    if context.message_type is None:
        gaps["message_type"] = message_type
    return context.replace(gaps)


def _metadata(call: LiveCall) -> dict[str, Any]:
    metadata = call.metadata
    kept: dict[str, Any] = dict(call.scope_metadata)
    kept |= {key: metadata[key] for key in metadata.keys() & call.allowed}
    own = metadata.get(METADATA_KEY)
    if isinstance(own, Mapping):
        kept |= own
    if path := _graph_path(metadata.get("langgraph_checkpoint_ns")):
        kept["langgraph_path"] = path
    if call.attempt is not None:
        kept["attempt"] = call.attempt
    if call.batch_size > 1:
        kept["batch_size"] = call.batch_size
    if call.run is not None and call.run.tool is not None:
        kept["tool"] = call.run.tool
    reason = call.response.get("finish_reason") or call.response.get("stop_reason")
    if isinstance(reason, str) and len(reason) <= 32:
        kept["finish_reason"] = reason
    if call.error is not None and call.status != "ok":
        if call.error.code:
            kept["error_code"] = call.error.code
        if call.error.status:
            kept["http_status"] = call.error.status
    if call.unknown_keys:
        kept["unknown_keys"] = call.unknown_keys
    return kept


def trace_id_of(call: LiveCall, run_id: str) -> str:
    """LangSmith's trace id, which is the id of the root run."""
    if call.tree is not None and call.tree[0] is not None:
        return str(call.tree[0])
    if call.run is not None:
        return str(call.run.root)
    return str(call.parent_run_id) if call.parent_run_id else run_id


def project_of(call: LiveCall) -> str | None:
    """LangSmith's project, where its tracing is on."""
    if call.tree is not None and call.tree[1] is not None:
        return str(call.tree[1]) or None
    global _tracing  # noqa: PLW0603 - looked up once a second, for all calls
    now = monotonic()
    known, project = _tracing
    if now - known >= 1.0:
        utils = sys.modules.get("langsmith.utils")
        on = utils is not None and utils.tracing_is_enabled()
        project = _text(utils.get_tracer_project()) if on and utils is not None else None
        _tracing = (now, project)
    return project


# When the project that LangSmith's environment names while its tracing is on was looked up, and what it was.
_tracing: tuple[float, str | None] = (float("-inf"), None)


def _from_cache(call: LiveCall) -> bool:
    """Whether LangChain's cache answered: it sets `total_cost` to 0."""
    cost = call.usage.get("total_cost") if isinstance(call.usage, Mapping) else None
    return type(cost) is int and cost == 0


def _claims_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether usage says anything of tokens; LangChain's cache makes one that says nothing but `total_cost`."""
    return usage is not None and bool(usage.keys() - {"total_cost"})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _graph_path(namespace: object) -> str | None:
    """`sub:<id>|leaf:<id>` as `sub/leaf`: the nodes from the outermost graph to the innermost."""
    if not isinstance(namespace, str) or not namespace:
        return None
    return "/".join(part.partition(":")[0] for part in namespace.split("|"))
