"""What this process may spend without asking: the grants of its windows, and the holds of its calls. No I/O.

For every window, at any time, what the database has granted to this process is
    free + what is held (by calls under way) + what is unposted (by calls that have ended and are not yet acknowledged).
Of these only `free` and the sum are kept.

A call's hold goes over into what it truly cost when its record is made: the unused part is free again at once, the used part
is posted by the recording transaction, which takes it out of the grant. What a call costs beyond its hold is spent all the
same; it is the X of the promise.

Amounts are whole numbers: picodollars, tokens or calls, by the budget's metric.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from vital_tracking.budgets.estimate import PICO, Amounts, History, Tariff, in_dollars
from vital_tracking.budgets.policy import Budget
from vital_tracking.core.usage import TokenUsage
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id

_FIRST_WANT: Final = 8
_LARGEST_WANT: Final = 1 << 16
_HURRY_S: Final = 2.0
_IDLE_S: Final = 5.0
_TRIM_AFTER_S: Final = 60.0
_FOREVER: Final = float("inf")

Entry: TypeAlias = "tuple[Window, int]"
"""A window and its metric."""

Part: TypeAlias = "tuple[Window, int]"
"""A window and an amount of it."""

Draw: TypeAlias = tuple[int, str]
"""Window id and amount, in the budget's metric as text: what a call uses of what its process had been granted."""


class Asked(NamedTuple):
    """When the database was asked, by our monotonic clock, and what its own clock said: seconds."""

    asked_at: float
    database_now: datetime
    lapses: float
    over_until: float

    def ours(self, moment: str) -> float:
        """An instant of the database's on our clock."""
        return self.asked_at + (datetime.fromisoformat(moment) - self.database_now).total_seconds()


class Window:
    """One window, as far as this process has a part in it."""

    __slots__ = ("account", "ends", "free", "granted", "id", "low", "used_at")

    def __init__(self, account: Account, window_id: int) -> None:
        self.account = account
        self.id = window_id
        self.ends = _FOREVER
        self.granted = 0
        self.free = 0
        self.low = -1  # below it more is asked for ahead of need, once; not near the limit
        self.used_at = 0.0

    def let_go(self) -> None:
        """Count what is free as granted no more."""
        self.granted -= self.free
        self.free = 0


class Account:
    """A budget for one entity: its windows that run now, and what the database said last."""

    __slots__ = ("asked_at", "budget", "entity", "over_until", "refused", "refused_until", "want", "windows")

    def __init__(self, budget: Budget, entity: str) -> None:
        self.budget = budget
        self.entity = entity
        self.windows: tuple[Window, ...] = ()
        self.want = _FIRST_WANT
        self.asked_at = 0.0
        self.over_until = 0.0
        self.refused_until = 0.0
        self.refused: Callable[[Any, float], BudgetExceeded | None] | None = None  # the last refusal, for a moment


class Plan:
    """All that decides the admission of calls of one kind: the accounts they meet, their prices and their history."""

    __slots__ = ("accounts", "entries", "history", "low", "may_pass", "note", "strict", "tariff", "until")

    def __init__(self, accounts: Sequence[Account], tariff: Tariff, history: History, may_pass: frozenset[int]) -> None:
        self.accounts = tuple(accounts)
        self.tariff = tariff
        self.history = history
        self.may_pass = may_pass  # budgets that downgrade, and let this model pass
        self.strict = any(account.budget.strict and account.budget.enforce for account in accounts)
        self.entries: tuple[Entry, ...] = ()
        self.until = 0.0
        self.note: str | None = None
        self.low = False  # a window should be refilled before it is empty

    def passes(self, account: Account) -> bool:
        """Whether calls of this kind go on although the account's window is used up."""
        return not account.budget.enforce or account.budget.id in self.may_pass


class Hold:
    """What is set aside for one call, until its record is made or it is given back: of each window the amount of its metric."""

    __slots__ = ("amounts", "entries", "history", "holder", "prompt_bytes", "settled")

    def __init__(
        self, entries: Sequence[Entry], amounts: Amounts, holder: str, history: History, prompt_bytes: int
    ) -> None:
        self.entries = entries
        self.amounts = amounts
        self.holder = holder
        self.history = history
        self.prompt_bytes = prompt_bytes
        self.settled: list[Draw] | None = None


