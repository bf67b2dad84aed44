"""Shadow runs: a second model is asked on a share of a guard's calls, to learn what it would have taken.

It is asked in the background, once the answer of the first is there, and its own answer goes to nobody. Its calls are recorded as
calls of the same user, service, agent and step, with the id of the call that they shadow in their metadata (`shadow_of`).
Budgets count them; where one does not let a shadow run go at once, it is left out.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import uuid_utils
from langchain_core.language_models import BaseChatModel
from langsmith.run_helpers import tracing_context

from vital_tracking.budgets.pending import run
from vital_tracking.calls.live import LiveCall, admitted
from vital_tracking.calls.resolve import from_cache
from vital_tracking.calls.shadowing import SHADOW_OF, Answered
from vital_tracking.core.frames import ScopeFrame, current_frame
from vital_tracking.errors import BudgetExceeded
from vital_tracking.langchain.downgrade import Cheaper, PlannedCall

if TYPE_CHECKING:
    from vital_tracking.budgets.controller import AdmissionController
    from vital_tracking.langchain.handler import VitalHandler

_AT_ONCE: Final = 4
_OF_STREAMS: Final = frozenset({"stream", "stream_usage"})


@dataclass(frozen=True, slots=True)
class Shadow:
    """The second model of a guard, and the share of its calls, of 1, on which it is asked."""

    model: Cheaper
    share: float


def is_chosen(call_id: UUID | uuid_utils.UUID, share: float) -> bool:
    """Whether the call of this id is of the share that is shadowed: the same for every process that asks."""
    return int.from_bytes(hashlib.blake2b(call_id.bytes, digest_size=8).digest()) < share * 2**64


class ShadowRuns:
    """The shadow runs of one tracker: at most a few at once, each in a thread of its own that no exit waits for."""

    def __init__(self, handler: VitalHandler, controller: AdmissionController) -> None:
        self._handler = handler
        self._controller = controller
        self._lock = threading.Lock()
        self._running: set[threading.Thread] = set()
        self._closed = False
        self.begun = 0
        self.left_out = 0

    def after(self, shadow: Shadow, call: PlannedCall, prompts: Sequence[Any]) -> deque[Answered]:
        """For each prompt of a call, what is to be done once it is answered."""
        return deque(partial(self._answered, shadow, call, list(prompt)) for prompt in prompts)

    def _answered(self, shadow: Shadow, planned: PlannedCall, prompt: list[Any], call: LiveCall) -> None:
        """A call has its answer: shadow it, if it is of the share and there is room. Never raises."""
        try:
            if not is_chosen(call.id, shadow.share) or from_cache(call.usage):
                return
            metadata = {name: value for name, value in call.metadata.items() if str(name)[:3] != "ls_"}
            # Every field of the context is named: the scope that it came from may be gone by then.
            metadata |= {**call.attribute().as_metadata(), SHADOW_OF: str(call.id)}
            asked = partial(self._ask, shadow.model, planned, prompt, list(call.tags or ()), metadata)
            thread = threading.Thread(
                target=Context().run,  # nothing of the caller's: no handlers, no tracer, no admissions
                args=(self._run, call.frame, asked),
                name="vital-tracking-shadow",
                daemon=True,
            )
            with self._lock:
                if self._closed or len(self._running) >= _AT_ONCE:
                    self.left_out += 1
                    return
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or may have no more threads
                    self.left_out += 1
                else:
                    self._running.add(thread)
        except Exception as fault:  # noqa: BLE001 - it is the user's call that has ended here
            self._handler.recorder.fault(fault)

    def _run(self, frame: ScopeFrame | None, asked: Callable[[], None]) -> None:
        """One shadow run, in the thread and the context of its own."""
        try:
            current_frame.set(frame)
            with tracing_context(enabled=False):
                asked()
        except BudgetExceeded:
            self._left_out()
        except Exception as fault:  # noqa: BLE001 - nobody waits for it
            self._left_out()
            self._handler.recorder.fault(fault)
        finally:
            self._ended(threading.current_thread())

    def _ask(
        self, model: Cheaper, planned: PlannedCall, prompt: list[Any], tags: list[str], metadata: Mapping[str, Any]
    ) -> None:
        """Ask the second model. What it fails with is on its row; raises BudgetExceeded where no call may be made now."""
        call = planned.downgraded(model)
        call = replace(
            call,
            model=_apart(call.model, planned.model),
            callbacks=[self._handler],
            tags=tags,
            metadata=dict(metadata),
            kwargs={name: value for name, value in call.kwargs.items() if name not in _OF_STREAMS},
            admissions=deque(),
        )
        if self._controller.active:
            merged = call.merged()
            context = self._handler.context_of(merged)
            (request,) = call.requests([prompt], context, merged, downgraded=False)
            call.admissions.append(run(self._controller.admitting(request, max_wait=0.0, clamp=True)))
            call = call.clamped()
        admitted.set(call.admissions)
        try:
            with self._lock:
                closed = self._closed  # then nobody would record it
                self.begun += not closed
                self.left_out += closed
            if not closed:
                with suppress(Exception):
                    call.model.generate([prompt], call.stop, **call.given())
        finally:
            while call.admissions:  # it has failed before it began
                self._controller.release(call.admissions.popleft())

    def _left_out(self) -> None:
        with self._lock:
            self.left_out += 1

    def _ended(self, thread: threading.Thread) -> None:
        with self._lock:
            self._running.discard(thread)

    def wait(self, timeout: float | None) -> None:
        """Wait for the runs in flight, for at most `timeout` seconds; None: as long as it takes."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            running = list(self._running)
        for thread in running:
            thread.join(None if until is None else max(until - time.monotonic(), 0.0))

    def close(self, timeout: float) -> None:
        """Begin no more of them, and wait for those in flight."""
        self._closed = True
        self.wait(timeout)

    def reset_after_fork(self) -> None:
        """In a forked child: the runs in flight are the parent's."""
        self._lock = threading.Lock()
        self._running.clear()
        self.begun = self.left_out = 0


def _apart(model: BaseChatModel, shadowed: BaseChatModel) -> BaseChatModel:
    """A copy of the second model for its shadow runs: it tells nobody, no cache answers for it or keeps its answers, and it takes
    no turns of the first model's rate limiter."""
    changes: dict[str, Any] = {"callbacks": None, "cache": False, "verbose": False}
    if model.rate_limiter is shadowed.rate_limiter:
        changes["rate_limiter"] = None
    return model.model_copy(update=changes)
