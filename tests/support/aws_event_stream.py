"""Writes Amazon's binary event stream, in which Bedrock answers a streamed call."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable

from tests.support.wire_server import Json, WireAnswer

_STRING = 7  # the type of a header whose value is text


def as_converse_events(events: Iterable[Json]) -> WireAnswer:
    """The events of `ConverseStream`: each has one key, its type, such as `contentBlockDelta`."""
    return _answer(_event(kind, content) for event in events for kind, content in event.items())


def as_model_events(events: Iterable[Json]) -> WireAnswer:
    """The events of `InvokeModelWithResponseStream`, each of which wraps one event in the model's own format."""
    return _answer(
        _event("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}) for event in events
    )


def exception(kind: str, message: str) -> bytes:
    """A message that breaks the stream off, such as a `throttlingException`."""
    return _message({":message-type": "exception", ":exception-type": kind}, {"message": message})


def _answer(messages: Iterable[bytes]) -> WireAnswer:
    return WireAnswer(b"".join(messages), "application/vnd.amazon.eventstream")


def _event(kind: str, content: Json) -> bytes:
    if kind.endswith("Exception"):
        return exception(kind, content["message"])
    return _message({":message-type": "event", ":event-type": kind}, content)


def _message(headers: dict[str, str], content: Json) -> bytes:
    """Lengths and their checksum, headers, content, and the checksum of all.

    Format: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
    """
    payload = json.dumps(content).encode()
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
        for name, value in {**headers, ":content-type": "application/json"}.items()
    )
    prelude = struct.pack("!II", 4 + 4 + 4 + len(head) + len(payload) + 4, len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))
