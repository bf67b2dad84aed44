"""How processes end and threads fail: signals, shutdown, gunicorn, stuck and dead batch processors, and recorders that break."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.integration.helpers import Rows, record
from tests.support.folders import REPOSITORY
from tests.support.forked import Forked, run_forked
from tests.support.postgres import PostgresServer, free_port
from tests.support.spool_worker import Story
from tests.support.stores import WatchedStore, stored_ids
from tests.support.waiting import until
from vital_tracking import Settings, VitalTracker
from vital_tracking.delivery import batch_processor
from vital_tracking.delivery.batch_processor import BatchProcessor
from vital_tracking.delivery.memory_queue import MemoryQueue
from vital_tracking.delivery.recorder import Recorder
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.spool.disk_reader import SpoolReader
from vital_tracking.spool.disk_writer import SpoolWriter
from vital_tracking.stores.postgres import PostgresStore

NEVER_S = 3600.0

# Every script begins with this: a tracker that sends nothing for the passing of time, and a log of what it was told.
BEGINNING = """
import asyncio, atexit, logging, os, signal, sys, threading
from pathlib import Path
logging.basicConfig(level=logging.WARNING)
from tests.support.spool_worker import *

log = Log(Path(os.environ["CALLS"]))
tracker = open_tracker(flush_interval_s=3600)
for number in range(20):
    record(tracker, log, number)
ask(tracker, log, 1)
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """The log of the processes of this test."""
    return tmp_path / "calls"


@pytest.fixture
def environment(database_url: str, spool_dir: Path, calls: Path) -> dict[str, str]:
    """That of a process of this test."""
    return {
        "DATABASE": database_url,
        "SPOOL": str(spool_dir),
        "CALLS": str(calls),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(spool_dir.parent),
    }


Replay = Callable[[], None]


@pytest.fixture
def replay(make_tracker: Callable[..., VitalTracker], spool_dir: Path) -> Replay:
    """Delivers, through this process, what dead ones have left."""

    def deliver() -> None:
        heir = make_tracker(spool_dir=spool_dir)
        assert heir._recorder.replay(60)
        assert heir.close(60).complete
        assert not list(spool_dir.rglob("*.segment"))

    return deliver


