"""URLs and keys in settings: what no client could ask, or send."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit


def split_url(text: str, schemes: Sequence[str] = ("http", "https")) -> SplitResult | None:
    """A URL in its parts; None where it is none of these schemes, or has no host that can be, or a port that is none."""
    try:
        parts = parts_of(text)
    except ValueError:
        return None
    is_host = bool(parts.hostname) and " " not in text and text.isprintable()
    return parts if is_host and parts.port != 0 and parts.scheme in schemes else None


def parts_of(text: str) -> SplitResult:
    """A URL in its parts; ValueError where it is none, no resolver would take its host, or its port is beyond 65535."""
    parts = urlsplit(text)
    (parts.hostname or "").encode("idna")  # UnicodeError, which is a ValueError, for a label that is empty or too long
    _ = parts.port
    return parts


def fits_in_a_header(key: str) -> bool:
    """Whether a key can be sent in a header of HTTP, and is in one piece."""
    return key.isascii() and key.isprintable() and " " not in key
