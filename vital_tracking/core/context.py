"""Who and what a call is for: agents, the frozen call context, and the scope that is open now.

Pure but for one ContextVar: nothing here reads a clock or does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

SERVICE_TYPES: Final = ("1:1_conversation", "virtual_panel", "workflow", "solution_builder")

METADATA_PREFIX: Final = "vital_"


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: id, and optionally its name, tier (`tier_1`, `tier_2`, `tier_3` or the team's own) and role."""

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


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call is for; every field is a column of `token_usage_logs` of the same name."""

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
        if "agent_id" in changes and changes["agent_id"] != self.agent_id:
            agent: dict[str, Any] = {"agent_name": None, "agent_tier": None, "agent_role": None}
        else:
            agent = {}
        if "workflow_step" in changes and changes["workflow_step"] != self.workflow_step:
            agent["workflow_step_name"] = None
        values = {name: getattr(self, name) for name in CONTEXT_FIELDS}
        values |= agent
        values |= {name: value for name, value in changes.items() if name in values and value is not None}
        return CallContext(**values)

    def as_metadata(self) -> dict[str, Any]:
        """The context as LangChain metadata: `{"vital_user_id": ..., ...}` without what is not set."""
        return {METADATA_PREFIX + name: value for name in CONTEXT_FIELDS if (value := getattr(self, name)) is not None}


CONTEXT_FIELDS: Final = tuple(f.name for f in fields(CallContext))

# Metadata key -> field. A frozenset of the keys is intersected with a call's metadata in C.
_FIELD_OF: Final = {METADATA_PREFIX + name: name for name in CONTEXT_FIELDS}
CONTEXT_KEYS: Final = frozenset(_FIELD_OF)

SCOPE_KEY: Final = "vital_scope"
METADATA_KEY: Final = "vital_metadata"
_KNOWN_KEYS: Final = CONTEXT_KEYS | {SCOPE_KEY, METADATA_KEY}


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Frame:
    """One open scope: its whole context, and what it handed to LangChain as metadata.

    `owner` is the tracker that opened it. `absorbed` is the `vital_*` metadata that the surrounding LangChain run already
    carried when the scope was opened: it is older than the scope, so it must not win over it.
    """

    id: str
    context: CallContext
    parent: Frame | None = None
    owner: Any = None
    absorbed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    exported: Mapping[str, Any] = field(init=False)
    # The contexts of its calls, by what these say themselves.
    known: dict[object, CallContext] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exported", MappingProxyType({**self.context.as_metadata(), SCOPE_KEY: self.id}))
        _frames[self.id] = self

    def is_inside(self, scope_id: str) -> bool:
        """Whether this is the scope of that id, or was opened inside it."""
        frame: Frame | None = self
        while frame is not None:
            if scope_id in (frame.id, frame.absorbed.get(SCOPE_KEY)):
                return True
            frame = frame.parent
        return False


# Weak: a scope that nobody holds any more is gone, and the metadata that carry it still attribute its calls.
_frames: WeakValueDictionary[str, Frame] = WeakValueDictionary()

_ended: WeakSet[Frame] = WeakSet()

current_frame: ContextVar[Frame | None] = ContextVar("vital_tracking_frame", default=None)


def enter(frame: Frame) -> Token[Frame | None]:
    """Make a scope the open one of this context."""
    _ended.discard(frame)
    return current_frame.set(frame)


def leave(frame: Frame, token: Token[Frame | None]) -> bool:
    """Close a scope that `enter` opened with `token`; False where this is not the context that it was opened in.

    Scopes of generators may overlap in one context and close in any order: what is open afterwards is the innermost scope
    that has not ended.
    """
    _ended.add(frame)
    here = current_frame.get() is frame
    if here:
        try:
            current_frame.reset(token)
        except ValueError:
            here = False
    open_frame = current_frame.get()
    while open_frame is not None and here and open_frame in _ended:
        open_frame = open_frame.parent
        current_frame.set(open_frame)
    return here


def locate(current: Frame | None, metadata: Mapping[str, Any] | None) -> tuple[Frame | None, Frame | None]:
    """The scope that a call is in, and the scope whose metadata it carries.

    They differ where a scope was opened inside a run that carries another's metadata: the inner one is the call's then. A
    config handed on from a scope that is not around the open one wins over the open one, also when that scope is gone or
    belongs to another process: then the metadata alone say what the call is for.
    """
    scope_id = metadata.get(SCOPE_KEY) if metadata else None
    if not isinstance(scope_id, str):
        return current, None
    marked = _frames.get(scope_id)
    if current is not None and current.is_inside(scope_id):
        return current, marked
    return marked, marked


def same(one: object, other: object) -> bool:
    """Whether two metadata values are equal; what cannot say so plainly (an array) is not."""
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - somebody's __eq__
        return False


def exported_by(scope_id: object) -> Mapping[str, Any]:
    """The metadata that the scope of that id hands to LangChain; empty where it is gone."""
    frame = _frames.get(scope_id) if isinstance(scope_id, str) else None
    return frame.exported if frame is not None else {}


def resolve(
    default: CallContext, frame: Frame | None, marked: Frame | None, metadata: Mapping[str, Any]
) -> CallContext:
    """Merge the context of a call: its own metadata over its scope over the tracker's default.

    Metadata that a scope exported, or that was there before the scope was opened, are not the call's own.
    """
    base = default if frame is None else frame.context
    keys = metadata.keys() & CONTEXT_KEYS
    if not keys:
        return base
    exported = marked.exported if marked is not None else {}
    absorbed = frame.absorbed if frame is not None else {}
    own = {
        _FIELD_OF[key]: metadata[key]
        for key in keys
        if not same(metadata[key], exported.get(key)) and not same(metadata[key], absorbed.get(key))
    }
    return base.replace(own) if own else base


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
    """Name a workflow step: metadata for `graph.add_node(..., metadata=step("triage", name="Triage", agent=cardio))`."""
    context = CallContext(workflow_step=step_id, workflow_step_name=name or step_id, message_type=message_type)
    if agent is not None:
        context = context.replace(agent.fields())
    return context.as_metadata() | ({METADATA_KEY: dict(metadata)} if metadata else {})
