"""How the handler gets to a call: by the caller's callbacks, the open scope, the middleware, or installed for the process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from vital_tracking.core.frames import current_frame
from vital_tracking.langchain.handler import VitalHandler

_INHERITED: Final = ("callbacks", "metadata", "tags")


def joined(*parts: Any) -> Any:
    """Callbacks (None, lists, a manager) joined into one, each handler once; what was given is not changed.

    A manager carries the run that is the parent of what is called next: there is one at most, and it stays.
    """
    lists = [list(part) for part in parts if isinstance(part, (list, tuple))]
    managers = [part for part in parts if part is not None and not isinstance(part, (list, tuple))]
    handlers = [handler for one in lists for handler in one]
    handlers += [handler for manager in managers[1:] for handler in manager.handlers]
    if not managers:
        return [handler for number, handler in enumerate(handlers) if handler not in handlers[:number]]
    manager = managers[0].copy()
    for handler in handlers:
        if handler not in manager.handlers:
            manager.add_handler(handler, inherit=True)
    return manager


class _IsOurs(type):
    """The class of `_Ours`: every VitalHandler is an instance of it. LangChain calls it to make a handler, where ours has gone
    since it looked; then it gets one that does nothing."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, VitalHandler)

    def __call__(cls) -> BaseCallbackHandler:
        return BaseCallbackHandler()


class _Ours(metaclass=_IsOurs):
    """The class that LangChain looks for among the callbacks; stands for VitalHandler."""


# The handler of the middleware whose agent is calling a model in this context.
in_agent: ContextVar[VitalHandler | None] = ContextVar("vital_tracking_in_agent", default=None)


class _Ambient:
    """Stands where LangChain expects a ContextVar: the handler of the open scope's tracker, else of the agent's middleware, else
    the installed one.

    LangChain asks it whenever it configures callbacks, in whatever thread, and adds what it answers where no handler of this
    class is among them yet.
    """

    installed: VitalHandler | None = None
    registered = False

    def get(self) -> VitalHandler | None:
        frame = current_frame.get()
        if frame is not None and frame.owner is not None and not frame.owner.closed:
            handler: VitalHandler = frame.owner.handler
            return handler
        return in_agent.get() or self.installed

    def register(self) -> None:
        if not self.registered:
            self.registered = True
            register_configure_hook(self, inheritable=True, handle_class=_Ours)  # type: ignore[arg-type]


_ambient = _Ambient()


def watch_scopes() -> None:
    """Attach the handler of the open scope's tracker to calls that were handed no config."""
    _ambient.register()


def install(handler: VitalHandler | None) -> None:
    """Attach `handler` to every LangChain call of the process, raw threads included; None takes the installed one off."""
    _ambient.register()
    _ambient.installed = handler


def installed() -> VitalHandler | None:
    """The handler that is installed for the process, if any."""
    return _ambient.installed


def inherited_config() -> Mapping[str, Any]:
    """Callbacks, metadata and tags that the LangChain run around this code hands to its children; empty outside of one."""
    config = sys.modules.get("langchain_core.runnables.config")
    running = config.var_child_runnable_config.get() if config is not None else None
    return {name: running[name] for name in _INHERITED if running.get(name)} if running else {}
