"""What is no call in the made-up history: what users did, what else it cost, and how agents fared in their eyes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.core.record import RunRecord
from vital_tracking.demo.cast import Organization
from vital_tracking.demo.turns import id_at

_PAGES: Final = ("/home", "/cases", "/reports", "/library", "/settings")
_ROUTES: Final = ("/api/cases/{id}", "/api/search", "/api/ask", "/api/reports/{id}")
_GPU: Final = "gpu-1"
_GPU_USD: Final = Decimal("1.60")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlatformDay:
    """A day of it, as rows of the database."""

    events: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    executions: list[Row] = field(default_factory=list)


def platform_day(
    chance: random.Random,
    organization: Organization,
    midnight: datetime,
    runs: Iterable[RunRecord],
    mark: Mapping[str, Any],
    until: datetime,
) -> PlatformDay:
    """What stands beside the outermost runs of an organization on a day that begins at `midnight`, up to `until`."""
    day = PlatformDay()
    outermost = [run for run in runs if not run.ancestor_run_ids and run.ended_at is not None]
    agents = {role.agent.name: role.agent.id for role in organization.talkers}
    for run in outermost:
        _events(chance, run, mark, day.events)
        _execution(chance, run, agents, mark, day.executions)
    _costs(chance, organization, midnight, len(outermost), mark, day.costs)
    if outermost:
        revenue = {
            "category": "business",
            "event_name": "revenue",
            "value": f"{len(outermost) * chance.uniform(0.3, 0.5):.2f}",
        }
        day.events.append(_event(chance, midnight + timedelta(hours=18), organization.id, None, mark, **revenue))
    for rows, time in ((day.events, "occurred_at"), (day.costs, "occurred_at"), (day.executions, "started_at")):
        rows[:] = [row for row in rows if datetime.fromisoformat(row[time]) < until]
    return day


def _event(
    chance: random.Random,
    at: datetime,
    organization: str | None,
    user: str | None,
    mark: Mapping[str, Any],
    **facts: Any,
) -> Row:
    properties = {**facts.pop("properties", {}), **mark}
    return {
        "id": id_at(chance, at),
        "occurred_at": at.isoformat(),
        "organization_id": organization,
        "user_id": user,
        "properties": properties,
        **facts,
    }


def _events(chance: random.Random, run: RunRecord, mark: Mapping[str, Any], events: list[Row]) -> None:
    """The page from which it was asked, the request that asked it, and what was looked at afterwards."""
    organization, user = run.context.organization_id, run.context.user_id
    session: Row = {"session_id": f"{run.context.user_id}-{run.started_at:%m%d}"}
    page, after = chance.choice(_PAGES), chance.choice(_PAGES)
    ended = run.ended_at or run.started_at
    events.append(
        _event(
            chance,
            run.started_at,
            organization,
            user,
            mark,
            event_name="page_view",
            source=page,
            properties={"page": page},
            **session,
        )
    )
    took = round((ended - run.started_at).total_seconds() * 1000, 1)
    told = {
        "method": "POST",
        "status": chance.choice((500, 503)) if run.status == "error" else 200,
        "duration_ms": took,
        "size": chance.randint(400, 9000),
    }
    request: Row = {
        "category": "system_health",
        "event_name": "http_request",
        "source": chance.choice(_ROUTES),
        "value": str(took),
    }
    events.append(_event(chance, ended, organization, user, mark, properties=told, **request))
    if chance.random() < 0.4:
        said: Row = {"event_name": chance.choice(("report_opened", "answer_copied", "shared")), "source": after}
        events.append(
            _event(
                chance, ended + timedelta(seconds=chance.randint(5, 300)), organization, user, mark, **said, **session
            )
        )


def _execution(
    chance: random.Random,
    run: RunRecord,
    agents: Mapping[str | None, str],
    mark: Mapping[str, Any],
    executions: list[Row],
) -> None:
    ended = run.ended_at or run.started_at
    success = run.status == "ok"
    row: Row = {
        "id": id_at(chance, run.started_at),
        "started_at": run.started_at.isoformat(),
        "organization_id": run.context.organization_id,
        "user_id": run.context.user_id,
        "agent_id": agents.get(run.context.service_name) or run.context.service_id or "unnamed",
        "agent_name": run.context.service_name,
        "workflow_id": run.context.workflow_id,
        "service_run_id": run.id,
        "duration_ms": round((ended - run.started_at).total_seconds() * 1000, 1),
        "success": success,
        "error_type": None if success else "WorkflowError",
        "metadata": dict(mark),
    }
    if chance.random() < 0.2:
        row["rating"] = chance.choices((5, 4, 3, 2, 1), (5, 4, 2, 1, 1))[0] if success else chance.choice((1, 2))
    if success and chance.random() < 0.3:
        row["faithfulness"] = f"{chance.betavariate(14, 1.6):.3f}"
        row["answer_relevancy"] = f"{chance.betavariate(12, 1.8):.3f}"
        row["citations"] = chance.randint(0, 6)
    executions.append(row)


def _costs(
    chance: random.Random,
    organization: Organization,
    midnight: datetime,
    turns: int,
    mark: Mapping[str, Any],
    costs: list[Row],
) -> None:
    """A day's storage and traffic, searches and speech, an hour of a machine; and a service that nobody has a price for yet."""

    def add(hour: float, cost_type: str, quantity: Decimal, **facts: Any) -> None:
        at = midnight + timedelta(hours=hour)
        costs.append(
            {
                "id": id_at(chance, at),
                "occurred_at": at.isoformat(),
                "organization_id": organization.id,
                "cost_type": cost_type,
                "quantity": str(quantity),
                "metadata": dict(mark),
                **facts,
            }
        )

    size = Decimal(40 + len(organization.users) * 6)
    add(1, "storage", (size / 30).quantize(Decimal("0.0001")), service="documents", resource="documents")
    add(23, "bandwidth", Decimal(f"{chance.uniform(0.4, 1.1) + turns * 0.01:.3f}"), service="web")
    for hour in (9, 13, 17):
        if turns:
            add(
                hour,
                "search",
                Decimal(max(1, round(turns * chance.uniform(0.2, 0.4)))),
                service="library",
                resource="web-search",
            )
    if "panel" in organization.services:
        add(12, "tts", Decimal(max(1, round(turns * 0.1))), service="read-aloud")
    add(20, "compute", Decimal(f"{0.5 + turns * 0.004:.3f}"), service="batch", resource=_GPU, unit_price=str(_GPU_USD))
    if midnight.isoweekday() == 1:
        add(6, "compute", Decimal(1), service="reindex", resource="vector-index")  # for which nobody has a price yet
