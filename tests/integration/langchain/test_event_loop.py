"""In an event loop nothing of ours blocks: neither files, nor locks, nor the wait for what the budgets' database answers.

LangChain's own suites run under blockbuster, which raises where something blocks a running loop. If one of these fails, every
other task of an application stands still meanwhile, or, under blockbuster, a call passes unchecked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake import FakeListLLM

from tests.integration.budgets.helpers import set_budget
from tests.integration.helpers import Rows
from tests.support.waiting import until
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.testing import fake_chat_model


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


@pytest.fixture
def model() -> Any:
    """A model that is imported and made: that reads files, as every import does."""
    return fake_chat_model()


Make = Callable[..., VitalTracker]


@contextmanager
def watched(make_tracker: Make) -> Iterator[VitalTracker]:
    """A tracker as an application sets it up; from then on what blocks a running loop in code of ours raises."""
    tracker = make_tracker()
    assert tracker.handler.in_flight == 0
    with blockbuster_ctx("vital_tracking"):
        yield tracker


def config(tracker: VitalTracker, user: str = "u-1") -> Any:
    return {"callbacks": [tracker.handler], "metadata": {"vital_user_id": user}}


def statuses(tracker: VitalTracker, rows: Rows) -> list[str]:
    tracker.flush()
    stats = tracker.stats()
    assert (stats.faults, stats.unchecked) == (0, 0), stats
    return [row["status"] for row in rows("select status from token_usage_logs order by id")]


async def test_calls_without_budgets(make_tracker: Make, rows: Rows, model: Any) -> None:
    with watched(make_tracker) as tracker:
        for _ in range(3):
            await model.ainvoke("q", config(tracker))
        assert [chunk async for chunk in model.astream("q", config(tracker))]
    assert statuses(tracker, rows) == ["ok"] * 4


async def test_calls_of_the_handler_alone_are_checked(
    make_tracker: Make, store: PostgresStore, rows: Rows, model: Any
) -> None:
    """Each user's first call needs a grant that is not there yet, and near the limit each call asks."""
    set_budget(store, entity_id="*", total_limit="2")
    with watched(make_tracker) as tracker:
        for user in ("u-1", "u-2", "u-3", "u-1"):
            await model.ainvoke("q", config(tracker, user))
        for _ in range(2):
            with pytest.raises(BudgetExceeded):
                await model.ainvoke("q", config(tracker, "u-1"))
    assert statuses(tracker, rows) == ["ok"] * 4 + ["blocked"] * 2


async def test_completions_of_the_handler_alone_are_checked(
    make_tracker: Make, store: PostgresStore, rows: Rows
) -> None:
    set_budget(store, entity_id="*", total_limit="1")
    completion = FakeListLLM(responses=["Hi"])
    with watched(make_tracker) as tracker:
        await completion.ainvoke("q", config(tracker))
        with pytest.raises(BudgetExceeded):
            await completion.ainvoke("q", config(tracker))
    assert statuses(tracker, rows) == ["ok", "blocked"]


async def test_a_scope_a_guard_and_embeddings(make_tracker: Make, store: PostgresStore, rows: Rows, model: Any) -> None:
    set_budget(store, entity_id="*", total_limit="100")
    with watched(make_tracker) as tracker:
        guarded = tracker.guard(model)
        embeddings = tracker.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="m")
        with tracker.conversation(user_id="u-1") as turn:
            await guarded.ainvoke("q")
            await model.ainvoke("q", turn.config())
            await embeddings.aembed_query("q")
        async with tracker.workflow("w", user_id="u-2"):
            await asyncio.gather(*(model.ainvoke("q") for _ in range(20)))
    assert statuses(tracker, rows) == ["ok"] * 23
    assert [run["status"] for run in rows("select status from service_runs")] == ["ok", "ok"]


async def test_the_spools_next_file_is_not_opened_in_the_loop(make_tracker: Make, model: Any, rows: Rows) -> None:
    """Segments so small that a few calls fill one."""
    with watched(make_tracker) as tracker:
        spool = tracker._recorder.spool
        assert spool is not None
        spool.writer._segment_bytes = 4096
        for _ in range(30):
            await model.ainvoke("q", config(tracker))
        await asyncio.to_thread(until, lambda: spool.writer.last > 1)
    assert statuses(tracker, rows) == ["ok"] * 30


