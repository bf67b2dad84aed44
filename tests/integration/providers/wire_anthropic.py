"""How Anthropic's Messages API answers: its bodies, its usage, and the same as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_anthropic import ChatAnthropic

from tests.integration.providers.corpus import Case
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

DOCS: Final = "https://platform.claude.com/docs/en/"

# What `message_delta`, the last event of a stream that counts, has of the usage; `message_start` has the rest.
_COUNTED_LAST: Final = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "output_tokens_details",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "server_tool_use",
        "iterations",
    }
)
_EMPTY_BLOCKS: Final[Mapping[str, Json]] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}

TEXT: Final[Json] = {"type": "text", "text": "It is."}
THOUGHT: Final[Json] = {"type": "thinking", "thinking": "Let me see. " * 20, "signature": "EqQBCgIYAhIM"}
ONE_HOUR: Final[Json] = {"type": "ephemeral", "ttl": "1h"}
SEARCH_TOOL: Final[Json] = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
ADVISOR_TOOL: Final[Json] = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-8"}


def body(model: str, usage: Json | None, *content: Json, stop_reason: str = "end_turn") -> Json:
    """An answer of the Messages API."""
    return {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(content or [TEXT]),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        **({} if usage is None else {"usage": usage}),
    }


def usage(input_tokens: int, output_tokens: int, **more: Any) -> Json:
    """Usage as the API reports it: `input_tokens` are those beside the cache."""
    plain = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "service_tier": "standard"}
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, **plain, **more}


def writes(short: int = 0, long: int = 0) -> Json:
    """What was written to the cache, for five minutes and for an hour."""
    split = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    return {"cache_creation_input_tokens": short + long, "cache_creation": split}


def one_pass(kind: str, input_tokens: int, output_tokens: int, **more: Any) -> Json:
    """One of the passes that an answer was made in."""
    cache = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {"type": kind, "input_tokens": input_tokens, "output_tokens": output_tokens, **cache, **more}


def searches(count: int, *, failed: int = 0) -> list[Json]:
    """The blocks of searches, of which the last `failed` ones found nothing but an error."""
    blocks: list[Json] = []
    for number in range(count):
        key = f"srvtoolu_{number}"
        hit: Json = {"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "E"}
        error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
        result: Any = error if number >= count - failed else [hit]
        blocks += [
            {"type": "server_tool_use", "id": key, "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": key, "content": result},
        ]
    return [*blocks, TEXT]


def build(url: str, case: Case) -> Any:
    """The model that is asked."""
    fixed: Json = {"model": case.model, "api_key": "key", "base_url": url, "max_tokens": 1024, "max_retries": 0}
    return ChatAnthropic(**{**fixed, **case.settings})


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What the API sends for a request."""
    if request.body.get("stream"):
        return as_events(case.chunks if case.chunks is not None else events(case.body), named=True)
    return as_json(case.body)


def events(answered: Json) -> Iterator[Json]:
    """An answer as the events of a stream: https://platform.claude.com/docs/en/build-with-claude/streaming."""
    counts = answered.get("usage") or {}
    begun = {name: value for name, value in counts.items() if name in ("service_tier", "inference_geo", "speed")}
    begun |= {name: value for name, value in counts.items() if "input" in name or name == "cache_creation"}
    start = {**answered, "content": [], "stop_reason": None, "usage": {**begun, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(answered["content"]):
        kind = block["type"]
        first = {"type": kind, **_EMPTY_BLOCKS[kind]} if kind in _EMPTY_BLOCKS else block
        yield {"type": "content_block_start", "index": index, "content_block": first}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    last = {name: value for name, value in counts.items() if name in _COUNTED_LAST}
    ended = {"stop_reason": answered["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": last}
    yield {"type": "message_stop"}


def _deltas(block: Json) -> Iterator[Json]:
    if block["type"] == "text":
        yield {"type": "text_delta", "text": block["text"]}
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "compaction":
        yield {"type": "compaction_delta", "content": block["content"]}


def case(
    name: str, source: str, model: str, used: Json, tokens: Mapping[str, int], cost: str | None, **more: Any
) -> Case:
    """A case with the usual parts."""
    content = more.pop("content", [TEXT])
    stop_reason = more.pop("stop_reason", "end_turn")
    answered = body(more.pop("answering", model), used, *content, stop_reason=stop_reason)
    return Case(name=name, source=source, model=model, body=answered, tokens=tokens, cost=cost, **more)


def said(prompt: int, completion: int, **more: int) -> dict[str, int]:
    """The columns of a row that are not 0."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}
