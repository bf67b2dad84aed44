"""Embeddings, for which LangChain fires no callbacks: the wrapper makes each call a row, with the provider's own counts.

If one of these fails, what a retrieval pipeline spends is on no bill, or the pipeline itself changes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import START, MessagesState, StateGraph

from tests.integration.helpers import Rows, collect, dollars, only
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import VitalTracker

RATE = "0.02"  # text-embedding-3-small, dollars per million tokens


async def test_every_method_is_one_row_with_exact_usage(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The same vectors as without the wrapper, and the provider's own token count on the row."""
    provider.reply(Reply(input_tokens=1234))
    bare = provider.openai_embeddings()
    wrapped = tracker.embeddings(bare)
    assert isinstance(wrapped, Embeddings)
    with tracker.conversation(user_id="u-1", metadata={"ward": "B"}):
        assert wrapped.embed_query("q") == bare.embed_query("q")
        assert wrapped.embed_documents(["a", "b"]) == bare.embed_documents(["a", "b"])
        assert await wrapped.aembed_query("q") == bare.embed_query("q")
        assert await wrapped.aembed_documents(["a", "b", "c"]) == bare.embed_documents(["a", "b", "c"])
    found = stored(tracker, rows)
    assert len(found) == 4
    for row in found:
        assert (row["call_type"], row["message_type"], row["provider"]) == ("embedding", "embedding", "openai")
        assert (row["model"], row["framework"], row["status"]) == ("text-embedding-3-small", "langchain", "ok")
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (1234, 0, False)
        assert row["total_cost"] == row["input_cost"] == dollars((1234, RATE))
        assert row["output_cost"] == 0
        assert row["latency_ms"] > 0
        assert (row["user_id"], row["service_type"], row["metadata"]["ward"]) == ("u-1", "1:1_conversation", "B")
    assert [row["metadata"]["texts"] for row in found] == [1, 2, 1, 3]


