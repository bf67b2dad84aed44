"""Cases of Fireworks' chat completions, as `ChatFireworks` receives them.

Usage stands in `usage`, of a stream in an event of its own at the end: `prompt_tokens` with the cached ones in
`prompt_tokens_details.cached_tokens`, `completion_tokens` with thoughts included. `service_tier` is named in the answer where it
was in force. Fast variants are models of their own.
"""

from __future__ import annotations

from typing import Any, Final

from langchain_fireworks import ChatFireworks
from langchain_fireworks.chat_models import FireworksAPIError, FireworksRateLimitError

from tests.integration.providers.chat_completions import chunk, completion, deltas, tool_call
from tests.integration.providers.corpus import Case
from tests.integration.providers.failing import Failure
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

_CHAT: Final = "https://docs.fireworks.ai/api-reference/post-chatcompletions"
_PRICES: Final = "https://docs.fireworks.ai/serverless/pricing"
_CACHING: Final = "https://docs.fireworks.ai/guides/prompt-caching"
_REASONING: Final = "https://docs.fireworks.ai/guides/reasoning"
_TIERS: Final = "https://docs.fireworks.ai/serverless/priority-and-fast"
_DEPLOYED: Final = "https://docs.fireworks.ai/guides/ondemand-deployments"

_THOUGHTS: Final = "thought " * 950  # 7600 bytes, 1900 tokens by the rule of four bytes a token
_MODELS: Final = "accounts/fireworks/models/"


def build(url: str, case: Case) -> ChatFireworks:
    """The model of a case."""
    return ChatFireworks(
        model=case.model, api_key="key", base_url=f"{url}/inference/v1", max_retries=0, **case.settings
    )


