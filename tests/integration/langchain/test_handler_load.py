"""One handler for everybody: hundreds of calls at once stay apart, and a hundred thousand leave nothing behind.

If one of these fails, one user pays for another, or a server that runs for weeks runs out of memory.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from tests.integration.helpers import Rows, dollars
from tests.support.provider_server import ProviderServer, Reply, Request
from tests.support.stores import DiscardingStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls import attribution, in_flight, wire

AT_ONCE = 200
NUMBERS = range(1, AT_ONCE + 1)


def number_of(request: Request) -> int:
    return int(request.body["messages"][0]["content"])


def check_nothing_is_mixed_up(tracker: VitalTracker, rows: Rows) -> None:
    assert tracker.flush(60).complete
    stats = tracker.stats()
    assert (stats.faults, stats.rejected, stats.dropped, stats.in_flight) == (0, 0, 0, 0)
    found = rows()
    assert len(found) == AT_ONCE
    assert len({row["run_id"] for row in found}) == AT_ONCE
    for row in found:
        number = row["prompt_tokens"] - 1000
        assert row["user_id"] == f"u-{number}"
        assert row["session_id"] == row["service_id"] == f"s-{number}"
        assert row["tags"] == [f"t-{number}"]
        assert row["completion_tokens"] == number
        assert row["total_cost"] == dollars((1000 + number, "0.15"), (number, "0.60"))
        assert row["metadata"]["number"] == number
    everybody = sum(NUMBERS)
    assert sum(row["total_cost"] for row in found) == dollars((1000 * AT_ONCE + everybody, "0.15"), (everybody, "0.60"))
    runs = rows("select * from service_runs")
    assert {run["id"]: run["user_id"] for run in runs} == {row["service_run_id"]: row["user_id"] for row in found}


@pytest.mark.parametrize("streaming", [False, True])
def test_two_hundred_threads_at_once_keep_their_calls_apart(
    streaming: bool, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """All of them in flight together, each with its own user, session and tokens."""
    provider.respond_with(
        lambda request: Reply(
            input_tokens=1000 + number_of(request), output_tokens=number_of(request), hang=True, text="a b c"
        )
    )
    model = provider.chat_openai(streaming=streaming)

    def serve(number: int) -> None:
        with tracker.conversation(user_id=f"u-{number}", session_id=f"s-{number}", metadata={"number": number}):
            model.invoke(str(number), {"callbacks": [tracker.handler], "tags": [f"t-{number}"]})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = [pool.submit(serve, number) for number in NUMBERS]
        provider.wait_for_stalls(AT_ONCE, timeout=60)
        assert tracker.stats().in_flight == AT_ONCE
        provider.release.set()
        for future in done:
            future.result()
    check_nothing_is_mixed_up(tracker, rows)


@pytest.mark.parametrize("streaming", [False, True])
async def test_two_hundred_tasks_at_once_keep_their_calls_apart(
    streaming: bool, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The same in one event loop, where the tasks take turns in the middle of everything."""
    provider.respond_with(
        lambda request: Reply(
            input_tokens=1000 + number_of(request), output_tokens=number_of(request), hang=True, text="a b c"
        )
    )
    model = provider.chat_openai(streaming=streaming)

    async def serve(number: int) -> None:
        async with tracker.conversation(user_id=f"u-{number}", session_id=f"s-{number}", metadata={"number": number}):
            await model.ainvoke(str(number), {"callbacks": [tracker.handler], "tags": [f"t-{number}"]})

    tasks = [asyncio.create_task(serve(number)) for number in NUMBERS]
    await asyncio.to_thread(provider.wait_for_stalls, AT_ONCE, 60)
    assert tracker.stats().in_flight == AT_ONCE
    provider.release.set()
    await asyncio.gather(*tasks)
    check_nothing_is_mixed_up(tracker, rows)


ANSWER = LLMResult(
    generations=[
        [
            ChatGeneration(
                message=AIMessage(
                    "done",
                    usage_metadata={"input_tokens": 70, "output_tokens": 7, "total_tokens": 77},
                    response_metadata={"model_name": "gpt-4o-mini"},
                )
            )
        ]
    ]
)
QUESTION = [[HumanMessage("How much?")]]


