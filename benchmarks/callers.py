"""Many callers of one budget at once, in threads and processes, by three ways of asking it."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.figures import Found, spread
from vital_tracking import BudgetExceeded, Settings, VitalTracker
from vital_tracking.core.admission import Request
from vital_tracking.core.context import CallContext
from vital_tracking.stores.postgres import PostgresStore

WAYS = ("grants", "row lock", "check, then add")
SHAPES = ((1, 1), (1, 8), (1, 32), (4, 1), (8, 1))  # processes, and threads in each
AT_THE_LIMIT = (8, 4)
LIMIT = 500  # calls
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

SPENT = """
select w.spent::bigint, (select count(*) from token_usage_logs as c where c.user_id = w.entity_id)
from budget_windows as w join budget_limits as b on b.id = w.budget_id
where b.organization_id = 'limited' and w.entity_id = %s
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


def a_tracker(url: str, spool: Path | None = None) -> VitalTracker:
    """A tracker that knows its budgets, and tells nobody of their alerts; with a spool where a folder is given."""
    logging.getLogger("vital_tracking").setLevel(logging.ERROR)
    settings = Settings(
        flush_interval_s=3600, budget_deadline_s=60, spool=spool is not None, spool_dir=spool, queue_bytes=1 << 30
    )
    tracker = VitalTracker(PostgresStore(url), settings=settings)
    tracker._controller.start()
    while tracker._controller.policy is None:
        time.sleep(0.005)
    return tracker


class Caller:
    """One thread's way to the budgets: `hot()` for the endless one, `limited(user)` for one with a limit; False is a stop."""

    def __init__(self, way: str, tracker: VitalTracker, connection: psycopg.Connection[Any]) -> None:
        self._tracker = tracker
        self._connection = connection
        hot = request(organization_id="hot")
        self.hot: Callable[[], object] = {
            "grants": lambda: tracker._controller.admit(hot),
            "row lock": lambda: self._reserve(1),
            "check, then add": lambda: self._check_then_add(1),
        }[way]
        self._limited: Callable[[str], bool] = {
            "grants": self._call,
            "row lock": lambda _: self._reserve(2),
            "check, then add": lambda _: self._check_then_add(2),
        }[way]

    def for_a_while(self, until: float) -> array[float]:
        """Seconds that each admission took, one after the other until an instant of the clock that all processes share."""
        hot, clock, times = self.hot, time.perf_counter, array("d")
        while (started := clock()) < until:
            hot()
            times.append(clock() - started)
        return times

    def until_stopped(self, user: str) -> array[float]:
        """An entry for each call that was made."""
        made = array("d")
        while self._limited(user):
            made.append(0)
        return made

    def _call(self, user: str) -> bool:
        """Ask, and if it may be made, record the call."""
        who = {"organization_id": "limited", "user_id": user}
        try:
            admission = self._tracker._controller.admit(request(**who))
        except BudgetExceeded:
            return False
        self._tracker.record(
            provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=50, admission=admission, **who
        )
        return True

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
    """A process of callers. A job is (way, threads, user): ask for a while, or make calls of a user until all are stopped."""
    tracker = a_tracker(url)
    with contextlib.ExitStack() as opened:
        connections: list[psycopg.Connection[Any]] = []
        pipe.send(None)
        while (job := pipe.recv()) is not None:
            way, threads, user = job
            while len(connections) < threads:
                connections.append(opened.enter_context(psycopg.connect(url, autocommit=True)))
            callers = [Caller(way, tracker, connection) for connection in connections[:threads]]
            times: list[array[float]] = []
            start = threading.Barrier(threads + 1)
            until: list[float] = []

            def call(
                caller: Caller,
                user: str | None,
                until: list[float],
                times: list[array[float]],
                start: threading.Barrier,
            ) -> None:
                start.wait()
                times.append(caller.for_a_while(until[0]) if user is None else caller.until_stopped(user))

            workers = [threading.Thread(target=call, args=(caller, user, until, times, start)) for caller in callers]
            for worker in workers:
                worker.start()
            pipe.send(None)
            until.append(pipe.recv())
            start.wait()
            for worker in workers:
                worker.join()
            if user is not None:
                tracker.flush(60)
            pipe.send_bytes(b"".join(one.tobytes() for one in times))
    tracker.close()


class Callers:
    """As many such processes as any shape has."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        for _ in range(max(processes for processes, _ in (*SHAPES, AT_THE_LIMIT))):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, url), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def run(self, way: str, shape: tuple[int, int], *, seconds: float = 0.0, user: str | None = None) -> array[float]:
        """The times of all admissions that so many processes and threads got, in seconds."""
        processes, threads = shape
        pipes = self._pipes[:processes]
        for pipe in pipes:
            pipe.send((way, threads, user))
        for pipe in pipes:
            pipe.recv()
        until = time.perf_counter() + seconds
        for pipe in pipes:
            pipe.send(until)
        times = array("d")
        for pipe in pipes:
            times.frombytes(pipe.recv_bytes())
        return times

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)


class AtTheLimit:
    """All callers on one budget until each of them is stopped, round by round."""

    def __init__(self, owner: psycopg.Connection[Any], callers: Callers) -> None:
        self._owner = owner
        self._callers = callers
        self.made: dict[str, list[int]] = {way: [] for way in WAYS}
        self.spent: dict[str, list[int]] = {way: [] for way in WAYS}

    def run(self, way: str, user: str) -> None:
        """One round: how many calls were made, and what the database counts as spent, which has to be the same."""
        self._owner.execute("update hot set spent = 0, limit_amount = %s where id = 2", (LIMIT,))
        made = len(self._callers.run(way, AT_THE_LIMIT, user=user))
        if way == "grants":
            found = self._owner.execute(SPENT, (user,)).fetchone()
        else:
            found = self._owner.execute("select spent, spent from hot where id = 2").fetchone()
        if found is None or found[1] != made:
            raise RuntimeError(f"{way}: {made} calls were made, the database knows of {found}")
        self.made[way].append(made)
        self.spent[way].append(found[0])

    def found(self) -> Found:
        """Calls over the limit, what was counted beside what was made, and how much of the limit was of use."""
        processes, threads = AT_THE_LIMIT
        return {
            "calls": LIMIT,
            "callers": f"{processes} processes of {threads} threads",
            **{
                way: {
                    "over": spread([spent - LIMIT for spent in self.spent[way]]),
                    "unlike_made": max(
                        abs(one - made) for one, made in zip(self.spent[way], self.made[way], strict=True)
                    ),
                    "least_made": min(self.made[way]),
                }
                for way in WAYS
            },
        }
