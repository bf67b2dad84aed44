"""Stores that are watched, held up, away or at fault, around real ones; and what a test finds in its database."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from vital_tracking import VitalTracker
from vital_tracking.calls.row_literal import rows_of
from vital_tracking.errors import StoreUnavailable
from vital_tracking.stores.protocol import Row
from vital_tracking.testing import MemoryStore

RECORDING_CALLS = ("record_calls_v2", "record_calls_v1")
"""As literals, and as JSON."""


class StoreDouble:
    """A store around another: in everything but `call` it is the other."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def call(self, function: str, /, **arguments: object) -> Any:
        return self._inner.call(function, **arguments)


class WatchedStore(StoreDouble):
    """Notes what it is asked, and keeps everybody, or callers of `only` this function, waiting while `go` is cleared.

    The thread that is set as `dying` ends with its next request, in place of an answer.
    """

    def __init__(self, inner: Any, *, only: str | None = None) -> None:
        super().__init__(inner)
        self._only = only
        self.called: list[str] = []
        self.grant_requests: list[list[Row]] = []  # of each round trip for grants
        self.batches: list[int] = []  # how many calls each acknowledged batch held
        self.inserted: list[tuple[float, int]] = []  # when a batch was acknowledged, and how many of its calls were new
        self.go = threading.Event()
        self.go.set()
        self.dying: threading.Thread | None = None
        self.entered = threading.Event()  # somebody has come so far
        self.waiting = threading.Semaphore(0)  # released by each that has to wait
        self._acknowledged = threading.Condition()

    def call(self, function: str, /, **arguments: object) -> Any:
        self.called.append(function)
        if function == "acquire_grants_v1":
            self.grant_requests.append(json.loads(str(arguments["asks"])))
        if self._only in (None, function) or (self._only in RECORDING_CALLS and function in RECORDING_CALLS):
            self.entered.set()
            if not self.go.is_set():
                self.waiting.release()
                if not self.go.wait(60):
                    raise TimeoutError
        if threading.current_thread() is self.dying:
            raise SystemExit
        answer = super().call(function, **arguments)
        if function in RECORDING_CALLS:
            with self._acknowledged:
                self.batches.append(answer["inserted"] + answer["duplicate"])
                self.inserted.append((time.perf_counter(), answer["inserted"]))
                self._acknowledged.notify_all()
        return answer

    def wait_for(self, count: int, timeout: float = 60) -> None:
        """Return as soon as so many calls are acknowledged."""
        with self._acknowledged:
            assert self._acknowledged.wait_for(lambda: sum(self.batches) >= count, timeout), self.batches

    @property
    def waited_for(self) -> list[list[Row]]:
        """The round trips for grants that a call waited for."""
        return [requests for requests in self.grant_requests if not all(request["ahead"] for request in requests)]


class AwayStore(StoreDouble):
    """Unavailable while `away` is true, or, where it names functions, for these."""

    def __init__(self, inner: Any, *, away: bool | Collection[str] = False) -> None:
        super().__init__(inner)
        self.away = away

    def call(self, function: str, /, **arguments: object) -> Any:
        if self.away is True or (self.away and function in self.away):
            raise StoreUnavailable("The database is away.")
        return super().call(function, **arguments)


class ScriptedStore(StoreDouble):
    """Gives `answers` in turn to calls of one function. An error is raised; THROUGH, and whatever follows, asks the store."""

    THROUGH = object()

    def __init__(self, inner: Any, function: str, answers: Iterable[object]) -> None:
        super().__init__(inner)
        self._function, self._answers = function, iter(answers)

    def call(self, function: str, /, **arguments: object) -> Any:
        answer = next(self._answers, self.THROUGH) if function == self._function else self.THROUGH
        if isinstance(answer, BaseException):
            raise answer
        return super().call(function, **arguments) if answer is self.THROUGH else answer


class SteppedStore(StoreDouble):
    """Prints how many calls it has stored, and acknowledges them only when a line is read: for processes to be killed between."""

    def call(self, function: str, /, **arguments: object) -> Any:
        answer = super().call(function, **arguments)
        if function in RECORDING_CALLS:
            print(answer["inserted"], flush=True)
            sys.stdin.readline()
        return answer


class DiscardingStore(MemoryStore):
    """Counts calls by status and keeps none, so that the memory of many thousands is the tracker's."""

    description = "a counter"
    in_memory = False

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.tokens = 0

    def call(self, function: str, /, **arguments: object) -> Any:
        if not function.startswith("record_"):
            return super().call(function, **arguments)
        text = str(next(iter(arguments.values())))
        batch = rows_of(text) if function == "record_calls_v2" else json.loads(text)
        if function in RECORDING_CALLS:
            for row in batch:
                status = row.get("status", "ok")
                self.counts[status] = self.counts.get(status, 0) + 1
                self.tokens += row.get("total_tokens", 0) * (not row.get("usage_estimated"))
        return {"inserted": len(batch), "duplicate": 0, "rejected": []}


def stored(tracker: VitalTracker, rows: Callable[..., list[Row]], *query: Any) -> list[Row]:
    """The rows of all calls, or of a query, once everything is delivered; nothing was lost or went wrong on the way."""
    assert tracker.flush().complete
    stats = tracker.stats()
    assert (stats.faults, stats.rejected, stats.dropped, stats.in_flight) == (0, 0, 0, 0)
    return rows(*query)


def stored_ids(rows: Callable[..., list[Row]]) -> list[str]:
    """The ids of all stored calls, sorted."""
    return [str(row["id"]) for row in rows("select id from token_usage_logs order by id")]
