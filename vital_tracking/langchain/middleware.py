"""Guards the model of an agent made with LangChain's `create_agent`."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel

from vital_tracking.errors import MissingExtra
from vital_tracking.langchain.callbacks import in_agent, watch_scopes
from vital_tracking.langchain.handler import VitalHandler

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
except ImportError as error:
    raise MissingExtra("agents", "VitalMiddleware") from error


class Tracker(Protocol):
    """What the middleware needs of a `VitalTracker`."""

    @property
    def handler(self) -> VitalHandler:
        """The callback handler."""

    def guard(
        self,
        model: BaseChatModel,
        *,
        downgrade_to: str | BaseChatModel | Sequence[str | BaseChatModel] | None = None,
        max_wait: float = 30.0,
        shadow: str | BaseChatModel | None = None,
        share: float = 0.02,
    ) -> BaseChatModel:
        """The model with its calls recorded, and made only as budgets allow."""


class VitalMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Records the calls of an agent's model, and asks the budgets before each: `create_agent(..., middleware=[...])`.

    `downgrade_to`, `max_wait` (seconds), `shadow` and `share` are those of `tracker.guard`. Put it last, so that what other
    middleware makes of the model is guarded too. Models that tools call are their own: guard them, or open a scope around the
    agent.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        downgrade_to: str | BaseChatModel | Sequence[str | BaseChatModel] | None = None,
        max_wait: float = 30.0,
        shadow: str | BaseChatModel | None = None,
        share: float = 0.02,
    ) -> None:
        super().__init__()
        watch_scopes()
        self._tracker = tracker
        self._downgrade_to = downgrade_to
        self._max_wait = max_wait
        self._shadow, self._share = shadow, share
        self._guarded: dict[int, tuple[weakref.ref[BaseChatModel], BaseChatModel]] = {}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Have the guarded model make the call; other models that middleware behind this one calls are recorded, and stopped."""
        token = in_agent.set(self._tracker.handler)
        try:
            return handler(request.override(model=self._guard(request.model)))
        finally:
            in_agent.reset(token)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Have the guarded model make the call; other models that middleware behind this one calls are recorded, and stopped."""
        token = in_agent.set(self._tracker.handler)
        try:
            return await handler(request.override(model=self._guard(request.model)))
        finally:
            in_agent.reset(token)

    def _guard(self, model: BaseChatModel) -> BaseChatModel:
        """The guarded copy of a model: made once, and forgotten with the model."""
        key = id(model)
        known = self._guarded.get(key)
        if known is not None and known[0]() is model:
            return known[1]
        guarded = self._tracker.guard(
            model, downgrade_to=self._downgrade_to, max_wait=self._max_wait, shadow=self._shadow, share=self._share
        )
        if guarded is not model:  # else it would be kept alive by itself
            self._guarded[key] = (weakref.ref(model, lambda _: self._guarded.pop(key, None)), guarded)
        return guarded
