"""Answers of Vertex AI as langchain-google-vertexai hands them on, and what they cost.

That package is too heavy to install for tests. A small model stands in for it, which makes of a response of the API the message,
the generation info and the usage that version 3.2.5 makes (`_gemini_response_to_chat_result`, `_gemini_chunk_to_generation_chunk`
and `_get_usage_metadata_gemini` in its `chat_models.py`): thoughts and the results of tools stand beside what it counts, in
the total alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from tests.integration.providers.corpus import Case, check, row_of
from tests.support.wire_server import Json, WireAnswer, as_json

_PRICES: Final = "https://cloud.google.com/vertex-ai/generative-ai/pricing"
_USAGE: Final = "https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/UsageMetadata"


class ChatVertexAI(BaseChatModel):
    """What the integration makes of `raw`: usage in the words of the API, the answer's text, the grounding if any."""

    model_name: str
    raw: Json
    grounding: Json | None = None

    @property
    def _llm_type(self) -> str:
        return "vertexai"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="google_vertexai", ls_model_name=self.model_name, ls_model_type="chat")

    def _usage(self) -> UsageMetadata:
        raw = self.raw
        usage = UsageMetadata(
            input_tokens=raw.get("prompt_token_count", 0),
            output_tokens=raw.get("candidates_token_count", 0),
            total_tokens=raw.get("total_token_count", 0),
            input_token_details={"cache_read": raw.get("cached_content_token_count", 0)},
        )
        if thoughts := raw.get("thoughts_token_count", 0):
            usage["output_token_details"] = {"reasoning": thoughts}
        return usage

    def _metadata(self) -> Json:
        said: Json = {"model_provider": "google_vertexai", "model_name": self.model_name}
        return said if self.grounding is None else {**said, "grounding_metadata": self.grounding}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage("It is.", usage_metadata=self._usage(), response_metadata=self._metadata())
        info = {"is_blocked": False, "safety_ratings": [], "usage_metadata": self.raw, "finish_reason": "STOP"}
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        first = AIMessageChunk(content="It ", response_metadata={"model_provider": "google_vertexai"})
        last = AIMessageChunk(content="is.", usage_metadata=self._usage(), response_metadata=self._metadata())
        for message in (first, last):
            reason = {"finish_reason": "STOP"} if message is last else {}
            chunk = ChatGenerationChunk(message=message, generation_info={"usage_metadata": {}, **reason})
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _build(_: str, case: Case) -> Any:
    return ChatVertexAI(model_name=case.model, raw=case.body["usage"], grounding=case.body.get("grounding"))


def _answer(*_: object) -> WireAnswer:
    return as_json({})  # nothing is asked over the wire


def _raw(prompt: int, candidates: int, *, thoughts: int = 0, tools: int = 0, cached: int = 0, **more: Any) -> Json:
    raw = {
        "prompt_token_count": prompt,
        "candidates_token_count": candidates,
        "total_token_count": prompt + candidates + thoughts + tools,
        "traffic_type": "ON_DEMAND",
        "prompt_tokens_details": [{"modality": "TEXT", "token_count": prompt}],
        "candidates_tokens_details": [{"modality": "TEXT", "token_count": candidates}],
    }
    named = {"thoughts_token_count": thoughts, "cached_content_token_count": cached}
    return {**raw, **{name: value for name, value in named.items() if value}, **more}


def _case(name: str, model: str, raw: Json, tokens: Mapping[str, int], cost: str | None, **more: Any) -> Case:
    body = {
        "usage": raw,
        **({"grounding": {"web_search_queries": found}} if (found := more.pop("found", None)) else {}),
    }
    return Case(name=name, source=_USAGE, model=model, body=body, tokens=tokens, cost=cost, **more)


