"""What grows with what a database holds: calls, admissions, batches and reports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import usage
from benchmarks.admission import in_hand, misses
from benchmarks.callers import ENDLESS, a_tracker, request
from benchmarks.growing import Growth, shortest
from benchmarks.growing_calls import TURNS, call_us, own_us
from benchmarks.report_queries import REPORTS
from benchmarks.reports import Connection, arguments_of, backfill, only
from vital_tracking import VitalTracker
from vital_tracking.calls.row_literal import CALL_COLUMNS, batch_of, encoded_row
from vital_tracking.stores.postgres import PostgresStore

DAYS = 90  # that the calls of a database are of
BATCH = 500
MISSES = 10
BUDGETS = (1, 10, 100, 1000)
HELD = (1, 10, 100)
ASKED_DAYS = (1, 9, 90)
MINE = {"entity_type": "user", "entity_id": "*", "metric": "calls", "action": "block", "daily_limit": ENDLESS}
OF_ONE = ("totals by service, a big organization", "models by day with p95, the big one")
IN_HAND = "an admission that the grants in hand cover"


class Databases:
    """Databases on one server, each a copy of one that is migrated and has a budget of each user."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._made = 0
        with_budgets(server.url("bench"), [MINE])

    def make(self) -> str:
        """The URL of a new one."""
        self._made += 1
        name = f"bench_{self._made}"
        self._server.create_database(name, template="bench")
        return str(self._server.url(name))


def with_budgets(url: str, budgets: Sequence[dict[str, str]]) -> None:
    """Set budgets."""
    store = PostgresStore(url)
    for budget in budgets:
        store.call("set_budget_v1", budget=json.dumps(budget))
    store.close()


def tracked(opened: contextlib.ExitStack, url: str, folder: Path | None = None) -> VitalTracker:
    """A tracker that knows its budgets, and sends nothing until it is told to."""
    tracker = a_tracker(url, folder)
    opened.callback(tracker.close, 0)
    return tracker


def in_hand_us(tracker: VitalTracker) -> Callable[[], float]:
    """How an admission of one user, again and again, is measured."""
    return partial(in_hand, tracker, [request(user_id="one")])


def miss_ms(tracker: VitalTracker, numbers: Iterator[int]) -> float:
    """The shortest wait of some new users: what another program took of the others says nothing."""
    return min(misses(tracker, lambda: request(user_id=f"new-{next(numbers)}"), MISSES))


# Rows stored


class Stored:
    """A database with so many calls of the last 90 days, and their sums."""

    def __init__(self, url: str, calls: int) -> None:
        self.url = url
        usage.load(url, calls, DAYS)
        self.connection: Connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        backfill(self.connection, url)
        self._batch = ""

    def batch(self) -> str:
        """Calls of today, as the library sends them."""
        since = usage.first_day(1)
        execute = self.connection.execute
        execute("create temporary table made (like token_usage_logs including defaults)")
        execute(
            "call bench.load_calls('made', 0, %s, %s, %s, %s)",
            [BATCH - 1, BATCH, since, usage.hours(self.connection, since, 1)],
        )
        found = only(self.connection, "select json_agg(json_strip_nulls(row_to_json(m)))::text from made as m")
        rows = json.loads(str(found), parse_float=Decimal)
        return batch_of(encoded_row({name: row[name] for name in row if name in CALL_COLUMNS}) for row in rows)

    def record_ms(self) -> float:
        """The server's CPU time for a batch, which is taken back, so that the number of rows stays."""
        self._batch = self._batch or self.batch()
        with self.connection.transaction(force_rollback=True):
            took = server_ms(self.connection, "select record_calls_v2(%s)", [self._batch])
        self.connection.execute("vacuum")
        return took

    def report_ms(self, query: str, days: int, arguments: dict[str, Any]) -> float:
        """The server's CPU time for a report of the last days."""
        named = {**arguments, "since": usage.first_day(days)}
        return shortest(lambda: server_ms(self.connection, query, named), TURNS)


