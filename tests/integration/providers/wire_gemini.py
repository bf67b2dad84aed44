"""How the Gemini API answers `generateContent`, and the same as a stream."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_google_genai import ChatGoogleGenerativeAI

from tests.integration.providers.corpus import Case
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

TEXT: Final[Json] = {"text": "It is."}
THOUGHT: Final[Json] = {"text": "Let me see. " * 20, "thought": True}
IMAGE: Final[Json] = {
    "inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()}
}
SPEECH: Final[Json] = {
    "inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": base64.b64encode(bytes(64)).decode()}
}


def counts(prompt: int, candidates: int, **more: Any) -> Json:
    """Usage as the API reports it; `thoughts` and `tools` stand beside the two, `cached` is a part of the prompt."""
    beside = {
        name: more.pop(key)
        for key, name in (("thoughts", "thoughtsTokenCount"), ("tools", "toolUsePromptTokenCount"))
        if key in more
    }
    if "cached" in more:
        beside["cachedContentTokenCount"] = more.pop("cached")
    total = prompt + candidates + beside.get("thoughtsTokenCount", 0) + beside.get("toolUsePromptTokenCount", 0)
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        **beside,
        **more,
    }


def grounded(*queries: str) -> Json:
    """What an answer says of the searches that it rests on."""
    return {
        "webSearchQueries": list(queries),
        "searchEntryPoint": {"renderedContent": "<div></div>"},
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
        "groundingSupports": [],
    }


def body(model: str, used: Json | None, *parts: Json, **candidate: Any) -> Json:
    """An answer of the Gemini API."""
    content = {"role": "model", "parts": list(parts or [TEXT])}
    answered = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0, **candidate}]}
    return {**answered, **({} if used is None else {"usageMetadata": used}), "modelVersion": model, "responseId": "r"}


def build(url: str, case: Case) -> Any:
    """The model that is asked."""
    fixed: Json = {"model": case.model, "api_key": "key", "base_url": url, "max_retries": 1}
    return ChatGoogleGenerativeAI(**{**fixed, **case.settings})


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What the API sends for a request."""
    if "streamGenerateContent" in request.path:
        return as_events(case.chunks if case.chunks is not None else chunks(case.body))
    return as_json(case.body)


def chunks(answered: Json) -> Iterator[Json]:
    """An answer as a stream: a part a chunk; counts grow, and the last chunk has them all, its reason and its grounding."""
    (candidate,) = answered["candidates"]
    parts = candidate["content"]["parts"]
    used = answered.get("usageMetadata")
    for number, part in enumerate(parts, 1):
        content = {"role": "model", "parts": [part]}
        if number == len(parts):
            yield {**answered, "candidates": [{**candidate, "content": content}]}
            return
        chunk = {**answered, "candidates": [{"content": content, "index": 0}]}
        if used is not None:
            chunk["usageMetadata"] = _so_far(used)
        yield chunk


def _so_far(used: Json) -> Json:
    prompt, thoughts = used["promptTokenCount"], used.get("thoughtsTokenCount", 0) // 2
    begun = {"promptTokenCount": prompt, "totalTokenCount": prompt + thoughts}
    return {**begun, "thoughtsTokenCount": thoughts} if thoughts else begun


def case(
    name: str, source: str, model: str, used: Json, tokens: Mapping[str, int], cost: str | None, **more: Any
) -> Case:
    """A case with the usual parts."""
    parts, found = more.pop("parts", [TEXT]), more.pop("found", None)
    answered = body(
        more.pop("answering", model), used, *parts, **({} if found is None else {"groundingMetadata": found})
    )
    return Case(name=name, source=source, model=model, body=answered, tokens=tokens, cost=cost, **more)


def said(prompt: int, completion: int, **more: int) -> dict[str, int]:
    """The columns of a row that are not 0."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}
