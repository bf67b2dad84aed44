"""Storms on budgets and delivery: do the promises hold when much goes wrong at once? Exit code 1 where one does not.

    python -m benchmarks.storms [--rounds 3]

Each round, on a throw-away PostgreSQL, in half a minute:

- overruns: three processes of four threads spend one budget with calls that cost three times what was thought, and overstep it by
  at most one call for each thread that was making one.
- budgets: three processes of eight threads spend six budgets at once, of organization, service, user, tier, agent and session,
  until all are stopped. Nothing may be spent beyond a limit, and every sum must be the sum of its calls.
- deaths: a process records calls while the database is away and is killed as its backlog goes out; another delivers what it has
  left. Each call must be there, once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.database import a_database, a_database_server
from vital_tracking import Agent, BudgetExceeded, Price, Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

_PROCESSES: Final = 3
_THREADS: Final = 8
_LIMIT: Final = Decimal("0.5")
# A cent a token: a call is thought to cost two.
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


def _tracker(url: str, folder: Path, name: str) -> VitalTracker:
    settings = Settings(spool_dir=folder / name, budget_deadline_s=60.0)
    return VitalTracker(PostgresStore(url), settings=settings, prices=[Price(**_PRICE)])


def _set_budget(url: str, **columns: str) -> None:
    store = PostgresStore(url)
    try:
        store.call("set_budget_v1", budget=json.dumps({"metric": "cost_usd", "action": "block", **columns}))
    finally:
        store.close()


def _spend(url: str, folder: str, name: str, threads: int, tokens: int) -> None:
    """In a process of its own: make calls, one after the other in each thread, until the budgets stop them all."""
    logging.disable(logging.WARNING)  # of alerts, which are as expected
    tracker = _tracker(url, Path(folder), name)

    def work(_: int) -> int:
        agent = Agent("a-1", tier="tier_1")
        for made in range(10_000):
            try:
                scope = {**_SCOPE, "agent": agent}
                with (
                    tracker.conversation(user_id="u-1", session_id="s-1", agent=agent),
                    tracker.admit(**_THOUGHT, **scope) as call,
                ):
                    call.record(prompt_tokens=1, completion_tokens=tokens - 1)
            except BudgetExceeded:
                return made
        return 10_000

    with ThreadPoolExecutor(threads) as pool:
        made = sum(pool.map(work, range(threads)))
    closed = tracker.close()
    print(json.dumps({"made": made, "complete": closed.complete, "faults": tracker.stats().faults}), flush=True)


def _spenders(url: str, folder: Path, *, processes: int, threads: int, tokens: int) -> list[dict[str, Any]]:
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.storms",
                "--spend",
                url,
                str(folder),
                str(number),
                str(threads),
                str(tokens),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    return [json.loads(job.communicate()[0]) for job in jobs]


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
    """Calls that cost three times what was thought: one call a thread may overstep the limit."""
    _set_budget(url, entity_type="user", entity_id="*", daily_limit=str(_LIMIT))
    tokens, threads = 6, 4
    done = _spenders(url, folder, processes=_PROCESSES, threads=threads, tokens=tokens)
    ((spent,),) = _rows(url, "select max(spent) from budget_windows")
    most = _LIMIT + Decimal(tokens) / 100 * _PROCESSES * threads
    print(f"  overruns: ${spent} of ${_LIMIT} spent by {sum(one['made'] for one in done)} calls, at most ${most}")
    if spent > most:
        yield f"${spent} were spent of ${_LIMIT}"
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
    if not made:
        yield "no call was made"
    yield from _audit(url)


def _record(url: str, folder: str, calls: str) -> None:
    """In a process of its own: record calls and say each id, then wait to be killed as they go out."""
    tracker = _tracker(url, Path(folder), "dying")
    for _ in range(int(calls)):
        print(tracker.record(**_THOUGHT_RECORD), flush=True)
    tracker.flush(0.05)
    print("done", flush=True)
    signal.pause()


_THOUGHT_RECORD: Final = {"provider": "storm", "model": "storm", "prompt_tokens": 1, "completion_tokens": 1}


def deaths(url: str, folder: Path, stop: Callable[[], Any], start: Callable[[], Any]) -> Iterator[str]:
    """Recorded in an outage, killed as the backlog goes out, delivered by another: each call once."""
    stop()
    job = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.storms", "--record", url, str(folder), "3000"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    ids = []
    for line in job.stdout:
        if line.strip() == "done":
            break
        ids.append(line.strip())
    start()
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    tracker = _tracker(url, folder, "dying")
    delivered = tracker.replay(120)
    tracker.close()
    ((rows, calls),) = _rows(url, "select count(*), count(distinct id) from token_usage_logs")
    print(f"  deaths: {len(ids)} recorded, {rows} rows of {calls} calls")
    if not delivered or (rows, calls) != (len(ids), len(ids)):
        yield f"of {len(ids)} calls {calls} are there, in {rows} rows"


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
            for storm in (overruns, budgets):
                with _a_folder() as folder:
                    problems += storm(a_database(server.url(), f"{storm.__name__}_{number}"), folder)
            with _a_folder() as folder:
                problems += deaths(a_database(server.url(), f"deaths_{number}"), folder, server.stop, server.start)
    for problem in problems:
        print(f"DID NOT HOLD: {problem}")
    print("all held" if not problems else f"{len(problems)} did not hold")
    return len(problems)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often (3)")
    parser.add_argument("--spend", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--record", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.spend:
        url, folder, name, threads, tokens = given.spend
        _spend(url, folder, name, int(threads), int(tokens))
    elif given.record:
        _record(*given.record)
    else:
        sys.exit(min(run(given.rounds), 1))


if __name__ == "__main__":
    main()
