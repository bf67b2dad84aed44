"""What was set aside for a call, on every ending that a call can have.

If one of these fails, money is held for a call that is over: nobody can spend it, and a budget shrinks with every such call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage

from tests.integration.budgets.helpers import check_sums, granted, set_budget
from tests.integration.helpers import Rows, collect
from tests.support.provider_server import ProviderServer, Reply
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning",
    # LangChain makes the starts of all prompts of agenerate() and awaits them until one raises.
    "ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning",
)

WORDS = "aaa bbb ccc ddd eee fff ggg hhh"


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


@dataclass
class Scene:
    """What an ending has to do with."""

    tracker: VitalTracker
    provider: ProviderServer
    store: PostgresStore
    rows: Rows

    @property
    def config(self) -> Any:
        return {"callbacks": [self.tracker.handler], "metadata": {"vital_user_id": "u-1"}}

    def stalling(self) -> Any:
        self.provider.reply(Reply(text=WORDS, stall_after_chunks=4))
        return self.provider.chat_openai()


class Refuses(BaseCallbackHandler):
    """A handler of the team's own that stops a call after ours has seen its start."""

    raise_error = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError


async def ends_well(scene: Scene) -> None:
    scene.provider.chat_openai().invoke("Hi", scene.config)


async def ends_well_in_a_loop(scene: Scene) -> None:
    await scene.provider.chat_openai().ainvoke("Hi", scene.config)


async def is_streamed_to_its_end(scene: Scene) -> None:
    async for _ in scene.provider.chat_openai().astream("Hi", scene.config):
        pass


async def is_refused_by_the_provider(scene: Scene) -> None:
    for status in (400, 429, 500):
        scene.provider.script([Reply(status=status)])
        with pytest.raises(Exception, match=str(status)):
            scene.provider.chat_openai(max_retries=0).invoke("Hi", scene.config)


async def is_cancelled(scene: Scene) -> None:
    scene.provider.reply(Reply(hang=True))
    task = asyncio.create_task(scene.provider.chat_openai().ainvoke("Hi", scene.config))
    await asyncio.to_thread(scene.provider.wait_for_stalls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)


async def is_an_async_stream_broken_off(scene: Scene) -> None:
    stream = scene.stalling().astream("Hi", scene.config)
    async for chunk in stream:
        if chunk.content:
            break
    await stream.aclose()


async def is_a_stream_broken_off(scene: Scene) -> None:
    stream = scene.stalling().stream("Hi", scene.config)
    next(chunk for chunk in stream if chunk.content)


async def is_a_v3_stream_broken_off(scene: Scene) -> None:
    stream = scene.stalling().stream_events("Hi", scene.config, version="v3")
    next(iter(stream.text))


async def comes_from_the_cache(scene: Scene) -> None:
    set_llm_cache(InMemoryCache())
    for _ in range(3):
        scene.provider.chat_openai().invoke("Hi", scene.config)
    assert len(scene.provider.requests) == 1


async def is_given_up_and_ends_late(scene: Scene) -> None:
    scene.provider.reply(Reply(hang=True, output_tokens=3000))
    call = asyncio.create_task(asyncio.to_thread(scene.provider.chat_openai().invoke, "Hi", scene.config))
    await asyncio.to_thread(scene.provider.wait_for_stalls, 1)
    scene.tracker.handler._calls.call_timeout_s = 0.0
    assert scene.tracker.flush().inserted == 1
    assert scene.rows("select status from token_usage_logs") == [{"status": "abandoned"}]
    scene.provider.release.set()
    await call


async def ends_while_it_is_given_up(scene: Scene) -> None:
    scene.provider.reply(Reply(hang=True))
    call = asyncio.create_task(asyncio.to_thread(scene.provider.chat_openai().invoke, "Hi", scene.config))
    await asyncio.to_thread(scene.provider.wait_for_stalls, 1)
    scene.tracker.handler._calls.call_timeout_s = 0.0
    scene.tracker.handler._calls.close_stale()
    scene.provider.release.set()
    await call


async def is_open_as_the_tracker_closes(scene: Scene) -> None:
    scene.provider.reply(Reply(hang=True))
    call = asyncio.create_task(asyncio.to_thread(scene.provider.chat_openai().invoke, "Hi", scene.config))
    await asyncio.to_thread(scene.provider.wait_for_stalls, 1)
    scene.tracker.close()
    scene.provider.release.set()
    await call


async def is_stopped_by_another_handler(scene: Scene) -> None:
    config = {**scene.config, "callbacks": [scene.tracker.handler, Refuses()]}
    with pytest.raises(PermissionError):
        scene.provider.chat_openai().invoke("Hi", config)
    with pytest.raises(PermissionError):
        await scene.provider.chat_openai().ainvoke("Hi", config)
    await asyncio.sleep(0)
    assert scene.provider.requests == []


