"""The controller in one process, on a real database: who asks whom, what is held, and what each action does.

If one of these fails, calls wait for the database that need not, money is held that nobody uses, or a budget does something
else than its admin has set.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.budgets.helpers import (
    CALL,
    COST,
    USAGE,
    check_sums,
    granted,
    knows_its_budgets,
    request_for,
    set_budget,
)
from tests.integration.helpers import Rows, dollars
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import WatchedStore
from tests.support.waiting import until
from vital_tracking import BudgetExceeded, BudgetThrottled, Price, Settings, VitalTracker
from vital_tracking.budgets.pending import Waits, run, run_async
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


@pytest.fixture
def watched(database_url: str) -> Iterator[Callable[..., tuple[VitalTracker, WatchedStore]]]:
    """Makes trackers whose round trips are counted."""
    made: list[tuple[VitalTracker, WatchedStore]] = []

    def make(**settings: Any) -> tuple[VitalTracker, WatchedStore]:
        store = WatchedStore(PostgresStore(database_url))
        tracker = VitalTracker(store, settings=Settings(**{"flush_interval_s": 60.0, **settings}))
        made.append((tracker, store))
        return tracker, store

    yield make
    for tracker, store in made:
        store.go.set()
        tracker.close()


Watched = Callable[..., tuple[VitalTracker, WatchedStore]]


def admit_all(tracker: VitalTracker, count: int, **call: Any) -> int:
    """Make so many calls one after the other; how many were admitted before one was stopped."""
    for number in range(count):
        try:
            tracker.admit(**{"user_id": "u-1", **CALL, **call}).record(**USAGE)
        except BudgetExceeded:
            return number
    return count


# Who asks


def test_one_round_trip_serves_all_first_calls_of_a_process(store: PostgresStore, watched: Watched, rows: Rows) -> None:
    """A server that has just started would else ask the database once for each of its first requests."""
    set_budget(store, daily_limit="100000", monthly_limit="100000")
    tracker, watch = watched(budget_deadline_s=30)
    knows_its_budgets(tracker)
    watch.go.clear()
    with ThreadPoolExecutor(64) as pool:
        admitted = [pool.submit(tracker._controller.admit, request_for()) for _ in range(64)]
        watch.waiting.acquire(timeout=10)  # the first has asked; the others gather meanwhile
        until(lambda: tracker._controller.lease_thread._queue.qsize() > 50)
        watch.go.set()
        assert all(one.result().hold for one in admitted)
    assert len(watch.waited_for) <= 2
    for one in admitted:
        tracker._controller.release(one.result())
    assert tracker.close().complete
    assert granted(rows) == 0
    check_sums(store)


def test_near_the_limit_calls_share_their_round_trips(store: PostgresStore, watched: Watched) -> None:
    """On a database that is 50 ms away, a hundred calls that ask one by one would be past their deadline."""
    set_budget(store, total_limit="100")
    tracker, watch = watched(budget_deadline_s=30)
    knows_its_budgets(tracker)
    watch.go.clear()
    with ThreadPoolExecutor(120) as pool:
        asked = [pool.submit(tracker._controller.admit, request_for()) for _ in range(120)]
        watch.waiting.acquire(timeout=10)
        until(lambda: tracker._controller.lease_thread._queue.qsize() > 100)
        watch.go.set()
        outcomes = [type(one.exception()) for one in asked]
    assert outcomes.count(type(None)) == 100
    assert outcomes.count(BudgetExceeded) == 20
    assert len(watch.waited_for) < 12
    check_sums(store)


def test_grants_are_fetched_ahead_so_that_calls_do_not_wait(store: PostgresStore, watched: Watched) -> None:
    """Far from the limit only the first call of a process waits for the database."""
    set_budget(store, daily_limit="1000000", monthly_limit="1000000")
    tracker, watch = watched()
    knows_its_budgets(tracker)
    for _ in range(100):
        tracker._controller.admit(request_for())
        threading.Event().wait(0.01)  # a fast model
    assert len(watch.waited_for) == 1
    assert 1 <= len(watch.grant_requests) - len(watch.waited_for) <= 6
    check_sums(store)


def test_a_burst_fetches_ahead_no_more_than_it_must(store: PostgresStore, watched: Watched) -> None:
    """Every call of a burst finds the grant low: one of them asks for more, not all."""
    set_budget(store, daily_limit="100000000")
    tracker, watch = watched(budget_deadline_s=30)
    knows_its_budgets(tracker)
    for _ in range(20_000):
        tracker._controller.admit(request_for())
    assert len(watch.grant_requests) < 40


def test_the_last_call_of_a_limit_is_admitted_and_none_after_it(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Whoever comes first gets the last call, and nobody the one after it."""
    set_budget(store, metric="cost_usd", daily_limit=str(COST * 25), monthly_limit=str(COST * 25))
    one, other = make_tracker(), make_tracker()
    admitted = 0
    for number in range(40):
        admitted += admit_all((one, other)[number % 2], 1)
    assert admitted == 25
    assert one.flush().inserted + other.flush().inserted == 40
    check_sums(store)
    assert rows("select distinct spent, limit_amount from budget_windows") == [
        {"spent": COST * 25, "limit_amount": COST * 25}
    ]


