"""What a process keeps after 50,000 calls back to back, and how many of them have arrived.

    python -m benchmarks.memory [--full] [--calls 50000] [--json FILE]

Each contestant (see benchmarks/contestants.py) has a process of its own, in which nothing else is done. After 2,000 calls, when
all is imported and all is delivered, its memory is read; then again after the calls, when what it was told is delivered and
garbage is collected. Growth is told over that of the process without a handler.

  kept    resident memory (RSS) in the end, more than before the calls; nothing is given back by force
  peak    the most that it was in between
  lost    calls that are not in the database or in the sink after the last flush
  cpu     of all threads, delivery included, microseconds a call; here batches are as full as they get
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import BUDGETS, OURS, Places, contestant, names_of
from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.sink import a_sink
from benchmarks.workloads import invoke

WARM: Final = 2000
MB: Final = 1e6


def measure(calls: int, rounds: int, at_once: int, contestants: str) -> Found:
    """All figures, medians of the rounds; `contestants` are `all`, or names with commas between them: `none` is needed."""
    names = names_of(contestants)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="vital-bench-") as folder,
            a_database_server(BUDGETS) as (_, url),
            a_sink() as sink,
            ThreadPoolExecutor(at_once) as pool,
        ):
            places = Places(url, sink, Path(folder))
            for name, seen in zip(names, pool.map(partial(apart, places, calls), names), strict=True):
                found[name].append(seen)
    return {
        "calls": calls,
        "rounds": rounds,
        "contestants": {name: _medians(seen) for name, seen in found.items()},
    }


def _medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure; the most of what was lost, which is None where nothing was to arrive."""
    lost = [one["lost"] for one in rounds]
    return {
        **{what: statistics.median(one[what] for one in rounds) for what in rounds[0] if what != "lost"},
        "lost": None if None in lost else max(lost),
    }


def apart(places: Places, calls: int, name: str) -> dict[str, Any]:
    """A contestant's figures, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, name, places, calls))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    finally:
        process.join()
    return found


def _work(pipe: Any, name: str, places: Places, calls: int) -> None:
    with contestant(name, places) as one, one.turn() as config, one.attached():
        invoke(config, WARM)
        one.flush()
        before = memory(reset=True)
        cpu, wall = time.process_time(), time.perf_counter()
        invoke(config, calls)
        wall = time.perf_counter() - wall
        one.flush()
        cpu = time.process_time() - cpu
        after = memory()
        arrived = one.arrived()
        pipe.send(
            {
                "kept": after["rss"] - before["rss"],
                "peak": after["peak"] - before["rss"],
                "cpu": cpu / calls * 1e6,
                "wall": wall / calls * 1e6,
                "lost": None if arrived is None else WARM + calls - arrived,
            }
        )


def memory(*, reset: bool = False) -> dict[str, int]:
    """Bytes of this process that are resident, and the most since the last reset."""
    gc.collect()
    lines = [line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()]
    sizes = {line[0]: int(line[1]) * 1024 for line in lines if line[-1] == "kB"}
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return {"rss": sizes["VmRSS:"], "peak": sizes["VmHWM:"]}


# What is shown


def more(found: Found, name: str, what: str) -> float:
    """A figure of a contestant, more than without a handler."""
    by = found["contestants"]
    return float(by[name][what] - by["none"][what])


def tables(found: Found) -> list[Table]:
    """A line a contestant."""
    rows = []
    for name, seen in found["contestants"].items():
        lost = "" if seen["lost"] is None else f"{seen['lost']:,}"
        grown = [number(more(found, name, what) / MB) for what in ("kept", "peak")]
        rows.append([name, *(grown if name != "none" else ["", ""]), number(more(found, name, "cpu")), lost])
    itself = found["contestants"]["none"]
    return [
        Table(
            f"{found['calls']:,} calls back to back: more than without a handler, where the process grows by"
            f" {number(itself['kept'] / MB)} MB and a call takes {number(itself['cpu'])} microseconds",
            ["", "MB kept", "MB at the peak", "CPU in all, us a call", "calls lost"],
            rows,
        )
    ]


def claims(found: Found) -> list[Claim]:
    """The sizes to keep."""
    told = []
    if lost := [seen["lost"] for name, seen in found["contestants"].items() if name in OURS]:
        told.append(Claim(f"calls lost of {found['calls']:,}", max(lost), "at most", 0))
    if "budgets+spool" in found["contestants"]:
        kept = more(found, "budgets+spool", "kept") / MB
        told.append(Claim("memory: budgets+spool, kept", kept, "at most", 2, "MB"))
    return told


PART = Part(
    name="memory",
    about=__doc__ or "",
    measure=measure,
    tables=tables,
    claims=claims,
    quick={"calls": 50_000, "rounds": 1, "at_once": 2, "contestants": "none,empty,recording,budgets+spool"},
    full={"calls": 50_000, "rounds": 1, "at_once": 1, "contestants": "all"},
)

if __name__ == "__main__":
    PART.main()
