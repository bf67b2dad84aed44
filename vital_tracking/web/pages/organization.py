"""Organizations and their members, whom admins of that organization add, change and remove; the database decides and audits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries.budgets import all_budgets, windows
from vital_tracking.queries.members import (
    ROLES,
    Member,
    add_member,
    change_member,
    members,
    name_member,
    remove_member,
)
from vital_tracking.queries.names import Names, name_organization, names_of
from vital_tracking.queries.plans import quota_status
from vital_tracking.queries.retention import Keeping, keeping
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.budgets import windows_part
from vital_tracking.web.pages.common import administered, mistyped_organization
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.pages.quotas import quotas_part
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_MOST: Final = 1000
_FULLEST: Final = 10
_COLOURS: Final = {"admin": "ok", "auditor": "warn", "member": "quiet"}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why somebody was not added, and what was sent."""

    message: str = ""
    sent: Mapping[str, str] = field(default_factory=dict)


Id = Annotated[str, Form(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Form(max_length=120, pattern=r"^[^\x00]*$")]
Email = Annotated[str, Form(max_length=254, pattern=r"^[^\x00]*$")]


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
    asked: AskedParameters,
    what: Annotated[Literal["add", "change", "name", "remove"], Form()],
    role: Annotated[Literal["member", "auditor", "admin"], Form()] = "member",
    name: Name = "",
    email: Email = "",
    new: Annotated[Literal["", "yes"], Form()] = "",
) -> Response:
    """Add, change, name or remove a member, and go back to the page. What is refused is a page that says why."""
    if what == "add" and not new and (wrong := mistyped_organization(store, who, organization)):
        sent = {"organization": organization, "user": user, "role": role, "name": name, "email": email}
        refused = Refused(f"{wrong} If it is new, mark that.", sent)
        response = answer(request, who, store, asked, lambda view: page(view, who, refused))
        response.status_code = 422
        return response
    if what == "add":
        add_member(store, organization, user, role, name=name, email=email)
    elif what == "name":
        name_member(store, organization, user, name=name, email=email)
    elif what == "change":
        change_member(store, organization, user, role)
    else:
        remove_member(store, organization, user)
    return _back(request, organization)


@routes.post("/organization/name", name="vital-name-organization")
def name_whole(request: Request, who: Asker, store: Reader, organization: Id, name: Name = "") -> Response:
    """Say what an organization is called, and go back to the page."""
    del who
    name_organization(store, organization, name)
    return _back(request, organization)


def _back(request: Request, organization: str) -> Response:
    return RedirectResponse(f"{home(request)}organization?{urlencode({'organization': organization})}", 303)


def page(view: View, who: Identity, refused: Refused = Refused()) -> Page:
    """The members of the organizations that the reader may see, or of one, which its admins can change."""
    chosen = view.asked.only.get("organization")
    found = members(view.store, organization=chosen, limit=_MOST)
    organizations = sorted({one["organization_id"] for one in found})
    may = administered(view.store, who)
    changeable = [name for name in organizations if may is None or name in may]
    if may is None and chosen and chosen not in changeable:
        changeable.append(chosen)  # an organization begins with its first member
    known = names_of(view.store, organizations=organizations)
    name = known.organizations.get(chosen) if chosen else None
    return Page(
        "organization",
        f"{name} ({chosen})" if name else chosen or "Who belongs to it?",
        _lead(who, found, [known.organization(one) for one in organizations]),
        cards=[
            Card(label, numbers.count(sum(one["role"] == role for one in found)))
            for role, label in (("admin", "Admins"), ("auditor", "Auditors"), ("member", "Members"))
        ],
        parts=view.parts(
            _parts(view, found, known, one=chosen or (organizations[0] if len(organizations) == 1 else None))
        ),
        template="organization.html",
        of_time=False,
        extra={
            "administered": changeable,
            "roles": ROLES,
            "changeable": [one for one in found if one["organization_id"] in changeable],
            "any": who.is_operator and not chosen,
            "refused": refused,
            "names": [(one, known.organizations.get(one, "")) for one in changeable],
        },
    )


