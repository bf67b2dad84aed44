"""How Amazon Bedrock answers: `Converse` for all models, `InvokeModel` in each model's own format, and both as event streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from langchain_aws import ChatAnthropicBedrock, ChatAnthropicMantle, ChatBedrock, ChatBedrockConverse, ChatOpenAIMantle

from tests.integration.providers import wire_anthropic
from tests.integration.providers.corpus import Case
from tests.support.aws_event_stream import as_converse_events, as_model_events
from tests.support.wire_server import Json, WireAnswer, WireRequest, as_events, as_json

TEXT: Final[Json] = {"text": "It is."}
THOUGHT: Final[Json] = {"reasoningContent": {"reasoningText": {"text": "Let me see. " * 20, "signature": "EqQB"}}}
_REGION: Final = "us-east-1"
_KEYS: Final[Json] = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": _REGION}
_SESSION: Final = boto3.Session(**_KEYS)  # one for all, since it reads the description of the service anew
_ONCE: Final = Config(retries={"total_max_attempts": 1})


def counts(input_tokens: int, output_tokens: int, *, read: int = 0, written: int = 0, **more: Any) -> Json:
    """Usage of `Converse`: `input_tokens` are those beside the cache."""
    total = input_tokens + output_tokens + read + written
    used = {"inputTokens": input_tokens, "outputTokens": output_tokens, "totalTokens": total}
    cache = {"cacheReadInputTokens": read, "cacheWriteInputTokens": written} if read or written else {}
    return {**used, **cache, **more}


def kept(**tokens: int) -> Json:
    """How long what was written to the cache is kept: `short` five minutes, `long` an hour."""
    names = {"short": "5m", "long": "1h"}
    return {"cacheDetails": [{"ttl": names[name], "inputTokens": count} for name, count in tokens.items()]}


def body(used: Json | None, *content: Json, **more: Any) -> Json:
    """An answer of `Converse`."""
    message = {"role": "assistant", "content": list(content or [TEXT])}
    answered = {"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 640}, **more}
    return answered if used is None else {**answered, "usage": used}


def events(answered: Json) -> Iterator[Json]:
    """An answer of `Converse` as the events of `ConverseStream`."""
    yield {"messageStart": {"role": "assistant"}}
    for index, block in enumerate(answered["output"]["message"]["content"]):
        yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": _delta(block)}}
        yield {"contentBlockStop": {"contentBlockIndex": index}}
    fields = {name: answered[name] for name in ("additionalModelResponseFields",) if name in answered}
    yield {"messageStop": {"stopReason": answered["stopReason"], **fields}}
    if "usage" in answered:
        names = ("usage", "metrics", "performanceConfig", "serviceTier")
        yield {"metadata": {name: answered[name] for name in names if name in answered}}


def _delta(block: Json) -> Json:
    if "reasoningContent" in block:
        return {"reasoningContent": {"text": block["reasoningContent"]["reasoningText"]["text"]}}
    return block


def metered(used: Json) -> Json:
    """The headers in which `InvokeModel` counts, of usage as the Messages API reports it."""
    named = {
        "input-token-count": used["input_tokens"],
        "output-token-count": used["output_tokens"],
        "cache-read-input-token-count": used.get("cache_read_input_tokens", 0),
        "cache-write-input-token-count": used.get("cache_creation_input_tokens", 0),
    }
    return {f"x-amzn-bedrock-{name}": str(count) for name, count in named.items()}


def model_events(answered: Json) -> Iterator[Json]:
    """An answer of the Messages API as the events of a stream of `InvokeModel`, with the metrics that the last one carries."""
    used = answered["usage"]
    metrics = {
        "inputTokenCount": used["input_tokens"],
        "outputTokenCount": used["output_tokens"],
        "cacheReadInputTokenCount": used.get("cache_read_input_tokens", 0),
        "cacheWriteInputTokenCount": used.get("cache_creation_input_tokens", 0),
        "invocationLatency": 640,
        "firstByteLatency": 210,
    }
    *begun, last = wire_anthropic.events(answered)
    yield from begun
    yield {**last, "amazon-bedrock-invocationMetrics": metrics}


def answer(case: Case, request: WireRequest) -> WireAnswer:
    """What Bedrock sends for a request to any of its ways in."""
    path = request.path
    if path.endswith("/converse"):
        return as_json(case.body)
    if path.endswith("/converse-stream"):
        return as_converse_events(case.chunks if case.chunks is not None else events(case.body))
    if path.endswith("/invoke"):
        told = as_json(case.body)
        return WireAnswer(told.content, headers=metered(case.body["usage"]))
    if path.endswith("/invoke-with-response-stream"):
        return as_model_events(model_events(case.body))
    if path.endswith("/chat/completions"):
        return _completion(case.body, request)
    if path.endswith("/messages"):
        return wire_anthropic.answer(case, request)
    return as_json({})  # what a profile stands for, which may be asked first


def _completion(answered: Json, request: WireRequest) -> WireAnswer:
    if not request.body.get("stream"):
        return as_json(answered)
    head = {name: answered[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    said = {"index": 0, "delta": answered["choices"][0]["message"], "finish_reason": "stop"}
    return as_events([{**head, "choices": [said]}, {**head, "choices": [], "usage": answered["usage"]}], done=True)


def build_converse(url: str, case: Case) -> Any:
    """ChatBedrockConverse."""
    return ChatBedrockConverse(**_clients(url), **{"model": case.model, "region_name": _REGION, **case.settings})


def build_invoke(url: str, case: Case) -> Any:
    """ChatBedrock, which speaks each model's own format."""
    return ChatBedrock(**_clients(url), **{"model": case.model, "region_name": _REGION, **case.settings})


def _clients(url: str) -> Json:
    names = {"client": "bedrock-runtime", "bedrock_client": "bedrock"}
    return {key: _SESSION.client(name, endpoint_url=url, config=_ONCE) for key, name in names.items()}


def build_claude(url: str, case: Case) -> Any:
    """ChatAnthropicBedrock, which is ChatAnthropic over `InvokeModel`."""
    fixed: Json = {"model": case.model, "max_tokens": 1024, "max_retries": 0, **_KEYS}
    model = ChatAnthropicBedrock(**{**fixed, **case.settings})
    model._client_params["base_url"] = url
    return model


def build_mantle(url: str, case: Case) -> Any:
    """The two integrations of Bedrock's Mantle endpoint: of Anthropic's API and of OpenAI's."""
    fixed: Json = {"model": case.model, "bedrock_api_key": "key", "region_name": _REGION, "max_retries": 0}
    settings: Json = {**fixed, **case.settings}
    if case.model.startswith("anthropic."):
        return ChatAnthropicMantle(**{"base_url": url, "max_tokens": 1024, **settings})
    return ChatOpenAIMantle(**{"base_url": f"{url}/v1", "stream_usage": True, **settings})


def case(
    name: str, source: str, model: str, answered: Json, tokens: Mapping[str, int], cost: str | None, **more: Any
) -> Case:
    """A case, its body as it is."""
    return Case(name=name, source=source, model=model, body=answered, tokens=tokens, cost=cost, **more)


def said(prompt: int, completion: int, **more: int) -> dict[str, int]:
    """The columns of a row that are not 0."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}
