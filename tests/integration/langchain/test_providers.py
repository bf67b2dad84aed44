"""What real ChatOpenAI, ChatAnthropic and OpenAI clients report becomes tokens and dollars on the row, to the last decimal.

Each test spells the arithmetic out: tokens times the provider's list price. If one fails, a bill is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from tests.integration.helpers import MODES, STREAMS, Rows, ask, dollars, only
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import Price, VitalTracker

# LangChain says of its v3 streams that they may change.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

# Dollars per million tokens: what the providers list, and what genai-prices must say.
OPENAI_INPUT, OPENAI_CACHED, OPENAI_OUTPUT = "0.15", "0.075", "0.60"  # gpt-4o-mini
CLAUDE_INPUT, CLAUDE_CACHED, CLAUDE_OUTPUT = "1", "0.10", "5"  # claude-haiku-4-5
CLAUDE_WRITE_5M, CLAUDE_WRITE_1H = "1.25", "2"

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def openai_chat(provider: ProviderServer, **kw: Any) -> Any:
    return provider.chat_openai(**kw)


def openai_responses(provider: ProviderServer, **kw: Any) -> Any:
    return provider.chat_openai(use_responses_api=True, **kw)


def anthropic_chat(provider: ProviderServer, **kw: Any) -> Any:
    return provider.chat_anthropic(**kw)


CHATS = (openai_chat, openai_responses, anthropic_chat)


def rates_of(chat: Callable[..., Any]) -> tuple[str, str]:
    """Dollars per million input and output tokens."""
    return (CLAUDE_INPUT, CLAUDE_OUTPUT) if chat is anthropic_chat else (OPENAI_INPUT, OPENAI_OUTPUT)


def config(tracker: VitalTracker, *tags: str) -> dict[str, Any]:
    return {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}, "tags": list(tags)}


def by_tag(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by their only tag; no tag twice."""
    tagged = {tag: row for row in found for tag in row["tags"]}
    assert len(tagged) == len(found) == sum(len(row["tags"]) for row in found)
    return tagged


