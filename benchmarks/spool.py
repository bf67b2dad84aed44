"""What the spool costs a call, and how fast what waits in it is delivered.

Interleaved rounds, medians, one run. Machines are noisy: read the ratios, and what the spool adds beside its parts.

  thread    the start and the end of a call, straight through the handler: microseconds of the calling thread's own time
            (time.thread_time) with the spool off and on, and of the parts that the spool adds. The store accepts and discards;
            the writer's thread has its turn between the measurements
  busy      one write of a log record beside a thread that computes: microseconds until it has returned. os.write lets go of the
            interpreter's lock and has to wait until it gets it back; ours keeps it
  drain     rows a second, from the first to the acknowledgement of the last, of the same calls on a throw-away PostgreSQL that
            does not wait for its disk: `memory` has the spool off and all calls waiting in memory; `plain` has them waiting in
            the spool, with nothing amiss; `outage` has them recorded while the database was stopped, and is measured from the
            moment that it takes connections again, so with the rest of the wait for the next try, of up to half a second;
            `replay` delivers what another process has recorded that is dead now
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from benchmarks.database import a_database_server
from benchmarks.figures import Found, Part, Table, ratios, spanned, spread
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.wire import pack_call, pack_start
from vital_tracking.spool.log_record import RecordKind, encoded_record
from vital_tracking.spool.segment import Segment
from vital_tracking.stores.postgres import PostgresStore

THREAD_CALLS = 50  # in one measurement
TURNS = (
    8  # measurements in one round, of which the shortest counts: what another program took of the others says nothing
)
BUSY_WRITES = 60
WAYS = ("memory", "plain", "outage", "replay")
PARTS = ("packing", "framing", "write(2)", "os.write", "the rest")

# A call as an agent in a graph makes it.
METADATA = {
    "ls_provider": "openai",
    "ls_model_name": "gpt-4o-mini",
    "ls_model_type": "chat",
    "ls_temperature": 0.2,
    "ls_integration": "langchain_openai",
    "thread_id": "t-1",
    "langgraph_node": "triage",
    "langgraph_step": 3,
    "vital_user_id": "u-1",
    "vital_session_id": "s-1",
}
PARAMETERS = {"model": "gpt-4o-mini", "model_name": "gpt-4o-mini", "_type": "openai-chat", "temperature": 0.2}
QUESTION = [[HumanMessage("What does it say of that? " * 12)]]
ANSWER = LLMResult(
    generations=[
        [
            ChatGeneration(
                message=AIMessage(
                    "It says nothing of that. " * 6,
                    usage_metadata={
                        "input_tokens": 100,
                        "output_tokens": 20,
                        "total_tokens": 120,
                        "input_token_details": {"cache_read": 10},
                        "output_token_details": {"reasoning": 3},
                    },
                    response_metadata={"model_name": "gpt-4o-mini-2024-07-18", "finish_reason": "stop"},
                )
            )
        ]
    ]
)


class Sink:
    """A store that accepts and discards."""

    description = identity = "a sink"
    in_memory = False

    def call(self, function: str, /, **arguments: Any) -> Any:
        if function == "database_time_v1":
            return datetime.now(UTC).isoformat()
        if function == "model_prices_v1":
            return []
        return {"inserted": 0, "duplicate": 0, "rejected": [], "version": "", "budgets": [], "grants": {}}

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


def make_calls(tracker: VitalTracker, count: int) -> float:
    """The starts and ends of so many calls; seconds of this thread's own time."""
    handler, parent = tracker.handler, uuid.uuid4()
    runs = [(uuid.uuid4(), dict(METADATA)) for _ in range(count)]
    gc.disable()
    started = time.thread_time()
    for run_id, metadata in runs:
        handler.on_chat_model_start(
            {"id": ["langchain_openai", "ChatOpenAI"]},
            QUESTION,
            run_id=run_id,
            parent_run_id=parent,
            tags=["seq:step:1"],
            metadata=metadata,
            invocation_params=PARAMETERS,
            batch_size=1,
        )
        handler.on_llm_end(ANSWER, run_id=run_id, parent_run_id=parent)
    took = time.thread_time() - started
    gc.enable()
    return took


# In the calling thread


