"""Which budgets were crossed: the page of alerts, and how many are new since somebody looked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.alerts.wording import spent_text
from vital_tracking.queries.alerts import recent_alerts
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.cookies import cookie_lines
from vital_tracking.web.page import Column, Page, Part, Row
from vital_tracking.web.pages.common import named, whose
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.pages.unseen import ALERTS_SEEN, newest_seen
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_DAYS: Final = 30
_MOST: Final = 200
_A_YEAR_S: Final = 31_536_000


@routes.get("/alerts", dependencies=[Depends(reads("alerts"))])
def show_alerts(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """The alerts of the last days; from now on they have been seen."""
    seen = newest_seen(request)
    newest = seen

    def build(view: View) -> Page:
        nonlocal newest
        page = alerts_page(view, seen)
        newest = max([seen, *(row["id"] for row in page.parts[0].rows)])
        return page

    response = answer(request, who, store, asked, build)
    if newest != seen:
        secure = request.url.scheme == "https"
        for line in cookie_lines(ALERTS_SEEN, str(newest), path=home(request), secure=secure, max_age=_A_YEAR_S):
            response.headers.append("Set-Cookie", line)
    return response


def alerts_page(view: View, seen: int) -> Page:
    """The alerts, the newest first; those above the id that was seen last are marked."""
    found = recent_alerts(view.store, since=datetime.now(UTC) - timedelta(days=_DAYS), limit=_MOST)
    rows = [
        {
            **row,
            "new": ("warn", "new") if row["id"] > seen else None,
            **named(row),
            "crossed": row["threshold"] * 100 if row["threshold"] else None,
            "spent_of": spent_text(row["spent"], row["limit_amount"], row["metric"]),
            "at_limit": row["action"] if row["enforce"] else f"{row['action']} (shadow: only noted)",
        }
        for row in found
    ]

    def budget(row: Row) -> str | None:
        if row.get("pattern"):
            return view.path("abuse")
        return None if row["budget_id"] is None else view.path(f"budgets/{row['budget_id']}")

    columns = [
        Column("created_at", "When (UTC)", "moment"),
        Column("new", "New", "flag"),
        *whose(budget),
        Column("period", "Period"),
        Column("crossed", "Crossed", "percent", none="a call did not fit"),
        Column("spent_of", "Spent"),
        Column("at_limit", "At the limit"),
    ]
    return Page(
        "alerts",
        "Which budgets were crossed?",
        "Thresholds of budgets that were crossed in the last 30 days, the newest first; what you have not seen yet is marked.",
        parts=[
            Part(
                "alerts",
                "Alerts",
                columns,
                rows,
                empty="No alert in the last 30 days.",
                more=f"The newest {_MOST}; the API has all: api/v1/alerts.csv" if len(found) == _MOST else "",
                wide=True,
            )
        ],
        of_time=False,
    )