def chunks(body: Json) -> list[Json]:
    """The body as a stream: the usage comes after the last choice, in an event of its own."""
    tier = {"service_tier": body["service_tier"]} if "service_tier" in body else {}
    events = [*deltas(body), chunk(body, {}, body["choices"][0]["finish_reason"], **tier)]
    if "usage" in body:
        events.append({**chunk(body, {}), "choices": [], "usage": body["usage"]})
    return events


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Fireworks sends for a case."""
    if request.body.get("stream"):
        return as_events(chunks(case.body) if case.chunks is None else case.chunks, done=case.chunks is None)
    return as_json(case.body)


def _usage(prompt: int, completion_tokens: int, *, cached: int = 0, reasoning: int = 0) -> Json:
    usage: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


CASES: Final = (
    Case(
        name="plain",
        source=_PRICES,
        model=f"{_MODELS}deepseek-v3p2",
        body=completion(f"{_MODELS}deepseek-v3p2", _usage(1_500, 300), content="Paris"),
        tokens={"prompt_tokens": 1_500, "completion_tokens": 300},
        cost="1500*0.56/M + 300*1.68/M",
    ),
    Case(
        name="cached",
        source=_CACHING,
        model=f"{_MODELS}deepseek-v3p2",
        body=completion(f"{_MODELS}deepseek-v3p2", _usage(9_000, 300, cached=8_192), content="Paris"),
        tokens={"prompt_tokens": 9_000, "completion_tokens": 300, "cache_read_tokens": 8_192},
        cost="808*0.56/M + 8192*0.28/M + 300*1.68/M",
    ),
    Case(
        name="cached, at half the price of a model whose entry has no rate for it",
        source=_PRICES,
        model=f"{_MODELS}glm-4p7",
        body=completion(f"{_MODELS}glm-4p7", _usage(9_000, 300, cached=8_192), content="Paris"),
        tokens={"prompt_tokens": 9_000, "completion_tokens": 300, "cache_read_tokens": 8_192},
        cost="808*0.60/M + 8192*0.30/M + 300*2.20/M",
    ),
    Case(
        name="cached, at the price since 2026-10-19",
        source=_PRICES,
        model=f"{_MODELS}gpt-oss-120b",
        body=completion(f"{_MODELS}gpt-oss-120b", _usage(6_000, 1_000, cached=5_000), content="Paris"),
        tokens={"prompt_tokens": 6_000, "completion_tokens": 1_000, "cache_read_tokens": 5_000},
        cost="1000*0.15/M + 5000*0.015/M + 1000*0.60/M",
    ),
    Case(
        name="cached and reasoning, counted apart",
        source=_REASONING,
        model=f"{_MODELS}kimi-k2p6",
        body=completion(
            f"{_MODELS}kimi-k2p6",
            _usage(10_000, 2_400, cached=4_000, reasoning=1_900),
            content="Paris",
            reasoning_content=_THOUGHTS,
        ),
        tokens={
            "prompt_tokens": 10_000,
            "completion_tokens": 2_400,
            "cache_read_tokens": 4_000,
            "reasoning_tokens": 1_900,
        },
        cost="6000*0.95/M + 4000*0.16/M + 2400*4/M",
    ),
    Case(
        name="reasoning, not counted apart",
        source=_REASONING,
        model=f"{_MODELS}deepseek-v4-pro",
        body=completion(f"{_MODELS}deepseek-v4-pro", _usage(700, 1_905), content="Paris", reasoning_content=_THOUGHTS),
        tokens={"prompt_tokens": 700, "completion_tokens": 1_905},
        cost="700*1.74/M + 1905*3.48/M",
    ),
    Case(
        name="fast, a model of its own",
        source=_TIERS,
        model="accounts/fireworks/routers/kimi-k2p6-fast",
        body=completion("accounts/fireworks/routers/kimi-k2p6-fast", _usage(2_000, 500, cached=1_000), content="Paris"),
        tokens={"prompt_tokens": 2_000, "completion_tokens": 500, "cache_read_tokens": 1_000},
        cost="1000*2/M + 1000*0.30/M + 500*8/M",
    ),
    Case(
        name="in the United States, at the price since 2026-09-01",
        source=_PRICES,
        model="accounts/fireworks/routers/kimi-k3-us",
        body=completion("accounts/fireworks/routers/kimi-k3-us", _usage(2_000, 500, cached=1_000), content="Paris"),
        tokens={"prompt_tokens": 2_000, "completion_tokens": 500, "cache_read_tokens": 1_000},
        cost="1000*4.50/M + 1000*0.45/M + 500*22.50/M",
    ),
    Case(
        name="a call of a tool",
        source="https://docs.fireworks.ai/guides/function-calling",
        model=f"{_MODELS}glm-5p1",
        body=completion(
            f"{_MODELS}glm-5p1",
            _usage(420, 33),
            finish_reason="tool_calls",
            content=None,
            tool_calls=[tool_call()],
        ),
        tokens={"prompt_tokens": 420, "completion_tokens": 33},
        cost="420*1.40/M + 33*4.40/M",
    ),
    Case(
        # Dearer than the standard, at a price that genai-prices does not have: the cost is a lower bound, and says so.
        name="priority, whose price nobody lists",
        source=_TIERS,
        model=f"{_MODELS}kimi-k2p5",
        settings={"service_tier": "priority"},
        body={
            **completion(f"{_MODELS}kimi-k2p5", _usage(1_000, 1_000), content="Paris"),
            "service_tier": "priority",
        },
        tokens={"prompt_tokens": 1_000, "completion_tokens": 1_000},
        cost="1000*0.60/M + 1000*3/M",
        notes=("tier_unpriced:priority",),
    ),
    Case(
        name="a deployment of the team's own, billed by the second",
        source=_DEPLOYED,
        model=f"{_MODELS}qwen3-235b-a22b#accounts/my-team/deployments/d7f2",
        body=completion(
            f"{_MODELS}qwen3-235b-a22b#accounts/my-team/deployments/d7f2", _usage(1_000, 100), content="Paris"
        ),
        tokens={"prompt_tokens": 1_000, "completion_tokens": 100},
        cost=None,
    ),
    Case(
        name="a model of the team's own",
        source=_DEPLOYED,
        model="accounts/my-team/models/support-bot",
        body=completion("accounts/my-team/models/support-bot", _usage(1_000, 100), content="Paris"),
        tokens={"prompt_tokens": 1_000, "completion_tokens": 100},
        cost=None,
    ),
)
"""Alike invoked and streamed."""

INVOKED: Final = (
    Case(
        name="no usage",
        source=_REASONING,
        model=f"{_MODELS}deepseek-v4-pro",
        body=completion(f"{_MODELS}deepseek-v4-pro", None, content="Paris", reasoning_content=_THOUGHTS),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
        cost="2*1.74/M + 1902*3.48/M",
        estimated=True,
    ),
)
"""Invoked alone."""

_STOPPED: Final = deltas(completion(f"{_MODELS}deepseek-v4-pro", None, reasoning_content=_THOUGHTS))

STREAMED: Final = (
    Case(
        name="no usage asked for",
        source=_CHAT,
        model=f"{_MODELS}deepseek-v4-pro",
        settings={"stream_usage": False},
        body=completion(f"{_MODELS}deepseek-v4-pro", None, content="Paris", reasoning_content=_THOUGHTS),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
        cost="2*1.74/M + 1902*3.48/M",
        estimated=True,
    ),
    Case(
        name="broken off while it thought",
        source=_REASONING,
        model=f"{_MODELS}deepseek-v4-pro",
        body={},
        chunks=_STOPPED,
        tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
        cost="2*1.74/M + 1900*3.48/M",
        estimated=True,
    ),
    Case(
        name="an error after the thoughts, of which the integration says nothing",
        source=_CHAT,
        model=f"{_MODELS}deepseek-v4-pro",
        body={},
        chunks=[*_STOPPED, {"error": {"object": "error", "type": "server_error", "message": "Overloaded."}}],
        tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
        cost="2*1.74/M + 1900*3.48/M",
        estimated=True,
    ),
    Case(
        name="usage with the last choice",
        source=_CHAT,
        model=f"{_MODELS}deepseek-v3p2",
        body={},
        chunks=[
            *deltas(completion(f"{_MODELS}deepseek-v3p2", None, content="Paris")),
            chunk(completion(f"{_MODELS}deepseek-v3p2", None), {}, "stop", usage=_usage(9_000, 300, cached=8_192)),
        ],
        tokens={"prompt_tokens": 9_000, "completion_tokens": 300, "cache_read_tokens": 8_192},
        cost="808*0.56/M + 8192*0.28/M + 300*1.68/M",
    ),
)
"""Streams alone."""


def _failing(name: str, tokens: dict[str, int], cost: str) -> Case:
    return Case(name=name, source=_CHAT, model=f"{_MODELS}deepseek-v3p2", body={}, tokens=tokens, cost=cost)


def _refused(status: int, error: type[Exception]) -> Failure:
    body = {"error": {"object": "error", "type": "invalid_request_error", "message": "No."}}
    return Failure(case=_failing(f"refused with {status}", {}, "0"), reply=as_json(body, status), error=error)


REFUSED: Final = (_refused(429, FireworksRateLimitError), _refused(503, FireworksAPIError))
"""By the provider, who bills nothing of it; alike invoked and streamed."""


def _spoilt(**keys: Any) -> WireAnswer:
    usage = _usage(4_000, 1_000, cached=3_000)
    return as_json({**completion(f"{_MODELS}deepseek-v3p2", usage, content="Paris"), **keys})


_PAID: Final = {"prompt_tokens": 4_000, "completion_tokens": 1_000, "cache_read_tokens": 3_000}
_PAID_COST: Final = "1000*0.56/M + 3000*0.28/M + 1000*1.68/M"

FAILED: Final = (
    Failure(case=_failing("paid, without choices", _PAID, _PAID_COST), reply=_spoilt(choices=None), error=TypeError),
    Failure(
        case=_failing("paid, without a message", _PAID, _PAID_COST),
        reply=_spoilt(choices=[{"index": 0, "message": None, "finish_reason": "stop"}]),
        error=AttributeError,
    ),
)
"""Answers that were paid, and that the integration then refused; invoked."""
