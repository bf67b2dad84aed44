"""Alerts, at `/api/v1/alerts`: thresholds of budgets that were crossed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import AwareDatetime

from vital_tracking.queries.alerts import ALERT_COLUMNS, MOST_ALERTS, Alert, recent_alerts
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.budget_examples import ALERT
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.problems import invalid
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/alerts", tags=["budgets"], dependencies=[Depends(reads("alerts"))])

_Since = Annotated[AwareDatetime | None, Query(description="From this instant on; by default of the last 30 days.")]
_Until = Annotated[AwareDatetime | None, Query(description="Before this instant.")]
_Organization = Annotated[str | None, Query(max_length=256, description="Only this organization's own.")]
_Limit = Annotated[int, Query(ge=1, le=MOST_ALERTS, description="How many, the newest first.")]
_Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Older than the alert of this id.")]
_All = Annotated[bool, Query(description="Also those superseded by a higher threshold at the same moment.")]


def _asked(
    store: Reader,
    since: _Since = None,
    until: _Until = None,
    organization: _Organization = None,
    limit: _Limit = 100,
    before: _Before = None,
    superseded: _All = False,
) -> list[Alert]:
    first = since or datetime.now(UTC) - timedelta(days=30)
    if until is not None and until < first:
        raise invalid([("query", "since", "is after until")])
    return recent_alerts(
        store, since=first, until=until, organization=organization, limit=limit, before=before, superseded=superseded
    )


Alerts = Annotated[list[Alert], Depends(_asked)]


@routes.get(
    "",
    summary="Alerts, the newest first",
    responses=answering(list[Alert], "The alerts; `Link` leads to the next ones.", [ALERT]),
)
def alerts(request: Request, found: Alerts, limit: _Limit = 100) -> Response:
    """The alerts that whoever asks may see. `Link` leads to the next ones."""
    answer = ExactJSON(found, max_age=10)
    if len(found) == limit:
        asked = {**request.query_params, "before": str(found[-1]["id"])}
        answer.headers["Link"] = f'<{request.url.path}?{urlencode(asked)}>; rel="next"'
    return answer


@routes.get(".csv", summary="Alerts as CSV", response_class=Response, responses=csv_answering("id,created_at\r\n"))
def alerts_as_csv(found: Alerts) -> Response:
    """The same as CSV; no spreadsheet runs a cell as a formula."""
    rows: list[dict[str, object]] = [dict(row) for row in found]
    return csv_response(csv_lines(ALERT_COLUMNS, ([row[name] for name in ALERT_COLUMNS] for row in rows)), "alerts.csv")
