"""How fast a copy in a ClickHouse is filled, in how much memory, and how large it is.

    python -m benchmarks.clickhouse_copy [--calls 1000000] [--folder FOLDER]

PostgreSQL is a process of its own, and so is `vital-tracking export clickhouse`, in which ClickHouse's engine runs, too (chdb):
whoever has a server elsewhere needs less here. `--follow` then takes up what is recorded meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks import usage
from benchmarks.database import a_database
from benchmarks.reports_database import a_server

CHUNKS = 10
_LIBPQ = {"dbname": "DATABASE"}
TOTALS = "select count(*), coalesce(sum(total_cost), 0), coalesce(sum(total_tokens), 0) from token_usage_logs"
SIZES = """
select column, any(type) as type, sum(column_data_compressed_bytes) as bytes
from system.parts_columns where active and database = currentDatabase() and table = 'token_usage_logs'
group by column order by bytes desc
"""


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


def resident_mib(pid: int) -> float:
    """How much memory a process takes of its own, files that are mapped left out."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Sampled:
    """A process whose memory and processor time are looked at four times a second, until it ends."""

    def __init__(self, command: list[str], **settings: str) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._before = used.ru_utime + used.ru_stime
        self.memory: list[float] = []
        self.process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
        self.started = time.perf_counter()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def _sample(self) -> None:
        while self.process.poll() is None:
            try:
                self.memory.append(resident_mib(self.process.pid))
            except OSError:
                return
            time.sleep(0.25)

    def finished(self) -> tuple[float, str]:
        """Wait for its end; seconds, and what it printed."""
        out, _ = self.process.communicate()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor_s = used.ru_utime + used.ru_stime - self._before
        if self.process.returncode:
            raise SystemExit(f"The export ended with {self.process.returncode}.")
        return time.perf_counter() - self.started, out


def export(url: str, copy: str, *options: str) -> Sampled:
    """Start the export."""
    command = [
        sys.executable,
        "-c",
        "from vital_tracking.cli import main; main()",
        "export",
        "clickhouse",
        copy,
        "--json",
        *options,
    ]
    known = conninfo_to_dict(url)
    return Sampled(
        command,
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


def main() -> None:
    """Fill a copy, then take up what comes, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--folder", default="", help="where the database is kept for the next time")
    parser.add_argument("--columns", action="store_true", help="the size of each column")
    asked = parser.parse_args()
    with a_server(asked.folder) as server, tempfile.TemporaryDirectory(prefix="vital-copy-") as folder:
        url, copy = a_filled_database(server, asked.calls), f"chdb://{folder}/ch"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("select export_end_v1(copy) from vital_private.exports")
            [held] = connection.execute(TOTALS.encode()).fetchall()
        run = export(url, copy)
        seconds, said = run.finished()
        rows = json.loads(said)["rows"]
        print(
            f"{rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} a second;"
            f" the export with ClickHouse's engine in it took {run.processor_s / rows * 1e6:.1f} us of a processor a row"
        )
        tenth = max(len(run.memory) // CHUNKS, 1)
        print(
            "memory, MiB, by tenths of the time:",
            *(f"{max(run.memory[n : n + tenth]):.0f}" for n in range(0, len(run.memory), tenth)),
        )
        [found] = ask(
            copy,
            "select count() as n, sum(total_cost) as cost, sum(total_tokens) as tokens from token_usage_logs final",
        )
        print("PostgreSQL", *held, "ClickHouse", *found.values())
        [bytes_] = ask(
            copy,
            "select sum(bytes_on_disk) as b, count() as parts from system.parts where active and database = currentDatabase()",
        )
        print(f"{int(bytes_['b']) / asked.calls:.0f} bytes a row, {bytes_['parts']} parts")
        if asked.columns:
            for row in ask(copy, SIZES):
                print(f"{int(row['bytes']) / asked.calls:8.2f}  {row['column']}  {row['type']}")


if __name__ == "__main__":
    main()
