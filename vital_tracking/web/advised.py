"""Advice for whoever asks, for the API and the page: whose it is, what was found last, and how it is looked for again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from vital_tracking.advice.advise import DAYS
from vital_tracking.advice.life import renew_advice
from vital_tracking.queries.access import SEE_OTHERS, memberships
from vital_tracking.queries.recommendations import LastAdvice, last_advice
from vital_tracking.stores import Store
from vital_tracking.web.identity import Identity
from vital_tracking.web.parts import parts

FOR_ADMINS: Final = "Advice is for admins of an organization and for operators: it rests on everybody's calls."


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose advice is asked for: an organization's, or that for all (None), which only operators see.

    `choices` are the reader's organizations where he must name one. `said` is why there is none to see.
    """

    organization: str | None
    choices: tuple[str, ...] = ()
    said: str = ""


def scope_of(store: Store, who: Identity, organization: str | None) -> Scope:
    """Whose advice somebody asks for who named an organization or none: for an admin of one it is that one."""
    if who.is_operator:
        return Scope(organization)
    mine = tuple(sorted(one.organization_id for one in memberships(store) if one.role in SEE_OTHERS))
    if organization is not None:
        return Scope(organization, said="" if organization in mine else FOR_ADMINS)
    if len(mine) == 1:
        return Scope(mine[0])
    return Scope(None, mine, "Name one of your organizations." if mine else FOR_ADMINS)


def found_last(store: Store, scope: Scope) -> LastAdvice | None:
    """What was found last; None where nobody has looked, or there is none to see."""
    return None if scope.said else last_advice(store, organization=scope.organization)


def look_again(
    request: Request, store: Store, organization: str | None, *, days: int = DAYS, timezone: str = "UTC"
) -> LastAdvice:
    """Look for advice as whoever asks may see it, and save it: that he may, the database decides and notes.

    Days and nights are those of the `timezone`.
    """
    with_parts = parts(request)
    writer = with_parts.store.within(with_parts.settings.answer_s)
    return renew_advice(store, writer, days=days, organization=organization, timezone=timezone)
