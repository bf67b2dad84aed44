"""Forgetting a user from the page: first what goes and what stays, then, once an admin has confirmed it, for good.

The database decides who may, and audits it, refused tries too.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.forget import (
    ForgetRefused,
    Forgotten,
    UserTraces,
    any_traces,
    forget_user,
    user_traces,
    views_forget,
)
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores.protocol import Store
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import Asked, AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages.common import administered
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.problems import Problem
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_BATCHES: Final = 20
"""How many batches a request may do; then the page asks to go on."""

_MOST: Final = 20
"""In how many organizations the page looks for a user at once."""

_STAYS: Final = (
    ("What it cost", "every sum, every report and every other budget stays as it is, to the last decimal"),
    ("That it was done", "a line of the audit, with a digest in the place of the user's id"),
    ("What is not in this database", "calls that wait in the spool of a process, archives, LangSmith"),
    ("Materialized views", "only operators read them; they name the user until they are refreshed"),
)
_COLUMNS: Final = (Column("what", "What"), Column("becomes", "What becomes of it", "prose"))

Id = Annotated[str, Form(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
OptionalId = Annotated[str, Form(max_length=255, pattern=r"^[^\x00]*$")]


@routes.get("/users/forget", name="vital-forget-user", dependencies=[Depends(reads("users"))])
def ask(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What would go and what would stay."""
    user = asked.only.get("user")
    if user is None:
        raise Problem(404, "no-such-user", "Whom?", hint="Choose a user on the page of users.")
    return _confirmation(request, who, store, asked, user, asked.only.get("organization"))


@routes.post("/users/forget")
def forget(
    request: Request, who: Asker, store: Reader, asked: AskedParameters, user: Id, organization: OptionalId = ""
) -> Response:
    """Forget the user in an organization; an operator, without one, in all."""
    try:
        done = forget_user(store, user, organization=organization or None, batches=_BATCHES)
    except ForgetRefused as refused:
        status = 403 if refused.sqlstate == "42501" else 409
        return _confirmation(request, who, store, asked, user, organization or None, str(refused), status)
    if not done["done"]:
        so_far = f"{counted(done['total']['rows'], 'call')} are forgotten so far. There are more: confirm it once more."
        return _confirmation(request, who, store, asked, user, organization or None, so_far)
    fresh = views_forget(store)
    return answer(request, who, store, asked, lambda view: _done(view, organization, done, fresh))


def _confirmation(
    request: Request,
    who: Identity,
    store: Store,
    asked: Asked,
    user: str,
    organization: str | None,
    message: str = "",
    status: int = 200,
) -> Response:
    may = administered(store, who)
    wanted: list[str | None] = [organization]
    if organization is None and may is not None:
        wanted = list(may[:_MOST]) or [None]
    there = [(one, user_traces(store, user, organization=one)) for one in wanted]
    found = [(one, traces) for one, traces in there if any_traces(traces)] or there[:1]
    mine = [one for one, _ in found if may is None or one in may]

    def build(view: View) -> Page:
        return Page(
            "users",
            f"Forget {user}?",
            "For good: nobody can undo it. Calls are merged by the minute without the person, and what was the person's own is "
            "removed.",
            parts=[
                *(_goes(number, one if one in mine else None, traces) for number, (one, traces) in enumerate(found)),
                Part("stays", "What stays", _COLUMNS, _rows(_STAYS), wide=True, sortable=False),
            ],
            crumbs=[("Users", view.path("users")), (user, view.to("users", user=user))],
            template="forget.html",
            of_time=False,
            extra={
                "user": user,
                "organizations": mine,
                "message": message,
            },
        )

    response = answer(request, who, store, asked, build)
    response.status_code = status
    return response


def _goes(number: int, organization: str | None, traces: UserTraces) -> Part:
    unpriced = f", and {traces['unpriced_calls']:,} without a price" if traces["unpriced_calls"] else ""
    rows = (
        (
            counted(traces["calls"], "call"),
            f"of {usd(traces['total_cost'])}{unpriced}: without user, session, runs, tags and metadata, merged by the minute",
        ),
        (counted(traces["runs"], "run"), "without user, session and names of conversations, begun at a whole minute"),
        (
            f"{counted(traces['events'], 'event')}, {counted(traces['costs'], 'other cost')}, "
            f"{counted(traces['executions'], 'execution')}",
            "without user, session, address and details, at a whole minute",
        ),
        (counted(traces["windows"], "window"), "of budgets on the user: removed with their alerts and limits"),
        (counted(traces["memberships"], "membership"), "removed"),
        (f"sums of {counted(traces['days'], 'day')}", "move to nobody's name"),
    )
    return Part(
        f"goes-{number}",
        f"What goes{f' in {organization}' if organization else ''}",
        _COLUMNS,
        _rows(rows) if any_traces(traces) else [],
        empty="There is nothing of this user that you may see. Ids are compared letter by letter.",
        wide=True,
        sortable=False,
    )


def _rows(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"what": what, "becomes": becomes} for what, becomes in pairs]


def _done(view: View, organization: str, done: Forgotten, fresh: bool) -> Page:
    total = done["total"]
    where = f" in {organization}" if organization else ""
    views = "" if fresh else " The materialized views name the user until: vital-tracking refresh"
    return Page(
        "users",
        "Forgotten",
        f"{counted(total['calls'], 'call')} became {counted(total['merged'], 'row')} of nobody"
        f"{where}; {counted(total['runs'], 'run')}, {counted(total['windows'], 'window')} "
        f"and {counted(total['memberships'], 'membership')} were cleared. The audit knows it as {done['digest']}.{views}",
        crumbs=[("Users", view.path("users"))],
        of_time=False,
    )
