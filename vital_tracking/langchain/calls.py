"""One call from its start to its end: what is noted in the caller's thread, and the record made of it behind.

The caller's thread only keeps references and reads clocks; everything that can wait is done in `OpenCall.record`, which the
writer's thread calls. No text is kept past the end of the call: of prompts and completions only sizes go on.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast
from uuid import UUID
from weakref import ref

import uuid_utils

from vital_tracking.context import METADATA_KEY, CallContext, Frame, resolve, unknown_keys
from vital_tracking.langchain.extract import (
    ErrorFacts,
    estimated_usage,
    model_of,
    provider_of,
    text_size,
    usage_from_metadata,
    usage_from_token_usage,
)
from vital_tracking.usage import MAX_TOKENS, CallRecord, CallType, Status, TokenUsage

_EMPTY: Final[Mapping[str, Any]] = {}

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


class Run:
    """A run around calls: the root of its tree, and the tool it is in, if any."""

    __slots__ = ("root", "tool")

    def __init__(self, root: UUID, tool: str | None) -> None:
        self.root = root
        self.tool = tool


class OpenCall:
    """The state of one call by its run. Times: `started` is wall time in seconds, the others a monotonic clock's seconds."""

    __slots__ = (
        "allowed",
        "attempt",
        "batch_size",
        "below",
        "call_type",
        "default",
        "echoes",
        "ended",
        "error",
        "estimate",
        "event_bytes",
        "finish",
        "first_token",
        "frame",
        "hash",
        "id",
        "key",
        "llm_output",
        "marked",
        "message_id",
        "messages",
        "metadata",
        "notes",
        "orphaned",
        "params",
        "parent_run_id",
        "ref",
        "replaces_abandoned",
        "response",
        "run",
        "serialized",
        "started",
        "started_clock",
        "status",
        "streamed_bytes",
        "tags",
        "touched",
        "tree",
        "usage",
        "vanished",
    )

    def __init__(
        self,
        key: int,
        call_type: CallType,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any] | None,
        parent_run_id: UUID | None,
        tags: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        batch_size: int,
    ) -> None:
        self.key = key
        self.id = uuid_utils.uuid7()
        self.call_type: CallType = call_type
        self.serialized = serialized
        self.messages = messages
        self.parent_run_id = parent_run_id
        self.tags = tags
        self.metadata = metadata or _EMPTY
        self.params = params
        self.batch_size = batch_size
        self.default: CallContext | None = None
        self.frame: Frame | None = None
        self.marked: Frame | None = None
        self.allowed: frozenset[str] = ALLOWED_METADATA
        self.run: Run | None = None
        self.tree: Any = None
        self.attempt: int | None = None
        self.below: OpenCall | None = None
        self.echoes = 0
        self.ref: ref[UUID] | None = None
        self.vanished: deque[int]
        self.hash: str | None = None
        self.first_token: float | None = None
        self.streamed_bytes = 0
        self.event_bytes = 0
        self.usage: Mapping[str, Any] | None = None
        self.response: Mapping[str, Any] = _EMPTY
        self.llm_output: Mapping[str, Any] | None = None
        self.message_id: str | None = None
        self.finish: str | None = None
        self.error: ErrorFacts | None = None
        self.status: Status = "ok"
        self.estimate: tuple[int, int] | None = None
        self.notes: tuple[str, ...] = ()
        self.replaces_abandoned = False
        self.orphaned: float | None = None
        self.ended: float | None = None
        self.started = time.time()
        self.started_clock = self.touched = time.perf_counter()

    # In the caller's thread.

    def vanish(self, _gone: object) -> None:
        """The run's id object was collected, perhaps in the middle of anything: only leave word."""
        self.vanished.append(self.key)

    def token(self, token: object, chunk: object) -> None:
        """Note a streamed token: when the first came that was not empty, and how much came."""
        if token:
            now = time.perf_counter()
            if self.first_token is None:
                self.first_token = now
            self.touched = now
            self.streamed_bytes += len(token) if isinstance(token, str) else text_size(token)
        elif self.first_token is None and chunk is not None:
            message = getattr(chunk, "message", None)
            if getattr(message, "content", None) or getattr(message, "tool_call_chunks", None):
                self.first_token = self.touched = time.perf_counter()

    def stream_event(self, event: Mapping[str, Any]) -> None:
        """Note an event of a v3 stream: its first delta, and the usage that comes with its last message."""
        kind = event.get("event")
        if kind == "content-block-delta":
            delta = event.get("delta")
            size = text_size(delta if isinstance(delta, Mapping) else None) or text_size(
                [delta[name] for name in ("reasoning", "fields") if name in delta]
                if isinstance(delta, Mapping)
                else None
            )
            if size:
                self.touched = now = time.perf_counter()
                if self.first_token is None:
                    self.first_token = now
                self.event_bytes += size  # apart from the tokens: most models send the same text as both
        elif kind == "message-finish":
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                self.usage = dict(usage)

    def end(self, response: Any) -> None:
        """Take from the result what is needed, as it stands now: a cache may change it later."""
        self.ended = time.perf_counter()
        self.status = "ok"  # a parent that ended first has guessed otherwise
        self._take(response)
        if not _holds_counts(self.usage):
            self._measure(response)

    def fail(self, error: BaseException, response: Any = None) -> None:
        """Take from an error, and from the part of a result that came before it, what is needed."""
        self.ended = time.perf_counter()
        self.error = facts = ErrorFacts(error)
        finished = self.usage is not None
        if response is not None:
            self._take(response)
        if facts.hung_up and finished:
            self.status = "ok"
            return  # a v3 stream whose loop closed right after its message was complete
        self.status = "cancelled" if facts.hung_up else "error"
        self._measure(response)

    def give_up(self, status: Status) -> None:
        """End a call of which no end will come."""
        self.ended = time.perf_counter()
        self.status = status
        self._measure(None)

    def _take(self, response: Any) -> None:
        generations = getattr(response, "generations", None)
        first = generations[0][0] if generations and generations[0] else None
        message = getattr(first, "message", None)
        if message is not None:
            usage = getattr(message, "usage_metadata", None)
            if isinstance(usage, Mapping):
                self.usage = dict(usage)
            self.response = getattr(message, "response_metadata", None) or _EMPTY
            self.message_id = getattr(message, "id", None)
        else:
            self.response = getattr(first, "generation_info", None) or _EMPTY
        output = getattr(response, "llm_output", None)
        self.llm_output = output if isinstance(output, Mapping) else None

    def _measure(self, response: Any) -> None:
        """Take the sizes of texts, for want of counts."""
        generations = getattr(response, "generations", None) if response is not None else None
        size = text_size(generations) if generations else 0
        self.estimate = (text_size(self.messages), max(size, self.streamed_bytes, self.event_bytes))

    # In the writer's thread.

    def record(self) -> CallRecord:
        """The record of this call."""
        metadata = self.metadata
        params = self.params or _EMPTY
        response: dict[str, Any] = dict(self.llm_output or {}) | dict(self.response)
        model, requested = model_of(metadata, params, response)
        run_id = str(UUID(int=self.key)) if type(self.key) is int else str(self.key)
        usage, billed, cache_hit, notes = self._usage(run_id)
        run = self.run
        context = self._context(run)
        error = self.error
        ended = self.ended if self.ended is not None else self.touched
        return CallRecord(
            id=str(self.id),
            created_at=datetime.fromtimestamp(self.started, UTC),
            context=context,
            provider=provider_of(metadata, params, self.serialized),
            model=model,
            requested_model=requested if requested != model else None,
            call_type=self.call_type,
            run_id=run_id,
            parent_run_id=str(self.parent_run_id) if self.parent_run_id else None,
            trace_id=self._trace_id(run_id),
            langsmith_project=self._project(),
            usage=usage,
            billed=billed,
            status=self.status,
            error_type=error.name if error is not None and self.status != "ok" else None,
            latency_ms=None if "start_missed" in self.notes else (ended - self.started_clock) * 1000,
            ttft_ms=None if self.first_token is None else (self.first_token - self.started_clock) * 1000,
            cache_hit=cache_hit,
            service_tier=_text_or_none(response.get("service_tier")),
            request_hash=self.hash,
            tags=[tag for tag in self.tags or () if isinstance(tag, str) and not tag.startswith(_INTERNAL_TAGS)],
            metadata=self._metadata(response, run),
            notes=notes,
            replaces_abandoned=self.replaces_abandoned,
        )

    def _usage(self, run_id: str) -> tuple[TokenUsage, bool, bool, tuple[str, ...]]:
        """The usage, whether it was billed, whether a cache answered, and notes."""
        known = usage_from_metadata(self.usage)
        if known is None and self.error is not None:
            known = self.error.usage
        notes = self.notes if known is not None or not _claims_counts(self.usage) else (*self.notes, "usage_invalid")
        if self.status == "ok":
            zero = self.usage.get("total_cost") if self.usage is not None else None
            cached = type(zero) is int and zero == 0
            token_usage = (self.llm_output or _EMPTY).get("token_usage")
            if known is None and isinstance(token_usage, Mapping):
                if not token_usage and self.batch_size > 1:
                    # One request served the whole batch; its first run carries the usage of all.
                    return TokenUsage(), True, False, (*notes, "billed_with_batch")
                known = usage_from_token_usage(token_usage)
            if known is not None and known.total_tokens and "token_total_missing" not in known.notes:
                return known, True, cached, notes
            # No request has no tokens at all: zeros are what an integration makes of a usage that never came.
            replayed = self.usage is None and not self.llm_output and _of_another_run(self.message_id, run_id)
            return estimated_usage(*(self.estimate or (0, 0)), known), True, cached or replayed, notes
        error = self.error
        prompt_bytes, completion_bytes = self.estimate or (0, 0)
        if error is not None and self.status == "error":
            if known is not None and known.total_tokens:
                return known, True, False, notes
            if error.refused or not (completion_bytes or error.perhaps_billed):
                return TokenUsage(), False, False, notes
        return estimated_usage(prompt_bytes, completion_bytes, known), True, False, notes

    def _context(self, run: Run | None) -> CallContext:
        metadata = self.metadata
        context = resolve(self.default or CallContext(), self.frame, self.marked, metadata)
        node = metadata.get("langgraph_node")
        framework = "langgraph" if node is not None else "langchain"
        message_type = "tool_execution" if run is not None and run.tool is not None else "chat"
        gaps = (node, metadata.get("thread_id"), metadata.get("lc_agent_name"), framework, message_type)
        try:
            return _known_filled(context, *gaps)
        except TypeError:  # somebody's metadata hold what cannot be hashed
            return _filled(context, *gaps)

    def _metadata(self, response: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
        metadata = self.metadata
        kept: dict[str, Any] = dict(self.frame.metadata) if self.frame is not None else {}
        kept |= {key: metadata[key] for key in metadata.keys() & self.allowed}
        own = metadata.get(METADATA_KEY)
        if isinstance(own, Mapping):
            kept |= own
        if path := _graph_path(metadata.get("langgraph_checkpoint_ns")):
            kept["langgraph_path"] = path
        if self.attempt is not None:
            kept["attempt"] = self.attempt
        if self.batch_size > 1:
            kept["batch_size"] = self.batch_size
        if run is not None and run.tool is not None:
            kept["tool"] = run.tool
        reason = response.get("finish_reason") or response.get("stop_reason")
        if isinstance(reason, str) and len(reason) <= 32:
            kept["finish_reason"] = reason
        if self.error is not None and self.status != "ok":
            if self.error.code:
                kept["error_code"] = self.error.code
            if self.error.status:
                kept["http_status"] = self.error.status
        if unknown := unknown_keys(metadata):
            kept["unknown_keys"] = unknown
        return kept

    def _trace_id(self, run_id: str) -> str:
        tree = self.tree
        if tree is not None and (trace := getattr(tree, "trace_id", None)) is not None:
            return str(trace)
        if self.run is not None:
            return str(self.run.root)
        return str(self.parent_run_id) if self.parent_run_id else run_id

    def _project(self) -> str | None:
        """LangSmith's project, where its tracing is on."""
        if self.tree is not None and (name := getattr(self.tree, "session_name", None)):
            return cast("str", name)
        return _tracing_project(int(time.monotonic()))


@lru_cache(maxsize=1)
def _tracing_project(_second: int) -> str | None:
    """The project that LangSmith's environment names while its tracing is on; looked up once a second."""
    utils = sys.modules.get("langsmith.utils")
    if utils is None or not utils.tracing_is_enabled():
        return None
    return _text_or_none(utils.get_tracer_project())


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


# Calls of one scope, node and thread share one context.
_known_filled = lru_cache(maxsize=2048)(_filled)


def _holds_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether usage holds both counts, at a glance; where it does not, sizes are taken to estimate by."""
    return (
        usage is not None
        and type(prompt := usage.get("input_tokens")) is int
        and type(completion := usage.get("output_tokens")) is int
        and 0 < prompt <= MAX_TOKENS
        and 0 <= completion <= MAX_TOKENS
    )


def _claims_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether usage says anything of tokens; LangChain's cache makes one that says nothing but `total_cost`."""
    return usage is not None and bool(usage.keys() - {"total_cost"})


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _of_another_run(message_id: str | None, run_id: str) -> bool:
    return isinstance(message_id, str) and message_id.startswith("lc_run--") and run_id not in message_id


def _graph_path(namespace: object) -> str | None:
    """`sub:<id>|leaf:<id>` as `sub/leaf`: the nodes from the outermost graph to the innermost."""
    if not isinstance(namespace, str) or not namespace:
        return None
    return "/".join(part.partition(":")[0] for part in namespace.split("|"))
