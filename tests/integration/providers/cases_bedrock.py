"""Answers of Amazon Bedrock, and what they cost."""

from __future__ import annotations

from typing import Final

from tests.integration.providers import wire_anthropic as anthropic
from tests.integration.providers.corpus import Case
from tests.integration.providers.wire_bedrock import TEXT, THOUGHT, body, case, counts, kept, said
from tests.support.wire_server import Json

_DOCS: Final = "https://docs.aws.amazon.com/bedrock/latest/userguide/"
_PRICES: Final = "https://aws.amazon.com/bedrock/pricing/"
_PROFILES: Final = _DOCS + "inference-profiles-support.html"
_CACHE: Final = _DOCS + "prompt-caching.html"
_REASONING: Final = _DOCS + "inference-reasoning.html"
_TIERS: Final = _DOCS + "service-tiers-inference.html"
_LATENCY: Final = _DOCS + "latency-optimized-inference.html"
_MANTLE: Final = _DOCS + "bedrock-mantle.html"
_ARN: Final = "arn:aws:bedrock:us-east-1:123456789012:"

_SONNET: Final = "us.anthropic.claude-sonnet-4-6-v1:0"
_THOUGHTS: Final[Json] = {"usage": {"output_tokens_details": {"thinking_tokens": 1900}}}
_PLAIN: Final = body(counts(1000, 200))

CONVERSE: Final[tuple[Case, ...]] = (
    case("in the US", _PROFILES, _SONNET, _PLAIN, said(1000, 200), "1000*3.3/M + 200*16.5/M"),
    case(
        "in Europe",
        _PROFILES,
        "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
    ),
    case(
        "in Japan",
        _PROFILES,
        "jp.anthropic.claude-haiku-4-5-20251001-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*1.1/M + 200*5.5/M",
    ),
    case(
        "in one region",
        _PROFILES,
        "anthropic.claude-sonnet-4-6-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
    ),
    case(
        "anywhere",
        _PROFILES,
        "global.anthropic.claude-sonnet-4-6-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*3/M + 200*15/M",
    ),
    case(
        "by the ARN of a profile",
        _PROFILES,
        f"{_ARN}inference-profile/{_SONNET}",
        _PLAIN,
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
        settings={"provider": "anthropic", "disable_streaming": False},
    ),
    case(
        "by a profile of the team's own, whose model is known",
        _PROFILES,
        f"{_ARN}application-inference-profile/a1b2c3",
        _PLAIN,
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
        settings={"provider": "anthropic", "base_model_id": _SONNET, "disable_streaming": False},
    ),
    case(
        "by a profile of the team's own, whose model is not known",
        _PROFILES,
        f"{_ARN}application-inference-profile/a1b2c3",
        _PLAIN,
        said(1000, 200),
        None,
        settings={"provider": "anthropic", "disable_streaming": False},
    ),
    case(
        "read and written",
        _CACHE,
        _SONNET,
        body(counts(100, 40, read=5000, written=3000)),
        said(8100, 40, cache_read_tokens=5000, cache_write_tokens=3000),
        "100*3.3/M + 5000*0.33/M + 3000*4.125/M + 40*16.5/M",
    ),
    case(
        "written for five minutes and for an hour",
        _CACHE,
        "global.anthropic.claude-sonnet-4-6-v1:0",
        body(counts(100, 40, written=3000, **kept(short=1000, long=2000))),
        said(3100, 40, cache_write_tokens=3000, cache_write_1h_tokens=2000),
        "100*3/M + 1000*3.75/M + 2000*6/M + 40*15/M",
    ),
    case(
        "a total that leaves the cache out",
        _CACHE,
        _SONNET,
        body({**counts(3, 50, read=13_216), "totalTokens": 53}),
        said(13_219, 50, cache_read_tokens=13_216),
        "3*3.3/M + 13216*0.33/M + 50*16.5/M",
    ),
    case(
        "Nova, with a cache",
        _CACHE,
        "us.amazon.nova-pro-v1:0",
        body(counts(400, 120, read=1600)),
        said(2000, 120, cache_read_tokens=1600),
        "400*0.80/M + 1600*0.20/M + 120*3.20/M",
    ),
    case(
        "Nova Lite in Asia",
        _PRICES,
        "apac.amazon.nova-lite-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*0.06/M + 200*0.24/M",
    ),
    case(
        "thinking, counted",
        _REASONING,
        _SONNET,
        body(counts(210, 2300), THOUGHT, TEXT, additionalModelResponseFields=_THOUGHTS),
        said(210, 2300, reasoning_tokens=1900),
        "210*3.3/M + 2300*16.5/M",
        settings={"additional_model_response_field_paths": ["/usage"]},
    ),
    case(
        "thinking, not counted apart",
        _REASONING,
        "us.deepseek.r1-v1:0",
        body(counts(210, 2300), THOUGHT, TEXT),
        said(210, 2300),
        "210*1.35/M + 2300*5.40/M",
    ),
    case(
        "Llama",
        _PRICES,
        "us.meta.llama3-3-70b-instruct-v1:0",
        _PLAIN,
        said(1000, 200),
        "1000*0.72/M + 200*0.72/M",
    ),
    case(
        "Mistral",
        _PRICES,
        "mistral.mistral-large-3-675b-instruct",
        _PLAIN,
        said(1000, 200),
        "1000*0.50/M + 200*1.50/M",
    ),
    case(
        "open weights of OpenAI",
        _PRICES,
        "openai.gpt-oss-120b-1:0",
        _PLAIN,
        said(1000, 200),
        "1000*0.15/M + 200*0.60/M",
    ),
    case(
        "the usual tier",
        _TIERS,
        _SONNET,
        body(counts(1000, 200), serviceTier={"type": "default"}),
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
    ),
    case(
        "a tier whose price is not known",
        _TIERS,
        "openai.gpt-oss-120b-1:0",
        body(counts(1000, 200), serviceTier={"type": "priority"}),
        said(1000, 200),
        "1000*0.15/M + 200*0.60/M",
        notes=("tier_unpriced:priority",),
    ),
    case(
        "a speed whose price is not known",
        _LATENCY,
        "us.amazon.nova-pro-v1:0",
        body(counts(1000, 200), performanceConfig={"latency": "optimized"}),
        said(1000, 200),
        "1000*0.80/M + 200*3.20/M",
        notes=("tier_unpriced:optimized",),
    ),
    case("a model that nobody knows", _PRICES, "us.anthropic.claude-nocturne-9-v1:0", _PLAIN, said(1000, 200), None),
)


