"""LangSmith's tracing, for tests of what goes on beside it."""

from __future__ import annotations

from collections.abc import Iterator

import langsmith
import langsmith.run_trees
import pytest

from tests.support.langsmith_sink import LangSmithSink, forget_environment


@pytest.fixture
def langsmith_sink() -> Iterator[LangSmithSink]:
    """Where LangSmith's client sends to."""
    sink = LangSmithSink()
    yield sink
    sink.close()


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch, langsmith_sink: LangSmithSink) -> Iterator[langsmith.Client]:
    """LangSmith's tracing, switched on, sending to a local server."""
    url = langsmith_sink.url
    for name, value in (("TRACING", "true"), ("ENDPOINT", url), ("API_KEY", "sk-canary"), ("PROJECT", "clinic")):
        monkeypatch.setenv(f"LANGSMITH_{name}", value)
    forget_environment()
    client = langsmith.Client(api_url=url, api_key="sk-canary", auto_batch_tracing=False)
    monkeypatch.setattr(langsmith.run_trees, "_CLIENT", client)
    yield client
    client.session.close()
    monkeypatch.undo()
    forget_environment()