def thread_costs(off: VitalTracker, on: VitalTracker, parts: Parts) -> dict[str, float]:
    """Microseconds for a call, whole and in parts; measured in turns."""
    measured: dict[str, Callable[[], float]] = {
        "off": lambda: make_calls(off, THREAD_CALLS) / THREAD_CALLS * 1e6,
        "on": lambda: make_calls(on, THREAD_CALLS) / THREAD_CALLS * 1e6,
        "packing": lambda: parts.cost(parts.packing),
        "framing": lambda: parts.cost(parts.framing),
        "write(2)": lambda: parts.cost(parts.ours),
        "os.write": lambda: parts.cost(parts.os_write),
    }
    gc.collect()
    turns = [{name: cost() for name, cost in measured.items()} for _ in range(TURNS)]
    costs = {name: min(turn[name] for turn in turns) for name in measured}
    costs["added"] = costs["on"] - costs["off"]
    costs["the rest"] = costs["added"] - costs["packing"] - costs["framing"] - costs["write(2)"]
    return costs


class Parts:
    """One call's two log records, and what is done with them."""

    def __init__(self, tracker: VitalTracker, folder: Path) -> None:
        self._segment = Segment(folder / "parts.segment", 1, create=True)
        self._run_id = uuid.uuid4()
        handler = tracker.handler
        handler.on_chat_model_start(
            {"id": ["langchain_openai", "ChatOpenAI"]},
            QUESTION,
            run_id=self._run_id,
            parent_run_id=uuid.uuid4(),
            tags=["seq:step:1"],
            metadata=dict(METADATA),
            invocation_params=PARAMETERS,
            batch_size=1,
        )
        (self._call,) = handler._calls.calls.values()
        handler.on_llm_end(ANSWER, run_id=self._run_id)
        self._call.packed_start = self._start = pack_start(self._call, self._run_id)
        self._id = self._call.id.bytes
        self._payloads = ((RecordKind.OPENED, self._start), (RecordKind.CALL, pack_call(self._call)))
        self._frames = [encoded_record(kind, self._id, payload) for kind, payload in self._payloads]
        self.frame_bytes = [len(frame) for frame in self._frames]

    def packing(self) -> None:
        self._call.packed_start = pack_start(self._call, self._run_id)
        pack_call(self._call)

    def framing(self) -> None:
        for kind, payload in self._payloads:
            encoded_record(kind, self._id, payload)

    def ours(self) -> None:
        for frame in self._frames:
            self._segment.append(frame)

    def os_write(self) -> None:
        for frame in self._frames:
            os.write(self._segment.fd, frame)

    def cost(self, part: Callable[[], None], count: int = THREAD_CALLS) -> float:
        """Microseconds of this thread's time for a part of one call."""
        gc.disable()
        started = time.thread_time()
        for _ in range(count):
            part()
        took = time.thread_time() - started
        gc.enable()
        os.truncate(self._segment.path, 0)
        return took / count * 1e6

    def waits(self, part: Callable[[], None]) -> float:
        """Microseconds until one write has returned, beside a thread that computes."""
        done = threading.Event()

        def compute() -> None:
            number = 0
            while not done.is_set():
                number += sum(range(100))

        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        time.sleep(0.02)  # so that it runs
        spent = 0.0
        for _ in range(BUSY_WRITES):
            time.sleep(0)  # each begins with a turn of its own, as after the provider's answer
            started = time.perf_counter()
            part()
            spent += time.perf_counter() - started
        done.set()
        thread.join()
        os.truncate(self._segment.path, 0)
        return spent / BUSY_WRITES / len(self._frames) * 1e6


def sink_tracker(folder: Path, *, spool: bool, **settings: Any) -> VitalTracker:
    """A tracker whose writer sends nothing until it is told to."""
    options = {"spool_dir": folder, "flush_interval_s": 3600, "batch_size": 1000, "queue_bytes": 1 << 30, **settings}
    return VitalTracker(Sink(), settings=Settings(spool=spool, budgets=False, **options))  # type: ignore[arg-type]


# Delivery


def a_tracker(url: str, folder: Path, **settings: Any) -> VitalTracker:
    """A tracker on the database; what it has to wait for is delivery alone."""
    options = {"spool_dir": folder, "budgets": False, "queue_bytes": 1 << 30, "spool_bytes": 4 << 30, **settings}
    return VitalTracker(PostgresStore(url), settings=Settings(**options))


def delivered(tracker: VitalTracker, calls: int, before: int = 0) -> float:
    """Rows a second until all are acknowledged."""
    started = time.perf_counter()
    result = tracker.flush(600)
    took = time.perf_counter() - started
    if not result.complete or result.inserted - before != calls:
        raise RuntimeError(f"{calls} calls, but {result}")
    return calls / took


def plain(url: str, folder: Path, calls: int, *, spool: bool) -> float:
    """Rows a second of calls that wait in memory or in the spool, with nothing amiss."""
    tracker = a_tracker(url, folder, spool=spool, background=False)
    make_calls(tracker, 1)
    tracker.flush(60)  # connects, and reads the prices
    make_calls(tracker, calls)
    rate = delivered(tracker, calls, before=1)
    tracker.close()
    return rate


