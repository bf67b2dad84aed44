"""How tenants fare: their health with its parts, its trend and its reasons."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.names import names_of
from vital_tracking.queries.tenants import TenantHealth, TenantsHealth, level, tenants_health
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters, only_organization
from vital_tracking.web.page import Card, Chart, Column, Page, Part, Row
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_WEEKS: Final = 13
_DRAWN: Final = 8
_COLOURS: Final = {"good": "ok", "fair": "warn", "poor": "bad", "unknown": "quiet"}


@routes.get("/health", name="vital-health", dependencies=[Depends(reads("health"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """How tenants fare."""
    organization = only_organization(asked)
    return answer(request, who, store, asked, lambda view: page(view, organization))


def page(view: View, organization: str | None) -> Page:
    """The health of the tenants that the reader may see, or of one."""
    found = tenants_health(view.store, organization=organization, weeks=_WEEKS)
    return Page(
        "health",
        "How do tenants fare?",
        f"Health from 0 to 100 over the {found['days']} days up to today (UTC): 30 % engagement, 40 % performance, 30 % quality. "
        "What is not known is left out, and the rest counts for the whole.",
        cards=_cards(found),
        parts=[_tenants(view, found), _history(found)],
        of_time=False,
        newest=_newest(found),
    )


def _newest(found: TenantsHealth) -> tuple[str, date | None]:
    """The last day on which any tenant did anything: health is made of days."""
    days = (row["newest"] for row in found["rows"])
    return "day of any of it", max(filter(None, days), default=None)


def _cards(found: TenantsHealth) -> list[Card]:
    rows = found["rows"]
    levels = [level(row["health"]) for row in rows]
    silent = sum(row["newest"] is None for row in rows)
    falling = sum(row["trend"] is not None and row["trend"] <= -10 for row in rows)
    return [
        Card("Tenants", numbers.count(len(rows))),
        Card("Poor", numbers.count(levels.count("poor")), note="below 40"),
        Card("Falling", numbers.count(falling), note="by 10 points or more"),
        Card("Silent", numbers.count(silent), note=f"nothing in {counted(found['days'], 'day')}"),
    ]


def whole(value: Decimal | None) -> int | None:
    """A score as a whole number."""
    return None if value is None else round(value)


def _shown(row: TenantHealth, name: str) -> dict[str, Any]:
    word = level(row["health"])
    return {
        **row,
        "organization": row["organization_id"],
        "name": name,
        "scored": (_COLOURS[word], f"{whole(row['health'])} {word}" if row["health"] is not None else word),
        "engaged": whole(row["engagement"]),
        "performed": whole(row["performance"]),
        "answered": whole(row["quality"]),
        "users": f"{row['active_users']:,} of {row['known_users']:,}",
        "why": " ".join(row["reasons"]) or "Nothing is amiss.",
    }


def _tenants(view: View, found: TenantsHealth) -> Part:
    known = names_of(view.store, organizations=[row["organization_id"] for row in found["rows"]])

    def spend_of(row: Row) -> str:
        return view.to("organizations", organization=row["organization_id"])

    return Part(
        "tenants",
        "Tenants, the least healthy first",
        [
            Column("name", "Tenant", link=spend_of),
            Column("scored", "Health", "flag"),
            Column("trend", "Trend", "points", about="Points gained since as many days before"),
            Column("engaged", "Engagement", "calls", about="Users active, sessions a user and week, events a session"),
            Column(
                "performed",
                "Performance",
                "calls",
                about="Percent of executions of agents, else of calls, that succeeded",
            ),
            Column("answered", "Quality", "calls", about="Ratings, and the scores of RAGAS and its kin"),
            Column("users", "Users active"),
            Column("newest", "Last seen (UTC)", "day", none="silent"),
            Column("why", "Why", "prose"),
        ],
        [_shown(row, known.organization(row["organization_id"])) for row in found["rows"]],
        note="How it is reckoned: users active of those known; three sessions a user and week and ten events a session are 100; "
        "ratings from 1 to 5 are 0 to 100.",
        empty="No organization is known to you. Calls and events name theirs by organization_id.",
        wide=True,
    )


def _history(found: TenantsHealth) -> Part:
    rows: list[dict[str, Any]] = [
        {"day": point["day"], "organization": row["organization_id"], "health": point["health"]}
        for row in found["rows"][:_DRAWN]
        for point in row["history"]
        if point["health"] is not None
    ]
    rows.sort(key=lambda row: row["day"])
    return Part(
        "history",
        "Week by week",
        [Column("day", "Up to", "day"), Column("organization", "Tenant"), Column("health", "Health", "calls")],
        rows,
        chart=Chart("lines", "day", ("health",), "organization"),
        note=f"Each point is about the {counted(found['days'], 'day')} up to it.",
        empty="Nothing is known yet.",
        more=f"The {_DRAWN} least healthy are drawn." if len(found["rows"]) > _DRAWN else "",
        wide=True,
    )
