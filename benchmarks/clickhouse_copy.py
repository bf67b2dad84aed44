"""How fast a copy in a ClickHouse is filled, in how much memory, and how large it is.

PostgreSQL is a process of its own, and so is `vital-tracking export clickhouse --follow`, in which ClickHouse's engine runs, too
(chdb): whoever has a server elsewhere needs less here. The time is from the start of that process until PostgreSQL has noted of
every table that all of it is in the copy, with the index by which changes are found, which the first copy makes. Processor time
is told apart: PostgreSQL's processes; the export's main thread, which reads from PostgreSQL; all its other threads, which send
rows and are ClickHouse, merges of its parts among them. Memory is that of the export with ClickHouse, files that are mapped left
out. What both hold is compared: calls, tokens and costs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks import usage
from benchmarks.database import a_database, cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.reports_database import a_server

WORKING = b"select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
LOADED = "select from vital_private.export_places having count(*) = 5 and bool_and(loaded)"
_LIBPQ = {"dbname": "DATABASE"}
TOTALS = "select count(*) as calls, sum(total_cost) as cost, sum(total_tokens) as tokens from token_usage_logs"
SIZE = """
select sum(bytes_on_disk) as bytes from system.parts
where active and database = currentDatabase() and table = 'token_usage_logs'
"""
PROMISED, ROWS_A_SECOND, GROWTH = 10_000_000, 50_000, 1.25


def a_filled_database(server: str, calls: int) -> str:
    """The URL of a database with so many calls of 30 days, whose sums are empty; made now, unless it is there."""
    name = f"bench_copy_{calls}"
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", [name]).fetchall():
            return make_conninfo(server, dbname=name)
    url = a_database(server, f"{name}_unfinished", [])
    usage.load(url, calls, 30)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"alter database {name}_unfinished rename to {name}".encode())
    return make_conninfo(server, dbname=name)


class Sampled:
    """A process whose memory and processor time, and those of the PostgreSQL that it reads, are looked at four times a second."""

    def __init__(self, command: list[str], watcher: psycopg.Connection[Any], **settings: str) -> None:
        self.memory: list[float] = []
        """MiB of its own, files that are mapped left out."""
        self.main_ms = self.all_ms = 0.0
        """Of a processor: its main thread, and all of its threads together, those that ended, too."""
        self._server_ms: dict[int, float] = {}
        self._watcher = watcher
        self.process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
        self.started = time.perf_counter()

    @property
    def server_ms(self) -> float:
        """Of a processor: what PostgreSQL's processes had that worked for this database."""
        return sum(self._server_ms.values())

    def sample(self) -> None:
        """Look once."""
        where = Path(f"/proc/{self.process.pid}")
        for line in (where / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                self.memory.append(int(line.split()[1]) / 1024)
        ticks = (where / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        self.all_ms = (int(ticks[11]) + int(ticks[12])) * 1000 / os.sysconf("SC_CLK_TCK")
        self.main_ms = int((where / f"task/{self.process.pid}/schedstat").read_text().split()[0]) / 1e6
        for (pid,) in self._watcher.execute(WORKING).fetchall():
            with contextlib.suppress(OSError):  # it has just ended
                self._server_ms[pid] = cpu_ms([pid])

    def run_until(self, done: str) -> float:
        """Look until a question to PostgreSQL is answered with a row; after how many seconds."""
        while not self._watcher.execute(done.encode()).fetchall():
            if self.process.poll() is not None:
                raise SystemExit(f"The export ended with {self.process.returncode}.")
            self.sample()
            time.sleep(0.25)
        took = time.perf_counter() - self.started
        self.sample()
        return took

    def stopped(self) -> str:
        """Have it end; what it printed."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate()
        if self.process.returncode:
            raise SystemExit(f"The export ended with {self.process.returncode}.")
        return out


def export(url: str, copy: str, watcher: psycopg.Connection[Any]) -> Sampled:
    """Start the export, which goes on until it is stopped."""
    command = [
        sys.executable,
        "-c",
        "from vital_tracking.cli import main; main()",
        "export",
        "clickhouse",
        copy,
        "--json",
        "--follow",
    ]
    known = conninfo_to_dict(url)
    return Sampled(
        command,
        watcher,
        VITAL_STORE="postgresql",
        **{f"PG{_LIBPQ.get(name, name.upper())}": str(value) for name, value in known.items()},
    )


def ask(copy: str, statement: str) -> list[dict[str, Any]]:
    """The rows of a question to the copy, from a process of its own: the engine has one folder a process."""
    program = (
        "import sys, json; from vital_tracking.clickhouse.client import *\n"
        "print(json.dumps(ClickHouse(address_of(sys.argv[1])).query(sys.argv[2]), default=str))"
    )
    done = subprocess.run([sys.executable, "-c", program, copy, statement], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def measure(calls: int, folder: str) -> Found:
    """Fill a copy, and look at what it took."""
    with a_server(folder) as server, tempfile.TemporaryDirectory(prefix="vital-copy-") as engine:
        url, copy = a_filled_database(server, calls), f"chdb://{engine}/ch"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("select export_end_v1(copy) from vital_private.exports")
            [held] = connection.execute(TOTALS.encode()).fetchall()
            run = export(url, copy, connection)
            try:
                seconds = run.run_until(LOADED)
                rows = json.loads(run.stopped())["rows"]
            finally:  # it would go on for ever
                run.process.kill()
        [found] = ask(copy, f"{TOTALS} final")
        if [Decimal(str(one)) for one in held] != [Decimal(one) for one in found.values()]:
            raise AssertionError(f"PostgreSQL holds {held}, the copy {found}")
        [size] = ask(copy, SIZE)
    part = max(len(run.memory) // 10, 1)
    middle = (len(run.memory) - part) // 2
    return {
        "calls": calls,
        "rows": rows,
        "seconds": seconds,
        "us": {
            "PostgreSQL": run.server_ms * 1000 / rows,
            "the export": run.main_ms * 1000 / rows,
            "ClickHouse": (run.all_ms - run.main_ms) * 1000 / rows,
        },
        "memory_mib": {
            "in the first tenth": statistics.median(run.memory[:part]),
            "in the middle": statistics.median(run.memory[middle : middle + part]),
            "in the last tenth": statistics.median(run.memory[-part:]),
            "at most": max(run.memory),
        },
        "bytes_a_call": int(size["bytes"]) / calls,
    }


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    speed = found["rows"] / found["seconds"]
    return [
        Table(
            f"{found['rows']:,} rows into a copy, {found['calls']:,} of them calls",
            ["", "rows a second", "seconds", "bytes a call in the copy"],
            [["the copy", number(speed), number(found["seconds"]), number(found["bytes_a_call"])]],
        ),
        Table(
            "What a row takes of a processor, us",
            ["", *found["us"], "together"],
            [["a row", *(number(one) for one in found["us"].values()), number(sum(found["us"].values()))]],
        ),
        Table(
            "Memory of the export with ClickHouse in it, MiB",
            ["", *found["memory_mib"]],
            [["the export", *(number(one) for one in found["memory_mib"].values())]],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """What was promised for two cores and ten million calls: of fewer, starting and filling caches is most of it."""
    if found["calls"] < PROMISED:
        return []
    grown = found["memory_mib"]["in the last tenth"] / found["memory_mib"]["in the middle"]
    return [
        Claim("rows into a copy, a second", found["rows"] / found["seconds"], "at least", ROWS_A_SECOND),
        Claim("memory of the export at its end, by that in the middle", grown, "at most", GROWTH, "times"),
    ]


PART = Part(
    "clickhouse_copy",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 1_000_000, "folder": ""},
    full={"calls": PROMISED},
)

if __name__ == "__main__":
    PART.main()
