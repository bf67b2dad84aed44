"""The windows of which this process holds grants, and which of them calls of one kind meet.

These are plain state, without a lock: amounts change in the ledger alone, under its lock. They are whole numbers: picodollars,
tokens or calls, by the budget's metric.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from vital_tracking.budgets.estimate import Amounts, as_whole
from vital_tracking.budgets.policy import Budget
from vital_tracking.budgets.quotes import Terms
from vital_tracking.core.context import CallContext
from vital_tracking.core.draws import Draw
from vital_tracking.errors import BudgetExceeded

FOREVER: Final = float("inf")

_FIRST_WANT: Final = 8
_LARGEST_WANT: Final = 1 << 16
_HURRY_S: Final = 2.0
_REFUSED_S: Final = 0.25


class Turn(NamedTuple):
    """The turn that a throttle gave to a call: the window's id, and when, in ISO format and by our monotonic clock."""

    window: int
    slot: str
    at: float


class RoundTrip(NamedTuple):
    """The times of one request to the database: `asked_at`, by our monotonic clock, and what the database's clock said.

    What it granted is spent until `grants_lapse_at`; that a window is used up is believed until `over_until`, and that an entity
    has no quota until `exempt_until`. All are seconds of our clock.
    """

    asked_at: float
    database_now: datetime
    grants_lapse_at: float
    over_until: float
    exempt_until: float

    def on_our_clock(self, instant: str) -> float:
        """An instant of the database's, in ISO format, by our monotonic clock: seconds."""
        return self.asked_at + (datetime.fromisoformat(instant) - self.database_now).total_seconds()


class Window:
    """One window: what this process has been granted of it, and how much of that is free.

    Below 0, `free` is what calls have spent beyond all that was granted. `unposted` is what ended calls have spent of which the
    rows are still to come; `forgiven` counts what came with rows that no grant had covered.
    """

    __slots__ = (
        "account",
        "ends",
        "forgiven",
        "free",
        "granted",
        "id",
        "low",
        "metric",
        "unposted",
        "used_at",
    )

    def __init__(self, account: Account, window_id: int) -> None:
        self.account = account
        self.id = window_id
        self.metric = account.budget.metric
        self.ends = FOREVER
        self.granted = 0
        self.free = 0
        self.unposted = 0
        self.forgiven = 0
        self.low = 0  # below this much free money more is fetched ahead of need, once; 0: not
        self.used_at = 0.0

    def receive(self, row: Mapping[str, Any], trip: RoundTrip, covered: int) -> None:
        """Take over what the database says of the window, with what it has granted.

        `covered` is a debt that the grant covers and that rows have brought meanwhile: that part of the grant goes back.
        """
        self.ends = FOREVER if row["ends_at"] is None else trip.on_our_clock(row["ends_at"])
        self.used_at = trip.asked_at
        granted = as_whole(row["amount"], self.metric)
        if granted:
            self.granted += granted - covered
            self.free += granted - covered
            # Far from the limit the next grant is fetched when three fourths of this one are gone; near it every call asks.
            limit, spent, others = (as_whole(row[name], self.metric) for name in ("limit", "spent", "granted"))
            self.low = granted // 4 if limit - spent - others > 8 * granted else 0

    def give_up_free(self) -> None:
        """No longer count the free part as granted; what is owed stays."""
        free = max(self.free, 0)
        self.granted -= free
        self.free -= free


