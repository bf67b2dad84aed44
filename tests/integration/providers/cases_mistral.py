"""Cases of Mistral's chat completions, as `ChatMistralAI` receives them.

Usage stands in `usage`: `prompt_tokens` with the cached ones in `prompt_tokens_details.cached_tokens` (the same count again in
`num_cached_tokens`), `completion_tokens` with thoughts included, `prompt_audio_seconds`. The integration hands on the details
of an invoked call alone; of a stream it keeps the three totals.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
from langchain_mistralai import ChatMistralAI

from tests.integration.providers.chat_completions import chunk, completion, deltas, tool_call
from tests.integration.providers.corpus import Case
from tests.integration.providers.failing import Failure
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

_CHAT: Final = "https://docs.mistral.ai/api/endpoint/chat"
_CACHING: Final = "https://docs.mistral.ai/inference/conversations/advanced/prompt-caching"
_REASONING: Final = "https://docs.mistral.ai/studio-api/conversations/reasoning"
_AUDIO: Final = "https://docs.mistral.ai/studio/audio/overview"

_THOUGHTS: Final = "thought " * 950  # 7600 bytes, 1900 tokens by the rule of four bytes a token
_THINKING: Final = [
    {"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHTS}]},
    {"type": "text", "text": "Paris"},
]


def build(url: str, case: Case) -> ChatMistralAI:
    """The model of a case."""
    return ChatMistralAI(model=case.model, api_key="key", base_url=f"{url}/v1", max_retries=1, **case.settings)


def chunks(body: Json) -> list[Json]:
    """The body as a stream: the usage comes with the last event."""
    usage = {"usage": body["usage"]} if "usage" in body else {}
    return [*deltas(body), chunk(body, {"content": ""}, body["choices"][0]["finish_reason"], **usage)]


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Mistral sends for a case."""
    if request.body.get("stream"):
        return as_events(chunks(case.body) if case.chunks is None else case.chunks, done=case.chunks is None)
    return as_json(case.body)


def _usage(prompt: int, completion_tokens: int, **more: Any) -> Json:
    total = prompt + completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion_tokens, "total_tokens": total, **more}


def _cached(count: int) -> Json:
    return {"prompt_tokens_details": {"cached_tokens": count}, "num_cached_tokens": count}


CASES: Final = (
    Case(
        name="plain",
        source=_CHAT,
        model="mistral-medium-2604",
        body=completion("mistral-medium-2604", _usage(1200, 350), content="Paris"),
        tokens={"prompt_tokens": 1200, "completion_tokens": 350},
        cost="1200*1.50/M + 350*7.50/M",
    ),
    Case(
        name="small",
        source=_CHAT,
        model="ministral-8b-2512",
        body=completion("ministral-8b-2512", _usage(15, 4), content="Paris"),
        tokens={"prompt_tokens": 15, "completion_tokens": 4},
        cost="15*0.15/M + 4*0.15/M",
    ),
    Case(
        name="latest, whose price changed on 2026-06-16",
        source=_CHAT,
        model="mistral-medium-latest",
        body=completion("mistral-medium-2604", _usage(1000, 1000), content="Paris"),
        tokens={"prompt_tokens": 1000, "completion_tokens": 1000},
        cost="1000*1.50/M + 1000*7.50/M",
    ),
    Case(
        name="the third price of a model",
        source=_CHAT,
        model="mistral-large-4",
        body=completion("mistral-large-4", _usage(9_000, 2_000), content="Paris"),
        tokens={"prompt_tokens": 9_000, "completion_tokens": 2_000},
        cost="9000*0.70/M + 2000*2.10/M",
    ),
    Case(
        name="reasoning, which is part of the completion",
        source=_REASONING,
        model="magistral-medium-2509",
        body=completion("magistral-medium-2509", _usage(500, 1902), content=_THINKING),
        tokens={"prompt_tokens": 500, "completion_tokens": 1902},
        cost="500*2/M + 1902*5/M",
    ),
    Case(
        name="a call of a tool",
        source="https://docs.mistral.ai/studio-api/conversations/function-calling",
        model="mistral-large-2512",
        body=completion(
            "mistral-large-2512",
            _usage(2100, 60),
            finish_reason="tool_calls",
            content="",
            tool_calls=[tool_call()],
        ),
        tokens={"prompt_tokens": 2100, "completion_tokens": 60},
        cost="2100*0.50/M + 60*1.50/M",
    ),
    Case(
        name="code",
        source=_CHAT,
        model="devstral-2512",
        body=completion("devstral-2512", _usage(48_000, 1_200), content="def paris(): ..."),
        tokens={"prompt_tokens": 48_000, "completion_tokens": 1_200},
        cost="48000*0.40/M + 1200*2/M",
    ),
    Case(
        name="a model tuned by the team, whose price nobody lists",
        source="https://docs.mistral.ai/guides/finetuning",
        model="ft:open-mistral-7b:5e1a3f57:20261001:b1c2d3e4",
        body=completion("ft:open-mistral-7b:5e1a3f57:20261001:b1c2d3e4", _usage(120, 30), content="Paris"),
        tokens={"prompt_tokens": 120, "completion_tokens": 30},
        cost=None,
    ),
    Case(
        name="a model that is not known",
        source=_CHAT,
        model="mistral-enormous-2699",
        body=completion("mistral-enormous-2699", _usage(120, 30), content="Paris"),
        tokens={"prompt_tokens": 120, "completion_tokens": 30},
        cost=None,
    ),
)
"""Alike invoked and streamed."""

