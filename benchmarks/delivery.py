"""How fast calls are recorded through each store, beside a bare COPY and a bare bulk insert of the same rows.

Each way has a database of its own, with all indexes and constraints, and takes the same calls of today in the same batches, each
committed; rounds are interleaved, and the tables grow from round to round.

  copy      COPY of the rows as text, with the triggers that keep the aggregations disabled: what the table alone takes
  insert    a bulk insert of the columns that hold something, with these triggers disabled: psycopg's executemany in a
            transaction; through the API supabase-py's `table(...).insert(rows)`
  record    ours: an array of rows, each once, and the aggregations
  budgets   ours with five budgets, each with a window of the day and of the month: their windows and alerts, too

The stores are the embedded PostgreSQL, which waits for its disk at each commit; a PostgreSQL over TCP that does not wait; and
the API of Supabase (`@supabase/lite`) over the latter. Rows a second are by the clock. Milliseconds of CPU are those of the
database's process, of the API's, and of this process's thread, which hands over what has been made ready: making it ready is a
table of its own, from the record of a call on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from benchmarks import usage
from benchmarks.database import a_database, a_database_server, a_folder, cpu_ms, the_embedded_server
from benchmarks.figures import Claim, Found, Part, Table, ratios, spanned, spread
from supabase import Client
from vital_tracking import PriceBook, Settings
from vital_tracking.calls.json_codec import id_bytes, pack_record
from vital_tracking.calls.row_literal import batch_of
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.dead_letters import DeadLetters
from vital_tracking.delivery.exporter import Row, StoreExporter
from vital_tracking.delivery.settlement import Settlement
from vital_tracking.delivery.stats import Counts
from vital_tracking.delivery.tallies import Tallies
from vital_tracking.delivery.upkeep import Upkeep
from vital_tracking.spool.log_record import LogRecord, RecordKind
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.protocol import Store
from vital_tracking.stores.supabase import SupabaseStore

SIZES = (500, 1000)
STORES = {"embedded": SIZES, "postgres": SIZES, "api": SIZES[:1]}
NAMES = {"embedded": "embedded PostgreSQL", "postgres": "PostgreSQL over TCP", "api": "Supabase API"}
OF_COPY = {"record": 0.35, "budgets": 0.25}
TIMES_INSERT = 2.0

_LIMITS = {"daily_limit": "5", "monthly_limit": "100", "action": "alert"}
BUDGETS = (
    {"entity_type": "organization", "entity_id": "*", **_LIMITS},
    {"entity_type": "service", "entity_id": "1:1_conversation", **_LIMITS},
    {"entity_type": "tier", "entity_id": "tier_2", **_LIMITS},
    {"entity_type": "user", "entity_id": "*", **_LIMITS},
    {"entity_type": "agent", "entity_id": "agent-0", **_LIMITS},
)
OURS: Mapping[str, Sequence[Mapping[str, str]]] = {"record": (), "budgets": BUDGETS}
UNSUMMED = "alter table token_usage_logs disable trigger user;"
OPEN = """
    grant insert on token_usage_logs to service_role;
    create policy "Anybody inserts" on token_usage_logs for insert to service_role with check (true);