def test_idle_money_goes_back_to_where_others_can_spend_it(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Else a process that had a burst an hour ago would keep others from the last part of the budget."""
    set_budget(store, total_limit="400")
    one, other = make_tracker(), make_tracker()
    held = one._controller.admit(request_for())
    before = granted(rows)
    assert before > 5
    for window in one._controller.ledger._windows.values():
        window.used_at -= 6  # six seconds without a call
    until(lambda: granted(rows) == 1)  # what a call under way holds stays
    assert admit_all(other, 400) == 399
    one._controller.release(held)
    one.close()
    until(lambda: admit_all(other, 1))  # a refusal is remembered for a moment
    assert admit_all(other, 1) == 0
    check_sums(store)


def test_what_a_call_did_not_need_is_there_for_the_next_one(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """A dollar pays for calls of a cent until no sixty cents are left, which each might cost; no row is written meanwhile."""
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = make_tracker(prices=[Price("m", input="10000", output="10000")])
    size = {"user_id": "u-1", "model": "m", "prompt_tokens": 30, "max_tokens": 30}
    for _ in range(41):
        tracker.admit(**size).record(prompt_tokens=1, completion_tokens=0)
    with pytest.raises(BudgetExceeded):
        tracker.admit(**size)  # $0.59 are left
    assert tracker.stats().inserted == 0
    assert tracker.flush().inserted == 42
    check_sums(store)
    assert rows("select spent from budget_windows") == [{"spent": Decimal("0.41")}]


def test_calls_that_end_while_another_is_refused_are_counted_at_once(
    store: PostgresStore, make_tracker: MakeTracker
) -> None:
    """A refusal is remembered for a moment, but not longer than there is reason to."""
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = make_tracker(prices=[Price("m", input="10000", output="10000")])
    size = {"user_id": "u-1", "model": "m", "prompt_tokens": 30, "max_tokens": 30}
    call = tracker.admit(**size)
    with pytest.raises(BudgetExceeded):
        tracker.admit(**size)
    call.record(prompt_tokens=1, completion_tokens=0)
    tracker.admit(**size).release()


def test_a_refused_call_holds_nothing_of_the_other_budgets(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """If this failed, a user who is out of money would use up the organization's."""
    set_budget(store, entity_type="organization", entity_id="acme", total_limit="10")
    set_budget(store, total_limit="2")
    tracker = make_tracker(organization_id="acme")
    assert admit_all(tracker, 10) == 2
    for _ in range(20):
        assert admit_all(tracker, 1) == 0
    for user in ("u-2", "u-3", "u-4", "u-5"):
        assert admit_all(tracker, 3, user_id=user) == 2
    assert admit_all(tracker, 1, user_id="u-6") == 0
    tracker.close()
    assert granted(rows) == 0
    check_sums(store)


def test_two_trackers_in_one_process_share_a_budget_as_two_processes_do(
    store: PostgresStore, make_tracker: MakeTracker
) -> None:
    """Each has its own part, and none spends the other's."""
    set_budget(store, total_limit="200")
    trackers = [make_tracker(), make_tracker()]
    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(lambda number: admit_all(trackers[number % 2], 200), range(16)))
    assert sum(counts) == 200
    check_sums(store)


def test_closing_gives_all_grants_back(store: PostgresStore, make_tracker: MakeTracker, rows: Rows) -> None:
    """A rolling restart must not leave money with processes that are gone."""
    set_budget(store, daily_limit="1000", monthly_limit="1000")
    for number in range(3):
        tracker = make_tracker()
        assert admit_all(tracker, 5 + number) == 5 + number
        assert tracker.close().complete
        assert granted(rows) == 0
    check_sums(store)
    assert rows("select 1 from budget_grants") == []


def test_a_forked_child_spends_its_own_money(store: PostgresStore, make_tracker: MakeTracker, rows: Rows) -> None:
    """If this failed, a pre-forking server would spend its parent's grants once in every worker."""
    set_budget(store, total_limit="100")
    tracker = make_tracker()
    held = [tracker._controller.admit(request_for()) for _ in range(3)]
    parent = tracker._controller.ledger.holder
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tracker._controller.release(held[0])  # not its own: of no effect
            assert tracker._controller.ledger.holder != parent
            assert not tracker._controller.ledger.has_grants
            count = admit_all(tracker, 200)
            os.write(writer, str(count).encode())
            code = 0 if tracker.close().complete else 2
        finally:
            os._exit(code)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spent = int(os.read(reader, 10))
    os.close(reader)
    assert 0 < spent < 100 - 3
    check_sums(store)
    for admission in held:
        tracker._controller.release(admission)
    assert admit_all(tracker, 200) == 100 - spent
    tracker.close()
    assert granted(rows) == 0
    check_sums(store)


