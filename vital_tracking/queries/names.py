"""What users and organizations are called, as far as whoever asks may know it. Ids stay the keys of everything.

Supabase Auth knows its users, where it can be read; else there is what an admin has written down of a member. All functions
raise StoreError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.explore import Explored
from vital_tracking.stores import Store


@answer_type
class Person(TypedDict):
    """A user's name and e-mail address; None where it is not known, or not to be told to whoever asks."""

    name: str | None
    email: str | None


@answer_type
class _Answer(TypedDict):
    users: dict[str, Person]
    organizations: dict[str, str]


@dataclass(frozen=True, slots=True)
class Names:
    """Users and organizations of whom more is known than the id, by their ids."""

    users: Mapping[str, Person] = field(default_factory=dict)
    organizations: Mapping[str, str] = field(default_factory=dict)

    def user(self, user_id: str) -> str:
        """A user's name, else the address, else the id."""
        known = self.users.get(user_id)
        return (known["name"] or known["email"] if known else None) or user_id

    def email(self, user_id: str) -> str | None:
        """A user's e-mail address."""
        known = self.users.get(user_id)
        return known["email"] if known else None

    def organization(self, organization_id: str) -> str:
        """An organization's name, else the id."""
        return self.organizations.get(organization_id, organization_id)


def names_of(store: Store, users: Iterable[str | None] = (), organizations: Iterable[str | None] = ()) -> Names:
    """What these users and organizations are called."""
    wanted = sorted({one for one in users if one is not None})
    of_organizations = sorted({one for one in organizations if one is not None})
    if not wanted and not of_organizations:
        return Names()
    found = typed(_Answer, store.call("names_v1", users=wanted, organizations=of_organizations))
    return Names(found["users"], found["organizations"])


_NAMED: Final = ("user", "organization")


def with_names(store: Store, found: Explored) -> Explored:
    """What was explored, with the names of the users and organizations in it; those of one name are told apart by the id."""
    ids = {name: {row[name] for row in found.rows if row.get(name) is not None} for name in _NAMED}
    if not any(ids.values()):
        return found
    known = names_of(store, ids["user"], ids["organization"])
    called = {
        "user": {one: known.user(one) for one in known.users},
        "organization": dict(known.organizations),
    }
    return replace(found, names={**found.names, **{name: _apart(names) for name, names in called.items() if names}})


def _apart(names: Mapping[str, str]) -> dict[str, str]:
    times = Counter(names.values())
    return {one: name if times[name] == 1 else f"{name} ({one})" for one, name in names.items()}


@answer_type
class OrganizationName(TypedDict):
    """What an organization is called from now on; None: it goes by its id."""

    organization_id: str
    name: str | None


@answer_type
class _Named(OrganizationName):
    refused: str | None


def name_organization(store: Store, organization: str, name: str) -> OrganizationName:
    """Call an organization by a name of at most 120 characters; by its id where that is empty.

    Raises StoreRejected (42501) where the caller is no admin of it, which the audit holds.
    """
    found = typed(_Named, store.call("name_organization_v1", organization=organization, name=name))
    if found["refused"] is not None:
        raise StoreRejected(f"Only an admin of organization {organization} may name it.", sqlstate="42501")
    return {"organization_id": found["organization_id"], "name": found["name"]}
