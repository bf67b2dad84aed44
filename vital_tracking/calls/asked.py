"""Takes from a request what its answer may leave out and its price hangs on. No text is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vital_tracking.calls.quirks import ASKED_FACTS, CACHE_MARKS, LONG_CACHE

_DEEPEST: Final = 8


def asked_facts(params: Mapping[str, Any], serialized: Mapping[str, Any] | None) -> dict[str, str]:
    """The facts of ASKED_FACTS by `asked_` and their names: of the call, of the model's further arguments, of its settings."""
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
