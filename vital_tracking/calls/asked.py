"""Takes from a request what its answer may leave out and its price hangs on. No text is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter

from vital_tracking.calls.quirks import (
    ASKED_FACTS,
    ASKED_IMAGES,
    CACHE_MARKS,
    LONG_CACHE,
    MEDIA_BLOCKS,
    MEDIA_SIZES,
    MOST_IMAGE_TOKENS,
    MOST_MEDIA_TOKENS,
    PAYLOADS,
    SCHEMA_PARAMETERS,
    TOOL_FACTS,
    UNCOMPRESSED,
    MediaSize,
)
from vital_tracking.core.sanitize import is_mapping

_DEEPEST: Final = 8
_NO_FIELDS: Final[Mapping[str, Any]] = {}


def asked_facts(params: Mapping[str, Any], serialized: Mapping[str, Any] | None, *, tools_used: bool) -> dict[str, str]:
    """Facts that hold as they were asked for, as fields of a response; those of tools where the answer used some (`tools_used`).

    Those of ASKED_FACTS, by `asked_` and their names, are of the call, of the model's further arguments, or of its settings.
    """
    settings = serialized.get("kwargs") if is_mapping(serialized) else None
    found: dict[str, str] = {}
    for source in (settings, params.get("model_kwargs"), params):
        if not source or not is_mapping(source) or ASKED_FACTS.keys().isdisjoint(source):
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
    return is_mapping(details) and bool(details.get("cache_creation"))


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
    size = 0
    for name in SCHEMA_PARAMETERS.intersection(params):
        if value := params[name]:
            text = repr(value)
            size += len(text.encode("utf-8", "replace"))
            if any(mark in text for mark in _OF_CODE):
                size += sum(map(_described, _code_in(value, _DEEPEST)))
    return size


_OF_CODE: Final = ("<class ", "<function ", "<bound method ")
_code_sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def _code_in(value: Any, depth: int) -> Iterator[Any]:
    """The classes and functions that stand for schemas in a value: as such, in lists and mappings, as a tool's `args_schema`."""
    if depth == 0 or isinstance(value, (str, bytes)):
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _code_in(inner, depth - 1)
    elif isinstance(value, type) or callable(getattr(value, "__get__", None)):  # a class, a function or a method
        yield value
    elif (schema := getattr(value, "args_schema", None)) is not None:
        yield from _code_in(schema, depth - 1)


def _described(code: Any) -> int:
    """Bytes of the JSON schema of a class, or of a function's arguments, with its description; 0 where it has neither."""
    key = getattr(code, "__func__", code)
    size = _code_sizes.get(key)
    if size is None:
        try:
            # pydantic's two generations, and whatever else has types: TypedDict, dataclass, function
            schema = getattr(code, "model_json_schema", None) or getattr(code, "schema", None)
            described = schema() if callable(schema) else TypeAdapter(code).json_schema()
        except Exception:  # noqa: BLE001 - such as a TypedDict of typing's, which pydantic does not take before Python 3.12
            described = getattr(code, "__annotations__", {})
        size = len(repr(described).encode("utf-8", "replace")) if described else 0
        size += len((getdoc(code) or "").encode("utf-8", "replace"))
        _code_sizes[key] = size
    return size


def media_tokens(prompts: Sequence[Any] | None, model: str | None) -> tuple[int, int]:
    """The tokens that pictures, films and files of a request may well be billed as, and those of its sounds."""
    seen = sounds = 0
    for kind, block in _media(prompts):
        if kind == "image":
            names = [name for name in MOST_IMAGE_TOKENS if model is not None and name in model]
            seen += MOST_IMAGE_TOKENS[max(names, key=len)] if names else ASKED_IMAGES
        elif kind == "audio":
            sounds += _tokens(MEDIA_SIZES["wav" if _is_uncompressed(block) else "audio"], block)
        else:
            seen += _tokens(MEDIA_SIZES[kind], block)
    return seen, sounds


def hidden_modalities(prompts: Sequence[Any] | None) -> tuple[str, ...]:
    """Which modalities of a prompt have prices of their own, so that its bill hangs on a count of them."""
    return ("audio",) if any(kind == "audio" for kind, _ in _media(prompts)) else ()


def _media(prompts: Sequence[Any] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The media in a prompt, each as what it is (`image`, `audio`, `video`, `file`) and the block that holds it."""
    for messages in prompts or ():
        for message in messages if isinstance(messages, (list, tuple)) else ():
            # Messages are pydantic's, for which asking for a missing attribute takes long.
            content = getattr(message, "__dict__", _NO_FIELDS).get("content")
            if type(content) is list:
                for block in content:
                    if isinstance(block, Mapping) and "text" not in block and (kind := _kind(block)):
                        yield kind, block


def _kind(block: Mapping[str, Any]) -> str | None:
    mime = block.get("mime_type")
    if isinstance(mime, str):
        family = mime.partition("/")[0]
        return family if family in ("image", "audio", "video") else "file"
    kind = block.get("type")
    if isinstance(kind, str):
        return MEDIA_BLOCKS.get(kind)
    return next((MEDIA_BLOCKS[name] for name in block if name in MEDIA_BLOCKS), None)  # Bedrock's


def _tokens(size: MediaSize, block: Mapping[str, Any]) -> int:
    found = _payload(block, _DEEPEST)
    return min(found // size.bytes_a_token + 1, MOST_MEDIA_TOKENS) if found else size.unknown


def _payload(block: Mapping[str, Any], depth: int) -> int:
    """Bytes of the medium in a block; 0 where it only says where that is."""
    size = 0
    for name, value in block.items():
        if isinstance(value, Mapping) and depth:
            size += _payload(value, depth - 1)
        elif isinstance(value, bytes) and name in PAYLOADS:
            size += len(value)
        elif isinstance(value, str) and (name in PAYLOADS or value.startswith("data:")):
            size += len(value) * 3 // 4
    return size


def _is_uncompressed(block: Mapping[str, Any]) -> bool:
    named = [block.get("mime_type")]
    named += [inner.get("format") for inner in block.values() if isinstance(inner, Mapping)]
    return any(part in name.lower() for name in named if isinstance(name, str) for part in UNCOMPRESSED)
