"""Answers of Perplexity: a fee a request by how much of the web was read, or fees for searches, citations and reasoning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import TEXT
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

_CHAT: Final = "https://docs.perplexity.ai/api-reference/chat-completions-post"
_PRICES: Final = "https://docs.perplexity.ai/getting-started/pricing"
_DEEP: Final = "https://docs.perplexity.ai/getting-started/models/models/sonar-deep-research"
_AGENT: Final = "https://docs.perplexity.ai/api-reference/responses-post"


def _counts(prompt: int, completion: int, size: str | None = None, **more: Any) -> Json:
    """Usage as Perplexity sends it: neither reasoning nor citations are in its total."""
    counts: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }
    return counts if size is None else {**counts, "search_context_size": size}


def _completion(model: str, counts: Json, text: str = TEXT) -> Json:
    return {
        "id": "4b1a2f6e-8a49-4b6f-9c1b-0d6d1b9b7a55",
        "model": model,
        "created": 1_763_208_000,
        "usage": counts,
        "citations": ["https://example.com"],
        "search_results": [
            {
                "title": "Example", "url": "https://example.com", "date": "2025-11-01", "last_updated": None,
                "snippet": "", "source": "web",
            }
        ],
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "delta": None}
        ],
    }  # fmt: skip


def _chunks(body: Json) -> Iterator[Json]:
    """A completion as its stream: each event holds the usage up to there."""
    counts, text = body["usage"], body["choices"][0]["message"]["content"]
    half = len(text) // 2
    before = {**counts, "completion_tokens": 1, "total_tokens": counts["prompt_tokens"] + 1}
    for number, (delta, so_far, used) in enumerate(((text[:half], text[:half], before), (text[half:], text, counts))):
        message = {"role": "assistant", "content": so_far}
        choice = {
            "index": 0, "finish_reason": "stop" if number else None, "message": message,
            "delta": {"role": "assistant", "content": delta},
        }  # fmt: skip
        yield {**body, "object": "chat.completion.chunk", "usage": used, "choices": [choice]}


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Perplexity sends."""
    if not request.body.get("stream"):
        return as_json(case.body)
    if case.body["object"] == "response":
        return as_events(_agent_events(case.body), named=True)
    return as_events(_chunks(case.body) if case.chunks is None else case.chunks)


def chat_perplexity(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with Perplexity."""
    from langchain_perplexity import ChatPerplexity
    from perplexity import Perplexity

    client = Perplexity(api_key="key", base_url=url, max_retries=0)
    return ChatPerplexity(model=case.model, api_key="key", client=client, **case.settings)


def _agent(model: str, counts: Json) -> Json:
    """An answer of the Agent API, which has other vendors' models."""
    text = {"type": "output_text", "text": TEXT, "annotations": []}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_763_208_000,
        "status": "completed",
        "model": model,
        "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}],
        "usage": counts,
    }


