"""What delivery has done, in counts."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Final

logger = logging.getLogger("vital_tracking.delivery")

_DROPPED: Final = "Calls are being dropped: %s. See what `vital-tracking doctor` says."


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the store has acknowledged since the tracker was made, and whether everything is settled.

    `duplicate`: rows the store already had. `rejected`: rows it refused for what they hold. `dropped`: lost before they were
    sent. `waiting`: neither yet; of these `spooled` are on disk, and are sent by the next process if this one ends. `complete`:
    nothing waits.
    """

    inserted: int
    duplicate: int
    rejected: int
    dropped: int
    waiting: int
    spooled: int
    complete: bool


@dataclass(slots=True)
class Stats:
    """What a tracker has done since it was made: counts of calls, and what went wrong on our side.

    `spooled` and `spool_bytes`: what of the waiting calls is on disk. `replayed`: calls of dead processes that this one has
    delivered. `shortened`: calls kept without their metadata; `merged`: calls of which only the money was kept; `damaged`:
    stretches of spool files that could not be read.
    """

    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0
    dropped: int = 0
    waiting: int = 0
    spooled: int = 0
    spool_bytes: int = 0
    replayed: int = 0
    shortened: int = 0
    merged: int = 0
    damaged: int = 0
    in_flight: int = 0
    unpriced: int = 0
    estimated: int = 0
    abandoned: int = 0
    blocked: int = 0
    unchecked: int = 0
    faults: int = 0

    def copy(self) -> Stats:
        """The counts as they stand."""
        return Stats(**asdict(self))


class Counts:
    """The counts of one process, and the one place where faults of ours end."""

    def __init__(self) -> None:
        self.stats = Stats()
        self._said: set[str] = set()

    def fault(self, error: BaseException) -> None:
        """Count a fault of ours; the first is logged by its class alone, since its text might hold a user's."""
        self.stats.faults += 1
        self.say_once(
            "vital_tracking met a fault of its own (%s); calls go on. See tracker.stats().", type(error).__name__
        )

    def say_once(self, message: str, *arguments: Any) -> None:
        """Log a warning the first time."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *arguments)

    def drop(self, count: int, why: str) -> None:
        """Count calls that were lost; the first time, say why."""
        self.stats.dropped += count
        if count:
            self.say_once(_DROPPED, why)
