"""The audit: who changed, read or was refused what."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.audit import AuditFilters, AuditLine, audit_lines
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.audited import AuditAsked, Before, audit_as_csv
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_ROWS: Final = 100
_COLOURS: Final = {"refused": "bad", "read": "quiet", "delete": "warn", "truncate": "bad", "forget_user": "warn"}


@routes.get("/audit", name="vital-audit", dependencies=[Depends(reads("audit"))])
def show(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    filters: AuditAsked,
    before: Before = None,
) -> Response:
    """The newest lines that were asked for, or all of them as CSV."""
    if request.query_params.get("format") == "csv" and request.query_params.get("part") == "all":
        return audit_as_csv(store, filters)
    shown = replace(asked, filters={})  # the form's own fields say what is asked for
    return answer(request, who, store, shown, lambda view: page(view, filters, before))


def page(view: View, filters: AuditFilters, before: int | None) -> Page:
    """The newest lines, a page at a time."""
    lines = audit_lines(view.store, filters, limit=_ROWS, before_id=before)
    given = {
        "organization": filters.organization,
        "actor": filters.actor,
        "operation": filters.operation,
        "what": filters.what,
        "since": filters.since.date().isoformat() if filters.since else None,
    }
    kept = {name: value for name, value in given.items() if value}

    def here(**more: str) -> str:
        return f"{view.path('audit')}?{urlencode({**kept, **more})}"

    return Page(
        "audit",
        "Who did what?",
        "Every change of budgets, prices, members and retention, every look at other people's data and every refused try, "
        "the newest first, as it stands now.",
        parts=[lines_part(lines)],
        template="audit.html",
        of_time=False,
        extra={
            "given": given,
            "older": here(before=str(lines[-1]["id"])) if len(lines) == _ROWS else None,
            "newest": here() if before else None,
            "csv": here(format="csv", part="all"),
        },
    )


def lines_part(lines: list[AuditLine]) -> Part:
    """Lines of the audit as a table."""
    return Part(
        "lines",
        "Lines",
        [
            Column("at", "When (UTC)", "moment"),
            Column("who", "Who", none="operator"),
            Column("did", "Did", "flag"),
            Column("what", "To what"),
            Column("organization_id", "Organization"),
            Column("which", "Which", "prose"),
            Column("changed", "Before and after", "prose"),
            Column("application", "By"),
        ],
        [
            {
                **line,
                "who": line["actor"] or (None if line["database_role"] == "service_role" else line["database_role"]),
                "did": (_COLOURS.get(line["operation"], "ok"), line["operation"]),
                "which": ", ".join(str(value) for value in line["key"].values() if value is not None) or None,
                "changed": "; ".join(_change(name, value, line["operation"]) for name, value in line["changes"].items())
                or None,
            }
            for line in lines
        ],
        empty="No line that you may see. Admins and auditors see those of their organization.",
        wide=True,
        sortable=False,
    )


def _change(name: str, value: Any, operation: str) -> str:
    if isinstance(value, list) and len(value) == 2:
        if operation == "insert" and value[0] is None:
            return f"{name}: {value[1]}"
        before, after = ("nothing" if one is None else str(one) for one in value)
        return f"{name}: {before} \N{RIGHTWARDS ARROW} {after}"
    return f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
