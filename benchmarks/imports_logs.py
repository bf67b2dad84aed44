"""How fast access logs are read and recorded, beside a plain script.

Interleaved rounds over the same logs, medians, one run. Machines are noisy: read the ratios, and the lines a second of processor
time, which say what two free cores would do.

  read      lines a second of a log's text made into a batch for the database: every field checked, ids, hashes of addresses and
            user agents. `script` is what one would write in an afternoon: json.loads or a regular expression, strptime, and a
            dict a line; `pandas`, where it is installed, is read_json(lines=True) or read_csv, with the times parsed
  record    lines a second from the file to the commit, on a throw-away PostgreSQL that does not wait for its disk; `script` reads
            as above and sends what it reads by record_events_v1, a thousand events a time. Both keep the same sums
  memory    megabytes at most of a process that imports a log of so many lines
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.database import a_database, a_database_server, cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number, ratios, spanned, spread
from vital_tracking.imports.line_batch import LineReader
from vital_tracking.imports.log_import import ImportOptions, LogImport
from vital_tracking.imports.log_text import LogText
from vital_tracking.stores.postgres import PostgresStore

KEY = b"a key of hashes that is long enough"
FORMATS = ("json", "nginx")
BATCH = 1_000
SCRIPT = re.compile(r'(\S+) - (\S+) \[([^\]]+)\] "(\S+) (\S+) [^"]*" (\d+) (\d+) "[^"]*" "[^"]*" (\S+)')


def requests(lines: int) -> Iterator[dict[str, Any]]:
    """Requests of a morning: a thousand users on five thousand addresses, forty user agents, two hundred paths."""
    chance = random.Random(4711)
    addresses = [f"10.{chance.randint(0, 255)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}" for _ in range(5_000)]
    moment = datetime(2026, 1, 15, 8, tzinfo=UTC)
    for number_ in range(lines):
        moment += timedelta(milliseconds=chance.randint(0, 40))
        yield {
            "timestamp": moment.isoformat(),
            "user_id": f"u-{chance.randint(1, 1000)}",
            "method": chance.choice(("GET", "POST")),
            "path": f"/api/{chance.choice(('search', 'chat', 'documents', 'agents'))}/{chance.randint(1, 50)}?request={number_}",
            "status": chance.choice((*(200,) * 20, 404, 500)),
            "duration_ms": chance.randint(1, 4_000),
            "size": chance.randint(100, 20_000),
            "ip_address": chance.choice(addresses),
            "user_agent": f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{chance.randint(90, 130)}.0",
        }


def write(folder: Path, lines: int) -> dict[str, Path]:
    """The same requests in both formats."""
    files = {name: folder / f"access.{name}.log" for name in FORMATS}
    with files["json"].open("w") as as_json, files["nginx"].open("w") as as_nginx:
        for row in requests(lines):
            as_json.write(json.dumps(row) + "\n")
            stamp = datetime.fromisoformat(row["timestamp"]).strftime("%d/%b/%Y:%H:%M:%S +0000")
            as_nginx.write(
                f'{row["ip_address"]} - {row["user_id"]} [{stamp}] "{row["method"]} {row["path"]} HTTP/1.1" {row["status"]} '
                f'{row["size"]} "-" "{row["user_agent"]}" {row["duration_ms"] / 1000:.3f}\n'
            )
    return files


def script(path: Path, form: str) -> Iterator[dict[str, Any]]:
    """What one would write in an afternoon."""
    with path.open() as lines:
        for line in lines:
            if form == "json":
                row = json.loads(line)
                moment = datetime.fromisoformat(row["timestamp"])
            else:
                found = SCRIPT.match(line)
                assert found is not None
                names = ("ip_address", "user_id", "timestamp", "method", "path", "status", "size", "seconds")
                row = dict(zip(names, found.groups(), strict=True))
                moment = datetime.strptime(row["timestamp"], "%d/%b/%Y:%H:%M:%S %z")
                row |= {
                    "status": int(row["status"]),
                    "size": int(row["size"]),
                    "duration_ms": float(row["seconds"]) * 1000,
                }
            yield {
                "id": str(uuid4()),
                "occurred_at": moment.isoformat(),
                "user_id": row["user_id"],
                "category": "system_health",
                "event_name": "http_request",
                "source": row["path"].partition("?")[0],
                "value": row["duration_ms"],
                "properties": {name: row[name] for name in ("method", "status", "duration_ms", "size")},
            }


def read_ours(path: Path, form: str) -> None:
    log = LogText(str(path))
    reader = LineReader("0" * 16, hash_key=KEY)
    line = 0
    while (block := log.next()) is not None:
        batch = reader.read(block.place, line, block.lines, block.end)
        assert not batch.bad
        batch.json()
        line += len(block.lines)
    log.close()


def read_script(path: Path, form: str) -> None:
    for _ in script(path, form):
        pass


def read_pandas(path: Path, form: str) -> None:
    import pandas

    if form == "json":
        frame = pandas.read_json(path, lines=True)
        pandas.to_datetime(frame["timestamp"])
    else:
        frame = pandas.read_csv(path, sep=r'\s(?=(?:[^"]*"[^"]*")*[^"]*$)', engine="python", header=None)
        pandas.to_datetime(frame[3] + " " + frame[4], format="[%d/%b/%Y:%H:%M:%S %z]")


def record_ours(store: PostgresStore, path: Path, form: str) -> int:
    importer = LogImport(store, ImportOptions(hash_key=KEY))
    importer.read(LogText(str(path))).end()
    return importer.done.events


def record_script(store: PostgresStore, path: Path, form: str) -> int:
    waiting: list[dict[str, Any]] = []
    sent = 0

    def send() -> int:
        answer = store.call("record_events_v1", events=json.dumps(waiting))
        waiting.clear()
        return int(answer["inserted"])

    for row in script(path, form):
        waiting.append(row)
        if len(waiting) == BATCH:
            sent += send()
    return sent + (send() if waiting else 0)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of this process's processor time."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - own


def measure(lines: int, rounds: int, memory_lines: int) -> Found:
    readers: dict[str, Callable[[Path, str], None]] = {"ours": read_ours, "script": read_script}
    try:
        import pandas

        assert pandas
        readers["pandas"] = read_pandas
    except ImportError:
        pass
    read: dict[str, dict[str, dict[str, list[float]]]] = {
        form: {way: {"wall": [], "own": []} for way in readers} for form in FORMATS
    }
    recorded: dict[str, dict[str, list[float]]] = {
        way: {"wall": [], "own": [], "server": []} for way in ("ours", "script")
    }
    with tempfile.TemporaryDirectory() as name, a_database_server() as (_server, url):
        files = write(Path(name), lines)
        for turn in range(rounds):
            for form in FORMATS:
                for way, work in readers.items():
                    wall, own = timed(partial(work, files[form], form))
                    read[form][way]["wall"].append(lines / wall)
                    read[form][way]["own"].append(lines / own)
            for way, record in (("ours", record_ours), ("script", record_script)):
                store = PostgresStore(a_database(url, f"{way}_{turn}"))
                backend = store._run(lambda connection: connection.info.backend_pid)
                before = cpu_ms([backend])
                wall, own = timed(partial(record, store, files["json"], "json"))
                assert store.call("imports_v1") or way == "script"
                recorded[way]["wall"].append(lines / wall)
                recorded[way]["own"].append(lines / own)
                recorded[way]["server"].append(lines / (cpu_ms([backend]) - before) * 1000)
                store.close()
        memory = {str(size): peak_mb(url, Path(name), size) for size in (0, memory_lines // 8, memory_lines)}
    return {
        "lines": lines,
        "read": {form: {way: spreads(kinds) for way, kinds in ways.items()} for form, ways in read.items()},
        "read_ratios": {
            form: {way: ratios(ways["ours"]["own"], kinds["own"]) for way, kinds in ways.items() if way != "ours"}
            for form, ways in read.items()
        },
        "record": {way: spreads(kinds) for way, kinds in recorded.items()},
        "record_ratio": ratios(recorded["ours"]["wall"], recorded["script"]["wall"]),
        "memory_mb": memory,
    }


def spreads(kinds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {kind: spread(values) for kind, values in kinds.items()}


def peak_mb(url: str, folder: Path, lines: int) -> float:
    """The most memory that a process had that imported so many lines."""
    path = folder / "memory.log"
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in requests(lines))
    database = a_database(url, f"memory_{lines}")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.imports_logs", "--peak", database, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def peak(url: str, path: str) -> None:
    store = PostgresStore(url)
    record_ours(store, Path(path), "json")
    store.close()
    # Not getrusage, whose figure is that of the parent where it was the larger one.
    peaks = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peaks is not None
    print(int(peaks[1]) / 1024)


def tables(found: Found) -> list[Table]:
    reads = [
        [
            f"{form}, {way}",
            spanned(kinds["wall"]),
            spanned(kinds["own"]),
            "" if way == "ours" else spanned(found["read_ratios"][form][way]),
        ]
        for form, ways in found["read"].items()
        for way, kinds in ways.items()
    ]
    records = [
        [way, *(spanned(kinds[kind]) for kind in ("wall", "own", "server"))] for way, kinds in found["record"].items()
    ]
    memory = [[f"{int(lines):,} lines", number(value)] for lines, value in found["memory_mb"].items()]
    return [
        Table(
            f"Reading {found['lines']:,} lines of a log, lines a second",
            ["", "by the clock", "of processor time", "ours beside it"],
            reads,
        ),
        Table(
            f"Recording them (ours is {spanned(found['record_ratio'])} times the script)",
            ["lines a second", "by the clock", "of the process", "of the server"],
            records,
        ),
        Table("Memory of an import", ["", "MB at most"], memory),
    ]


def claims(found: Found) -> list[Claim]:
    ours = found["record"]["ours"]
    least = min(found["read"][form]["ours"]["own"]["median"] for form in FORMATS)
    small, large = sorted(found["memory_mb"], key=int)[1:]
    return [
        Claim("lines of a log read, a second of processor time", least, "at least", 50_000),
        Claim(
            "lines recorded a second, where process and server have a core each",
            min(ours["own"]["median"], ours["server"]["median"]),
            "at least",
            20_000,
        ),
        Claim(
            f"memory of importing {int(large):,} lines beside {int(small):,}",
            found["memory_mb"][large] / found["memory_mb"][small],
            "at most",
            1.2,
            "times",
        ),
    ]


PART = Part(
    "imports_logs",
    __doc__ or "",
    measure,
    tables,
    claims,
    quick={"lines": 60_000, "rounds": 3, "memory_lines": 200_000},
    full={"lines": 500_000, "rounds": 5, "memory_lines": 4_000_000},
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(*sys.argv[2:])
    else:
        PART.main()
