"""What each call costs more with a handler: in the calling thread, until it returns, and in all of the process.

    python -m benchmarks.overhead [--full] [--rounds 15] [--json FILE]

Microseconds a call (a run, of the graph and the agent) more than the same work without a handler; medians of rounds, in each of
which all contestants (see benchmarks/contestants.py) do all works, in an order drawn anew. Slices of calls with the handler and
without one alternate every few milliseconds, and each is compared with its neighbours: what disturbs one disturbs both. Where
`none` adds something, that is what the figures cannot tell.

  own    of the calling thread (time.thread_time), while threads of the contestant deliver as they do by default, beside calls
         with and without the handler alike
  wall   until the calls have returned (time.perf_counter), against those of `none` in the same round: with what the thread waits
         for, the interpreter and the processor
  cpu    of all threads (time.process_time), until all that was told is delivered

  hashing  what VITAL_HASH_KEY adds to a call's start, by the size of its prompt: the hash of the request, and those of its prefix

A ratio is that of two medians; its spread is that of the same rounds drawn again and again (a bootstrap), since what a cheap
handler adds within one round may be less than its noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import HumanMessage, SystemMessage

from benchmarks.contestants import BUDGETS, OURS, Contestant, Empty, Ours, Places, contestant, names_of
from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number, spanned, spread
from benchmarks.sink import a_sink
from benchmarks.workloads import NAME, Tape, Work, events, taped, works
from vital_tracking.calls.hashes import RequestHashes, request_hash

MEASURES: Final = ("own", "wall", "cpu")
_DRAWS: Final = 1000
_TOLD: Final = 100  # runs of the graph, and hashes of a prompt
_PROMPTS: Final = (1, 16, 128)  # kB

# Of a work and a contestant, microseconds a call of each round: of calls with the handler (`with`) and of those between them
# (`without`) in the calling thread, of both until they have returned (`both`); of other threads and of the delivery that is
# left when all calls have returned (`rest`).
Taken = dict[str, float]
Rounds = dict[str, dict[str, list[Taken]]]


def measure(rounds: int, astreams: int, contestants: str) -> Found:
    """All figures; `contestants` are `all`, or names with commas between them: `none` is needed."""
    names = names_of(contestants)
    todo = works(astreams)
    with (
        tempfile.TemporaryDirectory(prefix="vital-bench-") as folder,
        a_database_server(BUDGETS) as (_, url),
        a_sink() as sink,
        contextlib.ExitStack() as opened,
        asyncio.Runner() as loop,
    ):
        places = Places(url, sink, Path(folder))
        everybody = [opened.enter_context(contestant(name, places)) for name in names]
        taken: Rounds = {work.name: {one.name: [] for one in everybody} for work in todo}
        order = random.Random(1)
        gc.collect()
        gc.freeze()  # what is there for good is not gone through again before each turn
        for round_number in range(rounds + 1):
            for work in todo:
                for one in order.sample(everybody, len(everybody)):
                    seconds = contextvars.copy_context().run(turn, one, work, loop, round_number)
                    if round_number:  # the first round warms everything up
                        taken[work.name][one.name].append(seconds)
            if not round_number:
                gc.collect()
                gc.freeze()  # and what the first round has imported
        sent = (rounds + 1) * sum(work.slices * work.count * work.calls for work in todo)
        delivered = {one.name: arrived for one in everybody if (arrived := one.arrived()) is not None}
        about = {
            work.name: {"about": work.about, "each": work.each, "chain_events": events(work, loop)["chain"]}
            for work in todo
        }
        by_event = chain_events(everybody, taped(next(work for work in todo if work.name == "graph"), loop), rounds)
    return {
        "rounds": rounds,
        "works": about,
        **told(taken),
        "chain_event_us": by_event,
        "hashing_us": hashing(rounds),
        "sent": sent,
        "delivered": delivered,
    }


def chain_events(everybody: Sequence[Contestant], tape: Tape, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of the calling thread that a chain event takes `empty` and ours, when LangChain tells them those of one run of
    the graph again and again: in whole runs they are lost in the noise."""
    handlers = {one.name: one.handler for one in everybody if isinstance(one, (Empty, Ours))}
    took: dict[str, list[float]] = {name: [] for name in handlers}
    for _ in range(rounds):
        for name, handler in handlers.items():
            gc.collect()
            started = time.thread_time()
            for _ in range(_TOLD):
                tape.played_to(handler)
            took[name].append((time.thread_time() - started) / _TOLD / len(tape.events) * 1e6)
    return {name: spread(values) for name, values in took.items()}


