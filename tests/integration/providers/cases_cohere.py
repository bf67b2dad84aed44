"""Cases of Cohere's chat, version 2, as `ChatCohere` receives them.

`usage.billed_units` is what Cohere bills; `usage.tokens` counts also what Cohere itself added to the prompt and the answer. The
integration hands on `tokens` of an invoked call and `billed_units` of a stream, each without the other: a stream is exact, an
invoked call is an upper bound and says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from cohere.errors import BadRequestError, TooManyRequestsError
from langchain_cohere import ChatCohere

from tests.integration.providers.corpus import Case
from tests.integration.providers.failing import Failure
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

_CHAT: Final = "https://docs.cohere.com/reference/chat"
_STREAM: Final = "https://docs.cohere.com/reference/chat-stream"
_PRICING: Final = "https://docs.cohere.com/docs/how-does-cohere-pricing-work"
_REASONING: Final = "https://docs.cohere.com/docs/reasoning"
_TOOLS: Final = "https://docs.cohere.com/docs/tool-use-overview"

_THOUGHTS: Final = "thought " * 950  # 7600 bytes, 1900 tokens by the rule of four bytes a token
_TEXT: Final = [{"type": "text", "text": "Paris"}]
_THINKING: Final = [{"type": "thinking", "thinking": _THOUGHTS}, *_TEXT]
_CALL: Final = {"id": "get_weather_0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}


def build(url: str, case: Case) -> ChatCohere:
    """The model of a case."""
    return ChatCohere(model=case.model, cohere_api_key="key", base_url=url, **case.settings)


def chunks(body: Json) -> list[Json]:
    """The body as a stream; the usage comes with its end."""
    usage = {"usage": body["usage"]} if "usage" in body else {}
    end = {"type": "message-end", "delta": {"finish_reason": body["finish_reason"], **usage}}
    return [*_beginning(body), end]


def _beginning(body: Json) -> list[Json]:
    message = body["message"]
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    found: list[Json] = [{"type": "message-start", "id": body["id"], "delta": {"message": empty}}]
    for number, block in enumerate(message.get("content") or ()):
        kind = block["type"]
        start = {"content": {"type": kind, kind: ""}}
        found += [
            {"type": "content-start", "index": number, "delta": {"message": start}},
            {"type": "content-delta", "index": number, "delta": {"message": {"content": {kind: block[kind]}}}},
            {"type": "content-end", "index": number},
        ]
    if plan := message.get("tool_plan"):
        found.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": plan}}})
    for number, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        start = {**call, "function": {**call["function"], "arguments": ""}}
        more = {"function": {"arguments": arguments}}
        found += [
            {"type": "tool-call-start", "index": number, "delta": {"message": {"tool_calls": start}}},
            {"type": "tool-call-delta", "index": number, "delta": {"message": {"tool_calls": more}}},
            {"type": "tool-call-end", "index": number},
        ]
    return found


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Cohere sends for a case."""
    if request.body.get("stream"):
        return as_events(chunks(case.body) if case.chunks is None else case.chunks, named=True)
    return as_json(case.body)


def _body(usage: Json | None, *, finish_reason: str = "COMPLETE", **message: Any) -> Json:
    said = {"role": "assistant", **message}
    body: Json = {"id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4", "finish_reason": finish_reason, "message": said}
    return body if usage is None else {**body, "usage": usage}


def _usage(billed: tuple[int, int], tokens: tuple[int, int], **more: Any) -> Json:
    return {
        "billed_units": {"input_tokens": billed[0], "output_tokens": billed[1]},
        "tokens": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
        **more,
    }


STREAMED: Final = (
    Case(
        name="plain",
        source=_STREAM,
        model="command-a-03-2025",
        body=_body(_usage((5, 418), (71, 418)), content=_TEXT),
        tokens={"prompt_tokens": 5, "completion_tokens": 418},
        cost="5*2.50/M + 418*10/M",
    ),
    Case(
        name="what Cohere added to the prompt is not billed",
        source=_PRICING,
        model="command-r-plus-08-2024",
        body=_body(_usage((3_060, 120), (4_321, 131)), content=_TEXT),
        tokens={"prompt_tokens": 3_060, "completion_tokens": 120},
        cost="3060*2.50/M + 120*10/M",
    ),
    Case(
        name="counts that are no whole numbers on the wire",
        source=_STREAM,
        model="command-r-08-2024",
        body=_body(
            {
                "billed_units": {"input_tokens": 800.0, "output_tokens": 250.0},
                "tokens": {"input_tokens": 866.0, "output_tokens": 252.0},
            },
            content=_TEXT,
        ),
        tokens={"prompt_tokens": 800, "completion_tokens": 250},
        cost="800*0.15/M + 250*0.60/M",
    ),
    Case(
        name="the smallest model",
        source=_STREAM,
        model="command-r7b-12-2024",
        body=_body(_usage((20, 1), (520, 3)), content=_TEXT),
        tokens={"prompt_tokens": 20, "completion_tokens": 1},
        cost="20*0.0375/M + 1*0.15/M",
    ),
    Case(
        name="a call of a tool",
        source=_TOOLS,
        model="command-a-03-2025",
        body=_body(
            _usage((300, 25), (1_610, 61)),
            finish_reason="TOOL_CALL",
            tool_plan="I will look up the weather.",
            tool_calls=[_CALL],
        ),
        tokens={"prompt_tokens": 300, "completion_tokens": 25},
        cost="300*2.50/M + 25*10/M",
    ),
    Case(
        name="an open model that Cohere serves",
        source=_PRICING,
        model="c4ai-aya-expanse-32b",
        body=_body(_usage((1_000, 400), (1_066, 401)), content=_TEXT),
        tokens={"prompt_tokens": 1_000, "completion_tokens": 400},
        cost="1000*0.50/M + 400*1.50/M",
    ),
    Case(
        name="reasoning of a model that has no list price",
        source=_REASONING,
        model="command-a-reasoning-08-2025",
        body=_body(_usage((400, 1_905), (1_200, 1_908)), content=_THINKING),
        tokens={"prompt_tokens": 400, "completion_tokens": 1_905},
        cost=None,
    ),
    Case(
        name="broken off while it thought",
        source=_REASONING,
        model="command-a-03-2025",
        body={},
        chunks=_beginning(_body(None, content=_THINKING[:1])),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_900, "reasoning_tokens": 1_900},
        cost="2*2.50/M + 1900*10/M",
        estimated=True,
    ),
    Case(
        name="broken off in the answer",
        source=_STREAM,
        model="command-r-08-2024",
        body={},
        chunks=_beginning(_body(None, content=[{"type": "text", "text": "Paris is " * 40}])),
        tokens={"prompt_tokens": 2, "completion_tokens": 90},
        cost="2*0.15/M + 90*0.60/M",
        estimated=True,
    ),
)
"""Streams: exact."""

