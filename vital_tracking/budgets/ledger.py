"""What this process may spend without asking: the grants of its windows, and the holds of its calls. No I/O.

For every window, at any time, what the database has granted to this process is
    free + what is held (by calls under way) + what is unposted (by calls that have ended and are not yet acknowledged).
Of these only `free` and the sum are kept.

A call's hold is settled when its record is made: the unused part is free again at once, the used part is posted by the
transaction that stores the row, which takes it out of the grant. What a call costs beyond its hold is spent all the same; in
the promise `spent + granted <= limit + X` it is a part of X.

Amounts are whole numbers: picodollars, tokens or calls, by the budget's metric.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from time import sleep as give_way
from typing import Any, Final, TypeAlias

from vital_tracking.budgets.estimate import Amounts, as_text, as_whole
from vital_tracking.budgets.policy import Budget
from vital_tracking.budgets.windows import FOREVER, Account, Draw, Hold, Plan, RoundTrip, Window
from vital_tracking.core.usage import TokenUsage
from vital_tracking.ids import new_id

_IDLE_S: Final = 5.0
_TRIM_AFTER_S: Final = 60.0

Offer: TypeAlias = Sequence[tuple[Window, int]]
"""Windows and amounts: how much of its own free money a process puts towards a call for which it asks for more."""


class Ledger:
    """The grants and holds of one process. Methods are safe from any thread; `release` may interrupt any of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Garbage collection can end a call on a thread that holds the lock: the holds that it releases wait here.
        self._released: deque[Hold] = deque()
        self._windows: dict[int, Window] = {}
        self._accounts: dict[tuple[int, str], Account] = {}
        self.holder = new_id()
        self.valid_until = FOREVER

    def forget_grants(self) -> None:
        """Start without any grant: the database has taken them back, or they are another process's."""
        with self._lock:
            for window in self._windows.values():
                window.free = 0  # plans still know the window
            # Rows that are still on their way name the former holder, so they cannot draw on grants to come.
            self.holder = new_id()
            self.valid_until = FOREVER
            self._windows = {}
            for account in list(self._accounts.values()):
                account.windows = ()
                account.refusal = None
            self._released.clear()

    def reset_after_fork(self) -> None:
        """In a forked child: the grants are the parent's, and the lock may be held by a thread that exists there alone."""
        self._lock = threading.RLock()
        self.forget_grants()
        self._accounts = {}

    # Accounts

    def account(self, budget: Budget, entity: str) -> Account:
        """The account of a budget, as it is now, and an entity."""
        key = (budget.id, entity)
        known = self._accounts.get(key)
        if known is None or known.budget is not budget:
            known = self._accounts[key] = Account(budget, entity)
        return known

    def forget_accounts(self) -> None:
        """Drop the accounts, as the budgets have changed; windows keep what calls hold until that is settled and posted."""
        with self._lock:
            self._accounts = {}
            for window in self._windows.values():
                window.give_up_free()

    def trim_accounts(self, limit: int) -> None:
        """Forget accounts that nothing was asked for lately, where there are more than `limit`."""
        if len(self._accounts) > limit:
            with self._lock:
                idle = time.monotonic() - _TRIM_AFTER_S
                for key, account in list(self._accounts.items()):
                    if account.asked_at < idle and not any(window.granted for window in account.windows):
                        account.windows = ()
                        del self._accounts[key]

    # Holds

    def reserve(self, plan: Plan, amounts: Amounts, prompt_bytes: int) -> Hold | None:
        """Set aside what a call needs in every window of its plan; nothing, and None, where one falls short."""
        now = time.monotonic()
        if now >= plan.until or now >= self.valid_until:
            return None
        lock = self._lock
        try:
            # A thread that waits for a lock is handed it before it gets the interpreter, and meanwhile all others find the lock
            # taken: busy threads would switch at every admission. So no thread waits; one that finds it taken lets others run.
            while not lock.acquire(blocking=False):
                give_way(0)
            if self._released:
                self._take_in_released()
            windows = plan.windows
            for window in windows:
                if window.free < amounts[window.metric]:
                    return None
            for window in windows:
                window.free = free = window.free - amounts[window.metric]
                window.used_at = now
                if free < window.low:
                    window.low = -1
                    plan.low = True
        finally:
            # A signal may have come just after the lock was taken: only the lock itself can say whether it was.
            if lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001
                lock.release()
        return Hold(windows, amounts, self.holder, plan.terms.history, prompt_bytes)

    def covers(self, plan: Plan, amounts: Amounts) -> bool:
        """Whether a call that needs so much would get it now; another call may take it first."""
        now = time.monotonic()
        lapsed = now >= plan.until or now >= self.valid_until
        return not lapsed and all(window.free >= amounts[window.metric] for window in plan.windows)

    def reserve_where_possible(
        self, plan: Plan, amounts: Amounts, prompt_bytes: int
    ) -> tuple[Hold | None, list[Account]]:
        """Set aside what a call needs in the accounts that have enough; the hold, and the accounts that have not."""
        now = time.monotonic()
        lapsed = now >= self.valid_until
        short: list[Account] = []
        with self._lock:
            self._take_in_released()
            windows: list[Window] = []
            for account in plan.accounts:
                need = amounts[account.budget.metric]
                enough = all(now < window.ends and window.free >= need for window in account.windows)
                if lapsed or not account.windows or not enough:
                    short.append(account)
                    continue
                for window in account.windows:
                    window.free -= need
                    window.used_at = now
                    windows.append(window)
            if not windows:
                return None, short
            return Hold(windows, amounts, self.holder, plan.terms.history, prompt_bytes), short

    def release(self, hold: Hold) -> None:
        """Give a hold back whole: its call was not made. May be called from anywhere, also while the lock is held."""
        self._released.append(hold)

    def settle(self, hold: Hold, used: Amounts, usage: TokenUsage | None = None) -> list[Draw]:
        """Replace a hold by what the call used; the draws that its row must carry. Later calls change nothing."""
        with self._lock:
            if hold.settled is None:
                draws: list[Draw] = []
                current = hold.holder == self.holder
                for window in hold.windows:
                    held = hold.amounts[window.metric]
                    drawn = min(held, used[window.metric])
                    if current:
                        window.free += held - drawn
                    if drawn:
                        draws.append((window.id, as_text(drawn, window.metric)))
                hold.settled = draws
            else:
                usage = None
        if usage is not None:
            hold.history.observe(hold.prompt_bytes, usage)
        return hold.settled

    def post(self, holder: str, draws: Iterable[Draw]) -> None:
        """Take draws out of the grants: the database has their rows, or never will."""
        with self._lock:
            if holder != self.holder:
                return
            for window_id, amount in draws:
                window = self._windows.get(window_id)
                if window is not None:
                    window.granted -= as_whole(amount, window.metric)

    # Grants

    def grant_requests(
        self, plan: Plan, amounts: Amounts, waiting: int, *, ahead: bool
    ) -> tuple[list[dict[str, Any]], Offer]:
        """The arguments of `acquire_grants_v1` for `waiting` calls of a plan, and the free money that we put towards one of them.

        That offer is taken out of what is free, until `accept_grants` or `withdraw` puts it back.
        """
        now = time.monotonic()
        requests: list[dict[str, Any]] = []
        offer: list[tuple[Window, int]] = []
        with self._lock:
            self._take_in_released()
            for account in plan.accounts:
                metric = account.budget.metric
                unit = amounts[metric]
                # Where none is counted here, another request asks for more on behalf of all.
                calls = waiting + account.next_want(now) if waiting else 0
                have: dict[str, str] = {}
                for window in account.windows if not ahead else ():
                    part = min(window.free, unit)
                    if part > 0 and now < window.ends:
                        window.free -= part
                        offer.append((window, part))
                        have[str(window.id)] = as_text(part, metric)
                requests.append(
                    {
                        "budget": account.budget.id,
                        "entity": account.entity,
                        "unit": as_text(unit, metric),
                        "want": as_text(unit * calls, metric),
                        "pass": account.budget.id in plan.terms.may_pass,
                        "have": have,
                    }
                )
        return requests, offer

    def withdraw(self, offer: Offer) -> None:
        """Take an offer back: the database did not answer."""
        with self._lock:
            for window, amount in offer:
                window.free += amount

    def accept_grants(
        self,
        plan: Plan,
        answer: Mapping[str, Any],
        offer: Offer,
        amounts: Amounts | None,
        prompt_bytes: int,
        trip: RoundTrip,
    ) -> Hold | None:
        """Take over what the database answered, and set aside what the asking call needs: `amounts`, where it is admitted."""
        by_account: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for row in answer["windows"]:
            by_account.setdefault((row["budget"], row["entity"]), []).append(row)
        held: list[Window] = []
        with self._lock:
            self.withdraw(offer)
            self.valid_until = min(self.valid_until, trip.grants_lapse_at)
            for account in plan.accounts:
                rows = by_account.get((account.budget.id, account.entity), [])
                account.windows = tuple(self._received(account, row, trip) for row in rows)
                over = any(row["over"] for row in rows)
                if over and plan.terms.passes(account.budget):
                    account.over_until = trip.over_until
                elif not over:
                    account.over_until = account.refused_until = 0.0
                if amounts is not None:
                    for window, row in zip(account.windows, rows, strict=True):
                        if not row["over"]:
                            window.free -= amounts[window.metric]
                            held.append(window)
        plan.refresh()
        return None if amounts is None else Hold(held, amounts, self.holder, plan.terms.history, prompt_bytes)

    def _received(self, account: Account, row: Mapping[str, Any], trip: RoundTrip) -> Window:
        window = self._windows.get(row["id"])
        # The metric differs where the budget was changed and this process has only now read that.
        if window is None or window.metric != account.budget.metric:
            window = self._windows[row["id"]] = Window(account, row["id"])
        window.account = account  # a new one where the budgets have changed
        window.receive(row, trip)
        return window

    def return_unused(self, *, idle: bool = True, everything: bool = False) -> tuple[dict[str, str], bool]:
        """Give up free money: what nobody has used for a while (`idle`), or `everything`.

        Returns how much of each window must be kept, as `renew_grants_v1` takes it, and whether anything was given up.
        """
        now = time.monotonic()
        kept: list[tuple[Window, int]] = []
        returned = False
        with self._lock:
            self._take_in_released()
            for window_id, window in list(self._windows.items()):
                unused = now - window.used_at >= _IDLE_S or now >= window.ends
                if window.free > 0 and (everything or (idle and unused)):
                    window.give_up_free()
                    returned = True
                if window.granted > 0:
                    kept.append((window, window.granted))
                elif now >= window.ends or window not in window.account.windows:
                    del self._windows[window_id]
        return {str(window.id): as_text(amount, window.metric) for window, amount in kept}, returned

    def confirm_kept(self, kept: Mapping[str, str], grants: Mapping[str, str], lapse_at: float) -> None:
        """Take over the answer of `renew_grants_v1`, and spend no more than it says.

        It may say less than we count as free, as after the machine has slept, or the database was restored from a backup.
        """
        with self._lock:
            for window_id in kept:
                window = self._windows.get(int(window_id))
                if window is None or window.free <= 0:
                    continue
                excess = window.free - as_whole(grants.get(window_id, "0"), window.metric)
                if excess > 0:
                    window.free -= excess
                    window.granted -= excess
            self.valid_until = lapse_at if kept else FOREVER

    @property
    def has_grants(self) -> bool:
        """Whether there is anything to renew or to give back."""
        return any(window.granted > 0 for window in list(self._windows.values()))

    def _take_in_released(self) -> None:
        while self._released:
            hold = self._released.popleft()
            if hold.settled is None:
                hold.settled = []
                if hold.holder == self.holder:
                    for window in hold.windows:
                        window.free += hold.amounts[window.metric]
