"""`tracker.record` beside LangChain: what a node records belongs to its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from vital_tracking import Agent, VitalTracker, step
from vital_tracking.testing import MemoryStore

LEAD = Agent("lead", tier="tier_1")


class State(TypedDict, total=False):
    text: str


def graph(node: Callable[..., Any], **options: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("lead", node, **options)
    builder.add_edge(START, "lead")
    builder.add_edge("lead", END)
    return builder.compile()


def test_a_call_recorded_in_a_node_belongs_to_its_step(quick: VitalTracker, memory: MemoryStore) -> None:
    def node(state: State) -> State:
        quick.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=1)
        return state

    with quick.workflow("intake", user_id="u-1", message_type="preset_action") as workflow:
        config = workflow.config()
    graph(node, metadata=step("lead", name="Lead", agent=LEAD)).invoke({"text": ""}, config=config)
    quick.flush()
    (call,) = memory.calls
    assert (call["user_id"], call["workflow_step"], call["agent_id"], call["message_type"]) == (
        "u-1",
        "lead",
        "lead",
        "preset_action",
    )
