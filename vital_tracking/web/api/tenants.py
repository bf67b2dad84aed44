"""How tenants fare, at `/api/v1/health`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Query, Response

from vital_tracking.queries.tenants import HEALTH_COLUMNS, HEALTH_DAYS, TenantsHealth, tenants_health
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["watch"])

Organization = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="Only this one.")]
Days = Annotated[int, Query(ge=1, le=365, description="The last so many days, beside as many before.")]
Weeks = Annotated[int, Query(ge=0, le=26, description="Of so many weeks also the health at their end.")]

_MAX_AGE_S: Final = 30
_EXAMPLE: Final = {
    "days": 30,
    "last_day": "2026-11-30",
    "rows": [
        {
            "organization_id": "acme",
            "health": 71.81,
            "trend": -4.2,
            "engagement": 41.85,
            "performance": 90,
            "quality": 77.5,
            "reasons": ["1 of 2 known users were active.", "1 of 10 executions of agents failed."],
            "users_score": 50,
            "sessions_score": 15.56,
            "events_score": 60,
            "rating_score": 75,
            "scores_score": 80,
            "known_users": 2,
            "active_users": 1,
            "sessions": 2,
            "events": 12,
            "executions": 10,
            "succeeded": 9,
            "made_calls": 4,
            "answered_calls": 3,
            "ratings": 10,
            "avg_rating": 4,
            "scores": 20,
            "avg_score": 0.8,
            "newest": "2026-11-30",
            "is_new": False,
            "history": [{"day": "2026-11-30", "health": 71.81}],
        }
    ],
}


@routes.get(
    "/health",
    name="vital-api-health",
    summary="How tenants fare",
    responses=answering(TenantsHealth, "Tenants' health.", _EXAMPLE),
    dependencies=[Depends(reads("health"))],
)
def show_health(
    store: Reader, organization: Organization = None, days: Days = HEALTH_DAYS, weeks: Weeks = 0
) -> Response:
    """The health of each tenant from 0 to 100, the least healthy first: 30 % engagement, 40 % performance, 30 % quality.

    What is null is not known, and the rest counts for the whole; `trend` is what was gained since as many days before.
    """
    found = tenants_health(store, organization=organization or None, days=days, weeks=weeks)
    return ExactJSON(found, max_age=_MAX_AGE_S)


@routes.get(
    "/health.csv",
    name="vital-api-health-csv",
    summary="How tenants fare, as CSV",
    response_class=Response,
    responses=csv_answering("organization_id,health,trend\r\nacme,71.81,-4.2\r\n"),
    dependencies=[Depends(reads("health"))],
)
def health_csv(store: Reader, organization: Organization = None, days: Days = HEALTH_DAYS) -> Response:
    """The same as CSV; reasons are one text."""
    found = tenants_health(store, organization=organization or None, days=days)
    rows = [{**row, "reasons": " ".join(row["reasons"])} for row in found["rows"]]
    return csv_response(
        csv_lines(HEALTH_COLUMNS, ([row[name] for name in HEALTH_COLUMNS] for row in rows)), "health.csv"
    )
