"""Wrapped embeddings, where no provider is needed to tell."""

from __future__ import annotations

from langchain_core.embeddings import DeterministicFakeEmbedding

from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore


def test_embeddings_wrapped_twice_are_recorded_once(quick: VitalTracker, memory: MemoryStore) -> None:
    wrapped = quick.embeddings(quick.embeddings(DeterministicFakeEmbedding(size=4)), provider="openai", model="m")
    wrapped.embed_documents(["a", "b"])
    assert wrapped.embed_documents([]) == []
    quick.flush()
    assert len(memory.calls) == 1
