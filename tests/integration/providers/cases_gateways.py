"""OpenAI's dialect spoken by others: Azure, gateways, other vendors' addresses, servers of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import CHAT, PRICING, completion, completion_chunks, usage
from tests.support.wire_server import Json, as_json

_AZURE: Final = "https://learn.microsoft.com/azure/ai-foundry/openai/reference#chat-completions"
_AZURE_PRICES: Final = "https://azure.microsoft.com/pricing/details/cognitive-services/openai-service/"
_GROK: Final = "https://docs.x.ai/docs/api-reference#chat-completions"
_OPENROUTER: Final = "https://openrouter.ai/docs/use-cases/usage-accounting"
_PERPLEXITY: Final = "https://docs.perplexity.ai/guides/chat-completions-guide"
_VLLM: Final = "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"
_LITELLM: Final = "https://docs.litellm.ai/docs/proxy/user_keys"

_FILTERED: Final = {"hate": {"filtered": False, "severity": "safe"}}


def chat_azure(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with Azure OpenAI."""
    from langchain_openai import AzureChatOpenAI

    return AzureChatOpenAI(
        azure_endpoint=url,
        azure_deployment=case.model,
        api_version="2024-10-21",
        api_key="key",
        max_retries=0,
        **case.settings,
    )


_SO_FAR: Final = completion("x-ai/grok-4", usage(100, 12), text="word word word word")


def _running_usage(body: Json) -> list[Json]:
    """The chunks of a completion, each with the usage up to there."""
    *chunks, last = completion_chunks(body, with_usage=True)
    counts = [usage(100, completion_tokens) for completion_tokens in (0, 12, 12)]
    return [*({**chunk, "usage": used} for chunk, used in zip(chunks, counts, strict=True)), last]


