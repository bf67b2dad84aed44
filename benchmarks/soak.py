"""Ten minutes of mixed load: is every call in the database exactly once, and do memory and open files stay flat?

    python -m benchmarks.soak [--minutes 10] [--rate 400]

Threads and tasks make calls through the handler (answered, streamed, broken off, failed, cancelled, stopped by a budget), record
calls, ask for them and embed, all within budgets. Now and then the process forks a child that makes a few calls and ends: by
itself, at once, or by kill -9, some of them in the middle of a call. Now and then the database, a throw-away PostgreSQL, is
stopped for a while. Each call is noted in a file when its start or its end has returned; in the end that file is compared with
the rows, id by id. `rows` and `spool` hold the children's too, all else is this process's.

Exit code 1 where a call is missing or is there twice, a child hangs, or, in five minutes or more, memory or files grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import itertools
import logging
import os
import re
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding

from benchmarks.database import a_database_server
from vital_tracking import BudgetExceeded, Settings, VitalTracker
from vital_tracking.ids import new_id
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.spool.segment import bytes_in
from vital_tracking.stores.postgres import PostgresStore

LINE_EVERY_S = 10
FORK_EVERY_S = 4.0
OUTAGE_EVERY_S = 50.0
OUTAGE_S = 8.0
PATIENCE_S = 60.0  # with a child
JUDGED_MINUTES = 5.0  # in less time the interpreter is still warming up
MIB_A_MINUTE = 1.0
FILES_A_MINUTE = 1.0
SHARES = {"ask": 0.25, "stream": 0.1, "record": 0.25, "embed": 0.1, "loop": 0.3}
ENDLESS = {"action": "block", "monthly_limit": "1000000000"}
BUDGETS: tuple[dict[str, str], ...] = (
    {"entity_type": "organization", "entity_id": "soak", **ENDLESS},
    {"entity_type": "user", "organization_id": "soak", **ENDLESS},
    {"entity_type": "service", "entity_id": "workflow", **ENDLESS},
    {"entity_type": "user", "entity_id": "poor", "metric": "calls", "minute_limit": "60", "action": "block"},
)


class Notes:
    """A file of calls, one line of the same length each, that children append to as well."""

    LINE = len(f"L {new_id()}\n")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, kind: str, key: object) -> None:
        """`L` and a run's id, `R` and a row's, `E` and a session's."""
        os.write(self._file, f"{kind} {key}\n".encode())

    def __len__(self) -> int:
        return os.fstat(self._file).st_size // self.LINE

    def keys(self) -> dict[str, Counter[str]]:
        """What was noted, by kind."""
        found: dict[str, Counter[str]] = {"L": Counter(), "R": Counter(), "E": Counter()}
        for line in self.path.read_text().splitlines():
            kind, _, key = line.partition(" ")
            found[kind][key] += 1
        return found


class Witness(BaseCallbackHandler):
    """Notes the starts of calls; listed behind the tracker's handler, which has done its part by then."""

    run_inline = True

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:
        self._notes.add("L", run_id)


class FailingModel(FakeUsageModel):
    """Never answers."""

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ValueError("no answer")