def test_grants_that_the_database_has_lost_are_not_spent(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """After a restore from yesterday's backup, or an hour's sleep of the machine, nobody else knows of them."""
    set_budget(store, total_limit="1000")
    tracker = make_tracker(budget_refresh_s=0.1)
    held = tracker._controller.admit(request_for())
    assert rows("delete from budget_grants returning 1")
    rows("update budget_windows set granted = 0 returning 1")
    ledger = tracker._controller.ledger
    until(lambda: all(window.free == 0 for window in ledger._windows.values()))
    tracker._controller.release(held)
    assert admit_all(tracker, 1) == 1
    tracker.close()
    assert granted(rows) == 0
    check_sums(store)


def test_no_budget_is_overspent_whatever_many_threads_do(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Calls of all sizes under budgets that overlap: made, given up, cheaper than thought, in three trackers at once."""
    set_budget(store, entity_type="organization", entity_id="acme", metric="cost_usd", daily_limit="0.08")
    set_budget(store, metric="tokens", daily_limit="80000", monthly_limit="90000")
    set_budget(store, entity_type="session", metric="calls", total_limit="25")
    set_budget(store, entity_type="model", metric="cost_usd", monthly_limit="0.06")
    trackers = [make_tracker(organization_id="acme", flush_interval_s=0.05, budget_deadline_s=60) for _ in range(3)]
    stopped = threading.Event()

    def spend(number: int) -> int:
        choose, made = random.Random(number), 0
        for _ in range(60):
            prompt, answer = choose.randrange(1, 3000), choose.randrange(1, 3000)
            who = {"user_id": f"u-{choose.randrange(3)}", "session_id": f"s-{choose.randrange(8)}"}
            model = choose.choice(["gpt-4o-mini", "gpt-4.1-nano"])
            try:
                call = trackers[number % 3].admit(
                    provider="openai", model=model, prompt_tokens=prompt, max_tokens=answer, **who
                )
            except BudgetExceeded:
                continue
            if choose.random() < 0.2:
                call.release()
            else:
                call.record(prompt_tokens=choose.randrange(prompt + 1), completion_tokens=choose.randrange(answer + 1))
                made += 1
        return made

    def watch() -> None:
        while not stopped.is_set():
            check_sums(store)

    with ThreadPoolExecutor(25) as pool:
        watching = pool.submit(watch)
        made = sum(pool.map(spend, range(24)))
        stopped.set()
        watching.result()
    for tracker in trackers:
        assert tracker.close().complete
        assert (tracker.stats().faults, tracker.stats().unchecked) == (0, 0)
    check_sums(store)
    assert granted(rows) == 0
    assert rows("select count(*) as calls from token_usage_logs where status = 'ok'") == [{"calls": made}]
    shares = rows(
        "select b.entity_type, max(w.spent / w.limit_amount) as spent from budget_windows as w"
        " join budget_limits as b on b.id = w.budget_id group by 1"
    )
    assert min(row["spent"] for row in shares) > 0.5


# Budgets that change


def test_a_changed_limit_binds_without_a_restart(store: PostgresStore, make_tracker: MakeTracker, rows: Rows) -> None:
    """Raised, lowered and removed: within the time that the settings say, and without a restart."""
    columns = set_budget(store, total_limit="5")
    tracker = make_tracker(budget_refresh_s=0.1)
    assert admit_all(tracker, 10) == 5
    set_budget(store, total_limit="8")
    until(lambda: admit_all(tracker, 1))
    assert admit_all(tracker, 10) == 2
    set_budget(store, total_limit="1000")
    until(lambda: admit_all(tracker, 1))
    assert granted(rows) > 1
    version = tracker._controller.policy.version
    set_budget(store, total_limit="9")
    until(lambda: tracker._controller.policy.version != version)
    assert admit_all(tracker, 1) == 0  # what it had in hand of the old limit is spent no more
    tracker.flush()
    check_sums(store)
    store.call("remove_budget_v1", budget_id=columns["id"])
    until(lambda: not tracker._controller.active)
    assert admit_all(tracker, 3) == 3


def test_a_budget_that_begins_to_bind_binds_at_once(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """The database goes by the budget as it is, also before this process has read it."""
    set_budget(store, total_limit="2", enforce=False)
    tracker = make_tracker(budget_refresh_s=3600)
    assert admit_all(tracker, 4) == 4
    tracker.flush()
    set_budget(store, total_limit="2", enforce=True)
    for account in tracker._controller.ledger._accounts.values():
        account.over_until = 0.0  # a second later
    for plan in tracker._controller.plans.known.values():
        plan.until = 0.0
    assert admit_all(tracker, 1) == 0
    assert tracker.stats().faults == 0


def test_a_new_budget_counts_from_the_calls_of_its_window(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """The day's calls that were made before there was a budget are part of the day."""
    tracker = make_tracker(budget_refresh_s=0.05)
    assert admit_all(tracker, 3) == 3
    tracker.flush()
    set_budget(store, daily_limit="5")
    until(lambda: tracker._controller.active)
    assert admit_all(tracker, 10) == 2
    tracker.flush()
    check_sums(store)


@pytest.fixture
def a_minute_passes(rows: Rows) -> Callable[[VitalTracker], None]:
    """Moves all that has happened back by a minute, in the database and in the ledger of a tracker."""

    def move(tracker: VitalTracker) -> None:
        tracker.flush()
        rows("update token_usage_logs set created_at = created_at - interval '1 minute' returning 1")
        for window in rows("select id from budget_windows where period = 'minute' order by starts_at"):
            rows(
                "update budget_windows set starts_at = starts_at - interval '1 minute',"
                " ends_at = ends_at - interval '1 minute' where id = %s returning 1",
                window["id"],
            )
        rows("update vital_private.budget_periods set since = since - interval '1 minute' returning 1")
        for window in tracker._controller.ledger._windows.values():
            window.ends -= 60
        for account in tracker._controller.ledger._accounts.values():
            account.refused_until -= 60
        for plan in tracker._controller.plans.known.values():
            plan.until -= 60

    return move


def away_from_the_end_of_a_minute() -> None:
    until(lambda: time.time() % 60 < 50, 15)


def test_a_rate_limit_opens_again_with_the_next_minute(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, a_minute_passes: Callable[[VitalTracker], None]
) -> None:
    """A rate limit opens again with the next minute, and what was granted of the old one is spent no more."""
    away_from_the_end_of_a_minute()
    set_budget(store, minute_limit="3", monthly_limit="1000000")
    tracker = make_tracker()
    assert admit_all(tracker, 10) == 3
    a_minute_passes(tracker)
    assert admit_all(tracker, 10) == 3
    a_minute_passes(tracker)
    held = tracker._controller.admit(request_for())
    a_minute_passes(tracker)
    assert admit_all(tracker, 10) == 3
    tracker._controller.release(held)
    tracker.close()
    check_sums(store)
    assert granted(rows) == 0
    minutes = rows("select spent from budget_windows where period = 'minute' order by starts_at")
    assert [row["spent"] for row in minutes] == [3, 3, 0, 3]


def test_a_slot_that_comes_after_the_window_has_ended_is_not_waited_for(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, a_minute_passes: Callable[[VitalTracker], None]
) -> None:
    """With the next minute there is money again: the call asks once more then, and goes."""
    away_from_the_end_of_a_minute()
    set_budget(store, action="throttle", minute_limit="1", throttle_interval_s="3600")
    tracker = make_tracker()
    assert admit_all(tracker, 2) == 2  # the second one takes the only slot of the hour
    tracker.flush()
    rows("update budget_windows set ends_at = clock_timestamp() + interval '0.4 seconds' returning 1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tracker.admit, user_id="u-1", max_wait=100, **CALL)
        until(lambda: rows("select 1 from budget_windows where ends_at < clock_timestamp() + interval '0.2 seconds'"))
        a_minute_passes(tracker)
        call = waiting.result()
    assert call.waited == pytest.approx(0.4, abs=0.15)
    assert call.action == "throttle"
    call.record(**USAGE)
    tracker.close()
    assert rows("select spent from budget_windows order by starts_at") == [{"spent": 2}, {"spent": 1}]


def test_a_call_across_the_end_of_its_minute_counts_where_it_began(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, a_minute_passes: Callable[[VitalTracker], None]
) -> None:
    """Its row is dated by its start, so its hold is taken from that window."""
    away_from_the_end_of_a_minute()
    set_budget(store, minute_limit="1")
    tracker = make_tracker()
    call = tracker.admit(user_id="u-1", **CALL)
    a_minute_passes(tracker)
    assert call._admission is not None
    assert call._admission.began is not None
    began, clocked = call._admission.began
    call._admission.began = began - timedelta(minutes=1), clocked
    call.record(**USAGE)
    assert admit_all(tracker, 1) == 1
    tracker.close()
    check_sums(store)
    assert [row["spent"] for row in rows("select spent from budget_windows order by starts_at")] == [1, 1]


# Many calls of real models


async def test_of_fifty_calls_at_once_the_money_pays_for_ten(
    store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Exactly ten requests leave the house, with the plain handler and with a guarded model."""
    set_budget(store, total_limit="10")
    provider.reply(Reply(delay_s=0.02))
    for user, guarded in (("u-1", False), ("u-2", True)):
        tracker = make_tracker(budget_deadline_s=30)
        model = provider.chat_openai()
        config: Any = {"metadata": {"vital_user_id": user}}
        if guarded:
            model = tracker.guard(model)
        else:
            config["callbacks"] = [tracker.handler]
        answers = await model.abatch(["Hi"] * 50, config, return_exceptions=True)
        assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 40
        tracker.close()
        counts = rows("select status, count(*) as calls from token_usage_logs where user_id = %s group by 1", user)
        assert {row["status"]: row["calls"] for row in counts} == {"ok": 10, "blocked": 40}
    assert len(provider.requests) == 20
    check_sums(store)
    assert granted(rows) == 0


# Actions


def test_throttled_calls_pass_one_by_one_across_trackers(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Over the limit the pace is the budget's, whoever calls; the database hands out the slots."""
    interval_s = 0.2
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s=str(interval_s))
    trackers = [knows_its_budgets(make_tracker()) for _ in range(2)]
    times: list[float] = []
    waited: list[float] = []

    def call(number: int) -> None:
        one = trackers[number % 2].admit(user_id="u-1", max_wait=10, **CALL)
        times.append(time.monotonic())
        waited.append(one.waited)
        assert one.action == "throttle"
        one.record(**USAGE)

    (before,) = rows("select clock_timestamp() as now")
    begun = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(call, range(5)))
    (window,) = rows("select next_slot_at, clock_timestamp() as now from budget_windows")
    # Nobody passes before the slot that is theirs, and slots are an interval apart; a busy machine only makes it later.
    close = 0.02  # by which two clocks may read a wait differently
    assert all(at - begun >= place * interval_s - close for place, at in enumerate(sorted(times)))
    assert window["next_slot_at"] - before["now"] >= timedelta(seconds=5 * interval_s)
    # No slot was given away for nothing: the last one has come, and the next one is an interval after it.
    assert window["next_slot_at"] - window["now"] <= timedelta(seconds=interval_s)
    assert min(waited) == 0
    for tracker in trackers:
        tracker.flush()
    found = rows("select budget_action, throttled_ms from token_usage_logs")
    assert {row["budget_action"] for row in found} == {"throttle"}
    assert sorted((row["throttled_ms"] or 0) / 1000 for row in found) == pytest.approx(sorted(waited), abs=0.001)


async def test_a_wait_that_is_too_long_is_refused_with_when_to_try_again(
    store: PostgresStore, make_tracker: MakeTracker
) -> None:
    """The error says when to try again; no slot is lost by asking."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="30")
    tracker = make_tracker()
    tracker.admit(user_id="u-1", **CALL).record(**USAGE)
    for _ in range(3):
        with pytest.raises(BudgetThrottled) as caught:
            tracker.admit(user_id="u-1", max_wait=1, **CALL)
        assert caught.value.retry_after == pytest.approx(30, abs=2)
        with pytest.raises(BudgetThrottled):
            await tracker.aadmit(user_id="u-1", max_wait=1, **CALL)


async def test_waiting_calls_leave_the_event_loop_alone(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """Twenty-four calls wait for their slots at once; everything else in the process goes on meanwhile."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="0.05")
    tracker = knows_its_budgets(make_tracker(budget_deadline_s=30))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    gc.collect()
    ticking = asyncio.create_task(tick())
    calls = [tracker.aadmit(user_id="u-1", max_wait=30, **CALL) for _ in range(24)]
    begun = time.perf_counter()
    admitted = await asyncio.gather(*calls)
    took = time.perf_counter() - begun
    ticking.cancel()
    # From the first slot to the last; a call that was late to ask has waited for less of it.
    assert took > 23 * 0.05 * 0.9
    assert 0 < max(one.waited for one in admitted) <= took
    # Were the loop held up for each slot, it would come round once a call; five hundred rounds would fit in without.
    assert ticks > 100


def test_thirty_calls_at_one_slot_all_pass(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """Nobody starves, also where nobody's time suffices for the whole queue but the last ones'."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="0.03")
    trackers = [knows_its_budgets(make_tracker(budget_deadline_s=30)) for _ in range(2)]
    with ThreadPoolExecutor(30) as pool:
        calls = [pool.submit(trackers[n % 2].admit, user_id="u-1", max_wait=20, **CALL) for n in range(30)]
        waits = sorted(call.result().waited for call in calls)
    assert waits[0] < 0.1
    assert waits[-1] == pytest.approx(29 * 0.03, abs=0.3)


async def test_a_call_cancelled_while_it_waits_gives_back_what_it_held(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Both while it waits for its slot and while it waits for the database."""
    set_budget(store, total_limit="100")
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="20")
    tracker = make_tracker()
    (await tracker.aadmit(user_id="u-1", **CALL)).release()
    waiting = [asyncio.create_task(tracker.aadmit(user_id="u-1", max_wait=300, **CALL)) for _ in range(5)]
    slots = "select 1 from budget_windows where next_slot_at > clock_timestamp() + interval '90 seconds'"
    while not rows(slots):
        await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {asyncio.CancelledError}
    at_once = asyncio.create_task(tracker.aadmit(user_id="u-1", max_wait=300, **CALL))
    await asyncio.sleep(0)
    at_once.cancel()
    with pytest.raises(asyncio.CancelledError):
        await at_once
    tracker.close()
    assert granted(rows) == 0
    check_sums(store)


async def test_turns_of_calls_that_wait_no_more_are_for_the_others(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Twelve that gave up would hold up everybody after them for twelve turns."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="20")
    tracker, other = knows_its_budgets(make_tracker()), knows_its_budgets(make_tracker())
    tracker.admit(user_id="u-1", **CALL).record(**USAGE)

    def turns() -> int:
        [window] = rows(
            "select round(extract(epoch from next_slot_at - clock_timestamp()) / 20) as next, free_slots from budget_windows"
        )
        return int(window["next"]) - len(window["free_slots"])

    waiting = [asyncio.create_task(tracker.aadmit(user_id="u-1", max_wait=300, **CALL)) for _ in range(12)]
    while turns() < 13:
        await asyncio.sleep(0.01)
    for task in waiting[:4] + waiting[6:]:
        task.cancel()
    await asyncio.wait(waiting[:4] + waiting[6:])
    while turns() != 3:
        await asyncio.sleep(0.01)
    # Two still wait, each for the turn that it was given: the next one takes the first of those that came back.
    with pytest.raises(BudgetThrottled) as caught:
        other.admit(user_id="u-1", max_wait=0.1, **CALL)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after < 21
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    while turns() != 1:
        await asyncio.sleep(0.01)
    assert rows("select free_slots from budget_windows") == [{"free_slots": []}]
    assert (tracker.stats().faults, other.stats().faults) == (0, 0)


async def test_a_call_may_be_told_to_wait_for_ever(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """max_wait=inf is what somebody writes who would wait for ever."""
    set_budget(store, action="throttle", entity_id="quick", total_limit="0", throttle_interval_s="0.01")
    set_budget(store, action="throttle", entity_id="slow", total_limit="0", throttle_interval_s="60")
    tracker = make_tracker()
    for patience in (float("inf"), 1e300, 1):
        tracker.admit(user_id="quick", max_wait=patience, **CALL).release()
        (await tracker.aadmit(user_id="quick", max_wait=patience, **CALL)).release()
    tracker.admit(user_id="slow", **CALL).release()
    for patience in (float("nan"), -1.0):
        with pytest.raises(BudgetThrottled):
            tracker.admit(user_id="slow", max_wait=patience, **CALL)
    assert (tracker.stats().unchecked, tracker.stats().faults) == (0, 0)


@pytest.mark.parametrize("downgrade_to", ["gpt-4o-mini", None])
def test_over_the_limit_only_cheaper_models_pass(
    downgrade_to: str | None, store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Those that are no dearer than the one that the budget names; where it names none, those that the code offers."""
    set_budget(store, action="downgrade", total_limit="1", downgrade_to=downgrade_to)
    tracker = make_tracker()
    call = {**CALL, "user_id": "u-1"}
    tracker.admit(**{**call, "model": "gpt-4o"}).record(**USAGE)
    with pytest.raises(BudgetExceeded) as caught:
        tracker.admit(**{**call, "model": "gpt-4o"})
    assert (caught.value.action, caught.value.stop.downgrade_to) == ("downgrade", downgrade_to)
    for model, passes in (("gpt-4o-mini", downgrade_to), ("gpt-4.1-nano", downgrade_to), ("gpt-4-turbo", None)):
        try:
            tracker.admit(**{**call, "model": model}).release()
            assert passes
        except BudgetExceeded:
            assert not passes
    for _ in range(3):
        with tracker.admit(**{**call, "model": "gpt-4o"}, downgrade_to="gpt-4o-mini") as admitted:
            assert (admitted.model, admitted.action) == ("gpt-4o-mini", "downgrade")
            admitted.record(**USAGE)
    tracker.close()
    stored = rows("select model, requested_model, budget_action from token_usage_logs where status = 'ok' order by id")
    assert [tuple(row.values()) for row in stored] == [("gpt-4o", None, None)] + [
        ("gpt-4o-mini", "gpt-4o", "downgrade")
    ] * 3
    check_sums(store)
    assert granted(rows) == 0


def test_a_budget_that_is_not_enforced_only_notes_what_it_would_do(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """What it would have done stands in the row, so that an admin can try a budget before it binds."""
    for action in ("block", "throttle"):
        set_budget(store, entity_type="user", entity_id=action, action=action, total_limit="2", enforce=False)
    tracker = make_tracker()
    for user in ("block", "throttle"):
        assert admit_all(tracker, 6, user_id=user) == 6
        tracker.flush()
        notes = rows("select budget_action as action from token_usage_logs where user_id = %s order by id", user)
        assert [row["action"] for row in notes] == [None, None] + [f"shadow_{user}"] * 4
    tracker.close()
    assert granted(rows) == 0
    assert store.call("audit_budgets_v1")["differences"] == []


def test_a_budget_that_is_not_enforced_costs_few_round_trips(store: PostgresStore, watched: Watched) -> None:
    """A budget that stops nothing must not cost a round trip a call once it is over."""
    set_budget(store, total_limit="1", enforce=False)
    tracker, watch = watched()
    assert admit_all(tracker, 200) == 200
    assert len(watch.grant_requests) < 20


def test_a_budget_that_only_alerts_costs_nothing(store: PostgresStore, watched: Watched, rows: Rows) -> None:
    """No round trip, no hold, not even a look."""
    set_budget(store, action="alert", total_limit="2")
    tracker, watch = watched()
    knows_its_budgets(tracker)
    assert not tracker._controller.active
    assert admit_all(tracker, 10) == 10
    assert watch.grant_requests == []
    assert tracker.close().complete
    assert rows("select spent, granted from budget_windows") == [{"spent": 10, "granted": 0}]
    assert [row["threshold"] for row in rows("select threshold from cost_alerts order by 1")] == [
        Decimal("0.5"),
        Decimal("0.8"),
        1,
    ]


def test_of_two_budgets_the_lower_throttles_before_the_higher_blocks(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Four calls at full speed, the fifth slowly, and no sixth."""
    set_budget(store, action="throttle", daily_limit="4", throttle_interval_s="0.3")
    set_budget(store, action="block", daily_limit="6")
    tracker = make_tracker()
    actions = []
    for _ in range(6):
        call = tracker.admit(user_id="u-1", max_wait=5, **CALL)
        actions.append(call.action)
        call.record(**USAGE)
    assert actions == [None] * 4 + ["throttle"] * 2
    with pytest.raises(BudgetExceeded) as caught:
        tracker.admit(user_id="u-1", max_wait=5, **CALL)
    assert caught.value.action == "block"
    tracker.close()
    check_sums(store)
    assert granted(rows) == 0


async def test_code_that_is_written_once_is_admitted_by_either_way_of_waiting(
    store: PostgresStore, make_tracker: MakeTracker
) -> None:
    """It waits for its slots as `admit` and `aadmit` do, and hears of a refusal where it asked."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="0.1")
    set_budget(store, entity_id="u-2", total_limit="0")
    tracker = knows_its_budgets(make_tracker())

    def two_calls() -> Waits[tuple[Admission, Admission]]:
        first = yield from tracker._controller.admitting(request_for(), max_wait=30)
        second = yield from tracker._controller.admitting(request_for(), max_wait=30)
        with pytest.raises(BudgetExceeded):
            yield from tracker._controller.admitting(request_for("u-2"), max_wait=30)
        return first, second

    for admitted in (run(two_calls()), await run_async(two_calls())):
        assert [one.action for one in admitted] == ["throttle"] * 2
        assert admitted[1].throttled_ms
    assert tracker.stats().faults == 0


# Estimates


def test_a_strict_budget_wants_the_answer_limited(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """Without a limit nobody can say what a call will cost; the error says what to do."""
    set_budget(store, metric="tokens", daily_limit="100000", strict=True)
    tracker = make_tracker()
    context = CallContext(user_id="u-1")
    with pytest.raises(BudgetExceeded, match="max_tokens") as caught:
        tracker._controller.admit(Request(context, "openai", "gpt-4o-mini", 100))
    assert caught.value.entity_id == "u-1"
    assert tracker._controller.admit(Request(context, "openai", "gpt-4o-mini", 100, max_tokens=5)).hold is not None
    assert tracker._controller.admit(Request(context, "openai", "gpt-4o-mini", 100), clamp=True).max_tokens == 4096


def test_a_strict_budget_holds_a_token_for_every_byte(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """Tools that go with the prompt are billed as well."""
    set_budget(store, metric="tokens", daily_limit="100000", strict=True)
    tracker = make_tracker()
    request = Request(CallContext(user_id="u-1"), "openai", "gpt-4o-mini", 1000, max_tokens=50, answers=3)
    hold = tracker._controller.admit(request).hold
    assert hold is not None
    assert hold.amounts.tokens == 1000 + 8 + 3 * 50  # eight for what frames a message
    request = request._replace(schema_bytes=120)
    hold = tracker._controller.admit(request).hold
    assert hold is not None
    assert hold.amounts.tokens == 1000 + 120 + 8 + 3 * 50


@pytest.mark.parametrize("metric", ["tokens", "cost_usd"])
def test_an_answer_is_cut_to_what_is_left(
    metric: str, store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Money for half an answer buys half an answer, not a refusal; below a handful of tokens it is one."""
    limit = "1000" if metric == "tokens" else str(dollars((1000, "0.15")))
    set_budget(store, metric=metric, daily_limit=limit, strict=True)
    tracker = make_tracker(prices=[Price("m", input="0.15", output="0.15")])
    request = {"user_id": "u-1", "model": "m", "prompt_tokens": 100}
    first = tracker.admit(**request, max_tokens=600)
    assert first.max_tokens == 600
    second = tracker.admit(**request, max_tokens=600)
    assert second.max_tokens == 200  # 1000 - 700 - 100
    with pytest.raises(BudgetExceeded):
        tracker.admit(**request, max_tokens=600)
    first.record(prompt_tokens=100, completion_tokens=10)
    second.record(prompt_tokens=100, completion_tokens=200)
    assert tracker.admit(**request, max_tokens=600).max_tokens == 490  # 1000 - 110 - 300 - 100
    tracker.flush()
    check_sums(store)


def test_a_model_without_a_price_counts_at_the_ceiling(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Before the call and after it; else it would be free to budgets."""
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = make_tracker(ceiling_price="1000/2000")
    call = tracker.admit(user_id="u-1", provider="own", model="unheard-of", prompt_tokens=300, max_tokens=100)
    with pytest.raises(BudgetExceeded):
        tracker.admit(user_id="u-1", provider="own", model="unheard-of", prompt_tokens=501, max_tokens=0)
    call.record(prompt_tokens=300, completion_tokens=50)
    tracker.close()
    assert rows("select spent, granted from budget_windows") == [{"spent": Decimal("0.4"), "granted": 0}]
    assert rows("select total_cost, priced from token_usage_logs where status = 'ok'") == [
        {"total_cost": None, "priced": False}
    ]
    check_sums(store)


def test_the_teams_price_counts_from_the_first_hold_on(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """From the first call on, though prices are otherwise read with the first batch."""
    rows(
        "insert into model_prices (model, input_usd_per_mtok, output_usd_per_mtok, valid_from)"
        " values ('ours', 1000, 1000, '2020-01-01') returning 1"
    )
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = make_tracker()
    call = tracker.admit(user_id="u-1", model="ours", prompt_tokens=300, max_tokens=300)
    with pytest.raises(BudgetExceeded) as caught:
        tracker.admit(user_id="u-1", model="ours", prompt_tokens=300, max_tokens=300)
    assert caught.value.stop.needed == Decimal("0.6")
    call.record(prompt_tokens=300, completion_tokens=300)
    tracker.close()
    assert rows("select spent from budget_windows") == [{"spent": Decimal("0.6")}]


def test_estimates_learn_from_calls(store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer) -> None:
    """After a few calls a hold is near what calls cost, so that a budget can be used up."""
    set_budget(store, metric="tokens", daily_limit="1000000")
    tracker = make_tracker()
    provider.reply(Reply(input_tokens=30, output_tokens=20))
    model = provider.chat_openai()
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    for _ in range(10):
        model.invoke("x" * 100, config)
        tracker.flush()
    request = Request(CallContext(user_id="u-1"), "openai", "gpt-4o-mini", 100)
    hold = tracker._controller.admit(request).hold
    assert hold is not None
    assert 50 <= hold.amounts.tokens < 100
    fresh = make_tracker()  # another process begins with what the database remembers
    hold = fresh._controller.admit(request).hold
    assert hold is not None
    assert 20 <= hold.amounts.tokens < 120


# Odd requests


def test_ids_that_are_no_plain_text_meet_their_budgets(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Metadata come from everywhere; an id must not slip past its budget for being a number, long, or broken."""
    set_budget(store, total_limit="2")
    tracker = make_tracker()
    for user in (42, "x" * 400, "nul\0", "lone \ud800", "", ["a", "list"]):
        assert admit_all(tracker, 4, user_id=user) == 2, user
    tracker.close()
    check_sums(store)
    assert granted(rows) == 0
    assert {row["spent"] for row in rows("select spent from budget_windows")} == {2}
    assert tracker.stats().faults == 0


def test_sizes_that_are_absurd_stop_nobody_else(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """A call of a trillion tokens is refused; its neighbours are not."""
    set_budget(store, metric="cost_usd", total_limit="1000")
    tracker = make_tracker()
    for tokens in (10**12, 10**15):
        with pytest.raises(BudgetExceeded):
            tracker._controller.admit(request_for(answers=tokens))
    assert admit_all(tracker, 3) == 3
    assert (tracker.stats().unchecked, tracker.stats().faults) == (0, 0)


def test_a_call_for_nothing_asks_nobody_twice(store: PostgresStore, watched: Watched) -> None:
    """A free model under a budget in dollars is admitted, also when the money is gone."""
    set_budget(store, metric="cost_usd", total_limit="0")
    tracker, watch = watched()
    tracker.prices.set_team_prices([])
    free = Price("free", input=0, output=0)
    tracker.prices._own = (free,)
    tracker.prices.set_team_prices([])
    for _ in range(10):
        tracker.admit(user_id="u-1", model="free", prompt_tokens=5, max_tokens=5).record(
            prompt_tokens=5, completion_tokens=5
        )
    with pytest.raises(BudgetExceeded):
        tracker.admit(user_id="u-1", **CALL)
    assert len(watch.grant_requests) <= 3


def test_without_budgets_admission_asks_nobody(watched: Watched) -> None:
    """Who sets no budgets must not pay for them."""
    tracker, watch = watched()
    knows_its_budgets(tracker)
    assert not tracker._controller.active
    assert tracker._controller.admit(request_for()) == Admission()
    assert watch.grant_requests == []


def test_budgets_that_are_switched_off_are_not_even_read(watched: Watched, store: PostgresStore) -> None:
    """VITAL_BUDGETS=off."""
    set_budget(store, total_limit="0")
    tracker, watch = watched(budgets=False)
    assert not tracker._controller.active
    assert admit_all(tracker, 3) == 3
    tracker.flush()
    assert not {"budgets_v1", "acquire_grants_v1", "renew_grants_v1"} & set(watch.called)