"""
SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")

Connection = psycopg.Connection[tuple[Any, ...]]


# The calls


@dataclass(frozen=True)
class Batch:
    """The same calls as our writer, COPY and a bulk insert take them."""

    ours: list[Row]
    text: bytes
    rows: list[dict[str, Any]]
    values: list[list[Any]]


class Calls:
    """The calls of today, batch by batch, and what making them ready costs: milliseconds of CPU of a batch, by its size."""

    def __init__(self, url: str, count: int) -> None:
        self._connection: Connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(UNSUMMED)
        found = self._connection.execute(
            "select attname, atttypid = 'numeric'::regtype from pg_attribute"
            " where attrelid = 'token_usage_logs'::regclass and attnum > 0 and attname not in ('success', 'recorded_at')"
            " order by attnum"
        ).fetchall()
        self.columns = [name for name, _ in found]
        self._as_text = ", ".join(f"{name}::text" if is_amount else name for name, is_amount in found)
        self._records = usage.records(psycopg.connect(url, autocommit=True), count)
        self._store = PostgresStore(url)
        self._exporter = exporter(self._store)
        self.ready_ms: dict[int, dict[str, list[float]]] = {size: {"pack": [], "encode": []} for size in SIZES}

    def take(self, size: int) -> Batch:
        """The next calls."""
        records = list(itertools.islice(self._records, size))
        started = time.thread_time()
        frames = [LogRecord(RecordKind.RECORD, id_bytes(record.id), pack_record(record)) for record in records]
        packed = time.thread_time()
        ours = self._exporter.encode(frames)
        self.ready_ms[size]["encode"].append((time.thread_time() - packed) * 1e3)
        self.ready_ms[size]["pack"].append((packed - started) * 1e3)
        with self._connection.transaction(force_rollback=True), self._connection.cursor() as cursor:
            cursor.execute("select record_calls_v2(%s)", [batch_of(row.text for row in ours)])
            ((found,),) = cursor.execute(
                f"select json_agg(r) from (select {self._as_text} from token_usage_logs) as r".encode()
            )
            with cursor.copy(
                f"copy (select {', '.join(self.columns)} from token_usage_logs) to stdout".encode()
            ) as copy:
                text = b"".join(bytes(part) for part in copy)
        if len(found) != size:
            raise RuntimeError(f"{size} calls make {len(found)} rows")
        used = [name for name in self.columns if any(row[name] is not None for row in found)]
        rows = [{name: row[name] for name in used} for row in found]
        values = [[json.dumps(value) if isinstance(value, dict) else value for value in row.values()] for row in rows]
        return Batch(ours, text, rows, values)

    def close(self) -> None:
        """No more of them."""
        self._records.close()
        self._connection.close()
        self._store.close()


def exporter(store: Store) -> StoreExporter:
    """What carries the writer's rows to a store."""
    prices, counts, clock = PriceBook(usage.PRICES), Counts(), DatabaseClock()
    costs = Costs(prices, Settings().ceiling_price)
    upkeep = Upkeep(store, prices, clock, counts.fault)
    tallies = Tallies(costs, counts.fault)
    return StoreExporter(store, costs, Settlement(costs, counts), tallies, upkeep, clock, DeadLetters(None), counts)


# The ways


@dataclass(frozen=True)
class Way:
    """How calls come into a database of their own; the process of an API, if that is how."""

    database: str
    send: Callable[[Batch], object]
    api: int | None = None


def copied(connection: Connection, columns: Sequence[str], batch: Batch) -> None:
    with connection.cursor().copy(f"copy token_usage_logs ({', '.join(columns)}) from stdin".encode()) as copy:
        copy.write(batch.text)


def inserted(connection: Connection, _: Sequence[str], batch: Batch) -> None:
    columns = list(batch.rows[0])
    query = f"insert into token_usage_logs ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(query.encode(), batch.values)


def posted(client: Client, batch: Batch) -> None:
    client.table("token_usage_logs").insert(batch.rows).execute()


def recorded(carrier: StoreExporter, batch: Batch) -> None:
    carrier.send(batch.ours)


@contextlib.contextmanager
def directly(url: str, prefix: str, columns: Sequence[str]) -> Iterator[dict[str, Way]]:
    """The ways into a PostgreSQL that is spoken to itself; `url` is of any database of its."""
    ways = {}
    with contextlib.ExitStack() as stack:
        for name, bare in (("copy", copied), ("insert", inserted)):
            made = a_database(url, f"{prefix}_{name}")
            connection: Connection = stack.enter_context(psycopg.connect(made, autocommit=True))
            connection.execute(UNSUMMED)
            ways[name] = Way(f"{prefix}_{name}", partial(bare, connection, columns))
        for name, budgets in OURS.items():
            store = PostgresStore(a_database(url, f"{prefix}_{name}", budgets))
            stack.callback(store.close)
            ways[name] = Way(f"{prefix}_{name}", partial(recorded, exporter(store)))
        yield ways


