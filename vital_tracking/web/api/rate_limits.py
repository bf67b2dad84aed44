"""How far limits of a minute are used, at `/api/v1/rate-limits`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Query, Response

from vital_tracking.queries.rate_limits import RateLimit, rate_limits
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.described import answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["plans"])

_MAX_AGE_S: Final = 30
_EXAMPLE: Final = {
    "budget_id": 7,
    "organization_id": None,
    "entity_type": "user",
    "entity_id": "u-1",
    "metric": "calls",
    "action": "block",
    "by_plan": True,
    "limit_amount": 60,
    "minutes": 35,
    "spent": 812,
    "fullest_percent": 100.00,
    "average_percent": 38.67,
    "violations": 2,
    "blocked_calls": 14,
    "last_at": "2026-11-30T12:04:31+00:00",
}


@routes.get(
    "/rate-limits",
    summary="How far limits of a minute are used, and by whom",
    responses=answering(list[RateLimit], "Those first that were met most.", [_EXAMPLE]),
    dependencies=[Depends(reads("quotas"))],
)
def list_rate_limits(
    store: Reader,
    hours: Annotated[int, Query(ge=1, le=744, description="Of the last so many hours.")] = 24,
    organization: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """By budgets with a limit of a minute, and by plans that have one; whoever asks sees his own, admins their organization's."""
    found = rate_limits(store, hours=hours, organization=organization or None, limit=limit)
    return ExactJSON(found, max_age=_MAX_AGE_S)
