"""Events, costs and executions as the library sends them, and what their sums must be, reckoned here from the rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from tests.sql.helpers import Connection, Row, call_id, report

MOMENT = "2026-01-15T10:00:00+00:00"
FUNCTIONS = {
    "platform_events": "record_events_v1",
    "tenant_cost_events": "record_costs_v1",
    "agent_executions": "record_executions_v1",
}
SCORES = ("faithfulness", "answer_relevancy", "context_precision", "context_recall")


def an_event(number: int = 1, **changes: Any) -> Row:
    """A page view."""
    return {"id": call_id(number), "occurred_at": MOMENT, "event_name": "page_view", **changes}


def a_cost(number: int = 1, **changes: Any) -> Row:
    """Ten gigabyte-months, for which there is a price."""
    return {"id": call_id(number), "occurred_at": MOMENT, "cost_type": "storage", "quantity": 10, **changes}


def an_execution(number: int = 1, **changes: Any) -> Row:
    """One that succeeded, in 1.2 seconds."""
    return {
        "id": call_id(number),
        "started_at": MOMENT,
        "agent_id": "cardio",
        "success": True,
        "duration_ms": 1200,
        **changes,
    }


def send(db: Connection, table: str, *rows: object) -> Row:
    """Send a batch; how the report counts it."""
    answer = report(db, FUNCTIONS[table], json.dumps(rows, default=str))
    return {name: answer[name] for name in ("inserted", "duplicate", "rejected")}


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _five_minutes(moment: datetime) -> datetime:
    moment = moment.astimezone(UTC)
    return moment.replace(minute=moment.minute - moment.minute % 5, second=0, microsecond=0)


def _failed(properties: Mapping[str, Any]) -> bool:
    status = properties.get("status")
    return (
        "error_type" in properties
        or properties.get("success") is False
        or (isinstance(status, int) and not isinstance(status, bool) and status >= 500)
    )


def _known(value: Any) -> int:
    return value is not None


Parts = Callable[[Row], tuple[Any, ...]]

SUMS: dict[str, tuple[str, Parts, Parts, tuple[str, ...], tuple[str, ...]]] = {
    "platform_events_5min": (
        "platform_events",
        lambda r: (r["organization_id"], _five_minutes(r["occurred_at"]), r["category"], r["event_name"]),
        lambda r: (1, _failed(r["properties"]), _known(r["value"]), r["value"] or 0),
        ("organization_id", "bucket", "category", "event_name"),
        ("events", "failed_events", "valued_events", "value"),
    ),
    "platform_events_daily_sessions": (
        "platform_events",
        lambda r: (
            r["organization_id"],
            r["occurred_at"].astimezone(UTC).date(),
            r["user_id"],
            r["session_id"],
            r["category"],
        ),
        lambda r: (1, (r["value"] or 0) if (r["category"], r["event_name"]) == ("business", "revenue") else 0),
        ("organization_id", "day", "user_id", "session_id", "category"),
        ("events", "revenue"),
    ),
    "tenant_costs_5min": (
        "tenant_cost_events",
        lambda r: (r["organization_id"], _five_minutes(r["occurred_at"]), r["cost_type"], r["service"]),
        lambda r: (1, not _known(r["cost_usd"]), r["cost_usd"] or 0),
        ("organization_id", "bucket", "cost_type", "service"),
        ("costs", "unpriced_costs", "cost_usd"),
    ),
    "tenant_costs_daily": (
        "tenant_cost_events",
        lambda r: (
            r["organization_id"],
            r["occurred_at"].astimezone(UTC).date(),
            r["user_id"],
            r["cost_type"],
            r["service"],
            r["resource"],
            r["unit"],
        ),
        lambda r: (1, not _known(r["cost_usd"]), r["quantity"], r["cost_usd"] or 0),
        ("organization_id", "day", "user_id", "cost_type", "service", "resource", "unit"),
        ("costs", "unpriced_costs", "quantity", "cost_usd"),
    ),
    "agent_executions_hourly": (
        "agent_executions",
        lambda r: (r["organization_id"], _hour(r["started_at"]), r["agent_id"]),
        lambda r: (
            1,
            r["success"],
            _known(r["duration_ms"]),
            Decimal(round((r["duration_ms"] or 0) * 1000)),
            r["total_tokens"] or 0,
            _known(r["cost_usd"]),
            r["cost_usd"] or 0,
            _known(r["rating"]),
            r["rating"] or 0,
            *(part for score in SCORES for part in (_known(r[score]), r[score] or 0)),
            r["citations"] or 0,
        ),
        ("organization_id", "hour_start", "agent_id"),
        (
            *(
                "executions",
                "succeeded",
                "timed",
                "duration_us",
                "total_tokens",
                "costed",
                "cost_usd",
                "rated",
                "rating",
            ),
            *(name for score in SCORES for name in (f"{score}_scores", score)),
            "citations",
        ),
    ),
}
"""Of each table of sums: the table of its rows, their key, what each adds, and the names of both."""


def differences(db: Connection, gone: Mapping[str, Sequence[Row]] = MappingProxyType({})) -> list[tuple[str, Any]]:
    """Where the sums are not those of the rows and of those that are gone by age; sums of nothing count as none."""
    wrong: list[tuple[str, Any]] = []
    for target, (source, key, adds, keys, measures) in SUMS.items():
        meant: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0] * len(measures))  # noqa: B023
        for row in [*db.execute(f"select * from {source}").fetchall(), *gone.get(source, ())]:  # type: ignore[arg-type]
            total = meant[key(row)]
            for place, part in enumerate(adds(row)):
                total[place] += part
        held = {
            tuple(row[name] for name in keys): [row[name] for name in measures]
            for row in db.execute(f"select * from {target}").fetchall()  # type: ignore[arg-type]
        }
        nothing = [0] * len(measures)
        wrong += [
            (target, (one, meant.get(one), held.get(one)))
            for one in meant.keys() | held.keys()
            if meant.get(one, nothing) != held.get(one, nothing)
        ]
    return wrong


def later(moment: str, **by: float) -> str:
    """A moment, so much later."""
    return (datetime.fromisoformat(moment) + timedelta(**by)).isoformat()
