"""How fast reports are, from the calls and from their sums.

    python -m benchmarks.reports [--calls 1000000] [--days 90] [--rounds 5] [--json FILE]

Loads so many calls of the last days into a throw-away PostgreSQL with the settings that it comes with (but it does not wait for
its disk), fills the aggregations by backfill_usage_v1, and asks each report of the last 30 days in turns:

  rows   from token_usage_logs
  sums   from the aggregations; the answers must be the same, percentiles within 5 %
  views  what admins have beside: materialized views, views and functions

Milliseconds until the last row is there, medians of interleaved rounds with all that is needed in memory as far as it fits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from benchmarks import usage
from benchmarks.database import a_database_server
from benchmarks.figures import with_json, write
from benchmarks.report_queries import BIG, CLAIMS, FUNCTIONS, REPORTS, Report

TABLES = ("daily_totals", "hourly", "daily", "daily_users", "daily_parts")
LAST_DAYS = 30
FILLERS = 2
PATIENCE_S = 60  # for one answer of a function

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


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


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
        ratios = [rows / sums for rows, sums in zip(taken["rows"], taken["sums"], strict=True)]
        found[report.name] |= {way: spread(values) for way, values in taken.items()} | {"ratio": spread(ratios)}
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


def measure(calls: int, days: int, rounds: int) -> dict[str, Any]:
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


def misses(found: dict[str, Any]) -> list[str]:
    """Which reports miss what was promised for ten million calls."""
    told = []
    for report in REPORTS:
        one = found["reports"][report.name]
        sums, ratio = one["sums"]["median"], one["ratio"]["median"]
        if report.organization and sums >= 50:
            told.append(f"{report.name}: {sums:.0f} ms, not below 50")
        least = 100 if report.organization else 20
        if report.totals and ratio < least:
            told.append(f"{report.name}: {ratio:.0f} times faster from the sums, not {least}")
        if report.organization and any(way.startswith("Seq Scan") for way in one["sums_plan"]["ways"]):
            told.append(f"{report.name}: reads a whole table: {', '.join(one['sums_plan']['ways'])}")
    return told


def show(found: dict[str, Any]) -> None:
    """The figures as tables."""
    load, filled = found["load"], found["backfill"]
    print(
        f"{found['calls']:,} calls of {found['days']} days, {found['calls_of_last_30_days']:,} of the last {LAST_DAYS}"
    )
    print(
        f"shared_buffers {found['shared_buffers']}; medians of {found['rounds']} interleaved rounds, in brackets the spread\n"
    )
    print(f"loaded in {load['s']:,.0f} s ({load['calls_per_s']:,.0f} a second)")
    print(
        f"backfill {filled['s']:,.0f} s ({filled['calls_per_s']:,.0f} calls a second), queued in {filled['queue_s']:.1f} s\n"
    )
    print(f"{'':<34}{'rows':>12}{'of 100 calls':>14}{'MiB':>10}{'bytes a row':>13}{'of the calls':>14}")
    for table, size in found["sizes"].items():
        print(
            f"{table:<34}{size['rows']:>12,.0f}{size['rows_per_100_calls']:>14.1f}{size['bytes'] / 2**20:>10,.0f}"
            f"{size['bytes_per_row']:>13,.0f}{size['share_of_bytes']:>13.1%}"
        )
    print(f"\n{'ms':<42}{'rows':>26}{'sums':>24}{'ratio':>8}{'views':>24}")
    for name, one in found["reports"].items():
        views = _span(one["views"]) if "views" in one else ""
        print(f"{name:<42}{_span(one['rows']):>26}{_span(one['sums']):>24}{one['ratio']['median']:>8.0f}{views:>24}")
    print("\nms")
    for name, one in found["functions_ms"].items():
        print(f"{name:<42}{_span(one):>26}")
    print("\nHow the sums are read")
    for name, one in found["reports"].items():
        print(f"{name:<42}{one['sums_plan']['pages']:>8,} pages  {', '.join(one['sums_plan']['ways'])}")
    for miss in misses(found):
        print(f"missed: {miss}")


def _span(one: dict[str, float]) -> str:
    form = ",.0f" if one["median"] >= 100 else ".1f"
    return f"{one['median']:{form}} ({one['least']:{form}} to {one['most']:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90, help="that the calls are spread over")
    parser.add_argument("--rounds", type=int, default=5)
    options = with_json(parser).parse_args()
    found = measure(options.calls, options.days, options.rounds)
    show(found)
    write(found, options.json)


if __name__ == "__main__":
    main()