class DeadlyModel(FakeUsageModel):
    """Its process dies while it is asked."""

    def _call(self, *args: Any, **kwargs: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class SlowModel(FakeUsageModel):
    """Answers when nobody waits any more."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(60)


class Load:
    """All that is done with one tracker, in any thread or process."""

    def __init__(self, tracker: VitalTracker, notes: Notes) -> None:
        self._tracker = tracker
        self._notes = notes
        self._callbacks = [tracker.handler, Witness(notes)]
        self._embeddings = tracker.embeddings(
            DeterministicFakeEmbedding(size=8), provider="openai", model="text-embedding-3-small"
        )
        self._model = FakeUsageModel(responses=["Well, that is a long story."])
        self._failing = FailingModel(responses=["never"])
        self._slow = SlowModel(responses=["never"])

    def _config(self, number: int, **more: Any) -> Any:
        metadata = {"vital_user_id": f"u-{number % 50}", "vital_session_id": f"s-{number % 200}", "thread_id": "t"}
        return {"callbacks": self._callbacks, "metadata": metadata, "tags": ["soak"], **more}

    def ask(self, number: int) -> None:
        """A call that is answered, or fails, or that a budget stops."""
        if number % 10 == 0:
            with contextlib.suppress(ValueError):
                self._failing.invoke("Why?", self._config(number))
        elif number % 10 == 1:
            run_id = uuid.uuid4()
            config: Any = {
                "callbacks": [self._tracker.handler],
                "metadata": {"vital_user_id": "poor"},
                "run_id": run_id,
            }
            with contextlib.suppress(BudgetExceeded):
                self._model.invoke("How?", config)
            self._notes.add("L", run_id)
        elif number % 10 == 2:
            with self._tracker.workflow("w-1", user_id=f"u-{number % 50}") as flow:
                self._model.invoke("Where?", flow.config(callbacks=[Witness(self._notes)]))
        else:
            self._model.invoke("What?", self._config(number))

    def stream(self, number: int) -> None:
        """A call that is streamed; every fourth one is broken off."""
        for _ in self._model.stream("What?", self._config(number)):
            if number % 4 == 0:
                break

    def record(self, number: int) -> None:
        """A call that somebody else has made; every third one was asked for."""
        usage: dict[str, Any] = {"prompt_tokens": 100 + number % 400, "completion_tokens": 10 + number % 50}
        whom: dict[str, Any] = {"user_id": f"u-{number % 50}", "session_id": f"s-{number % 200}"}
        if number % 3:
            call_id = self._tracker.record(provider="openai", model="gpt-4o-mini", **usage, **whom)
        else:
            call = self._tracker.admit(provider="openai", model="gpt-4o-mini", prompt="What?", max_tokens=60, **whom)
            call_id = call.record(**usage)
        self._notes.add("R", call_id)

    def embed(self, number: int) -> None:
        """An embedding, in a session of its own."""
        session = new_id()
        with self._tracker.conversation(user_id=f"u-{number % 50}", session_id=session):
            self._embeddings.embed_documents(["one", "two"])
        self._notes.add("E", session)

    async def loop(self, rate: float, done: threading.Event) -> None:
        """Calls on an event loop, ten at a time; of every ten one is cancelled."""
        due = time.monotonic()
        for number in itertools.count(step=10):
            if done.is_set():
                return
            slow = asyncio.ensure_future(self._slow.ainvoke("What?", self._config(number)))
            await asyncio.gather(
                *(self._model.ainvoke("What?", self._config(number + one)) for one in range(8)),
                self._astream(number),
            )
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            del slow
            due = max(due + 10 / rate, time.monotonic() - 1)
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def _astream(self, number: int) -> None:
        async for _ in self._model.astream("What?", self._config(number)):
            pass

    def start(self, rate: float, done: threading.Event) -> list[threading.Thread]:
        """So many calls a second, until `done`."""

        def paced(work: Callable[[int], None], rate: float) -> None:
            due = time.monotonic()
            for number in itertools.count():
                if done.is_set():
                    return
                work(number)
                due = max(due + 1 / rate, time.monotonic() - 1)  # what was missed is not all made up for
                time.sleep(max(due - time.monotonic(), 0))

        kinds = ("ask", "ask", "stream", "record", "embed")
        threads = [
            threading.Thread(
                target=paced,
                args=(getattr(self, kind), rate * SHARES[kind] / kinds.count(kind)),
                name=kind,
                daemon=True,
            )
            for kind in kinds
        ]
        threads.append(
            threading.Thread(
                target=lambda: asyncio.run(self.loop(rate * SHARES["loop"], done)), name="loop", daemon=True
            )
        )
        for thread in threads:
            thread.start()
        return threads

    def as_child(self, number: int) -> NoReturn:
        """The life of a forked child: a few calls of each kind, and one of five ends."""
        try:
            for one in range(number, number + 3):
                for work in (self.ask, self.record, self.embed, self.stream):
                    work(one)
            if number % 5 == 0:
                self._tracker.close(10)
            elif number % 5 == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            elif number % 5 == 2:
                DeadlyModel(responses=["never"]).invoke("What?", self._config(number))
            elif number % 5 == 3:
                self._tracker.flush(2)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of the parent's may be unwound here
            sys.excepthook(*sys.exc_info())
        os._exit(1)


class Children:
    """Forked children, each given a minute."""

    def __init__(self) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._alive: dict[int, float] = {}

    def fork(self, load: Load) -> None:
        """One more."""
        self.made += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is the point here
            child = os.fork()
        if child == 0:
            load.as_child(self.made)
        self._alive[child] = time.monotonic() + PATIENCE_S

    def reap(self) -> int:
        """Those that have ended; how many are alive."""
        for child, deadline in list(self._alive.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self._alive[child]
                code = os.waitstatus_to_exitcode(status)
                if code not in (0, -signal.SIGKILL):
                    self.failed.append(f"child {child} ended with {code}")
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGABRT)  # faulthandler says where it hangs
                self._alive[child] = float("inf")
        return len(self._alive)


@dataclass
class Sample:
    """What this process takes up."""

    at: float
    mib: float
    files: int
    threads: int


@dataclass
class Watch:
    """Samples, and whether they grow."""

    samples: list[Sample] = field(default_factory=list)

    def look(self, at: float) -> Sample:
        """One more sample."""
        self.samples.append(Sample(at, resident_mib(), open_files(), threading.active_count()))
        return self.samples[-1]

    def slope(self, of: Callable[[Sample], float]) -> float:
        """How much it grows in a minute, over the second half: the line through its samples."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return 0.0
        return statistics.linear_regression([sample.at / 60 for sample in half], [of(sample) for sample in half]).slope


def resident_mib() -> float:
    """Memory of this process; where the system does not say, the most it has had."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def open_files() -> int:
    """Open file descriptors of this process."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return len(os.listdir(folder)) - 1  # the folder's own


class Warnings(logging.Handler):
    """Counts what is logged, by its words."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.said[re.sub(r"[0-9]+", "#", record.getMessage())] += 1


def a_tracker(url: str, spool: Path) -> VitalTracker:
    """A tracker on that database, with that spool."""
    settings = Settings(spool_dir=spool, flush_interval_s=1.0, segment_bytes=1 << 20, organization_id="soak")
    return VitalTracker(PostgresStore(url), settings=settings)


def compare(url: str, notes: Notes, *, strays: bool) -> list[str]:
    """What is wrong with the rows. `strays`: children were killed at unknown points, so there may be rows without a note."""
    noted = notes.keys()
    wrong: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for kind, column, condition in (
            ("L", "run_id", "run_id is not null"),
            ("R", "id", "run_id is null and call_type <> 'embedding'"),
            ("E", "session_id", "call_type = 'embedding'"),
        ):
            rows = Counter(
                key for (key,) in connection.execute(f"select {column}::text from token_usage_logs where {condition}")
            )
            missing, more = noted[kind] - rows, rows - noted[kind]
            if missing:
                wrong.append(f"{missing.total()} of kind {kind} are missing, such as {next(iter(missing))}")
            twice = [key for key in more if key in noted[kind]]
            if twice:
                wrong.append(f"{len(twice)} of kind {kind} are there more than once, such as {twice[0]}")
            if more and not twice and not strays:
                wrong.append(
                    f"{more.total()} of kind {kind} are there that nobody has made, such as {next(iter(more))}"
                )
        merged = connection.execute("select count(*) from token_usage_logs where calls > 1").fetchone()
        if merged and merged[0]:
            wrong.append(f"{merged[0]} rows are merged ones")
    return wrong


def rows_in(url: str) -> int | None:
    """Rows in the database; None while it is away."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
        row = connection.execute("select count(*) from token_usage_logs").fetchone()
        return row[0] if row else 0
    return None


def statuses(url: str) -> list[tuple[str, int]]:
    """How many calls have ended how."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute("select status, count(*) from token_usage_logs group by 1 order by 2 desc").fetchall()


def run(minutes: float, rate: float, folder: Path) -> int:
    """The exit code."""
    said = Warnings()
    logging.getLogger("vital_tracking").addHandler(said)
    logging.getLogger("vital_tracking").propagate = False
    logging.getLogger("langchain_core.callbacks.manager").setLevel(
        logging.CRITICAL
    )  # it tells of every call that is stopped
    notes, spool, watch, children = Notes(folder / "calls"), folder / "spool", Watch(), Children()
    with a_database_server(BUDGETS) as (server, url):
        tracker = a_tracker(url, spool)
        load = Load(tracker, notes)
        # A child that is forked while another thread imports something finds a lock that nobody will ever give back.
        for number in range(12):
            for work in (load.ask, load.stream, load.record, load.embed):
                work(number)
        tracker.flush(60)
        done = threading.Event()
        threads = load.start(rate, done)
        print(f"{minutes:g} minutes, {rate:g} calls a second; Python {sys.version.split()[0]} on {sys.platform}\n")
        titles = ("s", "calls", "rows", "MiB", "files", "threads", "spool KiB", "waiting", "forks", "database")
        print("".join(f"{title:>10}" for title in titles), flush=True)
        started, busy = time.monotonic(), time.process_time()
        up, rows = True, 0
        next_fork, next_line, next_weather = FORK_EVERY_S, 0.0, OUTAGE_EVERY_S / 2
        seconds = minutes * 60
        for tick in itertools.count():
            time.sleep(max(started + tick - time.monotonic(), 0))
            at = time.monotonic() - started
            if at >= seconds:
                break
            sample = watch.look(at)
            children.reap()
            if at >= next_line:
                rows = (rows_in(url) if up else None) or rows
                stats = tracker.stats()
                values = (f"{at:.0f}", len(notes), rows, f"{sample.mib:.1f}", sample.files, sample.threads)
                more = (bytes_in(spool) >> 10, stats.waiting, children.made, "up" if up else "away")
                print("".join(f"{value:>10}" for value in (*values, *more)), flush=True)
                next_line += LINE_EVERY_S
            if at >= next_fork:
                children.fork(load)
                next_fork += FORK_EVERY_S
            if at >= next_weather:
                if up:
                    server.stop()
                else:
                    server.start()
                up = not up
                next_weather += OUTAGE_EVERY_S - OUTAGE_S if up else OUTAGE_S
        busy = (time.process_time() - busy) / (time.monotonic() - started)
        if not up:
            server.start()
        done.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        until = time.monotonic() + PATIENCE_S
        while children.reap() and time.monotonic() < until:
            time.sleep(0.1)
        wrong = list(children.failed)
        wrong += [f"thread {thread.name} hangs" for thread in threads if thread.is_alive()]
        if not tracker.flush(120).complete:
            wrong.append("what waits is not delivered in two minutes")
        stats = tracker.stats()
        tracker.close()
        with a_tracker(url, spool) as heir:
            if not heir._recorder.replay(120):
                wrong.append("what the children have left is not delivered in two minutes")
            replayed = stats.replayed + heir.stats().replayed
        wrong += compare(url, notes, strays=bool(wrong))
        if left := list(spool.rglob("*.segment")):
            wrong.append(f"{len(left)} segments are left in the spool, such as {left[0]}")
        if stats.faults or stats.dropped or stats.rejected or stats.merged or stats.damaged:
            wrong.append(f"not everything went well: {stats}")
        print(f"\n{len(notes)} calls, {rows_in(url)} rows, {children.made} children, {replayed} rows of dead ones;")
        print(", ".join(f"{count} {status}" for status, count in statuses(url)))
        print(f"{busy:.2f} of a core for this process")
    wrong += judged(watch, minutes)
    for words, count in said.said.items():
        print(f"logged {count} times: {words}")
    print("\n".join(wrong) if wrong else "every call is in the database exactly once")
    return 1 if wrong else 0


def judged(watch: Watch, minutes: float) -> list[str]:
    """What grows."""
    wrong: list[str] = []
    print("\ngrowth a minute, over the second half")
    for name, limit, of in (
        ("memory, MiB", MIB_A_MINUTE, lambda sample: sample.mib),
        ("open files", FILES_A_MINUTE, lambda sample: float(sample.files)),
        ("threads", FILES_A_MINUTE, lambda sample: float(sample.threads)),
    ):
        slope = watch.slope(of)
        too_short = minutes < JUDGED_MINUTES
        verdict = "flat" if slope <= limit else "too short to tell" if too_short else "GROWS"
        print(f"  {name:<14}{slope:>8.2f}   {verdict}")
        if verdict == "GROWS":
            wrong.append(f"{name.split(',')[0]} grow{'s' if name.startswith('memory') else ''}")
    return wrong


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """A folder of this run's own."""
    folder = Path(tempfile.mkdtemp(prefix="vital-soak-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=400, help="calls a second")
    options = parser.parse_args()
    faulthandler.enable()
    with a_folder() as folder:
        code = run(options.minutes, options.rate, folder)
    sys.exit(code)


if __name__ == "__main__":
    main()