INVOKED: Final = (
    Case(
        name="plain",
        source=_CHAT,
        model="command-a-03-2025",
        body=_body(_usage((5, 418), (71, 418)), content=_TEXT),
        tokens={"prompt_tokens": 71, "completion_tokens": 418},
        cost="71*2.50/M + 418*10/M",
        estimated=True,
        notes=("billed_units_hidden",),
    ),
    Case(
        name="a call of a tool",
        source=_TOOLS,
        model="command-a-03-2025",
        body=_body(
            _usage((300, 25), (1_610, 61)),
            finish_reason="TOOL_CALL",
            tool_plan="I will look up the weather.",
            tool_calls=[_CALL],
        ),
        tokens={"prompt_tokens": 1_610, "completion_tokens": 61},
        cost="1610*2.50/M + 61*10/M",
        estimated=True,
        notes=("billed_units_hidden",),
    ),
    Case(
        name="reasoning of a model that has no list price",
        source=_REASONING,
        model="command-a-reasoning-08-2025",
        body=_body(_usage((400, 1_905), (1_200, 1_908)), content=_THINKING),
        tokens={"prompt_tokens": 1_200, "completion_tokens": 1_908},
        cost=None,
        estimated=True,
    ),
    Case(
        name="no usage",
        source=_CHAT,
        model="command-r-08-2024",
        body=_body(None, content=_THINKING),
        tokens={"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
        cost="2*0.15/M + 1902*0.60/M",
        estimated=True,
    ),
    Case(
        name="invoked, but streamed inside",
        source=_STREAM,
        model="command-a-03-2025",
        settings={"streaming": True},
        body=_body(_usage((5, 418), (71, 418)), content=_TEXT),
        tokens={"prompt_tokens": 5, "completion_tokens": 418},
        cost="5*2.50/M + 418*10/M",
    ),
)
"""Invoked calls: an upper bound."""


def _failing(name: str, tokens: dict[str, int], cost: str, *, estimated: bool = False) -> Case:
    return Case(
        name=name, source=_CHAT, model="command-a-03-2025", body={}, tokens=tokens, cost=cost, estimated=estimated
    )


REFUSED: Final = (
    Failure(
        case=_failing("refused with 429", {}, "0"),
        reply=replace(as_json({"id": "1", "message": "Too many requests."}, 429), headers={"retry-after-ms": "1"}),
        error=TooManyRequestsError,
    ),
    Failure(
        case=_failing("refused with 400", {}, "0"),
        reply=as_json({"id": "1", "message": "too many tokens"}, 400),
        error=BadRequestError,
    ),
)
"""By the provider, who bills nothing of it; alike invoked and streamed."""

FAILED: Final = (
    Failure(
        # The integration reads `tokens` alone, and stumbles where it is not there.
        case=_failing(
            "paid, with billed units and nothing else",
            {"prompt_tokens": 300, "completion_tokens": 25},
            "300*2.50/M + 25*10/M",
        ),
        reply=as_json(_body({"billed_units": {"input_tokens": 300, "output_tokens": 25}}, content=_TEXT)),
        error=UnboundLocalError,
    ),
    Failure(
        case=_failing(
            "paid, without a message", {"prompt_tokens": 300, "completion_tokens": 25}, "300*2.50/M + 25*10/M"
        ),
        reply=as_json({**_body(_usage((300, 25), (1_610, 61))), "message": None}),
        error=AttributeError,
    ),
)
"""Answers that were paid, and that the integration then refused; invoked. The whole body is at hand, so they are exact."""

FAILED_STREAMS: Final = (
    Failure(
        case=_failing(
            "paid, without usage at its end",
            {"prompt_tokens": 2, "completion_tokens": 1_902, "reasoning_tokens": 1_900},
            "2*2.50/M + 1902*10/M",
            estimated=True,
        ),
        reply=as_events(chunks(_body(None, content=_THINKING)), named=True),
        error=AttributeError,
    ),
)
"""Streams that were paid, and that the integration then refused."""
