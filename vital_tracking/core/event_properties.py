"""Which properties of an event may be stored, and in which form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.core.sanitize import class_name

ALLOWED_PROPERTIES: Final = frozenset(
    {
        "action",
        "country",
        "currency",
        "device",
        "duration_ms",
        "error_type",
        "feature",
        "locale",
        "method",
        "page",
        "plan",
        "size",
        "status",
        "success",
        "variant",
        "version",
    }
)
"""Names of properties that are stored; `VITAL_EVENT_PROPERTIES` names more. None of them is for a text that somebody wrote."""


def kept_properties(properties: Mapping[str, Any], allowed: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Of an event's properties those that may be stored, and a note where others were left out; of a page its query goes."""
    kept = {name: value for name, value in properties.items() if name in allowed}
    if isinstance(page := kept.get("page"), str):
        kept["page"] = without_query(page)
    if "error_type" in kept:
        kept["error_type"] = class_name(kept["error_type"])
    return kept, ["properties_left_out"] if len(kept) < len(properties) else []


def without_query(address: str | None) -> str | None:
    """A page's address without its query and fragment: what stands there is somebody's words, or a secret of theirs."""
    return address and address.partition("?")[0].partition("#")[0]
