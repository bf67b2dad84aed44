"""Answers in OpenAI's two dialects, as a body and as a stream made of it, and what sends them.

Chat completions: https://platform.openai.com/docs/api-reference/chat; streams as in .../chat-streaming.
Responses: https://platform.openai.com/docs/api-reference/responses; streams as in .../responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.integration.providers.corpus import Case
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

CHAT = "https://platform.openai.com/docs/api-reference/chat/object"
RESPONSES = "https://platform.openai.com/docs/api-reference/responses/object"
PRICING = "https://platform.openai.com/docs/pricing"
TEXT = "Hello there."


def usage(
    prompt: int,
    completion: int,
    *,
    cached: int = 0,
    written: int | None = None,
    heard: int = 0,
    said: int = 0,
    reasoning: int = 0,
    total: int | None = None,
    **more: Any,
) -> Json:
    """The usage of a chat completion; `cached` and `heard` are parts of `prompt`, `said` and `reasoning` of `completion`."""
    prompt_details: Json = {"cached_tokens": cached, "audio_tokens": heard}
    if written is not None:
        prompt_details["cache_write_tokens"] = written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion if total is None else total,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": said,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        **more,
    }


def completion(
    model: str,
    counts: Json | None,
    *,
    text: str | None = TEXT,
    message: Json | None = None,
    finish_reason: str = "stop",
    n: int = 1,
    **more: Any,
) -> Json:
    """A chat completion; `message` are further fields of its message, `more` those of the body."""
    said = {"role": "assistant", "content": text, "refusal": None, "annotations": [], **(message or {})}
    choice = {"message": said, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-CQ2u8zWj1rA6sF0vYh3nKp5dLxT7b",
        "object": "chat.completion",
        "created": 1_763_208_000,
        "model": model,
        "choices": [{"index": index, **choice} for index in range(n)],
        "usage": counts,
        "system_fingerprint": "fp_cbf1785567",
        **more,
    }


def completion_chunks(body: Json, *, with_usage: bool) -> Iterator[Json]:
    """A chat completion as the events of its stream; the usage comes last, where the client has asked for it."""
    head = {name: value for name, value in body.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    if with_usage:
        head["usage"] = None

    def chunk(index: int, delta: Json, finish_reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}

    for choice in body["choices"]:
        index, message = choice["index"], choice["message"]
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
        for name in ("reasoning_content", "reasoning", "reasoning_details", "annotations"):
            if message.get(name):
                yield chunk(index, {name: message[name]})
        for place, call in enumerate(message.get("tool_calls") or ()):
            yield chunk(index, {"tool_calls": [{"index": place, **call}]})
        if message["content"]:
            yield chunk(index, {"content": message["content"]})
        yield chunk(index, {}, choice["finish_reason"])
    if with_usage and body["usage"] is not None:
        yield {**head, "choices": [], "usage": body["usage"]}


def answer_completion(case: Case, request: WireRequest) -> WireAnswer:
    """What a server of chat completions sends."""
    if case.sent is not None:
        return case.sent
    if not request.body.get("stream"):
        return as_json(case.body)
    asked = bool((request.body.get("stream_options") or {}).get("include_usage"))
    chunks = completion_chunks(case.body, with_usage=asked) if case.chunks is None else case.chunks
    return as_events(chunks, done=True)


def response_usage(
    inputs: int, outputs: int, *, cached: int = 0, written: int | None = None, reasoning: int = 0
) -> Json:
    """The usage of a response; `cached` is a part of `inputs`, `reasoning` of `outputs`."""
    details = {"cached_tokens": cached} if written is None else {"cached_tokens": cached, "cache_write_tokens": written}
    return {
        "input_tokens": inputs,
        "input_tokens_details": details,
        "output_tokens": outputs,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": inputs + outputs,
    }


def message_item(text: str = TEXT) -> Json:
    """The text of a response."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def web_search(number: int, action: str = "search") -> Json:
    """A call of the web search tool: a `search`, or a look at what one found (`open_page`, `find_in_page`)."""
    details: Json = {"search": {"query": "weather in Basel", "queries": ["weather in Basel"], "sources": None}}.get(
        action, {"url": "https://example.com"}
    )
    if action == "find_in_page":
        details["pattern"] = "rain"
    return {
        "id": f"ws_{number}", "type": "web_search_call", "status": "completed", "action": {"type": action, **details},
    }  # fmt: skip


def file_search(number: int) -> Json:
    """A call of the file search tool."""
    return {
        "id": f"fs_{number}", "type": "file_search_call", "status": "completed",
        "queries": ["leave policy"], "results": None,
    }  # fmt: skip


def code_run(number: int, container: str) -> Json:
    """A call of the code interpreter, in a container that other calls share."""
    return {
        "id": f"ci_{number}", "type": "code_interpreter_call", "status": "completed",
        "code": "print(1)", "container_id": container, "outputs": None,
    }  # fmt: skip


def reasoning_item(summary: str = "Thinking.") -> Json:
    """What the model thought, as far as it is told."""
    return {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": summary}]}


def response(
    model: str, counts: Json | None, *items: Json, status: str = "completed", tier: str = "default", **more: Any
) -> Json:
    """A response made of output items, a text by default; `more` are further fields of the body."""
    return {
        "id": "resp_68e1f2",
        "object": "response",
        "created_at": 1_763_208_000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": list(items) or [message_item()],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": tier,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": counts,
        "user": None,
        "metadata": {},
        **more,
    }


def response_events(body: Json) -> Iterator[Json]:
    """A response as the events of its stream; the last one holds the whole of it."""
    begun = {**body, "status": "in_progress", "output": [], "usage": None, "error": None, "incomplete_details": None}
    events: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}), ("response.in_progress", {"response": begun}),
    ]  # fmt: skip
    for place, item in enumerate(body["output"]):
        parts = item["content"] if item["type"] == "message" else []
        opened = {**item, "content": []} if parts else item
        events.append(
            ("response.output_item.added", {"output_index": place, "item": {**opened, "status": "in_progress"}})
        )
        for index, part in enumerate(parts):
            where = {"item_id": item["id"], "output_index": place, "content_index": index}
            events += [
                ("response.content_part.added", {**where, "part": {**part, "text": ""}}),
                ("response.output_text.delta", {**where, "delta": part["text"], "logprobs": []}),
                ("response.output_text.done", {**where, "text": part["text"], "logprobs": []}),
                ("response.content_part.done", {**where, "part": part}),
            ]
        events.append(("response.output_item.done", {"output_index": place, "item": item}))
    events.append((f"response.{body['status']}", {"response": body}))
    for number, (kind, fields) in enumerate(events):
        yield {"type": kind, "sequence_number": number, **fields}


def answer_response(case: Case, request: WireRequest) -> WireAnswer:
    """What a server of the Responses API sends."""
    if case.sent is not None:
        return case.sent
    if not request.body.get("stream"):
        return as_json(case.body)
    return as_events(response_events(case.body) if case.chunks is None else case.chunks, named=True)


def chat_openai(url: str, case: Case) -> Any:
    """The model of a case, of LangChain's integration with OpenAI."""
    from langchain_openai import ChatOpenAI

    settings: Json = {"stream_usage": True, **case.settings}
    return ChatOpenAI(model=case.model, base_url=f"{url}/v1", api_key="key", max_retries=0, **settings)


def responses_openai(url: str, case: Case) -> Any:
    """The same, for the Responses API."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=case.model, base_url=f"{url}/v1", api_key="key", max_retries=0, use_responses_api=True, **case.settings
    )
