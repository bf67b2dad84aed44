"""The books of one process: whatever happens in whatever order, it has what it was granted, and not a picodollar more.

If one of these fails, a process spends money that it was never given, or sits on money that nobody can spend any more.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from vital_tracking.budgets.estimate import PICO, Amounts, History, UpperPrice
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.policy import Budget
from vital_tracking.budgets.quotes import Terms
from vital_tracking.budgets.windows import Hold, Plan, RoundTrip
from vital_tracking.core.draws import Draw
from vital_tracking.core.rates import ceiling_rates

COST, TOKENS, CALLS = range(3)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_budget(budget_id: int, metric: int, **changes: Any) -> Budget:
    values: dict[str, Any] = {
        "organization_id": None,
        "entity_type": "user",
        "entity_id": "*",
        "action": "block",
        "enforce": True,
        "strict": False,
        "deny_when_unavailable": False,
        "downgrade_to": None,
    }
    return Budget(id=budget_id, metric=metric, **(values | changes))


# Budgets by id, and the windows of each for one entity.
BUDGETS = {1: a_budget(1, COST), 2: a_budget(2, CALLS), 3: a_budget(3, TOKENS)}
WINDOWS = {1: (11, 12), 2: (21,), 3: (31,)}
KINDS = {"all": (1, 2, 3), "some": (2,), "money": (1, 3)}


def text(whole: int, metric: int) -> str:
    return format(Decimal(whole).scaleb(-12), "f") if metric == COST else str(whole)


def whole(amount: str, metric: int) -> int:
    return int(Decimal(amount) * (PICO if metric == COST else 1))


class Bank:
    """The database's side, in as many words: what each holder has been granted of each window."""

    def __init__(self) -> None:
        self.grants: Counter[tuple[str, int]] = Counter()

    def answer(self, holder: str, requests: list[dict[str, Any]], extra: int, refuse: bool = False) -> dict[str, Any]:
        """Grant the need of a call and `extra` calls more in every window, or nothing in any."""
        rows = []
        for one in requests:
            metric = BUDGETS[one["budget"]].metric
            unit = whole(one["unit"], metric)
            for window in WINDOWS[one["budget"]]:
                have = min(whole(one["have"].get(str(window), "0"), metric), self.grants[holder, window])
                owe = whole(one["owe"].get(str(window), "0"), metric) if unit else 0
                mine = self.grants[holder, window]
                amount = 0 if refuse else unit - have + owe + extra * unit
                self.grants[holder, window] += amount
                rows.append(
                    {
                        "id": window,
                        "budget": one["budget"],
                        "entity": one["entity"],
                        "ends_at": None,
                        "limit": "1000000",
                        "spent": "0",
                        "granted": "0",
                        "mine": text(mine, metric),
                        "amount": text(amount, metric),
                        "over": refuse,
                    }
                )
        return {"windows": rows, "admitted": not refuse}

    def post(self, holder: str, draws: Collection[Draw]) -> None:
        for window, amount in draws:
            drawn = whole(amount, METRIC[window])
            assert drawn > 0
            self.grants[holder, window] -= min(drawn, self.grants[holder, window])

    def renew(self, holder: str, kept: dict[str, str]) -> dict[str, str]:
        for key in [key for key in self.grants if key[0] == holder]:
            window = key[1]
            keep = whole(kept.get(str(window), "0"), METRIC[window])
            assert keep <= self.grants[key]  # nobody keeps what it was not given
            self.grants[key] = keep
        return {
            str(window): text(amount, METRIC[window]) for (who, window), amount in self.grants.items() if who == holder
        }


METRIC = {window: BUDGETS[budget].metric for budget, windows in WINDOWS.items() for window in windows}


def a_plan(ledger: Ledger, kind: str = "all", history: History | None = None) -> Plan:
    budgets = [(BUDGETS[number], "u-1") for number in KINDS[kind]]
    terms = Terms(budgets, UpperPrice(None, ceiling_rates("15/75")), history or History(), frozenset())
    return Plan([ledger.account(budget, entity) for budget, entity in budgets], terms)


