"""What the handler and shadow runs say to each other: which call is to be shadowed, and which is a shadow run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from vital_tracking.calls.live import LiveCall

SHADOW_OF: Final = "shadow_of"
"""The key of metadata under which a shadow run names the call that it shadows."""

NOT_TRACED: Final = (None, "")
"""What LangSmith knows of a shadow run: no trace, and a project of no name."""

Answered = Callable[[LiveCall], None]
"""What is to be done with a call once it has its answer."""

# What is to follow the calls that a guard is about to start in this context, in their order; and the handler that records them.
shadowing: ContextVar[tuple[Any, deque[Answered]] | None] = ContextVar("vital_tracking_shadowing", default=None)
