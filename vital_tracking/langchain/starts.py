"""Calls of event loops between the moment at which their start is looked at and that at which LangChain hands it to the handler.

Whether a start must wait for the budgets' database, and so is left to a thread, is known only from the call that begins. That is
made once, and kept for the event that follows. While a thread waits, the task that awaits it may be cancelled, and LangChain then
never asks the model: the future on which the task waits tells that.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import ref

from vital_tracking.calls.live import LiveCall

_MOST: Final = 10_000
_FORGOTTEN_AFTER_S: Final = 10.0
_OF_LANGCHAIN: Final = "ahandle_event"  # the coroutine of a task that LangChain makes for an event alone


def callers_task() -> asyncio.Task[Any] | None:
    """The asyncio task in which the caller's code runs; None where there is none, or one that is over with this event."""
    if asyncio._get_running_loop() is None or (task := asyncio.current_task()) is None:  # noqa: SLF001 - None, not an error
        return None
    return None if getattr(task.get_coro(), "__qualname__", None) == _OF_LANGCHAIN else task


class BegunCalls:
    """The calls that have begun, until their start event takes them. Their events may come in any thread."""

    def __init__(self) -> None:
        self._calls: dict[int, LiveCall] = {}

    def keep(self, call: LiveCall, *, for_thread: bool) -> None:
        """Keep a call for the event that comes next in its task, or, `for_thread`, in a thread on which this task waits."""
        if len(self._calls) >= _MOST:
            return
        self._calls[call.key] = call
        if for_thread:
            if (callers := callers_task()) is not None:
                call.task = ref(callers)
            if (task := asyncio.current_task()) is not None:
                # The next time the loop runs anything, the task waits for the thread.
                task.get_loop().call_soon(_note_waiter, call, task)

    def take(self, key: int, metadata: Mapping[str, Any] | None) -> LiveCall | None:
        """The call of a start event, where it was made before; its time counts from now."""
        call = self._calls.pop(key, None) if self._calls else None
        if call is None or call.metadata is not (metadata or call.metadata):
            return None
        call.started = time.time()
        call.started_clock = call.touched = time.perf_counter()
        return call

    def forget_cancelled(self) -> None:
        """Forget calls whose tasks were cancelled before a thread was free for them."""
        old = time.perf_counter() - _FORGOTTEN_AFTER_S
        with suppress(RuntimeError):  # another thread has added one: the next time will do
            for key, call in list(self._calls.items()):
                if call.not_made and call.touched < old:
                    self._calls.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._calls.clear()


def _note_waiter(call: LiveCall, task: asyncio.Task[Any]) -> None:
    call.waiter = waiter = getattr(task, "_fut_waiter", None)
    if waiter is not None:
        waiter.add_done_callback(partial(_note_step, call, task, task.cancelling()))


def _note_step(call: LiveCall, task: asyncio.Task[Any], cancelling: int, _waiter: object) -> None:
    """The task has just gone on after its wait, as it was told of its end before us: was it cancelled in between?

    Where it was, that is raised out of the start. Who catches it at once, as `asyncio.timeout` does, takes the request back, but
    then the run's id is gone, without an end or a token; or only the thread that the start ran in still has it in its hands.
    """
    run_id = call.ref() if call.ref is not None else None
    if run_id is not None:
        call.last_held = ref(run_id, partial(_note_last_holder, call, threading.get_ident()))
        del run_id  # the thread may have let go of it meanwhile
    gone = call.ref is not None and call.ref() is None
    cancelled = call.ended is None and (task.cancelled() or task.cancelling() > cancelling)
    call.cancelled_on_waking |= call.running is None and (gone or cancelled)


def _note_last_holder(call: LiveCall, loops_thread: int, _gone: object) -> None:
    """The run's id is gone: a call that is being made has it in the loop's thread until it ends."""
    if call.ref is not None and call.running is None and threading.get_ident() != loops_thread:
        call.cancelled_on_waking = True


def langsmith_run() -> Any:
    """LangSmith's run around this code; None outside of one, as where nothing has imported what makes them."""
    current = getattr(sys.modules.get("langsmith.run_helpers"), "get_current_run_tree", None)
    return current() if current is not None else None