def ten_calls(handler: Any, number: int) -> None:
    """Ten calls through LangChain's own managers: seven end well, one fails, one is forgotten, one outlives its parent."""
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "vital_user_id": f"u-{number}"}
    manager = CallbackManager.configure([handler], inheritable_metadata=metadata, inheritable_tags=[f"t-{number}"])
    chain = manager.on_chain_start({}, {})
    inner = chain.get_child()
    tool = inner.on_tool_start({"name": "tool"}, "x")
    for place in range(10):
        (call,) = (tool.get_child() if place == 0 else inner).on_chat_model_start({}, QUESTION)
        if place == 7:
            call.on_llm_error(ValueError("no"))
        elif place == 8:
            del call
        elif place == 9:
            chain.on_chain_end({})
            call.on_llm_end(ANSWER)
        else:
            if place % 2:
                call.on_llm_new_token("word")
            call.on_llm_end(ANSWER)
    tool.on_tool_end("y")


def test_many_thousand_calls_leave_memory_where_it_was() -> None:
    """Not a block a thousand calls may stay behind: a map that never shrinks ends a server after some weeks."""
    store = DiscardingStore()
    tracker = VitalTracker(store, settings=Settings(flush_interval_s=60))  # type: ignore[arg-type]
    handler = tracker.handler

    def serve(first: int, last: int) -> None:
        for number in range(first, last):
            ten_calls(handler, number)
            if number % 500 == 499:
                assert tracker.flush(30).complete

    straight = tracker._recorder._writer._exporter._straight  # type: ignore[attr-defined]

    def blocks() -> int:
        """What is allocated but for what is kept to be found again, up to a limit."""
        for kept in (attribution._outside, wire._written, wire._read, straight._scopes):
            assert len(kept) <= 1000  # type: ignore[arg-type]
            kept.clear()  # type: ignore[attr-defined]
        gc.collect()
        return sys.getallocatedblocks()

    serve(0, 1_500)  # other caches fill up to their limits
    before = blocks()
    serve(1_500, 2_700)
    assert tracker.flush(30).complete
    grown = blocks() - before
    stats = tracker.stats()
    calls = handler._calls
    books = (calls.calls, calls.runs, calls._children, calls._echoes, calls._vanished)
    assert [len(book) for book in books] == [0] * 5
    assert len(calls._given_up) <= 1024  # those that may still end
    assert (stats.in_flight, stats.waiting, stats.faults, stats.dropped, stats.rejected) == (0, 0, 0, 0, 0)
    assert store.counts == {"ok": 21_600, "error": 2_700, "cancelled": 2_700}
    assert store.tokens == 21_600 * 77
    tracker.close()
    assert grown < 1_200, f"{grown} blocks more after 12,000 calls"


def test_calls_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch, rows: Rows, tracker: VitalTracker) -> None:
    """Calls that never end, by the thousand: the oldest are closed, and recorded, before memory is full."""
    monkeypatch.setattr(in_flight, "_MAX_OPEN", 50)
    held = [uuid.uuid4() for _ in range(80)]
    for run_id in held:
        tracker.handler.on_chat_model_start({}, QUESTION, run_id=run_id, metadata={"ls_provider": "openai"})
        tracker.handler.on_chain_start({}, {}, run_id=run_id)
    assert tracker.flush().inserted == 30
    assert tracker.stats().in_flight == 50
    assert len(tracker.handler._calls.runs) == 50
    assert {row["status"] for row in rows()} == {"abandoned"}
    assert [row["run_id"] for row in rows()] == [str(run_id) for run_id in held[:30]]
    tracker.handler.reset_after_fork()


def test_closing_stale_calls_disturbs_none_that_start_and_end(tracker: VitalTracker, rows: Rows) -> None:
    """The batch processor looks for stale calls while others start and end theirs."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            try:
                tracker.handler._calls.close_stale()
            except BaseException as error:
                failures.append(error)

    def serve(number: int) -> None:
        for turn in range(10):
            ten_calls(tracker.handler, 10 * number + turn)

    watcher = threading.Thread(target=look)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(10)))
    stop.set()
    watcher.join()
    gc.collect()
    assert tracker.flush().complete
    assert failures == []
    counts = rows("select status, count(*) as calls from token_usage_logs group by status order by status")
    assert {row["status"]: row["calls"] for row in counts} == {"cancelled": 100, "error": 100, "ok": 800}
    assert tracker.stats().faults == 0


def test_closed_trackers_are_forgotten(make_tracker: Callable[..., VitalTracker], provider: ProviderServer) -> None:
    """A tracker that is closed is forgotten: its handler records no more, and says so."""
    tracker = make_tracker()
    handler = tracker.handler
    provider.chat_openai().invoke("Hi", {"callbacks": [handler]})
    assert tracker.close().inserted == 1
    assert provider.chat_openai().invoke("Hi", {"callbacks": [handler]}).text == "Hello there."
    assert tracker.stats().dropped == 1
