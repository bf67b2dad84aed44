"""Any measures of calls by any two dimensions, at `/api/v1/explore`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import BaseModel
from starlette.responses import Response

from vital_tracking.queries.catalogue import MEASURES
from vital_tracking.queries.explore import DIMENSIONS, Explored, explore
from vital_tracking.queries.names import with_names
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.examples import answers, csv_answers
from vital_tracking.web.asked import Asked, AskedParameters
from vital_tracking.web.csv import CsvFile, csv_lines, csv_response
from vital_tracking.web.problems import invalid
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["explore"], dependencies=[Depends(reads("explore"))])

EXPLORED: Final = (*(name for name in MEASURES if name not in ("share", "last_day", "services")), "active_users")
"""The measures that can be asked for."""

_MAX_AGE_S: Final = 30
_MOST_ROWS: Final = 10_000
_OF_CSV: Final = 100_000
_DIMENSION = {"pattern": f"^({'|'.join(DIMENSIONS)}|metadata[.][^\\x00]{{1,71}})$"}


class Exploration(BaseModel):
    """Groups with their dimensions and measures. `groups` is how many there are, `total` counts them all, `names` has the
    newest names of agents and steps, and those of users and organizations; `source` is where it comes from: the calls, or
    sums of them; calls before `copied_until` from a copy. It is what there was at `fresh_at`.
    """

    since: str
    until: str
    timezone: str
    by: list[str]
    measures: list[str]
    source: str
    fresh_at: str
    copied_until: str | None
    groups: int
    total: dict[str, Any]
    rows: list[dict[str, Any]]
    names: dict[str, dict[str, str]]


_Measures = Annotated[
    list[str],
    Query(
        alias="measure",
        max_length=len(EXPLORED),
        description=f"What is told of each group, the first one orders them: {', '.join(EXPLORED)}.",
        json_schema_extra={"items": {"type": "string", "enum": list(EXPLORED)}, "minItems": 1},
    ),
]
_By = Annotated[
    str | None,
    Query(
        description=f"The dimension of groups: {', '.join(DIMENSIONS)} or metadata.KEY; else the steps of `grain`.",
        max_length=80,
        **_DIMENSION,
    ),
]
_Then = Annotated[str | None, Query(description="A second dimension.", max_length=80, **_DIMENSION)]


def _explored(
    store: Reader, asked: Asked, by: str | None, then: str | None, measures: list[str], rows: int
) -> tuple[list[str], Explored]:
    unknown = [name for name in measures if name not in EXPLORED]
    if unknown or not measures:
        raise invalid([("query", "measure", f"is none of {', '.join(EXPLORED)}")])
    dimensions = list(dict.fromkeys(one for one in (by or asked.grain, then) if one))
    order_by = next((name for name in measures if name != "active_users"), "calls")
    found = explore(
        store, asked.period, by=dimensions, filters=asked.filters, measures=measures, order_by=order_by, rows=rows
    )
    return dimensions, with_names(store, found)


@routes.get("/explore", summary="Any measures by any two dimensions", responses=answers(Exploration, "explore"))
def explored(
    store: Reader,
    asked: AskedParameters,
    measure: _Measures = ["total_cost"],  # noqa: B006 - FastAPI copies it
    by: _By = None,
    then: _Then = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_ROWS, description="How many groups.")] = 1_000,
) -> Response:
    """Times come in their order, all else by the first measure, the greatest first."""
    dimensions, found = _explored(store, asked, by, then, measure, limit)
    return ExactJSON(
        {
            "since": found.since,
            "until": found.until,
            "timezone": found.timezone,
            "by": dimensions,
            "measures": measure,
            "source": found.source,
            "fresh_at": found.fresh_at,
            "copied_until": found.copied_until,
            "groups": found.groups,
            "total": found.total,
            "rows": found.rows,
            "names": found.names,
        },
        max_age=_MAX_AGE_S,
    )


@routes.get("/explore.csv", summary="The same as CSV", response_class=CsvFile, responses=csv_answers("explore"))
def explored_csv(
    store: Reader,
    asked: AskedParameters,
    measure: _Measures = ["total_cost"],  # noqa: B006 - FastAPI copies it
    by: _By = None,
    then: _Then = None,
) -> Response:
    """Up to 100,000 groups, a line each."""
    dimensions, found = _explored(store, asked, by, then, measure, _OF_CSV)
    columns = [*dimensions, *measure]

    def rows() -> Iterator[list[Any]]:
        for row in found.rows:
            yield [row[name] for name in columns]

    return csv_response(csv_lines(columns, rows()), "explore.csv")
