"""How fast what-if answers: from the calls themselves, from sums, and looking for repeated requests.

Fills an embedded PostgreSQL with so many calls of 30 days and 300 organizations, and asks for all of them, as an operator does:

  calls      a switch of the short requests of every model: all calls in groups that are priced alike, some hundred thousand a
             request and two requests at a time, each repriced three times
  repeated   an exact cache that keeps answers for an hour: requests told apart by their hashes, and by nothing that is priced
  sums       all models' sums by service, agent and model, repriced: what a switch without sizes takes

Seconds by the clock, and of processor time of server and client together. Ten million calls are reckoned from these, since all of
it grows with the calls; `--calls 10000000` measures them (half an hour to fill, 8 GB). `--folder` keeps the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from benchmarks import usage
from benchmarks.database import cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number, spanned, spread
from benchmarks.reports_database import Size, a_server, filled
from vital_tracking import PriceBook
from vital_tracking.advice.changes import ExactCache, Prospect, SwitchModel, Where
from vital_tracking.advice.what_if import what_if
from vital_tracking.advice.window import ask_what_if
from vital_tracking.core.request_size import Size as RequestSize
from vital_tracking.queries.call_groups import read_summed_calls
from vital_tracking.queries.explore import Period
from vital_tracking.stores.postgres import PostgresStore

PROMISED_CALLS = 10_000_000
SECONDS = {"calls": 20, "repeated": 20, "sums": 1}
DAYS = 30


def asked(store: PostgresStore) -> dict[str, Callable[[], object]]:
    """The three questions."""
    period, prices = Period.last_days(DAYS), PriceBook(usage.PRICES)
    short = SwitchModel(where=Where(size=RequestSize.simple), model="model-0", provider="openai")

    def of_sums() -> object:
        summed = read_summed_calls(store, period)
        switch = SwitchModel(where=Where(), model="model-0", provider="openai")
        return what_if(summed.groups, [switch], Prospect(prices, (period.since,)), source="sums")

    return {
        "calls": lambda: ask_what_if(store, period, [short], prices=prices),
        "repeated": lambda: ask_what_if(store, period, [ExactCache()], prices=prices, ttl=timedelta(hours=1)),
        "sums": of_sums,
    }


def measure(calls: int, rounds: int, folder: str) -> Found:
    """Seconds of each question, in turns."""
    size = Size(calls, DAYS)
    clock: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    with a_server(folder) as server:
        url = filled(server, size)
        store = PostgresStore(url)
        with psycopg.connect(url, autocommit=True) as watcher:
            for turn in range(rounds + 1):
                for name, ask in asked(store).items():
                    before, started = _seconds(watcher), time.perf_counter()
                    ask()
                    if turn:  # the first one reads from the disk
                        clock.setdefault(name, []).append(time.perf_counter() - started)
                        processor.setdefault(name, []).append(_seconds(watcher) - before)
        store.close()
    return {
        "calls": calls,
        "rounds": rounds,
        "clock": {name: spread(values) for name, values in clock.items()},
        "processor": {name: spread(values) for name, values in processor.items()},
    }


def _seconds(watcher: psycopg.Connection[Any]) -> float:
    """Processor time of this process and of the server's processes that work for it, in seconds."""
    pids = [pid for (pid,) in watcher.execute("select pid from pg_stat_activity where datname = current_database()")]
    return time.process_time() + cpu_ms(pids) / 1000


def tables(found: Found) -> list[Table]:
    """The figures as a table."""
    times = PROMISED_CALLS / found["calls"]
    return [
        Table(
            f"What-if of {found['calls']:,} calls of {DAYS} days, in seconds ({found['rounds']} rounds)",
            ["", "by the clock", "processor time", "of ten million, reckoned"],
            [
                [
                    name,
                    spanned(found["clock"][name]),
                    spanned(found["processor"][name]),
                    number(found["clock"][name]["median"] * (1 if name == "sums" else times)),
                ]
                for name in found["clock"]
            ],
        )
    ]


def claims(found: Found) -> list[Claim]:
    """Ten million calls, from the calls and from sums."""
    many = PROMISED_CALLS / found["calls"]
    times = {"calls": many, "repeated": many, "sums": 1}
    return [
        Claim(
            f"what-if of ten million calls from {name}, by the clock",
            found["clock"][name]["median"] * times[name],
            "at most",
            seconds,
            "s",
        )
        for name, seconds in SECONDS.items()
    ]


PART = Part(
    "what_if",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 1_000_000, "rounds": 3, "folder": ""},
)

if __name__ == "__main__":
    PART.main()
