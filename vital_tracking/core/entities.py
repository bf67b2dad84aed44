"""What a budget can stand on, what it counts, and what it does at its limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Entity of a budget -> field of a call's context that names it. A model is no part of the context.
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


METRICS: Final = ("cost_usd", "tokens", "calls")


# The strictest first.
ACTIONS: Final = ("block", "downgrade", "throttle", "alert")