class Account:
    """A budget for one entity: its windows that run now, and what the database said last."""

    __slots__ = (
        "asked_at",
        "budget",
        "entity",
        "exempt_until",
        "over_until",
        "refusal",
        "refused_until",
        "want",
        "windows",
    )

    def __init__(self, budget: Budget, entity: str) -> None:
        self.budget = budget
        self.entity = entity
        self.windows: tuple[Window, ...] = ()
        self.want = _FIRST_WANT  # for how many further calls grants are asked for
        self.asked_at = 0.0
        self.over_until = 0.0
        self.exempt_until = 0.0  # until then the entity is known to have no quota that this budget keeps
        self.refusal: Refusal | None = None
        self.refused_until = 0.0

    def next_want(self, now: float) -> int:
        """For how many calls more grants are wanted: twice as many as last time if that was just now, else half as many."""
        hurried = now - self.asked_at < _HURRY_S
        self.want = min(self.want * 2, _LARGEST_WANT) if hurried else max(self.want // 2, _FIRST_WANT)
        self.asked_at = now
        return self.want

    def remember(self, refusal: Refusal) -> None:
        """Keep a refusal for a moment, but not beyond the end of a window."""
        self.refusal = refusal
        self.refused_until = min([refusal.asked_at + _REFUSED_S, *(window.ends for window in self.windows)])


class Plan:
    """What calls of one kind meet: their terms, the accounts of their budgets, and the windows of these that count now."""

    __slots__ = ("accounts", "context", "low", "note", "terms", "until", "windows")

    def __init__(self, accounts: Sequence[Account], terms: Terms) -> None:
        self.accounts = tuple(accounts)
        self.terms = terms
        self.context: CallContext | None = None  # of the call that met it last: calls of one scope share theirs
        self.windows: tuple[Window, ...] = ()
        self.until = 0.0  # how long `windows` and `note` are right, by our monotonic clock
        self.note: str | None = None  # what the rows of calls say of a budget that only watches and is over its limit
        self.low = False  # a window should be refilled before it is empty

    def refresh(self) -> bool:
        """Take over the windows that the accounts have by now; False where one of them does not know its windows."""
        now = time.monotonic()
        windows: list[Window] = []
        until = FOREVER
        note: str | None = None
        for account in self.accounts:
            if account.over_until > now and self.terms.passes(account.budget):
                until = min(until, account.over_until)
                if not account.budget.enforce:
                    note = note or account.budget.note
                continue
            if not account.windows:
                if account.exempt_until <= now:
                    return False
                until = min(until, account.exempt_until)
                continue
            windows += account.windows
            until = min(until, *(window.ends for window in account.windows))
        if until <= now:
            return False
        self.windows, self.until, self.note = tuple(windows), until, note
        return True


class Refusal:
    """The database's refusal of a call; for a moment it is the answer to other calls of the same plan as well.

    `state` is what the process had of its windows then: where that has changed, it is asked anew.
    """

    def __init__(
        self, plan: Plan, amounts: Amounts, answer: Mapping[str, Any], state: Sequence[tuple[int, ...]]
    ) -> None:
        self.plan = plan
        self.amounts = amounts
        self.state = state
        self.asked_at = time.monotonic()
        self.windows: Sequence[Mapping[str, Any]] = answer["windows"]
        self._wait_s: float = answer["wait"]

    def applies(self, plan: Plan, amounts: Amounts, max_wait: float) -> bool:
        """Whether it holds for another call: not where that is of another plan, needs less, or would wait as long as it must."""
        if plan is not self.plan or any(its < ours for its, ours in zip(amounts, self.amounts, strict=True)):
            return False
        return not self._wait_s or max_wait < self._left_s()

    def error(self, amounts: Amounts, windows: Sequence[Mapping[str, Any]]) -> BudgetExceeded:
        """The error for a call of these amounts, with the answer's windows as they are known to be now."""
        return self.plan.terms.refused(windows, amounts, self._left_s())

    def _left_s(self) -> float:
        return max(self._wait_s - (time.monotonic() - self.asked_at), 0.0)


class Hold:
    """What is set aside for one call in each of its windows, until the call's record is made or the hold is released."""

    __slots__ = ("amounts", "holder", "prompt_bytes", "settled", "terms", "turns", "windows")

    def __init__(
        self, windows: tuple[Window, ...], amounts: Amounts, holder: str, terms: Terms, prompt_bytes: int
    ) -> None:
        self.windows = windows
        self.amounts = amounts
        self.holder = holder
        self.terms = terms
        self.prompt_bytes = prompt_bytes
        self.turns: list[Turn] = []  # given to it by throttles, which go back with it where it is released
        # Its draws, once it is replaced by what the call used; none if it was released.
        self.settled: Collection[Draw] | None = None

    def covers(self, prompt_tokens: int, answer_tokens: int) -> bool:
        """Whether it is enough for a call of which the bill is so many tokens, at their dearest."""
        tokens = prompt_tokens + answer_tokens
        return (
            tokens <= self.amounts.tokens and self.terms.price.cost(prompt_tokens, answer_tokens) <= self.amounts.cost
        )
