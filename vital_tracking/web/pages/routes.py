"""The addresses of the pages."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries.calls import call_of
from vital_tracking.queries.runs import RunUnknown, run_tree, runs_version
from vital_tracking.web.access import Asker, Reader, reads, refreshes
from vital_tracking.web.asked import AskedParameters, RunsAsked
from vital_tracking.web.cookies import cookie_lines
from vital_tracking.web.csv import csv_response
from vital_tracking.web.listed import no_such_run
from vital_tracking.web.pages import calls, explorer, overview, runs, usage
from vital_tracking.web.pages.frame import THEME, THEMES, answer
from vital_tracking.web.parts import parts
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.same_origin import safe_next
from vital_tracking.web.view import View

routes = page_router()

_A_YEAR_S: Final = 31_536_000


@routes.get("/", name="vital-overview", dependencies=[Depends(refreshes), Depends(reads("overview"))])
@routes.get("/admin/usage-analytics", dependencies=[Depends(refreshes), Depends(reads("overview"))])
@routes.get("/admin/system/usage-analytics", dependencies=[Depends(refreshes), Depends(reads("overview"))])
def show_overview(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What is spent, on what, and where the month ends."""
    return answer(request, who, store, asked, overview.page, of_usage=True)


@routes.get("/admin/usage-analytics/export", dependencies=[Depends(reads("calls"))])
def export(request: Request, who: Asker, asked: AskedParameters) -> Response:
    """To the CSV of the calls that were asked for."""
    del who
    to = f"{home(request).rstrip('/')}/calls?{asked.query(part='all', format='csv')}"
    return RedirectResponse(to, 303, headers={"Cache-Control": "no-store"})


@routes.get("/explore", dependencies=[Depends(reads("explore"))])
def show_explorer(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Any measures by any two dimensions."""
    channels = parts(request).channels if who.is_operator else ()
    return answer(request, who, store, asked, lambda view: explorer.page(view, request.query_params, channels))


@routes.get("/calls", dependencies=[Depends(reads("calls"))])
def show_calls(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """The calls that were asked for, or all of them as CSV."""
    if (sent := calls.sent_form(request, "calls")) is not None:
        return sent
    if request.query_params.get("format") == "csv" and request.query_params.get("part") == "all":
        view = View(store, asked, home(request).rstrip("/"))
        return csv_response(calls.all_as_csv(view, request.query_params), "calls.csv")
    return answer(request, who, store, asked, lambda view: calls.page(view, request.query_params), of_usage=True)


@routes.get("/calls/{call_id}", dependencies=[Depends(reads("calls"))])
def show_call(request: Request, who: Asker, store: Reader, asked: AskedParameters, call_id: UUID) -> Response:
    """One call."""
    found = call_of(store, call_id)
    if found is None:
        raise Problem(
            404, "no-such-call", "There is no such call, or none that you may see", hint="Find it among the calls."
        )
    return answer(request, who, store, asked, lambda view: calls.one(view, call_id, found))


@routes.get("/runs", dependencies=[Depends(refreshes), Depends(reads("runs"))])
def show_runs(request: Request, who: Asker, store: Reader, asked: RunsAsked) -> Response:
    """The newest runs."""
    listed = runs.listed(asked, request.query_params)
    version = runs_version(store, **listed)
    return answer(request, who, store, asked, lambda view: runs.page(view, listed), of_usage=True, version=version)


@routes.get("/runs/{run_id:path}", dependencies=[Depends(reads("runs"))])
def show_run(request: Request, who: Asker, store: Reader, asked: AskedParameters, run_id: str) -> Response:
    """The tree of a run."""
    try:
        tree = run_tree(store, run_id)
    except RunUnknown as unknown:
        raise no_such_run(unknown) from None
    return answer(request, who, store, asked, lambda view: runs.tree_page(view, tree))


@routes.post("/theme")
def choose_theme(
    request: Request, who: Asker, theme: Annotated[str, Form()], quiet: Annotated[str, Form()] = ""
) -> Response:
    """Light or dark by hand, kept in a cookie."""
    del who
    if theme not in THEMES:
        raise Problem(422, "no-such-theme", "There is no such theme", hint="Choose light or dark.")
    back = urlsplit(request.headers.get("referer", ""))
    ours = back.netloc == request.url.netloc
    where = safe_next(f"{back.path}{'?' * bool(back.query)}{back.query}", home(request)) if ours else home(request)
    response = Response(status_code=204) if quiet else RedirectResponse(where, 303)
    for line in cookie_lines(THEME, theme, path=home(request), secure=request.url.scheme == "https", max_age=_A_YEAR_S):
        response.headers.append("Set-Cookie", line)
    return response


def _subject(name: str) -> None:
    @routes.get(f"/{name}", dependencies=[Depends(refreshes), Depends(reads(name))])
    def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
        return answer(request, who, store, asked, lambda view: usage.page(view, name), of_usage=True)


for _name in usage.SUBJECTS:
    if _name not in ("users", "agents"):  # they have modules of their own
        _subject(_name)