INVOKED: Final = (
    Case(
        name="cached, as the issue has it",
        source=_CACHING,
        model="mistral-medium-2604",
        body=completion("mistral-medium-2604", _usage(80_100, 20, **_cached(76_800)), content="Paris"),
        tokens={"prompt_tokens": 80_100, "completion_tokens": 20, "cache_read_tokens": 76_800},
        cost="3300*1.50/M + 76800*0.15/M + 20*7.50/M",  # 0.01662
    ),
    Case(
        name="cached, and nothing else of the prompt",
        source=_CACHING,
        model="mistral-large-2512",
        body=completion("mistral-large-2512", _usage(4_096, 100, **_cached(4_096)), content="Paris"),
        tokens={"prompt_tokens": 4_096, "completion_tokens": 100, "cache_read_tokens": 4_096},
        cost="4096*0.05/M + 100*1.50/M",
    ),
    Case(
        name="nothing cached",
        source=_CACHING,
        model="mistral-small-2603",
        body=completion("mistral-small-2603", _usage(4_096, 100, **_cached(0)), content="Paris"),
        tokens={"prompt_tokens": 4_096, "completion_tokens": 100},
        cost="4096*0.15/M + 100*0.60/M",
    ),
    Case(
        name="cached, with the details alone",
        source=_CACHING,
        model="codestral-2508",
        body=completion(
            "codestral-2508",
            _usage(10_000, 500, prompt_tokens_details={"cached_tokens": 9_000}),
            content="def paris(): ...",
        ),
        tokens={"prompt_tokens": 10_000, "completion_tokens": 500, "cache_read_tokens": 9_000},
        cost="1000*0.30/M + 9000*0.03/M + 500*0.90/M",
    ),
    Case(
        name="cached, of a model whose entry has no rate for it",
        source=_CACHING,
        model="magistral-medium-2509",
        body=completion("magistral-medium-2509", _usage(10_000, 500, **_cached(8_000)), content="Paris"),
        tokens={"prompt_tokens": 10_000, "completion_tokens": 500, "cache_read_tokens": 8_000},
        cost="2000*2/M + 8000*0.20/M + 500*5/M",
    ),
    Case(
        # Three minutes of sound, billed by the hour. Its tokens are in the total and in nothing else.
        name="sound, billed by its seconds",
        source=_AUDIO,
        model="voxtral-small-2507",
        body=completion(
            "voxtral-small-2507",
            {"prompt_tokens": 14, "completion_tokens": 635, "total_tokens": 2_979, "prompt_audio_seconds": 180},
            content="Paris",
        ),
        tokens={"prompt_tokens": 14, "completion_tokens": 635},
        units={"input_audio_seconds": 180},
        cost="14*0.10/M + 635*0.40/M + 180*0.24/3600",
        fees="180*0.24/3600",
    ),
    Case(
        name="a model of sound that heard none",
        source=_AUDIO,
        model="voxtral-small-2507",
        body=completion("voxtral-small-2507", _usage(14, 635, prompt_audio_seconds=None), content="Paris"),
        tokens={"prompt_tokens": 14, "completion_tokens": 635},
        cost="14*0.10/M + 635*0.40/M",
    ),
    Case(
        name="no usage",
        source=_CHAT,
        model="magistral-medium-2509",
        body=completion("magistral-medium-2509", None, content=_THINKING),
        tokens={"prompt_tokens": 2, "completion_tokens": 1902, "reasoning_tokens": 1_900},
        cost="2*2/M + 1902*5/M",
        estimated=True,
    ),
)
"""Where the stream holds less."""

