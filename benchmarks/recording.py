"""How fast calls are recorded, beside a bare COPY of the same rows into the same table.

    python -m benchmarks.recording [--rounds 9] [--batches 20] [--json FILE]

Each way has a database of its own, with all indexes and constraints, and takes the same calls of today in the same batches, each
in a transaction; rounds are interleaved, and the tables grow from round to round.

  copy     COPY of the rows as text, with the triggers that keep the aggregations disabled: what the table alone takes
  record   record_calls_v1: rows from JSON, each once, and the aggregations
  budgets  the same with five budgets, each with a window of the day and of the month: their windows and alerts, too

`waits` is a server that waits for its disk at each commit, as the embedded PostgreSQL is delivered; `fast` does not wait. Rows a
second are by the clock; milliseconds of CPU are those of the server's process, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import usage
from benchmarks.database import a_database_server
from benchmarks.figures import with_json, write
from benchmarks.reports import Connection, only, spread
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.embedded import EmbeddedStore
from vital_tracking.stores.postgres import PostgresStore

WAYS = ("copy", "record", "budgets")
SIZES = (500, 1000)
TARGET = 0.40  # of the rows a second of a bare COPY, in batches of 500

_LIMITS = {"daily_limit": "5", "monthly_limit": "100", "action": "alert"}
BUDGETS = (
    {"entity_type": "organization", "entity_id": "*", **_LIMITS},
    {"entity_type": "service", "entity_id": "1:1_conversation", **_LIMITS},
    {"entity_type": "tier", "entity_id": "tier_2", **_LIMITS},
    {"entity_type": "user", "entity_id": "*", **_LIMITS},
    {"entity_type": "agent", "entity_id": "agent-0", **_LIMITS},
)


@contextlib.contextmanager
def a_server_that_waits() -> Iterator[str]:
    """The embedded PostgreSQL, in a folder of its own; the URL of its maintenance database."""
    folder = Path(tempfile.mkdtemp(prefix="vital-bench-"))
    folder.chmod(0o755)
    store = EmbeddedStore(folder)
    try:
        yield str(store._start().get_uri())
    finally:
        store.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def a_server_that_does_not() -> Iterator[str]:
    with a_database_server() as (server, _):
        yield server.socket_url("postgres")


def make_databases(url: str) -> dict[str, str]:
    """A migrated database for each way, and one to make the calls in; their URLs."""
    urls = {}
    for name in (*WAYS, "source"):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(f"bench_{name}")))
        urls[name] = psycopg.conninfo.make_conninfo(url, dbname=f"bench_{name}")
        store = PostgresStore(urls[name])
        store.migrate(find_migrations())
        for budget in BUDGETS if name == "budgets" else ():
            store.call("set_budget_v1", budget=json.dumps(budget))
        store.close()
    with psycopg.connect(urls["copy"], autocommit=True) as connection:
        connection.execute("alter table token_usage_logs disable trigger user")
    return urls


class Batches:
    """The calls of today, as JSON and as text for COPY."""

    def __init__(self, url: str, calls: int) -> None:
        self._connection: Connection = psycopg.connect(url, autocommit=True)
        since = usage.first_day(1)
        usage.install(self._connection)
        shares = usage.hours(self._connection, since, 1)
        self._connection.execute("create table made (like token_usage_logs including defaults)")
        self._connection.execute("call bench.load_calls('made', 0, %s, %s, %s, %s)", [calls - 1, calls, since, shares])
        self.columns = only(
            self._connection,
            "select string_agg(attname, ', ' order by attnum) from pg_attribute"
            " where attrelid = 'token_usage_logs'::regclass and attnum > 0 and attname not in ('success', 'recorded_at')",
        )

    def take(self, first: int, size: int) -> tuple[str, bytes]:
        """One batch from a number on: as the library sends it, without what is not set, and for COPY."""
        slice_ = f"select {self.columns} from made order by created_at, id limit {size} offset {first}"
        text = only(self._connection, f"select json_agg(json_strip_nulls(row_to_json(m)))::text from ({slice_}) as m")
        with self._connection.cursor() as cursor, cursor.copy(f"copy ({slice_}) to stdout".encode()) as copy:
            return text, b"".join(bytes(part) for part in copy)


def cpu_ms(connection: Connection) -> float:
    """The CPU time of a connection's server process."""
    fields = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def record(connection: Connection, batches: list[tuple[str, bytes]], columns: str | None) -> None:
    """Send all batches, by COPY if the columns are given; each is committed."""
    for text, rows in batches:
        if columns is None:
            connection.execute("select record_calls_v1(%s)", [text])
            continue
        with (
            connection.cursor() as cursor,
            cursor.copy(f"copy token_usage_logs ({columns}) from stdin".encode()) as copy,
        ):
            copy.write(rows)


