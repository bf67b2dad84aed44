"""The audit, at `/api/v1/audit`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Query, Request, Response

from vital_tracking.queries.audit import AuditLine, audit_lines
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.pages import page_of
from vital_tracking.web.audited import AuditAsked, Before, audit_as_csv
from vital_tracking.web.described import answering, csv_answering
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
    return page_of(request, lines, limit, lambda line: str(line["id"]), parameter="before", max_age=None)


@routes.get(
    "/audit.csv",
    name="vital-api-audit-csv",
    summary="The same as CSV, all of it",
    response_class=Response,
    responses=csv_answering("id,at,actor\r\n"),
)
def audit_csv(store: Reader, filters: AuditAsked) -> Response:
    """All lines that whoever asks may see as CSV; no spreadsheet runs a cell as a formula."""
    return audit_as_csv(store, filters)
