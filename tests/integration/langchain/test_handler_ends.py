"""Ends that do not come: however a call ends, cancelled, broken off, timed out or forgotten, it is one row with a cost.

If one of these fails, spend is lost, or a call is billed twice, or calls in flight pile up in memory.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.graph import START, MessagesState, StateGraph

from tests.integration.helpers import Rows, collect, dollars, only
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import VitalTracker

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

INPUT, OUTPUT = "0.15", "0.60"  # gpt-4o-mini, dollars per million tokens
QUESTION = "q" * 400  # a hundred tokens by the estimate
EIGHT_WORDS = Reply(text="aaa bbb ccc ddd eee fff ggg hhh", input_tokens=111, output_tokens=22)


def config(tracker: VitalTracker, **more: Any) -> dict[str, Any]:
    return {"callbacks": [tracker.handler], **more}


def collected(tracker: VitalTracker, rows: Rows) -> list[dict[str, Any]]:
    """All rows, once the garbage collector and the housekeeping of the batch processor have done their part."""
    collect()
    return stored(tracker, rows)


def is_partly_estimated(row: dict[str, Any], completion_tokens: int) -> bool:
    """Whether a call that was stopped costs what its prompt and the part of its answer that came are estimated at."""
    return (
        row["usage_estimated"] is True
        and (row["prompt_tokens"], row["completion_tokens"]) == (100, completion_tokens)
        and row["total_cost"] == dollars((100, INPUT), (completion_tokens, OUTPUT))
    )


async def stalls(provider: ProviderServer, count: int = 1) -> None:
    await asyncio.to_thread(provider.wait_for_stalls, count)


# Nothing fires for the model


async def test_a_cancelled_ainvoke_is_billed(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """LangChain fires nothing: the provider bills the prompt, and nobody would know."""
    provider.reply(Reply(hang=True))
    task = asyncio.create_task(provider.chat_openai().ainvoke(QUESTION, config(tracker)))
    await stalls(provider)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)  # until then the event loop holds the task that woke this one, and with it the call
    row = only(collected(tracker, rows))
    assert (row["status"], row["success"], row["error_type"]) == ("cancelled", False, None)
    assert is_partly_estimated(row, 0)


async def test_an_ainvoke_that_times_out_is_billed(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """asyncio's time limit is a cancellation inside: the same silence."""
    provider.reply(Reply(hang=True))

    async def expire(limit: asyncio.Timeout) -> None:
        await stalls(provider)
        limit.reschedule(asyncio.get_running_loop().time())

    async def ask() -> None:
        async with asyncio.timeout(None) as limit:
            expiry = asyncio.create_task(expire(limit))
            await provider.chat_openai().ainvoke(QUESTION, config(tracker))
        await expiry

    with pytest.raises(TimeoutError):
        await ask()
    await asyncio.sleep(0)
    row = only(collected(tracker, rows))
    assert row["status"] == "cancelled"
    assert is_partly_estimated(row, 0)


def graph_of(**nodes: Callable[..., Any]) -> Any:
    """A graph whose nodes all run at once."""
    builder = StateGraph(MessagesState)
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(START, name)
    return builder.compile()


async def test_a_call_in_a_cancelled_graph_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A user who closes the page cancels the graph; its model's call was billed all the same."""
    provider.reply(Reply(hang=True))
    model = provider.chat_openai()

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(QUESTION)]}

    task = asyncio.create_task(graph_of(answer=answer).ainvoke({"messages": []}, config(tracker)))
    await stalls(provider)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)  # until then the event loop holds the task that woke this one, and with it the call
    row = only(collected(tracker, rows))
    assert (row["status"], row["workflow_step"]) == ("cancelled", "answer")
    assert is_partly_estimated(row, 0)


async def test_a_call_in_a_node_that_times_out_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LangGraph's step time-out cancels the node, and the model in it without a word."""
    provider.reply(Reply(hang=True))
    model = provider.chat_openai()

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(QUESTION)]}

    graph = graph_of(answer=answer)
    graph.step_timeout = 0.5
    with pytest.raises(TimeoutError):
        await graph.ainvoke({"messages": []}, config(tracker))
    row = only(collected(tracker, rows))
    assert (row["status"], row["workflow_step"]) == ("cancelled", "answer")
    assert is_partly_estimated(row, 0)


