"""Reads which model and provider a call is for, and how long its answer may be, from what LangChain says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.core.sanitize import token_count

# `invocation_params["_type"]` of completion models, which carry no `ls_provider`, begins with the provider's name.
_COMPLETION_TYPES: Final[Mapping[str, str]] = {
    "amazon_bedrock": "amazon_bedrock",
    "anthropic": "anthropic",
    "azure": "azure",
    "cohere": "cohere",
    "fireworks": "fireworks",
    "google_vertexai": "google_vertexai",
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
                if isinstance(part, str) and part.removeprefix("langchain_").startswith(start):
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