class LooksIntoSpool(FakeUsageModel):
    """Asked, it notes how many calls have begun in the spool."""

    tracker: Any
    begun: list[int]

    async def _agenerate(self, *arguments: Any, **named: Any) -> Any:
        self.begun.append(len(self.tracker._recorder.spool.writer.begun))
        return await super()._agenerate(*arguments, **named)


async def test_the_first_call_is_in_the_spool_before_its_model_is_asked(make_tracker: Make, rows: Rows) -> None:
    """The spool has no file yet, and none is made in a loop: if this failed, the first call of a killed process would be lost."""
    with watched(partial(make_tracker, budgets=False)) as tracker:
        asked = LooksIntoSpool(responses=["Well."], input_tokens=10, output_tokens=1, tracker=tracker, begun=[])
        for _ in range(2):
            await asked.ainvoke("q", config(tracker))
    assert asked.begun == [1, 1]
    assert statuses(tracker, rows) == ["ok"] * 2


Held = Callable[[VitalTracker], tuple[threading.Event, threading.Event]]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Holds up what a tracker's database answers to calls that ask: set when one has asked, and to let the answer go."""

    def hold_up(tracker: VitalTracker) -> tuple[threading.Event, threading.Event]:
        asked, answer = threading.Event(), threading.Event()
        call_function = tracker.store.call

        def slow(function: str, /, **arguments: Any) -> Any:
            if function == "acquire_grants_v1":
                asked.set()
                answer.wait(30)
            return call_function(function, **arguments)

        monkeypatch.setattr(tracker.store, "call", slow)
        return asked, answer

    return hold_up


async def started(asked: threading.Event, call: asyncio.Task[Any]) -> None:
    """Return when a call has asked, for which the loop must not stand still."""
    while not (asked.is_set() or call.done()):
        await asyncio.sleep(0)
    assert not call.done(), "the loop stood still until the call had its answer"


async def test_the_loop_goes_on_while_a_call_waits_for_the_database(
    make_tracker: Make, store: PostgresStore, rows: Rows, model: Any, held: Held
) -> None:
    set_budget(store, entity_id="*", total_limit="5")
    tracker = make_tracker(budget_deadline_s=60)
    asked, answer = held(tracker)
    call = asyncio.create_task(model.ainvoke("q", config(tracker)))
    await started(asked, call)
    answer.set()
    await call
    assert statuses(tracker, rows) == ["ok"]


@pytest.mark.parametrize("goes_on", [False, True], ids=["task ends", "task goes on"])
@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_a_call_that_is_cancelled_while_it_waits_was_never_made(
    kind: str, goes_on: bool, make_tracker: Make, store: PostgresStore, rows: Rows, model: Any, held: Held
) -> None:
    """The model was never asked: a row would say what its prompt cost, and the budget would count it."""
    set_budget(store, entity_id="*", total_limit="1")
    asking: Any = model if kind == "chat" else FakeListLLM(responses=["a"])
    tracker = make_tracker(budget_deadline_s=60)
    asked, answer = held(tracker)
    over = asyncio.Event()

    async def impatient() -> None:
        try:
            await asking.ainvoke("q", config(tracker))
        except asyncio.CancelledError:
            if not goes_on:
                raise
        await over.wait()

    call = asyncio.create_task(impatient())
    await started(asked, call)
    call.cancel()
    await asyncio.sleep(0)
    answer.set()
    controller = tracker._controller
    assert controller is not None
    await asyncio.to_thread(until, lambda: controller.ledger._released)
    assert tracker.handler.in_flight == 0
    # The limit is one call: it is there for the next, which asks the model.
    assert (await asking.ainvoke("q", config(tracker))) is not None
    over.set()
    await asyncio.gather(call, return_exceptions=True)
    assert statuses(tracker, rows) == ["ok"]
    assert not tracker.handler._begun_calls._calls


