"""Organizations and their members, whom admins of that organization add, change and remove; the database decides and audits."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries.members import ROLES, Member, add_member, change_member, members, remove_member
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.common import administered
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_MOST: Final = 1000
_COLOURS: Final = {"admin": "ok", "auditor": "warn", "member": "quiet"}

Id = Annotated[str, Form(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


@routes.get("/organization", name="vital-organization", dependencies=[Depends(reads("members"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Who belongs to which organization."""
    return answer(request, who, store, asked, lambda view: page(view, who))


@routes.post("/organization/members", name="vital-change-member")
def change(
    request: Request,
    who: Asker,
    store: Reader,
    organization: Id,
    user: Id,
    what: Annotated[Literal["add", "change", "remove"], Form()],
    role: Annotated[Literal["member", "auditor", "admin"], Form()] = "member",
) -> Response:
    """Add, change or remove a member, and go back to the page. What is refused is a page that says why."""
    del who
    if what == "add":
        add_member(store, organization, user, role)
    elif what == "change":
        change_member(store, organization, user, role)
    else:
        remove_member(store, organization, user)
    return RedirectResponse(f"{home(request)}organization?{urlencode({'organization': organization})}", 303)


def page(view: View, who: Identity) -> Page:
    """The members of the organizations that the reader may see, or of one, which its admins can change."""
    chosen = view.asked.only.get("organization")
    found = members(view.store, organization=chosen, limit=_MOST)
    organizations = sorted({one["organization_id"] for one in found})
    may = administered(view.store, who)
    changeable = [name for name in organizations if may is None or name in may]
    if may is None and chosen and chosen not in changeable:
        changeable.append(chosen)  # an organization begins with its first member
    return Page(
        "organization",
        chosen or "Who belongs to it?",
        _lead(found, organizations),
        cards=[
            Card(label, numbers.count(sum(one["role"] == role for one in found)))
            for role, label in (("admin", "Admins"), ("auditor", "Auditors"), ("member", "Members"))
        ],
        parts=[_part(view, found)],
        template="organization.html",
        of_time=False,
        extra={
            "administered": changeable,
            "roles": ROLES,
            "changeable": [one for one in found if one["organization_id"] in changeable],
            "any": who.is_operator and not chosen,
        },
    )


def _lead(found: list[Member], organizations: list[str]) -> str:
    if not found:
        return "You belong to no organization, as it stands now. An admin of one, or an operator, adds you."
    where = organizations[0] if len(organizations) == 1 else counted(len(organizations), "organization")
    return f"The roles that you may see of {where}, as they stand now: {counted(len(found), 'person and role')}."


def _part(view: View, found: list[Member]) -> Part:
    def calls_of(row: Row) -> str:
        return view.to("users", user=row["user_id"], organization=row["organization_id"])

    return Part(
        "members",
        "Members",
        [
            Column("organization_id", "Organization", link=view.link("organization", "organization")),
            Column("user_id", "User", link=calls_of),
            Column("shown", "Role", "flag"),
            Column("created_at", "Since (UTC)", "moment"),
        ],
        [
            {**one, "organization": one["organization_id"], "shown": (_COLOURS.get(one["role"], "quiet"), one["role"])}
            for one in found
        ],
        note="A member sees what is his own, an auditor all of the organization; an admin changes it, too.",
        empty="No member that you may see.",
        more=f"At most {_MOST:,} are shown." if len(found) == _MOST else "",
        wide=True,
    )