def _lead(who: Identity, found: list[Member], organizations: list[str]) -> str:
    if not found and who.is_operator:
        return "Nobody is a member of an organization yet. An organization begins with its first member, whom you add below."
    if not found:
        return "You belong to no organization, as it stands now. An admin of one, or an operator, adds you."
    where = organizations[0] if len(organizations) == 1 else counted(len(organizations), "organization")
    return f"The roles that you may see of {where}, as they stand now: {counted(len(found), 'membership')}."


def _parts(view: View, found: list[Member], known: Names, one: str | None) -> dict[str, Callable[[], Part]]:
    """Members; the budgets of one organization; and, for those who may see it, how long what is kept."""
    parts: dict[str, Callable[[], Part]] = {"members": lambda: _part(view, found, known)}
    if one is not None:
        parts["windows"] = lambda: _budgets(view, one)
        parts["subscribers"] = lambda: _quotas(view, one)
    kept = keeping(view.store)
    if kept["tables"]:
        parts["retention"] = lambda: _retention(kept)
    return parts


def _budgets(view: View, organization: str) -> Part:
    found = windows(view.store, organization=organization, limit=_FULLEST)
    part = windows_part(view, found, all_budgets(view.store)["now"])
    title = "Its budgets, the fullest first, as they are now"
    return replace(part, title=title, leads=("All budgets, and new ones", view.path("budgets")))


def _quotas(view: View, organization: str) -> Part:
    """Its own plan, and those of its users, the fullest quota first."""
    part = quotas_part(view, quota_status(view.store, organization=organization, limit=_FULLEST))
    leads = ("All quotas, and who is on which plan", view.keeping("quotas"))
    return replace(
        part, title="Plans and quotas, as they are now", empty="It is on no plan, nor is any of its users.", leads=leads
    )


def _retention(kept: Keeping) -> Part:
    removal = (
        "pg_cron removes it in the following night" if kept["scheduled"] else "it is removed when an operator does so"
    )
    return Part(
        "retention",
        "How long what is kept",
        [
            Column("table_name", "What"),
            Column("keep", "Kept for", none="ever"),
            Column("kept_from", "What is older has expired (UTC)", "moment"),
        ],
        kept["tables"],
        note=f"Whole months go: the next one expires at {numbers.moment(kept['next_at'])} UTC, and {removal}. Sums outlive the "
        "calls. Operators change it: vital-tracking retention set",
        wide=True,
        sortable=False,
    )


def _part(view: View, found: list[Member], known: Names) -> Part:
    def calls_of(row: Row) -> str:
        return view.to("users", user=row["user_id"], organization=row["organization_id"])

    named = any(one["name"] or one["email"] for one in found)
    called = [
        Column("called", "User", link=calls_of),
        Column("user_id", "User id"),
        Column("email", "E-mail", about="Only admins are shown it"),
    ]
    return Part(
        "members",
        "Members",
        [
            Column("called_organization", "Organization", link=view.link("organization", "organization")),
            *([Column("organization_id", "Organization id")] if known.organizations else []),
            *(called if named else [Column("user_id", "User", link=calls_of)]),
            Column("shown", "Role", "flag"),
            Column("created_at", "Since (UTC)", "moment"),
        ],
        [
            {
                **one,
                "organization": one["organization_id"],
                "called_organization": known.organization(one["organization_id"]),
                "called": one["name"] or one["email"] or one["user_id"],
                "shown": (_COLOURS.get(one["role"], "quiet"), one["role"]),
            }
            for one in found
        ],
        note="A member sees what is his own, an auditor all of the organization; an admin changes it, too.",
        empty="No member that you may see.",
        more=f"At most {_MOST:,} are shown." if len(found) == _MOST else "",
        wide=True,
    )
