"""Service runs, at `/api/v1/runs`: a page of them at a time, and the tree of what one cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.runs import MOST_CALLS, RunRow, RunTree, RunUnknown, run_place, run_tree, service_runs
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.examples import answers
from vital_tracking.web.api.pages import After, Limit, page_of
from vital_tracking.web.asked import RunsAsked
from vital_tracking.web.listed import checked_place, no_such_run, runs_filters
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["runs"], dependencies=[Depends(reads("runs"))])

_MAX_AGE_S = 30


@routes.get("/runs", summary="Service runs, the newest first", responses=answers(list[RunRow], "runs", paged=True))
def runs(
    request: Request,
    store: Reader,
    asked: RunsAsked,
    nested: Annotated[bool, Query(description="Also runs inside of others.")] = False,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Conversation turns, panels, workflows and solutions, each with what all calls in it come to."""
    found = service_runs(store, runs_filters(asked), limit=limit, after=checked_place(after), nested=nested)
    return page_of(request, found, limit, run_place)


@routes.get(
    "/runs/{run_id:path}",
    summary="What a run cost, down to the single call",
    responses=answers(RunTree, "run", missing="There is no such run."),
)
def run(
    store: Reader,
    run_id: Annotated[str, Path(max_length=512, pattern=r"^[^\x00]+$", description="Its id.")],
    max_calls: Annotated[int, Query(ge=1, le=10_000, description="How many calls are told one by one.")] = MOST_CALLS,
) -> Response:
    """The run as a tree: runs inside it, seats, steps, nodes, attempts and calls. The leaves add up to the root exactly."""
    try:
        tree = run_tree(store, run_id, max_calls=max_calls)
    except RunUnknown as unknown:
        raise no_such_run(unknown) from None
    return ExactJSON(tree, max_age=_MAX_AGE_S)
