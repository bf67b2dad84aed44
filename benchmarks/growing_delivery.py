"""What grows with the calls that wait to be delivered, in this process or from dead ones."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.growing import Growth, own_time, shortest
from benchmarks.growing_calls import TURNS
from benchmarks.spool import make_calls, plain, sink_tracker
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.log_record import RecordKind
from vital_tracking.spool.orphans import claim
from vital_tracking.spool.owner import owners_in
from vital_tracking.spool.segment import segments_of

CALL_BYTES = 1600  # of its log records, a little more than they take
SEGMENTS = (1, 10, 100)
DEAD = (1, 10, 100)
TAKE_UP = "taking up what a dead process has left"


@contextlib.contextmanager
def delivery(url: str, folder: Path, sizes: Sequence[int]) -> Iterator[list[Growth]]:
    """Until all that waits is delivered."""

    def delivered_s(calls: int, *, spool: bool) -> float:
        return calls / plain(url, folder, calls, spool=spool)

    yield [
        Growth(
            f"delivering what waits in {place}",
            "calls that wait",
            "s",
            sizes,
            [partial(delivered_s, calls, spool=spool) for calls in sizes],
            total=True,
        )
        for place, spool in (("memory", False), ("the spool", True))
    ]


def die(left: Sequence[tuple[Path, int, int]]) -> None:
    """Into each folder record so many calls, in about so many segments; deliver none, and end as by kill -9."""
    for folder, calls, segments in left:
        segment_bytes = min(calls * CALL_BYTES // segments, 8 << 20)
        tracker = sink_tracker(folder, spool=True, background=False, segment_bytes=segment_bytes, spool_bytes=4 << 30)
        make_calls(tracker, calls)
    os._exit(0)


def orphans(left: Sequence[tuple[Path, int, int]]) -> list[Path]:
    """The folders of a database in which a process that is dead has left so many calls, in about so many segments."""
    process = multiprocessing.get_context("spawn").Process(target=die, args=(left,))
    process.start()
    process.join()
    return [next(path for path in folder.iterdir() if path.is_dir()) for folder, *_ in left]


def take_up_ms(place: Path) -> float:
    """Milliseconds until it is known what the dead have left."""
    gc.collect()
    taken: list[Any] = []
    took = own_time(lambda: taken.extend(claim(owners_in(place))))
    for one in taken:
        one.let_go()
    if not taken:
        raise RuntimeError(f"nothing was left in {place}")
    return took * 1e3


def take_up_mib(place: Path) -> float:
    """The most memory that it takes meanwhile."""
    gc.collect()
    tracemalloc.start()
    taken = list(claim(owners_in(place)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for one in taken:
        one.let_go()
    return most / 2**20


def first_frame_ms(place: Path) -> float:
    """Milliseconds for the first call that a process records, beside what others have left."""

    def opened() -> float:
        spool = Spool(place, root=place.parent)
        took = own_time(lambda: spool.append(RecordKind.OPENED, bytes(16), b"{}"))
        spool.close()
        shutil.rmtree(spool.path, ignore_errors=True)
        return took * 1e3

    return shortest(opened, TURNS)


@contextlib.contextmanager
def spools(folder: Path, sizes: Sequence[int]) -> Iterator[list[Growth]]:
    """What a new process has to do with what dead ones have left."""
    left = [(folder / f"calls-{calls}", calls, 1) for calls in sizes]
    left += [(folder / f"segments-{count}", 1000, count) for count in SEGMENTS]
    left += [(folder / f"dead-{count}", 100, 1) for count in DEAD]
    places = orphans(left)
    waiting, segmented, crowded = places[:3], places[3:6], places[6:]
    memory = [take_up_mib(place) for place in waiting]  # does not vary
    segments = [sum(len(segments_of(owner)) for owner in owners_in(place)) for place in segmented]
    for place, count in zip(crowded, DEAD, strict=True):
        (first,) = owners_in(place)
        for number in range(1, count):
            shutil.copytree(first, place / f"{first.name}-{number}")
    yield [
        Growth(
            TAKE_UP, "calls it has left", "ms", sizes, [partial(take_up_ms, place) for place in waiting], total=True
        ),
        Growth(
            f"{TAKE_UP}, memory",
            "calls it has left",
            "MiB",
            sizes,
            [partial(float, mib) for mib in memory],
            total=True,
        ),
        Growth(
            f"{TAKE_UP}, 1,000 calls",
            "segments",
            "ms",
            segments,
            [partial(take_up_ms, place) for place in segmented],
            total=True,
        ),
        Growth(
            "the first log record of a process, in its thread",
            "dead processes in the spool",
            "ms",
            DEAD,
            [partial(first_frame_ms, place) for place in crowded],
            total=True,
        ),
    ]
