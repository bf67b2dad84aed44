"""Of the texts of prompts and answers only the size is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NO_FIELDS: Final[Mapping[str, Any]] = {}

# Where the text of a block or of a tool call stands, and where that of a thought.
_THOUGHTS: Final = ("thinking", "reasoning", "reasoning_content", "summary")
_TEXTS: Final = ("text", "content", "args", "arguments", "name", "transcript", *_THOUGHTS)

# Texts beside the content of a message: DeepSeek's and others' thoughts, what OpenAI's models say aloud, v0 of its Responses API.
_BESIDE: Final = ("reasoning_content", "reasoning", "audio")


def text_size(value: object) -> int:
    """Bytes of UTF-8 in the text of a prompt, message, list of messages, or generation, thoughts included."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum([text_size(value[key]) for key in _TEXTS if key in value])
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
    size = sum([text_size(fields[name]) for name in ("message", "content", "tool_calls") if name in fields])
    if beside := fields.get("additional_kwargs"):
        size += sum([text_size(beside[name]) for name in _BESIDE if name in beside])
    return size or text_size(fields.get("text") if isinstance(fields.get("text"), str) else None)


def thought_size(value: object) -> int:
    """Bytes of UTF-8 in the thoughts of a message, its content, or a generation: the part of `text_size` that is reasoning."""
    if isinstance(value, Mapping):
        return sum([text_size(value[key]) for key in _THOUGHTS if key in value])
    if isinstance(value, (list, tuple)):
        return sum(map(thought_size, value))
    fields = getattr(value, "__dict__", None)
    if fields is None:
        return 0
    beside = fields.get("additional_kwargs")
    return sum([thought_size(fields[name]) for name in ("message", "content") if name in fields]) + (
        thought_size(beside) if beside else 0
    )


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
