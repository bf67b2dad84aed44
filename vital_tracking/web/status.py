"""Whether all is well: for load balancers in a word, for people and programs a little more."""

from __future__ import annotations

from importlib.metadata import version

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.health import database_time
from vital_tracking.web.access import Asker
from vital_tracking.web.identity import Kind
from vital_tracking.web.parts import parts
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(tags=["status"])


class Health(BaseModel):
    """That the process answers."""

    status: str = "ok"


class Organization(BaseModel):
    """An organization of whoever asks, and the role in it: `member`, `auditor` or `admin`."""

    organization_id: str
    role: str


class Status(BaseModel):
    """The version that runs, the database's time (RFC 3339), and who asks."""

    version: str
    database_time: str
    signed_in_as: str
    kind: Kind
    organizations: list[Organization]


def _example(of: dict[str, object]) -> dict[int | str, dict[str, object]]:
    return {200: {"description": "The answer.", "content": {"application/json": {"example": of}}}}


_HEALTH = _example({"status": "ok"})
_STATUS = _example(
    {
        "version": "0.1.0",
        "database_time": "2026-11-30T12:00:00+00:00",
        "signed_in_as": "ada@example.com",
        "kind": "user",
        "organizations": [{"organization_id": "acme", "role": "admin"}],
    }
)


@routes.get("/healthz", name="vital-healthz", response_model=Health, responses=_HEALTH)
@routes.get("/api/v1/healthz", name="vital-api-healthz", response_model=Health, responses=_HEALTH)
async def healthz() -> Response:
    """Whether the process answers; the database is not asked. Needs no token."""
    return ExactJSON({"status": "ok"}, headers={"Cache-Control": "no-store"})


@routes.get("/api/v1/status", name="vital-status", response_model=Status, responses=_STATUS)
async def status(request: Request, who: Asker) -> Response:
    """Whether the database answers, and who asks: what a token stands for."""
    with_parts = parts(request)
    time = await with_parts.in_store(database_time)
    organizations = [
        {"organization_id": one.organization_id, "role": one.role} for one in await with_parts.memberships(who)
    ]
    return ExactJSON(
        {
            "version": version("vital-tracking"),
            "database_time": time,
            "signed_in_as": who.name,
            "kind": who.kind.value,
            "organizations": organizations,
        },
        headers={"Cache-Control": "no-store"},
    )
