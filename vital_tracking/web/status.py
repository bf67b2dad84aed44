"""Whether all is well: for load balancers in a word, for people and programs a little more."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.check import Check
from vital_tracking.queries.health import database_time, examine_store
from vital_tracking.queries.health_own import examine_own
from vital_tracking.stores import Store
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.described import answering
from vital_tracking.web.identity import Identity, Kind
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


_HEALTH = answering(Health, "The answer.", {"status": "ok"})
_STATUS = answering(
    Status,
    "The answer.",
    {
        "version": "0.1.0",
        "database_time": "2026-11-30T12:00:00+00:00",
        "signed_in_as": "ada@example.com",
        "kind": "user",
        "organizations": [{"organization_id": "acme", "role": "admin"}],
    },
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


class Checked(BaseModel):
    """A check: how it came out, what was found, and what to do where there is something to do."""

    state: Literal["ok", "warn", "fail"]
    what: str
    fix: str | None


_CHECKS = [
    {"state": "ok", "what": "every call has a price", "fix": None},
    {
        "state": "warn",
        "what": "2 days of calls not summed up: reports leave them out",
        "fix": "Run: vital-tracking backfill",
    },
]


def checks_for(who: Identity, store: Store) -> list[Check]:
    """The checks that are for somebody, those that ask for something first: the installation's for operators, else their own."""
    found = examine_store(store) if who.is_operator else examine_own(store)
    return sorted(found, key=lambda check: ("fail", "warn", "ok").index(check.state))


@routes.get(
    "/api/v1/status/checks",
    name="vital-checks",
    summary="What works, what does not, and how to mend it",
    responses=answering(list[Checked], "The checks.", _CHECKS),
    dependencies=[Depends(reads("status"))],
)
def checks(who: Asker, store: Reader) -> Response:
    """What `vital-tracking doctor` checks, for operators; for whoever is signed in what concerns them. The worst come first."""
    found = [{"state": one.state, "what": one.what, "fix": one.fix} for one in checks_for(who, store)]
    return ExactJSON(found, headers={"Cache-Control": "no-store"})
