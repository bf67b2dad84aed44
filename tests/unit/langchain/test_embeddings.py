"""Wrapped embeddings, where no provider is needed to tell."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from vital_tracking import VitalTracker
from vital_tracking.langchain import embeddings as module
from vital_tracking.testing import MemoryStore


def test_embeddings_wrapped_twice_are_recorded_once(quick: VitalTracker, memory: MemoryStore) -> None:
    wrapped = quick.embeddings(quick.embeddings(DeterministicFakeEmbedding(size=4)), provider="openai", model="m")
    wrapped.embed_documents(["a", "b"])
    assert wrapped.embed_documents([]) == []
    quick.flush()
    assert len(memory.calls) == 1


def test_a_fault_before_the_budgets_are_asked_lets_the_call_go(
    quick: VitalTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, an error of ours would reach whoever embeds."""

    def broken(_texts: Any) -> int:
        raise RuntimeError

    wrapped = quick.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="m")
    monkeypatch.setattr(module, "text_size", broken)
    assert len(wrapped.embed_query("a")) == 4
    assert quick.stats().faults
