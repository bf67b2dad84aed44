"""Users, and one of them: what he spent, how far his budgets are, his newest calls and runs, and what was blocked and why."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.budgets import all_budgets, windows
from vital_tracking.queries.calls import usage_records
from vital_tracking.queries.names import names_of
from vital_tracking.queries.plans import quota_status
from vital_tracking.queries.runs import service_runs
from vital_tracking.queries.why import why_stored
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import RUNS_BY, AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.listed import calls_filters, runs_filters
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages import calls, usage
from vital_tracking.web.pages.budgets import windows_part
from vital_tracking.web.pages.common import administered
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.pages.quotas import quotas_part
from vital_tracking.web.pages.runs import runs_part
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_NEWEST: Final = 10
_HIS: Final = ("user", "user_id")


@routes.get("/users", name="vital-users", dependencies=[Depends(reads("users"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Who spends it, or one of them."""
    return answer(request, who, store, asked, lambda view: page(view, who), of_usage="user" not in asked.only)


def page(view: View, who: Identity) -> Page:
    """All users or, where the URL names one, him."""
    user = view.asked.only.get("user")
    if user is None:
        return usage.page(view, "users")
    more: dict[str, usage.Builder] = {
        "windows": partial(_budgets, view, user),
        "subscribers": partial(_quota, view, user),
        "calls": partial(_calls, view),
        "blocked": partial(_blocked, view),
    }
    if set(view.asked.filters) <= set(RUNS_BY):
        more["runs"] = partial(_runs, view)
    organizations = administered(view.store, who)
    found = usage.page(view, "users", more)
    email = names_of(view.store, [user]).email(user)
    return replace(
        found,
        lead=f"{found.lead} E-mail: {email}" if email else found.lead,
        template="user.html",
        extra={"forget": view.keeping("users/forget") if organizations is None or organizations else None},
    )


def _budgets(view: View, user: str) -> Part:
    """The windows that run of budgets on this user, whatever the page's time is."""
    there = windows(view.store, entity=user, organization=view.asked.only.get("organization"))
    found = [row for row in there if row["entity_type"] == "user"]
    part = windows_part(view, found, all_budgets(view.store)["now"])
    return replace(
        part, title="Budgets on this user, as they are now", empty="No window of a budget on this user runs."
    )


def _quota(view: View, user: str) -> Part:
    """The plan that he is on and what is used of it, whatever the page's time is."""
    found = quota_status(view.store, entity_type="user", ids=[user], organization=view.asked.only.get("organization"))
    part = quotas_part(view, found)
    return replace(part, title="Plan and quota, as they are now", empty="This user is on no plan that you may see.")


def _calls(view: View) -> Part:
    found = usage_records(view.store, calls_filters(view.asked), limit=_NEWEST)
    part = calls.calls_part(view, found)
    columns = [column for column in part.columns if column.name not in _HIS]
    return replace(part, title="Newest calls", columns=columns, leads=("All calls", view.keeping("calls")))


def _runs(view: View) -> Part:
    found = service_runs(view.store, runs_filters(view.asked), limit=_NEWEST, nested=True)
    part = runs_part(view, found)
    columns = [column for column in part.columns if column.name not in _HIS]
    return replace(part, title="Newest runs", columns=columns, leads=("All runs", view.keeping("runs")))


def _blocked(view: View) -> Part:
    found = usage_records(view.store, calls_filters(view.asked, blocked=True), limit=_NEWEST)
    part = calls.calls_part(view, found)
    columns = [column for column in part.columns if column.name in ("created_at", "what", "model")]
    return replace(
        part,
        id="blocked",
        title="Calls that budgets stopped, and why",
        columns=[*columns, Column("why", "Why", "prose")],
        rows=[{**row, "why": why_stored(call)} for row, call in zip(part.rows, found, strict=True)],
        note="The page of a call says how the budget stands now, and what lets the call pass.",
        empty="No budget stopped a call in this time.",
        leads=("All blocked calls", view.to("calls", status="blocked")),
    )
