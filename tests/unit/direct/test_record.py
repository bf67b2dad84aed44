"""`tracker.record` beside LangChain: what a node records belongs to its run."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from vital_tracking import Agent, Settings, VitalTracker, step
from vital_tracking.core.admission import Admission
from vital_tracking.direct.admitted_call import AdmittedCall
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


def test_an_admitted_call_is_recorded_by_somebodys_own_tracker(memory: MemoryStore) -> None:
    """If this failed, what a subclass adds to every record would be missing from the calls that were admitted."""

    class Tagging(VitalTracker):
        def record(self, **call: Any) -> str:
            return super().record(**{"tags": ["ours"], **call})

    with Tagging(memory, settings=Settings(flush_interval_s=60)) as tracker:
        tracker.record(model="gpt-4o")
        with tracker.admit(model="gpt-4o", prompt="q") as call:
            call.record(prompt_tokens=1, completion_tokens=2)
    assert [call["tags"] for call in memory.calls] == [["ours"], ["ours"]]


def test_a_record_that_was_asked_for_wrongly_does_not_use_up_its_admission(quick: VitalTracker) -> None:
    """If this failed, a misspelt argument would leave what was set aside for the call out of everybody's reach."""
    admission, released, recorded = Admission(), [], []

    def record(**call: Any) -> str:
        recorded.append(call["admission"])
        return quick.record(**call)

    def admitted() -> AdmittedCall:
        return AdmittedCall(admission, record, released.append, model="m", max_tokens=None)

    call = admitted()
    with pytest.raises(TypeError, match="promt_tokens"):
        call.record(promt_tokens=1)
    call.release()
    assert released == [admission]
    with pytest.raises(TypeError), admitted() as call:
        call.record(promt_tokens=1)
    assert recorded[-1] is admission  # as failed
    assert released == [admission]


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"billed_units": [("web_searches", 1)]}, "invalid_billed_units"),
        ({"price_facts": 5}, "invalid_price_facts"),
        ({"metadata": "text"}, "invalid_metadata"),
        ({"tags": 5}, None),
        ({"billed_units": {"web_searches": -1}}, "invalid_unit"),
        ({"billed_units": {"x" * 500: 10**13}}, "invalid_unit"),
        ({"reported_cost": "NaN"}, "invalid_reported_cost"),
    ],
)
def test_what_cannot_be_stored_is_left_out_and_the_call_is_recorded(
    given: dict[str, Any], note: str | None, quick: VitalTracker, memory: MemoryStore
) -> None:
    """If this failed, a mistake in a detail would cost the whole call, its money with it."""
    quick.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1000, completion_tokens=0, **given)
    quick.flush()
    (row,) = memory.calls
    assert Decimal(row["total_cost"]) == Decimal("0.00015")
    assert row.get("billed_units") is None
    assert row.get("metadata", {}).get("notes", []) == ([note] if note else [])
    assert quick.stats().faults == 0
