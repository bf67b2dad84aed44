"""Calls, at `/api/v1/calls`: a page of them at a time, one of them, or all as CSV."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from uuid import UUID

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.calls import StoredCall, call_of, place_of, usage_records
from vital_tracking.queries.filters import Filters
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.examples import answers, csv_answers
from vital_tracking.web.api.pages import After, Limit, page_of
from vital_tracking.web.asked import AskedParameters, described_choices
from vital_tracking.web.csv import CsvFile, csv_response
from vital_tracking.web.listed import LONGEST_SEARCH, calls_as_csv, calls_filters, checked_place
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["calls"], dependencies=[Depends(reads("calls"))])

_MAX_AGE_S = 30


def _filters(
    asked: AskedParameters,
    q: Annotated[
        str,
        Query(
            max_length=LONGEST_SEARCH, pattern=r"^[^\x00]*$", description="Words that a name, an id or a tag must hold."
        ),
    ] = "",
    unpriced: Annotated[bool, Query(description="Only calls whose model has no known price.")] = False,
    blocked: Annotated[bool, Query(description="Only calls that a budget stopped.")] = False,
    hour_of_day: Annotated[
        int | None, Query(ge=0, le=23, description="Only calls begun in this hour of `timezone`.")
    ] = None,
    weekday: Annotated[int | None, Query(ge=1, le=7, description="Only calls begun on this day; 1 is Monday.")] = None,
) -> Filters:
    return calls_filters(asked, search=q, unpriced=unpriced, blocked=blocked, hour_of_day=hour_of_day, weekday=weekday)


CallFilters: TypeAlias = Annotated[Filters, Depends(_filters)]


_CHOICES = {"parameters": described_choices()}


@routes.get(
    "/calls",
    summary="Calls, the newest first",
    responses=answers(list[StoredCall], "calls", paged=True),
    openapi_extra=_CHOICES,
)
def calls(request: Request, store: Reader, filters: CallFilters, limit: Limit = 100, after: After = None) -> Response:
    """Calls for which all filters hold; the `Link` of the answer leads to the next page."""
    found = usage_records(store, filters, limit=limit, after=checked_place(after))
    return page_of(request, found, limit, place_of)


@routes.get(
    "/calls.csv",
    summary="All calls as CSV",
    response_class=CsvFile,
    responses=csv_answers("calls"),
    openapi_extra=_CHOICES,
)
def calls_csv(store: Reader, filters: CallFilters) -> Response:
    """All calls for which the filters hold, however many, with all their fields; no cell is a formula."""
    return csv_response(calls_as_csv(store, filters), "calls.csv")


@routes.get(
    "/calls/{call_id}", summary="One call", responses=answers(StoredCall, "call", missing="There is no such call.")
)
def call(store: Reader, call_id: UUID) -> Response:
    """A call with all that is known of it."""
    found = call_of(store, call_id)
    if found is None:
        raise Problem(
            404, "no-such-call", "There is no such call, or none that you may see", hint="Find it among the calls."
        )
    return ExactJSON(found, max_age=_MAX_AGE_S)
