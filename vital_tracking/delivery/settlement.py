"""Settles what budgets hold for calls that have ended with what they cost, and keeps it until their rows are stored."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

from vital_tracking.core.draws import Draw
from vital_tracking.core.record import Used
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.encoding import EndedCall, decoded_waiting, waiting_form
from vital_tracking.delivery.stats import Counts
from vital_tracking.spool.log_record import LogRecord

_MOST_PENDING: Final = 2_000  # what does not fit is settled when its row is made
_MOST_HELD: Final = 2_000  # past that, what was drawn on grants that are no more is forgotten


class Holds(Protocol):
    """The budgets, which have set something aside for calls. They are told what a call used, and when its row is stored."""

    def settle(self, hold: Any, used: Used, cost: Decimal | None) -> Collection[Draw]:
        """Replace a hold by what the call cost in US dollars; returns the draws for its row. Later calls change nothing."""

    def ended(self, hold: Any, call: EndedCall, settle: Callable[[], object]) -> None:
        """A call has ended, and `settle` settles its hold now. May be called from any thread."""

    def posted(self, holder: str, draws: Iterable[Collection[Draw]]) -> None:
        """Rows with these draws, one collection each, are in the database, or never will be."""

    def give_back(self, hold: Any) -> None:
        """There will be no record of the call. May be called from any thread, and may interrupt any method of the budgets."""

    def prices_changed(self) -> None:
        """The team's prices were read anew."""


@dataclass(slots=True, eq=False, repr=False)
class _Settled:
    """What a call drew on the grants of `holder`, or the calls of a merged row together; all that is kept of its hold."""

    holder: str | None
    settled: Collection[Draw]


class Settlement:
    """The one register of holds, by the ids of their calls. `register` and `settle_pending` are safe from any thread."""

    def __init__(self, costs: Costs, counts: Counts, holds: Holds | None = None) -> None:
        self.holds = holds
        self._costs = costs
        self._counts = counts
        self._held: dict[bytes, Any] = {}  # a hold of the budgets (it has `holder` and `settled`), or a _Settled
        self._holder: str | None = None  # whose grants the last call has drawn on
        self._pending: deque[tuple[bytes, LogRecord | bytes]] = deque(maxlen=_MOST_PENDING)
        # Who asks that all be settled waits for those that another thread is settling.
        self._settling = threading.RLock()

    def register(self, key: bytes, hold: Any) -> None:
        """Remember what is held for a call that is about to be recorded."""
        self._held[key] = hold
        self._holder = hold.holder

    def ended(self, key: bytes, call: EndedCall, record: LogRecord) -> None:
        """A registered call was recorded: until its row is made its hold can be settled by its log record.

        The call itself is not kept here: it takes several times the memory, and many may wait.
        """
        if key not in self._held:
            return  # its row is stored already
        kept = waiting_form(record)
        try:
            if self.holds is not None:
                self.holds.ended(call.hold, call, functools.partial(self._settle_now, key, kept))
        except Exception as error:  # noqa: BLE001 - it is settled when its row is made
            self._counts.fault(error)
        self._pending.append((key, kept))

    def register_merged(self, key: bytes, holder: str | None, draws: Collection[Draw]) -> None:
        """Remember what the calls of a merged row drew on the grants of `holder`."""
        if draws:
            self._held[key] = _Settled(holder, draws)

    def settle(self, key: bytes, used: Used, counted: Decimal | None) -> tuple[str | None, Collection[Draw]]:
        """Settle a call's hold with what it used and what budgets count of it, in US dollars.

        Returns the holder of the grants, and the draws.
        """
        hold = self._held.get(key)
        if hold is None:
            return None, ()
        draws: Collection[Draw] | None = hold.settled
        if draws is None and self.holds is not None:
            draws = self.holds.settle(hold, used, counted)
            self._held[key] = _Settled(hold.holder, draws)  # smaller: calls may wait for long
        return hold.holder, () if draws is None else draws

    def settle_pending(self) -> bool:
        """Settle the holds of calls that have ended and still wait for delivery; whether there were any."""
        found = False
        with self._settling, contextlib.suppress(IndexError):  # none is left
            while True:
                found = self._settle_now(*self._pending.popleft()) or found
        return found

    def _settle_now(self, key: bytes, call: LogRecord | bytes) -> bool:
        """Settle the hold of a call that has ended; whether it was not settled yet."""
        hold = self._held.get(key)
        if hold is None or hold.settled is not None:
            return False
        try:
            record = decoded_waiting(key, call, self._counts.fault)
            self.settle(key, Used.by(record), self._costs.counted(record, self._costs.cost_of(record)))
        except Exception as error:  # noqa: BLE001 - it is settled when its row is made
            self._counts.fault(error)
        return True

    def settle_many_pending(self, *, troubled: bool) -> None:
        """Settle in time what waits long, since other calls need what is held: in an outage, or where very many wait.

        `troubled` says that nothing is delivered. Else all are settled as their rows are made, which takes less.
        """
        if len(self._pending) > (_MOST_PENDING // 10 if troubled else _MOST_PENDING // 2):
            self.settle_pending()

    def forget_lapsed(self) -> None:
        """Let go of what waiting calls drew on grants that are no more, where there is much of it: the database ignores it."""
        if len(self._held) > _MOST_HELD:
            for key, hold in list(self._held.items()):
                if hold.settled is not None and hold.holder != self._holder:
                    self._held.pop(key, None)

    def forget_settled(self) -> None:
        """Let go of waiting calls whose holds were settled as their rows were made."""
        with contextlib.suppress(IndexError):  # none is left, or another thread has taken the last one
            while (hold := self._held.get(self._pending[0][0])) is None or hold.settled is not None:
                self._pending.popleft()

    def posted(self, keys: Iterable[bytes], holder: str | None) -> None:
        """The rows of some calls were stored or set aside: the budgets are told, once, what they drew on grants of `holder`."""
        pop = self._held.pop
        settled = [hold.settled for key in keys if (hold := pop(key, None)) is not None]
        if holder is not None and self.holds is not None:
            self.holds.posted(holder, [draws for draws in settled if draws is not None])

    def forget(self, key: bytes) -> None:
        """Forget a call's draws, which are kept with those of its merged row, or not needed."""
        self._held.pop(key, None)

    def give_back(self, key: bytes, hold: Any = None) -> None:
        """There will be no row of a call: its hold is free again; what was settled already the database will never hear of."""
        hold = self._held.pop(key, hold)
        if hold is None or self.holds is None:
            return
        if hold.settled is None:
            self.holds.give_back(hold)
        elif hold.settled and hold.holder is not None:
            self.holds.posted(hold.holder, [hold.settled])

    def prices_changed(self) -> None:
        """Tell the budgets that the team's prices were read anew."""
        if self.holds is not None:
            self.holds.prices_changed()
