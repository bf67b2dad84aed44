"""What it costs to ask the budgets before a call: in the calling thread, at the database, and with many callers at once.

    python -m benchmarks.admission [--rounds 15] [--seconds 0.2] [--json FILE]

Interleaved rounds, medians, one run on one throw-away PostgreSQL on this machine, which does not wait for its disk: that
favours whoever asks it for every call. Machines are noisy: read the ratios.

  in hand   admissions that the grants of this process cover: microseconds in the calling thread, by windows
  miss      admissions that ask the database: milliseconds until the answer, of a user who has never called before, and of one
            whose budget is so near its limit that every call asks
  hot       admissions a second on one budget of an organization that everybody shares, by three ways: `grants` is ours;
            `row lock` updates the budget's row for every admission, by one SQL function call; `check, then add` reads the row,
            compares, and adds to it, which is wrong: the last table shows by how much
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.database import a_database_server
from benchmarks.figures import with_json, write
from vital_tracking import BudgetExceeded, Settings, VitalTracker
from vital_tracking.budgets.admission import Request
from vital_tracking.context import CallContext
from vital_tracking.stores.postgres import PostgresStore

WAYS = ("grants", "row lock", "check, then add")
THREADS = (1, 8, 32)  # in one process
PROCESSES = (1, 4, 8)  # with THREADS_EACH threads
THREADS_EACH = 4
LIMIT = 500  # calls, where the overshoot is measured
ENDLESS = "1000000000000"

SQL = """
create table hot (id integer primary key, spent bigint not null, limit_amount bigint not null);
insert into hot values (1, 0, 1000000000000), (2, 0, 0);
create function reserve(budget integer) returns boolean language sql as $$
  with taken as (update hot set spent = spent + 1 where id = budget and spent < limit_amount returning 1)
  select exists (select from taken)
$$;
create function has_room(budget integer) returns boolean language sql as $$
  select spent < limit_amount from hot where id = budget
$$;
create function add(budget integer) returns void language sql as $$
  update hot set spent = spent + 1 where id = budget
$$;
"""


# Far from their limits, but for those of the organization `limited` and of users who are named `near-...`.
BUDGETS = [
    {"metric": "calls", "action": "block", **columns}
    for columns in (
        {"entity_type": "session", "entity_id": "one", "daily_limit": ENDLESS},
        {"entity_type": "organization", "entity_id": "five", "daily_limit": ENDLESS, "monthly_limit": ENDLESS},
        {"entity_type": "service", "entity_id": "workflow", "daily_limit": ENDLESS, "monthly_limit": ENDLESS},
        {"entity_type": "user", "entity_id": "five", "daily_limit": ENDLESS},
        {"entity_type": "organization", "entity_id": "hot", "daily_limit": ENDLESS, "monthly_limit": ENDLESS},
        {"entity_type": "organization", "entity_id": "fresh", "daily_limit": ENDLESS, "monthly_limit": ENDLESS},
        {"entity_type": "user", "organization_id": "fresh", "daily_limit": ENDLESS},
        {"entity_type": "user", "organization_id": "near", "total_limit": "19"},
        {"entity_type": "user", "organization_id": "limited", "total_limit": str(LIMIT)},
    )
]


def request(**context: Any) -> Request:
    return Request(CallContext(**context), "openai", "gpt-4o-mini", 400, max_tokens=100)


def a_tracker(url: str) -> VitalTracker:
    """A tracker that knows its budgets, and tells nobody of their alerts."""
    logging.getLogger("vital_tracking").setLevel(logging.ERROR)
    settings = Settings(flush_interval_s=3600, budget_deadline_s=60, spool=False, queue_bytes=1 << 30)
    tracker = VitalTracker(PostgresStore(url), settings=settings)
    tracker.gate.start()
    while tracker.gate.rules is None:
        time.sleep(0.005)
    return tracker


# In the calling thread


def in_hand(tracker: VitalTracker, asked: Request, count: int = 500) -> float:
    """Microseconds for one admission that the grants cover."""
    gate = tracker.gate
    admissions = [gate.admit(asked) for _ in range(count)]  # fetches what the next ones need
    for admission in admissions:
        gate.release(admission)
    gate.release(gate.admit(asked))
    times: list[float] = []
    for _ in range(4):
        started = time.perf_counter()
        admissions = [gate.admit(asked) for _ in range(count)]
        times.append((time.perf_counter() - started) / count * 1e6)
        for admission in admissions:
            gate.release(admission)
        gate.release(gate.admit(asked))
    return min(times)  # a round is a few milliseconds: what another program took of it says nothing


def misses(tracker: VitalTracker, who: Callable[[], Request], count: int) -> list[float]:
    """Milliseconds for each of some admissions that ask the database; their calls never end."""
    times: list[float] = []
    for _ in range(count):
        asked = who()
        started = time.perf_counter()
        tracker.gate.admit(asked)
        times.append((time.perf_counter() - started) * 1e3)
    return times


# With many callers


class Caller:
    """One thread's way to the budgets: `hot()` for the endless one, `limited(user)` for one with a limit; False is a stop."""

    def __init__(self, way: str, tracker: VitalTracker, connection: psycopg.Connection[Any]) -> None:
        self._gate = tracker.gate
        self._connection = connection
        self._hot = request(organization_id="hot")
        self.hot: Callable[[], bool] = {
            "grants": lambda: self._admit(self._hot),
            "row lock": lambda: self._reserve(1),
            "check, then add": lambda: self._check_then_add(1),
        }[way]
        self.limited: Callable[[Request], bool] = {
            "grants": self._admit,
            "row lock": lambda _: self._reserve(2),
            "check, then add": lambda _: self._check_then_add(2),
        }[way]

    def _admit(self, asked: Request) -> bool:
        try:
            return self._gate.admit(asked).hold is not None
        except BudgetExceeded:
            return False

    def _reserve(self, budget: int) -> bool:
        return bool(self._value("select reserve(%s)", budget))

    def _check_then_add(self, budget: int) -> bool:
        if not self._value("select has_room(%s)", budget):
            return False
        self._connection.execute("select add(%s)", (budget,))
        return True

    def _value(self, query: Any, *values: Any) -> Any:
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None