def measure_server(url: str, rounds: int, count: int) -> dict[str, Any]:
    """All ways on one server, in batches of each size."""
    urls = make_databases(url)
    batches = Batches(urls["source"], (rounds + 1) * count * sum(SIZES))
    connections: dict[str, Connection] = {
        way: psycopg.connect(urls[way], autocommit=True, prepare_threshold=None) for way in WAYS
    }
    first = 0
    rates: dict[str, dict[str, list[float]]] = {str(size): {way: [] for way in WAYS} for size in SIZES}
    cpu: dict[str, dict[str, list[float]]] = {str(size): {way: [] for way in WAYS} for size in SIZES}
    for number in range(rounds + 1):  # the first one warms everything up
        for size in SIZES:
            taken = [batches.take(first + place * size, size) for place in range(count)]
            first += count * size
            for way in (*WAYS[number % 3 :], *WAYS[: number % 3]):
                connection = connections[way]
                before, started = cpu_ms(connection), time.perf_counter()
                record(connection, taken, batches.columns if way == "copy" else None)
                took = time.perf_counter() - started
                if number:
                    rates[str(size)][way].append(count * size / took)
                    cpu[str(size)][way].append((cpu_ms(connection) - before) / count)
    rows = {way: only(connections[way], "select count(*) from token_usage_logs") for way in WAYS}
    if len(set(rows.values())) != 1:
        raise RuntimeError(f"not all have recorded the same: {rows}")
    found: dict[str, Any] = {
        "settings": {
            name: only(connections["copy"], f"select current_setting('{name}')")
            for name in (
                "server_version",
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "wal_sync_method",
                "shared_buffers",
            )
        },
        "alerts": only(connections["budgets"], "select count(*) from cost_alerts"),
        "windows": only(connections["budgets"], "select count(*) from budget_windows"),
    }
    for size, by_way in rates.items():
        found[size] = {
            way: {
                "rows_per_s": spread(by_way[way]),
                "cpu_ms": spread(cpu[size][way]),
                "of_copy": spread([one / base for one, base in zip(by_way[way], by_way["copy"], strict=True)]),
                "cpu_of_copy": spread(
                    [base / one for one, base in zip(cpu[size][way], cpu[size]["copy"], strict=True)]
                ),
            }
            for way in WAYS
        }
    for connection in connections.values():
        connection.close()
    return found


def measure(rounds: int, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"rounds": rounds, "batches": count, "budgets": len(BUDGETS)}
    with a_server_that_waits() as url:
        found["waits"] = measure_server(url, rounds, count)
    with a_server_that_does_not() as url:
        found["fast"] = measure_server(url, rounds, count)
    return found


def show(found: dict[str, Any]) -> None:
    """The figures as a table."""
    print(
        f"Medians of {found['rounds']} interleaved rounds of {found['batches']} batches; in brackets the least and the most.\n"
    )
    for server in ("waits", "fast"):
        settings = ", ".join(f"{name} {value}" for name, value in found[server]["settings"].items())
        print(f"{server}: {settings}; {found[server]['windows']} windows, {found[server]['alerts']} alerts")
        print(f"{'':>17}{'rows a second':>28}{'of COPY':>22}{'CPU ms a batch':>26}{'of COPY':>22}")
        for size in map(str, SIZES):
            for way, one in found[server][size].items():
                print(
                    f"{size:>6}  {way:<9}{_line(one['rows_per_s'], ',.0f'):>28}{_line(one['of_copy'], '.2f'):>22}"
                    f"{_line(one['cpu_ms'], '.1f'):>26}{_line(one['cpu_of_copy'], '.2f'):>22}"
                )
        print()
    for server in ("waits", "fast"):
        for way in WAYS[1:]:
            reached = found[server]["500"][way]["of_copy"]["median"]
            if reached < TARGET:
                print(f"missed: {way} on a server that {server}: {reached:.2f} of COPY, not {TARGET}")


def _line(one: dict[str, float], form: str) -> str:
    return f"{one['median']:{form}} ({one['least']:{form}} to {one['most']:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=20, help="of each size, in each round")
    options = with_json(parser).parse_args()
    found = measure(options.rounds, options.batches)
    show(found)
    write(found, options.json)


if __name__ == "__main__":
    main()