async def test_documents_sent_in_several_requests_are_one_row_with_their_sum(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Of a large batch only the first request would be counted."""
    provider.respond_with(lambda request: Reply(input_tokens=10 * len(request.body["input"])))
    wrapped = tracker.embeddings(provider.openai_embeddings(chunk_size=2))
    wrapped.embed_documents(["a", "b", "c", "d", "e"])
    await wrapped.aembed_documents(["a", "b", "c"], chunk_size=3)
    first, second = stored(tracker, rows)
    assert (first["prompt_tokens"], first["metadata"]["requests"], first["metadata"]["texts"]) == (50, 3, 5)
    assert first["total_cost"] == dollars((50, RATE))
    assert (second["prompt_tokens"], "requests" in second["metadata"]) == (30, False)


async def test_refused_requests_cost_nothing_and_raise_what_they_raised(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """An error must reach the user as it was, and its row must cost nothing."""
    provider.reply(Reply(status=401, error_message="canary-4711"))
    wrapped = tracker.embeddings(provider.openai_embeddings())
    with pytest.raises(openai.AuthenticationError):
        wrapped.embed_query("q")
    with pytest.raises(openai.AuthenticationError):
        await wrapped.aembed_documents(["a"])
    found = stored(tracker, rows)
    assert len(found) == 2
    for row in found:
        assert (row["status"], row["error_type"]) == ("error", "AuthenticationError")
        assert (row["total_tokens"], row["total_cost"], row["usage_estimated"]) == (0, 0, False)
        assert "canary-4711" not in str(row)


def test_what_was_answered_before_a_refusal_is_billed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The first of three requests was billed although the call as a whole failed."""
    provider.script([Reply(input_tokens=70), Reply(status=429)])
    with pytest.raises(openai.RateLimitError):
        tracker.embeddings(provider.openai_embeddings(chunk_size=1)).embed_documents(["a", "b", "c"])
    row = only(stored(tracker, rows))
    assert (row["status"], row["prompt_tokens"], row["usage_estimated"]) == ("error", 70, False)
    assert row["total_cost"] == dollars((70, RATE))


async def test_a_cancelled_embedding_is_estimated(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """The provider had the texts: it bills them."""
    provider.reply(Reply(hang=True))
    task = asyncio.create_task(tracker.embeddings(provider.openai_embeddings()).aembed_documents(["x" * 400]))
    await asyncio.to_thread(provider.wait_for_stalls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = only(stored(tracker, rows))
    assert (row["status"], row["prompt_tokens"], row["usage_estimated"]) == ("cancelled", 100, True)
    assert row["total_cost"] == dollars((100, RATE))


def test_embeddings_without_reported_tokens_are_estimated_and_flagged(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A client that reports nothing would look free; one without a price is unpriced, not free."""
    fake = tracker.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="text-embedding-3-small")
    fake.embed_query("x" * 400)
    tracker.embeddings(DeterministicFakeEmbedding(size=4)).embed_query("x" * 400)
    priced, unpriced = stored(tracker, rows)
    assert (priced["prompt_tokens"], priced["usage_estimated"]) == (100, True)
    assert priced["total_cost"] == dollars((100, RATE))
    assert (unpriced["prompt_tokens"], unpriced["usage_estimated"]) == (100, True)
    assert (unpriced["priced"], unpriced["total_cost"]) == (False, None)


async def test_embeddings_inside_chains_and_nodes_are_attributed(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A retriever in a node: its embedding belongs to the node's step, the thread and the caller's user."""
    provider.reply(Reply(input_tokens=8))
    library = InMemoryVectorStore(tracker.embeddings(provider.openai_embeddings()))
    await library.aadd_texts(["Aspirin", "Ibuprofen"])
    retriever = library.as_retriever(search_kwargs={"k": 1})

    async def look_up(state: MessagesState) -> dict[str, Any]:
        assert len(await retriever.ainvoke("pain")) == 1
        return {}

    graph = StateGraph(MessagesState).add_node("look_up", look_up).add_edge(START, "look_up").compile()
    metadata = {"vital_user_id": "u-1"}
    await graph.ainvoke({"messages": []}, {"callbacks": [tracker.handler], "metadata": metadata})
    await RunnableLambda(retriever.invoke).ainvoke("pain", {"metadata": metadata})
    added, in_node, in_chain = stored(tracker, rows)
    assert (added["metadata"]["texts"], added["user_id"], added["workflow_step"]) == (2, None, None)
    assert (in_node["user_id"], in_node["workflow_step"]) == ("u-1", "look_up")
    assert (in_chain["user_id"], in_chain["workflow_step"]) == ("u-1", None)


def test_threads_that_share_a_wrapper_keep_their_counts_apart(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """One wrapper shared by all: each call gets its own tokens."""
    provider.respond_with(lambda request: Reply(input_tokens=10 * len(request.body["input"])))
    wrapped = tracker.embeddings(provider.openai_embeddings())

    def embed(count: int) -> None:
        with tracker.conversation(user_id=f"u-{count}"):
            wrapped.embed_documents(["x"] * count)

    RunnableLambda(embed).batch(list(range(1, 31)), {"max_concurrency": 10})
    found = stored(tracker, rows)
    assert len(found) == 30
    assert all(row["prompt_tokens"] == 10 * int(row["user_id"].removeprefix("u-")) for row in found)


def test_a_fault_of_ours_does_not_reach_the_caller(
    tracker: VitalTracker, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording may fail; embedding must not."""

    def fail(item: object) -> bool:
        raise RuntimeError("ours")

    monkeypatch.setattr(tracker._recorder, "put", fail)
    assert len(tracker.embeddings(provider.openai_embeddings()).embed_query("q")) == 8
    assert tracker.stats().faults == 1
    monkeypatch.undo()
    collect()


def test_wrapped_embeddings_stay_as_they_were(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """The embeddings a user wrapped go on as they were, unrecorded, and their attributes are still reachable."""
    bare = provider.openai_embeddings()
    wrapped = tracker.embeddings(bare)
    bare.embed_query("q")
    assert wrapped.model == "text-embedding-3-small"
    assert stored(tracker, rows) == []
