"""Members of organizations, at `/api/v1/members`: the database decides who may see and change them, and audits it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from vital_tracking.queries.members import Member, MemberChange, add_member, change_member, members, remove_member
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.described import answering, described
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["house"])

Role = Literal["member", "auditor", "admin"]
Id = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*\S[^\x00]*$")]

_MEMBER: Final = {
    "organization_id": "acme",
    "user_id": "u-1",
    "role": "member",
    "created_at": "2026-11-30T12:00:00+00:00",
}
_CHANGE: Final = {"organization_id": "acme", "user_id": "u-1", "before": "member", "after": "admin"}
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
def add(store: Reader, wanted: NewRole) -> Response:
    """For admins of that organization. Leaves a line in the audit, also where it is refused."""
    return ExactJSON(add_member(store, wanted.organization_id, wanted.user_id, wanted.role), 201)


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