class Ledger:
    """The books of one process. Methods are safe from any thread; a release may come in the middle of any of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Garbage collection can end a call on a thread that holds the lock: what it gives back waits here.
        self._released: deque[Hold] = deque()
        self._windows: dict[int, Window] = {}
        self._accounts: dict[tuple[int, str], Account] = {}
        self.holder = new_id()
        self.valid_until = _FOREVER

    def start_anew(self) -> None:
        """Forget every grant: the database has taken them back, or they are another process's."""
        with self._lock:
            for window in self._windows.values():
                window.free = 0  # plans still know the window
            # Under a new name nothing that is still on its way can draw on grants to come.
            self.holder = new_id()
            self.valid_until = _FOREVER
            self._windows = {}
            for account in list(self._accounts.values()):
                account.windows = ()
                account.refused = None
            self._released.clear()

    def reset_after_fork(self) -> None:
        """In a forked child: grants are the parent's, and so is whoever held the lock."""
        self._lock = threading.RLock()
        self.start_anew()
        self._accounts = {}

    def account(self, budget: Budget, entity: str) -> Account:
        """The account of a budget, as it is now, and an entity."""
        key = (budget.id, entity)
        known = self._accounts.get(key)
        if known is None or known.budget is not budget:
            known = self._accounts[key] = Account(budget, entity)
        return known

    def forget_accounts(self) -> None:
        """Drop the accounts, as the budgets have changed; windows keep what they hold until it is settled and returned."""
        with self._lock:
            self._accounts = {}
            for window in self._windows.values():
                window.let_go()

    # The common path

    def take(self, plan: Plan, amounts: Amounts, prompt_bytes: int) -> Hold | None:
        """Set aside what a call needs in every window of its plan, or nothing and None where one falls short."""
        now = time.monotonic()
        if now >= plan.until or now >= self.valid_until:
            return None
        lock = self._lock
        try:
            # Whoever waits for a lock is given it while it still waits for the interpreter, and all others find it taken: each
            # admission of busy threads becomes a switch of threads. So nobody waits here; who comes in vain lets others run.
            while not lock.acquire(blocking=False):
                time.sleep(0)
            if self._released:
                self._give_back()
            entries = plan.entries
            for window, metric in entries:
                if window.free < amounts[metric]:
                    return None
            for window, metric in entries:
                window.free = free = window.free - amounts[metric]
                window.used_at = now
                if free < window.low:
                    window.low = -1
                    plan.low = True
        finally:
            # A signal may come when the lock was just taken; asked for it, the lock alone knows.
            if lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001
                lock.release()
        return Hold(entries, amounts, self.holder, plan.history, prompt_bytes)

    def take_what_there_is(self, plan: Plan, amounts: Amounts, prompt_bytes: int) -> tuple[Hold | None, list[Account]]:
        """Set aside what a call needs where there is enough; the accounts where there is not."""
        now = time.monotonic()
        lapsed = now >= self.valid_until
        short: list[Account] = []
        with self._lock:
            self._give_back()
            entries: list[Entry] = []
            for account in plan.accounts:
                metric = account.budget.metric
                need = amounts[metric]
                enough = all(now < window.ends and window.free >= need for window in account.windows)
                if lapsed or not account.windows or not enough:
                    short.append(account)
                    continue
                for window in account.windows:
                    window.free -= need
                    window.used_at = now
                    entries.append((window, metric))
            return Hold(entries, amounts, self.holder, plan.history, prompt_bytes) if entries else None, short

    def release(self, hold: Hold) -> None:
        """Give a hold back whole: its call was not made. May be called from anywhere, also while the lock is held."""
        self._released.append(hold)

    def settle(self, hold: Hold, used: Amounts, usage: TokenUsage | None = None) -> list[Draw]:
        """Replace a hold by what the call used; the draws that its row must carry. Settled once, however often it is asked."""
        with self._lock:
            if hold.settled is None:
                draws: list[Draw] = []
                current = hold.holder == self.holder
                for window, metric in hold.entries:
                    amount = hold.amounts[metric]
                    drawn = min(amount, used[metric])
                    if current:
                        window.free += amount - drawn
                    if drawn:
                        draws.append((window.id, _as_text(drawn, metric)))
                hold.settled = draws
            else:
                usage = None
        if usage is not None:
            hold.history.observe(hold.prompt_bytes, usage)
        return hold.settled

    def posted(self, holder: str, draws: Iterable[Draw]) -> None:
        """Rows with these draws have left our hands: the database has them, or will never."""
        with self._lock:
            if holder != self.holder:
                return
            for window_id, amount in draws:
                window = self._windows.get(window_id)
                if window is not None:
                    window.granted -= _as_whole(amount, window.account.budget.metric)

    # With the database's answers

    def refresh(self, plan: Plan) -> bool:
        """Take over what the accounts of a plan have by now; whether all of them know their windows."""
        now = time.monotonic()
        entries: list[Entry] = []
        until = _FOREVER
        note: str | None = None
        for account in plan.accounts:
            if account.over_until > now and plan.passes(account):
                until = min(until, account.over_until)
                if not account.budget.enforce:
                    note = note or account.budget.note
                continue
            if not account.windows:
                return False
            for window in account.windows:
                entries.append((window, account.budget.metric))
                until = min(until, window.ends)
        if until <= now:
            return False
        plan.entries, plan.until, plan.note = tuple(entries), until, note
        return True

    def wish(
        self, plan: Plan, amounts: Amounts, waiting: int, *, ahead: bool
    ) -> tuple[list[dict[str, Any]], list[Part]]:
        """The windows of one ask, as `acquire_grants_v1` wants them, and what of our own is set aside for it meanwhile."""
        now = time.monotonic()
        wishes: list[dict[str, Any]] = []
        aside: list[Part] = []
        with self._lock:
            self._give_back()
            for account in plan.accounts:
                metric = account.budget.metric
                unit = amounts[metric]
                more = waiting
                if waiting:  # else another call asks for more on behalf of all
                    hurried = now - account.asked_at < _HURRY_S
                    account.want = (
                        min(account.want * 2, _LARGEST_WANT) if hurried else max(account.want // 2, _FIRST_WANT)
                    )
                    account.asked_at = now
                    more += account.want
                have: dict[str, str] = {}
                for window in account.windows if not ahead else ():
                    part = min(window.free, unit)
                    if part > 0 and now < window.ends:
                        window.free -= part
                        aside.append((window, part))
                        have[str(window.id)] = _as_text(part, metric)
                wishes.append(
                    {
                        "budget": account.budget.id,
                        "entity": account.entity,
                        "unit": _as_text(unit, metric),
                        "want": _as_text(unit * more, metric),
                        "pass": account.budget.id in plan.may_pass,
                        "have": have,
                    }
                )
        return wishes, aside

    def put_back(self, aside: Sequence[Part]) -> None:
        """Undo what `wish` set aside."""
        with self._lock:
            self._undo(aside)

    def apply(
        self,
        plan: Plan,
        answer: Mapping[str, Any],
        aside: Sequence[Part],
        amounts: Amounts | None,
        prompt_bytes: int,
        clock: Asked,
    ) -> Hold | None:
        """Take over what the database answered, and set aside what the asking call needs: `amounts`, where it is admitted."""
        by_account: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for row in answer["windows"]:
            by_account.setdefault((row["budget"], row["entity"]), []).append(row)
        entries: list[Entry] = []
        with self._lock:
            self._undo(aside)
            self.valid_until = min(self.valid_until, clock.lapses)
            for account in plan.accounts:
                rows = by_account.get((account.budget.id, account.entity), [])
                account.windows = tuple(self._update(account, row, clock) for row in rows)
                over = any(row["over"] for row in rows)
                if over and plan.passes(account):
                    account.over_until = clock.over_until
                elif not over:
                    account.over_until = account.refused_until = 0.0
                if amounts is not None:
                    metric = account.budget.metric
                    for window, row in zip(account.windows, rows, strict=True):
                        if not row["over"]:
                            window.free -= amounts[metric]
                            entries.append((window, metric))
        self.refresh(plan)
        return None if amounts is None else Hold(entries, amounts, self.holder, plan.history, prompt_bytes)

    def _update(self, account: Account, row: Mapping[str, Any], clock: Asked) -> Window:
        metric = account.budget.metric
        window = self._windows.get(row["id"])
        if window is None:
            window = self._windows[row["id"]] = Window(account, row["id"])
        window.account = account  # a new one where the budgets have changed
        window.ends = _FOREVER if row["ends_at"] is None else clock.ours(row["ends_at"])
        window.used_at = clock.asked_at
        granted = _as_whole(row["amount"], metric)
        if granted:
            window.granted += granted
            window.free += granted
            # Far from the limit the next grant is fetched when three fourths of this one are gone; near it every call asks.
            left = _as_whole(row["limit"], metric) - _as_whole(row["spent"], metric) - _as_whole(row["granted"], metric)
            window.low = granted // 4 if left > 8 * granted else -1
        return window

    # Housekeeping

    def keeps(self, *, idle_back: bool = True, all_back: bool = False) -> tuple[dict[str, str], bool]:
        """What of every window must be kept, and whether anything goes back: free money that nobody has used for a while."""
        now = time.monotonic()
        kept: list[tuple[int, int, int]] = []
        returned = False
        with self._lock:
            self._give_back()
            for window_id, window in list(self._windows.items()):
                idle = now - window.used_at >= _IDLE_S or now >= window.ends
                if window.free > 0 and (all_back or (idle_back and idle)):
                    window.let_go()
                    returned = True
                if window.granted > 0:
                    kept.append((window_id, window.granted, window.account.budget.metric))
                elif now >= window.ends or window not in window.account.windows:
                    del self._windows[window_id]
        return {str(window_id): _as_text(amount, metric) for window_id, amount, metric in kept}, returned

    def renewed(self, kept: Mapping[str, str], grants: Mapping[str, str], lapses: float) -> None:
        """The database has renewed what we keep; of free money it may know less, after a machine has slept or a restore."""
        with self._lock:
            for window_id in kept:
                window = self._windows.get(int(window_id))
                if window is None or window.free <= 0:
                    continue
                excess = window.free - _as_whole(grants.get(window_id, "0"), window.account.budget.metric)
                if excess > 0:
                    window.free -= excess
                    window.granted -= excess
            self.valid_until = lapses if kept else _FOREVER

    @property
    def has_grants(self) -> bool:
        """Whether there is anything to renew or to give back."""
        return any(window.granted > 0 for window in list(self._windows.values()))

    def trim(self, limit: int) -> None:
        """Forget accounts that nothing was asked for lately, where there are more than `limit`."""
        if len(self._accounts) > limit:
            with self._lock:
                idle = time.monotonic() - _TRIM_AFTER_S
                for key, account in list(self._accounts.items()):
                    if account.asked_at < idle and not any(window.granted for window in account.windows):
                        account.windows = ()
                        del self._accounts[key]

    def _give_back(self) -> None:
        while self._released:
            hold = self._released.popleft()
            if hold.settled is None:
                hold.settled = []
                if hold.holder == self.holder:
                    self._undo((window, hold.amounts[metric]) for window, metric in hold.entries)

    @staticmethod
    def _undo(parts: Iterable[Part]) -> None:
        for window, amount in parts:
            window.free += amount


def _as_text(whole: int, metric: int) -> str:
    return format(in_dollars(whole), "f") if metric == 0 else str(whole)


def _as_whole(text: str, metric: int) -> int:
    """An amount of the database's as whole units, rounded down: what is not whole is not ours to spend."""
    value = Decimal(text)
    numerator, denominator = value.as_integer_ratio()
    return numerator * (PICO if metric == 0 else 1) // denominator
