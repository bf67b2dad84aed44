"""Takes from a request what its answer may leave out and its price hangs on. No text is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vital_tracking.calls.quirks import ASKED_FACTS, AUDIO_BLOCKS, CACHE_MARKS, LONG_CACHE, TOOL_FACTS

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
