"""Alerts, at `/api/v1/alerts`: thresholds of budgets that were crossed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Response
from pydantic import AwareDatetime

from vital_tracking.queries.alerts import ALERT_COLUMNS, MOST_ALERTS, Alert, every_alert, recent_alerts
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.budget_examples import ALERT
from vital_tracking.web.api.pages import page_of
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.problems import invalid
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/alerts", tags=["budgets"], dependencies=[Depends(reads("alerts"))])

_MAX_AGE_S: Final = 10
_Since = Annotated[AwareDatetime | None, Query(description="From this instant on; by default of the last 30 days.")]
_Until = Annotated[AwareDatetime | None, Query(description="Before this instant.")]
_Organization = Annotated[str | None, Query(max_length=256, description="Only this organization's own.")]
_Limit = Annotated[int, Query(ge=1, le=MOST_ALERTS, description="How many, the newest first.")]
_Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Older than the alert of this id.")]
_All = Annotated[bool, Query(description="Also those superseded by a higher threshold at the same moment.")]


def _asked(
    since: _Since = None,
    until: _Until = None,
    organization: _Organization = None,
    before: _Before = None,
    superseded: _All = False,
) -> dict[str, Any]:
    first = since or datetime.now(UTC) - timedelta(days=30)
    if until is not None and until < first:
        raise invalid([("query", "since", "is after until")])
    return {"since": first, "until": until, "organization": organization, "before": before, "superseded": superseded}


AlertsAsked = Annotated[dict[str, Any], Depends(_asked)]


@routes.get(
    "",
    summary="Alerts, the newest first",
    responses=answering(list[Alert], "The alerts; `Link` leads to the next ones.", [ALERT]),
)
def alerts(request: Request, store: Reader, asked: AlertsAsked, limit: _Limit = 100) -> Response:
    """The alerts that whoever asks may see. `Link` leads to the next ones."""
    found = recent_alerts(store, **asked, limit=limit)
    return page_of(request, found, limit, lambda alert: str(alert["id"]), parameter="before", max_age=_MAX_AGE_S)


@routes.get(".csv", summary="All alerts as CSV", response_class=Response, responses=csv_answering("id,created_at\r\n"))
def alerts_as_csv(store: Reader, asked: AlertsAsked) -> Response:
    """All of them, however many; no spreadsheet runs a cell as a formula."""
    rows = ([row[name] for name in ALERT_COLUMNS] for row in every_alert(store, **asked))  # type: ignore[literal-required]
    return csv_response(csv_lines(ALERT_COLUMNS, rows), "alerts.csv")