def _said(prompt: int, completion: int, **more: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


CASES: Final[Sequence[Case]] = (
    _case("plain", "gemini-2.5-flash", _raw(1000, 200), _said(1000, 200), "1000*0.30/M + 200*2.50/M"),
    _case(
        "thoughts beside what was said",
        "gemini-2.5-pro",
        _raw(100, 500, thoughts=343),
        _said(100, 843, reasoning_tokens=343),
        "100*1.25/M + 843*10/M",
        notes=("reasoning_beside_output",),
    ),
    _case(
        "more thoughts than words",
        "gemini-2.5-pro",
        _raw(100, 20, thoughts=2000),
        _said(100, 2020, reasoning_tokens=2000),
        "100*1.25/M + 2020*10/M",
        notes=("reasoning_beside_output",),
    ),
    _case(
        "what tools returned beside the prompt",
        "gemini-2.5-pro",
        _raw(50, 100, tools=12_504),
        _said(12_554, 100),
        "12554*1.25/M + 100*10/M",
        units={"input_tool_tokens": 12_504},
    ),
    _case(
        "what tools returned, named",
        "gemini-2.5-pro",
        _raw(50, 100, tools=12_504, tool_use_prompt_token_count=12_504),
        _said(12_554, 100),
        "12554*1.25/M + 100*10/M",
        units={"input_tool_tokens": 12_504},
    ),
    _case(
        "tools and thoughts",
        "gemini-2.5-pro",
        _raw(50, 100, tools=3000, thoughts=400),
        _said(3050, 500, reasoning_tokens=400),
        "3050*1.25/M + 500*10/M",
        units={"input_tool_tokens": 3000},
    ),
    _case(
        "read from the cache",
        "gemini-2.5-flash",
        _raw(10_000, 50, cached=8000),
        _said(10_000, 50, cache_read_tokens=8000),
        "2000*0.30/M + 8000*0.03/M + 50*2.50/M",
    ),
    _case(
        "a long prompt",
        "gemini-2.5-pro",
        _raw(190_000, 1000, tools=20_000),
        _said(210_000, 1000),
        "210000*2.50/M + 1000*15/M",
        units={"input_tool_tokens": 20_000},
    ),
    _case(
        "three searches",
        "gemini-3-flash-preview",
        _raw(100, 200),
        _said(100, 200),
        "100*0.50/M + 200*3/M + 3*14/K",
        fees="3*14/K",
        units={"web_searches": 3},
        found=["a", "b", "c"],
    ),
    _case(
        "three searches, billed once a prompt",
        "gemini-2.5-pro",
        _raw(100, 200),
        _said(100, 200),
        "100*1.25/M + 200*10/M + 1*35/K",
        fees="1*35/K",
        units={"web_searches": 1},
        found=["a", "b", "c"],
    ),
    _case("a model that nobody knows", "gemini-9-neon", _raw(10, 20), _said(10, 20), None),
)

DETAILED: Final[Sequence[Case]] = (
    _case(
        "sound heard",
        "gemini-2.5-flash",
        _raw(
            1000,
            200,
            prompt_tokens_details=[
                {"modality": "TEXT", "token_count": 40},
                {"modality": "AUDIO", "token_count": 960},
            ],
        ),
        _said(1000, 200, audio_tokens=960),
        "40*0.30/M + 960*1/M + 200*2.50/M",
    ),
    _case(
        "a picture drawn",
        "gemini-2.5-flash-image",
        _raw(25, 1303, candidates_tokens_details=[{"modality": "IMAGE", "token_count": 1290}]),
        _said(25, 1303),
        "25*0.30/M + 13*2.50/M + 1290*30/M",
        units={"output_image_tokens": 1290},
    ),
)
"""Answers whose modalities an invoked model tells: a stream does not."""


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_costs_what_is_billed(case: Case, streamed: bool) -> None:
    """A team would pay what its reports do not show, or see costs that nobody bills."""
    check(case, row_of(case, _build, _answer, streamed=streamed))


@pytest.mark.parametrize("case", DETAILED, ids=lambda case: case.name)
def test_modalities_cost_what_they_are_billed_at(case: Case) -> None:
    """Sound and pictures would be billed as text."""
    check(case, row_of(case, _build, _answer, streamed=False))
