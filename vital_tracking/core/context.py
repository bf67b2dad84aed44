"""Who and what a call is for: agents, the frozen call context, and the names of metadata that carry it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

SERVICE_TYPES: Final = ("1:1_conversation", "virtual_panel", "workflow", "solution_builder")

METADATA_PREFIX: Final = "vital_"


def same(one: object, other: object) -> bool:
    """Whether two metadata values are equal; False where comparing them gives no truth value, as with arrays."""
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - a user's __eq__ may raise anything
        return False


class Agent(NamedTuple):
    """An agent: its `id`, and optionally its `name`, `tier` (`tier_1`, `tier_2`, `tier_3` or the team's own) and `role`."""

    id: str
    name: str | None = None
    tier: str | None = None
    role: str | None = None

    def fields(self) -> dict[str, str | None]:
        """The agent as fields of a call context: all four, so that one agent replaces another whole."""
        return {
            "agent_id": self.id,
            "agent_name": self.name or self.id,
            "agent_tier": self.tier,
            "agent_role": self.role,
        }


class CallContext(NamedTuple):
    """Who and what a call is for; every field is a column of `token_usage_logs` of the same name, None where it is not known.

    Whom: `organization_id`, `user_id`, `session_id`. Which service: `service_type` (one of SERVICE_TYPES), `service_id`,
    `service_name`, `service_run_id`. Which agent: `agent_id`, `agent_name`, `agent_tier`, `agent_role`. Which part of the
    service: `workflow_id`, `workflow_step`, `workflow_step_name`; `panel_id`, `panel_position` (from 1), `panel_size`;
    `solution_id`. How: `framework`, `message_type`.
    """

    organization_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    service_type: str | None = None
    service_id: str | None = None
    service_name: str | None = None
    service_run_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    agent_tier: str | None = None
    agent_role: str | None = None
    workflow_id: str | None = None
    workflow_step: str | None = None
    workflow_step_name: str | None = None
    panel_id: str | None = None
    panel_position: int | None = None
    panel_size: int | None = None
    solution_id: str | None = None
    framework: str | None = None
    message_type: str | None = None

    def replace(self, changes: Mapping[str, Any]) -> CallContext:
        """This context with `changes` over it; what is None in `changes` stays as it was, but for an agent's fields.

        Naming another agent takes the old one's name, tier and role away. Fields that do not exist are ignored.
        """
        if "agent_id" in changes and not same(changes["agent_id"], self.agent_id):
            agent: dict[str, Any] = {"agent_name": None, "agent_tier": None, "agent_role": None}
        else:
            agent = {}
        if "workflow_step" in changes and not same(changes["workflow_step"], self.workflow_step):
            agent["workflow_step_name"] = None
        values = {name: getattr(self, name) for name in CONTEXT_FIELDS}
        values |= agent
        values |= {name: value for name, value in changes.items() if name in values and value is not None}
        return CallContext(**values)

    def as_metadata(self) -> dict[str, Any]:
        """The context as LangChain metadata: `{"vital_user_id": ..., ...}` without what is not set."""
        return {METADATA_PREFIX + name: value for name in CONTEXT_FIELDS if (value := getattr(self, name)) is not None}


CONTEXT_FIELDS: Final = CallContext._fields
INTEGER_FIELDS: Final = frozenset({"panel_position", "panel_size"})
"""Fields of a context that are numbers; all others are text."""

# Metadata key -> field. A frozenset of the keys is intersected with a call's metadata in C.
_FIELD_OF: Final = {METADATA_PREFIX + name: name for name in CONTEXT_FIELDS}
CONTEXT_KEYS: Final = frozenset(_FIELD_OF)

SCOPE_KEY: Final = "vital_scope"
METADATA_KEY: Final = "vital_metadata"
_KNOWN_KEYS: Final = CONTEXT_KEYS | {SCOPE_KEY, METADATA_KEY}


def unknown_keys(metadata: Mapping[str, Any]) -> list[str]:
    """The `vital_*` keys that name nothing: most likely spelling mistakes."""
    return sorted(
        key for key in metadata if isinstance(key, str) and key.startswith(METADATA_PREFIX) and key not in _KNOWN_KEYS
    )


def step(
    step_id: str,
    *,
    name: str | None = None,
    agent: Agent | None = None,
    message_type: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Name a workflow step: metadata for `graph.add_node(..., metadata=step("triage", name="Triage", agent=cardio))`.

    `step_id` is the step's id in reports, `name` what is shown, by default the id. The step's calls get the `agent`, the
    `message_type` and the small `metadata` that are given here.
    """
    context = CallContext(workflow_step=step_id, workflow_step_name=name or step_id, message_type=message_type)
    if agent is not None:
        context = context.replace(agent.fields())
    return context.as_metadata() | ({METADATA_KEY: dict(metadata)} if metadata else {})
