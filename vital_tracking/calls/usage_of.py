"""Reads LangChain's results: usage, model, provider and errors. What providers do differently is data here, not branches."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from vital_tracking.core.record import HUNG_UP
from vital_tracking.core.sanitize import token_count
from vital_tracking.core.usage import TokenUsage, estimate_tokens

# `invocation_params["_type"]` of completion models, which carry no `ls_provider`, begins with the provider's name.
_COMPLETION_TYPES: Final[Mapping[str, str]] = {
    "amazon_bedrock": "amazon_bedrock",
    "anthropic": "anthropic",
    "azure": "azure",
    "cohere": "cohere",
    "fireworks": "fireworks",
    "google": "google_genai",
    "mistral": "mistralai",
    "openai": "openai",
    "together": "together",
    "vertexai": "google_vertexai",
}

# What integrations call the limit of an answer, in tokens.
ANSWER_LIMITS: Final = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_tokens_to_sample",
    "num_predict",
)
_LIMITS: Final = frozenset(ANSWER_LIMITS)

# Errors that leave open whether the provider has billed: it may have been working when we stopped listening.
_PERHAPS_BILLED: Final = frozenset(
    {
        "APITimeoutError",
        "CancelledError",
        "GeneratorExit",
        "KeyboardInterrupt",
        "ReadTimeout",
        "Timeout",
        "TimeoutError",
    }
)

_NO_FIELDS: Final[Mapping[str, Any]] = {}

# Codes of errors that may be stored: fixed words, which quote no request.
ERROR_CODES: Final = frozenset(
    {
        "authentication_error",
        "content_filter",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "model_not_found",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "api_error",
    }
)


def usage_from_metadata(usage: Mapping[str, Any] | None) -> TokenUsage | None:
    """Disjoint buckets from LangChain's `usage_metadata`; None where it holds no usable totals."""
    if not isinstance(usage, Mapping):
        return None
    inputs, outputs = _details(usage.get("input_token_details")), _details(usage.get("output_token_details"))
    long_writes = inputs.get("ephemeral_1h_input_tokens")
    writes = inputs.get("cache_creation") or _sum(inputs.get("ephemeral_5m_input_tokens"), long_writes)
    return TokenUsage.reported(
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cache_read=inputs.get("cache_read"),
        cache_write=writes,
        cache_write_1h=long_writes,
        reasoning=outputs.get("reasoning"),
        audio_input=inputs.get("audio"),
        audio_output=outputs.get("audio"),
    )


def usage_from_token_usage(usage: Mapping[str, Any] | None) -> TokenUsage | None:
    """Buckets from the older `llm_output["token_usage"]`, in OpenAI's words (`prompt_tokens`) or Anthropic's."""
    if not isinstance(usage, Mapping) or not usage:
        return None
    prompt_details = _details(usage.get("prompt_tokens_details"))
    completion_details = _details(usage.get("completion_tokens_details"))
    return TokenUsage.reported(
        input_tokens=usage.get("prompt_tokens", usage.get("input_tokens")),
        output_tokens=usage.get("completion_tokens", usage.get("output_tokens", 0)),
        cache_read=prompt_details.get("cached_tokens"),
        reasoning=completion_details.get("reasoning_tokens"),
        audio_input=prompt_details.get("audio_tokens"),
        audio_output=completion_details.get("audio_tokens"),
    )


_DETAIL_NAMES: Final = (
    "cache_read",
    "cache_creation",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
    "audio",
    "reasoning",
    "cached_tokens",
    "reasoning_tokens",
    "audio_tokens",
)


