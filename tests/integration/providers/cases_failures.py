"""Calls that failed for the user: what was refused costs nothing, what was answered is paid, whatever the client made of it."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, Field

from tests.integration.providers.cases_gateways import chat_azure
from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import (
    CHAT,
    RESPONSES,
    chat_openai,
    completion,
    completion_chunks,
    message_item,
    response,
    response_events,
    response_usage,
    responses_openai,
    usage,
)
from tests.support.wire_server import Json, WireAnswer, as_events, as_json

_PARSING: Final = "https://platform.openai.com/docs/guides/structured-outputs"
_ERRORS: Final = "https://platform.openai.com/docs/guides/error-codes"
_STREAM_ERRORS: Final = "https://openrouter.ai/docs/api-reference/errors"
_HELLO: Final = {"prompt_tokens": 2}  # "Hello", 5 bytes
_REFUSED: Final = '{"score": 5}'


class Score(BaseModel):
    """What the user wants; an answer with a higher score is refused."""

    score: int = Field(le=1)


def scored_chat(url: str, case: Case) -> Any:
    """The model of a case, which must answer with a Score."""
    return chat_openai(url, case).with_structured_output(Score, method="json_schema")


def scored_azure(url: str, case: Case) -> Any:
    """The same, of Azure OpenAI."""
    return chat_azure(url, case).with_structured_output(Score, method="json_schema")


def scored_responses(url: str, case: Case) -> Any:
    """The same, for the Responses API."""
    return responses_openai(url, case).with_structured_output(Score, method="json_schema")


SCORED_CHAT: Final = (
    Case(
        name="refused by the user's schema",
        source=_PARSING,
        model="gpt-4o",
        body=completion("gpt-4o-2024-08-06", usage(4000, 1000), text=_REFUSED),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
    Case(
        name="refused by the user's schema, cached, flex",
        source=_PARSING,
        model="o3",
        settings={"service_tier": "flex"},
        body=completion(
            "o3-2025-04-16", usage(4000, 1000, cached=3072, reasoning=768), text=_REFUSED, service_tier="flex"
        ),
        chunks=(),
        fails=True,
        tokens={
            "prompt_tokens": 4000, "cache_read_tokens": 3072, "completion_tokens": 1000, "reasoning_tokens": 768,
        },
        cost="928*1/M + 3072*0.25/M + 1000*4/M",
    ),
    Case(
        name="refused by the user's schema in mid-stream, before the usage had come",
        source=_PARSING,
        model="gpt-4o",
        invoked=False,
        body=completion("gpt-4o-2024-08-06", usage(4000, 1000), text=_REFUSED),
        fails=True,
        tokens={**_HELLO, "completion_tokens": 3},  # 12 bytes
        cost="2*2.50/M + 3*10/M",
        estimated=True,
    ),
    Case(
        name="cut off at its limit",
        source=f"{_PARSING}#handling-edge-cases",
        model="gpt-4o",
        body=completion("gpt-4o-2024-08-06", usage(4000, 1000), text='{"sco', finish_reason="length"),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
    Case(
        name="filtered",
        source=f"{_PARSING}#handling-edge-cases",
        model="gpt-4o",
        body=completion("gpt-4o-2024-08-06", usage(4000, 100), text='{"sco', finish_reason="content_filter"),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 100},
        cost="4000*2.50/M + 100*10/M",
    ),
)  # fmt: skip

SCORED_AZURE: Final = (
    Case(
        name="refused by the user's schema, from a deployment with a name of its own",
        source=_PARSING,
        model="answers-eu",
        body=completion("gpt-4o-2024-11-20", usage(4000, 1000), text=_REFUSED),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
)

SCORED_RESPONSES: Final = (
    Case(
        name="refused by the user's schema",
        source=_PARSING,
        model="gpt-5",
        body=response("gpt-5-2025-08-07", response_usage(4000, 1000, cached=1024), message_item(_REFUSED)),
        fails=True,
        tokens={"prompt_tokens": 4000, "cache_read_tokens": 1024, "completion_tokens": 1000},
        cost="2976*1.25/M + 1024*0.125/M + 1000*10/M",
    ),
)

_PAID: Final = usage(4000, 1000)
_WHOLE: Final = completion("gpt-4o-2024-08-06", _PAID, text="word " * 40)


def _without(body: Json, name: str) -> Json:
    return {key: value for key, value in body.items() if key != name}


def _events(body: Json, *, until: int) -> list[Json]:
    return list(completion_chunks(body, with_usage=True))[:until]


def _cut(answer: WireAnswer) -> WireAnswer:
    """The same, but the connection breaks after it."""
    return WireAnswer(answer.content, answer.content_type, missing=1000)


def _refusal(status: int, code: str) -> Case:
    return Case(
        name=f"refused with status {status}",
        source=_ERRORS,
        model="gpt-4o",
        body={},
        sent=as_json(
            {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": code}}, status
        ),
        fails=True,
        tokens={},
        cost="0",
    )


CHATS: Final = (
    _refusal(400, "context_length_exceeded"),
    _refusal(401, "invalid_api_key"),
    _refusal(404, "model_not_found"),
    _refusal(429, "rate_limit_exceeded"),
    _refusal(500, "server_error"),
    Case(
        name="an answer without choices",
        source=CHAT,
        model="gpt-4o",
        body=_without(_WHOLE, "choices"),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
    Case(
        name="an error with status 200 and usage",
        source=_STREAM_ERRORS,
        model="gpt-4o",
        body={**_without(_WHOLE, "choices"), "error": {"code": 502, "message": "The provider failed."}},
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
    Case(
        name="an answer that ends in the middle of its JSON",
        source=CHAT,
        model="gpt-4o",
        body={},
        sent=WireAnswer(json.dumps(_WHOLE).encode()[:120]),
        chunks=(),
        fails=True,
        tokens=_HELLO,
        cost="2*2.50/M",
        estimated=True,
    ),
    Case(
        name="an answer whose connection broke",
        source=CHAT,
        model="gpt-4o",
        body={},
        sent=_cut(WireAnswer(json.dumps(_WHOLE).encode()[:120])),
        chunks=(),
        fails=True,
        tokens=_HELLO,
        cost="2*2.50/M",
        estimated=True,
    ),
    Case(
        name="a stream whose connection broke",
        source=CHAT,
        model="gpt-4o",
        invoked=False,
        body={},
        sent=_cut(as_events(_events(_WHOLE, until=2))),
        fails=True,
        tokens={**_HELLO, "completion_tokens": 50},  # 200 bytes
        cost="2*2.50/M + 50*10/M",
        estimated=True,
    ),
    Case(
        name="a stream that ended early",
        source=CHAT,
        model="gpt-4o",
        invoked=False,
        body={},
        sent=as_events(_events(_WHOLE, until=2)),
        tokens={**_HELLO, "completion_tokens": 50},
        cost="2*2.50/M + 50*10/M",
        estimated=True,
    ),
    Case(
        name="a stream that broke after its usage",
        source=CHAT,
        model="gpt-4o",
        invoked=False,
        body={},
        sent=_cut(as_events(_events(_WHOLE, until=4))),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
    ),
    Case(
        name="a stream that ended with an error",
        source=_STREAM_ERRORS,
        model="gpt-4o",
        invoked=False,
        body={},
        sent=as_events(
            [*_events(_WHOLE, until=2), {"error": {"message": "No.", "type": "server_error", "code": "server_error"}}]
        ),
        fails=True,
        tokens={**_HELLO, "completion_tokens": 50},
        cost="2*2.50/M + 50*10/M",
        estimated=True,
    ),
)

_FAILED: Final = response(
    "gpt-5-2025-08-07",
    response_usage(4000, 1000, reasoning=640),
    status="failed",
    output=[],
    error={"code": "server_error", "message": "The model failed."},
)
_RESPONSE: Final = response("gpt-5-2025-08-07", response_usage(4000, 1000), message_item("word " * 40))

RESPONSES_CASES: Final = (
    Case(
        name="a response that failed, with usage",
        source=RESPONSES,
        model="gpt-5",
        body=_FAILED,
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000, "reasoning_tokens": 640},
        cost="4000*1.25/M + 1000*10/M",
    ),
    Case(
        name="a response without output",
        source=RESPONSES,
        model="gpt-5",
        body=_without(_RESPONSE, "output"),
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*1.25/M + 1000*10/M",
    ),
    Case(
        name="a stream that ended early",
        source=RESPONSES,
        model="gpt-5",
        invoked=False,
        body={},
        sent=as_events(list(response_events(_RESPONSE))[:5], named=True),
        tokens={**_HELLO, "completion_tokens": 50},
        cost="2*1.25/M + 50*10/M",
        estimated=True,
    ),
    Case(
        name="a stream that ended with an error",
        source=RESPONSES,
        model="gpt-5",
        invoked=False,
        body={},
        sent=as_events(
            [
                *list(response_events(_RESPONSE))[:5],
                {
                    "type": "error", "sequence_number": 9, "code": "server_error", "message": "No.", "param": None,
                },
            ],
            named=True,
        ),
        fails=True,
        tokens={**_HELLO, "completion_tokens": 50},
        cost="2*1.25/M + 50*10/M",
        estimated=True,
    ),
)  # fmt: skip

_THINKING: Final = completion("deepseek-reasoner", _PAID, text="four", message={"reasoning_content": "hm, " * 1900})

DEEPSEEK: Final = (
    Case(
        name="broken off while it thought",
        source="https://api-docs.deepseek.com/guides/reasoning_model",
        model="deepseek-reasoner",
        invoked=False,
        body={},
        sent=_cut(as_events(_events(_THINKING, until=2))),
        fails=True,
        tokens={**_HELLO, "completion_tokens": 1900, "reasoning_tokens": 1900},  # 7,600 bytes
        cost="2*0.55/M + 1900*2.19/M",
        estimated=True,
    ),
    Case(
        name="ended while it thought",
        source="https://api-docs.deepseek.com/guides/reasoning_model",
        model="deepseek-reasoner",
        invoked=False,
        body={},
        sent=as_events(_events(_THINKING, until=2)),
        tokens={**_HELLO, "completion_tokens": 1900, "reasoning_tokens": 1900},
        cost="2*0.55/M + 1900*2.19/M",
        estimated=True,
    ),
)

OPENROUTER: Final = (
    Case(
        name="an answer that the client does not understand",
        source=_STREAM_ERRORS,
        model="openai/gpt-4o",
        body={"id": "gen-1", "usage": {**_PAID, "cost": 0.02}},
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
        reported="0.02",
    ),
    Case(
        name="an answer with no choices in it",
        source=_STREAM_ERRORS,
        model="openai/gpt-4o",
        body={**completion("openai/gpt-4o", {**_PAID, "cost": 0.02}), "choices": []},
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 4000, "completion_tokens": 1000},
        cost="4000*2.50/M + 1000*10/M",
        reported="0.02",
    ),
    Case(
        name="refused with status 402",
        source=_STREAM_ERRORS,
        model="openai/gpt-4o",
        body={},
        sent=as_json({"error": {"code": 402, "message": "Insufficient credits."}}, 402),
        fails=True,
        tokens={},
        cost="0",
    ),
)

PERPLEXITY: Final = (
    Case(
        name="an answer without choices",
        source="https://docs.perplexity.ai/api-reference/chat-completions-post",
        model="sonar",
        body={
            "id": "1", "model": "sonar", "created": 1_763_208_000, "object": "chat.completion",
            "usage": {
                "prompt_tokens": 26, "completion_tokens": 832, "total_tokens": 858, "search_context_size": "low",
            },
        },
        chunks=(),
        fails=True,
        tokens={"prompt_tokens": 26, "completion_tokens": 832},
        cost="26*1/M + 832*1/M + 5/K",
        fees="5/K",
    ),
)  # fmt: skip