def _claude(input_tokens: int, output_tokens: int, model: str = "claude-sonnet-4-6", **more: object) -> Json:
    return anthropic.body(model, anthropic.usage(input_tokens, output_tokens, **more))


INVOKED: Final[tuple[Case, ...]] = (
    case("Claude in the US", _PRICES, _SONNET, _claude(1000, 200), said(1000, 200), "1000*3.3/M + 200*16.5/M"),
    case(
        "Claude anywhere, with a cache",
        _CACHE,
        "global.anthropic.claude-sonnet-4-6-v1:0",
        _claude(100, 40, cache_read_input_tokens=5000, cache_creation_input_tokens=3000),
        said(8100, 40, cache_read_tokens=5000, cache_write_tokens=3000),
        "100*3/M + 5000*0.30/M + 3000*3.75/M + 40*15/M",
    ),
)
"""Answers of `InvokeModel` to ChatBedrock, which reads the counts of the headers alone."""

CLAUDE: Final[tuple[Case, ...]] = (
    case(
        "ChatAnthropicBedrock in the US",
        _PROFILES,
        "us.anthropic.claude-sonnet-4-6",
        _claude(1000, 200),
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
    ),
    case(
        "ChatAnthropicBedrock anywhere",
        _PROFILES,
        "global.anthropic.claude-sonnet-4-6-v1:0",
        _claude(1000, 200),
        said(1000, 200),
        "1000*3/M + 200*15/M",
    ),
    case(
        "ChatAnthropicBedrock in one region, with a cache",
        _CACHE,
        "anthropic.claude-opus-4-8",
        _claude(100, 40, "claude-opus-4-8", cache_read_input_tokens=5000, **anthropic.writes(short=3000)),
        said(8100, 40, cache_read_tokens=5000, cache_write_tokens=3000),
        "100*5.5/M + 5000*0.55/M + 3000*6.875/M + 40*27.5/M",
    ),
)

_COMPLETION: Final[Json] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "openai.gpt-oss-120b",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
}

MANTLE: Final[tuple[Case, ...]] = (
    case(
        "ChatAnthropicMantle",
        _MANTLE,
        "anthropic.claude-sonnet-5",
        _claude(1000, 200, "claude-sonnet-5"),
        said(1000, 200),
        "1000*2.2/M + 200*11/M",
    ),
    case(
        "ChatOpenAIMantle",
        _MANTLE,
        "openai.gpt-oss-120b",
        _COMPLETION,
        said(1000, 200),
        "1000*0.15/M + 200*0.60/M",
    ),
    case(
        "ChatOpenAIMantle, a model that nobody knows",
        _MANTLE,
        "zai.glm-99",
        {**_COMPLETION, "model": "zai.glm-99"},
        said(1000, 200),
        None,
    ),
)
