"""Members of organizations, at `/api/v1/members`: the database decides who may see and change them, and audits it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from vital_tracking.queries.forget import Forgotten, forget_user
from vital_tracking.queries.members import (
    Member,
    MemberChange,
    add_member,
    change_member,
    members,
    name_member,
    remove_member,
)
from vital_tracking.queries.names import OrganizationName, name_organization
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.described import answering, described
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["house"])

Role = Literal["member", "auditor", "admin"]
Id = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*\S[^\x00]*$")]

_TEXT: Final = r"^[^\x00]*$"
_ADDRESS: Final = r"^([!-?A-~]+@[!-?A-~]+)?$"
_MEMBER: Final = {
    "organization_id": "acme",
    "user_id": "u-1",
    "name": "Maria Keller",
    "email": "maria@acme.example",
    "role": "member",
    "created_at": "2026-11-30T12:00:00+00:00",
}
_CHANGE: Final = {"organization_id": "acme", "user_id": "u-1", "before": "member", "after": "admin"}
_FORGOTTEN: Final = {
    "done": True,
    "rows": 41,
    "runs": 7,
    "total": {"rows": 41, "calls": 41, "merged": 12, "runs": 7, "windows": 2, "memberships": 1},
    "digest": "sha256:9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
}
_BATCHES: Final = 4
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    404: described(
        Problem(
            404,
            "not-found",
            "There is none",
            detail="Nothing has this name.",
            hint="See whether it is spelled right.",
        ),
        "Nobody of this name is a member.",
    ),
    409: described(
        Problem(
            409,
            "in-use",
            "Something stands on it",
            detail="It cannot be changed as it is now.",
            hint="Change what needs it first.",
        ),
        "A member already, or the last admin, who stays one until there is another.",
    ),
}


class NewRole(BaseModel):
    """Who is to have which role in an organization."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"organization_id": "acme", "user_id": "u-1", "role": "admin"}},
    )

    organization_id: Id
    user_id: Id
    role: Role = "member"


class NewMember(NewRole):
    """Somebody new in an organization, and what he is called where Supabase Auth does not know it."""

    name: Annotated[str, Field(max_length=120, pattern=_TEXT)] = ""
    email: Annotated[str, Field(max_length=254, pattern=_ADDRESS)] = ""


class MemberName(BaseModel):
    """What a member is called: what is left out stays, an empty text takes it away."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"organization_id": "acme", "user_id": "u-1", "name": "Maria Keller"}},
    )

    organization_id: Id
    user_id: Id
    name: Annotated[str | None, Field(max_length=120, pattern=_TEXT)] = None
    email: Annotated[str | None, Field(max_length=254, pattern=_ADDRESS)] = None


class NewName(BaseModel):
    """What an organization is called; an empty text takes the name away."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"organization_id": "acme", "name": "Acme Clinics"}}
    )

    organization_id: Id
    name: Annotated[str, Field(max_length=120, pattern=_TEXT)]


class Whom(BaseModel):
    """Who is to be forgotten in an organization; operators leave it out for all organizations."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"organization_id": "acme", "user_id": "u-1"}}
    )

    user_id: Id
    organization_id: Id | None = None


@routes.get(
    "/members",
    name="vital-api-members",
    summary="The members that you may see",
    responses=answering(list[Member], "The members.", [_MEMBER]),
    dependencies=[Depends(reads("members"))],
)
def list_members(
    store: Reader,
    organization: Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many members.")] = 1000,
) -> Response:
    """Members by organization and role: admins and auditors see their organization's, everybody their own memberships."""
    return ExactJSON(members(store, organization=organization, limit=limit))


@routes.post(
    "/members",
    name="vital-api-add-member",
    status_code=201,
    summary="Make somebody a member",
    responses={**answering(MemberChange, "The change.", {**_CHANGE, "before": None}, status=201), **_REFUSALS},
)
def add(store: Reader, wanted: NewMember) -> Response:
    """For admins of that organization. Leaves a line in the audit, also where it is refused."""
    called = {"name": wanted.name, "email": wanted.email}
    return ExactJSON(add_member(store, wanted.organization_id, wanted.user_id, wanted.role, **called), 201)


@routes.patch(
    "/members",
    name="vital-api-change-member",
    summary="Give a member another role",
    responses={**answering(MemberChange, "The change.", _CHANGE), **_REFUSALS},
)
def change(store: Reader, wanted: NewRole) -> Response:
    """For admins of that organization, whose last admin stays one. Leaves a line in the audit, also where it is refused."""
    return ExactJSON(change_member(store, wanted.organization_id, wanted.user_id, wanted.role))


@routes.delete(
    "/members",
    name="vital-api-remove-member",
    summary="Remove a member",
    responses={**answering(MemberChange, "The change.", {**_CHANGE, "after": None}), **_REFUSALS},
)
def remove(
    store: Reader,
    organization: Annotated[Id, Query()],
    user: Annotated[Id, Query()],
) -> Response:
    """For admins of that organization, whose last admin stays. The calls of whoever is removed stay, too."""
    return ExactJSON(remove_member(store, organization, user))


@routes.put(
    "/members/name",
    name="vital-api-name-member",
    summary="Say what a member is called",
    responses={**answering(MemberChange, "The member, whose role stays.", {**_CHANGE, "before": "admin"}), **_REFUSALS},
)
def name_one(store: Reader, wanted: MemberName) -> Response:
    """For admins of that organization. Where Supabase Auth knows the user, that counts. Leaves a line in the audit."""
    called = {"name": wanted.name, "email": wanted.email}
    return ExactJSON(name_member(store, wanted.organization_id, wanted.user_id, **called))


@routes.put(
    "/organizations/name",
    name="vital-api-name-organization",
    summary="Say what an organization is called",
    responses=answering(OrganizationName, "The name.", {"organization_id": "acme", "name": "Acme Clinics"}),
)
def name_whole(store: Reader, wanted: NewName) -> Response:
    """For admins of that organization; its id stays what everything else names. Leaves a line in the audit."""
    return ExactJSON(name_organization(store, wanted.organization_id, wanted.name))


@routes.post(
    "/members/forget",
    name="vital-api-forget-user",
    summary="Forget a user for good",
    responses={**answering(Forgotten, "What is forgotten so far.", _FORGOTTEN), **_REFUSALS},
)
def forget(store: Reader, wanted: Whom) -> Response:
    """For admins of that organization. All sums stay, the person goes: nobody can undo it. Up to 2,000 calls at a time: ask again
    until the answer is `done`. Leaves a line in the audit, also where it is refused.
    """
    return ExactJSON(forget_user(store, wanted.user_id, organization=wanted.organization_id, batches=_BATCHES))