def server_ms(connection: Connection, query: str, arguments: Any) -> float:
    """Milliseconds of CPU time that a connection's server process takes for a query."""
    schedule = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    before = int(schedule.read_text().split()[0])
    connection.execute(query.encode(), arguments).fetchall()
    return (int(schedule.read_text().split()[0]) - before) / 1e6


@contextlib.contextmanager
def rows(databases: Databases, folder: Path, sizes: Sequence[int]) -> Iterator[list[Growth]]:
    """A call, an admission, a batch and a report of one organization, by rows stored."""
    with contextlib.ExitStack() as opened:
        stored = [Stored(databases.make(), calls) for calls in sizes]
        trackers = [tracked(opened, one.url, folder) for one in stored]
        by = "rows stored"
        reports = [report for report in REPORTS if report.name in OF_ONE]
        arguments = arguments_of(reports[0], usage.first_day(DAYS))
        yield [
            Growth(
                "a call's start and end, in its thread, with budgets and spool",
                by,
                "us",
                sizes,
                [partial(call_us, one) for one in trackers],
            ),
            Growth(IN_HAND, by, "us", sizes, [in_hand_us(one) for one in trackers]),
            Growth(f"recording a batch of {BATCH}, server's CPU", by, "ms", sizes, [one.record_ms for one in stored]),
            *(
                Growth(
                    f"report: {report.name}, 30 days, server's CPU",
                    by,
                    "ms",
                    sizes,
                    [partial(one.report_ms, report.sums, 30, arguments) for one in stored],
                    total=True,
                )
                for report in reports
            ),
            *(
                Growth(
                    f"report: {report.name}, server's CPU",
                    "days asked for",
                    "ms",
                    ASKED_DAYS,
                    [partial(stored[-1].report_ms, report.sums, days, arguments) for days in ASKED_DAYS],
                    total=True,
                )
                for report in reports
            ),
        ]
        for one in stored:
            one.connection.close()


# Admission


@contextlib.contextmanager
def admissions(databases: Databases, windows: Sequence[int]) -> Iterator[list[Growth]]:
    """An admission by budgets, windows and sessions known."""
    with contextlib.ExitStack() as opened:
        numbers = iter(range(1 << 30))

        def among_budgets(count: int) -> VitalTracker:
            kinds = ("user", "session", "agent", "workflow", "model")
            others = [{**MINE, "entity_type": kinds[n % 5], "entity_id": f"other-{n}"} for n in range(count - 1)]
            url = databases.make()
            with_budgets(url, others)
            return tracked(opened, url)

        def among_windows(count: int) -> VitalTracker:
            url = databases.make()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "insert into budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount)"
                    " select b.id, 'known-' || n, 'day', d.today, d.today + interval '1 day', b.daily_limit"
                    " from budget_limits as b, generate_series(1, %s) as n,"
                    " (select date_trunc('day', now(), 'UTC') as today) as d where b.entity_type = 'user'",
                    [count],
                )
                connection.execute("analyze budget_windows")
            return tracked(opened, url)

        by_budgets = [among_budgets(count) for count in BUDGETS]
        by_windows = [among_windows(count) for count in windows]
        holding = [tracked(opened, databases.make()) for _ in HELD]
        users = [[request(user_id=f"user-{n}") for n in range(count)] for count in HELD]
        miss = "an admission of a new user, which asks the database"
        yield [
            Growth(IN_HAND, "budgets known", "us", BUDGETS, [in_hand_us(one) for one in by_budgets]),
            Growth(miss, "budgets known", "ms", BUDGETS, [partial(miss_ms, one, numbers) for one in by_budgets]),
            Growth(IN_HAND, "windows known in the database", "us", windows, [in_hand_us(one) for one in by_windows]),
            Growth(
                miss,
                "windows known in the database",
                "ms",
                windows,
                [partial(miss_ms, one, numbers) for one in by_windows],
            ),
            Growth(
                IN_HAND,
                "grants in hand",
                "us",
                HELD,
                [partial(in_hand, *both) for both in zip(holding, users, strict=True)],
            ),
            Growth(
                "a look of the lease client at what is in hand",
                "grants in hand",
                "us",
                HELD,
                [partial(shortest, partial(own_us, one._controller.ledger.return_unused), TURNS) for one in holding],
                total=True,
            ),
        ]