async def test_a_call_cancelled_by_a_failing_sibling_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LangGraph cancels the siblings of a node that fails."""
    provider.reply(Reply(hang=True))
    model = provider.chat_openai()

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(QUESTION)]}

    async def fail(state: MessagesState) -> dict[str, Any]:
        await stalls(provider)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await graph_of(answer=answer, fail=fail).ainvoke({"messages": []}, config(tracker))
    row = only(collected(tracker, rows))
    assert (row["status"], row["workflow_step"]) == ("cancelled", "answer")
    assert is_partly_estimated(row, 0)


def test_a_sync_v3_stream_broken_off_is_billed(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """No event ever comes: the call would stay in memory for good, and its cost off the bill."""
    provider.reply(Reply(text=EIGHT_WORDS.text, stall_after_chunks=4))
    stream = provider.chat_openai().stream_events(QUESTION, config(tracker), version="v3")
    words = iter(stream.text)
    read = [next(words) for _ in range(4)]
    assert len(read) == 4
    assert tracker.stats().in_flight == 1
    del stream, words
    row = only(collected(tracker, rows))
    assert row["status"] == "cancelled"
    assert is_partly_estimated(row, 4)


def test_where_one_of_three_prompts_fails_the_others_are_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Only the second gets an event. The first was billed, its usage is lost: it must not be lost altogether."""
    provider.script([EIGHT_WORDS, Reply(status=400), EIGHT_WORDS])
    with pytest.raises(Exception, match="400"):
        provider.chat_openai().generate([[HumanMessage(QUESTION)]] * 3, callbacks=[tracker.handler])
    first, second, third = collected(tracker, rows)
    assert (second["status"], second["total_cost"]) == ("error", 0)
    assert [row["status"] for row in (first, third)] == ["cancelled", "cancelled"]
    assert is_partly_estimated(first, 0)


# An error event, sooner or later


