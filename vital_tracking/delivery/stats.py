"""What delivery has done, in counts."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

logger = logging.getLogger("vital_tracking.delivery")

_DROPPED: Final = "Calls are being dropped: %s. See what `vital-tracking doctor` says."


class Delivered(NamedTuple):
    """What the store has acknowledged since the tracker was made (in a forked child: since the fork), and what is left."""

    inserted: int
    """Rows of calls that were stored; a row of merged calls is one."""
    duplicate: int
    """Rows of calls that the store already had, such as those whose first acknowledgement was lost."""
    rejected: int
    """Rows of any kind that were refused for what they hold, and set aside: `vital-tracking spool rejected`."""
    dropped: int
    """Calls, service runs, events, costs and executions that were lost before they were sent."""
    waiting: int
    """Calls, states of service runs, events, costs and executions that are neither stored nor set aside at this moment."""
    spooled: int
    """How many of the waiting are on disk: the next process sends them if this one ends."""
    complete: bool
    """Whether everything that was recorded before is stored or set aside; nothing of it waits."""


@dataclass(slots=True)
class Stats:
    """What a tracker has done since it was made (in a forked child: since the fork), and what went wrong on our side.

    All but `waiting`, `spooled`, `spool_bytes` and `in_flight`, which are as of this moment, only grow.
    """

    inserted: int = 0
    """Rows of calls that were stored; a row of merged calls is one."""
    duplicate: int = 0
    """Rows of calls that the store already had."""
    rejected: int = 0
    """Rows of any kind that were refused for what they hold, and set aside: `vital-tracking spool rejected`."""
    dropped: int = 0
    """Calls, service runs, events, costs and executions that were lost before they were sent; the log says why."""
    waiting: int = 0
    """Calls, states of service runs, events, costs and executions that wait to be stored, in memory and on disk."""
    spooled: int = 0
    """How many of the waiting are on disk."""
    spool_bytes: int = 0
    """Bytes that this process's files in the spool take up."""
    platform_rows: int = 0
    """Rows of events, other costs and executions that were stored."""
    replayed: int = 0
    """Calls of dead processes that were made ready to be sent; of these, some may be duplicates."""
    shortened: int = 0
    """Calls kept without their metadata and tags, as the spool or the memory was nearly full, or as they were too long."""
    merged: int = 0
    """Calls and costs of which only the money was kept, in sums, as neither disk nor memory had room."""
    damaged: int = 0
    """Stretches of spool files that could not be read, those of dead processes included."""
    in_flight: int = 0
    """Calls of LangChain's that have started and not ended."""
    unpriced: int = 0
    """Calls that were made ready to be sent, and whose model has no known price."""
    estimated: int = 0
    """Calls that were made ready to be sent, and whose tokens are estimated, as the provider reported none."""
    abandoned: int = 0
    """Calls that were made ready to be sent, and of which no end came, those of dead processes included."""
    blocked: int = 0
    """Calls that were made ready to be sent, and that a budget has stopped."""
    unchecked: int = 0
    """Calls that were let go although a budget could not be checked."""
    shadow_runs: int = 0
    """Shadow runs that were begun: `tracker.guard(model, shadow=...)`."""
    shadow_runs_left_out: int = 0
    """Shadow runs that were not made: too many were in flight, or a budget did not let them go."""
    faults: int = 0
    """Exceptions of our own code that were kept from the application; the first one's class is logged."""

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
