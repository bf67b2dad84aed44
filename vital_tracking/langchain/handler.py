"""The callback handler: notes the start and the end of every call, and hands finished calls to the recorder.

A synchronous class that runs inline: LangChain then calls it in the caller's own task or thread, on all paths, at a
fraction of what an asynchronous or a threaded handler costs. `raise_error` is on because budgets must be able to stop a
call; every event therefore has a `try` of its own that lets no fault of ours out.

How a call ends where no end event comes (cancelled, timed out, a stream broken off): LangChain keeps the run's id object in
the stack frames of the call and nowhere else, so when that object is collected the call is over. Where something else holds the
id (LangSmith's tracer does), the end of the parent run, of LangSmith's run or of the asyncio task around it closes the call, or a
time limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any
from uuid import UUID
from weakref import ref

from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.calls.attribution import ALLOWED_METADATA, context_of, node_attempt
from vital_tracking.calls.hashes import RequestHashes
from vital_tracking.calls.in_flight import ORPHAN_GRACE_S, InFlightRegistry, run_key
from vital_tracking.calls.live import LiveCall, admitted
from vital_tracking.calls.metadata_keys import metadata_keys
from vital_tracking.calls.resolve import run_key_of_message
from vital_tracking.calls.shadowing import NOT_TRACED, SHADOW_OF, shadowing
from vital_tracking.calls.stopped import stopped_record
from vital_tracking.calls.texts import text_size
from vital_tracking.calls.wire import pack_start
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import current_frame, locate
from vital_tracking.core.record import CallType
from vital_tracking.delivery import Recorder
from vital_tracking.delivery.encoding import dated
from vital_tracking.errors import BudgetExceeded
from vital_tracking.langchain.control_flow import stopped
from vital_tracking.langchain.inline import CALLS_IT, CHOOSES_BY_INLINE, STARTS, event_of, others_are_inline
from vital_tracking.langchain.runs import RunFollower
from vital_tracking.langchain.starts import BegunCalls, callers_task, langsmith_run
from vital_tracking.spool.log_record import OPENED


class VitalHandler(RunFollower):
    """Records every model call. One handler serves any number of threads, tasks and runs at once; state is kept by run."""

    raise_error = True
    ignore_retry = True
    ignore_custom_event = True

    def __init__(
        self,
        recorder: Recorder,
        *,
        default: CallContext | None = None,
        metadata_keys: frozenset[str] = frozenset(),
        hash_key: bytes | None = None,
        call_timeout_s: float = 900.0,
        orphan_grace_s: float = ORPHAN_GRACE_S,
        controller: AdmissionController | None = None,
    ) -> None:
        super().__init__()
        self._recorder = recorder
        self._controller = controller
        self._default = default or CallContext()
        self._calls = InFlightRegistry(
            self._give_up, default=self._default, call_timeout_s=call_timeout_s, orphan_grace_s=orphan_grace_s
        )
        self._allowed = ALLOWED_METADATA | metadata_keys
        self._begun_calls = BegunCalls()
        self._hashes = None if hash_key is None else RequestHashes(hash_key)
        recorder.on_tick += self._calls.close_stale, self._begun_calls.forget_cancelled

    def __repr__(self) -> str:
        return f"VitalHandler({self.in_flight} calls in flight)"

    @property
    def run_inline(self) -> bool:  # type: ignore[override]
        """Whether LangChain is to call it in the caller's own task: see the module `inline`."""
        asking = sys._getframe(1)  # noqa: SLF001 - of all who ask, two must be told otherwise
        name = asking.f_code.co_qualname
        if name == CALLS_IT:
            return not self._left_to_thread(asking)
        return name not in CHOOSES_BY_INLINE or others_are_inline(asking, VitalHandler)

    def _left_to_thread(self, asking: FrameType) -> bool:
        """Whether the event that is about to be handed to it, in an event loop, would hold that up."""
        try:
            spool, controller = self._recorder.spool, self._controller
            ready = spool is None or spool.ready
            asks = controller is not None and controller.active and not admitted.get()
            if ready and not asks:
                return False
            event, args, kwargs = event_of(asking)
            if event not in STARTS or self._is_echo(run_key(kwargs["run_id"]), kwargs.get("metadata")):
                return False
            call = self._begun(STARTS[event], *args[:2], **kwargs)
            held_up = not ready or (controller is not None and controller.must_ask(call.request()))
            self._begun_calls.keep(call, for_thread=held_up)
            return held_up
        except Exception as error:  # noqa: BLE001 - see the module's first lines
            self._recorder.fault(error)
            return False

    # LangChain copies handlers with some configs; there is only this one.
    def __copy__(self) -> VitalHandler:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> VitalHandler:
        return self

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the start of a chat call."""
        self._start("chat", serialized, messages, run_id, parent_run_id, tags, metadata, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the start of a completion call."""
        self._start("completion", serialized, prompts, run_id, parent_run_id, tags, metadata, kwargs)

    # `token` must have this name: the sync manager passes it by keyword, the async one by position.
    def on_llm_new_token(self, token: str | list[str | dict[str, Any]], *, run_id: UUID, **kwargs: Any) -> None:
        """Note a streamed token."""
        try:
            call = self._calls.calls.get(run_key(run_id))
            if call is not None:
                call.token(token, kwargs.get("chunk"))
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note an event of a v3 stream."""
        try:
            call = self._calls.calls.get(run_key(run_id))
            if call is not None:
                call.stream_event(event)
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_llm_end(
        self,
        response: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a call that has ended well."""
        try:
            call = self._calls.end(run_id, parent_run_id, tags)
            if call is not None:
                try:
                    call.end(response)
                    if call.batch_size > 1 and call.call_type == "completion":
                        call.batch_reported = self._calls.batch_reported(call)
                    call.inner = self._calls.answered_inside(call, run_key_of_message(call.message_id))
                except Exception as error:  # noqa: BLE001 - a result that cannot be read is still a call
                    self._unreadable(call, error)
                if call.shadow is not None:
                    call.shadow(call)
                self._put(call)
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a call that has failed, was cancelled, or was broken off."""
        try:
            call = self._calls.end(run_id, parent_run_id, tags)
            if call is not None:
                try:
                    call.fail(error, kwargs.get("response"))
                except Exception as fault:  # noqa: BLE001 - as above
                    self._unreadable(call, fault)
                self._put(call)
        except Exception as fault:  # noqa: BLE001
            self._recorder.fault(fault)

    # For guards and the tracker

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended."""
        return len(self._calls)

    def close_all(self) -> None:
        """Record every call still open as abandoned: the process or the tracker is ending."""
        self._calls.close_all()

    def reset_after_fork(self) -> None:
        """In a forked child: the calls in flight are the parent's."""
        self._begun_calls.clear()
        self._calls.reset_after_fork()

    @property
    def recorder(self) -> Recorder:
        """Where calls go, and faults are counted."""
        return self._recorder

    def context_of(self, metadata: Mapping[str, Any]) -> CallContext:
        """Who and what a call with such metadata, merged as LangChain merges them, would be for."""
        frame, marked = locate(current_frame.get(), metadata)
        keys = metadata_keys(self._allowed, metadata)
        return context_of(self._default, frame, marked, metadata, keys, in_tool=False)

    def blocked(
        self,
        request: Request,
        error: BudgetExceeded,
        *,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        parent_run_id: UUID | None = None,
        requested_model: str | None = None,
    ) -> None:
        """Record a call that a guard stopped before it began."""
        kept = {key: metadata[key] for key in metadata.keys() & self._allowed} if metadata else {}
        self._recorder.put(
            stopped_record(
                request,
                error,
                requested_model=requested_model,
                parent_run_id=parent_run_id,
                tags=tags or (),
                metadata=kept,
            )
        )

    # State

    def _start(
        self,
        call_type: CallType,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any],
        run_id: UUID,
        parent_run_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        extra: Mapping[str, Any],
    ) -> None:
        """Raises BudgetExceeded, and nothing else: it stops the call."""
        try:
            if self._calls.closed:
                self._recorder.refuse()
                return
            key = run_key(run_id)
            if self._is_echo(key, metadata):
                self._calls.calls[key].echoes += 1
                return
            call = self._opened(call_type, serialized, messages, run_id, parent_run_id, tags, metadata, extra)
            self._admit(call)
        except BudgetExceeded:
            raise
        except Exception as fault:  # noqa: BLE001 - the budgets decide without knowing whose call it is
            self._undecided(fault)
            return
        try:
            self._follow(call, run_id)
        except Exception as fault:  # noqa: BLE001 - see the module's first lines
            self._recorder.fault(fault)

    def _undecided(self, fault: Exception) -> None:
        """A call has started of which nothing is known, by a fault of ours: it is stopped where a budget says so."""
        if self._controller is None or admitted.get():
            self._recorder.fault(fault)
            return
        try:
            self._controller.undecided(fault)
        except BudgetExceeded as error:
            raise stopped(error) from None

    def _follow(self, call: LiveCall, run_id: UUID) -> None:
        """Note an admitted call among those in flight, and in the spool."""
        if call.not_made:
            self._give_up(call)
            return
        recorder = self._recorder
        if call.skew_s is None:  # by what is known once it was admitted, as its time is the one after that
            dated(call, recorder.clock.skew_s)
        self._calls.add(call)
        if recorder.spool is not None:
            call.packed_start = packed = pack_start(call, run_id)
            recorder.opened(OPENED, call.id.bytes, packed)
        if self._controller is not None:
            self._controller.start()
        recorder.start()  # so that a call of which no end comes is closed in time, although nothing else is recorded

    def _opened(
        self,
        call_type: CallType,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any],
        run_id: UUID,
        parent_run_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        extra: Mapping[str, Any],
    ) -> LiveCall:
        """The call that starts, with all that is known of it."""
        call = self._begun_calls.take(run_key(run_id), metadata) or self._begun(
            call_type, serialized, messages, run_id, parent_run_id, tags, metadata, **extra
        )
        if (tree := langsmith_run()) is not None:  # two of its fields: the tree itself holds inputs and outputs
            call.langsmith = (tree.trace_id, tree.session_name)
            call.tree = ref(tree)
        if (task := callers_task()) is not None:
            call.task = ref(task)
        if metadata is not None:
            if "langgraph_node" in metadata:
                call.attempt = node_attempt()
            if SHADOW_OF in metadata:
                call.langsmith = NOT_TRACED
        if (shadows := shadowing.get()) is not None and shadows[0] is self and shadows[1]:
            call.shadow = shadows[1].popleft()
        if self._hashes is not None:
            call.hash, call.prefix = self._hashes.of(call.params, messages)
        if type(run_id) is UUID:
            self._calls.watch(call, run_id)
        return call

    def _begun(
        self,
        call_type: CallType,
        serialized: Mapping[str, Any] | None,
        messages: Sequence[Any],
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        invocation_params: Any = None,
        batch_size: int | None = None,
        **_extra: Any,
    ) -> LiveCall:
        """The call whose start LangChain reports with these arguments, in the scope and run that it is in."""
        key = run_key(run_id)
        call = LiveCall(
            key,
            call_type,
            serialized,
            messages,
            parent_run_id,
            tags,
            metadata,
            invocation_params,
            batch_size or 1,
        )
        call.default = self._default
        call.allowed = self._allowed
        call.frame, call.marked = locate(current_frame.get(), metadata)
        if parent_run_id is not None:
            call.run = self._calls.runs.get(run_key(parent_run_id))
        return call

    def _admit(self, call: LiveCall) -> None:
        """Ask the budgets, unless a guard has done so; a stopped call is recorded and raises BudgetExceeded or its kin."""
        taken = admitted.get()
        if taken:
            call.admission = taken.popleft()
            return
        controller = self._controller
        if controller is None or not controller.active:
            return
        try:
            try:
                request = call.request()
            except Exception as fault:  # noqa: BLE001 - then the budgets decide as they do without a database
                call.admission = controller.undecided(fault, call.context)
            else:
                call.admission = controller.admit(request)
            # The wait for an answer is not the model's.
            call.started, call.started_clock = time.time(), time.perf_counter()
            call.skew_s = self._recorder.clock.skew_s  # by now the database may have told its time
            call.touched = call.started_clock
        except BudgetExceeded as error:
            try:
                call.ref = None  # collecting the run's id means nothing for a call that was not made
                for sibling in self._calls.siblings(call):  # none of them is made
                    self._calls.remove(sibling)
                    controller.release(sibling.admission or Admission())
                    sibling.stop(error)
                    self._put(sibling)
                call.stop(error)
                self._put(call)
            except Exception as fault:  # noqa: BLE001 - it is stopped all the same
                self._recorder.fault(fault)
            raise stopped(error) from None

    def _is_echo(self, key: int, metadata: Mapping[str, Any] | None) -> bool:
        """Whether this start was reported before, as the handler is listed twice: LangChain passes both the same metadata."""
        known = self._calls.calls.get(key)
        return known is not None and known.metadata is metadata

    def _give_up(self, call: LiveCall) -> None:
        """Record a call that was closed without an end of its own; one that was never made leaves nothing."""
        if not call.not_made:
            self._put(call)
            return
        call.ref = None
        if call.packed_start is not None:
            self._recorder.void(str(call.id))
        if self._controller is not None and call.admission is not None:
            self._controller.release(call.admission)

    def _put(self, call: LiveCall) -> None:
        call.forget()
        if call.hold is None:
            self._recorder.put(call)
        elif not self._recorder.put_held(call) and self._controller is not None and call.admission is not None:
            self._controller.release(call.admission)

    def _unreadable(self, call: LiveCall, error: BaseException) -> None:
        self._recorder.fault(error)
        call.notes = (*call.notes, "unreadable_result")
        call.estimate = call.estimate or (text_size(call.messages), call.streamed_bytes, call.thought_bytes)