def outage(server: Any, url: str, folder: Path, calls: int) -> float:
    """Rows a second of calls that were recorded while the database was away."""
    tracker = a_tracker(url, folder)
    make_calls(tracker, 1)
    tracker.flush(60)
    server.stop()
    try:
        make_calls(tracker, calls)
    finally:
        server.start()
    rate = delivered(tracker, calls, before=1)
    tracker.close()
    return rate


def replay(url: str, folder: Path, calls: int) -> float:
    """Rows a second of calls that a process has recorded which is dead now."""
    tracker = a_tracker(url, folder, background=False)
    make_calls(tracker, 1)
    tracker.flush(60)
    process = multiprocessing.get_context("spawn").Process(target=die, args=(url, folder, calls))
    process.start()
    process.join()
    started = time.perf_counter()
    complete = tracker._recorder.replay(600)
    took = time.perf_counter() - started
    replayed = tracker.stats().replayed
    tracker.close()
    if not complete or replayed != calls:
        raise RuntimeError(f"{calls} calls, but {replayed} were replayed")
    return calls / took


def die(url: str, folder: Path, calls: int) -> None:
    """Record calls, deliver none, and end as by kill -9."""
    tracker = a_tracker(url, folder, background=False)
    make_calls(tracker, calls)
    os._exit(0)


# All of it


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is said of the outages made here."""
    logger = logging.getLogger("vital_tracking")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def measure(rounds: int, calls: int) -> Found:
    """All figures; `calls` wait to be delivered in each round."""
    thread: dict[str, list[float]] = {name: [] for name in ("off", "on", "added", *PARTS)}
    busy: dict[str, list[float]] = {"ours": [], "os.write": []}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with (
        tempfile.TemporaryDirectory(prefix="vital-bench-") as name,
        quiet(),
        a_database_server() as (server, url),
    ):
        folder = Path(name)
        off, on = sink_tracker(folder, spool=False), sink_tracker(folder, spool=True)
        parts = Parts(off, folder)
        ways: dict[str, Callable[[], float]] = {
            "memory": lambda: plain(url, folder, calls, spool=False),
            "plain": lambda: plain(url, folder, calls, spool=True),
            "outage": lambda: outage(server, url, folder, calls),
            "replay": lambda: replay(url, folder, calls),
        }
        for number in range(rounds + 1):  # the first one warms everything up
            for tracker in (off, on):
                tracker.flush(60)
            costs = thread_costs(off, on, parts)
            for what, values in thread.items():
                values.append(costs[what])
            busy["ours"].append(parts.waits(parts.ours))
            busy["os.write"].append(parts.waits(parts.os_write))
            for way, rate in ways.items():
                rates[way].append(rate())
            if number == 0:
                for series in (thread, busy, rates):
                    for values in series.values():
                        values.clear()
        off.close()
        on.close()
    return {
        "rounds": rounds,
        "calls": calls,
        "frame_bytes": parts.frame_bytes,
        "thread_us": {name: spread(values) for name, values in thread.items()},
        "busy_us": {name: spread(values) for name, values in busy.items()},
        "rows_per_s": {way: spread(values) for way, values in rates.items()},
        "of_memory": {way: ratios(rates[way], rates["memory"]) for way in WAYS[1:]},
    }


LABELS = {
    "off": "spool off",
    "on": "spool on",
    "added": "the spool adds",
    "packing": "of that: packing",
    "framing": "of that: framing",
    "write(2)": "of that: two writes",
    "the rest": "of that: the rest",
    "os.write": "two writes by os.write",
}


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    sizes = " and ".join(map(str, found["frame_bytes"]))
    of_memory = found["of_memory"]
    return [
        Table(
            f"A call's start and end, us of the calling thread's own time (log records of {sizes} bytes)",
            ["", "us"],
            [[label, spanned(found["thread_us"][name])] for name, label in LABELS.items()],
        ),
        Table(
            "One write beside a thread that computes, until it has returned",
            ["", "us"],
            [[name, spanned(us)] for name, us in found["busy_us"].items()],
        ),
        Table(
            f"{found['calls']:,} calls that wait, until the last is acknowledged",
            ["they wait", "rows a second", "of those in memory"],
            [
                [way, spanned(rate), spanned(of_memory[way]) if way in of_memory else ""]
                for way, rate in found["rows_per_s"].items()
            ],
        ),
    ]


PART = Part(
    "spool",
    __doc__,
    measure,
    tables,
    quick={"rounds": 15, "calls": 1000},
    full={"calls": 10_000},
)

if __name__ == "__main__":
    PART.main()
