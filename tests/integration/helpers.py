"""What the integration tests share: exact money, the one row of a test, and every way to ask a model."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any

import pytest

from vital_tracking import VitalTracker

Rows = Callable[..., list[dict[str, Any]]]

MODES = (
    "invoke",
    "ainvoke",
    "batch",
    "abatch",
    "stream",
    "astream",
    "astream_events_v2",
    "stream_events_v3",
    "astream_events_v3",
)
STREAMS = tuple(mode for mode in MODES if "stream" in mode)


def dollars(*parts: tuple[int, str]) -> Decimal:
    """Tokens times dollars per million tokens, added up exactly: `dollars((100, "0.15"), (20, "0.60"))`."""
    return sum((tokens * Decimal(rate) for tokens, rate in parts), Decimal(0)) / 1_000_000


def only(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The one row there is."""
    listed = list(found)
    assert len(listed) == 1, [(row["status"], row["model"], row["run_id"]) for row in listed]
    return listed[0]


async def ask(model: Any, mode: str, config: Any, question: Any = "Hi", /, **kw: Any) -> Any:
    """Ask once in one of MODES, to its end; the message, where the mode gives one."""
    if mode == "invoke":
        return await asyncio.to_thread(model.invoke, question, config, **kw)
    if mode == "ainvoke":
        return await model.ainvoke(question, config, **kw)
    if mode == "batch":
        return (await asyncio.to_thread(model.batch, [question], config, **kw))[0]
    if mode == "abatch":
        return (await model.abatch([question], config, **kw))[0]
    if mode == "stream":
        return reduce(add, await asyncio.to_thread(lambda: list(model.stream(question, config, **kw))))
    if mode == "astream":
        return reduce(add, [chunk async for chunk in model.astream(question, config, **kw)])
    if mode == "astream_events_v2":
        async for event in model.astream_events(question, config, version="v2", **kw):
            if event["event"] == "on_chat_model_end":
                return event["data"]["output"]
        return None
    if mode == "stream_events_v3":
        return await asyncio.to_thread(lambda: model.stream_events(question, config, version="v3", **kw).output)
    stream = await model.astream_events(question, config, version="v3", **kw)
    try:
        return await stream.output
    finally:
        if stream._producer_task is not None:  # a stopped one never began
            await asyncio.wait([stream._producer_task])  # it fires the end a moment after the output is there


def collect() -> None:
    """Have the garbage collector end what nobody holds any more."""
    for _ in range(3):
        gc.collect()


def record(tracker: VitalTracker, count: int, **more: Any) -> list[str]:
    """Record small calls by hand; their ids."""
    return [
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=10, completion_tokens=1, **more)
        for _ in range(count)
    ]


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """How often the log says so."""
    return sum(words in entry.getMessage() for entry in caplog.records)
