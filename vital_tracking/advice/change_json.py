"""Changes as they are kept with a recommendation, and back: by them it is measured what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vital_tracking.advice.changes import Change, ExactCache, Processing, PromptCaching, SwitchModel, Where
from vital_tracking.core.request_size import Size


def change_to_json(change: Change) -> dict[str, Any]:
    """A change as JSON: which one it is, the calls that it is for, and to what they change."""
    where: dict[str, Any] = dict(change.where.named)
    if change.where.size is not None:
        where["size"] = change.where.size.value
    if change.where.unattended is not None:
        where["unattended"] = change.where.unattended
    if change.where.but:
        where["but"] = [dict(left) for left in change.where.but]
    told: dict[str, Any] = {"change": type(change).__name__, "where": where}
    if isinstance(change, SwitchModel):
        told |= {"model": change.model, "provider": change.provider}
    if isinstance(change, Processing):
        told |= {"way": change.way}
    return told


def change_from_json(told: Mapping[str, Any]) -> Change | None:
    """The change; None where it is none that can be measured."""
    where = where_from_json(told["where"])
    match told["change"]:
        case SwitchModel.__name__:
            return SwitchModel(where=where, model=told["model"], provider=told["provider"])
        case Processing.__name__:
            return Processing(where=where, way=told["way"])
        case ExactCache.__name__:
            return ExactCache(where=where)
        case PromptCaching.__name__:
            return PromptCaching(where=where)
        case _:
            return None


def where_from_json(told: Mapping[str, Any]) -> Where:
    """Which calls a change is for."""
    size = told.get("size")
    return Where(**{**told, "size": None if size is None else Size(size), "but": tuple(told.get("but", ()))})