@pytest.mark.parametrize("chat", CHATS)
async def test_every_way_to_ask_costs_the_same_and_is_one_row(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A user who moves from invoke to streaming would see calls vanish, doubled, or without cost."""
    provider.reply(Reply(text="Take it with food.", input_tokens=1234, output_tokens=567))
    for mode in MODES:
        await ask(chat(provider), mode, config(tracker, mode))
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(MODES)
    assert len(provider.requests) == len(MODES)
    rates = rates_of(chat)
    for mode, row in found.items():
        assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (1234, 567, 1801)
        assert row["input_cost"] == dollars((1234, rates[0]))
        assert row["output_cost"] == dollars((567, rates[1]))
        assert row["total_cost"] == row["potential_cost"] == dollars((1234, rates[0]), (567, rates[1]))
        assert (row["priced"], row["usage_estimated"]) == (True, False)
        assert (row["status"], row["success"], row["error_type"]) == ("ok", True, None)
        assert row["provider"] == ("anthropic" if chat is anthropic_chat else "openai")
        assert row["model"] == ("claude-haiku-4-5" if chat is anthropic_chat else "gpt-4o-mini")
        assert (row["call_type"], row["message_type"], row["framework"]) == ("chat", "chat", "langchain")
        assert row["user_id"] == "u-1"
        assert row["latency_ms"] > 0
        if mode in STREAMS:
            assert 0 < row["ttft_ms"] <= row["latency_ms"]
        else:
            assert row["ttft_ms"] is None
        assert "notes" not in row["metadata"]


@pytest.mark.parametrize("chat", CHATS)
async def test_a_batch_is_one_row_a_question(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Batch jobs would be billed to one question, or shared out wrongly."""
    provider.respond_with(lambda request: Reply(input_tokens=10 * len(str(request.body)), output_tokens=7))
    model = chat(provider)
    questions = ["a", "bb" * 20, "ccc" * 40]
    await asyncio.to_thread(model.batch, questions, config(tracker))
    await model.abatch(questions, config(tracker))
    found = stored(tracker, rows)
    assert len(found) == 6
    assert sorted(row["prompt_tokens"] for row in found) == sorted(10 * len(str(r.body)) for r in provider.requests)
    assert all("batch_size" not in row["metadata"] for row in found)


# Adding up usages, LangChain warns of the details that OpenAI left empty.
@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")
def test_generate_of_three_is_three_rows(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """generate() starts all before any ends: rows would get each other's tokens."""
    provider.script([Reply(input_tokens=n, output_tokens=1) for n in (100, 200, 300)])
    questions = [[HumanMessage(text)] for text in ("a", "b", "c")]
    provider.chat_openai().generate(questions, callbacks=[tracker.handler])
    found = stored(tracker, rows)
    assert [row["prompt_tokens"] for row in found] == [100, 200, 300]
    assert [row["metadata"]["batch_size"] for row in found] == [3, 3, 3]


def test_several_answers_to_one_question_are_billed_once(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """With n=3 all three generations carry the whole usage: summing them would triple the bill."""
    provider.reply(Reply(input_tokens=100, output_tokens=60))
    provider.chat_openai(n=3).generate([[HumanMessage("Hi")]], callbacks=[tracker.handler])
    row = only(stored(tracker, rows))
    assert (row["prompt_tokens"], row["completion_tokens"]) == (100, 60)
    assert row["total_cost"] == dollars((100, OPENAI_INPUT), (60, OPENAI_OUTPUT))


@pytest.mark.parametrize("chat", CHATS)
async def test_an_answer_that_is_a_tool_call_is_billed(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """An agent's calls, which answer with tools and no text, would be lost or estimated."""
    provider.reply(Reply(text="", tool_calls=[("weather", {"city": "Basel"})], input_tokens=90, output_tokens=15))
    for mode in MODES:
        await ask(chat(provider).bind_tools([WEATHER]), mode, config(tracker, mode))
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(MODES)
    rates = rates_of(chat)
    for mode, row in found.items():
        assert row["total_cost"] == dollars((90, rates[0]), (15, rates[1])), mode
        assert row["usage_estimated"] is False
        if mode in STREAMS:
            assert row["ttft_ms"] is not None, mode
            assert 0 < row["ttft_ms"] <= row["latency_ms"]


@pytest.mark.parametrize("chat", [openai_chat, openai_responses])
async def test_cached_tokens_cost_the_cache_price_and_are_counted_once(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """input_tokens includes the cached ones: adding them again would overcharge, full price would hide the saving."""
    provider.reply(Reply(input_tokens=2000, cached_tokens=1536, output_tokens=50))
    for mode in MODES:
        await ask(chat(provider), mode, config(tracker, mode))
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(MODES)
    for row in found.values():
        assert (row["prompt_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (2000, 1536, 0)
        assert row["input_cost"] == dollars((464, OPENAI_INPUT), (1536, OPENAI_CACHED))
        assert row["total_cost"] == dollars((464, OPENAI_INPUT), (1536, OPENAI_CACHED), (50, OPENAI_OUTPUT))
        assert row["potential_cost"] == dollars((2000, OPENAI_INPUT), (50, OPENAI_OUTPUT))
        assert row["cache_hit"] is False


async def test_anthropic_bills_cache_writes_by_their_lifetime(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """An hour's cache write costs 1.6 times a five minutes' one: mixing them up hides it."""
    provider.reply(
        Reply(input_tokens=1000, cached_tokens=300, cache_write_tokens=500, cache_write_1h_tokens=200, output_tokens=40)
    )
    for mode in ("invoke", "ainvoke", "batch", "abatch"):
        await ask(provider.chat_anthropic(), mode, config(tracker, mode))
    found = stored(tracker, rows)
    assert len(found) == 4
    for row in found:
        assert (row["prompt_tokens"], row["cache_read_tokens"]) == (1000, 300)
        assert (row["cache_write_tokens"], row["cache_write_1h_tokens"]) == (500, 200)
        assert row["input_cost"] == dollars(
            (200, CLAUDE_INPUT), (300, CLAUDE_CACHED), (300, CLAUDE_WRITE_5M), (200, CLAUDE_WRITE_1H)
        )
        assert row["output_cost"] == dollars((40, CLAUDE_OUTPUT))
        assert row["potential_cost"] == dollars((1000, CLAUDE_INPUT), (40, CLAUDE_OUTPUT))


async def test_anthropic_streams_bill_cache_writes_at_five_minutes(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Streams report no lifetime of cache writes; they must still be billed as writes, not as plain input."""
    provider.reply(Reply(input_tokens=1000, cached_tokens=300, cache_write_tokens=500, output_tokens=40))
    for mode in STREAMS:
        await ask(provider.chat_anthropic(), mode, config(tracker, mode))
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(STREAMS)
    for row in found.values():
        assert (row["prompt_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (1000, 300, 500)
        assert row["input_cost"] == dollars((200, CLAUDE_INPUT), (300, CLAUDE_CACHED), (500, CLAUDE_WRITE_5M))
        assert row["output_cost"] == dollars((40, CLAUDE_OUTPUT))


@pytest.mark.parametrize("chat", CHATS)
async def test_reasoning_is_a_part_of_the_output(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Thinking tokens are inside output_tokens: adding them would double the dearest part of the bill."""
    provider.reply(Reply(input_tokens=80, output_tokens=900, reasoning_tokens=832))
    for mode in MODES:
        await ask(chat(provider), mode, config(tracker, mode))
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(MODES)
    for mode, row in found.items():
        assert row["completion_tokens"] == 900
        assert row["output_cost"] == dollars((900, rates_of(chat)[1]))
        assert row["reasoning_tokens"] == 832, mode


async def test_audio_is_priced_apart(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """Audio costs sixteen times what text does."""
    price = Price(
        "gpt-4o-audio-preview", input="2.50", output="10", cache_read="1.25", audio_input="40", audio_output="80"
    )
    tracker = make_tracker(prices=[price])
    provider.reply(Reply(input_tokens=500, audio_input_tokens=300, output_tokens=200, audio_output_tokens=120))
    await provider.chat_openai(model="gpt-4o-audio-preview").ainvoke("Hi", config(tracker))
    row = only(stored(tracker, rows))
    assert (row["audio_tokens"], row["audio_output_tokens"]) == (420, 120)
    assert row["input_cost"] == dollars((200, "2.50"), (300, "40"))
    assert row["output_cost"] == dollars((80, "10"), (120, "80"))


class Tiered(httpx.BaseTransport):
    """Changes the processing tier of the provider's answers."""

    def __init__(self, tier: str) -> None:
        self._inner = httpx.HTTPTransport()
        self._tier = tier

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        body = answer.read().replace(b'"service_tier": "default"', f'"service_tier": "{self._tier}"'.encode())
        answer.close()
        headers = {"content-type": answer.headers["content-type"]}
        return httpx.Response(answer.status_code, headers=headers, content=body, request=request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize(
    ("tier", "input_rate", "cached_rate", "output_rate"),
    [
        ("default", "1.25", "0.125", "10"),
        ("flex", "0.625", "0.0625", "5"),
        ("priority", "2.50", "0.25", "20"),
    ],
)
async def test_processing_tiers_have_prices_of_their_own(
    tier: str,
    input_rate: str,
    cached_rate: str,
    output_rate: str,
    tracker: VitalTracker,
    provider: ProviderServer,
    rows: Rows,
) -> None:
    """Flex halves and priority doubles gpt-5's price; and LangChain names the details `flex_cache_read` then."""
    provider.reply(Reply(input_tokens=1000, cached_tokens=400, output_tokens=300, reasoning_tokens=256))
    with httpx.Client(transport=Tiered(tier)) as client:
        for responses_api in (False, True):
            model = provider.chat_openai(model="gpt-5", http_client=client, use_responses_api=responses_api)
            for mode in ("invoke", "stream", "stream_events_v3"):
                await ask(model, mode, config(tracker, f"{mode} {responses_api}"))
    found = by_tag(stored(tracker, rows))
    assert len(found) == 6
    for way, row in found.items():
        assert (row["cache_read_tokens"], row["reasoning_tokens"]) == (400, 256), way
        assert row["metadata"]["service_tier"] == tier, way
        assert row["input_cost"] == dollars((600, input_rate), (400, cached_rate)), way
        assert row["output_cost"] == dollars((300, output_rate)), way


async def test_a_long_prompt_is_billed_whole_at_the_long_prompt_price(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Above 200,000 tokens, cached ones included, claude-sonnet-4-5 costs double, output too."""
    provider.script(
        [
            Reply(input_tokens=200_000, cached_tokens=150_000, output_tokens=100),
            Reply(input_tokens=200_001, cached_tokens=150_000, output_tokens=100),
        ]
    )
    model = provider.chat_anthropic(model="claude-sonnet-4-5")
    await model.ainvoke("Hi", config(tracker))
    await model.ainvoke("Hi", config(tracker))
    short, long = stored(tracker, rows)
    assert short["total_cost"] == dollars((50_000, "3"), (150_000, "0.30"), (100, "15"))
    assert long["total_cost"] == dollars((50_001, "6"), (150_000, "0.60"), (100, "22.50"))


# Completion models and embeddings


async def test_calls_of_completion_models_are_priced(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Completion models tell LangChain neither provider nor model; their calls would be unpriced."""
    provider.reply(Reply(input_tokens=40, output_tokens=12))
    model = provider.openai_completion()
    for mode in ("invoke", "ainvoke", "stream", "astream"):
        await ask(model, mode, config(tracker, mode), "q" * 80)
    found = by_tag(stored(tracker, rows))
    assert len(found) == 4
    for mode, row in found.items():
        assert (row["provider"], row["model"], row["call_type"]) == ("openai", "gpt-3.5-turbo-instruct", "completion")
        assert row["total_cost"] == dollars((row["prompt_tokens"], "1.50"), (row["completion_tokens"], "2"))
        if "stream" in mode:  # LangChain asks for no usage in a completion's stream
            assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (20, 3, True)
            assert 0 < row["ttft_ms"] <= row["latency_ms"]
        else:
            assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (40, 12, False)


@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_a_completion_batch_is_one_request_and_one_bill(
    mode: str, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """OpenAI serves a batch of prompts with one request; its usage stands on the first run only."""
    provider.reply(Reply(input_tokens=33, output_tokens=21))
    model = provider.openai_completion()
    if mode == "batch":
        await asyncio.to_thread(model.batch, ["a", "b", "c"], config(tracker))
    else:
        await model.abatch(["a", "b", "c"], config(tracker))
    found = stored(tracker, rows)
    assert len(provider.requests) == 1
    assert len(found) == 3
    assert sum(row["total_cost"] for row in found) == dollars((33, "1.50"), (21, "2"))
    assert sum(row["total_tokens"] for row in found) == 54
    assert sorted(row["metadata"].get("notes", []) for row in found) == [
        [],
        ["billed_with_batch"],
        ["billed_with_batch"],
    ]
    assert not any(row["usage_estimated"] for row in found)


# Failures


REFUSALS = {400: "BadRequestError", 401: "AuthenticationError", 429: "RateLimitError", 500: "InternalServerError"}


@pytest.mark.parametrize("chat", CHATS)
async def test_a_refused_request_is_a_row_that_costs_nothing(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Error rates would be invisible, or refused requests billed by an estimate."""
    raised = {}
    for status in REFUSALS:
        provider.reply(Reply(status=status, error_message="canary-4711"))
        for mode in MODES:
            with pytest.raises(Exception) as caught:
                await ask(chat(provider), mode, config(tracker, f"{status} {mode}"))
            raised[f"{status} {mode}"] = type(caught.value)
    found = by_tag(stored(tracker, rows))
    assert found.keys() == raised.keys()
    for way, row in found.items():
        status = int(way[:3])
        assert row["error_type"] == raised[way].__name__  # the user's own class: subclasses stay what they are
        assert REFUSALS[status] in {cls.__name__ for cls in raised[way].__mro__}
        assert (row["status"], row["success"]) == ("error", False)
        assert (row["total_cost"], row["potential_cost"], row["total_tokens"]) == (0, 0, 0)
        assert row["priced"] is True
        assert row["metadata"]["http_status"] == status
        assert "canary-4711" not in str(row)


async def test_each_attempt_of_with_retry_is_a_row(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """Rate limits that LangChain retries away would be invisible."""
    for invoke in ("invoke", "ainvoke"):
        provider.script([Reply(status=429), Reply(status=429), Reply(input_tokens=11, output_tokens=5)])
        model = provider.chat_openai().with_retry(
            retry_if_exception_type=(openai.RateLimitError,), wait_exponential_jitter=False, stop_after_attempt=3
        )
        await ask(model, invoke, config(tracker))
    found = stored(tracker, rows)
    assert [row["status"] for row in found] == ["error", "error", "ok"] * 2
    assert len({row["run_id"] for row in found}) == 6
    assert sum(row["total_cost"] for row in found) == 2 * dollars((11, OPENAI_INPUT), (5, OPENAI_OUTPUT))


async def test_a_fallback_shows_the_model_that_failed_and_the_one_that_answered(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A team would not see that its first choice is down and a dearer model answers."""
    provider.script([Reply(status=500), Reply(input_tokens=10, output_tokens=4)])
    model = provider.chat_openai().with_fallbacks([provider.chat_anthropic()])
    await model.ainvoke("Hi", config(tracker))
    first, second = stored(tracker, rows)
    assert (first["provider"], first["status"], first["total_cost"]) == ("openai", "error", 0)
    assert (second["provider"], second["status"]) == ("anthropic", "ok")
    assert second["total_cost"] == dollars((10, CLAUDE_INPUT), (4, CLAUDE_OUTPUT))


async def test_the_model_named_at_call_time_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LangChain keeps the old name beside the new one; gpt-4o costs seventeen times gpt-4o-mini."""
    provider.reply(Reply(input_tokens=1000, output_tokens=100))
    model = provider.chat_openai()
    for mode in ("invoke", "astream", "stream_events_v3"):
        await ask(model, mode, config(tracker), model="gpt-4o")
    found = stored(tracker, rows)
    assert [row["model"] for row in found] == ["gpt-4o"] * 3
    assert [row["total_cost"] for row in found] == [dollars((1000, "2.50"), (100, "10"))] * 3


async def test_the_model_that_answered_is_billed_and_the_one_asked_for_kept(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """An alias answers under its dated name; `configurable["model"]`, which leaks into the metadata, names no model at all."""
    provider.reply(Reply(model="gpt-4o-mini-2024-07-18", input_tokens=100, output_tokens=10))
    await provider.chat_openai().ainvoke("Hi", config(tracker) | {"configurable": {"model": "gpt-4"}})
    row = only(stored(tracker, rows))
    assert (row["model"], row["requested_model"]) == ("gpt-4o-mini-2024-07-18", "gpt-4o-mini")
    assert row["total_cost"] == dollars((100, OPENAI_INPUT), (10, OPENAI_OUTPUT))


async def test_a_model_without_a_price_costs_null_and_is_counted(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """A cost of 0 would say that an unknown model is free."""
    model = provider.chat_openai(model="in-house-7b")
    await model.ainvoke("Hi", config(tracker))
    await model.ainvoke("Hi", config(tracker))
    found = stored(tracker, rows)
    assert len(found) == 2
    for row in found:
        assert row["priced"] is False
        assert (row["total_cost"], row["input_cost"], row["potential_cost"]) == (None, None, None)
        assert row["total_tokens"] == 120
    assert tracker.stats().unpriced == 2
    assert sum("in-house-7b" in record.getMessage() for record in caplog.records) == 1


# Usage that nobody reports


@pytest.mark.parametrize("chat", CHATS)
async def test_missing_usage_is_estimated_and_flagged(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A gateway that reports no usage would make calls look free."""
    provider.reply(Reply(text="word " * 40, omit_usage=True))
    for mode in MODES:
        await ask(chat(provider), mode, config(tracker, mode), "q" * 400)
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(MODES)
    rates = rates_of(chat)
    for mode, row in found.items():
        # A token for every four bytes: 400 bytes asked, 200 answered.
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (100, 50, True), mode
        assert row["total_cost"] == dollars((100, rates[0]), (50, rates[1]))
        assert (row["cache_hit"], row["status"]) == (False, "ok")
    assert tracker.stats().estimated == len(MODES)


async def test_a_stream_that_was_not_asked_for_usage_is_estimated(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """With a base_url ChatOpenAI asks for no usage in streams: LangChain's default, and a bill of nothing."""
    provider.reply(Reply(text="word " * 40))
    for mode in STREAMS:
        await ask(provider.chat_openai(stream_usage=False), mode, config(tracker, mode), "q" * 400)
    found = by_tag(stored(tracker, rows))
    assert found.keys() == set(STREAMS)
    for mode, row in found.items():
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (100, 50, True), mode
        assert row["total_cost"] == dollars((100, OPENAI_INPUT), (50, OPENAI_OUTPUT))


@pytest.mark.parametrize("stream_usage", [True, False])
async def test_langgraph_turns_invoke_into_a_stream(
    stream_usage: bool, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """With stream_mode="messages" a node's invoke becomes a stream; without stream_usage its tokens are gone."""
    provider.reply(Reply(text="word " * 40, input_tokens=120, output_tokens=41))
    model = provider.chat_openai(stream_usage=stream_usage)

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    async for _ in graph.astream({"messages": [("user", "q" * 400)]}, config(tracker), stream_mode="messages"):
        pass
    assert provider.requests[0].body["stream"] is True
    row = only(stored(tracker, rows))
    assert row["usage_estimated"] is not stream_usage
    if stream_usage:
        assert row["total_cost"] == dollars((120, OPENAI_INPUT), (41, OPENAI_OUTPUT))
    else:
        assert row["total_tokens"] > 140
        assert row["total_cost"] > 0


class Answer(BaseModel):
    city: str


async def test_an_answer_cut_off_in_structured_output_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LengthFinishReasonError carries the completion that was billed; the error would hide its cost."""
    provider.reply(Reply(text='{"city": "Ba', finish_reason="length", input_tokens=70, output_tokens=16))
    model = provider.chat_openai(model="gpt-4o").with_structured_output(Answer, method="json_schema")
    with pytest.raises(openai.LengthFinishReasonError):
        await model.ainvoke("Hi", config(tracker))
    row = only(stored(tracker, rows))
    assert (row["status"], row["error_type"]) == ("error", "LengthFinishReasonError")
    assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (70, 16, False)
    assert row["total_cost"] == dollars((70, "2.50"), (16, "10"))


async def test_retries_inside_the_sdk_are_one_row(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """The SDK's own retries make no events: one call, one row, the cost of the attempt that was billed."""
    provider.script([Reply(status=429), Reply(input_tokens=10, output_tokens=5)])
    await provider.chat_openai(max_retries=2).ainvoke("Hi", config(tracker))
    assert len(provider.requests) == 2
    row = only(stored(tracker, rows))
    assert row["total_cost"] == dollars((10, OPENAI_INPUT), (5, OPENAI_OUTPUT))


# LangChain's own cache


@pytest.fixture
def llm_cache() -> Iterator[InMemoryCache]:
    before = get_llm_cache()
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(before)


@pytest.mark.parametrize("chat", CHATS)
async def test_an_answer_from_langchains_cache_costs_nothing(
    chat: Callable[..., Any], tracker: VitalTracker, provider: ProviderServer, rows: Rows, llm_cache: InMemoryCache
) -> None:
    """A hit still fires start and end with the whole usage: it would be billed twice."""
    provider.reply(Reply(input_tokens=1000, output_tokens=200))
    model = chat(provider)
    for mode in ("invoke", "ainvoke", "batch"):
        await ask(model, mode, config(tracker))
    assert len(provider.requests) == 1
    first, *hits = stored(tracker, rows)
    rates = rates_of(chat)
    cost = dollars((1000, rates[0]), (200, rates[1]))
    assert (first["cache_hit"], first["total_cost"], first["potential_cost"]) == (False, cost, cost)
    assert len(hits) == 2
    for hit in hits:
        assert hit["cache_hit"] is True
        assert (hit["input_cost"], hit["output_cost"], hit["total_cost"]) == (0, 0, 0)
        assert hit["potential_cost"] == cost
        assert hit["total_tokens"] == 1200
        assert hit["status"] == "ok"


async def test_a_cached_answer_without_usage_costs_nothing(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, llm_cache: InMemoryCache
) -> None:
    """Without usage there is no marker of a hit but the first run's id in the message; it would be billed by an estimate."""
    provider.reply(Reply(text="word " * 40, omit_usage=True))
    model = provider.chat_openai()
    await model.ainvoke("q" * 400, config(tracker))
    await model.ainvoke("q" * 400, config(tracker))
    first, hit = stored(tracker, rows)
    assert (first["cache_hit"], hit["cache_hit"]) == (False, True)
    assert first["total_cost"] == hit["potential_cost"] > 0
    assert hit["total_cost"] == 0


async def test_a_stream_is_billed_though_langchains_cache_has_its_answer(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, llm_cache: InMemoryCache
) -> None:
    """stream() asks the provider again, and is billed again."""
    provider.reply(Reply(input_tokens=1000, output_tokens=200))
    model = provider.chat_openai()
    await ask(model, "invoke", config(tracker))
    await ask(model, "stream", config(tracker))
    found = stored(tracker, rows)
    assert len(provider.requests) == 2
    assert [row["cache_hit"] for row in found] == [False, False]
    assert found[0]["total_cost"] == found[1]["total_cost"] > 0


def test_a_completion_from_langchains_cache_is_no_row(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, llm_cache: InMemoryCache
) -> None:
    """LangChain fires no events for a completion served by its cache: nothing was billed, nothing is stored."""
    model = provider.openai_completion()
    model.invoke("Hi", config(tracker))
    model.invoke("Hi", config(tracker))
    assert len(provider.requests) == 1
    assert only(stored(tracker, rows))["cache_hit"] is False


async def test_a_chain_around_the_model_is_not_billed_again(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Chains and parsers are runs as well; only the model's is a call."""
    chain = provider.chat_openai() | StrOutputParser()
    for mode in ("invoke", "ainvoke", "stream", "astream"):
        await ask(chain, mode, config(tracker))
    found = stored(tracker, rows)
    assert len(found) == 4
    assert {row["total_cost"] for row in found} == {dollars((100, OPENAI_INPUT), (20, OPENAI_OUTPUT))}
    assert all(row["parent_run_id"] == row["trace_id"] for row in found)


async def test_a_call_is_priced_as_of_its_start(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """A price that changes while calls wait to be sent must not change theirs."""
    now = datetime.now(UTC)
    tracker = make_tracker(
        prices=[
            Price("gpt-4o-mini", input="1", output="2", provider="openai", valid_from=now - timedelta(days=9)),
            Price("gpt-4o-mini", input="3", output="4", provider="openai", valid_from=now + timedelta(days=9)),
        ]
    )
    await provider.chat_openai().ainvoke("Hi", config(tracker))
    row = only(stored(tracker, rows))
    assert row["total_cost"] == dollars((100, "1"), (20, "2"))
    assert row["price_version"].startswith("own price openai/gpt-4o-mini from ")
    assert row["created_at"] >= now
    assert isinstance(row["total_cost"], Decimal)
