"""What it costs to ask the budgets before a call: in the calling thread, at the database, and with many callers at once.

Interleaved rounds, medians, one run on one throw-away PostgreSQL on this machine, which does not wait for its disk: that
favours whoever asks it for every call. Machines are noisy: read the ratios.

  in hand   admissions that the grants of this process cover: microseconds of the calling thread's own time, by windows
  miss      admissions that ask the database: milliseconds until the answer, of a user who has never called before, and of one
            whose budget is so near its limit that every call asks
  hot       admissions a second on one budget of an organization that everybody shares, and how long each took its caller, by
            three ways: `grants` is ours; `row lock` updates the budget's row for every admission, by one SQL function call;
            `check, then add` reads the row, compares, and adds to it, which is wrong
  limit     calls that all callers together may make of one budget before they are stopped, and what the database has counted as
            spent when all of them are recorded
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import psycopg

from benchmarks.callers import BUDGETS, SHAPES, SQL, WAYS, AtTheLimit, Callers, a_tracker, request
from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number, ratios, spanned, spread
from vital_tracking import VitalTracker
from vital_tracking.core.admission import Request

IN_HAND_US = 2
TIMES_LOCKING = 20
TURNS = 10  # measurements of a few milliseconds; the shortest counts, as others lost time to other programs

# In the calling thread


def in_hand(tracker: VitalTracker, asked: Sequence[Request], count: int = 500) -> float:
    """Microseconds of this thread's own time for one admission that the grants cover; the requests take turns."""
    controller = tracker._controller
    requests = [*asked] * -(-count // len(asked))

    def admit() -> float:
        started = time.thread_time()
        admissions = [controller.admit(request) for request in requests]
        took = time.thread_time() - started
        for admission in admissions:
            controller.release(admission)
        controller.release(controller.admit(requests[0]))  # takes back what was released
        return took / len(requests) * 1e6

    admit()  # fetches what the next ones need
    return min(admit() for _ in range(TURNS))


def misses(tracker: VitalTracker, who: Callable[[], Request], count: int) -> list[float]:
    """Milliseconds for each of some admissions that ask the database; their calls never end."""
    times: list[float] = []
    for _ in range(count):
        asked = who()
        started = time.perf_counter()
        tracker._controller.admit(asked)
        times.append((time.perf_counter() - started) * 1e3)
    return times


# All of it


def measure(rounds: int, seconds: float) -> Found:
    """All figures, each of its rounds; with many callers so many seconds a measurement."""
    with a_database_server(BUDGETS) as (_, url), psycopg.connect(url, autocommit=True) as owner:
        owner.execute(SQL)
        tracker, callers = a_tracker(url), Callers(url)
        asked = {
            "1 window": [request(session_id="one")],
            "5 windows": [request(organization_id="five", service_type="workflow", user_id="five")],
        }
        numbers = itertools.count()
        who: dict[str, Callable[[], Request]] = {
            "a new user": lambda: request(organization_id="fresh", user_id=f"u-{next(numbers)}"),
            # A twentieth of what is left is less than a call.
            "near the limit": lambda: request(organization_id="near", user_id=f"u-{next(numbers) // 10}"),
        }
        thread_times: dict[str, list[float]] = {name: [] for name in asked}
        waits: dict[str, list[float]] = {name: [] for name in who}
        hot: dict[tuple[str, tuple[int, int]], list[tuple[float, float, float]]] = {
            (way, shape): [] for shape in SHAPES for way in WAYS
        }
        at_the_limit = AtTheLimit(owner, callers)
        for turn in range(rounds + 1):  # the first one warms everything up
            for name, requests in asked.items():
                thread_times[name].append(in_hand(tracker, requests))
            for name, new in who.items():
                waits[name] += misses(tracker, new, 40)
            for (way, shape), values in hot.items():
                times = callers.run(way, shape, seconds=seconds)
                values.append((len(times) / seconds, *percentiles(times)))
            for way in WAYS:
                at_the_limit.run(way, f"{way} {turn}")
            if turn == 0:
                for series in (thread_times, waits, hot):
                    for values in series.values():
                        values.clear()
        callers.close()
        tracker.close()
    return {
        "rounds": rounds,
        "seconds": seconds,
        "in_hand_us": {name: spread(values) for name, values in thread_times.items()},
        "miss_ms": {
            name: dict(zip(("p50", "p99"), percentiles(values), strict=True)) for name, values in waits.items()
        },
        "hot": [
            {
                "processes": processes,
                "threads": threads,
                **{way: told(hot[way, (processes, threads)]) for way in WAYS},
                "ratio": ratios(*([rate for rate, *_ in hot[way, (processes, threads)]] for way in WAYS[:2])),
            }
            for processes, threads in SHAPES
        ],
        "limit": at_the_limit.found(),
    }


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    if len(times) < 2:
        raise RuntimeError("nothing was admitted in the time that was given; raise --seconds")
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def told(rounds: list[tuple[float, float, float]]) -> Found:
    """Of some rounds of many callers: admissions a second, and microseconds for each."""
    rates, medians, longest = zip(*rounds, strict=True)
    return {
        "per_s": spread(rates),
        "p50_us": spread([one * 1e6 for one in medians]),
        "p99_us": spread([one * 1e6 for one in longest]),
    }


def shape_of(row: Found) -> str:
    """How many callers there are."""
    processes, threads = row["processes"], row["threads"]
    return f"{processes} process{'es' * (processes > 1)}" if threads == 1 else f"{threads} threads"


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    rounds, limit = found["rounds"], found["limit"]
    return [
        Table(
            "An admission that the grants in hand cover, in the calling thread",
            ["", "us"],
            [[name, spanned(us)] for name, us in found["in_hand_us"].items()],
        ),
        Table(
            "An admission that asks the database",
            ["", "p50, ms", "p99, ms"],
            [[name, number(ms["p50"]), number(ms["p99"])] for name, ms in found["miss_ms"].items()],
        ),
        Table(
            f"Admissions a second on one hot budget (medians of {rounds} rounds of {found['seconds']} s)",
            ["callers", *WAYS, "grants over row lock"],
            [
                [shape_of(row), *(number(row[way]["per_s"]["median"]) for way in WAYS), spanned(row["ratio"])]
                for row in found["hot"]
            ],
        ),
        Table(
            "How long each of them took its caller, us: p50 / p99",
            ["callers", *WAYS],
            [
                [
                    shape_of(row),
                    *(" / ".join(number(row[way][part]["median"]) for part in ("p50_us", "p99_us")) for way in WAYS),
                ]
                for row in found["hot"]
            ],
        ),
        Table(
            f"Calls over a limit of {limit['calls']} that {limit['callers']} make at once",
            ["", "median", "most", "fewest calls made"],
            [
                [
                    way,
                    number(limit[way]["over"]["median"]),
                    number(limit[way]["over"]["most"]),
                    str(limit[way]["least_made"]),
                ]
                for way in WAYS
            ],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """What the issue keeps: of all shapes the one with the least gain counts."""
    slowest, us = max(found["in_hand_us"].items(), key=lambda one: one[1]["median"])
    worst = min(found["hot"], key=lambda row: row["ratio"]["median"])
    best = max(found["hot"], key=lambda row: row["ratio"]["median"])
    gained = number(best["ratio"]["median"])
    ours = found["limit"]["grants"]
    return [
        Claim(f"admission with a grant in hand, {slowest}", us["median"], "at most", IN_HAND_US, "us"),
        Claim(
            f"one hot budget, over one locking call each, worst with {shape_of(worst)} ({gained} with {shape_of(best)})",
            worst["ratio"]["median"],
            "at least",
            TIMES_LOCKING,
            "times",
        ),
        Claim("one hot budget, most calls over its limit", ours["over"]["most"], "at most", 0),
        Claim("one hot budget, calls admitted and not counted, or the reverse", ours["unlike_made"], "at most", 0),
    ]


PART = Part(
    "admission",
    __doc__,
    measure,
    tables,
    claims,
    quick={"rounds": 15, "seconds": 0.1},
    full={"rounds": 25, "seconds": 0.5},
)

if __name__ == "__main__":
    PART.main()