def run(script: str, environment: dict[str, str], code: int = 0) -> str:
    """Run a script to its end; what it said."""
    done = run_forked([sys.executable, "-c", BEGINNING + script], REPOSITORY, environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def check_all_is_there(story: Story, rows: Rows, *more: str) -> None:
    """Every call of the log is stored once, with its end; `more` are the statuses of calls that were begun and not ended."""
    found = {row["run_id"] or str(row["id"]): row for row in rows()}
    assert len(found) == len(rows())
    ended = {**story.ended, **story.recorded}
    assert {
        key: (row["status"], row["prompt_tokens"], row["completion_tokens"])
        for key, row in found.items()
        if key in ended
    } == ended
    assert found.keys() - ended.keys() == story.started - ended.keys()
    assert sorted(found[key]["status"] for key in found.keys() - ended.keys()) == sorted(more)


# Service runs


RUNS = {
    "once its beginning is stored": "assert tracker.flush(60).complete",
    "before anything is stored": "",
    "and other calls have come since": """
assert tracker.flush(60).complete
for number in range(300):  # more than a segment holds
    record(tracker, log, number)
assert tracker.flush(60).complete
""",
}


@pytest.mark.parametrize("ended", RUNS)
def test_a_service_run_whose_process_was_killed_is_abandoned(
    ended: str, environment: dict[str, str], replay: Replay, rows: Rows
) -> None:
    """If this failed, it would be shown as running for ever, and nobody would know of the case that it has dropped."""
    script = f"""
tracker.close()
tracker = open_tracker(flush_interval_s=3600, segment_bytes=4096)
with tracker.workflow("done", user_id="u-1"):
    pass
outer = tracker.solution("case", user_id="u-1").__enter__()
inner = outer.workflow("intake").__enter__()
{RUNS[ended]}
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(script, environment, -signal.SIGKILL)
    found = "select service_name, status, ended_at >= started_at as in_order from service_runs order by service_name"
    stored = {row["service_name"]: row["status"] for row in rows(found)}
    assert stored == ({"done": "ok", "case": "running", "intake": "running"} if RUNS[ended] else {})
    replay()
    assert rows(found) == [
        {"service_name": "case", "status": "abandoned", "in_order": True},
        {"service_name": "done", "status": "ok", "in_order": True},
        {"service_name": "intake", "status": "abandoned", "in_order": True},
    ]


@pytest.mark.parametrize("spool", [True, False])
def test_a_service_run_that_is_open_when_its_tracker_closes_is_abandoned(
    spool: bool, make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """A thread that is still at work when the program ends never comes to the end of its scope."""
    tracker = make_tracker(spool=spool)
    scope = tracker.workflow("intake", user_id="u-1")
    scope.__enter__()
    with tracker.workflow("done"):
        pass
    assert tracker.close(60).complete
    found = rows("select service_name, status, ended_at is not null as over from service_runs order by 1")
    assert found == [
        {"service_name": "done", "status": "ok", "over": True},
        {"service_name": "intake", "status": "abandoned", "over": True},
    ]
    scope.__exit__(None, None, None)


def test_the_end_of_a_run_that_the_spool_could_not_take_is_not_made_an_abandoned_one(
    make_tracker: Callable[..., VitalTracker], spool_dir: Path, rows: Rows
) -> None:
    """Its beginning lies in the spool, and its end went through memory."""
    tracker = make_tracker(spool_dir=spool_dir)
    with tracker.workflow("intake"):
        writer = tracker._recorder.spool.writer  # type: ignore[union-attr]
        writer.fail(OSError(errno.ENOSPC, "no room"), None)
        writer._try_again_at = time.monotonic() + NEVER_S
    assert len(tracker._recorder._queue.waiting) == 1
    writer.room_again()
    assert tracker.flush(60).complete
    assert not writer.begun
    assert rows("select status from service_runs") == [{"status": "ok"}]


# Signals and shutdown


TERM = {
    "nobody handles it": ("", -signal.SIGTERM),
    "a handler calls sys.exit": ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
}


@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize("handling", TERM)
def test_sigterm_while_the_database_is_down_ends_in_time_and_loses_nothing(
    handling: str,
    waited: bool,
    environment: dict[str, str],
    database_url: str,
    postgres_server: PostgresServer,
    calls: Path,
    rows: Rows,
    replay: Replay,
) -> None:
    """If this failed, a deployment during an outage would hang until it is killed, or lose calls."""
    handler, code = TERM[handling]
    begun = (
        "tracker.flush(0.5)" if waited else ""
    )  # by then the batch processor knows that the database is away, or is at it
    script = f"{BEGINNING}{handler}\n{begun}\nprint('ready', flush=True)\nwhile True: signal.pause()"
    # Nobody listens at this port; the description, and so the spool, is that of the database that comes back.
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/absent"
    environment |= {
        "DATABASE": away,
        "DESCRIPTION": f"PostgreSQL at 127.0.0.1:{postgres_server.port}/{database_url.rpartition('/')[2]}",
    }
    process = Forked([sys.executable, "-c", script], REPOSITORY, environment)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    _, complaints = process.communicate(timeout=60)
    took = time.monotonic() - told
    print(f"{took:.1f} s")
    assert process.returncode == code, complaints
    assert took < 20, complaints  # it gives up after five seconds; ending Python takes long on a busy machine
    assert "Traceback" not in complaints
    if code > 0:
        assert "21 calls wait in the spool" in complaints
        assert environment["SPOOL"] in complaints
    replay()
    check_all_is_there(Story.read(calls), rows)


ENDS = {
    "os._exit right after": ("record(tracker, log, 5); os._exit(0)", ()),
    "an exit while a call is under way": (
        "threading.Thread(target=model_for(1, HangingModel).invoke, args=(PROMPT, "
        "{'callbacks': [tracker.handler, Witness(log)]}), daemon=True).start()\n"
        "while tracker.stats().in_flight < 1: pass",
        ("abandoned",),
    ),
    "os._exit while a call is under way": (
        "threading.Thread(target=model_for(1, HangingModel).invoke, args=(PROMPT, "
        "{'callbacks': [tracker.handler, Witness(log)]}), daemon=True).start()\n"
        "while tracker.stats().in_flight < 1: pass\n"
        "import time; time.sleep(0.05)\n"
        "os._exit(0)",
        ("abandoned",),
    ),
    "an event loop closed with calls in flight": (
        "loop = asyncio.new_event_loop()\n"
        "async def begin():\n"
        "    global pending\n"
        "    config = {'callbacks': [tracker.handler, Witness(log)]}\n"
        "    pending = [asyncio.ensure_future(model_for(n, SlowModel).ainvoke(PROMPT, config)) for n in range(3)]\n"
        "    while tracker.stats().in_flight < 3: await asyncio.sleep(0)\n"
        "loop.run_until_complete(begin())\n"
        "for task in pending: task._log_destroy_pending = False\n"
        "loop.close()",
        ("abandoned",) * 3,
    ),
    "asyncio.run cut short": (
        "async def begin():\n"
        "    config = {'callbacks': [tracker.handler, Witness(log)]}\n"
        "    asyncio.ensure_future(model_for(1, SlowModel).ainvoke(PROMPT, config))\n"
        "    while tracker.stats().in_flight < 1: await asyncio.sleep(0)\n"
        "asyncio.run(begin())",
        ("cancelled",),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_calls_that_were_begun_or_ended_right_before_the_end_are_stored(
    end: str, environment: dict[str, str], calls: Path, rows: Rows, replay: Replay
) -> None:
    """If this failed, the calls of a program's last moments would be missing from the bill."""
    script, unended = ENDS[end]
    run(script, environment)
    replay()
    check_all_is_there(Story.read(calls), rows, *unended)


def test_a_daemon_thread_that_records_through_the_shutdown_loses_nothing(
    environment: dict[str, str], calls: Path, rows: Rows, replay: Replay
) -> None:
    """If this failed, a program would end with a traceback, or lose calls that it had recorded before it began to end."""
    said = run(
        """
def forever():
    number = 0
    while True:
        number += 1
        record(tracker, log, number)
        ask(tracker, log, 1)
        if number == 50:
            busy.set()

busy = threading.Event()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
busy.wait(30)
record(tracker, log, 4999)  # the last call before the end
""",
        environment,
    )
    assert "Exception" not in said
    replay()
    lines = calls.read_text().splitlines()
    last = next(number for number, line in enumerate(lines) if line.endswith(" 5099 50"))
    found = {row["run_id"] or str(row["id"]) for row in rows()}
    assert len(found) == len(rows())
    before = calls.with_name("before")
    before.write_text("\n".join(lines[: last + 1]))
    story = Story.read(before)
    assert story.ended.keys() | story.recorded.keys() <= found
    after = Story.read(calls)
    late = (after.ended.keys() | after.recorded.keys() | after.started) - found
    assert not late or "the tracker is closed" in said  # what came too late is not passed over in silence


# gunicorn


@pytest.fixture
def gunicorn(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A gunicorn with two workers and the application of `spool_app`, preloaded; and its port."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--graceful-timeout", "20", "--no-control-socket", "tests.support.spool_app:application"],
            env=environment,
            cwd=REPOSITORY,
            stdout=said,
            stderr=said,
            text=True,
        )
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def get(port: int, path: str, timeout: float = 30) -> int:
    """Ask the application; the process that has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return int(connection.getresponse().read())
    finally:
        connection.close()


def is_up(port: int) -> bool:
    try:
        return get(port, "/call") > 0
    except OSError:
        return False


def test_gunicorn_with_a_preloaded_tracker_loses_nothing(
    gunicorn: tuple[subprocess.Popen[str], int], calls: Path, rows: Rows, replay: Replay, tmp_path: Path
) -> None:
    """If this failed, the usual way to serve Python would lose calls when it is deployed anew, or when a worker dies."""
    master, port = gunicorn
    until(lambda: is_up(port), 60)
    until(lambda: len({get(port, "/call") for _ in range(8)}) == 2, 60)  # both workers are at it

    def hang() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            get(port, "/hang", 120)

    hanging = threading.Thread(target=hang)
    hanging.start()

    def hangs() -> bool:
        story = Story.read(calls)
        return len(story.started - story.ended.keys()) == 1

    until(hangs, 30)
    alive = {get(port, "/call") for _ in range(8)}
    assert len(alive) == 1  # a worker does one thing at a time
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
    victim = ({int(child) for child in children} - alive).pop()
    os.kill(victim, signal.SIGKILL)
    hanging.join(30)
    # The one that takes its place finds what it has left.
    query = "select status, count(*) as calls from token_usage_logs group by 1"
    until(lambda: get(port, "/call") and {row["status"]: row["calls"] for row in rows(query)}.get("abandoned") == 1, 60)
    for _ in range(20):
        get(port, "/call")
    master.terminate()
    assert master.wait(60) == 0
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said
    assert "spool" not in said
    check_all_is_there(Story.read(calls), rows, "abandoned")
    replay()  # finds nothing more
    check_all_is_there(Story.read(calls), rows, "abandoned")


# The thread of the batch processor


@pytest.fixture
def watched(database_url: str) -> Iterator[WatchedStore]:
    store = WatchedStore(PostgresStore(database_url))
    yield store
    store.go.set()
    store.close()


Track = Callable[..., VitalTracker]


@pytest.fixture
def track(watched: WatchedStore, spool_dir: Path) -> Iterator[Track]:
    """Makes trackers on the watched store."""
    made: list[VitalTracker] = []

    def make(**settings: Any) -> VitalTracker:
        options = {"flush_interval_s": NEVER_S, "spool_dir": spool_dir, "budgets": False, **settings}
        made.append(VitalTracker(watched, settings=Settings(**options)))
        return made[-1]

    yield make
    watched.go.set()
    for tracker in made:
        tracker.close()


@pytest.mark.parametrize("background", [True, False])
def test_flush_keeps_its_time_while_delivery_is_stuck(
    background: bool, watched: WatchedStore, track: Track, rows: Rows
) -> None:
    """If this failed, a request that flushes at its end would hang with the database, or be told a lie."""
    tracker = track(background=background)
    ids = record(tracker, 5)
    assert tracker.flush(30).inserted == 5
    watched.go.clear()
    watched.entered.clear()
    ids += record(tracker, 7)
    for _ in range(2):
        started = time.monotonic()
        delivered = tracker.flush(1.5)
        assert 1.4 < time.monotonic() - started < 2.0
        assert watched.entered.is_set()
        assert (delivered.complete, delivered.inserted, delivered.waiting, delivered.spooled) == (False, 5, 7, 7)
        assert delivered.dropped == 0
    watched.go.set()
    delivered = tracker.flush(30)
    assert (delivered.complete, delivered.inserted, delivered.duplicate, delivered.waiting) == (True, 12, 0, 0)
    assert stored_ids(rows) == sorted(ids)


def test_without_background_there_is_no_thread_of_ours(
    make_tracker: Callable[..., VitalTracker], rows: Rows, spool_dir: Path
) -> None:
    """If this failed, a serverless function would be frozen in the middle of what a thread of ours does."""
    before = set(threading.enumerate())

    def our_threads() -> list[str]:
        """Threads of ours; the driver's pool has its own, which wait for nothing but its connections."""
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        return [name for name in names if name.startswith("vital-tracking")]

    tracker = make_tracker(background=False, budgets=False, spool_dir=spool_dir, flush_interval_s=0.01, batch_size=1)
    ids: list[str] = []
    model = FakeUsageModel(responses=["Well."])
    for _ in range(3):
        ids += record(tracker, 150)
        model.invoke("Hi", {"callbacks": [tracker.handler]})
        assert our_threads() == []
        assert tracker.flush(30).complete
        until(lambda: our_threads() == [], 10)
    found = rows()
    assert {str(row["id"]) for row in found if row["run_id"] is None} == set(ids)
    assert len(found) == 453
    tracker.close()
    assert our_threads() == []


