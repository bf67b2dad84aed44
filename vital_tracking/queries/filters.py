"""Which calls a question is about: one set of filters for calls, reports, runs and exports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from vital_tracking.queries.catalogue import FILTERS

_BEYOND: Final = ("id", "run", "step", "metadata", "local", "search", "where", "chosen")
"""Filters that no single column decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Only calls for which all that is given holds; None for any. `since` and `until` (without it) cut by the call's start.

    `id` is a call's own; `user`, `session`, `agent` and so on are ids, too; `step` is a step's id or name, or a node of the
    outermost graph; `run` a service run with all that is nested in it; `status` one of `core.record.STATUSES`. `unpriced` and
    `blocked` leave only calls without a known price, or stopped by a budget. `metadata` are keys with the values, as text, that
    they must have. `local` says at which `hour_of_day` (0 to 23) and on which `weekday` (1 is Monday) of a `timezone` the call
    began. `search` holds words that must each occur in a name, an id or a tag. `where` are values by dimension as `explore`
    takes them: one of several, None for calls that have none. `chosen` is what `queries.chosen` reads: by what advice tells
    which calls it rests on.
    """

    since: datetime | None = None
    until: datetime | None = None
    id: str | None = None
    organization: str | None = None
    user: str | None = None
    session: str | None = None
    service: str | None = None
    agent: str | None = None
    tier: str | None = None
    workflow: str | None = None
    step: str | None = None
    panel: str | None = None
    solution: str | None = None
    run: str | None = None
    framework: str | None = None
    provider: str | None = None
    model: str | None = None
    message_type: str | None = None
    call_type: str | None = None
    status: str | None = None
    error: str | None = None
    unpriced: bool = False
    blocked: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    local: Mapping[str, str | int] = field(default_factory=dict)
    search: str | None = None
    where: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """The filters that let not every call pass, by name, without `since` and `until`."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("since", "until")}
        return {name: value for name, value in named.items() if value not in (None, False, {})}

    @property
    def equals(self) -> dict[str, object]:
        """The columns of a call that must hold a value, with the value, for whoever reads the table itself."""
        wanted = {FILTERS[name]: value for name, value in self.given.items() if name in FILTERS and name != "unpriced"}
        if self.blocked:
            wanted["status"] = "blocked"
        return {**wanted, FILTERS["unpriced"]: False} if self.unpriced else wanted

    @property
    def beyond_equals(self) -> tuple[str, ...]:
        """The filters given that `equals` cannot say."""
        return tuple(name for name in self.given if name in _BEYOND)

    def text(self, *, with_times: bool = True) -> str:
        """The filters as the database's functions take them."""
        times = {"since": self.since, "until": self.until} if with_times else {}
        asked = {**self.given, **self.chosen}
        asked.pop("chosen", None)
        return json.dumps(asked | {name: at.isoformat() for name, at in times.items() if at is not None})
