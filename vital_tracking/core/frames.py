"""Scope frames: which scopes are open, by a ContextVar, and what a call inside them is for."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from vital_tracking.core.context import _FIELD_OF, CONTEXT_KEYS, SCOPE_KEY, CallContext, same
from vital_tracking.core.tally import Tally, Waiting


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class ScopeFrame:
    """One open scope: its whole context, and what it handed to LangChain as metadata.

    `owner` is the tracker that opened it. `absorbed` is the `vital_*` metadata that the surrounding LangChain run already
    carried when the scope was opened: it is older than the scope, so it must not win over it. `namespace` is the LangGraph
    checkpoint namespace in which its workflow was opened, empty outside of a graph.
    """

    id: str
    context: CallContext
    parent: ScopeFrame | None = None
    owner: Any = None
    absorbed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    namespace: str = ""
    exported: Mapping[str, Any] = field(init=False)
    # A cache: the contexts of its calls, by the metadata of their own.
    known: dict[object, CallContext] = field(init=False, default_factory=dict)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        around = self.parent
        while around is not None and around.owner is not self.owner:
            around = around.parent
        object.__setattr__(self, "tally", Tally(around.tally.waiting if around is not None else Waiting()))
        object.__setattr__(self, "exported", MappingProxyType({**self.context.as_metadata(), SCOPE_KEY: self.id}))
        _frames[self.id] = self

    def is_inside(self, scope_id: str) -> bool:
        """Whether this is the scope of that id, or was opened inside it."""
        frame: ScopeFrame | None = self
        while frame is not None:
            if scope_id in (frame.id, frame.absorbed.get(SCOPE_KEY)):
                return True
            frame = frame.parent
        return False


# Weak references: a scope to which nothing refers any more is gone; its calls are still attributed by the metadata they carry.
_frames: WeakValueDictionary[str, ScopeFrame] = WeakValueDictionary()


_ended: WeakSet[ScopeFrame] = WeakSet()


current_frame: ContextVar[ScopeFrame | None] = ContextVar("vital_tracking_frame", default=None)


def enter(frame: ScopeFrame) -> Token[ScopeFrame | None]:
    """Make a scope the open one of this context."""
    _ended.discard(frame)
    return current_frame.set(frame)


def leave(frame: ScopeFrame, token: Token[ScopeFrame | None]) -> bool:
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


def locate(
    current: ScopeFrame | None, metadata: Mapping[str, Any] | None
) -> tuple[ScopeFrame | None, ScopeFrame | None]:
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


def seat_id(panel: str, position: int) -> str:
    """The id of the frame of a seat in the panel whose frame has the id `panel`."""
    return f"{panel}/{position}"


def frame_of(context: CallContext) -> ScopeFrame | None:
    """The scope of the service run that a call of such a context belongs to, or the seat in it; None where it is gone."""
    run_id = context.service_run_id
    if run_id is None:
        return None
    position = context.panel_position
    seat = None if position is None else _frames.get(seat_id(run_id, position))
    return seat or _frames.get(run_id)


def exported_by(scope_id: object) -> Mapping[str, Any]:
    """The metadata that the scope of that id hands to LangChain; empty where it is gone."""
    frame = _frames.get(scope_id) if isinstance(scope_id, str) else None
    return frame.exported if frame is not None else {}


def resolve(
    default: CallContext, frame: ScopeFrame | None, marked: ScopeFrame | None, metadata: Mapping[str, Any]
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