def serve(pipe: Any, url: str) -> None:
    """A process of callers. A job is (way, threads, seconds, user): admissions for so long, or those of a user until all stop."""
    tracker = a_tracker(url)
    with contextlib.ExitStack() as opened:
        connections: list[psycopg.Connection[Any]] = []
        pipe.send(None)
        while (job := pipe.recv()) is not None:
            way, threads, seconds, user = job
            while len(connections) < threads:
                connections.append(opened.enter_context(psycopg.connect(url, autocommit=True)))
            callers = [Caller(way, tracker, connection) for connection in connections[:threads]]
            counts = [0] * threads
            start = threading.Barrier(threads + 1)

            def call(
                number: int, caller: Caller, user: str | None, seconds: float, counts: list[int], start: Any
            ) -> None:
                count = 0
                asked = request(organization_id="limited", user_id=user)
                start.wait()
                if user is not None:
                    while caller.limited(asked):
                        count += 1
                else:
                    until = time.perf_counter() + seconds
                    while time.perf_counter() < until:
                        caller.hot()
                        count += 1
                counts[number] = count

            workers = [
                threading.Thread(target=call, args=(number, caller, user, seconds, counts, start))
                for number, caller in enumerate(callers)
            ]
            for worker in workers:
                worker.start()
            pipe.send(None)
            pipe.recv()
            start.wait()
            for worker in workers:
                worker.join()
            pipe.send(sum(counts))
    tracker.close()


