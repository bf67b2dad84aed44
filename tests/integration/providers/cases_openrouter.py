"""Answers of OpenRouter by its own integration: prices of the model, and what OpenRouter says that it has charged."""

from __future__ import annotations

from typing import Any, Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import completion
from tests.support.wire_server import Json

_USAGE: Final = "https://openrouter.ai/docs/use-cases/usage-accounting"
_VARIANTS: Final = "https://openrouter.ai/docs/faq#what-are-model-variants"
_SEARCH: Final = "https://openrouter.ai/docs/features/web-search"
_BYOK: Final = "https://openrouter.ai/docs/use-cases/byok"


def chat_openrouter(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with OpenRouter."""
    from langchain_openrouter import ChatOpenRouter

    return ChatOpenRouter(model=case.model, base_url=f"{url}/api/v1", api_key="key", max_retries=0, **case.settings)


def _usage(
    prompt: float,
    completion_tokens: float,
    cost: float | None,
    *,
    cached: int = 0,
    written: int = 0,
    reasoning: int = 0,
    byok: bool = False,
    upstream: float | None = None,
    **more: Any,
) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "cost": cost,
        "is_byok": byok,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": 0},
        "cost_details": {
            "upstream_inference_cost": upstream,
            "upstream_inference_prompt_cost": 0,
            "upstream_inference_completions_cost": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": reasoning, "image_tokens": 0},
        **more,
    }


CASES: Final = (
    Case(
        name="what it cost, by us and by OpenRouter",
        source=_USAGE,
        model="anthropic/claude-sonnet-4",
        body=completion("anthropic/claude-sonnet-4", _usage(1200, 300, 0.0081), provider="Anthropic"),
        tokens={"prompt_tokens": 1200, "completion_tokens": 300},
        cost="1200*3/M + 300*15/M",
        reported="0.0081",
    ),
    Case(
        name="the upstream's cost without a key of one's own",
        source=f"{_USAGE}: the same amount twice",
        model="anthropic/claude-sonnet-4",
        body=completion("anthropic/claude-sonnet-4", _usage(1200, 300, 0.0081, upstream=0.0081), provider="Anthropic"),
        tokens={"prompt_tokens": 1200, "completion_tokens": 300},
        cost="1200*3/M + 300*15/M",
        reported="0.0081",
    ),
    Case(
        name="cache read and written",
        source="https://openrouter.ai/docs/features/prompt-caching",
        model="anthropic/claude-sonnet-4",
        body=completion(
            "anthropic/claude-sonnet-4", _usage(10_000, 300, 0.0198, cached=6000, written=2000), provider="Anthropic"
        ),
        tokens={
            "prompt_tokens": 10_000, "cache_read_tokens": 6000, "cache_write_tokens": 2000, "completion_tokens": 300,
        },
        cost="2000*3/M + 6000*0.30/M + 2000*3.75/M + 300*15/M",
        reported="0.0198",
    ),
    Case(
        name="reasoning",
        source="https://openrouter.ai/docs/use-cases/reasoning-tokens",
        model="openai/o3-mini",
        body=completion(
            "openai/o3-mini", _usage(200, 1500, 0.00682, reasoning=1280), message={"reasoning": "Hm."}, provider="OpenAI"
        ),
        tokens={"prompt_tokens": 200, "completion_tokens": 1500, "reasoning_tokens": 1280},
        cost="200*1.10/M + 1500*4.40/M",
        reported="0.00682",
    ),
    Case(
        name="a long prompt",
        source="https://openrouter.ai/anthropic/claude-sonnet-4.5",
        model="anthropic/claude-sonnet-4.5",
        body=completion("anthropic/claude-sonnet-4.5", _usage(250_000, 1000, 1.5225), provider="Anthropic"),
        tokens={"prompt_tokens": 250_000, "completion_tokens": 1000},
        cost="250_000*6/M + 1000*22.50/M",
        reported="1.5225",
    ),
    Case(
        name="a cost in scientific notation",
        source=_USAGE,
        model="openai/gpt-4o",
        body=completion("openai/gpt-4o", _usage(2, 1, 1.5e-05), provider="OpenAI"),
        tokens={"prompt_tokens": 2, "completion_tokens": 1},
        cost="2*2.50/M + 1*10/M",
        reported="0.000015",
    ),
    Case(
        name="free",
        source=_VARIANTS,
        model="deepseek/deepseek-r1:free",
        body=completion("deepseek/deepseek-r1:free", _usage(500, 900, 0), provider="Chutes"),
        tokens={"prompt_tokens": 500, "completion_tokens": 900},
        cost="0",
        reported="0",
    ),
    Case(
        name="the fastest provider",
        source=_VARIANTS,
        model="meta-llama/llama-3.3-70b-instruct:nitro",
        body=completion("meta-llama/llama-3.3-70b-instruct", _usage(1000, 200, 0.000748), provider="Groq"),
        tokens={"prompt_tokens": 1000, "completion_tokens": 200},
        cost="1000*0.59/M + 200*0.79/M",
        reported="0.000748",
    ),
    Case(
        name="the fastest provider, which answers by its name",
        source=_VARIANTS,
        model="anthropic/claude-sonnet-4:nitro",
        body=completion("anthropic/claude-sonnet-4:nitro", _usage(1200, 300, 0.0081), provider="Anthropic"),
        tokens={"prompt_tokens": 1200, "completion_tokens": 300},
        cost="1200*3/M + 300*15/M",
        reported="0.0081",
    ),
    Case(
        name="the web searched, whose results are counted nowhere",
        source=f"{_SEARCH}: $4 a thousand results, five results, on top of the tokens",
        model="openai/gpt-4o:online",
        body=completion(
            "openai/gpt-4o:online", _usage(3000, 400, 0.0315, server_tool_use={"web_search_requests": 1}), provider="OpenAI"
        ),
        tokens={"prompt_tokens": 3000, "completion_tokens": 400},
        cost="3000*2.50/M + 400*10/M",
        reported="0.0315",
    ),
    Case(
        name="a key of one's own",
        source=f"{_BYOK}: a fee of 5 %, the vendor bills the rest",
        model="openai/gpt-4o",
        body=completion("openai/gpt-4o", _usage(2000, 500, 0.0005, byok=True, upstream=0.01), provider="OpenAI"),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="2000*2.50/M + 500*10/M",
        reported="0.0005 + 0.01",
    ),
    Case(
        name="a key of one's own, within the free requests of a month",
        source=_BYOK,
        model="openai/gpt-4o",
        body=completion("openai/gpt-4o", _usage(2000, 500, 0, byok=True, upstream=0.01), provider="OpenAI"),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="2000*2.50/M + 500*10/M",
        reported="0.01",
    ),
    Case(
        name="a model that only OpenRouter has a price for",
        source=_USAGE,
        model="acme/secret-model",
        body=completion("acme/secret-model", _usage(2000, 500, 0.00321), provider="Acme"),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="0.00321",
        fees="0.00321",
        reported="0.00321",
    ),
    Case(
        name="a model that nobody has a price for",
        source=_USAGE,
        model="acme/secret-model",
        body=completion("acme/secret-model", _usage(2000, 500, None), provider="Acme"),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost=None,
    ),
    Case(
        name="counts with a decimal point",
        source="https://openrouter.ai/docs/api-reference/overview: counts are numbers",
        model="openai/gpt-4o",
        body=completion("openai/gpt-4o", _usage(2000.0, 500.0, 0.01), provider="OpenAI"),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="2000*2.50/M + 500*10/M",
        reported="0.01",
    ),
    Case(
        name="a stream without usage, whose thoughts are counted",
        source=_USAGE,
        model="deepseek/deepseek-r1",
        settings={"stream_usage": False},
        invoked=False,
        body=completion(
            "deepseek/deepseek-r1", _usage(1000, 500, 0.01), text="four", message={"reasoning": "hm, " * 1900}
        ),
        tokens={"prompt_tokens": 2, "completion_tokens": 1901, "reasoning_tokens": 1900},  # 5 bytes; 4 said, 7,600 thought
        cost="2*0.70/M + 1901*2.50/M",
        estimated=True,
    ),
)  # fmt: skip
