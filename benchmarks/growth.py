"""How everything grows with its size: each cost at one, ten and a hundred times of it, and the exponent.

0 is no growth, 1 is linear. Costs of one thing among so many (a call among so many open ones) should not grow; totals of so many
things no faster than linearly. Every round measures all sizes in turns and has an exponent of its own; told are the median and
the middle half of the rounds. What a total costs however small it is hides how it grows; the last tenfold of the size shows it.
A tenth more counts as linear, or as no growth: over a hundredfold size it is a factor of 1.6, which is what the rounds of a busy
machine differ by.

What the calling thread does is measured by its own time, the server's part by that of its process, each by the shortest of some
turns; delivery and what asks the database by the clock.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number, spanned
from benchmarks.growing_calls import calls, graphs, streams
from benchmarks.growing_delivery import delivery, spools
from benchmarks.growing_store import IN_HAND, Databases, admissions, rows

FASTEST = 1.1
STILL = 0.1
MUST_NOT = ("a call's start and end", IN_HAND)  # with rows stored


def measure(rounds: int, stored: int, made: int, windows: int, delivered: int, left: int) -> Found:
    """All figures. Of calls stored, calls made before, windows known, calls to deliver and calls that the dead have left, these
    are the most, a tenth and a hundredth of which are measured as well."""
    logging.getLogger("vital_tracking").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="vital-bench-") as name,
        a_database_server() as (server, _),
        contextlib.ExitStack() as opened,
    ):
        folder = Path(name)
        databases = Databases(server)
        growths = [
            growth
            for some in (
                rows(databases, folder, sizes(stored)),
                calls(folder, sizes(made)),
                graphs(folder),
                streams(folder),
                admissions(databases, sizes(windows)),
                delivery(databases.make(), folder, sizes(delivered)),
                spools(folder, sizes(left)),
            )
            for growth in opened.enter_context(some)
        ]
        for turn in range(rounds + 1):  # the first one warms everything up
            for growth in growths:
                growth.measure(turn)
        for growth in growths:
            del growth.rounds[0]
        return {"rounds": rounds, "growths": [growth.found() for growth in growths]}


def sizes(most: int) -> tuple[int, int, int]:
    """A hundredth, a tenth, and all."""
    return most // 100, most // 10, most


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    told = []
    for total, title in ((False, "Costs of one thing among so many"), (True, "Totals of so many things")):
        rows = [line(growth) for growth in found["growths"] if growth["total"] is total]
        told.append(
            Table(
                f"{title} ({found['rounds']} rounds)",
                ["", "by", "from", "to", "exponent", "over the last tenfold"],
                rows,
            )
        )
    return told


def line(growth: Found) -> list[str]:
    """One growth in its table."""
    first, last = (
        f"{number(growth['values'][place]['median'])} {growth['unit']} at {growth['sizes'][place]:,}"
        for place in (0, -1)
    )
    return [growth["what"], growth["by"], first, last, spanned(growth["exponent"]), spanned(growth["last"])]


def claims(found: Found) -> list[Claim]:
    """That nothing grows faster than linearly, and what does not grow at all with the rows stored."""
    growths: list[dict[str, Any]] = found["growths"]

    def total_of(growth: dict[str, Any]) -> float:
        """The exponent of so many of them together; where a total has a part that does not grow, over the last tenfold."""
        if growth["total"]:
            return float(max(growth["exponent"]["median"], growth["last"]["median"]))
        return float(growth["exponent"]["median"]) + 1

    fastest = max(growths, key=total_of)
    still = [growth for growth in growths if growth["by"] == "rows stored" and growth["what"].startswith(MUST_NOT)]
    return [
        Claim(
            f"fastest growth of {len(growths)} ({fastest['what']}, by {fastest['by']}), exponent of the total",
            total_of(fastest),
            "at most",
            FASTEST,
        ),
        *(
            Claim(f"{growth['what']}, by rows stored, exponent", abs(growth["exponent"]["median"]), "at most", STILL)
            for growth in still
        ),
    ]


PART = Part(
    "growth",
    __doc__,
    measure,
    tables,
    claims,
    quick={"rounds": 5, "stored": 100_000, "made": 20_000, "windows": 10_000, "delivered": 5_000, "left": 20_000},
    full={"rounds": 15, "stored": 1_000_000, "made": 100_000, "windows": 100_000, "delivered": 20_000, "left": 100_000},
)

if __name__ == "__main__":
    PART.main()
