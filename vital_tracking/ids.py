"""Our own ids: UUIDv7 (RFC 9562), which sort by time. Random ids cost a large table five times the write-ahead log."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils import reseed_rng, uuid7


def new_id() -> str:
    """A new UUIDv7 as text."""
    return str(uuid7())


def made_at(id: str) -> datetime:  # noqa: A002 - the word of the format
    """When an id of ours was made, to the millisecond; ValueError where it is no UUIDv7."""
    number = UUID(id)
    if number.version != 7:
        raise ValueError("This is no id of ours.")
    return datetime.fromtimestamp((number.int >> 80) / 1000, UTC)


# The generator lives in native code: without this a forked child would mint its parent's next ids.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reseed_rng)