async def is_one_of_three_and_the_second_is_stopped(scene: Scene) -> None:
    """generate() of three prompts starts three calls before it makes one; none may be made."""
    set_budget(scene.store, entity_id="u-3", total_limit="1")
    prompts: Any = [[HumanMessage("Hi")]] * 3
    options: Any = {"callbacks": [scene.tracker.handler], "metadata": {"vital_user_id": "u-3"}}
    with pytest.raises(BudgetExceeded):
        scene.provider.chat_openai().generate(prompts, **options)
    with pytest.raises(BudgetExceeded):
        await scene.provider.chat_openai().agenerate(prompts, **options)
    assert scene.provider.requests == []
    assert scene.provider.chat_openai().generate(prompts[:1], **options).generations
    scene.tracker.flush()
    statuses = [row["status"] for row in scene.rows("select status from token_usage_logs order by id")]
    # Of the async one's starts, which run at once, the third asks as well or not.
    assert statuses.count("ok") == 1
    assert set(statuses) == {"ok", "blocked"}
    assert 4 <= statuses.count("blocked") <= 6


async def finds_the_queue_full(scene: Scene) -> None:
    for _ in range(3):
        scene.provider.chat_openai().invoke("Hi", scene.config)
    call = scene.tracker.admit(user_id="u-1", model="gpt-4o-mini", max_tokens=5)
    call.record(prompt_tokens=5, completion_tokens=5)
    assert scene.tracker.stats().merged == 3


async def is_refused_by_the_database(scene: Scene) -> None:
    with psycopg.connect(scene.store.conninfo, autocommit=True) as owner:
        owner.execute("alter table token_usage_logs add constraint odd check (completion_tokens <> 999) not valid")
    for tokens in (20, 999, 20):
        scene.provider.reply(Reply(output_tokens=tokens))
        scene.provider.chat_openai().invoke("Hi", scene.config)
    scene.tracker.flush()
    with psycopg.connect(scene.store.conninfo, autocommit=True) as owner:
        owner.execute("alter table token_usage_logs drop constraint odd")
    assert scene.tracker.stats().rejected == 1
    assert len(scene.rows("select 1 from token_usage_logs")) == 2


async def cannot_be_priced(scene: Scene) -> None:
    scene.provider.reply(Reply(model="unheard-of", output_tokens=50))
    scene.provider.chat_openai(model="unheard-of").invoke("Hi", scene.config)


async def reports_no_usage(scene: Scene) -> None:
    scene.provider.reply(Reply(omit_usage=True))
    scene.provider.chat_openai().invoke("Hi", scene.config)


async def costs_more_than_was_held(scene: Scene) -> None:
    scene.provider.reply(Reply(input_tokens=500_000, output_tokens=400_000))
    scene.provider.chat_openai(max_tokens=5).invoke("Hi", scene.config)


ENDINGS: list[Callable[[Scene], Awaitable[None]]] = [
    ends_well,
    ends_well_in_a_loop,
    is_streamed_to_its_end,
    is_refused_by_the_provider,
    is_cancelled,
    is_an_async_stream_broken_off,
    is_a_stream_broken_off,
    is_a_v3_stream_broken_off,
    comes_from_the_cache,
    is_given_up_and_ends_late,
    ends_while_it_is_given_up,
    is_open_as_the_tracker_closes,
    is_stopped_by_another_handler,
    is_one_of_three_and_the_second_is_stopped,
    finds_the_queue_full,
    is_refused_by_the_database,
    cannot_be_priced,
    reports_no_usage,
    costs_more_than_was_held,
]


@pytest.fixture
def _no_cache() -> Iterator[None]:
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_no_cache")
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_nothing_is_held_for_a_call_that(
    ending: Callable[[Scene], Awaitable[None]],
    make_tracker: Callable[..., VitalTracker],
    provider: ProviderServer,
    store: PostgresStore,
    rows: Rows,
) -> None:
    """Once its row is stored, nothing is granted for it, and what is spent is the sum of the rows."""
    for metric, limit in (("cost_usd", "1000"), ("tokens", "100000000"), ("calls", "100000")):
        set_budget(store, metric=metric, daily_limit=limit, monthly_limit=limit)
    full = {"spool": False, "queue_bytes": 1} if ending is finds_the_queue_full else {}
    tracker = make_tracker(**full)
    await ending(Scene(tracker, provider, store, rows))
    collect()
    if not tracker.closed:
        assert tracker.flush().complete
    assert tracker.stats().in_flight == 0
    ledger = tracker._controller.ledger
    ledger.return_unused(idle=False)
    # All that is left of the grants is free, and nothing was drawn that had not been granted.
    assert {window.granted - window.free for window in ledger._windows.values()} <= {0}
    tracker.close()
    assert granted(rows) == 0
    assert rows("select 1 from budget_grants where amount > 0") == []
    check_sums(store)
    assert tracker.stats().faults == 0
    assert tracker.stats().unchecked == 0
    sums = rows(
        "select coalesce(sum(coalesce(total_cost, ceiling_cost)), 0) as cost_usd,"
        " coalesce(sum(total_tokens) filter (where not cache_hit), 0) as tokens,"
        " coalesce(sum(calls) filter (where not cache_hit and status <> 'blocked'), 0) as calls"
        " from token_usage_logs where user_id = 'u-1'"
    )[0]
    for window in rows(
        "select metric, spent from budget_windows as w join budget_limits as b on b.id = w.budget_id"
        " where w.entity_id = 'u-1'"
    ):
        assert window["spent"] == sums[window["metric"]], window