def _agent_events(body: Json) -> Iterator[Json]:
    begun = {**body, "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "sequence_number": 0, "response": begun}
    yield {"type": "response.output_text.delta", "sequence_number": 1, **where, "delta": TEXT}
    yield {"type": "response.completed", "sequence_number": 2, "response": body}


def _sized(model: str, size: str | None, cost: str, fee: str, prompt: int = 26, completion: int = 832) -> Case:
    return Case(
        name=f"{model}, {size or 'no size'}",
        source=_PRICES,
        model=model,
        settings={"web_search_options": {"search_context_size": size}} if size else {},
        body=_completion(model, _counts(prompt, completion, size, num_search_queries=1)),
        tokens={"prompt_tokens": prompt, "completion_tokens": completion},
        cost=f"{cost} + {fee}",
        fees=fee,
    )


_SONAR: Final = "26*1/M + 832*1/M"
_PRO: Final = "26*3/M + 832*15/M"
_REASONING: Final = "26*2/M + 832*8/M"

REQUEST_FEES: Final = (
    _sized("sonar", "low", _SONAR, "5/K"),
    _sized("sonar", "medium", _SONAR, "8/K"),
    _sized("sonar", "high", _SONAR, "12/K"),
    _sized("sonar", None, _SONAR, "5/K"),
    _sized("sonar-pro", "low", _PRO, "6/K"),
    _sized("sonar-pro", "medium", _PRO, "10/K"),
    _sized("sonar-pro", "high", _PRO, "14/K"),
    _sized("sonar-reasoning-pro", "low", _REASONING, "6/K"),
    _sized("sonar-reasoning-pro", "high", _REASONING, "14/K"),
    _sized("sonar-reasoning", "medium", "26*1/M + 832*5/M", "8/K"),
)

DEEP_RESEARCH: Final = (
    Case(
        name="searches, citations and reasoning",
        source=_DEEP,
        model="sonar-deep-research",
        body=_completion(
            "sonar-deep-research",
            _counts(33, 7163, citation_tokens=20_016, num_search_queries=18, reasoning_tokens=73_997),
        ),
        tokens={"prompt_tokens": 33, "completion_tokens": 81_160, "reasoning_tokens": 73_997},
        units={"output_citation_tokens": 20_016, "web_searches": 18},
        cost="33*2/M + 7163*8/M + 73_997*3/M + 20_016*2/M + 18*5/K",
        fees="20_016*2/M + 18*5/K",
    ),
    Case(
        name="less reasoning than was said",
        source=_DEEP,
        model="sonar-deep-research",
        body=_completion("sonar-deep-research", _counts(33, 7163, reasoning_tokens=5000)),
        tokens={"prompt_tokens": 33, "completion_tokens": 12_163, "reasoning_tokens": 5000},
        cost="33*2/M + 7163*8/M + 5000*3/M",
    ),
    Case(
        name="with the cost that Perplexity says, which LangChain drops",
        source=_CHAT,
        model="sonar-deep-research",
        body=_completion(
            "sonar-deep-research",
            _counts(
                20, 1000, citation_tokens=500, num_search_queries=3, reasoning_tokens=2000,
                cost={
                    "input_tokens_cost": 0.00004, "output_tokens_cost": 0.008, "citation_tokens_cost": 0.001,
                    "reasoning_tokens_cost": 0.006, "search_queries_cost": 0.015, "total_cost": 0.03004,
                },
            ),
        ),
        tokens={"prompt_tokens": 20, "completion_tokens": 3000, "reasoning_tokens": 2000},
        units={"output_citation_tokens": 500, "web_searches": 3},
        cost="20*2/M + 1000*8/M + 2000*3/M + 500*2/M + 3*5/K",
        fees="500*2/M + 3*5/K",
    ),
)  # fmt: skip

OTHERS: Final = (
    Case(
        name="a model that searches nothing",
        source=_PRICES,
        model="r1-1776",
        body=_completion("r1-1776", _counts(26, 832)),
        tokens={"prompt_tokens": 26, "completion_tokens": 832},
        cost="26*2/M + 832*8/M",
    ),
    Case(
        name="a model of 2024",
        source="https://docs.perplexity.ai/guides/pricing, as of 2024: $5 a million tokens",
        model="llama-3.1-sonar-huge-128k-online",
        body=_completion("llama-3.1-sonar-huge-128k-online", _counts(26, 832)),
        tokens={"prompt_tokens": 26, "completion_tokens": 832},
        cost="26*5/M + 832*5/M",
    ),
    Case(
        name="another vendor's model by the Agent API",
        source=f"{_AGENT}; {_PRICES}: at the vendor's prices, without a surcharge",
        model="openai/gpt-5",
        settings={"use_responses_api": True},
        body=_agent(
            "openai/gpt-5",
            {
                "input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200,
                "input_tokens_details": {"cache_read_input_tokens": 512, "cache_creation_input_tokens": 0},
            },
        ),
        tokens={"prompt_tokens": 1000, "cache_read_tokens": 512, "completion_tokens": 200},
        cost="488*1.25/M + 512*0.125/M + 200*10/M",
    ),
    Case(
        name="Perplexity's model by the Agent API",
        source=_AGENT,
        model="perplexity/sonar",
        settings={"use_responses_api": True},
        body=_agent("perplexity/sonar", {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}),
        tokens={"prompt_tokens": 1000, "completion_tokens": 200},
        cost="1000*0.25/M + 200*2.50/M",
    ),
)  # fmt: skip

CASES: Final = (*REQUEST_FEES, *DEEP_RESEARCH, *OTHERS)
