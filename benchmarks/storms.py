"""Storms on budgets and delivery: do the promises hold when much goes wrong at once? Exit code 1 where one does not.

    python -m benchmarks.storms [--rounds 3]

Each round, on a throw-away PostgreSQL, in a minute:

- overruns: three processes of four threads spend one budget with calls that cost three times what was thought. Each process makes
  one before its threads begin, from which it learns that; they overstep the limit by at most one call a process.
- budgets: three processes of eight threads spend six budgets at once, of organization, service, user, tier, agent and session,
  until all are stopped. The least of them must be spent to its last call and no further, nothing of it may stay set aside, and
  every sum must be the sum of its calls.
- deaths: a process on a machine whose clock is ten seconds off makes calls of all kinds while the database is away, and is killed
  in the middle of its backlog; another delivers what it has left. Each call must be there, once.
- full disk: the same, but halfway the disk of the spool is full. What waits in memory may go with it; none is there twice.
- clocks: three processes spend one budget while their machines' clocks are set by days, forward and back. It must be spent to its
  last call and no further, and every call must lie in the database's own day.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks import stepped_clock
from benchmarks.database import a_database, a_database_server
from vital_tracking import Agent, BudgetExceeded, Price, Settings, VitalTracker
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.stores.postgres import PostgresStore

_PROCESSES: Final = 3
_THREADS: Final = 8
_LIMIT: Final = Decimal("3")
# A cent a token: a call is thought to cost two.
_COST: Final = Decimal("0.02")
_PRICE: Final = {"model": "storm", "input": "10000", "output": "10000"}
_THOUGHT: Final = {"provider": "storm", "model": "storm", "prompt_tokens": 1, "max_tokens": 1}
_SCOPE: Final = {"organization_id": "acme", "user_id": "u-1", "session_id": "s-1", "agent": "a-1"}
_ENTITIES: Final = (
    ("organization", "acme"),
    ("service", "1:1_conversation"),
    ("user", "u-1"),
    ("tier", "tier_1"),
    ("agent", "a-1"),
    ("session", "s-1"),
)


def _tracker(url: str, folder: Path, name: str, **more: Any) -> VitalTracker:
    settings = Settings(spool_dir=folder / name, budget_deadline_s=60.0, **more)
    return VitalTracker(PostgresStore(url), settings=settings, prices=[Price(**_PRICE)])


def _set_budget(url: str, **columns: str) -> None:
    store = PostgresStore(url)
    try:
        store.call("set_budget_v1", budget=json.dumps({"metric": "cost_usd", "action": "block", **columns}))
    finally:
        store.close()


_DAYS: Final = (2.0, -2.0, 0.5, -40.0, 0.0)

# A process whose clock can be set: that comes before all other imports.
_WITH_A_CLOCK: Final = (
    "from benchmarks import stepped_clock; stepped_clock.install(); from benchmarks.storms import main; main()"
)


def _spend(url: str, folder: str, name: str, threads: int, tokens: int, steps: bool) -> None:
    """In a process of its own: make a call, then others, one after the other in each thread, until the budgets stop them all.

    With `steps` its clock is set with every other call of its first thread.
    """
    logging.disable(logging.WARNING)  # of alerts, which are as expected
    tracker = _tracker(url, Path(folder), name)
    agent = Agent("a-1", tier="tier_1")

    def call() -> bool:
        scope = {**_SCOPE, "agent": agent}
        try:
            with (
                tracker.conversation(user_id="u-1", session_id="s-1", agent=agent),
                tracker.admit(**_THOUGHT, **scope) as admitted,
            ):
                admitted.record(prompt_tokens=1, completion_tokens=tokens - 1)
        except BudgetExceeded:
            return False
        return True

    def work(number: int) -> int:
        made = 0
        while made < 10_000 and call():
            made += 1
            if steps and number == 0 and made % 2:
                stepped_clock.step(86_400 * _DAYS[made // 2 % len(_DAYS)])
        return made

    made = int(call())
    with ThreadPoolExecutor(threads) as pool:
        made += sum(pool.map(work, range(threads)))
    closed = tracker.close()
    print(json.dumps({"made": made, "complete": closed.complete, "faults": tracker.stats().faults}), flush=True)


def _spenders(
    url: str, folder: Path, *, processes: int, threads: int, tokens: int, steps: bool = False
) -> list[dict[str, Any]]:
    program = ["-c", _WITH_A_CLOCK] if steps else ["-m", "benchmarks.storms"]
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                *program,
                "--spend",
                url,
                str(folder),
                str(number),
                str(threads),
                str(tokens),
                "steps" if steps else "",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    return [json.loads(job.communicate()[0]) for job in jobs]


def _ended_badly(done: list[dict[str, Any]]) -> list[str]:
    """What went wrong in the processes that have spent."""
    return [f"a process met faults, or left something: {one}" for one in done if one["faults"] or not one["complete"]]


def _rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def _audit(url: str) -> list[str]:
    store = PostgresStore(url)
    try:
        return [f"a sum is wrong: {found}" for found in store.call("audit_budgets_v1")["differences"]]
    finally:
        store.close()


def overruns(url: str, folder: Path) -> Iterator[str]:
    """Calls that cost three times what was thought: one call a process may overstep the limit."""
    tokens, cost = 6, 3 * _COST
    _set_budget(url, entity_type="user", entity_id="*", daily_limit=str(_LIMIT))
    done = _spenders(url, folder, processes=_PROCESSES, threads=4, tokens=tokens)
    ((spent,),) = _rows(url, "select max(spent) from budget_windows")
    least, most = _LIMIT - _PROCESSES * cost, _LIMIT + _PROCESSES * cost
    print(f"  overruns: ${spent} of ${_LIMIT} spent by {sum(one['made'] for one in done)} calls, at most ${most}")
    if not least <= spent <= most:
        yield f"${spent} were spent of ${_LIMIT}"
    yield from _ended_badly(done)
    yield from _audit(url)


def budgets(url: str, folder: Path) -> Iterator[str]:
    """Six budgets at once, of calls whose cost is known: not a cent too much."""
    for number, (entity, name) in enumerate(_ENTITIES):
        limit = str(_LIMIT + Decimal(number) / 10)
        _set_budget(url, entity_type=entity, entity_id=name, daily_limit=limit, monthly_limit=limit)
    done = _spenders(url, folder, processes=_PROCESSES, threads=_THREADS, tokens=2)
    found = _rows(url, "select spent, granted, limit_amount from budget_windows")
    over = [row for row in found if row[0] + row[1] > row[2]]
    made = sum(one["made"] for one in done)
    print(
        f"  budgets: {made} calls, {len(found)} windows, ${max(row[0] for row in found)} spent, {len(over)} overspent"
    )
    if over:
        yield f"windows are overspent: {over}"
    if made != _LIMIT / _COST:
        yield f"{made} calls were made where the money is for {_LIMIT / _COST:.0f}"
    if kept := [row for row in found if row[1]]:
        yield f"money was not given back: {kept}"
    yield from _ended_badly(done)
    yield from _audit(url)


def clocks(url: str, folder: Path) -> Iterator[str]:
    """Clocks that are set by days while calls of known cost are made: not a cent too much, and no call in another day."""
    _set_budget(url, entity_type="user", entity_id="*", daily_limit=str(_LIMIT))
    done = _spenders(url, folder, processes=_PROCESSES, threads=_THREADS, tokens=2, steps=True)
    found = _rows(url, "select spent, granted, limit_amount from budget_windows")
    ((astray,),) = _rows(
        url, "select count(*) from token_usage_logs where abs(extract(epoch from created_at - now())) > 3600"
    )
    spent = sum(row[0] for row in found)
    made = sum(one["made"] for one in done)
    print(f"  clocks: {made} calls, {len(found)} windows, ${spent} of ${_LIMIT} spent, {astray} in another day")
    # At midnight, by the database's clock, there is a second window.
    too_few = made < _LIMIT / _COST
    if too_few or astray or any(row[0] + row[1] > row[2] for row in found):
        yield f"${spent} of ${_LIMIT} were spent in {len(found)} windows by {made} calls, {astray} in another day"
    yield from _ended_badly(done)
    yield from _audit(url)


def _fill_disk(folder: Path) -> None:
    """No file of this process may grow any more."""
    longest = max(path.stat().st_size for path in folder.rglob("*.segment"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(longest, 4096), resource.RLIM_INFINITY))


def _record(url: str, folder: str, calls: str, full: str) -> None:
    """In a process of its own, on a machine whose clock is off: make calls of all kinds, and wait to be killed as they go out.

    With `full` the disk is full after half of them; then it says so.
    """
    logging.disable(logging.WARNING)  # of the database and the disk, which are as expected
    stepped_clock.step(_OFF_S)
    tracker = _tracker(url, Path(folder), "dying", batch_size=50, max_batch_size=50, budgets=False)
    model = FakeUsageModel(responses=["Well."])
    used = {"prompt_tokens": 1, "completion_tokens": 1}
    for number in range(int(calls) // 3):
        if full and number == int(calls) // 6:
            _fill_disk(Path(folder))
        model.invoke("Hi", {"callbacks": [tracker.handler]})
        tracker.record(provider="storm", model="storm", **used)
        tracker.admit(**_THOUGHT).record(**used)
    print("made", flush=True)
    tracker.flush(120)
    signal.pause()


_OFF_S: Final = 10.0
_CALLS: Final = 3000


def deaths(
    url: str, folder: Path, stop: Callable[[], Any], start: Callable[[], Any], *, full: bool = False
) -> Iterator[str]:
    """Made in an outage, killed in the middle of the backlog, delivered by another: each call once.

    With `full` the disk is full halfway, so that the rest waits in memory and goes with the process, where it was not sent.
    """
    stop()
    job = subprocess.Popen(
        [sys.executable, "-c", _WITH_A_CLOCK, "--record", url, str(folder), str(_CALLS), "full" if full else ""],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    job.stdout.readline()
    start()
    while not (sent := _stored(url)) and job.poll() is None:
        time.sleep(0.002)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    sent = _stored(url)
    tracker = _tracker(url, folder, "dying")
    delivered = tracker.replay(120)
    tracker.close()
    ((rows, calls),) = _rows(url, "select count(*), count(distinct id) from token_usage_logs")
    print(
        f"  {'full disk' if full else 'deaths'}: {_CALLS} made, {sent} sent, then killed: {rows} rows of {calls} calls"
    )
    if not 0 < sent < _CALLS // 2:
        yield f"{sent} of {_CALLS} calls had been sent when the process was killed: that proves nothing"
    if not delivered or rows != calls or not (_CALLS // 2 if full else _CALLS) <= calls <= _CALLS:
        yield f"of {_CALLS} calls {calls} are there, in {rows} rows"


def _stored(url: str) -> int:
    ((stored,),) = _rows(url, "select count(*) from token_usage_logs")
    return int(stored)


@contextmanager
def _a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vital-storm-") as name:
        yield Path(name)


def run(rounds: int) -> int:
    """All storms, so often; the number of things that did not hold."""
    problems: list[str] = []
    with a_database_server() as (server, _):
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            for storm in (overruns, budgets, clocks):
                with _a_folder() as folder:
                    problems += storm(a_database(server.url(), f"{storm.__name__}_{number}"), folder)
            for full in (False, True):
                with _a_folder() as folder:
                    url = a_database(server.url(), f"deaths_{number}_{int(full)}")
                    problems += deaths(url, folder, server.stop, server.start, full=full)
    for problem in problems:
        print(f"DID NOT HOLD: {problem}")
    print("all held" if not problems else f"{len(problems)} did not hold")
    return len(problems)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often (3)")
    parser.add_argument("--spend", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--record", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.spend:
        url, folder, name, threads, tokens, steps = given.spend
        _spend(url, folder, name, int(threads), int(tokens), bool(steps))
    elif given.record:
        _record(*given.record)
    else:
        sys.exit(min(run(given.rounds), 1))


if __name__ == "__main__":
    main()
