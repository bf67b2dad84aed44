"""The events of a streamed chat completion, made of the body that would have come in one piece."""

from __future__ import annotations

from typing import Any

from tests.support.wire_server import Json

_TOLD_APART = ("reasoning", "reasoning_content")


def chunk(body: Json, delta: Json, finish_reason: str | None = None, **more: Any) -> Json:
    """One event of a stream; `more` are keys of its own, such as `usage`."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": body["id"],
        "object": "chat.completion.chunk",
        "created": body["created"],
        "model": body["model"],
        "choices": [choice],
        **more,
    }


def deltas(body: Json) -> list[Json]:
    """The events up to the last word: the role, thoughts, tools that the provider ran, content, calls of tools."""
    message = body["choices"][0]["message"]
    found = [{"role": "assistant", "content": ""}]
    found += [{name: message[name]} for name in _TOLD_APART if message.get(name)]
    for tool in message.get("executed_tools") or ():  # its call, then the same with what came of it
        call = {name: value for name, value in tool.items() if name != "output"}
        found += [{"executed_tools": [call]}, {"executed_tools": [tool]}]
    content = message.get("content") or []
    found += [{"content": content}] if isinstance(content, str) else [{"content": [block]} for block in content]
    found += [
        {"tool_calls": [{"index": number, **call}]} for number, call in enumerate(message.get("tool_calls") or ())
    ]
    return [chunk(body, delta) for delta in found]


def completion(model: str, usage: Json | None, *, finish_reason: str = "stop", **message: Any) -> Json:
    """A whole chat completion whose one message has `message`'s keys; without `usage` where that is None."""
    body: Json = {
        "id": "cmpl-e5cc70bb28c444948073e77776eb30ef",
        "object": "chat.completion",
        "created": 1794744000,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
    }
    if usage is not None:
        body["usage"] = usage
    return body


def tool_call(name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> Json:
    """A call of a tool, as chat completions have it."""
    return {"id": "D681PevKs", "type": "function", "function": {"name": name, "arguments": arguments}}
