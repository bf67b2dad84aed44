"""Cases of Ollama's chat, as `ChatOllama` receives them: models on a server of one's own, for which no list price holds.

Counts stand in the last line: `prompt_eval_count` (left out where the whole prompt was kept from before) and `eval_count`, with
thoughts included. The integration streams inside where it is invoked.
"""

from __future__ import annotations

from typing import Final

from langchain_ollama import ChatOllama
from ollama import ResponseError

from tests.integration.providers.corpus import Case
from tests.integration.providers.failing import Failure
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_json, as_lines

_CHAT: Final = "https://docs.ollama.com/api/chat"
_THINKING: Final = "https://docs.ollama.com/capabilities/thinking"
_CLOUD: Final = "https://docs.ollama.com/cloud"

_THOUGHTS: Final = "thought " * 950  # 7600 bytes, 1900 tokens by the rule of four bytes a token


def build(url: str, case: Case) -> ChatOllama:
    """The model of a case."""
    return ChatOllama(model=case.model, base_url=url, **case.settings)


def chunks(body: Json) -> list[Json]:
    """The body as a stream: thoughts, words, calls of tools, and a line that ends it."""
    message = body["message"]
    parts = [{name: message[name]} for name in ("thinking", "content", "tool_calls") if message.get(name)]
    return [*(_line(body["model"], part) for part in parts), {**body, "message": {"role": "assistant", "content": ""}}]


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Ollama sends for a case."""
    if request.body.get("stream"):
        return as_lines(chunks(case.body) if case.chunks is None else case.chunks)
    return as_json(case.body)


def _line(model: str, message: Json) -> Json:
    said = {"role": "assistant", "content": "", **message}
    return {"model": model, "created_at": "2026-11-15T12:00:00.5Z", "message": said, "done": False}


def _body(model: str, prompt: int | None, count: int, **message: object) -> Json:
    body: Json = {
        **_line(model, message),
        "done": True,
        "done_reason": "stop",
        "total_duration": 5_191_566_416,
        "load_duration": 2_154_458,
        "prompt_eval_duration": 383_809_000,
        "eval_count": count,
        "eval_duration": 4_799_921_000,
    }
    return body if prompt is None else {**body, "prompt_eval_count": prompt}


CASES: Final = (
    Case(
        name="plain",
        source=_CHAT,
        model="llama3.2",
        body=_body("llama3.2", 26, 298, content="Paris"),
        tokens={"prompt_tokens": 26, "completion_tokens": 298},
        cost=None,
    ),
    Case(
        name="open weights of a vendor who sells other models",
        source=_CHAT,
        model="gpt-oss:20b",
        settings={"reasoning": True},
        body=_body("gpt-oss:20b", 80, 1_950, content="Paris", thinking=_THOUGHTS),
        tokens={"prompt_tokens": 80, "completion_tokens": 1_950},
        cost=None,
    ),
    Case(
        name="a name that a vendor sells too",
        source=_CHAT,
        model="deepseek-r1",
        body=_body("deepseek-r1", 80, 1_950, content="Paris", thinking=_THOUGHTS),
        tokens={"prompt_tokens": 80, "completion_tokens": 1_950},
        cost=None,
    ),
    Case(
        name="a name of another vendor",
        source=_CHAT,
        model="mistral-small",
        body=_body("mistral-small", 80, 50, content="Paris"),
        tokens={"prompt_tokens": 80, "completion_tokens": 50},
        cost=None,
    ),
    Case(
        name="a model of Ollama's cloud, paid by subscription",
        source=_CLOUD,
        model="gpt-oss:120b-cloud",
        body=_body("gpt-oss:120b-cloud", 80, 50, content="Paris"),
        tokens={"prompt_tokens": 80, "completion_tokens": 50},
        cost=None,
    ),
    Case(
        name="a call of a tool",
        source="https://docs.ollama.com/capabilities/tool-calling",
        model="qwen3",
        body=_body(
            "qwen3", 169, 21, content="", tool_calls=[{"function": {"name": "get_weather", "arguments": {"city": "P"}}}]
        ),
        tokens={"prompt_tokens": 169, "completion_tokens": 21},
        cost=None,
    ),
    Case(
        name="a prompt that was kept from before, whose count is left out",
        source=_CHAT,
        model="llama3.2",
        body=_body("llama3.2", None, 298, content="Paris"),
        tokens={"prompt_tokens": 2, "completion_tokens": 298},
        cost=None,
        estimated=True,
    ),
    Case(
        name="broken off while it thought",
        source=_THINKING,
        model="qwen3",
        settings={"reasoning": True},
        body={},
        chunks=[_line("qwen3", {"thinking": _THOUGHTS})],
        tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
        cost=None,
        estimated=True,
    ),
)
"""Alike invoked and streamed."""


def _failing(name: str) -> Case:
    return Case(name=name, source=_CHAT, model="llama3.2", body={}, tokens={}, cost="0")


REFUSED: Final = (
    Failure(
        case=_failing("a model that was not pulled"),
        reply=as_json({"error": "model 'llama3.2' not found"}, 404),
        error=ResponseError,
    ),
    Failure(
        case=_failing("too busy"),
        reply=as_json({"error": "server busy, please try again. maximum pending requests exceeded"}, 503),
        error=ResponseError,
    ),
)
"""By the server, which did nothing."""

FAILED: Final = (
    Failure(
        case=Case(
            name="an error after the thoughts",
            source="https://docs.ollama.com/api/errors",
            model="qwen3",
            settings={"reasoning": True},
            body={},
            tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
            cost=None,
            estimated=True,
        ),
        reply=as_lines([_line("qwen3", {"thinking": _THOUGHTS}), {"error": "an error was encountered"}]),
        error=ResponseError,
    ),
)
"""Answers of which a part came."""
