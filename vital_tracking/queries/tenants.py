"""Tenants' health: how organizations fare, from 0 to 100, with what it is made of, its trend and its reasons."""

from __future__ import annotations

from datetime import date
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store

HEALTH_DAYS: Final = 30
"""The days that health is about, unless others are asked for."""


@answer_type
class HealthPoint(TypedDict):
    """The health of the days up to one; None where nothing is known."""

    day: date
    health: Amount | None


@answer_type
class TenantHealth(TypedDict):
    """How a tenant (an organization) fares: 0.3 engagement + 0.4 performance + 0.3 quality, each from 0 to 100.

    What is None is not known, and the rest counts for the whole. `trend` is what was gained since as many days before. The scores
    and counts are what the three are made of; `newest` is the last day (UTC) with anything of it.
    """

    organization_id: str
    health: Amount | None
    trend: Amount | None
    engagement: Amount | None
    performance: Amount | None
    quality: Amount | None
    reasons: list[str]
    users_score: Amount | None
    sessions_score: Amount | None
    events_score: Amount | None
    rating_score: Amount | None
    scores_score: Amount | None
    known_users: int
    active_users: int
    sessions: int | None
    events: int | None
    executions: int
    succeeded: int
    made_calls: int
    answered_calls: int
    ratings: int
    avg_rating: Amount | None
    scores: int
    avg_score: Amount | None
    newest: date | None
    is_new: bool
    history: list[HealthPoint]


@answer_type
class TenantsHealth(TypedDict):
    """The tenants of which anything is seen, the least healthy first, over `days` days up to `last_day` (UTC)."""

    days: int
    last_day: date
    rows: list[TenantHealth]


HEALTH_COLUMNS: Final = tuple(name for name in TenantHealth.__annotations__ if name != "history")


def tenants_health(
    store: Store, *, organization: str | None = None, days: int = HEALTH_DAYS, weeks: int = 0
) -> TenantsHealth:
    """How tenants fare, or one of them; with `weeks` (up to 26), also how they did at the end of each of so many weeks.

    Raises StoreError.
    """
    return typed(TenantsHealth, store.call("tenant_health_v1", organization=organization, days=days, weeks=weeks))


def level(health: Amount | None) -> str:
    """A health in a word: good from 70 on, fair from 40, poor below; unknown where it is not known."""
    if health is None:
        return "unknown"
    return "good" if health >= 70 else "fair" if health >= 40 else "poor"
