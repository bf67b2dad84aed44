"""Reports that are kept by name: what the forms of the page `explore` do."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries.saved_reports import remove_report, save_report
from vital_tracking.web.access import Reader
from vital_tracking.web.asked import PARAMETERS
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router

routes = page_router()

_MOST: Final = 200

Name = Annotated[str, Form(min_length=1, max_length=120, pattern=r"\S")]


@routes.post("/explore/save")
def save(request: Request, store: Reader, name: Name, query: Annotated[str, Form(max_length=4000)]) -> Response:
    """Keep what the page is asked."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST)
    except ValueError:
        raise _unusable(f"It must be the query of the page's address, with at most {_MOST} parameters.") from None
    for parameter, _ in pairs:
        if parameter not in PARAMETERS and not parameter.startswith("metadata."):
            raise _unusable("It names a parameter that the page does not know.")
    if "\x00" in query + name:
        raise _unusable("It holds a character that no name has.")
    save_report(store, name, pairs)
    return RedirectResponse(f"{home(request)}explore?{query}", 303)


@routes.post("/explore/forget")
def forget(request: Request, store: Reader, name: Name) -> Response:
    """Remove a report."""
    remove_report(store, name)
    return RedirectResponse(f"{home(request)}explore", 303)


def _unusable(why: str) -> Problem:
    return Problem(
        422, "invalid-request", "The report cannot be kept", detail=why, hint="Open explore and save it there."
    )
