"""The calls that a recommendation rests on: as filters of the pages and the API, and as a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from vital_tracking.advice.changes import (
    Change,
    ExactCache,
    OffPeak,
    Processing,
    PromptCaching,
    SwitchModel,
    Where,
)
from vital_tracking.advice.window import PREFIX_TTL, Window
from vital_tracking.core.request_size import Size, bounds_of
from vital_tracking.queries.chosen import CHOICES, without_text
from vital_tracking.queries.chosen import TIMES as OF_TIME
from vital_tracking.queries.explore import DIMENSIONS, TIMES
from vital_tracking.queries.recommendations import SavedRecommendation

_OPTIONS: Final = (
    "organization", "user", "session", "agent", "tier", "model", "provider", "framework", "message_type", "service",
    "workflow", "step", "panel", "solution", "run", "status",
)  # fmt: skip
"""What `vital-tracking calls` filters by, of dimensions."""

Evidence = Mapping[str, Any]
"""Values by the names of dimensions (None: calls that have none) and of choices, as text; `without` is a list."""


def evidence_of(window: Window, change: Change) -> Evidence:
    """The filters of the calls that a change changes."""
    found = evidence_where(window, change.where)
    match change:
        case SwitchModel():
            room = window.prospect.prices.context_window(
                change.provider or change.where.named.get("provider"), change.model
            )
            if room is not None:
                found["prompt_below"] = str(min(room, int(found.get("prompt_below", room))))
            found["audio"] = "no"
        case Processing(way=way):
            found["without"] = [*found.get("without", ()), *(without_text({f"metadata.{name}": way}) for name in _WAYS)]
        case ExactCache():
            found["repeated_within"] = span(window.ttl)
        case PromptCaching():
            found["alike_within"] = span(PREFIX_TTL)
        case OffPeak():
            if (hours := change.dear_hours(window.prospect)) is not None:
                found["between"] = hours
    return found


_WAYS: Final = ("processing", "service_tier")


def evidence_where(window: Window, where: Where) -> dict[str, Any]:
    """The filters of the calls of `where` that can be repriced."""
    found: dict[str, Any] = {**where.named, "repriceable": "yes"}
    if where.size is not None:
        found |= size_evidence(where.size)
    if where.unattended is not None:
        found["unattended" if where.unattended else "attended"] = window.period.timezone
    if where.but:
        found["without"] = [without_text(left) for left in where.but]
    return found


def size_evidence(size: Size) -> dict[str, str]:
    """The filters of the calls of a size."""
    least, below = bounds_of(size)
    return {
        **({"prompt_from": str(least)} if least else {}),
        **({} if below is None else {"prompt_below": str(below)}),
    }


def span(length: timedelta) -> str:
    """A span as the filters take it."""
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    return f"{minutes * 60 + seconds}s" if seconds else f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}min"


def calls_asked(one: SavedRecommendation) -> list[tuple[str, str]]:
    """The parameters of the page of calls and of `/api/v1/calls` that name them; an empty value: calls that have none."""
    evidence: dict[str, Any] = {**one["evidence"]}
    since = datetime.fromisoformat(evidence.pop("begun_from")) if "begun_from" in evidence else one["since"]
    until = datetime.fromisoformat(evidence.pop("begun_before")) if "begun_before" in evidence else one["until"]
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    first, last = since.date(), (until - timedelta(microseconds=1)).date()
    if one["organization_id"]:
        evidence["organization"] = one["organization_id"]
    filters = [(name, value or "") for name, value in evidence.items() if name in DIMENSIONS and name not in TIMES]
    filters += [(name, text) for name, value in evidence.items() if name in CHOICES for text in _each(value)]
    if since != _midnight(since):
        filters.append(("begun_from", since.isoformat()))
    if until != _midnight(until):
        filters.append(("begun_before", until.isoformat()))
    return [("timezone", "UTC"), ("since", first.isoformat()), ("until", last.isoformat()), *filters]


def _each(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else value


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def calls_command(one: SavedRecommendation) -> str:
    """The command that shows them."""
    asked = calls_asked(one)
    only = dict(asked)
    last = date.fromisoformat(only["until"]) + timedelta(days=1)
    options = [
        f"--since {only.get('begun_from', only['since'])}",
        f"--until {only.get('begun_before', last.isoformat())}",
    ]
    for name, value in asked:
        if name in _OPTIONS and value:
            options.append(f"--{name.replace('_', '-')} {shlex.quote(value)}")
        elif (name in CHOICES or name in DIMENSIONS) and name not in OF_TIME:
            options.append(f"--only {shlex.quote(f'{name}={value}')}")
    return " ".join(("vital-tracking calls", *options))
