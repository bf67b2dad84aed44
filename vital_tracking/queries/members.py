"""Members, admins and auditors of organizations: who there is, and changes, which the database allows or refuses and audits.

Over a store with the service role or the owner every organization may be changed; as a signed-in user those that he administers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

ROLES: Final = ("member", "auditor", "admin")
"""What somebody can be: a member sees what is his own, an auditor all of the organization, an admin changes it, too."""


@answer_type
class Member(TypedDict):
    """Somebody's role (one of ROLES) in an organization, since when he is in it, and what he is called.

    The e-mail address is None for whoever is no admin of the organization.
    """

    organization_id: str
    user_id: str
    name: str | None
    email: str | None
    role: str
    created_at: datetime


@answer_type
class MemberChange(TypedDict):
    """A role before and after a change: None where somebody was not, or is no longer, a member."""

    organization_id: str
    user_id: str
    before: str | None
    after: str | None


@answer_type
class _Answer(MemberChange):
    refused: str | None


def members(store: Store, *, organization: str | None = None, limit: int = 1000) -> list[Member]:
    """The members that may be seen, by organization, at most `limit` (up to 10,000)."""
    return typed(list[Member], store.call("members_v1", organization=organization, max_rows=limit))


def add_member(
    store: Store, organization: str, user_id: str, role: str = "member", *, name: str = "", email: str = ""
) -> MemberChange:
    """Make a user a member, with a role of ROLES, and say what he is called.

    Raises StoreRejected where he is one already, or the caller is no admin.
    """
    called = {"name": name or None, "email": email or None}
    return _changed(store.call("add_member_v1", organization=organization, user_id=user_id, role=role, **called))


def name_member(
    store: Store, organization: str, user_id: str, *, name: str | None = None, email: str | None = None
) -> MemberChange:
    """Write down what a member is called, for where Supabase Auth does not know it: None leaves it, an empty text takes it away.

    Raises StoreRejected where the caller is no admin, or the text is none.
    """
    return _changed(store.call("name_member_v1", organization=organization, user_id=user_id, name=name, email=email))


def change_member(store: Store, organization: str, user_id: str, role: str, *, force: bool = False) -> MemberChange:
    """Give a member another role; `force` also where that leaves no admin. Raises StoreRejected where it is refused."""
    return _changed(store.call("change_member_v1", organization=organization, user_id=user_id, role=role, force=force))


def remove_member(store: Store, organization: str, user_id: str, *, force: bool = False) -> MemberChange:
    """Remove a member, whose calls stay; `force` also the last admin. Raises StoreRejected where it is refused."""
    return _changed(store.call("remove_member_v1", organization=organization, user_id=user_id, force=force))


_REASONS: Final = {
    "not_an_admin": ("Only an admin of organization {organization_id} may change its members.", "42501"),
    "is_a_member": ("{user_id} is in organization {organization_id} already.", "23505"),
    "is_no_member": ("{user_id} is no member of organization {organization_id}.", "P0002"),
    "is_the_last_admin": (
        "{user_id} is the last admin of organization {organization_id}: nobody could change its members any more. "
        "Make somebody else one first, or say that it is meant.",
        "23001",
    ),
}


class MemberRefused(StoreRejected):
    """A change of members that the database refused: `reason` is not_an_admin, is_a_member, is_no_member or is_the_last_admin."""

    def __init__(self, reason: str, message: str, sqlstate: str) -> None:
        self.reason = reason
        super().__init__(message, sqlstate=sqlstate)


def _changed(answer: object) -> MemberChange:
    found = typed(_Answer, answer)
    reason = found["refused"]
    if reason is not None:
        message, sqlstate = _REASONS.get(reason, ("The change was refused: {refused}.", "42501"))
        raise MemberRefused(reason, message.format_map(found), sqlstate)
    return {name: found[name] for name in ("organization_id", "user_id", "before", "after")}  # type: ignore[return-value]
