"""How fast reports are, from the calls and from their sums.

Loads so many calls of the last days into a throw-away PostgreSQL with the settings that it comes with (but it does not wait for
its disk), fills the aggregations by backfill_usage_v1, and asks each report of the last 30 days in turns:

  rows   from token_usage_logs
  sums   from the aggregations; the answers must be the same, percentiles within 5 %
  views  what admins have beside: materialized views, views and functions

Milliseconds until the last row is there, medians of interleaved rounds with all that is needed in memory as far as it fits. Fewer
calls are of fewer days, of as many calls a day as ten million have in 90: what is gained depends on how many calls there are to a
sum. `--calls 10000000` takes 7 GB and an hour.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from benchmarks import usage
from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number, ratios, spanned, spread
from benchmarks.report_queries import BIG, CLAIMS, FUNCTIONS, REPORTS, Report

TABLES = ("daily_totals", "hourly_totals", "daily_agents", "daily_users", "daily_parts")
LAST_DAYS = 30
FILLERS = 2
PATIENCE_S = 60  # for one answer of a function
FULL_CALLS, FULL_DAYS = 10_000_000, 90  # what was promised is of these
ORGANIZATION_MS = 50
TIMES_ALL, TIMES_ONE = 20, 100

Connection = psycopg.Connection[tuple[Any, ...]]


def only(connection: Connection, query: str, *arguments: Any) -> Any:
    """The one value of a query."""
    found = connection.execute(query.encode(), arguments or None).fetchone()
    assert found is not None
    return found[0]


# Loading


def backfill(connection: Connection, url: str) -> dict[str, float]:
    """Count all days anew, two at a time, and how fast that was."""
    started = time.perf_counter()
    days = only(connection, "select queue_backfill_v1('-infinity', 'infinity') ->> 'left'")
    queued = time.perf_counter()

    def fill(_: int) -> int:
        calls = 0
        with psycopg.connect(url, autocommit=True) as filler:
            while (report := only(filler, "select backfill_usage_v1()"))["day"] is not None:
                calls += report["calls"]
        return calls

    with ThreadPoolExecutor(FILLERS) as pool:
        calls = sum(pool.map(fill, range(FILLERS)))
    took = time.perf_counter() - queued
    connection.execute("vacuum analyze")
    return {"days": int(days), "queue_s": queued - started, "calls": calls, "calls_per_s": calls / took, "s": took}


def sizes(connection: Connection) -> dict[str, dict[str, float]]:
    """Rows and bytes of the calls and of each aggregation, with their indexes."""
    query = "select count(*)::float8 from {}"
    size = """
        select sum(pg_total_relation_size(relation))::float8
        from (select '{0}'::regclass union select inhrelid from pg_inherits where inhparent = '{0}'::regclass) as r (relation)
    """
    found = {}
    for table in ("token_usage_logs", *(f"usage_aggregations_{name}" for name in TABLES)):
        rows, total = only(connection, query.format(table)), only(connection, size.format(table))
        found[table] = {"rows": rows, "bytes": total, "bytes_per_row": total / max(rows, 1)}
    calls = found["token_usage_logs"]
    for one in found.values():
        one["rows_per_100_calls"] = 100 * one["rows"] / calls["rows"]
        one["share_of_bytes"] = one["bytes"] / calls["bytes"]
    return found


# Asking


def arguments_of(report: Report, since: datetime) -> dict[str, Any]:
    """What is asked of: the last 30 days, or for instants those of India, less some minutes at both ends."""
    until = datetime.now(UTC)
    return {
        "organization": report.organization,
        "since": since,
        "until": until,
        "odd_since": since + timedelta(hours=5, minutes=17, seconds=3),
        "odd_until": until.replace(hour=0, minute=13, second=7),
    }


@contextlib.contextmanager
def asked_by(connection: Connection, claims: str | None) -> Iterator[None]:
    """Inside, the connection is its owner's, or a request of somebody with a token."""
    if claims is None:
        yield
        return
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        connection.execute("set local role authenticated")
        yield


def asked(connection: Connection, query: str, arguments: dict[str, Any]) -> tuple[float, list[tuple[Any, ...]]]:
    """Milliseconds, and the answer."""
    started = time.perf_counter()
    answer = connection.execute(query.encode(), arguments).fetchall()
    return (time.perf_counter() - started) * 1000, answer