STREAMED: Final = (
    Case(
        name="cached, which the integration does not hand on",
        source=_CACHING,
        model="mistral-medium-2604",
        body=completion("mistral-medium-2604", _usage(80_100, 20, **_cached(76_800)), content="Paris"),
        tokens={"prompt_tokens": 80_100, "completion_tokens": 20},
        cost="80100*1.50/M + 20*7.50/M",
        notes=("cache_hidden",),
    ),
    Case(
        name="no usage",
        source=_CHAT,
        model="magistral-medium-2509",
        body=completion("magistral-medium-2509", None, content=_THINKING),
        tokens={"prompt_tokens": 2, "completion_tokens": 1902, "reasoning_tokens": 1_900},
        cost="2*2/M + 1902*5/M",
        estimated=True,
    ),
    Case(
        name="broken off while it thought",
        source=_REASONING,
        model="magistral-medium-2509",
        body={},
        chunks=deltas(completion("magistral-medium-2509", None, content=_THINKING[:1])),
        tokens={"prompt_tokens": 2, "completion_tokens": 1900, "reasoning_tokens": 1_900},
        cost="2*2/M + 1900*5/M",
        estimated=True,
    ),
)
"""Streams alone."""


def _failing(name: str, tokens: dict[str, int], cost: str) -> Case:
    return Case(name=name, source=_CHAT, model="mistral-medium-2604", body={}, tokens=tokens, cost=cost)


def _refused(status: int, kind: str) -> Failure:
    error = {"object": "error", "message": "No.", "type": kind, "param": None, "code": "1300"}
    return Failure(
        case=_failing(f"refused with {status}", {}, "0"),
        reply=as_json(error, status),
        error=httpx.HTTPStatusError,
    )


REFUSED: Final = (_refused(429, "rate_limited"), _refused(400, "invalid_request_message"), _refused(500, "server"))
"""By the provider, who bills nothing of it; alike invoked and streamed."""


def _spoilt(**keys: Any) -> WireAnswer:
    usage = _usage(4_000, 1_000, **_cached(3_000))
    return as_json({**completion("mistral-medium-2604", usage, content="Paris"), **keys})


_PAID: Final = {"prompt_tokens": 4_000, "completion_tokens": 1_000, "cache_read_tokens": 3_000}
_PAID_COST: Final = "1000*1.50/M + 3000*0.15/M + 1000*7.50/M"

FAILED: Final = (
    Failure(
        case=_failing("paid, without a message", _PAID, _PAID_COST),
        reply=_spoilt(choices=[{"index": 0, "message": None, "finish_reason": "stop"}]),
        error=TypeError,
    ),
    Failure(
        case=_failing("paid, of a role that the integration does not know", _PAID, _PAID_COST),
        reply=_spoilt(choices=[{"index": 0, "message": {"role": "tool", "content": "Paris"}}]),
        error=ValueError,
    ),
    Failure(
        case=_failing("paid, without choices", _PAID, _PAID_COST),
        reply=_spoilt(choices=None),
        error=TypeError,
    ),
)
"""Answers that were paid, and that the integration then refused; invoked."""
