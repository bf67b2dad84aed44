"""Ten reports three ways, and two that no sums hold: from the calls in PostgreSQL, from its sums, and from the calls in a copy.

Fills an embedded PostgreSQL with so many calls of 30 days and 300 organizations, copies them into ClickHouse's engine in this
process, and asks usage_explore_v1 for all organizations. A filter by the session that lets everything pass makes it read the
calls. The three answers are compared: their totals are the same to the last digit, and those of calls and copy are the same in
every row. The calls of today come from PostgreSQL in any case. Duplicates, and what-if with a cache that keeps answers for an
hour, are asked of calls and copy.

Seconds of processor time, of the engine, of PostgreSQL and of this process together, since other things run on a machine while it
measures; and by the clock. Bytes on disk of the calls in both, and how many rows a second were copied.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg

from benchmarks import usage
from benchmarks.database import a_folder, cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number, spanned, spread
from benchmarks.reports_database import BIG_ORGANIZATION, Size, a_server, filled
from vital_tracking import PriceBook
from vital_tracking.advice.changes import ExactCache
from vital_tracking.advice.window import ask_what_if
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.reading import CopiedStore, Copy
from vital_tracking.queries.explore import Period
from vital_tracking.queries.usage import duplicates
from vital_tracking.stores import Store
from vital_tracking.stores.postgres import PostgresStore

DAYS: Final = 30
EVERYTHING: Final = {"session": ["*", None]}
MEASURES: Final = ["calls", "failed_calls", "total_tokens", "total_cost", "potential_cost"]
TIMED: Final = [*MEASURES, "average_latency_ms", "p95_latency_ms"]

REPORTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "totals": {"dimensions": [], "measures": MEASURES},
    "by service": {"dimensions": ["service"], "measures": MEASURES},
    "by day": {"dimensions": ["day"], "measures": MEASURES},
    "by hour and model": {"dimensions": ["hour", "model"], "measures": MEASURES},
    "models by day, p95": {"dimensions": ["day", "model"], "measures": TIMED},
    "agents, p95": {"dimensions": ["organization", "agent"], "measures": TIMED},
    "steps, p95": {"dimensions": ["organization", "workflow", "step"], "measures": TIMED},
    "users": {"dimensions": ["organization", "user"], "measures": MEASURES},
    "one organization by model": {
        "dimensions": ["model"], "measures": TIMED, "filters": {"organization": BIG_ORGANIZATION},
    },
    "by role and status": {"dimensions": ["role", "status"], "measures": TIMED},
}  # fmt: skip
"""No sums hold the last one."""


def _duplicates(store: Store, period: Period) -> object:
    return duplicates(store, since=period.since, until=period.until)


def _what_if(store: Store, period: Period) -> object:
    return ask_what_if(store, period, [ExactCache()], prices=PriceBook(usage.PRICES), ttl=timedelta(hours=1))


REPEATS: Final[Mapping[str, Callable[[Store, Period], object]]] = {
    "duplicates": _duplicates, "what-if, exact cache": _what_if,
}  # fmt: skip


def measure(calls: int, rounds: int, folder: str) -> Found:
    """Seconds of each report each way, in turns."""
    period = Period.last_days(DAYS)
    clock: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    with a_server(folder) as server, a_folder() as engine:
        url = filled(server, Size(calls, DAYS))
        store = PostgresStore(url)
        clickhouse = ClickHouse(address_of(f"chdb://{engine}?database=copy"))
        started = time.perf_counter()
        sent = Copying(store, clickhouse).bring_up_to_date()
        copied_s = time.perf_counter() - started
        joined = CopiedStore(store, Copy(clickhouse, least=0))
        with psycopg.connect(url, autocommit=True) as watcher:
            sizes = {"postgres": _bytes_of(watcher), "copy": _bytes_in(clickhouse)}
            for turn in range(rounds + 1):
                for name, report in REPORTS.items():
                    answers = {}
                    for way, asked, filters in (
                        ("calls", store, EVERYTHING), ("sums", store, {}), ("copy", joined, EVERYTHING),
                    ):  # fmt: skip
                        before, started = _seconds(watcher), time.perf_counter()
                        answers[way] = _ask(asked, period, report, filters)
                        if turn:  # the first one reads from the disk
                            clock.setdefault(f"{name}|{way}", []).append(time.perf_counter() - started)
                            processor.setdefault(f"{name}|{way}", []).append(_seconds(watcher) - before)
                    _compare(name, answers)
                for name, question in REPEATS.items():
                    told = []
                    for way, asked in (("calls", store), ("copy", joined)):
                        before, started = _seconds(watcher), time.perf_counter()
                        told.append(question(asked, period))
                        if turn:
                            clock.setdefault(f"{name}|{way}", []).append(time.perf_counter() - started)
                            processor.setdefault(f"{name}|{way}", []).append(_seconds(watcher) - before)
                    if told[0] != told[1]:
                        raise AssertionError(f"{name} differs in the copy")
        clickhouse.close()
        store.close()
    return {
        "calls": calls,
        "rounds": rounds,
        "rows_a_second": sent / copied_s,
        "bytes": sizes,
        "clock": {name: spread(values) for name, values in clock.items()},
        "processor": {name: spread(values) for name, values in processor.items()},
    }


def _ask(store: Store, period: Period, report: Mapping[str, Any], filters: Mapping[str, Any]) -> Any:
    asked = {**report, "filters": json.dumps({**report.get("filters", {}), **filters})}
    return store.call("usage_explore_v1", since=period.since, until=period.until, max_rows=200, **asked)


def _compare(name: str, answers: Mapping[str, Any]) -> None:
    if answers["copy"]["copied_until"] is None or answers["calls"]["source"] != "calls":
        raise AssertionError(f"{name} was answered from elsewhere")
    if answers["calls"]["rows"] != answers["copy"]["rows"]:
        raise AssertionError(f"{name} differs in the copy")
    if any(answers["sums"]["total"][one] != answers["calls"]["total"][one] for one in MEASURES):
        raise AssertionError(f"{name} differs in the sums")


def _bytes_of(watcher: psycopg.Connection[Any]) -> int:
    found = watcher.execute(
        "select sum(pg_total_relation_size(relid)) from pg_partition_tree('token_usage_logs') where isleaf"
    ).fetchone()
    return int(found[0]) if found else 0


def _bytes_in(clickhouse: ClickHouse) -> int:
    clickhouse.command("optimize table token_usage_logs final")
    found = clickhouse.query(
        "select sum(bytes_on_disk) as bytes from system.parts "
        "where active and table = 'token_usage_logs' and database = currentDatabase()"
    )
    return int(found[0]["bytes"])


def _seconds(watcher: psycopg.Connection[Any]) -> float:
    """Processor time of this process, in which the engine is, and of the server's processes that work for it."""
    pids = [pid for (pid,) in watcher.execute("select pid from pg_stat_activity where datname = current_database()")]
    return time.process_time() + cpu_ms(pids) / 1000


def tables(found: Found) -> list[Table]:
    """The figures as a table."""
    columns = [(what, way) for what in ("processor", "clock") for way in ("calls", "sums", "copy")]
    return [
        Table(
            f"Reports of {found['calls']:,} calls of {DAYS} days, in seconds ({found['rounds']} rounds)",
            ["", *(f"{way}, {'processor' if what == 'processor' else 'by the clock'}" for what, way in columns)],
            [
                [
                    name,
                    *(
                        spanned(found[what][f"{name}|{way}"]) if way != "sums" or name in REPORTS else ""
                        for what, way in columns
                    ),
                ]
                for name in (*REPORTS, *REPEATS)
            ],
        ),
        Table(
            "The calls on disk, with their indexes, and how fast they are copied",
            ["", "bytes a call", "rows a second"],
            [
                ["PostgreSQL", number(found["bytes"]["postgres"] / found["calls"]), ""],
                ["the copy", number(found["bytes"]["copy"] / found["calls"]), number(found["rows_a_second"])],
            ],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """None: which of the three is quicker depends on how many calls and groups there are."""
    return []


PART = Part(
    "copies",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 1_000_000, "rounds": 3, "folder": ""},
)

if __name__ == "__main__":
    PART.main()