def just_now(lapses: float = 1e9) -> RoundTrip:
    now = time.monotonic()
    return RoundTrip(now, NOW, now + lapses, now + 1, now + 15)


amounts_of_a_call = st.builds(Amounts, st.integers(1, 10**13), st.integers(0, 5000), st.just(1))


class Books(RuleBasedStateMachine):
    """Calls are taken, settled, released, recorded and posted in any order, while grants come and go."""

    holds: Bundle[Hold] = Bundle("holds")
    rows: Bundle[tuple[str, list[tuple[int, str]]]] = Bundle("rows")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.bank = Bank()
        self.plans = {kind: a_plan(self.ledger, kind) for kind in KINDS}
        self.held: dict[int, Hold] = {}
        self.unposted: Counter[tuple[str, int]] = Counter()
        self.beyond: Counter[int] = Counter()  # what calls have used beyond what was held for them

    def note(self, hold: Hold | None) -> list[Hold]:
        if hold is not None:
            self.held[id(hold)] = hold
        return [hold] if hold is not None else []

    @rule(target=holds, kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call, extra=st.integers(0, 20))
    def ask(self, kind: str, amounts: Amounts, extra: int) -> Any:
        """A miss: the database grants what is needed, and more."""
        plan = self.plans[kind]
        requests, offer = self.ledger.grant_requests(plan, amounts, 1, ahead=False)
        answer = self.bank.answer(self.ledger.holder, requests, extra)
        return self.noted(self.ledger.accept_grants(plan, answer, offer, amounts, 0, just_now()))

    def noted(self, hold: Hold | None) -> Any:
        from hypothesis.stateful import multiple

        return multiple(*self.note(hold))

    @rule(kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call)
    def ask_in_vain(self, kind: str, amounts: Amounts) -> None:
        """The database refuses."""
        plan = self.plans[kind]
        requests, offer = self.ledger.grant_requests(plan, amounts, 1, ahead=False)
        answer = self.bank.answer(self.ledger.holder, requests, 0, refuse=True)
        assert self.ledger.accept_grants(plan, answer, offer, None, 0, just_now()) is None

    @rule(kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call)
    def ask_nobody(self, kind: str, amounts: Amounts) -> None:
        """The database does not answer."""
        _, offer = self.ledger.grant_requests(self.plans[kind], amounts, 1, ahead=False)
        self.ledger.withdraw(offer)

    @rule(kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call, extra=st.integers(0, 20))
    def fetch_ahead(self, kind: str, amounts: Amounts, extra: int) -> None:
        """More is fetched while nobody waits."""
        plan = self.plans[kind]
        requests, offer = self.ledger.grant_requests(plan, amounts, 0, ahead=True)
        assert not offer
        self.ledger.accept_grants(
            plan, self.bank.answer(self.ledger.holder, requests, extra), offer, None, 0, just_now()
        )

    @rule(target=holds, kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call)
    def take(self, kind: str, amounts: Amounts) -> Any:
        """A call that the grants in hand cover, or do not."""
        return self.noted(self.ledger.reserve(self.plans[kind], amounts, 0))

    @rule(target=holds, kind=st.sampled_from(list(KINDS)), amounts=amounts_of_a_call)
    def take_what_there_is(self, kind: str, amounts: Amounts) -> Any:
        """A call while the database is away."""
        hold, short = self.ledger.reserve_where_possible(self.plans[kind], amounts, 0)
        assert (hold is None) == (len(short) == len(KINDS[kind]))
        return self.noted(hold)

    @rule(hold=consumes(holds), share=st.floats(0, 2))
    def release_or_settle_late(self, hold: Hold, share: float) -> None:
        """A hold that is given back, whole, and settled afterwards by mistake: nothing more happens."""
        self.ledger.release(hold)
        self.held.pop(id(hold))
        self.ledger.return_unused(idle=False)
        assert not self.ledger.settle(hold, Amounts(*(int(amount * share) for amount in hold.amounts)))

    @rule(target=rows, hold=consumes(holds), share=st.floats(0, 2))
    def settle(self, hold: Hold, share: float) -> Any:
        """A call ends, cheaper or dearer than was thought; it draws what it used."""
        used = Amounts(*(int(amount * share) for amount in hold.amounts))
        draws = self.ledger.settle(hold, used)
        assert self.ledger.settle(hold, Amounts(0, 0, 0)) is draws
        self.held.pop(id(hold))
        drawn = {window: whole(amount, METRIC[window]) for window, amount in draws}
        for window in hold.windows:
            assert drawn.get(window.id, 0) == used[window.metric]
        for window in hold.windows:
            self.beyond[window.id] += max(used[window.metric] - hold.amounts[window.metric], 0)
        for window_id, amount in drawn.items():
            self.unposted[hold.holder, window_id] += amount
        return hold.holder, draws

    @rule(row=consumes(rows))
    def post(self, row: tuple[str, Collection[Draw]]) -> None:
        """Its row is in the database."""
        holder, draws = row
        if holder == self.ledger.holder:
            self.bank.post(holder, draws)
        self.ledger.post(holder, [draws])
        for window, amount in draws:
            self.unposted[holder, window] -= whole(amount, METRIC[window])

    @rule(some=st.lists(consumes(rows), min_size=2, max_size=3), as_texts=st.booleans())
    def post_together(self, some: list[tuple[str, Collection[Draw]]], as_texts: bool) -> None:
        """The rows of a batch are in the database, those of merged calls with what they drew in all."""
        for holder in {holder for holder, _ in some}:
            together = [list(draws) if as_texts else draws for its_holder, draws in some if its_holder == holder]
            for draws in together:
                if holder == self.ledger.holder:
                    self.bank.post(holder, draws)
                for window, amount in draws:
                    self.unposted[holder, window] -= whole(amount, METRIC[window])
            self.ledger.post(holder, together)

    @rule(all_back=st.booleans())
    def renew(self, all_back: bool) -> None:
        """What is kept is renewed, the rest goes back."""
        kept, _ = self.ledger.return_unused(everything=all_back)
        grants = self.bank.renew(self.ledger.holder, kept)
        self.ledger.confirm_kept(kept, grants, time.monotonic() + 1e9)

    @rule()
    def change_budgets(self) -> None:
        """The admin has changed something: free money goes back, calls under way keep theirs."""
        self.ledger.forget_accounts()
        self.plans = {kind: a_plan(self.ledger, kind) for kind in KINDS}
        kept, _ = self.ledger.return_unused()
        self.bank.renew(self.ledger.holder, kept)

    @rule()
    @precondition(lambda self: any(self.bank.grants.values()))
    def lapse(self) -> None:
        """The grants were not renewed in time: the database has taken them back."""
        old = self.ledger.holder
        for key in list(self.bank.grants):
            self.bank.grants[key] = 0
        self.ledger.forget_grants()
        assert self.ledger.holder != old
        for plan in self.plans.values():
            assert self.ledger.reserve(plan, Amounts(1, 1, 1), 0) is None

    @invariant()
    def books_are_right(self) -> None:
        """free + held + unposted is what was granted and not yet posted, in every window; free is below 0 only for debts."""
        self.ledger.return_unused(idle=False)  # what was released is counted
        holder = self.ledger.holder
        held: Counter[int] = Counter()
        for hold in self.held.values():
            if hold.holder == holder:
                for window in hold.windows:
                    held[window.id] += hold.amounts[window.metric]
        for window_id in METRIC:
            known = self.ledger._windows.get(window_id)
            granted = self.bank.grants[holder, window_id]
            if known is None:
                assert granted == held[window_id] == 0
                continue
            assert known.granted == granted
            assert known.free + held[window_id] + self.unposted[holder, window_id] == granted
            assert known.unposted == self.unposted[holder, window_id]
            assert known.free >= -self.beyond[window_id]


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_grants_and_holds_add_up_whatever_happens = Books.TestCase


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def granted(ledger: Ledger) -> Callable[[int, str], Plan]:
    """Grants so many calls of one picodollar, one token each, to a plan."""

    def grant(calls: int, kind: str = "all", lapses: float = 1e9) -> Plan:
        plan, unit = a_plan(ledger, kind), Amounts(1, 1, 1)
        requests, offer = ledger.grant_requests(plan, unit, 0, ahead=True)
        answer = Bank().answer(ledger.holder, requests, calls - 1)
        ledger.accept_grants(plan, answer, offer, None, 0, just_now(lapses))
        return plan

    return grant


