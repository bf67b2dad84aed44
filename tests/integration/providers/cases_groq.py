"""Cases of Groq's chat completions, as `ChatGroq` receives them.

Usage stands in `usage`, of a stream in `x_groq.usage` of its last event: `prompt_tokens` with the cached ones in
`prompt_tokens_details.cached_tokens`, `completion_tokens` with `completion_tokens_details.reasoning_tokens`. Tools that Groq ran
stand in the message's `executed_tools`. The tiers cost the same: https://console.groq.com/docs/flex-processing.
"""

from __future__ import annotations

from typing import Any, Final

from groq import APIError, APIStatusError, BadRequestError, RateLimitError
from langchain_groq import ChatGroq

from tests.integration.providers.chat_completions import chunk, completion, deltas, tool_call
from tests.integration.providers.corpus import Case
from tests.integration.providers.failing import Failure
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

_CHAT: Final = "https://console.groq.com/docs/api-reference#chat-create"
_CACHING: Final = "https://console.groq.com/docs/prompt-caching"
_REASONING: Final = "https://console.groq.com/docs/reasoning"
_FLEX: Final = "https://console.groq.com/docs/flex-processing"
_TIERS: Final = "https://console.groq.com/docs/service-tiers"
_BUILT_IN: Final = "https://console.groq.com/docs/tool-use/built-in-tools"
_COMPOUND: Final = "https://console.groq.com/docs/compound/systems"
_MODELS: Final = "https://console.groq.com/docs/models"

_THOUGHTS: Final = "thought " * 950  # 7600 bytes, 1900 tokens by the rule of four bytes a token


def build(url: str, case: Case) -> ChatGroq:
    """The model of a case."""
    return ChatGroq(model=case.model, api_key="key", base_url=url, max_retries=0, **case.settings)