def explained(connection: Connection, query: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Which relations a query goes through, and how; and how many pages of 8 KiB it reads."""
    [(plan,)] = connection.execute(f"explain (analyze, buffers, format json) {query}".encode(), arguments).fetchall()
    ways: set[str] = set()

    def walk(node: dict[str, Any]) -> None:
        relation = node.get("Index Name") or node.get("Relation Name")
        if relation and ("Scan" in node["Node Type"]) and node["Node Type"] != "Bitmap Heap Scan":
            ways.add(f"{node['Node Type']} on {relation}")
        for child in node.get("Plans", []):
            walk(child)

    walk(plan[0]["Plan"])
    pages = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    return {"ways": sorted(ways), "pages": pages}


def same(rows: list[tuple[Any, ...]], sums: list[tuple[Any, ...]], percentile: bool) -> bool:
    """Whether two answers say the same."""

    def exact(answer: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], Any]:
        plain = [tuple(one.normalize() if isinstance(one, Decimal) else one for one in row) for row in answer]
        return {row[:-1] if percentile else row: row[-1] for row in plain}

    first, second = exact(rows), exact(sums)
    if not percentile:
        return first == second
    return first.keys() == second.keys() and all(
        second[key] is first[key] is None or abs(second[key] / first[key] - 1) <= 0.05 for key in first
    )


def measure_reports(connection: Connection, rounds: int) -> dict[str, Any]:
    """All reports in all ways, in turns; the first turn warms up and compares the answers."""
    since = usage.first_day(LAST_DAYS)
    times: dict[str, dict[str, list[float]]] = {report.name: {} for report in REPORTS}
    found: dict[str, Any] = {report.name: {} for report in REPORTS}
    for turn in range(rounds + 1):
        for report in REPORTS:
            arguments = arguments_of(report, since)
            answers = {}
            for way in ("rows", "sums", "views"):
                query = {"rows": report.rows, "sums": report.sums, "views": report.view}[way]
                if query is None:
                    continue
                with asked_by(connection, report.claims):
                    took, answers[way] = asked(connection, query, arguments)
                if turn:
                    times[report.name].setdefault(way, []).append(took)
            if turn == 0:
                if not answers["rows"]:
                    raise RuntimeError(f"{report.name}: nothing to tell")
                if not same(answers["rows"], answers["sums"], report.percentile):
                    raise RuntimeError(f"{report.name}: the calls say {answers['rows']}, the sums {answers['sums']}")
                with asked_by(connection, report.claims):
                    found[report.name]["sums_plan"] = explained(connection, report.sums, arguments)
                with asked_by(connection, report.claims):
                    found[report.name]["rows_plan"] = explained(connection, report.rows, arguments)
    for report in REPORTS:
        taken = times[report.name]
        found[report.name] |= {way: spread(values) for way, values in taken.items()}
        found[report.name]["ratio"] = ratios(taken["rows"], taken["sums"])
    return found


def measure_functions(connection: Connection, rounds: int) -> dict[str, dict[str, float]]:
    """The functions without a counterpart, and the refreshes of the materialized views, in ms, at most the patience."""
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, query in FUNCTIONS.items():
            took = PATIENCE_S * 1000.0
            if turn == 0 or times.get(name) != [took]:
                with contextlib.suppress(psycopg.errors.QueryCanceled), connection.transaction():
                    connection.execute(f"set local statement_timeout = '{PATIENCE_S}s'".encode())
                    took, _ = asked(connection, query, {})
                times.setdefault(name, []).append(took)
        refreshed = only(connection, "select refresh_analytics()")
        for view in refreshed["views"]:
            times.setdefault(f"refresh {view['name']}", []).append(view["seconds"] * 1000)
        if turn == 0:
            times = {name: values for name, values in times.items() if values == [PATIENCE_S * 1000.0]}
    return {name: spread(values) for name, values in times.items()}


def measure(rounds: int, calls: int, days: int) -> Found:
    """All figures; without `days`, of as many days as keep the calls of a day."""
    days = days or max(round(calls * FULL_DAYS / FULL_CALLS), 1)
    with a_database_server() as (server, url):
        load_s = usage.load(url, calls, days)
        with psycopg.connect(server.socket_url("bench"), autocommit=True, prepare_threshold=None) as connection:
            connection.execute(
                "insert into organization_members values (%s, %s, 'admin')", [BIG, json.loads(CLAIMS)["sub"]]
            )
            filled = backfill(connection, url)
            refreshed = only(connection, "select refresh_analytics()")
            connection.execute("vacuum analyze")
            shown = "select current_setting('shared_buffers')"
            return {
                "calls": calls,
                "days": days,
                "calls_of_last_30_days": only(
                    connection,
                    "select count(*) from token_usage_logs where created_at >= %s",
                    usage.first_day(LAST_DAYS),
                ),
                "rounds": rounds,
                "shared_buffers": only(connection, shown),
                "load": {"s": load_s, "calls_per_s": calls / load_s},
                "backfill": filled,
                "first_refresh": refreshed["views"],
                "sizes": sizes(connection),
                "reports": measure_reports(connection, rounds),
                "functions_ms": measure_functions(connection, min(rounds, 3)),
            }


# Telling


def size_of(found: Found) -> str:
    """How many calls of how many days."""
    return f"{found['calls']:,} calls of {found['days']} days"


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    about = f"{size_of(found)}, {found['rounds']} rounds"
    rates = {"load them": found["load"]["calls_per_s"], "backfill_usage_v1": found["backfill"]["calls_per_s"]}
    return [
        Table(
            f"Reports of the last {LAST_DAYS} days, ms ({about}, shared_buffers {found['shared_buffers']})",
            ["", "from the calls", "from the sums", "times faster", "views and functions"],
            [
                [
                    name,
                    *(number(one[way]["median"]) for way in ("rows", "sums")),
                    spanned(one["ratio"]),
                    number(one["views"]["median"]) if "views" in one else "",
                ]
                for name, one in found["reports"].items()
            ],
        ),
        Table(
            f"Functions, ms, at most {PATIENCE_S:,} s ({about})",
            ["", "ms"],
            [[name, spanned(one)] for name, one in found["functions_ms"].items()],
        ),
        Table(
            f"Rows and sizes ({size_of(found)})",
            ["table", "rows", "for 100 calls", "MiB", "of the calls' bytes"],
            [
                [
                    table,
                    f"{size['rows']:,.0f}",
                    number(size["rows_per_100_calls"]),
                    number(size["bytes"] / 2**20),
                    f"{size['share_of_bytes']:.1%}",
                ]
                for table, size in found["sizes"].items()
            ],
        ),
        Table(
            "Calls a second, two connections at once",
            ["", "calls a second"],
            [[name, number(rate)] for name, rate in rates.items()],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """What was promised for ten million calls; of fewer, what depends on the calls of a day alone."""
    whole = found["calls"] >= FULL_CALLS
    reports = {report: found["reports"][report.name] for report in REPORTS}
    gains = [
        (TIMES_ALL if report.organization is None else TIMES_ONE, report, one)
        for report, one in reports.items()
        if report.totals and (whole or report.organization is None)
    ]
    told = [
        Claim(f"{report.name}, from the sums ({size_of(found)})", one["ratio"]["median"], "at least", least, "times")
        for least, report, one in gains
    ]
    if whole:
        of_one = {report: one for report, one in reports.items() if report.organization}
        slowest = max(of_one, key=lambda report: of_one[report]["sums"]["median"])
        took = of_one[slowest]["sums"]["median"]
        whole_tables = sum(
            any(way.startswith("Seq Scan") for way in one["sums_plan"]["ways"]) for one in of_one.values()
        )
        told += [
            Claim(f"slowest report of one organization ({slowest.name})", took, "at most", ORGANIZATION_MS, "ms"),
            Claim("reports of one organization that read a whole table of sums", whole_tables, "at most", 0),
        ]
    return told


PART = Part(
    "reports",
    __doc__,
    measure,
    tables,
    claims,
    quick={"rounds": 15, "calls": 100_000, "days": 0},
    full={"calls": 1_000_000},
)

if __name__ == "__main__":
    PART.main()