ONE = Amounts(1, 1, 1)


def test_threads_take_no_more_than_there_is(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """Two threads that look at once must not both take the last call's money."""
    plan = granted(10_000)
    taken: list[list[Hold]] = [[] for _ in range(16)]

    def take(mine: list[Hold]) -> None:
        for number in itertools.count():
            hold = ledger.reserve(plan, ONE, 0)
            if hold is None:
                return
            if number % 3 == 0:
                ledger.release(hold)
            elif number % 7 == 0:
                ledger.settle(hold, Amounts(0, 0, 0))
            else:
                mine.append(hold)

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.return_unused(idle=False)
    left = {window.id: window.free for window in ledger._windows.values()}
    # What the last thread gave back after the others had looked is still there.
    assert {sum(map(len, taken)) + free for free in left.values()} == {10_000}
    assert min(left.values()) >= 0


class Door:
    """A lock that nobody may wait for, and that is taken at first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.tries = 0

    def acquire(self, *, blocking: bool) -> bool:
        assert not blocking
        self.tries += 1
        return self.tries > 3 and self._lock.acquire(blocking=False)

    def release(self) -> None:
        self._lock.release()

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined]


def test_busy_threads_do_not_wait_in_line(
    ledger: Ledger, granted: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = granted(calls=1)
    door = Door()
    monkeypatch.setattr(ledger, "_lock", door)
    assert ledger.reserve(plan, Amounts(0, 0, 1), 0) is not None
    assert door.tries == 4
    assert not door._is_owned()


def test_a_signal_handler_that_raises_does_not_leave_the_lock_taken(
    ledger: Ledger, granted: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = granted(calls=1)
    door = Door()
    monkeypatch.setattr(ledger, "_lock", door)

    def interrupted(*, blocking: bool) -> bool:
        door._lock.acquire(blocking=blocking)
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.reserve(plan, Amounts(0, 0, 1), 0)
    assert not door._is_owned()


def test_a_call_stopped_by_one_budget_takes_nothing_of_the_others(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """Else a call that is stopped by one budget would eat another one up."""
    plan = granted(5)
    assert ledger.reserve(plan, Amounts(1, 6, 1), 0) is None
    assert {window.free for window in ledger._windows.values()} == {5}


def test_a_grant_that_was_not_renewed_is_not_spent(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """The database may have given it to others by now."""
    plan = granted(5, lapses=-1)
    assert ledger.reserve(plan, ONE, 0) is None
    hold, short = ledger.reserve_where_possible(plan, ONE, 0)
    assert hold is None
    assert len(short) == 3


def test_a_window_that_has_ended_is_not_spent(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """Yesterday's money is no money today."""
    plan = granted(5)
    for window in ledger._windows.values():
        window.ends = time.monotonic()
    assert plan.refresh() is False
    hold, short = ledger.reserve_where_possible(plan, ONE, 0)
    assert hold is None
    assert len(short) == 3


def test_a_burst_fetches_more_once_before_it_runs_out(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """A burst must not ask the database again for each of its calls."""
    plan = granted(100)
    lows = []
    for _ in range(100):
        assert ledger.reserve(plan, ONE, 0) is not None
        lows.append(plan.low)
        plan.low = False
    assert sum(lows) == 1
    assert lows.index(True) == 75


def test_near_the_limit_nothing_is_fetched_ahead(ledger: Ledger) -> None:
    """There every call asks, so that the last money goes to whoever needs it."""
    plan = a_plan(ledger, "some")
    requests, offer = ledger.grant_requests(plan, ONE, 0, ahead=True)
    answer = Bank().answer(ledger.holder, requests, 9)
    answer["windows"][0]["limit"] = "50"
    ledger.accept_grants(plan, answer, offer, None, 0, just_now())
    while ledger.reserve(plan, ONE, 0) is not None:
        assert not plan.low


def test_idle_money_goes_back_and_what_is_used_stays(
    ledger: Ledger, granted: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Money that lies idle in one process is money that another is refused."""
    plan = granted(10)
    hold = ledger.reserve(plan, ONE, 0)
    assert hold is not None
    kept, returned = ledger.return_unused()
    assert not returned
    assert kept["21"] == "10"
    for window in ledger._windows.values():
        window.used_at -= 6
    kept, returned = ledger.return_unused()
    assert returned
    assert kept == {"11": "0.000000000001", "12": "0.000000000001", "21": "1", "31": "1"}
    draws = ledger.settle(hold, ONE)
    ledger.post(hold.holder, [draws])
    assert ledger.return_unused() == ({}, False)
    assert not ledger.has_grants


def test_the_rows_of_a_batch_are_taken_out_of_the_grants_together(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """If this failed, a process would think that it has what the database has taken back, or give up what it still has."""
    plan = granted(20)
    draws: list[Collection[Draw]] = []
    for used in (Amounts(1, 2, 1), Amounts(3, 4, 1), Amounts(5, 6, 1), Amounts(0, 0, 1)):
        hold = ledger.reserve(plan, ONE, 0)
        assert hold is not None
        draws.append(ledger.settle(hold, used))
    draws[1] = list(draws[1])  # as those of a merged row are
    assert [len(one) for one in draws] == [4, 4, 4, 1]
    ledger.post(ledger.holder, draws)
    windows = ledger._windows.values()
    assert {window.id: window.granted for window in windows} == {11: 20 - 9, 12: 20 - 9, 21: 20 - 4, 31: 20 - 12}
    assert {window.unposted for window in windows} == {0}


def test_a_grant_that_the_database_no_longer_knows_is_not_spent(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """A laptop that has slept for an hour finds its grants lapsed, though by its own clock no time has passed."""
    plan = granted(10)
    held = [ledger.reserve(plan, ONE, 0) for _ in range(3)]
    assert all(held)
    kept, _ = ledger.return_unused()
    ledger.confirm_kept(kept, {"11": "0.000000000010", "12": "0.000000000005", "21": "2"}, time.monotonic() + 60)
    # Of ten, three are held; the rest is ours as far as the database has it.
    assert {window.id: window.free for window in ledger._windows.values()} == {11: 7, 12: 5, 21: 2, 31: 0}
    assert {window.id: window.granted for window in ledger._windows.values()} == {11: 10, 12: 8, 21: 5, 31: 3}
    assert ledger.reserve(plan, ONE, 0) is None


def test_a_forked_child_has_none_of_its_parents_money(ledger: Ledger, granted: Callable[..., Plan]) -> None:
    """The parent's money is the parent's, also where another thread of it held the lock as it forked."""
    plan = granted(10)
    hold = ledger.reserve(plan, ONE, 0)
    assert hold is not None
    parent = ledger.holder
    ledger._lock.acquire()
    ledger.reset_after_fork()
    assert ledger.holder != parent
    assert ledger.reserve(plan, ONE, 0) is None
    ledger.release(hold)
    assert ledger.return_unused() == ({}, False)


def test_fractions_of_a_picodollar_are_not_spent(ledger: Ledger) -> None:
    """The database counts finer than a picodollar: what it grants is rounded down."""
    plan = a_plan(ledger, "money")
    requests, offer = ledger.grant_requests(plan, Amounts(1, 1, 1), 0, ahead=True)
    answer = Bank().answer(ledger.holder, requests, 0)
    for row in answer["windows"]:
        row["amount"] = "0.0000000000019"
    ledger.accept_grants(plan, answer, offer, None, 0, just_now())
    assert [ledger._windows[window].free for window in (11, 12, 31)] == [1, 1, 0]