def chunks(body: Json) -> list[Json]:
    """The body as a stream: the usage comes with the last event."""
    usage = {"usage": body["usage"]} if "usage" in body else {}
    last = chunk(body, {}, body["choices"][0]["finish_reason"], x_groq={"id": "req_01", **usage})
    return [*deltas(body), last]


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Groq sends for a case."""
    if request.body.get("stream"):
        return as_events(chunks(case.body) if case.chunks is None else case.chunks, done=case.chunks is None)
    return as_json(case.body)


def _usage(prompt: int, completion_tokens: int, *, cached: int = 0, reasoning: int = 0) -> Json:
    usage: Json = {
        "queue_time": 0.037493756,
        "prompt_tokens": prompt,
        "prompt_time": 0.000680594,
        "completion_tokens": completion_tokens,
        "completion_time": 0.463333333,
        "total_tokens": prompt + completion_tokens,
        "total_time": 0.464013927,
    }
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def _ran(number: int, kind: str) -> Json:
    return {"index": number, "type": kind, "arguments": "{}", "output": "found"}


CASES: Final = (
    Case(
        name="plain",
        source=_CHAT,
        model="llama-3.3-70b-versatile",
        body=completion("llama-3.3-70b-versatile", _usage(18, 556), content="Paris"),
        tokens={"prompt_tokens": 18, "completion_tokens": 556},
        cost="18*0.59/M + 556*0.79/M",
    ),
    Case(
        name="the cheapest model",
        source=_MODELS,
        model="llama-3.1-8b-instant",
        body=completion("llama-3.1-8b-instant", _usage(43, 7), content="Paris"),
        tokens={"prompt_tokens": 43, "completion_tokens": 7},
        cost="43*0.05/M + 7*0.08/M",
    ),
    Case(
        name="a name that begins with its maker",
        source=_MODELS,
        model="meta-llama/llama-4-scout-17b-16e-instruct",
        body=completion("meta-llama/llama-4-scout-17b-16e-instruct", _usage(2_600, 90), content="Paris"),
        tokens={"prompt_tokens": 2_600, "completion_tokens": 90},
        cost="2600*0.11/M + 90*0.34/M",
    ),
    Case(
        name="cached",
        source=_CACHING,
        model="moonshotai/kimi-k2-instruct-0905",
        body=completion("moonshotai/kimi-k2-instruct-0905", _usage(4_641, 1_817, cached=4_608), content="Paris"),
        tokens={"prompt_tokens": 4_641, "completion_tokens": 1_817, "cache_read_tokens": 4_608},
        cost="33*1/M + 4608*0.50/M + 1817*3/M",
    ),
    Case(
        name="reasoning",
        source=_REASONING,
        model="openai/gpt-oss-20b",
        body=completion(
            "openai/gpt-oss-20b", _usage(200, 1_950, reasoning=1_900), content="Paris", reasoning=_THOUGHTS
        ),
        tokens={"prompt_tokens": 200, "completion_tokens": 1_950, "reasoning_tokens": 1_900},
        cost="200*0.075/M + 1950*0.30/M",
    ),
    Case(
        name="cached and reasoning",
        source=_CACHING,
        model="openai/gpt-oss-120b",
        body=completion(
            "openai/gpt-oss-120b",
            _usage(10_000, 2_000, cached=8_192, reasoning=1_500),
            content="Paris",
            reasoning=_THOUGHTS,
        ),
        tokens={
            "prompt_tokens": 10_000,
            "completion_tokens": 2_000,
            "cache_read_tokens": 8_192,
            "reasoning_tokens": 1_500,
        },
        cost="1808*0.15/M + 8192*0.075/M + 2000*0.60/M",
    ),
    Case(
        name="reasoning told apart, and not counted apart",
        source=_REASONING,
        model="qwen/qwen3-32b",
        settings={"reasoning_format": "parsed"},
        body=completion("qwen/qwen3-32b", _usage(25, 1_903), content="Paris", reasoning=_THOUGHTS),
        tokens={"prompt_tokens": 25, "completion_tokens": 1_903},
        cost="25*0.29/M + 1903*0.59/M",
    ),
    Case(
        name="reasoning inside the text",
        source=_REASONING,
        model="qwen/qwen3.8-27b",
        settings={"reasoning_format": "raw"},
        body=completion("qwen/qwen3.8-27b", _usage(25, 1_910), content=f"<think>{_THOUGHTS}</think>Paris"),
        tokens={"prompt_tokens": 25, "completion_tokens": 1_910},
        cost="25*0.80/M + 1910*4/M",
    ),
    Case(
        name="a call of a tool",
        source="https://console.groq.com/docs/tool-use/local-tool-calling",
        model="openai/gpt-oss-120b",
        body=completion(
            "openai/gpt-oss-120b",
            _usage(286, 51, reasoning=20),
            finish_reason="tool_calls",
            content=None,
            reasoning="Look it up.",
            tool_calls=[tool_call()],
        ),
        tokens={"prompt_tokens": 286, "completion_tokens": 51, "reasoning_tokens": 20},
        cost="286*0.15/M + 51*0.60/M",
    ),
    Case(
        name="flex costs what on demand costs",
        source=_FLEX,
        model="llama-3.3-70b-versatile",
        settings={"service_tier": "flex"},
        body={
            **completion("llama-3.3-70b-versatile", _usage(1_000, 1_000), content="Paris"),
            "service_tier": "flex",
        },
        tokens={"prompt_tokens": 1_000, "completion_tokens": 1_000},
        cost="1000*0.59/M + 1000*0.79/M",
    ),
    Case(
        name="a tier left to the provider",
        source=_TIERS,
        model="openai/gpt-oss-120b",
        settings={"service_tier": "auto"},
        body={
            **completion("openai/gpt-oss-120b", _usage(1_000, 1_000), content="Paris"),
            "service_tier": "on_demand",
        },
        tokens={"prompt_tokens": 1_000, "completion_tokens": 1_000},
        cost="1000*0.15/M + 1000*0.60/M",
    ),
    Case(
        name="tools that the provider ran, whose price nobody lists",
        source=_BUILT_IN,
        model="openai/gpt-oss-120b",
        body=completion(
            "openai/gpt-oss-120b",
            _usage(12_000, 600, reasoning=400),
            content="Paris",
            reasoning=_THOUGHTS,
            executed_tools=[_ran(0, "search"), _ran(1, "search"), _ran(2, "python")],
        ),
        tokens={"prompt_tokens": 12_000, "completion_tokens": 600, "reasoning_tokens": 400},
        units={"web_searches": 2, "code_executions": 1},
        cost="12000*0.15/M + 600*0.60/M",
        notes=("unit_unpriced:web_searches", "unit_unpriced:code_executions"),
    ),
    Case(
        name="several models and tools in one answer, which has no list price",
        source=_COMPOUND,
        model="groq/compound",
        body={
            **completion(
                "groq/compound",
                _usage(9_000, 900),
                content="Paris",
                reasoning=_THOUGHTS,
                executed_tools=[_ran(0, "search")],
            ),
            "usage_breakdown": {
                "models": [
                    {"model": "openai/gpt-oss-120b", "usage": _usage(6_000, 500)},
                    {"model": "llama-3.3-70b-versatile", "usage": _usage(3_000, 400)},
                ]
            },
        },
        tokens={"prompt_tokens": 9_000, "completion_tokens": 900},
        units={"web_searches": 1},
        cost=None,
    ),
    Case(
        name="a model that is not listed",
        source=_MODELS,
        model="allam-2-7b",
        body=completion("allam-2-7b", _usage(40, 12), content="Paris"),
        tokens={"prompt_tokens": 40, "completion_tokens": 12},
        cost=None,
    ),
)
"""Alike invoked and streamed."""

INVOKED: Final = (
    Case(
        name="two answers to one prompt, counted once",
        source=_CHAT,
        model="llama-3.1-8b-instant",
        settings={"n": 2},
        body={
            **completion("llama-3.1-8b-instant", _usage(43, 20), content="Paris"),
            "choices": [
                {"index": number, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
                for number in range(2)
            ],
        },
        tokens={"prompt_tokens": 43, "completion_tokens": 20},
        cost="43*0.05/M + 20*0.08/M",
    ),
    Case(
        name="no usage",
        source=_REASONING,
        model="openai/gpt-oss-120b",
        body=completion("openai/gpt-oss-120b", None, content="Paris", reasoning=_THOUGHTS),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
        cost="2*0.15/M + 1902*0.60/M",
        estimated=True,
    ),
)
"""Invoked alone."""

STREAMED: Final = (
    Case(
        name="no usage",
        source=_REASONING,
        model="openai/gpt-oss-120b",
        body=completion("openai/gpt-oss-120b", None, content="Paris", reasoning=_THOUGHTS),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
        cost="2*0.15/M + 1902*0.60/M",
        estimated=True,
    ),
    Case(
        name="broken off while it thought",
        source=_REASONING,
        model="openai/gpt-oss-20b",
        body={},
        chunks=deltas(completion("openai/gpt-oss-20b", None, reasoning=_THOUGHTS)),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
        cost="2*0.075/M + 1900*0.30/M",
        estimated=True,
    ),
)
"""Streams alone."""


def _failing(name: str, tokens: dict[str, int], cost: str, *, estimated: bool = False) -> Case:
    return Case(
        name=name, source=_CHAT, model="openai/gpt-oss-120b", body={}, tokens=tokens, cost=cost, estimated=estimated
    )


def _refused(status: int, error: type[Exception], **body: Any) -> Failure:
    return Failure(
        case=_failing(f"refused with {status}", {}, "0"), reply=as_json({"error": body}, status), error=error
    )


REFUSED: Final = (
    _refused(429, RateLimitError, message="Rate limit reached.", type="tokens", code="rate_limit_exceeded"),
    _refused(498, APIStatusError, message="Flex tier capacity exceeded.", type="capacity_exceeded"),
    _refused(
        400,
        BadRequestError,
        message="Failed to call a function.",
        type="invalid_request_error",
        code="tool_use_failed",
        failed_generation="<function=get_weather>",
    ),
)
"""By the provider, who bills nothing of it; alike invoked and streamed."""


def _spoilt(**keys: Any) -> WireAnswer:
    usage = _usage(4_000, 1_000, cached=3_000, reasoning=900)
    return as_json({**completion("openai/gpt-oss-120b", usage, content="Paris"), **keys})


_PAID: Final = {
    "prompt_tokens": 4_000,
    "completion_tokens": 1_000,
    "cache_read_tokens": 3_000,
    "reasoning_tokens": 900,
}
_PAID_COST: Final = "1000*0.15/M + 3000*0.075/M + 1000*0.60/M"

FAILED: Final = (
    Failure(case=_failing("paid, without choices", _PAID, _PAID_COST), reply=_spoilt(choices=None), error=TypeError),
    Failure(
        case=_failing("paid, without a message", _PAID, _PAID_COST),
        reply=_spoilt(choices=[{"index": 0, "message": None, "finish_reason": "stop"}]),
        error=AttributeError,
    ),
)
"""Answers that were paid, and that the integration then refused; invoked."""

_ERROR: Final[Json] = {"error": {"message": "Over capacity.", "type": "internal_server_error", "code": "over_capacity"}}

FAILED_STREAMS: Final = (
    Failure(
        case=_failing(
            "an error after the thoughts",
            {"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
            "2*0.15/M + 1900*0.60/M",
            estimated=True,
        ),
        reply=as_events([*deltas(completion("openai/gpt-oss-120b", None, reasoning=_THOUGHTS)), _ERROR]),
        error=APIError,
    ),
)
"""Streams that were paid as far as they came."""
