"""When the handler says that it runs inline: always, but where that would keep a completion's start from other handlers, or hold
up an event loop.

`AsyncCallbackManager.on_llm_start` tells the start to the inline handlers alone, as soon as there is one among them. All other
events go to all handlers. So to that method the handler says that it is not inline; a moment later, when the event is handed to
it, it says that it is, and runs in the caller's task as ever. Where somebody else's handler is inline, as LangSmith's is, the
start goes to inline handlers whatever ours says: then it says that it is one, or it would miss the start as well.

A call's start that has to wait for the budgets' database, or for the spool's first file, would hold up an event loop. Just
before LangChain hands it an event, the handler says then that it is not inline: LangChain runs it in a thread, and awaits that.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any, Final

from vital_tracking.core.record import CallType

_START: Final = "AsyncCallbackManager.on_llm_start"

CHOOSES_BY_INLINE: Final = frozenset({_START, f"{_START}.<locals>.<listcomp>"})
"""Qualified names of the code that must not find ours to be the only inline handler; Python 3.11 runs its list as a function."""

CALLS_IT: Final = "_ahandle_event_for_handler"
"""The qualified name of the code that hands an event to a handler, in its own task or in a thread."""

STARTS: Final[Mapping[str, CallType]] = {"on_chat_model_start": "chat", "on_llm_start": "completion"}
"""The events with which calls start."""


def event_of(frame: FrameType) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The event that this frame hands to a handler, with its arguments."""
    names = frame.f_locals
    return names["event_name"], names["args"], names["kwargs"]


def others_are_inline(frame: FrameType, ours: type) -> bool:
    """Whether any handler but those of the class `ours` is inline, of the manager in whose `on_llm_start` this frame is."""
    asking: FrameType | None = frame
    while asking is not None and asking.f_code.co_qualname != _START:
        asking = asking.f_back
    manager: Any = asking.f_locals.get("self") if asking is not None else None
    return any(one.run_inline for one in getattr(manager, "handlers", ()) if not isinstance(one, ours))