def hashing(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds of the calling thread for the keyed hashes of a request, by the size of its prompt: a system message of half
    of it, and four turns."""
    hashes, key, params = RequestHashes(b"k" * 32), b"k" * 32, {"model": NAME, "temperature": 0}
    took: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for kilobytes in _PROMPTS:
            turns = [HumanMessage("turn " * (kilobytes * 25)) for _ in range(4)]
            prompts = [[SystemMessage("rule " * (kilobytes * 100)), *turns]]
            by = took.setdefault(f"{kilobytes} kB", {"request": [], "prefix": []})
            for name, hashed in (
                ("request", lambda prompts=prompts: request_hash(key, (params, prompts))),
                ("prefix", lambda prompts=prompts: hashes.prefix(params, prompts)),
            ):
                started = time.thread_time()
                for _ in range(_TOLD):
                    hashed()
                by[name].append((time.thread_time() - started) / _TOLD * 1e6)
    return {
        size: {
            **{name: spread(values) for name, values in by.items()},
            "ratio": ratio_of_medians(by["prefix"], by["request"]),
        }
        for size, by in took.items()
    }


def turn(one: Contestant, work: Work, loop: asyncio.Runner, round_number: int) -> Taken:
    """One contestant's turn at one work; who begins changes from slice to slice and from round to round."""
    taken = {"with": 0.0, "without": 0.0, "both": 0.0}

    def calls(config: Any, kind: str) -> None:
        own, wall = time.thread_time(), time.perf_counter()
        work.run(config, loop)
        taken[kind] += time.thread_time() - own
        taken["both"] += time.perf_counter() - wall

    with one.turn() as config:
        bare = {"metadata": config["metadata"]}
        gc.collect()
        cpu, own = time.process_time(), time.thread_time()
        for number in range(work.slices):
            begins = (number + round_number) % 2
            if not begins:
                calls(bare, "without")
            with one.attached():
                calls(config, "with")
            if begins:
                calls(bare, "without")
        own = time.thread_time() - own  # of the calls, and of what is between them
        one.flush()
        taken["rest"] = time.process_time() - cpu - own
    one.flush()  # the end of the scope too: nothing is left to do in the others' turns
    return {what: seconds / (work.slices * work.count) * 1e6 for what, seconds in taken.items()}


# Figures


def told(taken: Rounds) -> Found:
    """What the work takes by itself, what each contestant adds to it, and the ratios of what they add."""
    added = {work: {name: added_by(rounds, of["none"]) for name, rounds in of.items()} for work, of in taken.items()}
    return {
        "itself": {work: spread([one["without"] for one in of["none"]]) for work, of in taken.items()},
        "added": {
            work: {name: {what: spread(values) for what, values in by.items()} for name, by in of.items()}
            for work, of in added.items()
        },
        "ratios": {work: dict(compared(of)) for work, of in added.items()},
    }


def added_by(rounds: list[Taken], alone: list[Taken]) -> dict[str, list[float]]:
    """What a contestant adds, by measure and round; `alone` are the rounds of nobody."""
    pairs = list(zip(rounds, alone, strict=True))
    return {
        "own": [one["with"] - one["without"] for one in rounds],
        "wall": [one["both"] - other["both"] for one, other in pairs],
        "cpu": [one["with"] - one["without"] + one["rest"] - other["rest"] for one, other in pairs],
    }


def compared(added: dict[str, dict[str, list[float]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each of ours adds beside what the others add, by measure."""
    for ours in ("recording", "budgets+spool"):
        for other in added:
            if ours in added and other not in ("none", *OURS):
                yield (
                    f"{ours}/{other}",
                    {what: ratio_of_medians(added[ours][what], added[other][what]) for what in MEASURES},
                )


def ratio_of_medians(values: Sequence[float], bases: Sequence[float]) -> dict[str, float]:
    """The ratio of two series' medians, as `spread` tells it: its quartiles are those of rounds drawn with replacement."""
    draw = random.Random(1)
    drawn = []
    for _ in range(_DRAWS):
        rounds = draw.choices(range(len(values)), k=len(values))
        drawn.append(_ratio([values[one] for one in rounds], [bases[one] for one in rounds]))
    return {**spread(drawn), "median": _ratio(values, bases)}


def _ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """At most 1,000: what is lost in the noise divides nothing."""
    base = statistics.median(bases)
    return min(statistics.median(values) / base, 1e3) if base > 0 else 1e3


# What is shown


def tables(found: Found) -> list[Table]:
    """What each adds, by measure, and ours beside the others."""
    works = found["works"]
    titles = {
        "own": "Microseconds of the calling thread",
        "wall": "Microseconds until the calls have returned",
        "cpu": "Microseconds of all threads, until all is delivered",
    }
    shown = [
        Table(
            "The works, without a handler",
            ["", "us of the calling thread", "for each", "chain events"],
            [
                [
                    f"{name}: {work['about']}",
                    number(found["itself"][name]["median"]),
                    work["each"],
                    str(work["chain_events"]),
                ]
                for name, work in works.items()
            ],
        )
    ]
    shown += [
        Table(
            f"{title}: what each adds; medians of {found['rounds']} rounds",
            ["", *works],
            [
                [name, *(number(found["added"][work][name][what]["median"]) for work in works)]
                for name in found["added"]["invoke"]
                if (name, what) != ("none", "wall")
            ],
        )
        for what, title in titles.items()
    ]
    shown += [
        Table(
            f"{title}: what ours add, beside what others add",
            ["", *works],
            [
                [pair.replace("/", " / "), *(spanned(found["ratios"][work][pair][what]) for work in works)]
                for pair in found["ratios"]["invoke"]
            ],
        )
        for what, title in titles.items()
        if what != "wall"
    ]
    shown.append(
        Table(
            "Microseconds of the calling thread for a chain event of the graph",
            ["", "us"],
            [[name, spanned(us)] for name, us in found["chain_event_us"].items()],
        )
    )
    shown.append(hashing_table(found["hashing_us"]))
    shown.append(
        Table(
            f"Of {found['sent']:,} calls delivered",
            ["", "calls"],
            [[name, f"{arrived:,}"] for name, arrived in found["delivered"].items()],
        )
    )
    return shown


def hashing_table(took: dict[str, dict[str, dict[str, float]]]) -> Table:
    """What the hashes of a request take, where they are asked for."""
    return Table(
        "Microseconds of the calling thread for keyed hashes, with VITAL_HASH_KEY alone",
        ["a prompt of", "its request", "its prefix", "prefix / request"],
        [[size, spanned(by["request"]), spanned(by["prefix"]), spanned(by["ratio"])] for size, by in took.items()],
    )


def claims(found: Found) -> list[Claim]:
    """The sizes to keep."""

    def ratio(ours: str, other: str, work: str, limit: float, what: str = "own") -> list[Claim]:
        pair = found["ratios"][work].get(f"{ours}/{other}")
        said = "" if what == "own" else f", {what} in all"
        return [Claim(f"{work}: {ours} / {other}{said}", pair[what]["median"], "at most", limit)] if pair else []

    def beyond_empty() -> list[Claim]:
        took = found["chain_event_us"]
        if not {"recording", "empty"} <= took.keys():
            return []
        more = took["recording"]["median"] - took["empty"]["median"]
        return [Claim("graph: recording more than empty, a chain event", more, "at most", 2, "us")]

    return [
        *ratio("recording", "empty", "invoke", 2),
        *ratio("recording", "empty", "ainvoke", 2),
        *ratio("recording", "empty", "astream", 1.25),
        *(one for work in ("invoke", "ainvoke", "astream") for one in ratio("budgets+spool", "empty", work, 3.2)),
        *ratio("recording", "Langfuse", "invoke", 0.2),
        *ratio("recording", "LangSmith", "invoke", 0.1),
        *ratio("recording", "OpenInference", "invoke", 0.1),
        *ratio("budgets+spool", "Langfuse", "invoke", 0.33, "cpu"),
        *beyond_empty(),
    ]


PART = Part(
    name="overhead",
    about=__doc__ or "",
    measure=measure,
    tables=tables,
    claims=claims,
    quick={"rounds": 15, "astreams": 20, "contestants": "all"},
    full={"rounds": 30, "astreams": 100, "contestants": "all"},
)

if __name__ == "__main__":
    PART.main()