@contextlib.contextmanager
def through_the_api(url: str) -> Iterator[dict[str, Way]]:
    """The ways through the API of Supabase, which is a server of its own for each database."""
    from tests.support.supabase_lite import SupabaseLite

    ways = {}
    with contextlib.ExitStack() as stack:

        def serve(name: str, budgets: Sequence[Mapping[str, str]] = (), prepare: str = "") -> tuple[SupabaseLite, int]:
            database = a_database(url, f"api_{name}", budgets)
            with psycopg.connect(database) as connection:
                connection.execute(prepare.encode())
            lite = stack.enter_context(SupabaseLite(database, stack.enter_context(a_folder())))
            assert lite._process is not None
            return lite, lite._process.pid

        lite, pid = serve("insert", prepare=UNSUMMED + OPEN)
        ways["insert"] = Way("api_insert", partial(posted, lite.client()), pid)
        for name, budgets in OURS.items():
            lite, pid = serve(name, budgets)
            store = SupabaseStore(lite.url, lite.service_key)
            stack.callback(store.close)
            ways[name] = Way(f"api_{name}", partial(recorded, exporter(store)), pid)
        yield ways


# All of it


def measure_store(
    owner: Connection, ways: Mapping[str, Way], calls: Calls, sizes: Sequence[int], rounds: int, batches: int
) -> Found:
    """All ways into one store, in batches of each size. `owner` sees all processes of its server."""

    def server_ms(way: Way) -> float:
        found = owner.execute("select pid from pg_stat_activity where datname = %s", [way.database]).fetchall()
        return cpu_ms(pid for (pid,) in found)

    def figures(way: Way, taken: Sequence[Batch]) -> dict[str, float]:
        server, api = server_ms(way), cpu_ms([way.api] if way.api else [])
        client, started = time.thread_time(), time.perf_counter()
        for batch in taken:
            way.send(batch)
        took, spent = time.perf_counter() - started, (time.thread_time() - client) * 1e3
        each = {"server_ms": server_ms(way) - server, "client_ms": spent}
        if way.api:
            each["api_ms"] = cpu_ms([way.api]) - api
        rate = sum(len(batch.rows) for batch in taken) / took
        return {"rows_per_s": rate, **{name: value / len(taken) for name, value in each.items()}}

    names = list(ways)
    base = names[0]
    found: Found = {"base": base, "sizes": sizes, "settings": {name: setting(owner, name) for name in SETTINGS}}
    measured: dict[int, dict[str, list[dict[str, float]]]] = {size: {name: [] for name in names} for size in sizes}
    for number in range(rounds + 1):  # the first one warms everything up
        for size in sizes:
            taken = [calls.take(size) for _ in range(batches)]
            for name in (*names[number % len(names) :], *names[: number % len(names)]):
                each = figures(ways[name], taken)
                if number:
                    measured[size][name].append(each)
    for size, by_way in measured.items():
        series = {name: {key: [one[key] for one in several] for key in several[0]} for name, several in by_way.items()}
        found[str(size)] = {
            name: {
                **{key: spread(values) for key, values in one.items()},
                "of_base": ratios(one["rows_per_s"], series[base]["rows_per_s"]),
                "cpu_of_base": ratios(series[base]["server_ms"], one["server_ms"]),
            }
            for name, one in series.items()
        }
    return found


def setting(connection: Connection, name: str) -> str:
    ((value,),) = connection.execute("select current_setting(%s)", [name]).fetchall()
    return str(value)


