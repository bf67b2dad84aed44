"""Our own ids: UUIDv7 (RFC 9562), which sort by time. Random ids cost a large table five times the write-ahead log."""

from __future__ import annotations

import os

from uuid_utils import reseed_rng, uuid7


def new_id() -> str:
    """A new UUIDv7 as text."""
    return str(uuid7())


# The generator lives in native code: without this a forked child would mint its parent's next ids.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reseed_rng)
