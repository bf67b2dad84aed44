"""Reports that are kept by name, and sent: what the forms of the page `explore` do."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries.report_schedules import schedule_report, unschedule_report
from vital_tracking.queries.saved_reports import Every, SavedReport, remove_report, save_report, saved_reports
from vital_tracking.stores.protocol import Store
from vital_tracking.web.access import Reader, operator
from vital_tracking.web.asked import PARAMETERS, ZoneName
from vital_tracking.web.parts import parts
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


@routes.post("/explore/schedule", dependencies=[Depends(operator)])
def schedule(
    request: Request,
    store: Reader,
    name: Name,
    channel: Annotated[str, Form(max_length=40)],
    every: Annotated[Every | Literal["never"], Form()] = "week",
    weekday: Annotated[int, Form(ge=1, le=7)] = 1,
    day: Annotated[int, Form(ge=1, le=31)] = 1,
    hour: Annotated[int, Form(ge=0, le=23)] = 8,
    timezone: Annotated[ZoneName, Form()] = "UTC",
) -> Response:
    """Have a report of one's own sent to a channel from now on, or never again: channels are the installation's."""
    report = _saved(store, name)
    if every == "never":
        unschedule_report(store, report.id)
        return RedirectResponse(f"{home(request)}explore", 303)
    if channel not in parts(request).channels:
        raise Problem(
            422,
            "invalid-request",
            "The report cannot be sent there",
            detail="This machine has no channel of that name.",
            hint="Name it in VITAL_REPORT_CHANNELS, and start the dashboard again.",
        )
    schedule_report(store, report.id, channel, every=every, weekday=weekday, day=day, hour=hour, timezone=timezone)
    return RedirectResponse(f"{home(request)}explore", 303)


def _saved(store: Store, name: str) -> SavedReport:
    """The report of that name of whoever asks."""
    for report in saved_reports(store):
        if report.name == name:
            return report
    raise Problem(404, "no-such-report", "There is no such report", hint="Save it first, on the page explore.")


def _unusable(why: str) -> Problem:
    return Problem(
        422, "invalid-request", "The report cannot be kept", detail=why, hint="Open explore and save it there."
    )
