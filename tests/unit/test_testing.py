"""The helpers that users build their own tests on."""

from __future__ import annotations

import pytest

from vital_tracking import Agent, StoreNotReady, VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model


def test_calls_and_runs_can_be_looked_at_without_a_database() -> None:
    store = MemoryStore()
    with VitalTracker(store) as tracker:
        with tracker.conversation(user_id="u-1", session_id="s-1", agent=Agent("cardio")) as conversation:
            model = fake_chat_model(replies=["One.", "Two."], input_tokens=1000, output_tokens=500)
            assert model.invoke("Hello", config=conversation.config()).content == "One."
            assert (
                "".join(str(chunk.content) for chunk in model.stream("Hello", config=conversation.config())) == "Two."
            )
        delivered = tracker.flush()
    assert delivered.inserted == 2
    # gpt-4o-mini: 1,000 x 0.15 + 500 x 0.60 dollars a million.
    assert [call["total_cost"] for call in store.calls] == ["0.00045000", "0.00045000"]
    assert {call["agent_id"] for call in store.calls} == {"cardio"}
    assert [run["status"] for run in store.runs] == ["ok"]


async def test_the_fake_model_reports_usage_on_the_asynchronous_paths_too() -> None:
    model = fake_chat_model(cache_read_tokens=40)
    answer = await model.ainvoke("Hello")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_token_details"] == {"cache_read": 40}
    chunks = [chunk async for chunk in model.astream("Hello")]
    assert [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata] == [120]


def test_what_needs_a_database_says_so() -> None:
    store = MemoryStore()
    with pytest.raises(StoreNotReady, match="real database"):
        store.call("tracking_status_v1")
    with pytest.raises(StoreNotReady, match=r"\.calls"):
        store.read("agent_usage_detailed", columns=["id"])
    with pytest.raises(StoreNotReady, match=r"\.calls"):
        store.breakdown("service")
