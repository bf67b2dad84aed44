"""What the calls of each open scope have used and cost so far, known without the database.

A caller's thread only notes that a call has ended. It is added to the sums of its scopes when its row is made, at the price that
the row has; whoever asks before that prices what waits. Sums and waiting calls lie at the frames of the scopes, so what belongs
to a scope that is gone is gone with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Final, NamedTuple
from weakref import ref

from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.usual_usage import UsualUsage
from vital_tracking.core.context import CallContext
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.frames import ScopeFrame, frame_of
from vital_tracking.core.record import Status
from vital_tracking.core.tally import Spent, Waiting
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.encoding import EndedCall, decoded_waiting, waiting_form
from vital_tracking.spool.log_record import LogRecord

_MANY: Final = 256  # waiting calls of scopes around each other, from which on the delivering thread looks after them
_MOST: Final = 1024  # from which on the caller's thread does, a few at once
_A_FEW: Final = 64

_GIVEN_UP: Final = frozenset({"abandoned", "cancelled"})


class _Share(NamedTuple):
    """What a waiting call adds to the scope that its context names and to those around it; to none where that is None.

    It does not hold the scope itself, which holds it: a circle would be freed late.
    """

    context: CallContext | None
    spent: Spent
    given_up: bool

    def innermost(self) -> ScopeFrame | None:
        """The scope that its context names."""
        return None if self.context is None else frame_of(self.context)


class Tallies:
    """Adds up what scopes have spent. `owner` is what their frames name as theirs; those of other trackers are left out.

    `ended` is called in the thread of a call and takes no lock; another method may be interrupted by it, since garbage collection
    can end a call in the middle of anything.
    """

    def __init__(self, costs: Costs, fault: Callable[[BaseException], None], owner: object = None) -> None:
        self.owner = owner
        self._costs = costs
        self._fault = fault
        self._lock = threading.Lock()
        self._crowded: deque[ref[Waiting]] = deque()

    def ended(self, call: EndedCall, record: LogRecord) -> None:
        """A call has ended, and waits for delivery as `record`."""
        context = call.context
        if context is None or (run_id := context.service_run_id) is None:
            return
        frame = call.frame if isinstance(call, LiveCall) else None
        if frame is None or frame.context.service_run_id != run_id:
            frame = frame_of(context)
        frame = self._own(frame)
        if frame is None:
            return
        waiting = frame.tally.waiting
        calls = waiting.calls
        calls[record.id] = waiting_form(record)
        if call.replaces_abandoned:
            waiting.replaced.add(record.id)
        if len(calls) >= _MANY:
            self._crowd(waiting)

    def priced(
        self, key: bytes, context: CallContext, spent: Spent, status: Status = "ok", *, replaces: bool = False
    ) -> None:
        """A call's row is made: what it has `spent` there is what it adds to its scopes, if it waits to be added.

        `replaces` says that it is the true end of one given up.
        """
        frame = self._own(frame_of(context))
        if frame is None or key not in (waiting := frame.tally.waiting).calls:
            return
        with self._lock:
            if key not in waiting.calls:
                return  # another thread has added it meanwhile
            if key in waiting.replaced and not replaces:
                return  # given up, and its true end waits already
            self._add(waiting, key, self._share(waiting, key, context, spent, status), frame)

    def priced_together(self, context: CallContext, calls: Sequence[tuple[bytes, UsualUsage, Decimal]]) -> None:
        """The rows of usual calls of one scope are made: `priced` for each, by its id's bytes, what it used and what it cost."""
        frame = self._own(frame_of(context))
        if frame is None:
            return
        waiting = frame.tally.waiting.calls
        with self._lock:  # such a call is neither one that was given up nor the true end of one
            total = _together([call for call in calls if waiting.pop(call[0], None) is not None])
            for around in self._chain(frame):
                around.tally.spent = around.tally.spent.plus(total)

    def spent(self, frame: ScopeFrame) -> Spent:
        """What the calls of the scope of that `frame`, and of those inside it, have used and cost so far."""
        with self._lock:
            total, waiting = frame.tally.spent, frame.tally.waiting
            for key, call in list(waiting.calls.items()):
                share = self._share_of(waiting, key, call)
                if waiting.calls.get(key) is call:
                    waiting.calls[key] = share
                if any(around is frame for around in self._chain(share.innermost())):
                    total = total.plus(share.spent)
        return total

    def tick(self, *, troubled: bool) -> None:
        """Add up what waits where there is much of it, and `troubled` says that no rows are made, or there is very much."""
        for _ in range(len(self._crowded)):
            crowded = self._crowded.popleft()
            waiting = crowded()
            if waiting is None:
                continue
            if troubled or len(waiting.calls) >= _MOST // 2:
                with self._lock:
                    self._add_up(waiting, len(waiting.calls))
            elif len(waiting.calls) >= _MANY:
                self._crowded.append(crowded)  # their rows are made soon, which costs less

    def _crowd(self, waiting: Waiting) -> None:
        if len(waiting.calls) == _MANY:
            self._crowded.append(ref(waiting))
        elif len(waiting.calls) >= _MOST and self._lock.acquire(blocking=False):  # perhaps this very thread holds it
            try:
                self._add_up(waiting, _A_FEW)
            finally:
                self._lock.release()

    def _add_up(self, waiting: Waiting, most: int) -> None:
        for key, call in list(islice(list(waiting.calls.items()), most)):
            share = self._share_of(waiting, key, call)
            self._add(waiting, key, share, share.innermost())

    def _add(self, waiting: Waiting, key: bytes, share: _Share, innermost: ScopeFrame | None) -> None:
        waiting.calls.pop(key, None)
        waiting.given_up.pop(key, None)
        waiting.replaced.discard(key)
        if share.given_up:
            waiting.give_up(key, share.spent)
        for frame in self._chain(innermost):
            frame.tally.spent = frame.tally.spent.plus(share.spent)

    def _share_of(self, waiting: Waiting, key: bytes, call: LogRecord | _Share | bytes) -> _Share:
        if isinstance(call, _Share):
            return call
        try:
            record = decoded_waiting(key, call, self._fault)
            cost = self._costs.cost_of(record)
            spent = Spent.by(record, None if cost is None else cost.total)
            return self._share(waiting, key, record.context, spent, record.status)
        except Exception as error:  # noqa: BLE001 - one that cannot be read is on no row either
            self._fault(error)
            return _Share(None, Spent(), given_up=False)

    @staticmethod
    def _share(waiting: Waiting, key: bytes, context: CallContext, spent: Spent, status: Status) -> _Share:
        before = waiting.given_up.get(key)
        if before is not None:  # its true end takes the place of what was assumed
            spent = spent.plus(before, -1)
        return _Share(context, spent, given_up=status in _GIVEN_UP and before is None)

    def _own(self, frame: ScopeFrame | None) -> ScopeFrame | None:
        """The scope `frame` where it is this tracker's, else the nearest one around it that is."""
        while frame is not None and frame.owner is not self.owner:
            frame = frame.parent
        return frame

    def _chain(self, frame: ScopeFrame | None) -> Iterator[ScopeFrame]:
        """This tracker's scopes of `frame` and those around it, from the inside outwards."""
        while (frame := self._own(frame)) is not None:
            yield frame
            frame = frame.parent


def _together(calls: Sequence[tuple[bytes, UsualUsage, Decimal]]) -> Spent:
    """What usual calls have used and cost, all together."""
    prompts = completions = 0
    total, add = ZERO, MONEY.add
    for _, (prompt, _, completion, _), cost in calls:
        prompts += prompt
        completions += completion
        total = add(total, cost)
    return Spent(len(calls), prompts, completions, total)
