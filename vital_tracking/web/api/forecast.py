"""Where the month ends, at `/api/v1/forecast`."""

from __future__ import annotations

from typing import Final

from fastapi import Depends, Response

from vital_tracking.queries.month import Month, month
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.asked import OrganizationAsked, only_organization
from vital_tracking.web.described import answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["watch"])

_MAX_AGE_S: Final = 30
_PART: Final = {"name": "workflow", "spent": 81.5, "projected": 120.75, "share_percent": 100.0}
_EXAMPLE: Final = {
    "forecast": {
        "organization": "acme",
        "period": "month",
        "timezone": "UTC",
        "moment": "2026-11-20T12:00:00+00:00",
        "starts_at": "2026-11-01T00:00:00+00:00",
        "ends_at": "2026-12-01T00:00:00+00:00",
        "spent": 81.5,
        "unpriced_calls": 0,
        "burn_rate_per_day": 4.1,
        "projected": 120.75,
        "low": 112.2,
        "high": 129.3,
        "error": {"mape": 4.2, "windows": 8},
        "method": "weekday and hour",
        "days": [["2026-11-19", 4.25, None], ["2026-11-20", 2.1, 4.3], ["2026-11-21", None, 1.2]],
        "budgets": [],
    },
    "bill": {
        "spent": 92.0,
        "projected": 136.5,
        "low": 127.9,
        "high": 145.2,
        "other_spent": 10.5,
        "other_projected": 15.75,
        "other_costs": 40,
        "unpriced_costs": 0,
        "other_days": [["2026-11-19", 0.525, None], ["2026-11-20", 0.3, 0.225], ["2026-11-21", None, 0.525]],
    },
    "projected_monthly_cost": 118.928571,
    "last_week": 27.75,
    "week_before": 25.5,
    "by_service": [_PART],
    "by_organization": [{**_PART, "name": "acme"}],
    "months": [{"month": "2026-11-01", "calls": 9120, "cost": 81.5, "other_cost": 10.5}],
}


@routes.get(
    "/forecast",
    name="vital-api-forecast",
    summary="Where the month ends, by service and organization",
    responses=answering(Month, "The forecast.", _EXAMPLE),
    dependencies=[Depends(reads("forecast"))],
)
def forecast(store: Reader, asked: OrganizationAsked) -> Response:
    """The calendar month so far and its end with its range, of what whoever asks may see; `organization` names one.

    `error.mape` is by how many percent such forecasts were off on average; `projected_monthly_cost` the daily average of the
    time that is asked for (`days`, or `since` and `until`), times 30.
    """
    return ExactJSON(month(store, asked.period, organization=only_organization(asked)), max_age=_MAX_AGE_S)
