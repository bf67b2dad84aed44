"""What a scope has spent, known in this process: whoever pays for an answer wants to say at once what it has cost.

If one of these fails, an application shows its user another amount than his bill has.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from vital_tracking import Agent, Settings, Spent, VitalTracker
from vital_tracking.core.frames import ScopeFrame
from vital_tracking.delivery import tallies
from vital_tracking.testing import MemoryStore, fake_chat_model

# gpt-4o-mini: 100 x 0.15 + 20 x 0.60 dollars a million.
COST = Decimal("0.000027")
MODEL = fake_chat_model()


class Silent(MemoryStore):
    """A store that must not be asked."""

    def call(self, function: str, /, **arguments: object) -> Any:
        raise AssertionError(function)


@pytest.fixture(params=["memory", "spool"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VitalTracker]:
    """A tracker whose store must not be asked, with and without a spool."""
    store = Silent()
    if request.param == "spool":
        store.in_memory = False
    settings = Settings(flush_interval_s=60, spool_dir=tmp_path, background=False)
    tracker = VitalTracker(store, settings=settings)
    yield tracker
    tracker.close()


def rows_of(memory: MemoryStore, run_ids: set[str]) -> tuple[int, Decimal]:
    rows = [row for row in memory.calls if row["service_run_id"] in run_ids]
    return len(rows), sum((Decimal(row["total_cost"]) for row in rows if row["priced"]), Decimal(0))


def test_a_scope_knows_what_its_calls_have_cost_during_it_and_after_it(tracker: VitalTracker) -> None:
    with tracker.workflow("intake") as workflow:
        assert (workflow.calls, workflow.tokens, workflow.cost, workflow.unpriced) == (0, 0, 0, 0)
        MODEL.invoke("q")
        assert (workflow.calls, workflow.tokens, workflow.cost) == (1, 120, COST)
        list(MODEL.stream("q"))
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=100, completion_tokens=20)
        assert workflow.spent == Spent(3, 300, 60, 3 * COST)
    MODEL.invoke("q")
    MODEL.invoke("q", config=workflow.config())
    assert workflow.spent == Spent(4, 400, 80, 4 * COST)
    assert isinstance(workflow.cost, Decimal)


def test_each_scope_counts_what_is_inside_it(tracker: VitalTracker) -> None:
    with tracker.solution("care-plan") as solution:
        MODEL.invoke("q")
        with solution.workflow("intake") as workflow:
            MODEL.invoke("q")
        with tracker.panel("board", members=["cardio", "legal"]) as panel:
            for seat in panel.seats:
                MODEL.invoke("q", config=seat.config())
            with panel.seat("legal") as legal, tracker.conversation(session_id="s-1") as turn:
                MODEL.invoke("q")
    assert [scope.calls for scope in (solution, workflow, panel, *panel.seats, turn)] == [5, 1, 3, 1, 2, 1]
    assert (legal.cost, solution.cost) == (2 * COST, 5 * COST)


async def test_calls_of_tasks_and_threads_inside_a_scope_count(tracker: VitalTracker) -> None:
    embeddings = tracker.embeddings(
        DeterministicFakeEmbedding(size=4), provider="openai", model="text-embedding-3-small"
    )
    async with tracker.conversation(user_id="u-1") as turn:
        await asyncio.gather(*(MODEL.ainvoke("q") for _ in range(5)))
        await asyncio.to_thread(MODEL.invoke, "q")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda _: MODEL.invoke("q", config=turn.config()), range(20)))
        async for _ in MODEL.astream("q"):
            pass
        await embeddings.aembed_query("x" * 400)
    assert turn.calls == 28
    assert turn.cost == 27 * COST + 100 * Decimal("0.02") / 1_000_000
    assert turn.spent.estimated == 1


def test_calls_still_open_are_not_counted(tracker: VitalTracker) -> None:
    with tracker.conversation(user_id="u-1") as turn:
        stream = MODEL.stream("q")
        next(stream)
        assert turn.spent == Spent()
        list(stream)
        assert turn.calls == 1


def test_what_has_no_price_is_said_and_not_taken_for_nothing(tracker: VitalTracker) -> None:
    with tracker.conversation(user_id="u-1") as turn:
        MODEL.invoke("q")
        fake_chat_model(model="house-llm", provider="house").invoke("q")
    assert (turn.cost, turn.calls, turn.unpriced, turn.tokens) == (COST, 2, 1, 240)


def test_a_run_of_its_own_begins_at_nothing(tracker: VitalTracker) -> None:
    scope = tracker.conversation(user_id="u-1")
    for _ in range(2):
        with scope:
            MODEL.invoke("q")
            assert scope.calls == 1


# Against the rows


def test_it_is_what_the_rows_say_whenever_it_is_asked(quick: VitalTracker, memory: MemoryStore) -> None:
    """Whether a call still waits, is priced early, or is on its row: it counts once, at one price."""
    with quick.solution("care-plan") as solution:
        for turn in range(6):
            with quick.conversation(session_id="s-1") as conversation:
                fake_chat_model(input_tokens=100 + turn, cache_read_tokens=7).invoke("q")
            assert conversation.calls == 1
            if turn % 2:
                quick.flush()
            assert solution.calls == turn + 1
    quick.flush()
    ids = {row["service_run_id"] for row in memory.calls}
    assert (solution.calls, solution.cost) == rows_of(memory, ids)
    assert not solution.frame.tally.waiting.calls, "what is on its row waits no longer"


class WithPrices(MemoryStore):
    """A database with a price of the team's own."""

    def call(self, function: str, /, **arguments: object) -> Any:
        if function == "model_prices_v1":
            return [{"id": 1, "model": "gpt-4o-mini", "input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}]
        return super().call(function, **arguments)


def test_a_price_that_the_team_has_set_in_the_database_holds_from_its_row_on() -> None:
    """Before the database was asked only listed prices are known: the row decides."""
    store = WithPrices()
    tracker = VitalTracker(store, settings=Settings(background=False, flush_interval_s=60))
    with tracker.conversation(user_id="u-1") as turn:
        MODEL.invoke("q")
    assert turn.cost == COST
    tracker.flush()
    assert turn.cost == Decimal("0.00012") == Decimal(store.calls[0]["total_cost"])
    tracker.close()


def test_the_true_end_of_a_call_given_up_takes_its_place(quick: VitalTracker, memory: MemoryStore) -> None:
    """It would be counted twice."""
    for flushed in (False, True):
        memory.calls.clear()
        with quick.conversation(user_id="u-1") as turn:
            stream = MODEL.stream("q")
            next(stream)
            handler = quick.handler
            call = next(iter(handler._calls.calls.values()))
            handler._calls.orphan_grace_s = -1
            call.orphaned, call.status = 0.0, "abandoned"
            handler._calls.close_stale()
            assert (turn.calls, turn.spent.estimated) == (1, 1)
            if flushed:
                quick.flush()
            list(stream)
            assert turn.spent == Spent(1, 100, 20, COST)
        quick.flush()
        assert turn.spent == Spent(1, 100, 20, COST)
        assert rows_of(memory, {turn.run_id}) == (1, COST)


def test_two_trackers_count_their_own(quick: VitalTracker) -> None:
    """A call that both record is on two bills, and each scope is on one of them."""
    with VitalTracker(MemoryStore()) as other, quick.solution("care-plan") as outer:
        with other.workflow("intake") as inner:
            MODEL.invoke("q", config={"callbacks": [quick.handler, other.handler]})
            with quick.conversation(session_id="s-1") as innermost:
                MODEL.invoke("q", config={"callbacks": [quick.handler]})
        assert [scope.calls for scope in (outer, inner, innermost)] == [2, 1, 1]


# Bounds


def test_a_long_scope_keeps_sums_and_no_calls(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope with a million calls must not keep a million of them, whether the database answers or is away."""
    monkeypatch.setattr(tallies, "_MANY", 4)
    monkeypatch.setattr(tallies, "_MOST", 16)
    tracker = VitalTracker(memory, settings=Settings(background=False, flush_interval_s=60))
    with tracker.conversation(user_id="u-1") as turn:
        for _ in range(100):
            MODEL.invoke("q")
        assert len(turn.frame.tally.waiting.calls) <= 16
        assert (turn.calls, turn.cost) == (100, 100 * COST)
        tracker._recorder._pipeline.tallies.tick(troubled=True)
        assert not turn.frame.tally.waiting.calls
        tracker.flush()
        assert (turn.calls, turn.cost) == (100, 100 * COST)
    tracker.close()


def test_a_scope_that_was_asked_is_freed_at_once(tmp_path: Path) -> None:
    """A server opens millions of scopes, and must not wait for the garbage collector to let go of them."""
    store = Silent()
    store.in_memory = False
    tracker = VitalTracker(store, settings=Settings(flush_interval_s=60, spool_dir=tmp_path, background=False))
    gc.disable()
    try:
        with tracker.conversation(user_id="u-1") as turn:
            MODEL.invoke("q")
            assert turn.calls == 1
        waiting = weakref.ref(turn.frame.tally.waiting)
        del turn
        assert waiting() is None
    finally:
        gc.enable()
    tracker.close()


def test_threads_that_ask_and_call_at_once_lose_nothing(quick: VitalTracker) -> None:
    with quick.solution("care-plan") as solution:
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                assert solution.cost == solution.calls * COST or solution.calls >= 0
                quick.flush()

        asking = threading.Thread(target=ask)
        asking.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: MODEL.invoke("q", config=solution.config()), range(400)))
        done.set()
        asking.join()
    assert (solution.calls, solution.cost) == (400, 400 * COST)


def test_a_fault_of_ours_reaches_nobody(quick: VitalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(quick._recorder._tallies, "ended", fail)
    with quick.conversation(user_id="u-1", agent=Agent("cardio")):
        MODEL.invoke("q")
    assert quick.stats().faults == 1


def test_a_call_that_two_threads_would_add_is_added_once(quick: VitalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    tallies_ = quick._recorder._tallies
    real = tallies_._lock

    class Late:
        """A lock that another thread held last, which has added up what waited."""

        def __enter__(self) -> None:
            monkeypatch.setattr(tallies_, "_lock", real)
            with real:
                tallies_._add_up(waiting, 10)
            real.acquire()

        def __exit__(self, *_: object) -> None:
            real.release()

    with quick.workflow("intake") as workflow:
        MODEL.invoke("q", config=workflow.config())
        [frame] = [frame for frame in gc.get_objects() if isinstance(frame, ScopeFrame) and frame.tally.waiting.calls]
        waiting = frame.tally.waiting
        monkeypatch.setattr(tallies_, "_lock", Late())
        quick.flush()
    assert (workflow.calls, workflow.cost) == (1, COST)
