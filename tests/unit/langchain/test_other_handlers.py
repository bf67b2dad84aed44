"""What other handlers and `astream_events` see of a completion model: with ours beside them, all that they see without it.

LangChain's asynchronous manager tells a completion's start to inline handlers alone, as soon as there is one. If one of these
fails, somebody's tracing, streaming or logging loses events where this package is installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.runnables import Runnable, RunnableLambda

from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore


@contextmanager
def in_config(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    yield {"callbacks": [tracker.handler, *others]}


@contextmanager
def behind_others(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    yield {"callbacks": [*others, tracker.handler]}


@contextmanager
def installed(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    tracker.install()
    try:
        yield {"callbacks": others}
    finally:
        tracker.uninstall()


@contextmanager
def in_a_scope(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    with tracker.conversation(user_id="u-1"):
        yield {"callbacks": others}


@contextmanager
def by_the_scopes_config(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    with tracker.conversation(user_id="u-1") as turn:
        yield dict(turn.config(callbacks=others))


@contextmanager
def beside_another_tracker(tracker: VitalTracker, others: list[Any]) -> Iterator[dict[str, Any]]:
    with VitalTracker(MemoryStore(), settings=Settings(flush_interval_s=60)) as another:
        yield {"callbacks": [another.handler, *others, tracker.handler]}


WAYS = [in_config, behind_others, installed, in_a_scope, by_the_scopes_config, beside_another_tracker]
every_way = pytest.mark.parametrize("attached", WAYS)


class Seen:
    """Names of the events that a handler was told of, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def add(self, event: str) -> None:
        self.events.append(event)


class Plain(Seen, BaseCallbackHandler):
    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.add("start")

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.add("token")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.add("end")


class Inline(Plain):
    run_inline = True


class Asynchronous(Seen, AsyncCallbackHandler):
    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.add("start")

    async def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.add("token")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.add("end")


def completion() -> FakeStreamingListLLM:
    return FakeStreamingListLLM(responses=["Hi"])


async def ainvoke(model: Runnable[Any, Any], config: Any) -> None:
    await model.ainvoke("q", config)


async def astream(model: Runnable[Any, Any], config: Any) -> None:
    async for _ in model.astream("q", config):
        pass


async def abatch(model: Runnable[Any, Any], config: Any) -> None:
    await model.abatch(["q", "r", "s"], config)


async def in_a_chain(model: Runnable[Any, Any], config: Any) -> None:
    async def node(question: str) -> str:
        return str(await model.ainvoke(question))

    await RunnableLambda(node).ainvoke("q", config)


async def in_threads(model: Runnable[Any, Any], config: Any) -> None:
    await asyncio.to_thread(model.invoke, "q", config)


@pytest.mark.parametrize("call", [ainvoke, astream, abatch, in_a_chain, in_threads])
@every_way
async def test_other_handlers_are_told_of_a_completion_as_they_are_without_us(
    quick: VitalTracker, memory: MemoryStore, attached: Any, call: Callable[[Any, Any], Awaitable[None]]
) -> None:
    alone = [Plain(), Asynchronous()]
    await call(completion(), {"callbacks": alone})
    assert all("start" in one.events and "end" in one.events for one in alone)
    beside = [Plain(), Asynchronous()]
    with attached(quick, beside) as config:
        await call(completion(), config)
    assert [sorted(one.events) for one in beside] == [sorted(one.events) for one in alone]
    quick.flush()
    assert [row["status"] for row in memory.calls] == ["ok"] * alone[0].events.count("start")
    assert not any(row.get("metadata", {}).get("notes") for row in memory.calls), "our own start was missed"


@every_way
async def test_beside_another_inline_handler_our_own_start_is_not_lost(
    quick: VitalTracker, memory: MemoryStore, attached: Any
) -> None:
    """LangSmith's handler is inline: LangChain then tells the start to nobody who is not."""
    other = Inline()
    with attached(quick, [other]) as config:
        await ainvoke(completion(), config)
    assert other.events == ["start", "end"]
    quick.flush()
    (row,) = memory.calls
    assert not row.get("metadata", {}).get("notes"), "our own start was missed"


def shape(events: list[Any]) -> list[tuple[str, str]]:
    return [(event["event"], event["name"]) for event in events]


@pytest.mark.filterwarnings("ignore:astream_events version")
@pytest.mark.parametrize("version", ["v1", "v2"])
@every_way
async def test_streamed_events_have_start_and_end(quick: VitalTracker, attached: Any, version: Any) -> None:
    alone = [event async for event in completion().astream_events("q", version=version)]
    assert "on_llm_start" in [event["event"] for event in alone]
    with attached(quick, []) as config:
        beside = [event async for event in completion().astream_events("q", config, version=version)]
    assert shape(beside) == shape(alone)


@pytest.mark.filterwarnings("ignore:astream_log is deprecated")
@every_way
async def test_a_log_of_a_run_has_the_completion(quick: VitalTracker, attached: Any) -> None:
    alone = [len(patch.ops) async for patch in completion().astream_log("q")]
    with attached(quick, []) as config:
        beside = [len(patch.ops) async for patch in completion().astream_log("q", config)]
    assert beside == alone
