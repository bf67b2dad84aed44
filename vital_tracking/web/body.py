"""How much a request may bring: no more than any of ours needs, whether it says its length or not."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

LARGEST: Final = 1 << 20


def limited(request: Request) -> Request:
    """The same request, which is refused (413) as soon as its body is larger than LARGEST."""
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > LARGEST:
        raise HTTPException(413)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > LARGEST:
            raise HTTPException(413)
        return message

    return Request(request.scope, receive)
