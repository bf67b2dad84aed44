"""What is asked of the audit, as its URL holds it, and all of it as a file: for the page and the API alike."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import Depends, Query

from vital_tracking.queries.audit import AUDIT_COLUMNS, AuditFilters, every_line
from vital_tracking.stores import Store
from vital_tracking.web.csv import CsvFile, csv_lines, csv_response

Name = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$")]


def audit_filters(
    organization: Name = None,
    actor: Annotated[Name, Query(description="The subject of the token of whoever did it.")] = None,
    operation: Annotated[Name, Query(description="Such as insert, update, delete, read, refused.")] = None,
    what: Annotated[Name, Query(description="The table or page that it was done to.")] = None,
    since: Annotated[date | None, Query(description="The first day, in UTC.")] = None,
) -> AuditFilters:
    """The filters; an empty one filters nothing."""
    return AuditFilters(
        organization=organization or None,
        actor=actor or None,
        operation=operation or None,
        what=what or None,
        since=datetime.combine(since, time(), UTC) if since else None,
    )


AuditAsked = Annotated[AuditFilters, Depends(audit_filters)]
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only lines with an id below this one.")]


def audit_as_csv(store: Store, filters: AuditFilters) -> CsvFile:
    """All lines for which the filters hold."""
    rows = ([line[name] for name in AUDIT_COLUMNS] for line in every_line(store, filters))  # type: ignore[literal-required]
    return csv_response(csv_lines(AUDIT_COLUMNS, rows), "audit.csv")
