"""Keyed hashes of a request and of its prompt's beginnings: equal ones are found by them, and nothing can be read back.

Providers keep the beginnings of prompts, in the order in which they lay a request out before the model: tools and schemas,
then instructions, then messages. So a prompt is hashed in that order, at ends of blocks that double:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#how-prompt-caching-works
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from vital_tracking.calls.quirks import CACHE_MARKS, SCHEMA_PARAMETERS

FIRST_BLOCK: Final = 4096
"""Bytes of the first block: about 1,024 tokens, which is the least that most providers keep."""

MOST_BLOCKS: Final = 8
"""The last block ends at 512 KiB."""

_DIGEST: Final = 8  # bytes
_LONGEST_KEY: Final = hashlib.blake2b.MAX_KEY_SIZE
_TOOLS: Final = ("tools", "functions")
_BEFORE_MESSAGES: Final = (*_TOOLS, *sorted(SCHEMA_PARAMETERS.difference(_TOOLS)), "system", "instructions")
_NO_FIELDS: Final[Mapping[str, Any]] = {}

# Bytes that no text in UTF-8 has: so a part's end is never mistaken for text.
_PART: Final = b"\xff"
_BLOCK: Final = b"\xfe"


class Prefix(NamedTuple):
    """Of a prompt: `hashes[k]` of its first FIRST_BLOCK * 2**k bytes, and how many bytes there were in all."""

    hashes: tuple[str, ...]
    size: int


class RequestHashes:
    """Makes the hashes of requests with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        short = key if len(key) <= _LONGEST_KEY else hashlib.sha512(key).digest()
        # Another function than request_hash's, and named: no prefix has the hash of a request.
        self._keyed = hashlib.blake2b(key=short, digest_size=_DIGEST, person=b"prompt prefix")

    def of(self, params: Any, prompts: Sequence[Any]) -> tuple[str, Prefix | None]:
        """The hash of a request, and those of its prompt's beginnings; None where it is shorter than the first block."""
        return request_hash(self._key, (params, prompts)), self.prefix(params, prompts)

    def prefix(self, params: Any, prompts: Sequence[Any]) -> Prefix | None:
        """The hashes of the beginnings of a prompt, in one pass over it; None where it is shorter than the first block."""
        state = self._keyed.copy()
        hashes: list[str] = []
        size, end = 0, FIRST_BLOCK
        for part in _parts(params, prompts):
            start, size = size, size + len(part)
            done = 0
            while size >= end and len(hashes) < MOST_BLOCKS:
                state.update(part[done : end - start])
                hashes.append(state.hexdigest())
                done, end = end - start, end * 2
            if len(hashes) < MOST_BLOCKS:
                state.update(part[done:])
        return Prefix(tuple(hashes), size) if hashes else None


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


def _parts(params: Any, prompts: Sequence[Any]) -> Iterator[bytes]:
    """A prompt from its beginning, piece by piece. What a provider does not keep apart is not in it: the model, sampling, ids of
    messages, and the marks that say up to where it is to be kept."""
    if isinstance(params, Mapping):
        for name in _BEFORE_MESSAGES:
            if value := params.get(name):
                yield b"%b%b%b" % (_PART, name.encode(), _PART)
                yield from _blocks(value)
    for messages in prompts or ():
        for message in messages if isinstance(messages, (list, tuple)) else (messages,):
            # Messages are pydantic's, for which asking for a missing attribute takes long.
            fields = getattr(message, "__dict__", _NO_FIELDS)
            if "content" not in fields:
                yield _PART
                yield from _blocks(message)
                continue
            yield b"%b%b%b" % (_PART, str(fields.get("type")).encode("utf-8", "replace"), _PART)
            yield from _blocks(fields["content"])
            for name in ("tool_calls", "tool_call_id"):
                if value := fields.get(name):
                    yield _BLOCK
                    yield from _blocks(value)


def _blocks(value: Any) -> Iterator[bytes]:
    """A text, or the items of a list one by one: a text as such and a text in a block are one and the same."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
        return
    first = True
    for block in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(block, Mapping):
            if block.get("type") == "text" and isinstance(text := block.get("text"), str):
                block = text  # noqa: PLW2901
            elif not CACHE_MARKS.isdisjoint(block):
                block = {name: part for name, part in block.items() if name not in CACHE_MARKS}  # noqa: PLW2901
                if not block:
                    continue
        if not first:
            yield _BLOCK
        first = False
        yield block.encode("utf-8", "surrogatepass") if isinstance(block, str) else _json(block)


def _json(value: Any) -> bytes:
    """What is no text, as JSON; else as Python shows it, such as a number beyond 64 bits."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        return repr(value).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """A value that JSON has no type for: of code its name, which another process has too."""
    if isinstance(value, (bytes, bytearray)):
        return value[: FIRST_BLOCK << MOST_BLOCKS].hex()
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else type(value).__qualname__
