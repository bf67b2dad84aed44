"""What a budget can stand on, what it counts, over which periods, and what it does at its limit.

This is the one place in Python that lists them. A new entity is a line here and its SQL in a migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vital_tracking.core.context import SERVICE_TYPES


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that has a budget: its name, the column of a call that says which one, what to tell of it, and an example."""

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

# Entity of a budget -> field of a call's context that names it. A model is no part of the context.
ENTITY_FIELDS: Final[Mapping[str, str]] = {entity.name: entity.column for entity in ENTITIES if entity.name != "model"}


METRICS: Final = ("cost_usd", "tokens", "calls")


# The strictest first.
ACTIONS: Final = ("block", "downgrade", "throttle", "alert")

PERIODS: Final[Mapping[str, str]] = {
    "minute": "minute_limit",
    "day": "daily_limit",
    "month": "monthly_limit",
    "total": "total_limit",
}
"""The periods of a budget, the shortest first, and the column of `budget_limits` that holds the limit of each."""