def check(url: str, ways: Mapping[str, Way]) -> dict[str, int]:
    """All ways must have stored the same; how many rows, windows and alerts there are."""
    rows, told = set(), {}
    for way in ways.values():
        with psycopg.connect(url, dbname=way.database) as connection:
            found = connection.execute(
                "select count(*), coalesce(sum(total_cost), 0)::text, (select coalesce(sum(total_cost), 0)::text from"
                " usage_aggregations_hourly_totals), (select count(*) from budget_windows), (select count(*) from cost_alerts)"
                " from token_usage_logs"
            ).fetchone()
        assert found is not None
        count, cost, summed, windows, alerts = found
        rows.add((count, cost))
        if summed not in (cost, "0"):
            raise RuntimeError(f"{way.database} holds calls of {cost} US dollars and sums of {summed}")
        told = {"rows": count, "windows": windows, "alerts": alerts}
    if len(rows) != 1:
        raise RuntimeError(f"not all have stored the same: {rows}")
    return told


def measure(rounds: int, batches: int) -> Found:
    """All stores, one after the other; `batches` of each size in each round."""
    found: Found = {"rounds": rounds, "batches": batches, "stores": {}, "ready_ms": {}}
    count = (rounds + 1) * batches * sum(map(sum, STORES.values()))
    with (
        a_database_server() as (server, source),
        the_embedded_server() as embedded,
        contextlib.closing(Calls(source, count)) as calls,
    ):
        for store, sizes in STORES.items():
            url = embedded if store == "embedded" else server.url()
            with contextlib.ExitStack() as stack:
                owner: Connection = stack.enter_context(psycopg.connect(url, autocommit=True))
                through = through_the_api(url) if store == "api" else directly(url, store, calls.columns)
                ways = stack.enter_context(through)
                found["stores"][store] = measure_store(owner, ways, calls, sizes, rounds, batches) | check(url, ways)
    for size, series in calls.ready_ms.items():
        found["ready_ms"][str(size)] = {name: spread(values[batches:]) for name, values in series.items()}
    return found


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    shown = []
    for store, one in found["stores"].items():
        settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items())
        shown.append(
            Table(
                f"{NAMES[store]} ({settings}; {one['windows']} windows, {one['alerts']} alerts)",
                [
                    "batches of",
                    "rows a second",
                    f"of {one['base']}",
                    "by the server's CPU",
                    "CPU ms a batch: server",
                    "API",
                    "client",
                ],
                [
                    [
                        f"{size} {name}",
                        spanned(way["rows_per_s"]),
                        spanned(way["of_base"]),
                        spanned(way["cpu_of_base"]),
                        spanned(way["server_ms"]),
                        spanned(way["api_ms"]) if "api_ms" in way else "",
                        spanned(way["client_ms"]),
                    ]
                    for size in map(str, one["sizes"])
                    for name, way in one[size].items()
                ],
            )
        )
    ready = found["ready_ms"]
    shown.append(
        Table(
            "From the record of a call to bytes on the wire, CPU ms of this process a batch",
            ["", *(f"{size} calls" for size in ready)],
            [
                ["packed, by whoever made the call", *(spanned(one["pack"]) for one in ready.values())],
                ["priced, as rows", *(spanned(one["encode"]) for one in ready.values())],
                *(
                    [
                        f"sent to the {NAMES[store]}",
                        *(spanned(one[size]["record"]["client_ms"]) if size in one else "" for size in ready),
                    ]
                    for store, one in found["stores"].items()
                ),
            ],
        )
    )
    return shown


def claims(found: Found) -> list[Claim]:
    """What the whole recording transaction reaches."""
    kept = []
    for store, one in found["stores"].items():
        limits = {"record": TIMES_INSERT} if store == "api" else OF_COPY
        what = f"rows a second of {'an insert' if store == 'api' else 'a COPY'}"
        for size in map(str, one["sizes"]):
            for way, limit in limits.items():
                reached = one[size][way]["of_base"]["median"]
                with_budgets = ", five budgets" if way == "budgets" else ""
                name = f"delivery, {NAMES[store]}, batches of {size}{with_budgets}: {what}"
                kept.append(Claim(name, reached, "at least", limit))
    return kept


PART = Part(
    "delivery",
    __doc__,
    measure,
    tables,
    claims,
    quick={"rounds": 15, "batches": 1},
    full={"batches": 8},
)

if __name__ == "__main__":
    PART.main()
