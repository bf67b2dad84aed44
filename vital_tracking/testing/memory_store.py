"""A store in memory, for tests: rows as they would have been sent, with budgets that hold and sums by what a call is for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from vital_tracking.calls.row_literal import rows_of
from vital_tracking.core.breakdowns import no_breakdown
from vital_tracking.errors import StoreNotReady, StoreRejected
from vital_tracking.stores.protocol import ANSWER_S, Row, Store
from vital_tracking.stores.relations import Relation, Values
from vital_tracking.testing.memory_budgets import MemoryBudgets

# Grouping of `breakdown` -> the column that it groups by, and the one that is shown.
_GROUPINGS: Final = {
    "service": ("service_type", "service_type"),
    "user": ("user_id", "user_id"),
    "session": ("session_id", "session_id"),
    "agent": ("agent_id", "agent_name"),
    "tier": ("agent_tier", "agent_tier"),
    "model": ("model", "model"),
    "provider": ("provider", "provider"),
    "workflow": ("workflow_id", "workflow_id"),
    "workflow_step": ("workflow_step", "workflow_step_name"),
    "solution": ("solution_id", "solution_id"),
    "status": ("status", "status"),
}


class MemoryStore:
    """Keeps the rows that would have been sent: `calls` and `runs`, as dictionaries with the columns' names.

    As the database does, it takes each id once, but for the true end of a call given up before. `set_budget` gives it budgets
    that stop calls, `breakdown` sums calls up. Checks of values, views, alerts, throttles and many processes are the database's.
    """

    description = identity = "memory"
    in_memory = True

    def __init__(self) -> None:
        self.calls: list[Row] = []
        self.runs: list[Row] = []
        self._budgets = MemoryBudgets()

    def set_budget(
        self,
        entity_type: str,
        entity_id: str = "*",
        *,
        minute: Decimal | int | str | None = None,
        daily: Decimal | int | str | None = None,
        monthly: Decimal | int | str | None = None,
        total: Decimal | int | str | None = None,
        metric: str = "cost_usd",
        action: str = "block",
        downgrade_to: str | None = None,
    ) -> None:
        """Limit what `entity_type` (`user`, `session`, `agent`, ...) may spend, each one where `entity_id` is `*`.

        Limits are in `metric` (`cost_usd`, `tokens` or `calls`), days and months in UTC; `action` is `block`, or `downgrade` to a
        model no dearer than `downgrade_to`. Set budgets before the tracker's first call, which reads them. ValueError for what
        takes a database.
        """
        limits = {"minute": minute, "day": daily, "month": monthly, "total": total}
        self._budgets.set(entity_type, entity_id, limits, metric=metric, action=action, downgrade_to=downgrade_to)

    def call(self, function: str, /, **arguments: object) -> Any:
        """The functions that record calls and keep budgets; no prices of the team's own; StoreNotReady for anything else."""
        if function == "model_prices_v1":
            return []
        if function == "database_time_v1":
            return datetime.now(UTC).isoformat()
        if function == "budgets_v1":
            return self._budgets.answer()
        if function == "usage_history_v1":
            return []
        if function == "acquire_grants_v1":
            return self._budgets.acquire(str(arguments["holder"]), json.loads(str(arguments["asks"])))
        if function == "renew_grants_v1":
            return self._budgets.renew(str(arguments["holder"]), json.loads(str(arguments["kept"])))
        if function == "record_calls_v2":
            return self._record_calls(rows_of(str(arguments["calls"])), arguments.get("holder"))
        if function == "record_calls_v1":
            return self._record_calls(json.loads(str(arguments["calls"])), arguments.get("holder"))
        if function == "record_runs_v1":
            return _add(self.runs, json.loads(str(arguments["runs"])), replace=True)
        raise StoreNotReady(f"MemoryStore has no function {function}; use a real database for it.")

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """Views need a database."""
        raise StoreNotReady(f"MemoryStore has no view {relation}; look at .calls and .runs.")

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """Relations need a database."""
        raise StoreNotReady(f"MemoryStore has no relation {relation.name}; look at .calls and .runs.")

    def _record_calls(self, rows: list[Row], holder: object) -> Row:
        known = {row["id"] for row in self.calls}
        for row in rows:
            if row["id"] not in known:
                self._budgets.post(None if holder is None else str(holder), row)
            row.pop("draws", None)
        return _add(self.calls, rows)

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """Calls, tokens and cost by `service`, `user`, `agent`, `model` and the like, the dearest first; amounts are Decimal.

        Each row has `key`, `label`, `calls`, `failed_calls`, `unpriced_calls`, `total_tokens` and `total_cost`.
        """
        if problem := no_breakdown(by):
            raise StoreRejected(problem)
        if by not in _GROUPINGS:
            raise StoreNotReady(f"MemoryStore sums up by {', '.join(_GROUPINGS)}; use a real database for {by}.")
        key, label = _GROUPINGS[by]
        found: dict[Any, Row] = {}
        for call in self.calls:
            if organization is not None and call.get("organization_id") != organization:
                continue
            if since is not None and datetime.fromisoformat(call["created_at"]) < since:
                continue
            row = found.setdefault(
                call.get(key),
                {"calls": 0, "failed_calls": 0, "unpriced_calls": 0, "total_tokens": 0, "total_cost": Decimal(0)},
            )
            row["key"], row["label"] = call.get(key), call.get(label) or call.get(key)
            row["calls"] += 1
            row["failed_calls"] += call["status"] != "ok"
            row["unpriced_calls"] += not call["priced"]
            row["total_tokens"] += call.get("total_tokens", 0)
            row["total_cost"] += Decimal(call.get("total_cost") or 0)
        return sorted(found.values(), key=lambda row: row["total_cost"], reverse=True)

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """Row level security needs a database."""
        raise StoreNotReady("MemoryStore knows no users; use a real database for them.")

    def within(self, timeout_s: float) -> Store:
        """Nothing here takes long."""
        return self

    def after_fork(self) -> None:
        """Nothing is shared with the parent but a copy of its memory."""

    def close(self) -> None:
        """Nothing to close."""


_: type[Store] = MemoryStore  # so that the type checker holds it against the protocol

_GIVEN_UP = ("abandoned", "cancelled")


def _add(kept: list[Row], rows: list[Row], *, replace: bool = False) -> Row:
    known = {row["id"]: position for position, row in enumerate(kept)}
    inserted = 0
    for row in rows:
        replaces = row.pop("replaces_abandoned", False)
        if row["id"] not in known:
            known[row["id"]] = len(kept)
            kept.append(row)
            inserted += 1
        elif replace or (replaces and kept[known[row["id"]]]["status"] in _GIVEN_UP):
            kept[known[row["id"]]] |= row
            inserted += 1
    return {"inserted": inserted, "duplicate": len(rows) - inserted, "rejected": []}
