"""The registry of calls in flight: which have started and under which run, and how those are closed that never report an end.

Any thread may write to it at any moment, and garbage collection in the middle of anything. So it has no lock, and is made of
dictionaries whose single operations are atomic.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID
from weakref import ref

from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.run import Run
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import current_frame
from vital_tracking.core.record import Status

_MAX_OPEN: Final = 100_000
_MAX_ENDED: Final = 1024  # ended calls that are remembered, as their end may be reported late or twice
ORPHAN_GRACE_S: Final = 10.0


class InFlightRegistry:
    """The calls and runs that a handler follows, by the key of their run (`run_key`).

    `given_up` is handed each call that is closed without an end of its own; `call_timeout_s` is how long one may be silent,
    `orphan_grace_s` how long it may outlive its parent run, both in seconds.
    """

    def __init__(
        self,
        given_up: Callable[[LiveCall], None],
        *,
        default: CallContext,
        call_timeout_s: float,
        orphan_grace_s: float = ORPHAN_GRACE_S,
    ) -> None:
        self._tell_given_up = given_up
        self._default = default
        self.call_timeout_s = call_timeout_s
        self.orphan_grace_s = orphan_grace_s
        self.calls: dict[int, LiveCall] = {}
        self.runs: dict[int, Run] = {}
        self._children: dict[int, dict[int, LiveCall]] = {}
        self._given_up: dict[int, LiveCall] = {}
        self._echoes: dict[int, int] = {}
        self._batches: dict[int, tuple[Mapping[str, Any], bool]] = {}
        # Calls that have ended lately: a v3 stream that is cancelled during its end event reports an error as well.
        self._ended: dict[int, float] = {}
        # A deque, not a set under a lock: garbage collection appends to it at any moment, in any thread.
        self._vanished: deque[int] = deque()
        self.closed = False

    def __len__(self) -> int:
        """Calls that have started and not ended."""
        return len(self.calls)

    # Calls

    def watch(self, call: LiveCall, run_id: UUID) -> None:
        """Once the run's id object is garbage-collected, the call has ended, where no end was reported."""
        call.vanished = self._vanished
        call.ref = ref(run_id, call.vanish)

    def add(self, call: LiveCall) -> None:
        """A call has started, perhaps under the run id of another one still open, where a user gave it to both."""
        call.below = self.calls.get(call.key)
        if call.parent_run_id is not None:
            self._children.setdefault(run_key(call.parent_run_id), {})[call.key] = call
        self.calls[call.key] = call

    def remove(self, call: LiveCall) -> None:
        """A call was not made after all."""
        self.calls.pop(call.key, None)
        if call.below is not None:
            self._uncover(call)
        if call.parent_run_id is not None:
            self._leave_parent(call)
        call.ref = None

    def end(self, run_id: UUID, parent_run_id: UUID | None, tags: list[str] | None) -> LiveCall | None:
        """Take out the call of a run that has ended; a new one where its start was missed; None where it has ended before."""
        key = run_key(run_id)
        call = self.calls.pop(key, None)
        if self.closed:
            return None
        if call is None:
            return None if self._is_echo(key) else self._late(key, parent_run_id, tags)
        call.ref = None  # collecting the id means nothing from now on
        self._ended[key] = call.started_clock
        if len(self._ended) > 2 * _MAX_ENDED:  # `close_stale` may come late
            _trim(self._ended, _MAX_ENDED)
        if call.below is not None:
            self._uncover(call)
        if call.echoes:
            self._echoes[key] = call.echoes
        if call.parent_run_id is not None:
            self._leave_parent(call)
        return call

    def siblings(self, call: LiveCall) -> list[LiveCall]:
        """Other calls of the same `generate` that have started: LangChain gives them one parameters object."""
        if call.batch_size == 1:
            return []
        return [other for other in list(self.calls.values()) if other.params is call.params and other.ended is None]

    def answered_inside(self, call: LiveCall, source: int | None) -> bool:
        """Whether the run with the key `source`, which made the call's answer, began and ended inside this call."""
        return source is not None and source != call.key and self._ended.get(source, 0.0) >= call.started_clock

    def batch_reported(self, call: LiveCall) -> bool:
        """Whether the first run of a batch that was one request has usage; LangChain gives its runs one parameters object."""
        key = id(call.params)
        first = self._batches.get(key)
        if first is None or first[0] is not call.params:
            self._batches[key] = first = (call.params, bool(call.token_usage))
        return first[1]

    def _is_echo(self, key: int) -> bool:
        """Whether this end was reported before, because the handler is listed twice."""
        echoes = self._echoes.get(key, 0)
        if echoes > 1:
            self._echoes[key] = echoes - 1
        elif echoes:
            self._echoes.pop(key, None)
        return bool(echoes)

    def _late(self, key: int, parent_run_id: UUID | None, tags: list[str] | None) -> LiveCall | None:
        """The call for an end of which no open call is known: one that was given up, or one whose start was missed."""
        late = self._given_up.pop(key, None)
        if late is None and key in self._ended:
            return None
        self._ended[key] = 0.0
        if late is not None:
            late.replaces_abandoned = True
            return late
        call = LiveCall(key, "chat", None, None, parent_run_id, tags, None, None, 1)
        call.default = self._default
        call.frame = current_frame.get()
        call.run = self.runs.get(run_key(parent_run_id)) if parent_run_id is not None else None
        call.notes = ("start_missed",)
        return call

    def _uncover(self, call: LiveCall) -> None:
        below, call.below = call.below, None
        if below is not None:
            self.calls[call.key] = below

    def _leave_parent(self, call: LiveCall) -> None:
        parent = run_key(call.parent_run_id)
        siblings = self._children.get(parent)
        if siblings is not None:
            siblings.pop(call.key, None)
            if not siblings:
                self._children.pop(parent, None)

    # Runs around calls

    def start_run(self, run_id: UUID, parent_run_id: UUID | None, tool: str | None = None) -> None:
        """A chain, graph, tool or retriever has started."""
        parent = self.runs.get(run_key(parent_run_id)) if parent_run_id is not None else None
        if tool is not None:
            self.runs[run_key(run_id)] = Run(parent.root if parent is not None else parent_run_id or run_id, tool)
        else:
            self.runs[run_key(run_id)] = parent if parent is not None else Run(parent_run_id or run_id, None)

    def end_run(self, run_id: UUID, status: Status) -> None:
        """A run around calls has ended; calls that it leaves open are closed with that status after a little time."""
        key = run_key(run_id)
        self.runs.pop(key, None)
        if key in self._children:
            now = time.perf_counter()
            for call in list(self._children.pop(key, {}).values()):
                if call.ended is None:
                    call.orphaned = now
                    call.status = status

    # Calls whose end is never reported

    def close_stale(self) -> None:
        """Close calls that will not report an end: their run's id was collected, their parent run has ended, or they time out."""
        vanished: list[int] = []
        for _ in range(len(self._vanished)):
            with suppress(IndexError):  # another thread has taken the last one
                vanished.append(self._vanished.popleft())
        for key in vanished:
            call = self.calls.get(key)
            if call is not None and call.ref is not None and call.ref() is None:
                self._give_up(call, "cancelled")
        now = time.perf_counter()
        crowded = len(self.calls) - _MAX_OPEN
        for call in list(self.calls.values()):
            if call.orphaned is None and (status := call.outlived()) is not None:
                call.orphaned, call.status = now, status
            if call.orphaned is not None and now - max(call.orphaned, call.touched) >= self.orphan_grace_s:
                self._give_up(call, call.status)
            elif now - call.touched >= self.call_timeout_s or crowded > 0:
                crowded -= 1
                self._give_up(call, "abandoned")
        _trim(self.runs, _MAX_OPEN)
        for book in (self._ended, self._given_up, self._echoes, self._batches):
            _trim(book, _MAX_ENDED)

    def close_all(self) -> None:
        """Close every call that is still open, as abandoned: the process or the tracker is ending."""
        self.close_stale()
        self.closed = True
        for call in list(self.calls.values()):
            self._give_up(call, "abandoned")

    def reset_after_fork(self) -> None:
        """In a forked child: the calls in flight are the parent's."""
        for book in (self.calls, self.runs, self._children, self._given_up, self._echoes, self._batches, self._ended):
            book.clear()
        self._vanished.clear()

    def _give_up(self, call: LiveCall, status: Status) -> None:
        # Noted as given up before it leaves the open calls: an end reported at this moment must find it in one of the two.
        self._given_up[call.key] = _without_hold(call)
        if self.calls.pop(call.key, None) is None:
            self._given_up.pop(call.key, None)
            return
        self.remove(call)
        call.give_up(status)
        call.forget()
        # Its end may still be reported, even after its id was collected (Python calls back weak references before it closes
        # generators). That record then replaces this one; the hold is settled with this one.
        if call.key in self._given_up:
            self._given_up[call.key] = _without_hold(call)
        self._tell_given_up(call)


def _without_hold(call: LiveCall) -> LiveCall:
    """A copy for an end that may still be reported; the hold is settled with the call that was given up."""
    late = copy.copy(call)
    if late.admission is not None:
        late.admission = dataclasses.replace(late.admission, hold=None)
    return late


def _trim(book: dict[int, Any], limit: int) -> None:
    """Forget the oldest entries above the limit. Where another thread writes meanwhile, it is left to the next time."""
    with suppress(RuntimeError):
        for key in list(itertools.islice(book, max(len(book) - limit, 0))):
            book.pop(key, None)


def run_key(run_id: Any) -> int:
    """A run's key: the number of its UUID, since holding the id object would keep it alive; for any other id, its text."""
    try:
        return run_id.int  # type: ignore[no-any-return]
    except AttributeError:
        return str(run_id)  # type: ignore[return-value]
