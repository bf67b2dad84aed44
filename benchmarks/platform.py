"""How fast the rollups of platform data answer, how fast events are recorded, and how small a month of them is in an archive.

Fills an embedded PostgreSQL with so many events of 90 days and 300 organizations, a tenth as many other costs, executions and
calls to models beside them, and asks every view of the schema analytics as its four readers do (see reports_readers): five
minutes are to answer within 100 ms, hours within 500, days within 1,000. Milliseconds of the server's own time.

Then events of the last minutes are recorded into that database, in batches of 1,000 by one connection, beside a bare COPY of
such rows with the triggers of the sums left out; by the clock and by the server's own time.

Last, the oldest months are archived, and nothing is dropped. `--folder` keeps the database for the next time.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import usage
from benchmarks.database import cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number, ratios, spanned, spread
from benchmarks.reports import Connection, only
from benchmarks.reports_database import Size, a_server, filled
from benchmarks.reports_readers import LIMITS_MS, measured
from vital_tracking.queries.archive import archivable, archive_month
from vital_tracking.stores.postgres import PostgresStore

GENERATOR = Path(__file__).with_name("platform.sql")
TABLES = ("platform_events", "tenant_cost_events", "agent_executions")
CHUNK, LOADERS, BATCH = 100_000, 2, 1_000
# How long the views may take whose rows are of five minutes, hours, days, and single events.
MS = {"_realtime": 100, "_performance_summary": 500, "_summary": 1000, "": 100}
COLUMNS = (
    "id, occurred_at, organization_id, user_id, session_id, category, event_name, source, ip_hash, value, properties"
)


def limit_ms(question: str) -> int:
    """How long a view may take."""
    name = question.partition(":")[0]
    return next(limit for suffix, limit in MS.items() if name.endswith(suffix))


# Filling


def platform(server: str, size: Size, events: int) -> str:
    """The URL of a database with so many events beside those calls; filled now, unless it is there already."""
    name = f"platform_{events}_{size.days}"
    url = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", [name]).fetchall():
            return url
        filled(server, size)
        connection.execute(f"drop database if exists {name}_unfinished".encode())
        connection.execute(f"create database {name}_unfinished template {size.database}".encode())
    load(make_conninfo(server, dbname=f"{name}_unfinished"), size, events)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"alter database {name}_unfinished rename to {name}".encode())
    return url


def load(url: str, size: Size, events: int) -> None:
    """The rows past the triggers that keep the sums, then the sums of each day at once."""
    since = usage.first_day(size.days)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(GENERATOR.read_text(encoding="utf-8").encode())
        shares = usage.hours(connection, since, size.days)

        def rows(first: int) -> None:
            with unsummed(url) as loader:
                loader.execute(
                    "call bench.load_platform(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    [
                        *(*TABLES, first, min(first + CHUNK, events) - 1, events),
                        *(since, shares, size.organizations, size.users),
                    ],
                )

        def sums(table: str) -> None:
            with unsummed(url) as summer:
                summer.execute("call bench.sum_platform(%s, %s, %s)", [table, since.date(), size.days])

        with ThreadPoolExecutor(LOADERS) as pool:
            list(pool.map(rows, range(0, events, CHUNK)))
            list(pool.map(sums, TABLES))
        connection.execute("vacuum analyze")


def unsummed(url: str) -> Connection:
    """A connection whose statements keep no sums and wait for no disk."""
    connection: Connection = psycopg.connect(url, autocommit=True)
    connection.execute("set synchronous_commit = off")
    connection.execute("set session_replication_role = replica")
    return connection


# Recording


def recording(url: str, events: int, batches: int, rounds: int) -> Found:
    """Events a second, recorded and copied in turns, each round on as many fresh events."""
    texts: dict[str, list[Any]] = {"record": [], "copy": []}
    with psycopg.connect(url, autocommit=True) as maker:
        maker.execute("create temporary table made_events (like platform_events including defaults)")
        for table in TABLES[1:]:
            maker.execute(f"create temporary table made_{table} (like {table} including defaults)".encode())
        shares = usage.hours(maker, usage.first_day(1), 1)
        for batch in range(2 * batches * (rounds + 1)):
            maker.execute("truncate made_events")
            first = events + batch * BATCH
            maker.execute(
                "call bench.load_platform('made_events', 'made_tenant_cost_events', 'made_agent_executions',"
                " %s, %s, %s, %s, %s, 300, 400)",
                [first, first + BATCH - 1, first + BATCH, usage.first_day(1), shares],
            )
            # Events of now, as they come: of the last five minutes.
            maker.execute(
                "update made_events set occurred_at = now() - random() * interval '5 minutes', id = vital_private.id_of(now())"
            )
            if batch % 2:
                with maker.cursor().copy(f"copy (select {COLUMNS} from made_events) to stdout".encode()) as copy:
                    texts["copy"].append(b"".join(bytes(part) for part in copy))
            else:
                texts["record"].append(
                    only(maker, f"select json_agg(r)::text from (select {COLUMNS} from made_events) as r")
                )
    rates: dict[str, list[float]] = {"record": [], "copy": []}
    server: dict[str, list[float]] = {"record": [], "copy": []}
    with psycopg.connect(url, autocommit=True) as recorder, unsummed(url) as copier:
        copier.execute("reset synchronous_commit")
        for turn in range(rounds + 1):
            for way in ("record", "copy") if turn % 2 else ("copy", "record"):
                connection = recorder if way == "record" else copier
                taken = texts[way][turn * batches : (turn + 1) * batches]
                before, started = cpu_ms([connection.info.backend_pid]), time.perf_counter()
                for text in taken:
                    if way == "record":
                        report = only(connection, "select record_events_v1(%s)", text)
                        if report["inserted"] != BATCH:
                            raise RuntimeError(f"{report['inserted']} of {BATCH} events were recorded: {report}")
                    else:
                        with connection.cursor().copy(f"copy platform_events ({COLUMNS}) from stdin".encode()) as copy:
                            copy.write(text)
                if turn:
                    rates[way].append(batches * BATCH / (time.perf_counter() - started))
                    server[way].append((cpu_ms([connection.info.backend_pid]) - before) / batches)
    return {
        "rate": {way: spread(values) for way, values in rates.items()},
        "server_ms": {way: spread(values) for way, values in server.items()},
        "of_copy": ratios(rates["record"], rates["copy"]),
        "cpu_of_copy": ratios(server["copy"], server["record"]),
    }


# Archiving


def archiving(url: str) -> dict[str, dict[str, float]]:
    """The oldest whole month of each kind of rows in a file: rows, and bytes with indexes and in the file."""
    store, found = PostgresStore(url), {}
    with tempfile.TemporaryDirectory() as folder:
        for what in ("events", "costs", "executions", "calls"):
            of = archivable(store, what)
            month = of.listed["months"][1]
            started = time.perf_counter()
            done = archive_month(store, of, month, Path(folder))
            found[what] = {
                "rows": done.rows,
                "before": done.bytes_before or 0,
                "after": done.bytes_after,
                "s": time.perf_counter() - started,
            }
    store.close()
    return found


def measure(events: int, days: int, rounds: int, batches: int, folder: str, only_views: int) -> Found:
    """All figures; with `only_views` those of the views alone."""
    size = Size(events // 10, days)
    with a_server(folder) as server:
        url = platform(server, size, events)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            found: Found = {"events": events, "days": days, "rounds": rounds}
            found["ms"] = measured(connection, rounds, "analytics.", say=True)
        if not only_views:
            found["recording"] = recording(url, events, batches, rounds)
            found["archives"] = archiving(url)
        return found


# Telling


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    about = f"{found['events']:,} events of {found['days']} days, a tenth of it costs, executions and calls"
    told = [
        Table(
            f"Views of platform data, ms ({about}; {found['rounds']} rounds)",
            ["", "to keep", *LIMITS_MS],
            [
                [question, f"{limit_ms(question):,}", *(_cell(question, by_reader.get(reader)) for reader in LIMITS_MS)]
                for question, by_reader in sorted(found["ms"].items(), key=lambda one: -_share(*one))
            ],
        )
    ]
    if "recording" in found:
        one = found["recording"]
        told.append(
            Table(
                f"Recording events in batches of {BATCH:,}, one connection ({found['events']:,} are there)",
                ["", "events a second", "million events an hour", "server's ms a batch"],
                [
                    [
                        {"record": "recorded", "copy": "bare COPY"}[way],
                        spanned(one["rate"][way]),
                        number(one["rate"][way]["median"] * 3600 / 1e6),
                        spanned(one["server_ms"][way]),
                    ]
                    for way in one["rate"]
                ]
                + [["of COPY", spanned(one["of_copy"]), "", spanned(one["cpu_of_copy"])]],
            )
        )
        told.append(
            Table(
                "A month in an archive",
                ["", "rows", "MiB with indexes", "MiB in the file", "smaller by", "s"],
                [
                    [
                        what,
                        f"{one['rows']:,}",
                        number(one["before"] / 2**20),
                        number(one["after"] / 2**20),
                        f"{1 - one['after'] / one['before']:.1%}",
                        number(one["s"]),
                    ]
                    for what, one in found["archives"].items()
                ],
            )
        )
    return told


def _cell(question: str, one: dict[str, Any] | None) -> str:
    if one is None or one["wrong"]:
        return f"**{one['wrong']}**" if one else ""
    return f"**{number(one['ms'])}**" if one["ms"] > limit_ms(question) else number(one["ms"])


def _share(question: str, by_reader: dict[str, dict[str, Any]]) -> float:
    return float(max(one["ms"] for one in by_reader.values())) / limit_ms(question)


def claims(found: Found) -> list[Claim]:
    """The slowest view of each kind, and how small archives are."""
    told = []
    for suffix, what in (("_realtime", "five minutes"), ("_performance_summary", "hours"), ("", "days")):
        asked = {
            name: one for name, one in found["ms"].items() if name.partition(":")[0].endswith(suffix or "_summary")
        }
        if not suffix:
            asked = {name: one for name, one in asked.items() if limit_ms(name) == MS["_summary"]}
        for reader in LIMITS_MS:
            name = max(asked, key=lambda name: asked[name][reader]["ms"] if reader in asked[name] else 0)
            told.append(Claim(f"{what}, {reader} ({name})", asked[name][reader]["ms"], "at most", limit_ms(name), "ms"))
    if "archives" in found:
        for what, one in found["archives"].items():
            told.append(
                Claim(f"a month of {what}, smaller by", 100 - 100 * one["after"] / one["before"], "at least", 70, "%")
            )
    return told


PART = Part(
    "platform",
    __doc__,
    measure,
    tables,
    claims,
    quick={"events": 10_000_000, "days": 90, "rounds": 3, "batches": 20, "folder": "", "only_views": 0},
)

if __name__ == "__main__":
    PART.main()
