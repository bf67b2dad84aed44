"""A budget's stop as it is raised into LangChain's code."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

from vital_tracking.errors import BudgetExceeded


def stopped(error: BudgetExceeded) -> BudgetExceeded:
    """The error to raise: where LangGraph is imported, one of a class that retries and fallbacks let pass.

    LangChain's retry and fallback middleware swallow every Exception but LangGraph's `GraphBubbleUp`, and LangGraph retries
    every other one: a call that a budget stopped would be asked for again and again.
    """
    bubble = getattr(sys.modules.get("langgraph.errors"), "GraphBubbleUp", None)
    if bubble is None or isinstance(error, bubble):
        return error
    kind: Any = type(error)
    return _passing(kind, bubble)(error.stop).with_traceback(error.__traceback__)


@lru_cache(maxsize=32)
def _passing(kind: type[BudgetExceeded], bubble: type[Exception]) -> type[BudgetExceeded]:
    """The error's class with LangGraph's among its bases; in name, and when pickled, it is the plain one."""

    def reduce(self: BudgetExceeded) -> tuple[Any, ...]:
        return kind, (self.stop,)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, bubble), {**names, "__reduce__": reduce})
