"""Where money can be saved: recommendations that open to their evidence, what is decided about them, what they really saved."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form, Path
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.advice.report import about, money, open_ones, saves_something
from vital_tracking.queries import recommendations as queries
from vital_tracking.queries.recommendations import total_of
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.advised import Scope, found_last, look_again, scope_of
from vital_tracking.web.asked import OrganizationAsked, checked_zone, only_organization
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Column, Page, Part, Row
from vital_tracking.web.pages.advice_parts import (
    ABOUT,
    cards,
    dismissed_part,
    found_text,
    lead,
    no_longer_part,
    not_applicable_part,
    open_part,
    opened,
    row_of,
    taken_part,
    type_text,
)
from vital_tracking.web.pages.common import administered
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_ON_OVERVIEW: Final = 5
_TITLE: Final = "Where can money be saved?"

_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
_Organization = Annotated[str, Form(max_length=255, pattern=r"^[^\x00]*$")]
_Zone = Annotated[str, Form(max_length=64)]


@routes.get("/advice", name="vital-advice", dependencies=[Depends(reads("advice"))])
def show(request: Request, who: Asker, store: Reader, asked: OrganizationAsked) -> Response:
    """Where money can be saved."""
    scope = scope_of(store, who, only_organization(asked))
    return answer(request, who, store, asked, lambda view: page(view, who, scope))


@routes.post("/advice", name="vital-look-for-advice")
def look(
    request: Request, who: Asker, store: Reader, organization: _Organization = "", timezone: _Zone = "UTC"
) -> Response:
    """Look for advice again, and go back to the page."""
    del who
    look_again(request, store, organization or None, timezone=checked_zone(timezone.strip() or "UTC"))
    return RedirectResponse(_back(request, organization or None, timezone), 303)


@routes.post("/advice/{recommendation_id}", name="vital-decide-advice")
def decide(
    request: Request,
    who: Asker,
    store: Reader,
    recommendation_id: _Id,
    status: Annotated[Literal["open", "taken", "dismissed"], Form()],
    why: Annotated[str, Form(max_length=500, pattern=r"^[^\x00]*$")] = "",
) -> Response:
    """Take a recommendation, dismiss it, or open it again, and go back to the page."""
    del who
    done = queries.decide(store, recommendation_id, status, why=why)
    return RedirectResponse(_back(request, done["organization_id"]), 303)


def _back(request: Request, organization: str | None, timezone: str = "") -> str:
    asked = {"organization": organization or "", "timezone": timezone.strip()}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{home(request)}advice{f'?{query}' if query else ''}"


def page(view: View, who: Identity, scope: Scope) -> Page:
    """What was found last, what is open of it first; and what was decided, with what it saved."""
    if scope.said:
        return Page(
            "advice",
            _TITLE,
            scope.said,
            template="advice.html",
            of_time=False,
            live=False,
            extra={
                "choices": [(one, f"{view.path('advice')}?{urlencode({'organization': one})}") for one in scope.choices]
            },
        )
    found = found_last(view.store, scope)
    may = administered(view.store, who)
    known = [
        one
        for one in queries.saved_recommendations(view.store, organization=scope.organization, limit=queries.MOST)
        if one["organization_id"] == scope.organization
    ]
    shown = [] if found is None else open_ones(found)
    taken = [one for one in known if one["status"] == "taken"]
    return Page(
        "advice",
        _TITLE,
        lead(found, shown),
        cards=[] if found is None else cards(found, shown, taken),
        parts=[
            open_part(view, shown, found),
            taken_part(taken),
            dismissed_part([one for one in known if one["status"] == "dismissed"]),
            not_applicable_part(found),
            no_longer_part([one for one in known if one["status"] == "open" and not one["still_given"]]),
        ],
        notices=[] if found is None else found["notes"],
        template="advice.html",
        of_time=False,
        live=False,
        extra={
            "saving": [opened(view, one) for one in shown if saves_something(one)],
            "others": [opened(view, one) for one in shown if not saves_something(one)],
            "decided": [(one, type_text(one["type"]), about(one)) for one in known if one["status"] != "open"],
            "may_change": may is None or scope.organization in may,
            "organization": scope.organization or "",
            "timezone": view.asked.period.timezone,
            "found": found,
            "found_text": "" if found is None else found_text(found),
        },
    )


def overview_part(view: View, organization: str | None) -> Part:
    """The open recommendations that save most, for the overview."""
    found = queries.saved_recommendations(view.store, organization=organization, status="open")
    given = [one for one in found if one["still_given"]]
    # Advice for all and that for an organization are about the same calls.
    shown = [one for one in given if one["organization_id"] is None] or given

    def to(row: Row) -> str:
        query = f"?{urlencode({'organization': row['organization_id']})}" if row["organization_id"] else ""
        return f"{view.path('advice')}{query}#{row['id']}"

    return Part(
        "advice",
        "Where money can be saved",
        [
            Column("level", "Priority", "flag"),
            Column("type", "Type", link=to),
            ABOUT,
            Column("recommended", "", beside=True),
            Column("saving_expected", "Saves a month", "usd"),
        ],
        [row_of(one) for one in shown[:_ON_OVERVIEW]],
        note=f"Together about {money(total_of(shown)['expected'])} a month, each call repriced once.",
        more=f"{len(shown) - _ON_OVERVIEW} more are on the page of advice." if len(shown) > _ON_OVERVIEW else "",
        leads=("All advice, with its calls", view.path("advice")),
        sortable=False,
    )