@pytest.mark.parametrize("background", [True, False])
def test_flush_delivers_where_no_thread_can_be_started(
    background: bool, track: Track, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a platform without threads, or a process at its limit of them, would never deliver."""
    tracker = track(background=background, batch_size=10)
    assert tracker.flush(30).complete  # the store's own pool has its thread by now
    tracker.store.call("database_time_v1")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("vital-tracking"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ids = record(tracker, 30)
    FakeUsageModel(responses=["Well."]).invoke("Hi", {"callbacks": [tracker.handler]})
    delivered = tracker.flush(30)
    assert (delivered.complete, delivered.inserted, delivered.dropped) == (True, 31, 0)
    assert set(ids) < set(stored_ids(rows))
    assert len(stored_ids(rows)) == 31


def writer_thread(tracker: VitalTracker) -> threading.Thread:
    thread = tracker._recorder._writer._thread
    assert thread is not None
    return thread


DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@DIES
@pytest.mark.parametrize("then", ["put", "flush"])
def test_a_dead_delivery_thread_is_replaced(then: str, track: Track, watched: WatchedStore, rows: Rows) -> None:
    """If this failed, a thread that dies of anything would be the end of delivery until the program is restarted."""
    tracker = track(batch_size=10)
    ids: list[str] = []
    for _ in range(5):
        watched.go.clear()
        watched.entered.clear()
        ids += record(tracker, 10)
        assert watched.entered.wait(30)
        thread = writer_thread(tracker)
        watched.dying = thread
        watched.go.set()  # it dies with a batch in its hands
        thread.join(30)
        assert not thread.is_alive()
        if then == "put":
            ids += record(tracker, 1)
            until(lambda: stored_ids(rows) == sorted(ids), 30)  # noqa: B023 - asked at once
        assert tracker.flush(30).complete
        assert writer_thread(tracker).is_alive()
        assert writer_thread(tracker) is not thread
    assert stored_ids(rows) == sorted(ids)


class FatalQueue(SimpleQueue[None]):
    """Ends the thread `dying` as soon as it is woken."""

    dying: threading.Thread | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        super().get(block, timeout)
        if threading.current_thread() is FatalQueue.dying:
            raise SystemExit


@DIES
def test_a_delivery_thread_that_dies_as_it_is_woken_is_replaced(
    track: Track, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a flush would wait to its end for a thread that is no more."""
    monkeypatch.setattr(batch_processor, "SimpleQueue", FatalQueue)
    monkeypatch.setattr(FatalQueue, "dying", None)
    tracker = track()
    ids: list[str] = []
    for _ in range(3):
        ids += record(tracker, 3)
        assert tracker.flush(30).complete
        ids += record(tracker, 3)
        FatalQueue.dying = thread = writer_thread(tracker)  # it sleeps, and dies when the flush wakes it
        assert tracker.flush(30).complete
        thread.join(30)
        assert not thread.is_alive()
    assert stored_ids(rows) == sorted(ids)


# A recorder that breaks


# What breaks, and for what no exception can be let out: everything that the paths of a model call come by.
BREAKABLE: dict[str, dict[Any, tuple[str, ...]]] = {
    "what is called": {Recorder: ("put", "put_held", "opened", "begun", "refuse")},
    "spool": {SpoolWriter: ("append", "_ready", "end"), SpoolReader: ("read", "ack")},
    "spool and queue": {SpoolWriter: ("append",), MemoryQueue: ("put",)},
    "batch processor": {BatchProcessor: ("notice", "start", "_start")},
}


class Broken(Exception):
    """A fault of ours."""


def broken(*_: Any, **__: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("part", BREAKABLE)
async def test_a_recorder_that_breaks_changes_no_answer(
    part: str, make_tracker: Callable[..., VitalTracker], spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a fault of ours would reach the users of the application whose calls are recorded."""
    for owner, names in BREAKABLE[part].items():
        for name in names:
            monkeypatch.setattr(owner, name, broken)
    tracker = make_tracker(spool_dir=spool_dir)
    config: Any = {"callbacks": [tracker.handler]}
    model = FakeUsageModel(responses=["Well."])
    assert model.invoke("Hi", config).content == "Well."
    assert (await model.ainvoke("Hi", config)).content == "Well."
    assert "".join(str(chunk.content) for chunk in model.stream("Hi", config)) == "Well."
    assert "".join([str(chunk.content) async for chunk in model.astream("Hi", config)]) == "Well."
    assert await asyncio.to_thread(tracker.record, provider="openai", model="gpt-4o-mini", prompt_tokens=1)
    if part != "what is called":
        tracker.admit(provider="openai", model="gpt-4o-mini", prompt="Hi").record(prompt_tokens=1, completion_tokens=1)
        tracker.admit(provider="openai", model="gpt-4o-mini", prompt="Hi").release()
    assert tracker.stats().faults > 0
    monkeypatch.undo()
