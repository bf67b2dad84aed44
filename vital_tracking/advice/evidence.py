"""The calls that a recommendation rests on: as filters of the pages and the API, and as a command."""

from __future__ import annotations

import shlex
from datetime import UTC, date, timedelta
from typing import Final

from vital_tracking.queries.explore import DIMENSIONS, TIMES
from vital_tracking.queries.recommendations import SavedRecommendation

_OPTIONS: Final = (
    "organization", "user", "session", "agent", "tier", "model", "provider", "framework", "message_type", "service",
    "workflow", "step", "panel", "solution", "run", "status",
)  # fmt: skip
"""What `vital-tracking calls` filters by."""


def calls_asked(one: SavedRecommendation) -> list[tuple[str, str]]:
    """The parameters of the page of calls and of `/api/v1/calls` that name them; an empty value: calls that have none."""
    first = one["since"].astimezone(UTC).date()
    last = (one["until"].astimezone(UTC) - timedelta(microseconds=1)).date()
    evidence = {"organization": one["organization_id"]} if one["organization_id"] else {}
    filters = [
        (name, value or "")
        for name, value in {**evidence, **one["evidence"]}.items()
        if name in DIMENSIONS and name not in TIMES
    ]
    return [("timezone", "UTC"), ("since", first.isoformat()), ("until", last.isoformat()), *filters]


def calls_command(one: SavedRecommendation) -> str:
    """The command that shows them. What it has no option for is left out: then it shows others, too."""
    asked = dict(calls_asked(one))
    options = [f"--since {asked['since']}", f"--until {date.fromisoformat(asked['until']) + timedelta(days=1)}"]
    options += [f"--{name.replace('_', '-')} {shlex.quote(asked[name])}" for name in _OPTIONS if asked.get(name)]
    return " ".join(("vital-tracking calls", *options))
