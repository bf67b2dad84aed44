"""The agents that were seen: names, tiers, roles, first and last day, and ids that stand for more than one thing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.explore import Period
from vital_tracking.stores import Store


@answer_type
class SeenAgent(TypedDict):
    """An agent of an organization, as it was in a time: its names, tiers and roles, and what its calls came to, in US dollars.

    `first_day` and `last_day` (UTC) are of all that is kept; `roles` those of the newest 10,000 calls of the time.
    """

    organization_id: str | None
    agent_id: str
    names: list[str]
    tiers: list[str]
    roles: list[str]
    first_day: date
    last_day: date
    calls: int
    unpriced_calls: int
    total_cost: Amount
    success_rate: float | None


def seen_agents(
    store: Store, period: Period, *, organization: str | None = None, agent: str | None = None, limit: int = 200
) -> list[SeenAgent]:
    """The agents with calls on the days (UTC) that a period touches, the dearest first, at most `limit`. Raises StoreError."""
    found = store.call(
        "agents_v1",
        since=period.since,
        until=period.until,
        organization=organization,
        agent=agent,
        max_rows=limit,
    )
    return typed(list[SeenAgent], found)


def drift_of(agent: SeenAgent) -> str | None:
    """In which way one id stands for more than one thing; None where it does not."""
    several: list[tuple[str, Sequence[str]]] = [
        ("names", agent["names"]),
        ("tiers", agent["tiers"]),
        ("roles", agent["roles"]),
    ]
    return ", ".join(f"{len(values)} {what}" for what, values in several if len(values) > 1) or None
