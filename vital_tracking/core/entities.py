"""What a budget can stand on, what it counts and over which periods, and what it does at its limit.

Written here once, and in the database once, in `vital_private.budget_terms`; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vital_tracking.core.context import SERVICE_TYPES


class Entity(NamedTuple):
    """What a budget can stand on: its name, the column of a call that says which one, the help of an option, an example."""

    name: str
    column: str
    help: str
    example: str


ENTITIES: Final = (
    Entity("organization", "organization_id", "The organization; by default that of VITAL_ORGANIZATION_ID.", "acme"),
    Entity("service", "service_type", f"{', '.join(SERVICE_TYPES)}.", "workflow"),
    Entity("tier", "agent_tier", "The agent's tier.", "tier_1"),
    Entity("user", "user_id", "Whose call it is.", "u-1"),
    Entity("session", "session_id", "The session.", "s-1"),
    Entity("agent", "agent_id", "The agent (its id).", "cardio"),
    Entity("workflow", "workflow_id", "The workflow.", "intake"),
    Entity("panel", "panel_id", "The panel.", "launch-board"),
    Entity("solution", "solution_id", "The solution.", "care-plan"),
    Entity("model", "model", "The model.", "gpt-4o"),
)
ENTITY_TYPES: Final = tuple(entity.name for entity in ENTITIES)
"""All entities of a budget; a model is a fact of the call and no part of its context."""

# Entity of a budget -> field of a call's context that names it.
ENTITY_FIELDS: Final[Mapping[str, str]] = {entity.name: entity.column for entity in ENTITIES if entity.name != "model"}

METRICS: Final = ("cost_usd", "tokens", "calls")

# Period of a budget -> column of `budget_limits` that holds its limit. The shortest first.
PERIODS: Final[Mapping[str, str]] = {
    "minute": "minute_limit",
    "day": "daily_limit",
    "month": "monthly_limit",
    "total": "total_limit",
}

ACTIONS: Final = ("alert", "throttle", "downgrade", "block")
"""What a budget does at its limit, from the mildest to the strictest."""


def strictness(action: str) -> int:
    """The rank of an action: 0 for the mildest; ValueError for what is no action."""
    return ACTIONS.index(action)
