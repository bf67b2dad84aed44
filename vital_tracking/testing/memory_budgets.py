"""Budgets in memory, for tests: they stop and downgrade calls as those of the database do, near the limit and past it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.core.entities import ENTITY_TYPES, METRICS, PERIODS

_ACTIONS: Final = ("block", "downgrade")
_COLUMNS: Final = {
    "service": "service_type",
    "tier": "agent_tier",
    "model": "model",
    **{name: f"{name}_id" for name in ("organization", "user", "session", "agent", "workflow", "panel", "solution")},
}


@dataclass
class _Window:
    id: int
    limit: Decimal
    ends_at: datetime | None
    starts_at: datetime | None
    spent: Decimal = Decimal(0)
    grants: dict[str, Decimal] = field(default_factory=dict)

    @property
    def granted(self) -> Decimal:
        return sum(self.grants.values(), Decimal(0))


class MemoryBudgets:
    """Budgets of one process. A process is granted what a call needs and nothing for further ones, so a limit holds exactly."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._limits: dict[int, dict[str, Decimal]] = {}
        self._windows: dict[tuple[int, str, str, datetime | None], _Window] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def set(
        self,
        entity_type: str,
        entity_id: str,
        limits: Mapping[str, Decimal | int | str | None],
        *,
        metric: str,
        action: str,
        downgrade_to: str | None,
    ) -> None:
        """Add a budget. `limits` are by the names of PERIODS; ValueError for what a database alone can do."""
        if entity_type not in ENTITY_TYPES or metric not in METRICS:
            raise ValueError(f"Budgets stand on {', '.join(ENTITY_TYPES)}, in {', '.join(METRICS)}.")
        if action not in _ACTIONS:
            raise ValueError(
                f"In memory a budget can {' or '.join(_ACTIONS)}; for {action!r} test with a real database."
            )
        given = {period: Decimal(limit) for period, limit in limits.items() if limit is not None}
        if not given or not given.keys() <= PERIODS.keys():
            raise ValueError(f"A budget needs a limit: one or more of {', '.join(PERIODS)}.")
        with self._lock:
            number = len(self._rows) + 1
            self._limits[number] = given
            self._rows.append(
                {
                    "id": number,
                    "organization_id": None,
                    "entity_type": entity_type,
                    "entity_id": entity_id,
                    "metric": metric,
                    "action": action,
                    "enforce": True,
                    "strict": False,
                    "when_unavailable": "allow",
                    "downgrade_to": downgrade_to,
                }
            )

    def answer(self) -> dict[str, Any]:
        """What `budgets_v1` answers."""
        return {"version": str(len(self._rows)) if self._rows else "", "budgets": [dict(row) for row in self._rows]}

    def acquire(self, holder: str, asks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """What `acquire_grants_v1` answers."""
        with self._lock:
            return {
                "now": datetime.now(UTC).isoformat(),
                "answers": [self._grant(holder, ask) for ask in asks],
                "alerts": [],
            }

    def _grant(self, holder: str, ask: Mapping[str, Any]) -> dict[str, Any]:
        found: list[tuple[_Window, Decimal, dict[str, Any]]] = []
        for asked in ask["windows"]:
            row = next((row for row in self._rows if row["id"] == asked["budget"]), None)
            if row is None:
                continue
            unit = Decimal(asked["unit"])
            for period, window in self._windows_of(row["id"], asked["entity"], datetime.now(UTC)):
                mine = window.grants.get(holder, Decimal(0))
                have = min(Decimal(asked["have"].get(str(window.id), 0)), mine)
                need = max(unit - have, Decimal(0)) + max(Decimal(asked["owe"].get(str(window.id), 0)), Decimal(0))
                need = Decimal(0) if ask["ahead"] or not unit else need
                over = need > 0 and window.limit - window.spent - window.granted < need
                shown = {
                    "id": window.id,
                    "budget": row["id"],
                    "entity": asked["entity"],
                    "period": period,
                    "starts_at": window.starts_at.isoformat() if window.starts_at else None,
                    "ends_at": window.ends_at.isoformat() if window.ends_at else None,
                    "limit": str(window.limit),
                    "spent": str(window.spent),
                    "granted": str(window.granted),
                    "mine": str(mine),
                    "over": over,
                    "stops": over and (row["action"] == "block" or not asked["pass"]),
                    "turn": False,
                }
                found.append((window, Decimal(0) if over else need, shown))
        admitted = not any(shown["stops"] for _, _, shown in found)
        for window, amount, shown in found:
            shown["amount"] = str(amount if admitted else 0)
            if admitted:
                window.grants[holder] = window.grants.get(holder, Decimal(0)) + amount
        windows = [shown for _, _, shown in found]
        return {"admitted": admitted, "wait": 0.0, "again": False, "slot": None, "windows": windows}

    def renew(self, holder: str, kept: Mapping[str, Any]) -> dict[str, Any]:
        """What `renew_grants_v1` answers: what is not among `kept` is free again."""
        grants: dict[str, str] = {}
        with self._lock:
            for window in self._windows.values():
                if holder in window.grants:
                    keep = min(window.grants.pop(holder), Decimal(kept.get(str(window.id), 0)))
                    if keep > 0:
                        window.grants[holder] = keep
                        grants[str(window.id)] = str(keep)
        return {"version": self.answer()["version"], "grants": grants}

    def post(self, holder: str | None, row: Mapping[str, Any]) -> None:
        """Count a call whose row is stored, in every window that it belongs to, and take it out of what was granted."""
        if row.get("status") == "blocked":
            return
        moment = datetime.fromisoformat(str(row["created_at"]))
        cost = Decimal(row.get("total_cost") or row.get("ceiling_cost") or 0)
        amounts = {
            "cost_usd": cost,
            "tokens": Decimal(row.get("total_tokens", 0)),
            "calls": Decimal(row.get("calls", 1)),
        }
        with self._lock:
            for budget in self._rows:
                entity = row.get(_COLUMNS[budget["entity_type"]])
                if entity is not None and budget["entity_id"] in ("*", entity):
                    for _, window in self._windows_of(budget["id"], str(entity), moment):
                        window.spent += amounts[budget["metric"]]
            for window_id, amount in row.get("draws", ()):
                for window in self._windows.values():
                    if window.id == window_id and holder is not None:
                        left = window.grants.get(holder, Decimal(0)) - Decimal(amount)
                        window.grants[holder] = max(left, Decimal(0))

    def _windows_of(self, budget: int, entity: str, moment: datetime) -> list[tuple[str, _Window]]:
        found = []
        for period, limit in self._limits[budget].items():
            starts, ends = _bounds(period, moment)
            key = (budget, entity, period, starts)
            if key not in self._windows:
                self._windows[key] = _Window(next(self._ids), limit, ends, starts)
            found.append((period, self._windows[key]))
        return found


def _bounds(period: str, moment: datetime) -> tuple[datetime | None, datetime | None]:
    """When the window of a moment begins and ends, in UTC."""
    at = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if period == "minute":
        return at, at + timedelta(minutes=1)
    day = at.replace(hour=0, minute=0)
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "month":
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    return None, None
