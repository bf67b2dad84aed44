"""One cost at several sizes, and what is needed to measure such."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Found, exponent, spread


@dataclass(frozen=True)
class Growth:
    """What one thing costs at several sizes of something else: `costs` measures it once at each, in `unit`.

    Where it is not a `total` of so many things but the cost of a single one among so many, linear growth of all of them together
    is no growth of the single one.
    """

    what: str
    by: str
    unit: str
    sizes: Sequence[float]
    costs: Sequence[Callable[[], float]]
    total: bool = False
    rounds: list[list[float]] = field(default_factory=list)

    def measure(self, turn: int) -> None:
        """One more round, which begins at another size than the one before."""
        order = [(turn + place) % len(self.costs) for place in range(len(self.costs))]
        found = {place: self.costs[place]() for place in order}
        self.rounds.append([found[place] for place in range(len(self.costs))])

    def found(self) -> Found:
        """The figures, and the exponents of the rounds: over all sizes, and from the last but one to the last."""
        return {
            "what": self.what,
            "by": self.by,
            "unit": self.unit,
            "total": self.total,
            "sizes": list(self.sizes),
            "values": [spread(values) for values in zip(*self.rounds, strict=True)],
            "exponent": spread([exponent(self.sizes, values) for values in self.rounds]),
            "last": spread([exponent(self.sizes[-2:], values[-2:]) for values in self.rounds]),
        }


def shortest(measured: Callable[[], float], turns: int) -> float:
    """The least of some turns: what another program took of the others says nothing."""
    return min(measured() for _ in range(turns))


def own_time(work: Callable[[], Any]) -> float:
    """Seconds of this thread's own time."""
    started = time.thread_time()
    work()
    return time.thread_time() - started
