"""The audit, at `/api/v1/audit`."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from vital_tracking.queries.audit import AUDIT_COLUMNS, AuditLine, audit_lines, every_line
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.audited import AuditAsked, Before
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["house"], dependencies=[Depends(reads("audit"))])

_EXAMPLE: Final = [
    {
        "id": 71,
        "at": "2026-11-30T12:00:00+00:00",
        "actor": "8f14e45f-ceea-4672-9d5a-1f0d8a0f5c11",
        "database_role": "authenticated",
        "application": "vital_tracking",
        "organization_id": "acme",
        "what": "overview",
        "operation": "read",
        "key": {"user_id": "u-1"},
        "changes": {},
    }
]


@routes.get(
    "/audit",
    name="vital-api-audit",
    summary="Who changed, read or was refused what",
    responses=answering(list[AuditLine], "The newest lines; `Link` leads to the next ones.", _EXAMPLE),
)
def audit(
    request: Request,
    store: Reader,
    filters: AuditAsked,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many lines.")] = 100,
    before: Before = None,
) -> Response:
    """The lines that whoever asks may see, the newest first: admins and auditors those of their organization."""
    lines = audit_lines(store, filters, limit=limit, before_id=before)
    headers = {}
    if len(lines) == limit:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "before"]
        query = urlencode([*kept, ("before", str(lines[-1]["id"]))])
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return ExactJSON(lines, headers=headers)


@routes.get(
    "/audit.csv",
    name="vital-api-audit-csv",
    summary="The same as CSV, all of it",
    response_class=Response,
    responses=csv_answering("id,at,actor\r\n"),
)
def audit_csv(store: Reader, filters: AuditAsked) -> Response:
    """All lines that whoever asks may see as CSV; no spreadsheet runs a cell as a formula."""
    rows = ([line[name] for name in AUDIT_COLUMNS] for line in every_line(store, filters))  # type: ignore[literal-required]
    return csv_response(csv_lines(AUDIT_COLUMNS, rows), "audit.csv")