def _details(details: object) -> dict[str, Any]:
    """Token details by their plain names: OpenAI's tiers write `priority_cache_read` for `cache_read`."""
    if details is None:
        return {}
    dump = getattr(details, "model_dump", None)
    if dump is not None:
        details = dump()
    if not isinstance(details, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key, value in details.items():
        if isinstance(key, str):
            for name in _plain_names(key):
                if key == name or name not in found:
                    found[name] = value
    return found


@lru_cache(maxsize=256)
def _plain_names(key: str) -> tuple[str, ...]:
    return tuple(name for name in _DETAIL_NAMES if key == name or key.endswith(f"_{name}"))


def _sum(first: object, second: object) -> object:
    numbers = [value for value in (first, second) if type(value) is int]
    return sum(numbers) if numbers else first or second


def model_of(requested: str | None, response: Mapping[str, Any]) -> str | None:
    """The model that answered, by what the response names; where it names none, the one that was `requested`."""
    return first_text(response.get("model_name"), response.get("model"), response.get("model_id")) or requested


def requested_model_of(metadata: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """The model asked for: `ls_model_name`, else the parameter `model`.

    `model_name` among the parameters comes last: it is stale after an override.
    """
    named = metadata.get("ls_model_name")
    if isinstance(named, str) and named:
        return named
    return first_text(params.get("model"), params.get("model_name"), params.get("model_id"))


def provider_of(
    metadata: Mapping[str, Any], params: Mapping[str, Any], serialized: Mapping[str, Any] | None
) -> str | None:
    """The provider: LangChain's `ls_provider`, else by the kind of completion model, else by its module."""
    named = metadata.get("ls_provider")
    if isinstance(named, str) and named:
        return named
    kind = params.get("_type")
    if isinstance(kind, str):
        for start, provider in _COMPLETION_TYPES.items():
            if kind.startswith(start):
                return provider
    path = serialized.get("id") if isinstance(serialized, Mapping) else None
    if isinstance(path, list):
        for part in path:
            for start, provider in _COMPLETION_TYPES.items():
                if isinstance(part, str) and part.startswith(start):
                    return provider
    return None


def longest_answer(metadata: Mapping[str, Any], params: Mapping[str, Any]) -> int | None:
    """What limits the answer of a call, in tokens, by whatever name; None where nothing does."""
    limit = metadata.get("ls_max_tokens")
    if limit is None and _LIMITS.isdisjoint(params):
        return None
    limits = (limit, *(params.get(name) for name in ANSWER_LIMITS))
    return next((limit for limit in map(token_count, limits) if limit), None)


def first_text(*values: object) -> str | None:
    """The first of the values that is a text and not empty."""
    return next((value for value in values if isinstance(value, str) and value), None)


def text_size(value: object) -> int:
    """Bytes of UTF-8 in the text of a prompt, message, list of messages, or generation; only their size is ever taken."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum(text_size(value[key]) for key in ("text", "content", "args", "arguments", "name") if key in value)
    if isinstance(value, (list, tuple)):
        return sum(map(text_size, value))
    if isinstance(value, (bytes, bytearray)) or value is None:
        return 0
    if isinstance(value, (int, float)):
        return 4
    # Messages and generations are pydantic's, for which asking for a missing attribute takes long.
    fields = getattr(value, "__dict__", None)
    if fields is None:
        return 0
    size = sum(text_size(fields[name]) for name in ("message", "content", "tool_calls") if name in fields)
    return size or text_size(fields.get("text") if isinstance(fields.get("text"), str) else None)


def prompt_size(prompts: Any) -> int:
    """`text_size` of prompts or lists of messages, in a fifth of the time where messages are plain text."""
    size = 0
    for messages in prompts or ():
        if type(messages) is not list:
            size += text_size(messages)
            continue
        for message in messages:
            fields = getattr(message, "__dict__", _NO_FIELDS)
            content = fields.get("content")
            if type(content) is str and content and "tool_calls" not in fields and "message" not in fields:
                size += len(content) if content.isascii() else len(content.encode("utf-8", "replace"))
            else:
                size += text_size(message)
    return size


def estimated_usage(
    prompt_bytes: int, completion_bytes: int, known: TokenUsage | None = None, *, ended: bool = False
) -> TokenUsage:
    """Usage that was not reported in full, estimated from the sizes of the texts and flagged.

    `known` is what was reported: its prompt count is exact; its completion count is exact where the answer `ended`, and a lower
    bound where it was broken off.
    """
    prompt = known.prompt_tokens if known and known.prompt_tokens else estimate_tokens(prompt_bytes)
    completion = known.completion_tokens if known else 0
    if not (ended and completion):
        completion = max(estimate_tokens(completion_bytes), completion)
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cache_read_tokens=known.cache_read_tokens if known else 0,
        cache_write_tokens=known.cache_write_tokens if known else 0,
        cache_write_1h_tokens=known.cache_write_1h_tokens if known else 0,
        reasoning_tokens=known.reasoning_tokens if known else 0,
        estimated=True,
        notes=known.notes if known else (),
    )


class ErrorFacts:
    """What an error says about a call: how it ended, whether the provider may have billed it, and its safe codes."""

    __slots__ = ("code", "hung_up", "name", "perhaps_billed", "refused", "status", "usage")

    def __init__(self, error: BaseException) -> None:
        names = {cls.__name__ for cls in type(error).__mro__}
        self.name = type(error).__name__
        self.hung_up = bool(names & HUNG_UP)
        self.status = _http_status(error)
        self.perhaps_billed = bool(names & _PERHAPS_BILLED)
        self.refused = self.status is not None and self.status >= 400
        code = getattr(error, "code", None) or getattr(error, "type", None)
        self.code = code if isinstance(code, str) and code in ERROR_CODES else None
        # OpenAI's LengthFinishReasonError carries the completion, which is billed.
        billed = getattr(getattr(error, "completion", None), "usage", None)
        dump = getattr(billed, "model_dump", None)
        self.usage = usage_from_token_usage(dump()) if dump is not None else None


def _http_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    candidates = [getattr(error, "status_code", None), getattr(response, "status_code", None)]
    if isinstance(response, Mapping):  # botocore
        candidates.append(_details_of(response, "ResponseMetadata", "HTTPStatusCode"))
    return next((value for value in candidates if type(value) is int), None)


def _details_of(value: Mapping[str, Any], *path: str) -> Any:
    for name in path:
        inner = value.get(name)
        if not isinstance(inner, Mapping):
            return inner
        value = inner
    return None


def request_hash(key: bytes, parts: Iterable[object]) -> str:
    """A keyed digest of a request, by which equal requests are found and from which nothing can be read back."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(repr(_content(part)).encode("utf-8", "replace"))
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _content(part: object) -> object:
    """What of a request decides its answer: type, content and tool calls of messages, not the ids that LangGraph adds."""
    if isinstance(part, (list, tuple)):
        return [_content(item) for item in part]
    if hasattr(part, "content"):
        return (getattr(part, "type", None), part.content, getattr(part, "tool_calls", None))
    return part
