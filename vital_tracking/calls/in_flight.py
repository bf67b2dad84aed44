"""The books of calls in flight: which have started and under which run, and how those end of which no end comes.

Any thread may write to them at any moment, and garbage collection in the middle of anything; they are dictionaries of single
operations, and no lock.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from vital_tracking.calls.live import LiveCall, Run
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import current_frame
from vital_tracking.core.record import Status

_MAX_OPEN: Final = 100_000
_MAX_GIVEN_UP: Final = 1024
_ORPHAN_GRACE_S: Final = 10.0


class InFlightRegistry(ABC):
    """The calls and runs that a handler follows, by the number of their run's id."""

    _default: CallContext

    def __init__(self, *, call_timeout_s: float, orphan_grace_s: float = _ORPHAN_GRACE_S) -> None:
        super().__init__()
        self._call_timeout_s = call_timeout_s
        self._orphan_grace_s = orphan_grace_s
        self._open: dict[int, LiveCall] = {}
        self._runs: dict[int, Run] = {}
        self._children: dict[int, dict[int, LiveCall]] = {}
        self._given_up: dict[int, LiveCall] = {}
        self._echoes: dict[int, int] = {}
        self._batches: dict[int, tuple[Mapping[str, Any], bool]] = {}
        # Calls that have ended lately: a v3 stream that is cancelled during its end event reports an error as well.
        self._ended: dict[int, float] = {}
        self._closed = False
        # A deque, not a set under a lock: garbage collection appends to it at any moment, in any thread.
        self._vanished: deque[int] = deque()

    @abstractmethod
    def _put(self, call: LiveCall) -> None:
        """Hand a call that has ended to the recorder."""

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended."""
        return len(self._open)

    def _finish(self, run_id: UUID, parent_run_id: UUID | None, tags: list[str] | None) -> LiveCall | None:
        """Take the call of a run out of the books; a new one where an end comes without a start; None for an echo."""
        key = key_of(run_id)
        call = self._open.pop(key, None)
        if self._closed:
            return None
        if call is None:
            echoes = self._echoes.get(key, 0)
            if echoes:
                if echoes > 1:
                    self._echoes[key] = echoes - 1
                else:
                    self._echoes.pop(key, None)
                return None
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
            call.run = self._runs.get(key_of(parent_run_id)) if parent_run_id is not None else None
            call.notes = ("start_missed",)
            return call
        call.ref = None  # the id's end says nothing any more
        self._ended[key] = call.started_clock
        if call.below is not None:
            self._open[key] = call.below
            call.below = None
        if call.echoes:
            self._echoes[key] = call.echoes
        self._leave_parent(call)
        return call

    def _leave(self, call: LiveCall) -> None:
        """Take a call out of the books."""
        self._open.pop(call.key, None)
        if call.below is not None:
            self._open[call.key] = call.below
            call.below = None
        self._leave_parent(call)
        call.ref = None

    def _leave_parent(self, call: LiveCall) -> None:
        if call.parent_run_id is not None:
            parent = key_of(call.parent_run_id)
            siblings = self._children.get(parent)
            if siblings is not None:
                siblings.pop(call.key, None)
                if not siblings:
                    self._children.pop(parent, None)

    def _orphan(self, parent: int, status: Status) -> None:
        now = time.perf_counter()
        for call in list(self._children.pop(parent, {}).values()):
            if call.ended is None:
                call.orphaned = now
                call.status = status

    def close_stale(self) -> None:
        """Record the calls of which no end will come: their run is gone, their parent has ended, or their time is up."""
        vanished: list[int] = []
        for _ in range(len(self._vanished)):
            with suppress(IndexError):  # another thread is at it too
                vanished.append(self._vanished.popleft())
        for key in vanished:
            call = self._open.get(key)
            if call is not None and call.ref is not None and call.ref() is None:
                self._give_up(call, "cancelled")
        now = time.perf_counter()
        crowded = len(self._open) - _MAX_OPEN
        for call in list(self._open.values()):
            if call.orphaned is not None and now - call.orphaned >= self._orphan_grace_s:
                self._give_up(call, call.status)
            elif now - call.touched >= self._call_timeout_s or crowded > 0:
                crowded -= 1
                self._give_up(call, "abandoned")
        _trim(self._runs, _MAX_OPEN)
        for book in (self._ended, self._given_up, self._echoes, self._batches):
            _trim(book, _MAX_GIVEN_UP)

    def close_all(self) -> None:
        """Record every call still open as abandoned: the process or the tracker is ending."""
        self.close_stale()
        self._closed = True
        for call in list(self._open.values()):
            self._give_up(call, "abandoned")

    def reset_after_fork(self) -> None:
        """In a forked child: the calls in flight are the parent's."""
        for books in (self._open, self._runs, self._children, self._given_up, self._echoes, self._batches):
            books.clear()
        self._vanished.clear()
        self._ended.clear()

    def _give_up(self, call: LiveCall, status: Status) -> None:
        # Remembered before it leaves the open ones: an end that comes at this very moment must find it in one of the two.
        self._given_up[call.key] = _without_hold(call)
        if self._open.pop(call.key, None) is None:
            self._given_up.pop(call.key, None)
            return
        self._leave(call)
        call.give_up(status)
        call.forget()
        # Its end may still come, even where its id is gone (the interpreter tells weak references before it closes
        # generators): then it takes this record's place. What was held is settled with this one.
        if call.key in self._given_up:
            self._given_up[call.key] = _without_hold(call)
        self._put(call)


def _without_hold(call: LiveCall) -> LiveCall:
    """A copy for the end that may still come: what was held is settled with the call that was given up."""
    late = copy.copy(call)
    if late.admission is not None:
        late.admission = dataclasses.replace(late.admission, hold=None)
    return late


def _trim(book: dict[int, Any], limit: int) -> None:
    """Forget the oldest entries above the limit. Other threads go on writing: what they disturb is left to the next time."""
    with suppress(RuntimeError):
        for key in list(itertools.islice(book, max(len(book) - limit, 0))):
            book.pop(key, None)


def key_of(run_id: Any) -> int:
    """A run's key: its number, so that the books do not keep the id object itself alive; of any other id, its text."""
    try:
        return run_id.int  # type: ignore[no-any-return]
    except AttributeError:
        return str(run_id)  # type: ignore[return-value]
