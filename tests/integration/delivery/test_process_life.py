"""Processes begin, fork and end; each call is stored once, by the process that made it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import REPOSITORY
from tests.support.forked import Forked, run_forked
from tests.support.postgres import PostgresServer, free_port

Rows = Callable[..., list[dict[str, Any]]]

# Every script begins with this: a tracker that sends nothing for the passing of time, with a thread and a connection.
BEGINNING = """
import logging, multiprocessing, os, signal, sys, threading, warnings
warnings.filterwarnings("error", category=ResourceWarning)
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

logging.basicConfig(level=logging.WARNING)
from pathlib import Path
settings = Settings(flush_interval_s=3600, spool_dir=Path(os.environ["SPOOL"]))
tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=settings)

def record(who, count=1):
    for _ in range(count):
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=10, completion_tokens=1, user_id=who)
"""


@pytest.fixture
def run(database_url: str, spool_dir: Path) -> Callable[..., str]:
    """Runs a script to its end and gives what it said."""

    def execute(script: str, *, database: str = database_url, timeout: float = 60, code: int = 0) -> str:
        environment = {"DATABASE": database, "SPOOL": str(spool_dir), "PATH": ""}
        done = run_forked([sys.executable, "-c", BEGINNING + script], REPOSITORY, environment, timeout=timeout)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return execute


@pytest.fixture
def recorded(rows: Rows) -> Callable[[], dict[str, int]]:
    """How many calls are stored for each user."""

    def count() -> dict[str, int]:
        found = rows("select user_id, count(*) as calls from token_usage_logs group by 1 order by 1")
        return {row["user_id"]: row["calls"] for row in found}

    return count


Run = Callable[..., str]
Recorded = Callable[[], dict[str, int]]

ENDS = {
    "falls off the end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError", 1),
    "sys.exit in a thread beside": ("threading.Thread(target=lambda: sys.exit(1)).start()", 0),
    "the tracker's name is gone": ("del tracker\nimport gc; gc.collect()", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_calls_still_queued_are_stored_at_the_end(run: Run, recorded: Recorded, end: str) -> None:
    """If this failed, every short script would lose its last calls."""
    script, code = ENDS[end]
    run(f"record('u', 42)\n{script}", code=code)
    assert recorded() == {"u": 42}


def test_a_script_ends_in_time_while_the_database_is_down(run: Run) -> None:
    """If this failed, a batch job would hang at its end until somebody kills it."""
    started = time.monotonic()
    said = run("record('u', 42)", database=f"postgresql://postgres@127.0.0.1:{free_port()}/absent")
    assert time.monotonic() - started < 20  # five seconds for the calls, the rest for starting Python on a busy machine
    assert "42 calls wait in the spool" in said
    assert "Traceback" not in said


FORK = """
record('before', 5)
assert tracker.flush(30).inserted == 5
record('parent queued', 7)
child = os.fork()
if child == 0:
    record('child', 3)
    {child}
record('parent after', 11)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == {code}
delivered = tracker.flush(30)
assert (delivered.inserted, delivered.duplicate) == (5 + 7 + 11, 0), delivered
"""
FORKED = {"before": 5, "parent queued": 7, "parent after": 11}

CHILD_ENDS = {
    "sys.exit": ("sys.exit(0)", 0, 3),
    "flush and os._exit": ("assert tracker.flush(30).inserted == 3; os._exit(0)", 0, 3),
    "close and os._exit": ("assert tracker.close().inserted == 3; os._exit(0)", 0, 3),
    "an exception": ("raise ValueError", 1, 3),
    "a thread in the child": (
        "worker = threading.Thread(target=record, args=('child', 2)); worker.start(); worker.join(); sys.exit(0)",
        0,
        5,
    ),
}


@pytest.mark.parametrize("end", CHILD_ENDS)
def test_a_forked_child_stores_its_own_calls_once_and_no_others(run: Run, recorded: Recorded, end: str) -> None:
    """If this failed, a pre-forking server would lose its workers' calls, or store the parent's once per worker."""
    child, code, calls = CHILD_ENDS[end]
    run(FORK.format(child=child, code=code))
    assert recorded() == {**FORKED, "child": calls}


def test_a_fork_while_the_parent_is_sending_mixes_nothing_up(run: Run, recorded: Recorded) -> None:
    """If this failed, a fork at a bad moment would hang the child or break the parent's connection."""
    run(
        """
children = []
for number in range(6):
    record('parent', 150)
    child = os.fork()
    if child == 0:
        record('child', 20)
        assert tracker.flush(30).complete
        sys.exit(0)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
assert tracker.flush(30).complete
"""
    )
    assert recorded() == {"parent": 900, "child": 120}


def test_grandchildren_store_their_own_calls(run: Run, recorded: Recorded) -> None:
    """If this failed, a worker that forks workers would lose theirs."""
    run(
        """
record('parent', 2)
child = os.fork()
if child == 0:
    record('child', 3)
    grandchild = os.fork()
    if grandchild == 0:
        record('grandchild', 4)
        sys.exit(0)
    assert os.waitpid(grandchild, 0)[1] == 0
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert recorded() == {"parent": 2, "child": 3, "grandchild": 4}


def test_children_of_multiprocessing_store_their_calls(run: Run, recorded: Recorded) -> None:
    """If this failed, calls made in a `multiprocessing` worker would be lost: its children run no atexit functions."""
    run(
        """
record('parent', 2)
context = multiprocessing.get_context('fork')
workers = [context.Process(target=record, args=(f'worker {number}', 3)) for number in range(3)]
for worker in workers:
    worker.start()
record('parent', 2)
for worker in workers:
    worker.join()
assert [worker.exitcode for worker in workers] == [0, 0, 0]
"""
    )
    assert recorded() == {"parent": 4, "worker 0": 3, "worker 1": 3, "worker 2": 3}


def test_a_pool_of_processes_stores_its_calls(run: Run, recorded: Recorded) -> None:
    """If this failed, calls made through a process pool would be lost."""
    run(
        """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:
    list(pool.map(record, ['pool'] * 10))
"""
    )
    assert recorded() == {"pool": 10}


def test_a_child_that_never_calls_leaves_the_parent_alone(run: Run, recorded: Recorded) -> None:
    """If this failed, every `subprocess`-like fork would close the parent's connection."""
    run(
        """
record('parent', 2)
assert tracker.flush(30).complete
for _ in range(5):
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    record('parent', 2)
    assert tracker.flush(30).complete
"""
    )
    assert recorded() == {"parent": 12}


def test_a_server_that_comes_back_before_the_end_gets_everything(
    database_url: str, recorded: Recorded, postgres_server: PostgresServer, spool_dir: Path
) -> None:
    """If this failed, a program that ends shortly after an outage would lose what it had kept."""
    postgres_server.stop()
    try:
        script = f"{BEGINNING}record('u', 120)\nprint('recorded', flush=True)\nsys.stdin.read()"
        environment = {"DATABASE": database_url, "SPOOL": str(spool_dir), "PATH": ""}
        program = Forked([sys.executable, "-c", script], REPOSITORY, environment)
        assert program.stdout.readline() == "recorded\n"
    finally:
        postgres_server.start()
    _, said = program.communicate("", timeout=60)
    assert program.returncode == 0, said
    assert recorded() == {"u": 120}, said
