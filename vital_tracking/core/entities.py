"""What a budget can stand on, what it counts and over which periods, and what it does at its limit.

Written here once, and in the database by the check of `budget_limits`; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Entity of a budget -> field of a call's context that names it.
ENTITY_FIELDS: Final[Mapping[str, str]] = {
    "organization": "organization_id",
    "service": "service_type",
    "tier": "agent_tier",
    "user": "user_id",
    "session": "session_id",
    "agent": "agent_id",
    "workflow": "workflow_id",
    "panel": "panel_id",
    "solution": "solution_id",
}
ENTITY_TYPES: Final = (*ENTITY_FIELDS, "model")
"""All entities of a budget; a model is a fact of the call and no part of its context."""

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
