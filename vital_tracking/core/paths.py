"""Paths of requests, as they may be stored: without what names one person or thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# What a segment of a path is that names one thing among many: a number, a hash or UUID, an address, a token.
_AN_ID: Final = re.compile(r"\d+|[0-9a-fA-F-]{8,}|.*@.*|(?=.*\d)[\w.~=-]{16,}|.{41,}")


def masked_path(path: str, names: Mapping[str, str] | None = None) -> str:
    """A path in which what names one thing among many stands as the name of its parameter, or as `{id}` where none is known."""
    known = names or {}
    return "/".join(_masked(part, known) for part in path.partition("?")[0].split("/"))


def _masked(part: str, names: Mapping[str, str]) -> str:
    if part and part in names:
        return f"{{{names[part]}}}"
    return "{id}" if _AN_ID.fullmatch(part) else part