class Callers:
    """Eight such processes."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        for _ in range(max(PROCESSES)):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, url), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def run(self, way: str, processes: int, threads: int, seconds: float = 0.0, user: str | None = None) -> int:
        """Admissions of so many processes together."""
        pipes = self._pipes[:processes]
        for pipe in pipes:
            pipe.send((way, threads, seconds, user))
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send("go")
        return sum(pipe.recv() for pipe in pipes)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)


# All of it


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """All figures, each the median of its rounds."""
    with a_database_server(BUDGETS) as (_, url), psycopg.connect(url, autocommit=True) as owner:
        owner.execute(SQL)
        tracker, callers = a_tracker(url), Callers(url)
        one, five = (
            request(session_id="one"),
            request(organization_id="five", service_type="workflow", user_id="five"),
        )
        numbers = itertools.count()

        def fresh() -> Request:
            return request(organization_id="fresh", user_id=f"u-{next(numbers)}")

        def near() -> Request:  # a twentieth of what is left is less than a call
            return request(organization_id="near", user_id=f"u-{next(numbers) // 10}")

        shapes = [(1, threads) for threads in THREADS] + [(processes, THREADS_EACH) for processes in PROCESSES]
        thread_times: dict[str, list[float]] = {"1 window": [], "5 windows": []}
        waits: dict[str, list[float]] = {"a new user": [], "near the limit": []}
        rates: dict[tuple[str, int, int], list[float]] = {(way, *shape): [] for shape in shapes for way in WAYS}
        over: dict[str, list[int]] = {way: [] for way in WAYS}
        for round_number in range(rounds + 1):  # the first one warms everything up
            thread_times["1 window"].append(in_hand(tracker, one))
            thread_times["5 windows"].append(in_hand(tracker, five))
            waits["a new user"] += misses(tracker, fresh, 40)
            waits["near the limit"] += misses(tracker, near, 40)
            for (way, processes, threads), values in rates.items():
                values.append(callers.run(way, processes, threads, seconds) / seconds)
            for way in WAYS:
                owner.execute("update hot set spent = 0, limit_amount = %s where id = 2", (LIMIT,))
                made = callers.run(way, max(PROCESSES), THREADS_EACH, user=f"{way} {round_number}")
                over[way].append(made - LIMIT)
            if round_number == 0:
                for series in (thread_times, waits, rates, over):
                    for values in series.values():
                        values.clear()
        callers.close()
        tracker.close()
    return {
        "rounds": rounds,
        "in_hand_us": {name: _spread(values) for name, values in thread_times.items()},
        "miss_ms": {
            name: {"p50": statistics.median(values), "p99": statistics.quantiles(values, n=100)[98]}
            for name, values in waits.items()
        },
        "hot_per_s": [
            {
                "processes": processes,
                "threads": threads,
                **{way: _spread(rates[way, processes, threads]) for way in WAYS},
                "ratio": statistics.median(rates["grants", processes, threads])
                / statistics.median(rates["row lock", processes, threads]),
            }
            for processes, threads in shapes
        ],
        "overshoot": {way: {"median": statistics.median(values), "most": max(values)} for way, values in over.items()},
        "overshoot_limit": LIMIT,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(found: dict[str, Any]) -> None:
    """The figures as tables."""
    print(f"Medians of {found['rounds']} interleaved rounds; in brackets the least and the most.\n")
    print("Grant in hand, us in the calling thread")
    for name, us in found["in_hand_us"].items():
        print(f"  {name:<20}{us['median']:>8.2f}   ({us['least']:.2f} to {us['most']:.2f})")
    print("\nMiss, ms on a local database               p50       p99")
    for name, ms in found["miss_ms"].items():
        print(f"  {name:<36}{ms['p50']:>8.2f}  {ms['p99']:>8.2f}")
    print("\nAdmissions a second on one hot budget")
    print(f"  {'processes':<11}{'threads':<9}" + "".join(f"{way:>18}" for way in WAYS) + f"{'grants/row lock':>18}")
    for row in found["hot_per_s"]:
        print(
            f"  {row['processes']:<11}{row['threads']:<9}"
            + "".join(f"{row[way]['median']:>18,.0f}" for way in WAYS)
            + f"{row['ratio']:>17.0f}x"
        )
    calls = found["overshoot_limit"]
    print(f"\nCalls over a limit of {calls} that {max(PROCESSES)} processes of {THREADS_EACH} threads make at once")
    for way, most in found["overshoot"].items():
        print(f"  {way:<20}{most['median']:>8.0f} at the median, {most['most']} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement with many callers")
    options = with_json(parser).parse_args()
    found = measure(options.rounds, options.seconds)
    show(found)
    write(found, options.json)


if __name__ == "__main__":
    main()
