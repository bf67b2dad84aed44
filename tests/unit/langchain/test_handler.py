"""The handler: each answer is billed once, from what it reports, or else from its size."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import SecretStr

from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model


def test_an_answer_handed_out_again_is_billed_again(quick: VitalTracker, memory: MemoryStore) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    model = FakeMessagesListChatModel(responses=[AIMessage("Hello", usage_metadata=usage)])  # type: ignore[arg-type]
    for _ in range(3):
        model.invoke("q", config={"callbacks": [quick.handler]})
    quick.flush()
    assert [call["total_tokens"] for call in memory.calls] == [15, 15, 15]


def test_a_model_that_asks_another_is_not_billed_twice(quick: VitalTracker, memory: MemoryStore) -> None:
    inner = fake_chat_model(input_tokens=100, output_tokens=20)

    class Router(type(inner)):  # type: ignore[misc]
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            from langchain_core.outputs import ChatGeneration, ChatResult

            answer = inner.invoke(messages)
            return ChatResult(generations=[ChatGeneration(message=answer)])

    with quick.conversation(user_id="u-1"):
        Router(responses=["x"]).invoke("q")
    quick.flush()
    # gpt-4o-mini: 100 x 0.15 + 20 x 0.60 dollars a million, once.
    assert sum(Decimal(call["total_cost"]) for call in memory.calls) == Decimal("0.000027")
    assert sum(call.get("total_tokens", 0) for call in memory.calls) == 120


def test_streamed_text_is_measured_in_bytes_while_it_streams(quick: VitalTracker, memory: MemoryStore) -> None:
    handler = quick.handler
    run_id = uuid4()
    handler.on_chat_model_start({}, [["字" * 400]], run_id=run_id)
    for _ in range(800):
        handler.on_llm_new_token("字", run_id=run_id)
    handler.close_all()
    quick.flush()
    (call,) = memory.calls
    assert (call["prompt_tokens"], call["completion_tokens"]) == (300, 600)


@pytest.mark.parametrize(
    ("serialized", "params", "provider", "cost"),
    [
        # 10 x 0.15 + 5 x 0.60 dollars a million; of a provider alone, its default model would price it.
        ({"id": ["langchain", "chat_models", "openai", "ChatOpenAI"]}, {"model": "gpt-4o-mini"}, "openai", "0.0000045"),
        ({"id": None}, {"model": "gpt-4o-mini", "_type": "openai-chat"}, "openai", "0.0000045"),
    ],
)
def test_a_model_that_names_no_provider_is_priced_by_its_class(
    quick: VitalTracker, memory: MemoryStore, serialized: Any, params: Any, provider: str, cost: str
) -> None:
    """Models of the community's have no `ls_provider`; without a provider many have no price."""
    run_id = uuid4()
    quick.handler.on_chat_model_start(
        serialized, [[HumanMessage("q")]], run_id=run_id, metadata={}, invocation_params=params
    )
    usage: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    answer = ChatGeneration(message=AIMessage("Hello", usage_metadata=usage))
    quick.handler.on_llm_end(LLMResult(generations=[[answer]]), run_id=run_id)
    quick.flush()
    (call,) = memory.calls
    assert (call["provider"], Decimal(call["total_cost"])) == (provider, Decimal(cost))


def test_equal_requests_have_one_hash_whatever_ids_their_messages_have(memory: MemoryStore) -> None:
    """LangGraph gives each message an id, another one each time: with it no two requests would be found to be equal."""
    with VitalTracker(memory, settings=Settings(hash_key=SecretStr("k"), flush_interval_s=60)) as tracker:
        for text, message_id in (("Hi", None), ("Hi", "m-1"), ("Hi", "m-2"), ("Ho", "m-1")):
            messages = [HumanMessage(text, id=message_id), AIMessage("Yes?", id=message_id)]
            fake_chat_model().invoke(messages, config={"callbacks": [tracker.handler]})
        tracker.flush()
    plain, first, second, other = (call["request_hash"] for call in memory.calls)
    assert plain == first == second
    assert other not in (None, first)
