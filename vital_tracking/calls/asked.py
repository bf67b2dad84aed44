"""Takes from a request what its answer may leave out and its price hangs on. No text is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vital_tracking.calls.quirks import (
    ASKED_FACTS,
    ASKED_IMAGES,
    AUDIO_BLOCKS,
    CACHE_MARKS,
    IMAGE_BLOCKS,
    LONG_CACHE,
    MOST_IMAGE_TOKENS,
    SCHEMA_PARAMETERS,
    TOOL_FACTS,
)

_DEEPEST: Final = 8


def asked_facts(params: Mapping[str, Any], serialized: Mapping[str, Any] | None, *, tools_used: bool) -> dict[str, str]:
    """Facts that hold as they were asked for, as fields of a response; those of tools where the answer used some (`tools_used`).

    Those of ASKED_FACTS, by `asked_` and their names, are of the call, of the model's further arguments, or of its settings.
    """
    settings = serialized.get("kwargs") if isinstance(serialized, Mapping) else None
    found: dict[str, str] = {}
    for source in (settings, params.get("model_kwargs"), params):
        if not isinstance(source, Mapping) or ASKED_FACTS.keys().isdisjoint(source):
            continue
        for name, inner in ASKED_FACTS.items():
            value = source.get(name)
            if inner is not None:
                value = value.get(inner) if isinstance(value, Mapping) else None
            if isinstance(value, str):
                found[f"asked_{inner or name}"] = value
    tools = params.get("tools") if tools_used else None
    for tool in tools if isinstance(tools, list) else ():
        kind = str(tool.get("type")) if isinstance(tool, Mapping) else ""
        found |= dict(fact for start, fact in TOOL_FACTS.items() if kind.startswith(start))
    return found


def hides_cache_times(usage: Mapping[str, Any] | None) -> bool:
    """Whether something was written to a cache, and nobody says for how long."""
    details = None if usage is None else usage.get("input_token_details")
    return isinstance(details, Mapping) and bool(details.get("cache_creation"))


def asked_cache(prompts: Sequence[Any] | None, params: Mapping[str, Any]) -> str | None:
    """How long the cache entries of a request are to be kept: `long` where all are kept an hour, `both` where some are."""
    times = {str(mark.get("ttl")) == LONG_CACHE for mark in _marks((prompts, params), _DEEPEST)}
    return None if True not in times else "both" if False in times else "long"


def _marks(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """The marks by which a request says what is to be cached: in its parameters, its tools, and the content of its messages."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in CACHE_MARKS and isinstance(inner, Mapping):
                yield inner
            elif isinstance(inner, (Mapping, list)):
                yield from _marks(inner, depth - 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _marks(inner, depth - 1)
    elif isinstance(content := getattr(value, "content", None), list):
        yield from _marks(content, depth - 1)


def schema_size(params: Mapping[str, Any]) -> int:
    """Bytes of UTF-8 of the tools and schemas of a request, which the provider bills with the prompt."""
    return sum(
        len(repr(params[name]).encode("utf-8", "replace"))
        for name in SCHEMA_PARAMETERS.intersection(params)
        if params[name]
    )


def image_tokens(prompts: Sequence[Any] | None, model: str | None) -> int:
    """The most tokens that the pictures of a request are billed as."""
    count = 0
    for messages in prompts or ():
        for message in messages if isinstance(messages, (list, tuple)) else ():
            content = getattr(message, "__dict__", {}).get("content")
            if type(content) is list:
                count += sum([_is_image(block) for block in content])
    if not count:
        return 0
    names = [name for name in MOST_IMAGE_TOKENS if model is not None and name in model]
    return count * (MOST_IMAGE_TOKENS[max(names, key=len)] if names else ASKED_IMAGES)


def _is_image(block: object) -> bool:
    return isinstance(block, Mapping) and (
        block.get("type") in IMAGE_BLOCKS
        or block.get("type") == "input_image"
        or str(block.get("mime_type", "")).startswith("image/")
        or "image" in block  # Bedrock's
    )


def hidden_modalities(prompts: Sequence[Any] | None) -> tuple[str, ...]:
    """Which modalities of a prompt have prices of their own, so that its bill hangs on a count of them."""
    for messages in prompts or ():
        for message in messages if type(messages) is list else ():
            content = getattr(message, "content", None)
            if type(content) is not list:
                continue
            for block in content:
                if isinstance(block, Mapping) and (
                    block.get("type") in AUDIO_BLOCKS or str(block.get("mime_type", "")).startswith("audio/")
                ):
                    return ("audio",)
    return ()
