"""The addresses of the pages."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.cookies import cookie_lines
from vital_tracking.web.pages import explorer, overview, usage
from vital_tracking.web.pages.frame import THEME, THEMES, answer
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router

routes = page_router()

_A_YEAR_S: Final = 31_536_000


@routes.get("/", name="vital-overview", dependencies=[Depends(reads("overview"))])
@routes.get("/admin/usage-analytics", dependencies=[Depends(reads("overview"))])
@routes.get("/admin/system/usage-analytics", dependencies=[Depends(reads("overview"))])
def show_overview(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What is spent, on what, and where the month ends."""
    return answer(request, who, store, asked, overview.page)


@routes.get("/explore", dependencies=[Depends(reads("explore"))])
def show_explorer(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Any measures by any two dimensions."""
    return answer(request, who, store, asked, lambda view: explorer.page(view, request.query_params))


@routes.post("/theme")
def choose_theme(
    request: Request, who: Asker, theme: Annotated[str, Form()], quiet: Annotated[str, Form()] = ""
) -> Response:
    """Light or dark by hand, kept in a cookie."""
    del who
    if theme not in THEMES:
        raise Problem(422, "no-such-theme", "There is no such theme", hint="Choose light or dark.")
    back = urlsplit(request.headers.get("referer", ""))
    ours = back.netloc == request.url.netloc and back.path.startswith("/") and not back.path.startswith("//")
    where = f"{back.path}{'?' * bool(back.query)}{back.query}" if ours else home(request)
    response = Response(status_code=204) if quiet else RedirectResponse(where, 303)
    for line in cookie_lines(THEME, theme, path=home(request), secure=request.url.scheme == "https", max_age=_A_YEAR_S):
        response.headers.append("Set-Cookie", line)
    return response


def _subject(name: str) -> None:
    @routes.get(f"/{name}", dependencies=[Depends(reads(name))])
    def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
        return answer(request, who, store, asked, lambda view: usage.page(view, name))


for _name in usage.SUBJECTS:
    _subject(_name)