AZURE: Final = (
    Case(
        name="a deployment with a name of its own",
        source=_AZURE,
        model="answers-eu",
        body=completion(
            "gpt-4o-2024-11-20",
            usage(1000, 500, cached=128),
            prompt_filter_results=[{"prompt_index": 0, "content_filter_results": _FILTERED}],
        ),
        tokens={"prompt_tokens": 1000, "cache_read_tokens": 128, "completion_tokens": 500},
        cost="872*2.50/M + 128*1.25/M + 500*10/M",
    ),
    Case(
        name="a model that is called by its provider",
        source=_AZURE_PRICES,
        model="answers-eu",
        settings={"model": "azure/gpt-4o"},
        body=completion("azure/gpt-4o", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="1000*2.50/M + 500*10/M",
    ),
    Case(
        name="reasoning on Azure",
        source=_AZURE_PRICES,
        model="o3-mini",
        body=completion("o3-mini-2025-01-31", usage(700, 1500, cached=512, reasoning=1280)),
        tokens={"prompt_tokens": 700, "cache_read_tokens": 512, "completion_tokens": 1500, "reasoning_tokens": 1280},
        cost="188*1.10/M + 512*0.55/M + 1500*4.40/M",
    ),
    Case(
        name="a model that answers as its deployment",
        source=_AZURE,
        model="answers-eu",
        body=completion("answers-eu", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost=None,
    ),
)

CASES: Final = (
    Case(
        name="grok-4, which counts its thoughts beside the answer",
        source=_GROK,
        model="x-ai/grok-4",
        body=completion("x-ai/grok-4", usage(100, 1500, reasoning=200, total=1800), message={"reasoning_content": "Hm."}),
        tokens={"prompt_tokens": 100, "completion_tokens": 1700, "reasoning_tokens": 200},
        cost="100*3/M + 1700*15/M",
    ),
    Case(
        name="grok-4 at its vendor's address",
        source=f"{_GROK}: base_url https://api.x.ai/v1",
        model="grok-4",
        body=completion("grok-4-0709", usage(100, 1500, reasoning=200, total=1800)),
        tokens={"prompt_tokens": 100, "completion_tokens": 1700, "reasoning_tokens": 200},
        cost="100*3/M + 1700*15/M",
    ),
    Case(
        name="reasoning that is part of the answer",
        source=f"{CHAT}: the total says so",
        model="x-ai/grok-4",
        body=completion("x-ai/grok-4", usage(100, 1700, reasoning=200, total=1800)),
        tokens={"prompt_tokens": 100, "completion_tokens": 1700, "reasoning_tokens": 200},
        cost="100*3/M + 1700*15/M",
    ),
    Case(
        name="a gateway's own name for a model",
        source=_LITELLM,
        model="team-default",
        body=completion("team-default", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost=None,
    ),
    Case(
        name="a gateway's own name for a model, with what it cost",
        source="https://docs.litellm.ai/docs/proxy/response_headers",
        model="team-default",
        settings={"include_response_headers": True},
        body={},
        sent=replace(
            as_json(completion("team-default", usage(1000, 500))), headers={"x-litellm-response-cost": "0.0123"}
        ),
        chunks=(),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="0.0123",
        fees="0.0123",
        reported="0.0123",
    ),
    Case(
        name="a gateway's own name that begins as a model does",
        source=_LITELLM,
        model="gpt-4o-eu-prod",
        body=completion("gpt-4o-eu-prod", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost=None,
    ),
    Case(
        name="a gateway's name for what it says has answered",
        source=_LITELLM,
        model="team-default",
        body=completion("gpt-4o-mini-2024-07-18", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="1000*0.15/M + 500*0.60/M",
    ),
    Case(
        name="open weights on a server of one's own",
        source=_VLLM,
        model="openai/gpt-oss-120b",
        body=completion(
            "openai/gpt-oss-120b",
            {"prompt_tokens": 70, "completion_tokens": 300, "total_tokens": 370, "prompt_tokens_details": None},
            message={"reasoning_content": "Hm."},
        ),
        tokens={"prompt_tokens": 70, "completion_tokens": 300},
        cost=None,
    ),
    Case(
        name="open weights under their bare name",
        source=_VLLM,
        model="gpt-oss-20b",
        body=completion("gpt-oss-20b", {"prompt_tokens": 70, "completion_tokens": 300, "total_tokens": 370}),
        tokens={"prompt_tokens": 70, "completion_tokens": 300},
        cost=None,
    ),
    Case(
        name="a server that sends the usage so far with each chunk",
        source=f"{_VLLM}: continuous_usage_stats",
        model="x-ai/grok-4",
        invoked=False,
        body={},
        chunks=_running_usage(_SO_FAR),
        tokens={"prompt_tokens": 100, "completion_tokens": 12},
        cost="100*3/M + 12*15/M",
    ),
    Case(
        name="another open model on a server of one's own",
        source=_VLLM,
        model="meta-llama/Llama-3.3-70B-Instruct",
        body=completion(
            "meta-llama/Llama-3.3-70B-Instruct", {"prompt_tokens": 70, "completion_tokens": 300, "total_tokens": 370}
        ),
        tokens={"prompt_tokens": 70, "completion_tokens": 300},
        cost=None,
    ),
    Case(
        name="OpenRouter with OpenAI's client",
        source=_OPENROUTER,
        model="anthropic/claude-sonnet-4",
        body=completion(
            "anthropic/claude-sonnet-4",
            usage(
                1200, 300, cost=0.0081, is_byok=False,
                cost_details={
                    "upstream_inference_cost": None,
                    "upstream_inference_prompt_cost": 0.0036,
                    "upstream_inference_completions_cost": 0.0045,
                },
            ),
            provider="Anthropic",
        ),
        chunks=(),
        tokens={"prompt_tokens": 1200, "completion_tokens": 300},
        cost="1200*3/M + 300*15/M",
        reported="0.0081",
    ),
    Case(
        name="OpenRouter with OpenAI's client, streamed: what it charged is lost",
        source=_OPENROUTER,
        model="anthropic/claude-sonnet-4",
        invoked=False,
        body=completion("anthropic/claude-sonnet-4", usage(1200, 300, cost=0.0081, is_byok=False), provider="Anthropic"),
        tokens={"prompt_tokens": 1200, "completion_tokens": 300},
        cost="1200*3/M + 300*15/M",
    ),
    Case(
        name="OpenRouter with OpenAI's client and a key of one's own",
        source="https://openrouter.ai/docs/use-cases/byok: a fee of 5 %, the vendor bills the rest",
        model="openai/gpt-4o",
        body=completion(
            "openai/gpt-4o",
            usage(
                2000, 500, cost=0.0005, is_byok=True,
                cost_details={
                    "upstream_inference_cost": 0.01,
                    "upstream_inference_prompt_cost": 0.005,
                    "upstream_inference_completions_cost": 0.005,
                },
            ),
            provider="OpenAI",
        ),
        chunks=(),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="2000*2.50/M + 500*10/M",
        reported="0.0005 + 0.01",
    ),
    Case(
        name="a model that only its gateway has a price for",
        source=_OPENROUTER,
        model="acme/secret-model",
        body=completion("acme/secret-model", usage(2000, 500, cost=0.00321, is_byok=False), provider="Acme"),
        chunks=(),
        tokens={"prompt_tokens": 2000, "completion_tokens": 500},
        cost="0.00321",
        fees="0.00321",
        reported="0.00321",
    ),
    Case(
        name="Perplexity with OpenAI's client, streamed: the usage so far comes with each chunk",
        source=_PERPLEXITY,
        model="sonar-pro",
        invoked=False,
        body={},
        chunks=[
            {
                "id": "1", "model": "sonar-pro", "created": 1_763_208_000, "object": "chat.completion.chunk",
                "usage": {
                    "prompt_tokens": 26, "completion_tokens": said, "total_tokens": 26 + said, "search_context_size": "low",
                },
                "choices": [
                    {
                        "index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": ""},
                        "delta": {"role": "assistant", "content": "word "},
                    }
                ],
            }
            for said, reason in ((1, None), (400, None), (832, "stop"))
        ],
        tokens={"prompt_tokens": 26, "completion_tokens": 832},
        cost="26*3/M + 832*15/M + 6/K",
        fees="6/K",
    ),
    Case(
        name="Perplexity with OpenAI's client",
        source=_PERPLEXITY,
        model="sonar-pro",
        body=completion(
            "sonar-pro",
            {
                "prompt_tokens": 26, "completion_tokens": 832, "total_tokens": 858, "search_context_size": "low",
                "num_search_queries": 1,
                "cost": {
                    "input_tokens_cost": 0.000078, "output_tokens_cost": 0.01248, "request_cost": 0.006,
                    "total_cost": 0.018558,
                },
            },
            citations=["https://example.com"],
        ),
        chunks=(),
        tokens={"prompt_tokens": 26, "completion_tokens": 832},
        cost="26*3/M + 832*15/M + 6/K",
        fees="6/K",
        reported="0.018558",
    ),
    Case(
        name="DeepSeek with OpenAI's client",
        source="https://api-docs.deepseek.com/api/create-chat-completion",
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
        cost=None,  # open weights, which many run: whose server it was is not known
    ),
    Case(
        name="a gateway that leaves the total out",
        source=PRICING,
        model="gpt-4o-mini",
        body=completion("gpt-4o-mini", {"prompt_tokens": 900, "completion_tokens": 100, "total_tokens": 0}),
        tokens={"prompt_tokens": 900, "completion_tokens": 100},
        cost="900*0.15/M + 100*0.60/M",
    ),
)  # fmt: skip