async def test_a_cancelled_astream_is_billed_for_what_came(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The part of the answer that came was billed; at zero a client that hangs up often would be free."""
    provider.reply(Reply(text=EIGHT_WORDS.text, stall_after_chunks=4))
    read: list[Any] = []

    async def consume() -> None:
        async for chunk in provider.chat_openai().astream(QUESTION, config(tracker)):
            read.append(chunk)  # noqa: PERF401 - what came before the cancellation

    task = asyncio.create_task(consume())
    await stalls(provider)
    while sum(bool(chunk.content) for chunk in read) < 4:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = only(collected(tracker, rows))
    assert (row["status"], row["error_type"]) == ("cancelled", "CancelledError")
    assert is_partly_estimated(row, 4)
    assert 0 < row["ttft_ms"] <= row["latency_ms"]


async def test_an_anthropic_stream_broken_off_is_estimated(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Anthropic tells the prompt's tokens first, LangChain passes them on last: broken off, they are estimated."""
    provider.reply(Reply(text=EIGHT_WORDS.text, input_tokens=5000, cached_tokens=4000, stall_after_chunks=4))
    stream = provider.chat_anthropic().astream(QUESTION, config(tracker))
    read = 0
    async for chunk in stream:
        read += bool(chunk.content)
        if read == 4:
            break
    await stream.aclose()
    row = only(collected(tracker, rows))
    assert (row["status"], row["usage_estimated"]) == ("cancelled", True)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (100, 4)
    assert row["total_cost"] == dollars((100, "1"), (4, "5"))


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_stream_broken_off_is_billed_for_what_came(
    in_thread: bool, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The error comes at garbage collection, in whatever thread that happens to run."""
    provider.reply(Reply(text=EIGHT_WORDS.text, stall_after_chunks=4))
    held: list[Any] = []

    def read_four() -> None:
        stream = provider.chat_openai().stream(QUESTION, config(tracker))
        read = 0
        for chunk in stream:
            read += bool(chunk.content)
            if read == 4:
                break
        held.append(stream)

    read_four()
    assert tracker.stats().in_flight == 1
    if in_thread:
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
    held.clear()
    row = only(collected(tracker, rows))
    assert (row["status"], row["error_type"]) == ("cancelled", "GeneratorExit")
    assert is_partly_estimated(row, 4)


async def test_an_async_stream_broken_off_is_billed_for_what_came(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Without aclose() the event loop closes the generator when it finds it."""
    provider.reply(Reply(text=EIGHT_WORDS.text, stall_after_chunks=4))

    async def read_four() -> None:
        read = 0
        async for chunk in provider.chat_openai().astream(QUESTION, config(tracker)):
            read += bool(chunk.content)
            if read == 4:
                break

    await read_four()
    collect()
    while tracker.stats().in_flight:
        await asyncio.sleep(0)
    row = only(collected(tracker, rows))
    assert row["status"] == "cancelled"
    assert is_partly_estimated(row, 4)


def test_garbage_collection_in_the_middle_of_recording_does_not_deadlock(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that dies while another call is being put would wait for a lock that its own thread holds."""
    provider.reply(Reply(text=EIGHT_WORDS.text, stall_after_chunks=4))
    stream = provider.chat_openai().stream(QUESTION, config(tracker))
    next(chunk for chunk in stream if chunk.content)
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    provider.reply(EIGHT_WORDS)

    recorder, put = tracker._recorder, tracker._recorder.put

    def put_and_collect(item: Any) -> bool:
        gc.collect()
        return put(item)

    monkeypatch.setattr(recorder, "put", put_and_collect)
    gc.disable()
    try:
        del stream, cycle
        provider.chat_openai().invoke(QUESTION, config(tracker))
    finally:
        gc.enable()
    found = collected(tracker, rows)
    assert sorted(row["status"] for row in found) == ["cancelled", "ok"]


# The call goes on without its caller


async def test_an_async_v3_stream_broken_off_runs_on_and_is_billed_whole(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The producer reads the answer to its end, and the provider bills all of it."""
    provider.reply(EIGHT_WORDS)
    stream = await provider.chat_openai().astream_events(QUESTION, config(tracker), version="v3")
    async for _ in stream.text:
        break
    await asyncio.wait([stream._producer_task])
    row = only(collected(tracker, rows))
    assert (row["status"], row["usage_estimated"]) == ("ok", False)
    assert row["total_cost"] == dollars((111, INPUT), (22, OUTPUT))


def test_a_v3_stream_that_was_complete_is_billed_whole_though_its_loop_closed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """asyncio.run() ends before the end event: LangChain says cancelled, but the answer was complete, and billed."""
    provider.reply(EIGHT_WORDS)

    async def main() -> None:
        stream = await provider.chat_openai().astream_events(QUESTION, config(tracker), version="v3")
        assert (await stream.output).text == EIGHT_WORDS.text

    asyncio.run(main())
    row = only(collected(tracker, rows))
    assert (row["status"], row["error_type"], row["usage_estimated"]) == ("ok", None, False)
    assert row["total_cost"] == dollars((111, INPUT), (22, OUTPUT))


def test_a_chain_stream_broken_off_is_one_bill(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """A chain's stream that is broken off is billed for all that was made, once."""
    provider.reply(EIGHT_WORDS)
    stream = (provider.chat_openai() | StrOutputParser()).stream(QUESTION, config(tracker))
    next(word for word in stream if word)
    stream.close()
    del stream
    row = only(collected(tracker, rows))
    assert (row["status"], row["usage_estimated"]) == ("ok", False)
    assert row["total_cost"] == dollars((111, INPUT), (22, OUTPUT))


# Events driven by hand: what LangChain and user code can make of them


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


def start(tracker: VitalTracker, run_id: uuid.UUID, **more: Any) -> None:
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", **more.pop("metadata", {})}
    tracker.handler.on_chat_model_start({}, [[HumanMessage(QUESTION)]], run_id=run_id, metadata=metadata, **more)


def test_a_call_that_outlives_its_parents_run_keeps_its_true_end(tracker: VitalTracker, rows: Rows) -> None:
    """A call that outlives its parent's run is not cut off at once: its true end would be lost."""
    parent, child = uuid.uuid4(), uuid.uuid4()
    tracker.handler.on_chain_start({}, {}, run_id=parent)
    start(tracker, child, parent_run_id=parent)
    tracker.handler.on_chain_end({}, run_id=parent)
    assert tracker.flush().inserted == 0
    tracker.handler.on_llm_end(ANSWER, run_id=child, parent_run_id=parent)
    row = only(collected(tracker, rows))
    assert (row["status"], row["total_tokens"]) == ("ok", 77)


@pytest.mark.parametrize(("error", "status"), [(None, "abandoned"), (asyncio.CancelledError(), "cancelled")])
def test_a_call_left_behind_by_its_parent_is_closed(
    error: BaseException | None, status: str, tracker: VitalTracker, rows: Rows
) -> None:
    """Where something else holds the run's id, as LangSmith's tracer does, the parent's end closes the call."""
    parent, child = uuid.uuid4(), uuid.uuid4()
    tracker.handler._calls.orphan_grace_s = 0
    tracker.handler.on_chain_start({}, {}, run_id=parent)
    start(tracker, child, parent_run_id=parent)
    if error is None:
        tracker.handler.on_chain_end({}, run_id=parent)
    else:
        tracker.handler.on_chain_error(error, run_id=parent)
    row = only(collected(tracker, rows))
    assert row["status"] == status
    assert is_partly_estimated(row, 0)


def test_a_time_limit_ends_what_never_ends_and_a_late_end_takes_its_place(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """Without a limit calls in flight pile up for ever; without the replacement a slow call keeps its estimate."""
    tracker = make_tracker(call_timeout_s=30)
    held, quick = uuid.uuid4(), uuid.uuid4()
    start(tracker, held, metadata={"vital_user_id": "u-held"})
    start(tracker, quick)
    tracker.handler._calls.calls[held.int].touched -= 31
    tracker.handler._calls.close_stale()
    assert tracker.stats().in_flight == 1
    tracker.handler.on_llm_end(ANSWER, run_id=quick)
    abandoned, ended = collected(tracker, rows)
    assert (abandoned["status"], ended["status"]) == ("abandoned", "ok")
    assert is_partly_estimated(abandoned, 0)
    assert tracker.stats().abandoned == 1

    tracker.handler.on_llm_end(ANSWER, run_id=held)
    late, _ = collected(tracker, rows)
    assert late["id"] == abandoned["id"]
    assert (late["status"], late["usage_estimated"], late["total_tokens"]) == ("ok", False, 77)
    assert late["total_cost"] == dollars((70, INPUT), (7, OUTPUT))
    assert late["user_id"] == "u-held"


def test_a_true_end_wins_over_the_abandoned_row_in_either_order(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """Both rows of one call in one batch: the true end must win, whatever the order."""
    tracker = make_tracker(call_timeout_s=30)
    held = uuid.uuid4()
    start(tracker, held)
    tracker.handler._calls.calls[held.int].touched -= 31
    tracker.handler._calls.close_stale()
    tracker.handler.on_llm_end(ANSWER, run_id=held)
    row = only(collected(tracker, rows))
    assert (row["status"], row["total_tokens"]) == ("ok", 77)


def test_a_stream_that_still_brings_tokens_is_not_timed_out(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """A long answer may take longer than the limit, as long as it goes on."""
    tracker = make_tracker(call_timeout_s=30)
    run_id = uuid.uuid4()
    start(tracker, run_id)
    call = tracker.handler._calls.calls[run_id.int]
    call.started_clock -= 60
    call.touched -= 60
    tracker.handler.on_llm_new_token("word", run_id=run_id)
    tracker.handler._calls.close_stale()
    tracker.handler.on_llm_end(ANSWER, run_id=run_id)
    row = only(collected(tracker, rows))
    assert row["status"] == "ok"
    assert row["latency_ms"] >= 60_000


def test_closing_the_tracker_records_what_is_still_open(tracker: VitalTracker, rows: Rows) -> None:
    """A process that ends with calls in flight would forget them."""
    run_id = uuid.uuid4()
    start(tracker, run_id)
    assert tracker.close().inserted == 1
    row = only(rows())
    assert row["status"] == "abandoned"
    assert is_partly_estimated(row, 0)


def test_an_end_without_a_start_is_billed(tracker: VitalTracker, rows: Rows) -> None:
    """LangChain can skip a start (another handler in the list); the bill comes all the same."""
    run_id, parent = uuid.uuid4(), uuid.uuid4()
    with tracker.conversation(user_id="u-1", session_id="s-1"):
        tracker.handler.on_llm_end(ANSWER, run_id=run_id, parent_run_id=parent, tags=["t"])
    row = only(collected(tracker, rows))
    assert (row["status"], row["run_id"], row["parent_run_id"]) == ("ok", str(run_id), str(parent))
    assert (row["user_id"], row["session_id"], row["tags"]) == ("u-1", "s-1", ["t"])
    assert (row["prompt_tokens"], row["completion_tokens"], row["model"]) == (70, 7, "gpt-4o-mini")
    assert row["latency_ms"] is None
    assert row["metadata"]["notes"] == ["start_missed"]
    # Neither provider nor request is known, but the model's name is enough for its price.
    assert row["total_cost"] == dollars((70, INPUT), (7, OUTPUT))


async def test_a_handler_listed_twice_bills_once(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """On the model and in the config, or twice in a list: every call would be billed twice."""
    provider.reply(EIGHT_WORDS)
    twice = {"callbacks": [tracker.handler, tracker.handler]}
    model = provider.chat_openai(callbacks=[tracker.handler])
    model.invoke(QUESTION, twice)
    await model.ainvoke(QUESTION, twice)
    list(model.stream(QUESTION, twice))
    await asyncio.gather(*(model.ainvoke(QUESTION, twice) for _ in range(5)))
    tracker.install()
    model.invoke(QUESTION, twice)
    provider.reply(Reply(status=400))
    with pytest.raises(Exception, match="400"):
        model.invoke(QUESTION, twice)
    found = collected(tracker, rows)
    assert len(found) == len(provider.requests) == 10
    assert [row["status"] for row in found] == ["ok"] * 9 + ["error"]
    assert sum(row["total_cost"] for row in found) == 9 * dollars((111, INPUT), (22, OUTPUT))
    assert not tracker.handler._calls._echoes


async def test_each_call_under_one_run_id_is_a_row(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """Users may give one run id to many calls; as a key it would swallow all but the first."""
    run_id = uuid.uuid4()
    provider.respond_with(lambda request: Reply(input_tokens=100 * int(request.body["messages"][0]["content"])))
    model = provider.chat_openai()
    for number in (1, 2):
        await model.ainvoke(str(number), config(tracker, run_id=run_id))
    found = collected(tracker, rows)
    assert [row["prompt_tokens"] for row in found] == [100, 200]
    assert {row["run_id"] for row in found} == {str(run_id)}
    assert len({row["id"] for row in found}) == 2


async def test_two_calls_at_once_under_one_run_id_are_two_rows(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The same, while the first still runs."""
    run_id = uuid.uuid4()
    provider.respond_with(
        lambda request: Reply(input_tokens=100 * int(request.body["messages"][0]["content"]), hang=True)
    )
    model = provider.chat_openai()
    calls = [
        asyncio.create_task(
            model.ainvoke(str(number), config(tracker, run_id=run_id, metadata={"vital_user_id": f"u-{number}"}))
        )
        for number in (1, 2, 3)
    ]
    await stalls(provider, 3)
    provider.release.set()
    await asyncio.gather(*calls)
    found = collected(tracker, rows)
    assert sorted(row["prompt_tokens"] for row in found) == [100, 200, 300]
    assert sorted(row["user_id"] for row in found) == ["u-1", "u-2", "u-3"]
    assert {row["status"] for row in found} == {"ok"}


def test_a_fork_leaves_the_parents_calls_to_the_parent(tracker: VitalTracker) -> None:
    """A forked worker would send the parent's calls in flight as its own, abandoned."""
    run_id = uuid.uuid4()
    start(tracker, run_id)
    tracker.handler.reset_after_fork()
    assert tracker.stats().in_flight == 0
    tracker.handler.close_all()
    assert tracker.stats().waiting == 0
