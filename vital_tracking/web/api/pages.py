"""Answers that are a page of a list: how long they are, where they go on, and the `Link` to the next one (RFC 8288)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias, TypeVar
from urllib.parse import urlencode

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.web.responses import ExactJSON

MOST: Final = 1_000
_MAX_AGE_S: Final = 30

Limit: TypeAlias = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]
After: TypeAlias = Annotated[
    str | None,
    Query(
        max_length=600,
        description="Where the page before ends: take it from its Link.",
        json_schema_extra={"format": "vital-place"},
    ),
]

Row = TypeVar("Row")


def page_of(
    request: Request,
    rows: Sequence[Row],
    limit: int,
    place_of: Callable[[Row], str],
    *,
    parameter: str = "after",
    max_age: int | None = _MAX_AGE_S,
) -> Response:
    """Rows as an answer; where there may be more its `Link` leads to them by `parameter`, with everything else that was asked."""
    response = ExactJSON(rows, max_age=max_age)
    if len(rows) == limit:
        asked = [(name, value) for name, value in request.query_params.multi_items() if name != parameter]
        query = urlencode([*asked, (parameter, place_of(rows[-1]))])
        response.headers["Link"] = f'<{request.url_for(request.scope["route"].name).path}?{query}>; rel="next"'
    return response
