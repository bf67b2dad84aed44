"""The handler that is installed for a whole process: LangChain finds it, or nothing, and no error."""

from __future__ import annotations

from vital_tracking import VitalTracker
from vital_tracking.langchain import callbacks
from vital_tracking.testing import fake_chat_model


def test_an_uninstall_while_a_call_begins_does_not_reach_the_user(quick: VitalTracker) -> None:
    """LangChain looks at a hook twice; when it has gone in between, LangChain makes a handler of the class by itself."""
    looks = iter([quick.handler, None])
    ambient = callbacks._Ambient()
    ambient.get = lambda: next(looks, None)  # type: ignore[method-assign]
    from langchain_core.tracers import context

    before = list(context._configure_hooks)
    ambient.register()
    try:
        assert fake_chat_model().invoke("q").content == "Hello there."
    finally:
        context._configure_hooks[:] = before
