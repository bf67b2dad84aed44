"""What this process may spend without asking: the grants of its windows, and the holds of its calls. No I/O.

For every window, at any time, what the database has granted to this process is
    free + what is held (by calls under way) + what is unposted (by calls that have ended and are not yet acknowledged).
Of these only `free` and the sum are kept.

A call's hold is settled before the next call is admitted to its windows, at the latest when its record is made: the unused part
is free again at once, the used part is posted by the transaction that stores the row, which takes it out of the grant. What a
call costs beyond its hold is taken from what is free. Where that is not enough `free` falls below 0, and the process owes that
much: the next call must be granted it on top of its own need. So the database hears of a debt before its row comes; in the
promise `spent + granted <= limit + X` it is a part of X. A row takes out of the grant what this has, and ends its debt.

Amounts are whole numbers: picodollars, tokens or calls, by the budget's metric.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from time import sleep as give_way
from typing import Any, Final, NamedTuple, TypeAlias

from vital_tracking.budgets.estimate import Amounts, as_whole
from vital_tracking.budgets.policy import Budget
from vital_tracking.budgets.windows import FOREVER, Account, Hold, Plan, RoundTrip, Turn, Window
from vital_tracking.core.draws import Draw, Draws, as_text
from vital_tracking.core.usage import TokenUsage
from vital_tracking.ids import new_id

_IDLE_S: Final = 5.0
_TRIM_AFTER_S: Final = 60.0


class Offered(NamedTuple):
    """How much of its own free money in a window a process puts towards a call for which it asks for more; below 0, what it owes.

    `forgiven` is the window's count at that moment.
    """

    window: Window
    amount: int
    forgiven: int


Offer: TypeAlias = Sequence[Offered]
"""What a process offers of its windows, and owes to them, as it asks for a call."""


class Ledger:
    """The grants and holds of one process. Methods are safe from any thread; `release` may interrupt any of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Garbage collection can end a call on a thread that holds the lock: the holds that it releases wait here.
        self._released: deque[Hold] = deque()
        self._windows: dict[int, Window] = {}
        self._accounts: dict[tuple[int, str], Account] = {}
        self.ended: dict[Hold, Callable[[], object]] = {}
        """Holds of calls that have ended and may have cost more, each with what settles it."""
        self._turns: deque[Turn] = deque()  # that came back, and of which the database has not heard
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
        self.ended = {}
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
                need = amounts[window.metric]
                window.free = free = window.free - need
                if free < window.low:
                    if free < 0 and need:
                        self._give_back(windows, window, amounts)
                        return None
                    if window.low:
                        window.low = 0
                        plan.low = True
                window.used_at = now
        finally:
            # A signal may have come just after the lock was taken: only the lock itself can say whether it was.
            if lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001
                lock.release()
        return Hold(windows, amounts, self.holder, plan.terms, prompt_bytes)

    @staticmethod
    def _give_back(windows: Sequence[Window], last: Window, amounts: Amounts) -> None:
        """Give back what was taken from windows up to the `last` one, which has fallen short."""
        for window in windows:
            window.free += amounts[window.metric]
            if window is last:
                return

    def covers(self, plan: Plan, amounts: Amounts) -> bool:
        """Whether a call that needs so much would get it now; another call may take it first."""
        now = time.monotonic()
        lapsed = now >= plan.until or now >= self.valid_until
        return not lapsed and all(
            window.free >= (need := amounts[window.metric]) or not need for window in plan.windows
        )

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
                if not account.windows and now < account.exempt_until:
                    continue
                need = amounts[account.budget.metric]
                enough = all(now < window.ends and (window.free >= need or not need) for window in account.windows)
                if lapsed or not account.windows or not enough:
                    short.append(account)
                    continue
                for window in account.windows:
                    window.free -= need
                    window.used_at = now
                    windows.append(window)
            if not windows:
                return None, short
            return Hold(tuple(windows), amounts, self.holder, plan.terms, prompt_bytes), short

    def release(self, hold: Hold) -> None:
        """Give a hold back whole: its call was not made. May be called from anywhere, also while the lock is held."""
        if hold.turns and hold.settled is None:
            turns, hold.turns = hold.turns, []
            self._turns.extend(turn for turn in turns if turn.at > time.monotonic())  # one that has come is over
        self._released.append(hold)

    def settle(self, hold: Hold, used: Amounts, usage: TokenUsage | None = None) -> Collection[Draw]:
        """Replace a hold by what the call used; the draws that its row must carry. Later calls change nothing."""
        with self._lock:
            if (settled := hold.settled) is None:
                windows, amounts = hold.windows, hold.amounts
                for window in windows if hold.holder == self.holder else ():
                    metric = window.metric
                    spent = used[metric]
                    window.free += amounts[metric] - spent
                    window.unposted += spent
                if self.ended:
                    self.ended.pop(hold, None)
                hold.settled = settled = Draws(windows, used[:3]) if windows else []
            else:
                usage = None
        if usage is not None:
            hold.terms.history.observe(hold.prompt_bytes, usage)
            hold.terms.history.compare(hold.amounts, used)
        return settled

    def post(self, holder: str, rows: Iterable[Collection[Draw]]) -> None:
        """Take the draws of `rows` out of the grants, as far as these go: the database has the rows, or never will."""
        with self._lock:
            if holder != self.holder:
                return
            drawn: dict[Window, int] = {}
            together: dict[tuple[Any, ...], list[int]] = {}  # what calls of the same windows have used, by metric
            for draws in rows:
                if type(draws) is Draws:
                    cost, tokens, calls = draws.used
                    used = together.get(draws.windows)
                    if used is None:
                        together[draws.windows] = [cost, tokens, calls]
                    else:
                        used[0] += cost
                        used[1] += tokens
                        used[2] += calls
                    continue
                for window_id, amount in draws:
                    window = self._windows.get(window_id)
                    if window is not None:
                        drawn[window] = drawn.get(window, 0) + as_whole(amount, window.metric)
            for windows, used in together.items():
                for one in windows:
                    window = self._windows.get(one.id)
                    if window is not None:
                        drawn[window] = drawn.get(window, 0) + used[one.metric]
            for window, whole in drawn.items():
                beyond = max(whole - window.granted, 0)
                window.unposted -= whole
                window.granted -= whole - beyond
                window.free += beyond  # which was below 0: the database knows of it now
                window.forgiven += beyond

    # What is known here beyond an answer of the database's

    def standing(self, plan: Plan, amounts: Amounts) -> dict[int, int]:
        """What this process has of what a call needs, by window id; below 0, what it owes."""
        with self._lock:
            self._take_in_released()
            return {
                window.id: min(window.free, amounts[window.metric])
                for account in plan.accounts
                for window in account.windows
            }

    def state(self, plan: Plan) -> Sequence[tuple[int, int, int, int]]:
        """All that this process has of the windows of a plan: it is another one whenever something has changed."""
        with self._lock:
            self._take_in_released()
            return [
                (window.id, window.granted, window.free, window.unposted)
                for account in plan.accounts
                for window in account.windows
            ]

    def nothing_held(self, plan: Plan) -> bool:
        """Whether no call of this process's is under way in the windows of a plan."""
        with self._lock:
            self._take_in_released()
            return all(
                window.granted - window.free - window.unposted <= 0
                for account in plan.accounts
                for window in account.windows
            )

    def awaits_word(self, windows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether rows are stored of which nobody has told us yet, by the windows of an answer."""
        with self._lock:
            return any(
                window.granted > as_whole(row["mine"], window.metric)
                for row in windows
                if (window := self._windows.get(row["id"])) is not None
            )

    def as_known_here(self, windows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The windows of an answer as they are with what only this process knows.

        `spent` has what its ended calls have spent as well; `granted` of its own grants only what is held for calls under way.
        """
        known: list[Mapping[str, Any]] = []
        with self._lock:
            self._take_in_released()
            for row in windows:
                window = self._windows.get(row["id"])
                if window is None:
                    known.append(row)
                    continue
                spent, granted, mine = (as_whole(row[name], window.metric) for name in ("spent", "granted", "mine"))
                spent += max(window.unposted - (window.granted - mine), 0)  # without the rows that the answer knows
                granted += max(window.granted - window.free - window.unposted, 0) - mine
                amounts = {"spent": spent, "granted": max(granted, 0)}
                known.append({**row, **{name: as_text(amount, window.metric) for name, amount in amounts.items()}})
        return known

    # Grants

    def grant_requests(
        self, plan: Plan, amounts: Amounts, waiting: int, *, ahead: bool
    ) -> tuple[list[dict[str, Any]], Offer]:
        """The arguments of `acquire_grants_v1` for `waiting` calls of a plan, and the free money that we put towards one of them.

        That offer is taken out of what is free, until `accept_grants` or `withdraw` puts it back.
        """
        now = time.monotonic()
        requests: list[dict[str, Any]] = []
        offer: list[Offered] = []
        with self._lock:
            self._take_in_released()
            for account in plan.accounts:
                metric = account.budget.metric
                unit = amounts[metric]
                # Where none is counted here, another request asks for more on behalf of all.
                calls = waiting + account.next_want(now) if waiting else 0
                have: dict[str, str] = {}
                owe: dict[str, str] = {}
                here: dict[str, dict[str, str]] = {}
                for window in account.windows if not ahead else ():
                    held = max(window.granted - window.free - window.unposted, 0)
                    known = {"granted": window.granted, "held": held, "unposted": window.unposted}
                    here[str(window.id)] = {name: as_text(amount, metric) for name, amount in known.items()}
                    part = min(window.free, unit)
                    if now >= window.ends or part == 0:
                        continue
                    if part > 0:
                        window.free -= part
                        have[str(window.id)] = as_text(part, metric)
                    else:
                        owe[str(window.id)] = as_text(-part, metric)
                    offer.append(Offered(window, part, window.forgiven))
                requests.append(
                    {
                        "budget": account.budget.id,
                        "entity": account.entity,
                        "unit": as_text(unit, metric),
                        "want": as_text(unit * calls, metric),
                        "pass": account.budget.id in plan.terms.may_pass,
                        "have": have,
                        "owe": owe,
                        "here": here,
                    }
                )
        return requests, offer

    def withdraw(self, offer: Offer) -> None:
        """Take an offer back: the database did not answer."""
        with self._lock:
            for offered in offer:
                offered.window.free += max(offered.amount, 0)

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
            covered = {
                offered.window.id: min(-offered.amount, offered.window.forgiven - offered.forgiven)
                for offered in offer
                if offered.amount < 0
            }
            self.valid_until = min(self.valid_until, trip.grants_lapse_at)
            for account in plan.accounts:
                rows = by_account.get((account.budget.id, account.entity), [])
                account.windows = tuple(self._received(account, row, trip, covered.get(row["id"], 0)) for row in rows)
                account.exempt_until = trip.exempt_until if account.budget.by_plan and not rows else 0.0
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
        if amounts is None:
            return None
        hold = Hold(tuple(held), amounts, self.holder, plan.terms, prompt_bytes)
        if answer.get("slot"):
            hold.turns = [
                Turn(row["id"], answer["slot"], trip.on_our_clock(answer["slot"]))
                for row in answer["windows"]
                if row["turn"]
            ]
        return hold

    def take_turns(self) -> list[Turn]:
        """The turns that came back and that the database is to hear of, once."""
        turns: list[Turn] = []
        with suppress(IndexError):  # none is left
            while True:
                turns.append(self._turns.popleft())
        return turns

    def _received(self, account: Account, row: Mapping[str, Any], trip: RoundTrip, covered: int) -> Window:
        window = self._windows.get(row["id"])
        # The metric differs where the budget was changed and this process has only now read that.
        if window is None or window.metric != account.budget.metric:
            window = self._windows[row["id"]] = Window(account, row["id"])
        window.account = account  # a new one where the budgets have changed
        window.receive(row, trip, covered)
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
                self.ended.pop(hold, None)
                for window in hold.windows:
                    if hold.holder == self.holder:
                        window.free += hold.amounts[window.metric]
