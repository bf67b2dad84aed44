"""One call while it runs: what the callbacks report of it, noted in the caller's thread.

In that thread little is done: references are kept and clocks are read. Of prompts and answers only sizes and a few named fields
are taken; no text is kept past the end of the call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID
from weakref import ref

import uuid_utils

from vital_tracking.calls.answer import holds_counts, read_answer
from vital_tracking.calls.asked import (
    asked_cache,
    asked_facts,
    hidden_modalities,
    hides_cache_times,
    media_tokens,
    schema_size,
)
from vital_tracking.calls.attribution import ALLOWED_METADATA, NOBODY, context_of, langsmith_project
from vital_tracking.calls.error_facts import ErrorFacts
from vital_tracking.calls.hashes import Prefix
from vital_tracking.calls.metadata_keys import MetadataKeys, metadata_keys, storable
from vital_tracking.calls.names_of import longest_answer, provider_of, requested_model_of
from vital_tracking.calls.observed import ObservedCall, SharedFacts
from vital_tracking.calls.run import Run
from vital_tracking.calls.running_usage import RunningUsage
from vital_tracking.calls.texts import prompt_size, text_size, thought_size
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import ScopeFrame
from vital_tracking.core.record import HUNG_UP, CallType, Status
from vital_tracking.core.sanitize import token_count
from vital_tracking.errors import BudgetExceeded

_EMPTY: Final[Mapping[str, Any]] = {}
_NO_BUDGETS: Final = (None, None, None)
_NO_PREFIX: Final = (None, None)

# The admissions that a guard has obtained for the calls that it is about to start in this context, in their order.
admitted: ContextVar[deque[Admission] | None] = ContextVar("vital_tracking_admitted", default=None)

# Only these parameters of a request are kept; others may hold text.
_PARAMETERS: Final = ("model", "model_name", "model_id", "_type")

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_MOST_TAGS: Final = 32


class LiveCall:
    """The state of one call. `started` is wall time in seconds; other times are seconds of a monotonic clock."""

    __slots__ = (
        "admission",
        "allowed",
        "asked",
        "attempt",
        "batch_reported",
        "batch_size",
        "below",
        "blocked_by",
        "call_type",
        "cancelled_on_waking",
        "context",
        "default",
        "echoes",
        "ended",
        "error",
        "estimate",
        "event_bytes",
        "first_token",
        "first_word",
        "frame",
        "hash",
        "hidden",
        "id",
        "inner",
        "key",
        "keys",
        "langsmith",
        "last_held",
        "marked",
        "message_id",
        "messages",
        "metadata",
        "notes",
        "orphaned",
        "packed_start",
        "params",
        "parent_run_id",
        "prefix",
        "ref",
        "replaces_abandoned",
        "response",
        "run",
        "running",
        "serialized",
        "shadow",
        "size",
        "skew_s",
        "started",
        "started_clock",
        "status",
        "streamed_bytes",
        "tags",
        "task",
        "thought_bytes",
        "token_usage",
        "touched",
        "tree",
        "usage",
        "vanished",
        "waiter",
    )

    def __init__(
        self,
        key: int,
        call_type: CallType,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any] | None,
        parent_run_id: Any,
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
        self.params = params or _EMPTY
        self.batch_size = batch_size
        self.batch_reported = True
        self.blocked_by: Mapping[str, object] | None = None
        self.default = NOBODY
        self.frame: ScopeFrame | None = None
        self.marked: ScopeFrame | None = None
        self.allowed: frozenset[str] = ALLOWED_METADATA
        self.keys: MetadataKeys | None = None  # of its metadata, once they were looked up
        self.packed_start: bytes | None = None  # its start as it went to the spool
        self.size: int | None = None  # of the prompt's text, in bytes
        self.skew_s: float | None = None  # what its time is corrected by; set once, when it is first written
        self.run: Run | None = None
        self.langsmith: tuple[Any, Any] | None = None  # the trace id and the project of its run tree
        self.tree: ref[Any] | None = None  # LangSmith's run tree around it
        self.task: ref[Any] | None = None  # the asyncio task that it began in
        self.cancelled_on_waking = False  # its task was cancelled between the end of that wait and its next step
        self.last_held: ref[UUID] | None = None  # tells in which thread its run's id was held last
        self.waiter: Any = None  # the future on which its task waited while it was started in a thread
        self.attempt: int | None = None
        self.below: LiveCall | None = None
        self.asked: Request | None = None  # what it asks of the budgets, once that was made up
        self.admission: Admission | None = None
        self.context: CallContext | None = None
        self.echoes = 0
        self.ref: ref[UUID] | None = None
        self.vanished: deque[int]
        self.hash: str | None = None
        self.prefix: Prefix | None = None
        self.shadow: Callable[[LiveCall], None] | None = None  # what is to be done once it has its answer
        self.first_token: float | None = None
        self.first_word: float | None = None
        self.running: RunningUsage | None = None
        self.thought_bytes = 0
        self.hidden: tuple[str, ...] = ()
        self.streamed_bytes = 0
        self.event_bytes = 0
        self.usage: Mapping[str, Any] | None = None
        self.token_usage: Mapping[str, Any] | None = None
        self.response: Mapping[str, Any] = _EMPTY
        self.message_id: str | None = None
        self.inner = False
        self.error: ErrorFacts | None = None
        self.status: Status = "ok"
        self.estimate: tuple[int, int, int] | None = None
        self.notes: tuple[str, ...] = ()
        self.replaces_abandoned = False
        self.orphaned: float | None = None
        self.ended: float | None = None
        self.started = time.time()
        self.started_clock = self.touched = time.perf_counter()

    @property
    def hold(self) -> Any:
        """What its budgets had set aside for it, or None."""
        return self.admission.hold if self.admission is not None else None

    @property
    def not_made(self) -> bool:
        """Whether its task was cancelled while it waited for the start, which ran in a thread: the model was never asked."""
        return self.waiter is not None and (self.cancelled_on_waking or self.waiter.cancelled())

    @property
    def scope_metadata(self) -> Mapping[str, Any]:
        """The metadata of the scope that the call is in."""
        return self.frame.metadata if self.frame is not None else _EMPTY

    def prompt_size(self) -> int:
        """Bytes of UTF-8 in the prompt's text."""
        if self.size is None:
            self.size = prompt_size(self.messages)
        return self.size

    def vanish(self, _gone: object) -> None:
        """The run's id object was collected, perhaps while other code of ours runs: only note the time and the key."""
        self.ended = time.perf_counter()
        self.vanished.append(self.key)

    def outlived(self) -> Status | None:
        """How the call must have ended, where what it began in (LangSmith's run, a task) has ended without a word of it."""
        ends: list[Status] = []
        if self.task is not None and ((task := self.task()) is None or task.done()):
            ends.append("cancelled" if task is None or task.cancelled() else "abandoned")
        if self.tree is not None and ((tree := self.tree()) is None or tree.end_time is not None):
            hung_up = tree is not None and str(tree.error or "").partition("(")[0] in HUNG_UP
            ends.append("cancelled" if hung_up else "abandoned")
        return None if not ends else "cancelled" if "cancelled" in ends else "abandoned"

    def token(self, token: object, chunk: object) -> None:
        """Note a streamed token: when the first came, when the first that was no thought, and how much came."""
        running = self.running = self.running or RunningUsage()
        if running.looks and chunk is not None:
            running.look(chunk)
        if token:
            now = self.touched = time.perf_counter()
            size = text_size(token)
            self.streamed_bytes += size
            if self.first_word is None:
                if type(token) is list and (thought := thought_size(token)):
                    self.thought_bytes += thought
                    if thought == size:
                        self.first_token = self.first_token or now
                        return
                self.first_word = now
                self.first_token = self.first_token or now
        elif chunk is not None and self.first_word is None:
            message = getattr(chunk, "message", None)
            if thought := thought_size(getattr(message, "additional_kwargs", None)):
                self.streamed_bytes += thought
                self.thought_bytes += thought
                self.touched = time.perf_counter()
                self.first_token = self.first_token or self.touched
            elif getattr(message, "content", None) or getattr(message, "tool_call_chunks", None):
                self.first_word = self.touched = time.perf_counter()
                self.first_token = self.first_token or self.touched

    def stream_event(self, event: Mapping[str, Any]) -> None:
        """Note an event of a v3 stream: its first delta, and the usage that comes with its last message."""
        kind = event.get("event")
        if kind == "content-block-delta":
            delta = event.get("delta")
            if not isinstance(delta, Mapping):
                return
            size = text_size(delta) or text_size(delta.get("fields"))
            if size:
                self.touched = now = time.perf_counter()
                self.event_bytes += size  # apart from the tokens: most models send the same text as both
                self.first_token = self.first_token or now
                if self.first_word is None and thought_size(delta) < size:
                    self.first_word = now
        elif kind == "message-finish":
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                self.usage = dict(usage)

    def end(self, response: Any) -> None:
        """Take from the result what is needed, as it stands now: a cache may change it later."""
        self.ended = time.perf_counter()
        self.waiter = None
        self.status = "ok"  # where its parent ended first, another status was assumed
        self._take(response)
        if not holds_counts(self.usage):
            self._measure(response)

    def fail(self, error: BaseException, response: Any = None) -> None:
        """Take from an error, and from the part of a result that came before it, what is needed."""
        self.ended = time.perf_counter()
        self.waiter = None
        self.error = facts = ErrorFacts(error, response)
        finished = self.usage is not None
        self.status = "cancelled" if facts.hung_up else "error"
        if response is not None:
            self._take(response)
        if facts.hung_up and finished:
            self.status = "ok"
            return  # a v3 stream whose loop closed right after its message was complete
        self._measure(response)

    def stop(self, error: BudgetExceeded) -> None:
        """End a call that a budget stopped before it was made."""
        self.ended = self.started_clock
        self.status = "blocked"
        self.error = ErrorFacts(error)
        self.blocked_by = error.stop.as_row()
        self.admission = Admission(action=error.action)

    def give_up(self, status: Status) -> None:
        """End a call whose end will not be reported."""
        if self.ended is None:
            self.ended = time.perf_counter()
        self.status = status
        self._measure(None)

    def forget(self) -> None:
        """Let go of everything that may hold text; what is left may wait for delivery however long."""
        self.messages = self.running = self.asked = self.shadow = self.last_held = None
        metadata, params, serialized = self.metadata, self.params, self.serialized
        provider, model = metadata.get("ls_provider"), metadata.get("ls_model_name")
        if provider and model and type(provider) is type(model) is str:
            self.params, self.serialized = _EMPTY, None  # they are read for provider and model alone, which are known
            return
        if params:
            known = type(params) is dict or isinstance(params, Mapping)
            self.params = {name: params[name] for name in _PARAMETERS if name in params} if known else _EMPTY
        if serialized:
            known = type(serialized) is dict or isinstance(serialized, Mapping)
            self.serialized = {"id": serialized.get("id")} if known else None

    def keep(self) -> None:
        """Let go of metadata that its record does not need, since the call is to wait in memory as it is."""
        self.attribute()
        metadata = self.metadata
        keys = self.keys = metadata_keys(self.allowed, metadata)  # anew: they may have changed since the start
        self.metadata = kept = dict(zip(keys.names, keys.values(metadata), strict=True))
        kept["ls_provider"], kept["ls_model_name"] = metadata.get("ls_provider"), metadata.get("ls_model_name")
        if type(parent := self.parent_run_id) is UUID:
            # Not the id object itself: it must be collected when that run ends.
            self.parent_run_id = uuid_utils.UUID(int=parent.int)

    # What is known of it

    def attribute(self) -> CallContext:
        """Who and what the call is for; looked up once."""
        if self.context is None:
            keys = self.keys = self.keys or metadata_keys(self.allowed, self.metadata)
            in_tool = self.run is not None and self.run.tool is not None
            self.context = context_of(self.default, self.frame, self.marked, self.metadata, keys, in_tool=in_tool)
        return self.context

    def run_id(self) -> str:
        """The run's id as text; a run id that was no UUID is its own text."""
        return str(UUID(int=self.key)) if type(self.key) is int else str(self.key)

    def request(self) -> Request:
        """What the call asks of the budgets before it is made; made up once."""
        if self.asked is not None:
            return self.asked
        metadata, params = self.metadata, self.params
        model = requested_model_of(metadata, params)
        seen, sounds = media_tokens(self.messages, model)
        self.asked = Request(
            context=self.attribute(),
            provider=provider_of(metadata, params, self.serialized),
            model=model,
            prompt_bytes=self.prompt_size(),
            messages=sum([len(part) if isinstance(part, list) else 1 for part in self.messages or ()]),
            max_tokens=longest_answer(metadata, params),
            answers=token_count(params.get("n")) or 1,
            schema_bytes=schema_size(params),
            media_tokens=seen,
            audio_tokens=sounds,
        )
        return self.asked

    def start_facts(self, run_id: object, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is known at the start, in the order of `ObservedCall`, and `values` of its metadata behind it.

        `run_id` is the run's id where that is at hand.
        """
        metadata, params, langsmith, run = self.metadata, self.params, self.langsmith, self.run
        parent, project = self.parent_run_id, None if langsmith is None else langsmith[1]
        asked, held = self.asked, self.admission
        budgets = held and (held.action, held.throttled_ms, held.requested_model)
        return (
            self.started,
            self.skew_s,
            self.call_type,
            run_id if type(run_id) is UUID else self.run_id(),
            parent if parent is None or type(parent) is UUID else str(parent),
            None if run is None else _id(run.root),
            None if run is None else run.tool,
            None if langsmith is None else _id(langsmith[0]),
            langsmith_project() if project is None else str(project) or None,
            provider_of(metadata, params, self.serialized) if asked is None else asked.provider,
            requested_model_of(metadata, params) if asked is None else asked.model,
            self.prompt_size() if self.size is None else self.size,
            self.batch_size,
            self.attempt,
            self.hash,
            self.tags and [tag for tag in self.tags[:_MOST_TAGS] if isinstance(tag, str)],
            *(budgets or _NO_BUDGETS),
            *(self.prefix or _NO_PREFIX),
            *values,
        )

    def metadata_values(self) -> tuple[Any, ...]:
        """The values of its metadata that are kept, flat and not too long, in the order of the names of `keys`."""
        keys = self.keys = self.keys or metadata_keys(self.allowed, self.metadata)
        values = keys.values(self.metadata)
        return values if _PLAIN.issuperset(map(type, values)) else tuple(map(storable, keys.names, values))

    def end_facts(self) -> tuple[Any, ...]:
        """What became of it, in the order of `ObservedCall`; of most calls the last facts say nothing, and are left out."""
        ended = self.ended if self.ended is not None else self.touched
        first_token, message_id, began = self.first_token, self.message_id, self.started_clock
        facts = (
            self.status,
            (ended - began) * 1000,
            None if first_token is None else (first_token - began) * 1000,
            message_id if isinstance(message_id, str) and message_id.startswith("lc_run--") else None,
            self.response,
            self.usage,
            self.token_usage,
        )
        inner, late, notes, hidden = self.inner, self.replaces_abandoned, self.notes, self.hidden
        if not any((self.error, self.estimate, self.first_word, notes, hidden, inner, late, not self.batch_reported)):
            return facts
        admission = self.admission
        return (
            *facts,
            self.estimate,
            self.error,
            inner,
            self.batch_reported,
            late,
            notes,
            admission.action if admission is not None and self.status == "blocked" else None,
            None if self.first_word is None else (self.first_word - self.started_clock) * 1000,
            hidden,
            self.blocked_by,
        )

    def observed(self) -> ObservedCall:
        """What was observed of it."""
        context, values = self.attribute(), self.metadata_values()
        keys = self.keys or metadata_keys(self.allowed, self.metadata)
        shared = SharedFacts(context, self.scope_metadata, keys.names, self.allowed, keys.unknown)
        started, skew_s, *start = self.start_facts(None, ())
        return ObservedCall(str(self.id), shared, values, started + (skew_s or 0.0), *start, *self.end_facts())

    def least_observed(self) -> ObservedCall:
        """What is known of it for sure, where the rest cannot be read."""
        fallback = self.frame.context if self.frame is not None else self.default
        shared = SharedFacts(self.context or fallback, {}, (), frozenset(), ())
        return ObservedCall(
            id=str(self.id),
            shared=shared,
            values=(),
            started=self.started + (self.skew_s or 0.0),
            call_type=self.call_type,
            run_id=self.run_id(),
            provider=self.metadata.get("ls_provider"),
            requested_model=self.metadata.get("ls_model_name"),
            status=self.status,
            usage=self.usage,
            estimate=self.estimate,
            error=self.error,
            replaces_abandoned=self.replaces_abandoned,
        )

    def _take(self, result: Any) -> None:
        usage, self.token_usage, response, self.message_id = read_answer(result)
        if usage is not None:
            self.usage = usage if self.running is None else self.running.whole(usage)
        if facts := asked_facts(self.params, self.serialized, tools_used="blocks" in response):
            response = {**response, **facts}
        if hides_cache_times(usage) and (kept := asked_cache(self.messages, self.params)):
            response = {**response, "asked_cache": kept}
        self.response = response
        if (asked := self.asked) is None or asked.audio_tokens:
            self.hidden = hidden_modalities(self.messages)

    def _measure(self, result: Any) -> None:
        """Take the sizes of texts, in place of token counts. A call that was given up keeps the size of its prompt."""
        generations = getattr(result, "generations", None) if result is not None else None
        prompt = self.prompt_size() if self.messages is not None else (self.estimate or (0, 0, 0))[0]
        answer, thoughts = (text_size(generations), thought_size(generations)) if generations else (0, 0)
        self.estimate = (
            prompt,
            max(answer, self.streamed_bytes, self.event_bytes),
            max(thoughts, self.thought_bytes),
        )


def _id(value: object) -> object:
    return value if value is None or type(value) in (UUID, str) else str(value)
