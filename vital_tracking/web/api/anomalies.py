"""What stands out, at `/api/v1/anomalies`, and requests made again, at `/api/v1/duplicates`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import Depends, Query, Response

from vital_tracking.queries.usage import Anomalies, Anomaly, Duplicates, anomalies, duplicates, severity
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.asked import OrganizationAsked, only_organization
from vital_tracking.web.described import answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["watch"])

Limit = Annotated[int, Query(ge=1, le=1000, description="How many, those with the most at stake first.")]

_MAX_AGE_S: Final = 30
_TIME: Final = {"since": "2026-11-24T00:00:00+00:00", "until": "2026-12-01T00:00:00+00:00", "organization": None}


class RatedAnomaly(Anomaly):
    """An anomaly with its severity: by the dollars at stake and by how far it is from the usual."""

    severity: Literal["high", "medium", "low"]


class RatedAnomalies(Anomalies):
    """Days that are out of the ordinary, those with the most at stake first."""

    rows: list[RatedAnomaly]  # type: ignore[misc]


_ANOMALIES: Final = {
    **_TIME,
    "rows": [
        {
            "subject": "agent",
            "id": "triage",
            "organization_id": "acme",
            "day": "2026-11-27",
            "metric": "error_rate",
            "measure": "percent",
            "value": 42.5,
            "usual": 1.25,
            "score": 14.2,
            "cost_at_stake": 3.5,
            "calls": 400,
            "unpriced_calls": 0,
            "query": "...",
            "severity": "high",
        }
    ],
}
_DUPLICATES: Final = {
    **_TIME,
    "requests": 1,
    "repeated_calls": 11,
    "saved_by_caching": 0.55,
    "rows": [
        {
            "request_hash": "9f2c1d",
            "organization_id": "acme",
            "calls": 12,
            "unpriced_calls": 0,
            "model": "gpt-4.1",
            "agent_id": "triage",
            "first_at": "2026-11-27T08:00:00+00:00",
            "last_at": "2026-11-27T18:00:00+00:00",
            "cost": 0.6,
            "saved_by_caching": 0.55,
        }
    ],
}


@routes.get(
    "/anomalies",
    name="vital-api-anomalies",
    summary="Days of agents, users and models that stand out",
    responses=answering(RatedAnomalies, "The anomalies.", _ANOMALIES),
    dependencies=[Depends(reads("anomalies"))],
)
def show_anomalies(store: Reader, asked: OrganizationAsked, limit: Limit = 50) -> Response:
    """Days on which an agent, user or model cost, took or failed far more than before; `organization` names one.

    `metric` says in which unit `value` and `usual` are: `cost` US dollars, `latency` milliseconds, `error_rate` percent.
    `query` is SQL that shows the calls.
    """
    found = anomalies(
        store,
        since=asked.period.since,
        until=asked.period.until,
        organization=only_organization(asked),
        rows=limit,
    )
    rows = [{**row, "severity": severity(row)} for row in found["rows"]]
    return ExactJSON({**found, "rows": rows}, max_age=_MAX_AGE_S)


@routes.get(
    "/duplicates",
    name="vital-api-duplicates",
    summary="Requests that were paid for more than once",
    responses=answering(Duplicates, "The duplicates.", _DUPLICATES),
    dependencies=[Depends(reads("duplicates"))],
)
def show_duplicates(store: Reader, asked: OrganizationAsked, limit: Limit = 50) -> Response:
    """Requests with the same keyed hash that were answered again, and what a cache would have saved; `organization` names one."""
    found = duplicates(
        store,
        since=asked.period.since,
        until=asked.period.until,
        organization=only_organization(asked),
        rows=limit,
    )
    return ExactJSON(found, max_age=_MAX_AGE_S)