class LetsGoLate(ThreadPoolExecutor):
    """Its threads hold what they ran, and so a run's id, until they are told to let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self._ran: list[threading.Thread] = []

    def all_let_go(self) -> None:
        """Return when they have."""
        self.let_go.set()
        for thread in self._ran:
            thread.join()

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Run it in a thread of its own."""
        future: Future[Any] = Future()
        self._ran.append(threading.Thread(target=self._run, args=[future, partial(function, *arguments, **named)]))
        self._ran[-1].start()
        return future

    def _run(self, future: Future[Any], run: Callable[[], Any]) -> None:
        try:
            result = run()
        except BaseException as error:  # whatever it is, it is for the task that waits
            future.set_exception(error)
        else:
            future.set_result(result)
        self.let_go.wait(30)


@pytest.mark.parametrize("late", [False, True], ids=["thread lets go", "thread lets go late"])
@pytest.mark.parametrize("way", ["task ends", "task goes on", "request is taken back"])
async def test_a_chat_call_that_is_cancelled_as_its_wait_ends_was_never_made(
    way: str, late: bool, make_tracker: Make, store: PostgresStore, rows: Rows, model: Any, held: Held
) -> None:
    """The answer is there, and the task has not gone on yet: asyncio raises the cancellation in place of it."""
    set_budget(store, entity_id="*", total_limit="1")
    # No thread of delivery's looks at the calls in flight at that moment, and so keeps the run's id for an instant longer.
    tracker = make_tracker(budget_deadline_s=60, background=False)
    asked, answer = held(tracker)
    over = asyncio.Event()
    threads = LetsGoLate()
    if not late:
        threads.let_go.set()
    asyncio.get_running_loop().set_default_executor(threads)

    async def impatient() -> None:
        try:
            await model.ainvoke("q", config(tracker))
        except asyncio.CancelledError:
            if way == "task ends":
                raise
            if way == "request is taken back":
                call.uncancel()
        await over.wait()

    call = asyncio.create_task(impatient())
    await started(asked, call)
    waiter: Any = call._fut_waiter  # type: ignore[attr-defined]
    answer.set()
    while not waiter.done():
        await asyncio.sleep(0)
    assert call._fut_waiter is waiter  # type: ignore[attr-defined]
    call.cancel()
    await asyncio.sleep(0)
    over.set()
    await asyncio.gather(call, return_exceptions=True)
    threads.all_let_go()
    tracker.handler._calls.orphan_grace_s = 0.0
    assert statuses(tracker, rows) == []
    controller = tracker._controller
    assert controller is not None
    await asyncio.to_thread(until, lambda: controller.ledger._released)
    assert await model.ainvoke("q", config(tracker)) is not None
    assert statuses(tracker, rows) == ["ok"]


@pytest.mark.parametrize("limit", ["1", "1000"], ids=["in a thread", "in the loop"])
async def test_a_call_is_made_up_once_for_its_budgets(
    limit: str, make_tracker: Make, store: PostgresStore, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at its messages would be taken twice, in the loop of the application."""
    set_budget(store, entity_id="*", total_limit=limit)
    tracker = make_tracker()
    # The budgets are known from now on, and there is a grant for the one user, none for the other.
    await model.ainvoke("q", config(tracker, "u-1" if limit == "1000" else "u-2"))
    made: list[Any] = []
    begun = tracker.handler._begun

    def count(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return begun(*args, **kwargs)

    monkeypatch.setattr(tracker.handler, "_begun", count)
    await model.ainvoke("q", config(tracker))
    assert len(made) == 1


async def test_a_completion_does_not_end_with_the_task_of_its_start(
    make_tracker: Make, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangChain runs its start in a task of its own: a long completion would be recorded as given up, and then once more."""
    tracker = make_tracker()
    going, go_on = asyncio.Event(), asyncio.Event()

    async def answer(*_: Any, **__: Any) -> str:
        going.set()
        await go_on.wait()
        return "a"

    monkeypatch.setattr(FakeListLLM, "_acall", answer)
    call = asyncio.create_task(FakeListLLM(responses=["a"]).ainvoke("q", config(tracker)))
    await going.wait()
    [open_call] = tracker.handler._calls.calls.values()
    assert open_call.outlived() is None
    go_on.set()
    await call
    assert statuses(tracker, rows) == ["ok"]
