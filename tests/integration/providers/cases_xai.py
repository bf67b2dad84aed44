"""Answers of xAI by its own integration, over chat completions and over the Responses API, and of DeepSeek by its own."""

from __future__ import annotations

from typing import Any, Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import (
    completion,
    message_item,
    response,
    response_usage,
    usage,
    web_search,
)
from tests.support.wire_server import Json

_CHAT: Final = "https://docs.x.ai/docs/api-reference#chat-completions"
_PRICES: Final = "https://docs.x.ai/developers/pricing"
_TOOLS: Final = f"{_PRICES}#tools-pricing: $5 a thousand calls of web search, X search and code execution"
_TICKS: Final = "https://docs.x.ai/developers/cost-tracking: 10 000 000 000 ticks are a US dollar"
_DEEPSEEK: Final = "https://api-docs.deepseek.com/api/create-chat-completion"
_DEEPSEEK_PRICES: Final = "https://api-docs.deepseek.com/quick_start/pricing"


def chat_xai(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with xAI."""
    from langchain_xai import ChatXAI

    return ChatXAI(model=case.model, base_url=f"{url}/v1", api_key="key", max_retries=0, **case.settings)


def chat_deepseek(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with DeepSeek."""
    from langchain_deepseek import ChatDeepSeek

    settings: Json = {"stream_usage": True, **case.settings}
    return ChatDeepSeek(model=case.model, base_url=f"{url}/v1", api_key="key", max_retries=0, **settings)


def _x_search(number: int) -> Json:
    return {
        "id": f"xs_{number}", "type": "custom_tool_call", "call_id": f"xs_call_{number}", "status": "completed",
        "name": "x_keyword_search", "input": '{"query": "weather"}',
    }  # fmt: skip


XAI: Final = (
    Case(
        name="grok-4 thinks beside its answer",
        source=_CHAT,
        model="grok-4",
        body=completion("grok-4-0709", usage(100, 1500, reasoning=200, total=1800), message={"reasoning_content": "Hm."}),
        tokens={"prompt_tokens": 100, "completion_tokens": 1700, "reasoning_tokens": 200},
        cost="100*3/M + 1700*15/M",
    ),
    Case(
        name="thoughts that are part of the answer already",
        source=f"{_CHAT}: the total says so",
        model="grok-4-fast-reasoning",
        body=completion("grok-4-fast-reasoning", usage(200, 900, reasoning=600, total=1100)),
        tokens={"prompt_tokens": 200, "completion_tokens": 900, "reasoning_tokens": 600},
        cost="200*0.20/M + 900*0.50/M",
    ),
    Case(
        name="cached",
        source="https://docs.x.ai/docs/models#cached-prompt-tokens",
        model="grok-3-mini",
        body=completion("grok-3-mini", usage(2000, 150, cached=1920, reasoning=450, total=2600)),
        tokens={"prompt_tokens": 2000, "cache_read_tokens": 1920, "completion_tokens": 600, "reasoning_tokens": 450},
        cost="80*0.30/M + 1920*0.075/M + 600*0.50/M",
    ),
    Case(
        name="no thoughts",
        source=_CHAT,
        model="grok-3",
        body=completion("grok-3", usage(500, 100)),
        tokens={"prompt_tokens": 500, "completion_tokens": 100},
        cost="500*3/M + 100*15/M",
    ),
    Case(
        name="images read",
        source="https://docs.x.ai/docs/guides/image-understanding",
        model="grok-2-vision-1212",
        body=completion(
            "grok-2-vision-1212",
            {
                "prompt_tokens": 1800, "completion_tokens": 90, "total_tokens": 1890,
                "prompt_tokens_details": {
                    "text_tokens": 20, "audio_tokens": 0, "image_tokens": 1780, "cached_tokens": 0,
                },
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
        ),
        chunks=(),
        tokens={"prompt_tokens": 1800, "completion_tokens": 90},
        units={"input_image_tokens": 1780},
        cost="1800*2/M + 90*10/M",
    ),
    Case(
        name="images read, streamed: how many tokens they are is lost",
        source="https://docs.x.ai/docs/guides/image-understanding",
        model="grok-2-vision-1212",
        invoked=False,
        body=completion("grok-2-vision-1212", usage(1800, 90)),
        tokens={"prompt_tokens": 1800, "completion_tokens": 90},
        cost="1800*2/M + 90*10/M",
    ),
    Case(
        name="a long prompt",
        source=_PRICES,
        model="grok-4.3",
        body=completion("grok-4.3", usage(250_000, 800, cached=200_000, reasoning=200, total=251_000)),
        tokens={
            "prompt_tokens": 250_000, "cache_read_tokens": 200_000, "completion_tokens": 1000, "reasoning_tokens": 200,
        },
        cost="50_000*2.50/M + 200_000*0.40/M + 1000*5/M",
    ),
    Case(
        name="what xAI says that it cost",
        source=_TICKS,
        model="grok-4-1-fast-reasoning",
        body=completion(
            "grok-4-1-fast-reasoning",
            usage(1000, 300, reasoning=100, total=1400, num_sources_used=0, cost_in_usd_ticks=4_000_000),
        ),
        chunks=(),
        tokens={"prompt_tokens": 1000, "completion_tokens": 400, "reasoning_tokens": 100},
        cost="1000*0.20/M + 400*0.50/M",
        reported="0.0004",
    ),
    Case(
        name="sources used, which cost nothing since Live Search has ended",
        source="https://docs.x.ai/docs/guides/live-search: gone since 12 January 2026",
        model="grok-4-1-fast-reasoning",
        body=completion(
            "grok-4-1-fast-reasoning", usage(1000, 300, num_sources_used=3), citations=["https://example.com"]
        ),
        chunks=(),
        tokens={"prompt_tokens": 1000, "completion_tokens": 300},
        units={"search_sources": 3},
        cost="1000*0.20/M + 300*0.50/M",
    ),
    Case(
        name="a stream without usage, whose thoughts are counted",
        source=_CHAT,
        model="grok-3-mini",
        settings={"stream_usage": False},
        invoked=False,
        body=completion("grok-3-mini", usage(1000, 500), text="word " * 40, message={"reasoning_content": "hm, " * 400}),
        tokens={"prompt_tokens": 2, "completion_tokens": 450, "reasoning_tokens": 400},  # 5 bytes; 200 said, 1,600 thought
        cost="2*0.30/M + 450*0.50/M",
        estimated=True,
    ),
)  # fmt: skip

XAI_RESPONSES: Final = (
    Case(
        name="thoughts, which this API counts in the answer",
        source="https://docs.x.ai/docs/api-reference#create-new-response",
        model="grok-4.3",
        settings={"use_responses_api": True},
        body=response("grok-4.3", response_usage(1000, 700, cached=128, reasoning=500)),
        tokens={"prompt_tokens": 1000, "cache_read_tokens": 128, "completion_tokens": 700, "reasoning_tokens": 500},
        cost="872*1.25/M + 128*0.20/M + 700*2.50/M",
    ),
    Case(
        name="web searches",
        source=_TOOLS,
        model="grok-4-1-fast-reasoning",
        request={"tools": [{"type": "web_search"}]},
        body=response(
            "grok-4-1-fast-reasoning",
            response_usage(8000, 700, reasoning=400),
            web_search(1),
            web_search(2),
            message_item(),
        ),
        tokens={"prompt_tokens": 8000, "completion_tokens": 700, "reasoning_tokens": 400},
        units={"web_searches": 2},
        cost="8000*0.20/M + 700*0.50/M + 2*5/K",
        fees="2*5/K",
    ),
    Case(
        name="searches of X",
        source=_TOOLS,
        model="grok-4-1-fast-reasoning",
        request={"tools": [{"type": "x_search"}]},
        body=response(
            "grok-4-1-fast-reasoning",
            response_usage(8000, 700),
            _x_search(1),
            _x_search(2),
            _x_search(3),
            message_item(),
        ),
        tokens={"prompt_tokens": 8000, "completion_tokens": 700},
        units={"social_searches": 3},
        cost="8000*0.20/M + 700*0.50/M + 3*5/K",
        fees="3*5/K",
    ),
)

DEEPSEEK: Final = (
    Case(
        name="cached",
        source=_DEEPSEEK_PRICES,
        model="deepseek-chat",
        body=completion(
            "deepseek-chat",
            {
                "prompt_tokens": 1000, "completion_tokens": 400, "total_tokens": 1400,
                "prompt_tokens_details": {"cached_tokens": 640},
                "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 360,
            },
        ),
        tokens={"prompt_tokens": 1000, "cache_read_tokens": 640, "completion_tokens": 400},
        cost="360*0.27/M + 640*0.07/M + 400*1.10/M",
    ),
    Case(
        name="cached, by the fields of DeepSeek alone",
        source=_DEEPSEEK,
        model="deepseek-chat",
        body=completion(
            "deepseek-chat",
            {
                "prompt_tokens": 1000, "completion_tokens": 400, "total_tokens": 1400,
                "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 360,
            },
        ),
        tokens={"prompt_tokens": 1000, "cache_read_tokens": 640, "completion_tokens": 400},
        cost="360*0.27/M + 640*0.07/M + 400*1.10/M",
    ),
    Case(
        name="thoughts",
        source=_DEEPSEEK,
        model="deepseek-reasoner",
        body=completion(
            "deepseek-reasoner",
            {
                "prompt_tokens": 1000, "completion_tokens": 2400, "total_tokens": 3400,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 1900},
                "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 1000,
            },
            message={"reasoning_content": "Hm."},
        ),
        tokens={"prompt_tokens": 1000, "completion_tokens": 2400, "reasoning_tokens": 1900},
        cost="1000*0.55/M + 2400*2.19/M",
    ),
    Case(
        name="a stream without usage, whose thoughts are counted",
        source=_DEEPSEEK,
        model="deepseek-reasoner",
        settings={"stream_usage": False},
        invoked=False,
        body=completion(
            "deepseek-reasoner", usage(1000, 500), text="four", message={"reasoning_content": "hm, " * 1900}
        ),
        tokens={"prompt_tokens": 2, "completion_tokens": 1901, "reasoning_tokens": 1900},  # 5 bytes; 4 said, 7,600 thought
        cost="2*0.55/M + 1901*2.19/M",
        estimated=True,
    ),
    Case(
        name="an answer without usage, whose thoughts are counted",
        source=_DEEPSEEK,
        model="deepseek-reasoner",
        body=completion("deepseek-reasoner", None, text="four", message={"reasoning_content": "hm, " * 1900}),
        tokens={"prompt_tokens": 2, "completion_tokens": 1901, "reasoning_tokens": 1900},
        cost="2*0.55/M + 1901*2.19/M",
        estimated=True,
    ),
)  # fmt: skip
