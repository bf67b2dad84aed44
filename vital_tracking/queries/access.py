"""Who somebody is in which organization, and the audit's lines about what was read and refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from vital_tracking.stores.protocol import Store

SEE_OTHERS: Final = ("admin", "auditor")
"""The roles in an organization that see what is other people's."""


@dataclass(frozen=True, slots=True)
class Membership:
    """An organization of a user, and the role in it: `member`, `auditor` or `admin`."""

    organization_id: str
    role: str


def memberships(store: Store) -> tuple[Membership, ...]:
    """The organizations of whoever the store asks for (`Store.as_user`); none for the store itself."""
    rows = store.call("my_memberships")
    return tuple(Membership(row["organization_id"], row["role"]) for row in rows)


def note_access(
    store: Store,
    operation: Literal["read", "refused"],
    what: str,
    *,
    actor: str | None,
    organization: str | None = None,
    user: str | None = None,
) -> None:
    """Write down in `admin_audit` that somebody has read what is other people's, or was refused something.

    It takes the store's own rights, so that no user writes such lines. `actor` is the subject of a verified token, None the
    operator; `user` is whose data it was, where it was one person's.
    """
    access = {"operation": operation, "what": what, "actor": actor, "organization_id": organization, "user_id": user}
    store.call("note_access_v1", access=json.dumps(access))
