"""Advice and what became of it, at `/api/v1/recommendations`: listed by status, decided about, looked for again."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from vital_tracking.advice.advise import DAYS
from vital_tracking.advice.report import CSV_COLUMNS, Advised, Optimization, advised, flat, optimization
from vital_tracking.queries import recommendations as queries
from vital_tracking.queries.recommendations import SavedRecommendation
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.advised import look_again
from vital_tracking.web.api.examples import EXAMPLES
from vital_tracking.web.asked import MOST_DAYS, ZoneName
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering, described
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/recommendations", tags=["watch"])

_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="Its id: the same for the same advice.")]
_Organization = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="Only this one's.")]
_Status = Annotated[Literal["open", "taken", "dismissed"] | None, Query(description="Only those with this status.")]
_Limit = Annotated[int, Query(ge=1, le=queries.MOST, description="How many, the largest saving first.")]

_MAX_AGE_S: Final = 10
_ONE: Final = EXAMPLES["optimization"]["recommendations"][0]
_MISSING: Final[dict[int | str, dict[str, Any]]] = {
    404: described(
        Problem(
            404,
            "not-found",
            "There is none",
            detail="Nothing has this id.",
            hint="See what there is: GET /recommendations",
        ),
        "There is no such recommendation that you may see.",
    )
}


class Decided(BaseModel):
    """What is decided about a recommendation, and why, for whoever looks later."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"status": "dismissed", "reason": "Quality counts here."}},
    )

    status: Literal["open", "taken", "dismissed"]
    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] = ""


class LookAgain(BaseModel):
    """For whom advice is looked for: an organization, or all together (null), which is for operators."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"organization_id": "acme", "days": 30}})

    organization_id: Annotated[str | None, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")] = None
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = DAYS
    timezone: ZoneName = "UTC"


@routes.get(
    "",
    name="vital-api-recommendations",
    summary="Advice that was given, and what became of it",
    responses=answering(list[Advised], "Recommendations, what is given now first, then by saving.", [_ONE]),
    dependencies=[Depends(reads("advice"))],
)
def show_recommendations(
    request: Request, store: Reader, organization: _Organization = None, status: _Status = None, limit: _Limit = 500
) -> Response:
    """Open, taken and dismissed ones; of those that were taken what was promised, and after 30 days what they really saved."""
    found = queries.saved_recommendations(store, organization=organization or None, status=status, limit=limit)
    root = home(request).rstrip("/")
    return ExactJSON([advised(one, root=root) for one in found], max_age=_MAX_AGE_S)


@routes.get(
    ".csv",
    name="vital-api-recommendations-csv",
    summary="Advice that was given, as CSV",
    response_class=Response,
    responses=csv_answering("id,organization_id,type\r\n5f2a0c1d2e3f4a5b,acme,model_switch\r\n"),
    dependencies=[Depends(reads("advice"))],
)
def recommendations_as_csv(store: Reader, organization: _Organization = None, status: _Status = None) -> Response:
    """At most a thousand; no spreadsheet runs a cell as a formula."""
    found = queries.saved_recommendations(store, organization=organization or None, status=status, limit=queries.MOST)
    rows = ([row[name] for name in CSV_COLUMNS] for row in map(flat, found))
    return csv_response(csv_lines(CSV_COLUMNS, rows), "recommendations.csv")


@routes.post(
    "",
    name="vital-api-look-for-advice",
    summary="Look for advice again",
    responses=answering(Optimization, "What was found.", EXAMPLES["optimization"]),
)
def look(request: Request, store: Reader, wanted: LookAgain) -> Response:
    """What is found is saved: figures are renewed, and what was decided stays. For admins of that organization and operators."""
    found = look_again(request, store, wanted.organization_id, days=wanted.days, timezone=wanted.timezone)
    return ExactJSON(optimization(found, root=home(request).rstrip("/")))


@routes.get(
    "/{recommendation_id}",
    name="vital-api-recommendation",
    summary="One recommendation",
    responses={**answering(Advised, "The recommendation.", _ONE), **_MISSING},
    dependencies=[Depends(reads("advice"))],
)
def show_recommendation(request: Request, store: Reader, recommendation_id: _Id) -> Response:
    """With the calls it rests on, its assumptions, what could go wrong, and how to try it."""
    return _one(request, queries.saved_recommendation(store, recommendation_id), max_age=_MAX_AGE_S)


@routes.post(
    "/{recommendation_id}",
    name="vital-api-decide-recommendation",
    summary="Take a recommendation, dismiss it, or open it again",
    responses={**answering(Advised, "The recommendation as it then is.", _ONE), **_MISSING},
)
def decide(request: Request, store: Reader, recommendation_id: _Id, decided: Decided) -> Response:
    """`taken` keeps what is promised now, and has it measured after 30 days. For admins of that organization and operators."""
    return _one(request, queries.decide(store, recommendation_id, decided.status, why=decided.reason))


def _one(request: Request, found: SavedRecommendation, max_age: int | None = None) -> Response:
    return ExactJSON(advised(found, root=home(request).rstrip("/")), max_age=max_age)
