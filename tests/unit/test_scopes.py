"""Scopes as they nest, overlap and meet configs: a call belongs to the run, the user and the seat around it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, StateGraph

from vital_tracking import Agent, VitalTracker, step
from vital_tracking.testing import MemoryStore, fake_chat_model

CARDIO, LEGAL, LEAD = Agent("cardio", tier="tier_1"), Agent("legal"), Agent("lead", tier="tier_1")


class Watcher(BaseCallbackHandler):
    """A user's own handler: it must go on seeing what it saw."""

    run_inline = True

    def __init__(self) -> None:
        self.parents: list[Any] = []

    def on_chat_model_start(self, *args: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
        self.parents.append(parent_run_id)


class State(TypedDict, total=False):
    text: str


def graph(node: Callable[..., Any], **options: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("lead", node, **options)
    builder.add_edge(START, "lead")
    builder.add_edge("lead", END)
    return builder.compile()


@pytest.mark.parametrize("given", ["nothing", "config", "with"])
def test_a_panel_inside_a_node_keeps_the_tree_the_stream_and_its_seats(
    quick: VitalTracker, memory: MemoryStore, given: str
) -> None:
    """A seat's config that replaced the run's would silence other handlers, cut LangGraph's stream, and name the wrong agent."""
    model = fake_chat_model(replies=["a b c"])
    watcher = Watcher()

    def node(state: State, config: RunnableConfig) -> State:
        with quick.panel("board", members=[CARDIO, LEGAL]) as panel:
            for seat in panel.seats:
                if given == "with":
                    with seat:
                        model.invoke("q")
                else:
                    model.invoke("q", config=seat.config(config) if given == "config" else seat.config())
        return {"text": "done"}

    with quick.workflow("intake", user_id="u-1", agent=LEAD) as workflow:
        config = workflow.config(callbacks=[watcher])
        app = graph(node, metadata=step("lead", agent=LEAD))
        chunks = list(app.stream({"text": ""}, config=config, stream_mode="messages"))
    quick.flush()
    assert len(chunks) > 2
    assert len(watcher.parents) == 2
    assert None not in watcher.parents
    assert [(call["agent_id"], call["panel_position"]) for call in memory.calls] == [("cardio", 1), ("legal", 2)]
    assert {call.get("agent_tier") for call in memory.calls} == {"tier_1", None}
    assert {(call["workflow_id"], call["workflow_step"], call["user_id"]) for call in memory.calls} == {
        ("intake", "lead", "u-1")
    }
    assert {call["framework"] for call in memory.calls} == {"langgraph"}


def test_config_joins_what_the_caller_has_and_leaves_it_unchanged(quick: VitalTracker) -> None:
    one, two = Watcher(), Watcher()
    own: RunnableConfig = {
        "callbacks": [one],
        "tags": ["a"],
        "metadata": {"k": 1},
        "configurable": {"thread_id": "t-1"},
        "recursion_limit": 7,
    }
    before = {name: value.copy() if isinstance(value, (dict, list)) else value for name, value in own.items()}
    with quick.workflow("intake", user_id="u-1") as workflow:
        made = workflow.config(
            own, callbacks=[two], tags=["b"], configurable={"x": 1}, metadata={"vital_user_id": "u-2"}
        )
        assert workflow.config({"configurable": None}).get("metadata")  # type: ignore[typeddict-item]
    assert made["callbacks"] == [one, two, quick.handler]
    assert made["tags"] == ["a", "b"]
    assert made["configurable"] == {"thread_id": "t-1", "x": 1}
    assert made["recursion_limit"] == 7
    assert made["metadata"]["k"] == 1
    assert made["metadata"]["vital_user_id"] == "u-2"
    assert own == before


def test_calls_in_a_scope_are_recorded_without_a_config_and_once_with_one(
    quick: VitalTracker, memory: MemoryStore
) -> None:
    model = fake_chat_model()
    with quick.conversation(user_id="u-1", agent="cardio") as conversation:
        model.invoke("q")
        RunnableLambda(model.invoke).invoke("q")
        model.invoke("q", config=conversation.config())
    model.invoke("outside")
    quick.flush()
    assert [(call["user_id"], call["agent_id"]) for call in memory.calls] == [("u-1", "cardio")] * 3


def test_members_of_a_panel_are_given_by_their_ids_too(quick: VitalTracker, memory: MemoryStore) -> None:
    """A scope takes `agent="cardio"`; a panel that does not take `members=["cardio"]` is a surprise of the first day."""
    with quick.panel("board", members=["cardio", LEGAL]) as panel:
        with panel.seat("cardio") as seat:
            fake_chat_model().invoke("q")
        assert (seat.agent, panel.seat("legal").agent) == (Agent("cardio"), LEGAL)
    quick.flush()
    call = memory.calls[0]
    assert (call["agent_id"], call["agent_name"], call["panel_position"]) == ("cardio", "cardio", 1)
    assert call["panel_size"] == 2


@pytest.mark.parametrize("members", ["cardio", CARDIO])
def test_one_member_that_is_in_no_list_is_refused(quick: VitalTracker, members: Any) -> None:
    """Each letter of "cardio" would sit on the panel."""
    with pytest.raises(TypeError, match="list of agents"):
        quick.panel("board", members=members)


def test_a_misspelt_option_of_a_scope_is_refused(quick: VitalTracker) -> None:
    with pytest.raises(TypeError, match="usr_id"):
        quick.conversation(usr_id="u-1")  # type: ignore[call-arg]


def test_a_call_after_two_overlapping_scopes_belongs_to_neither(quick: VitalTracker, memory: MemoryStore) -> None:
    """Two streaming answers in one task: what comes after both belongs to neither."""
    model = fake_chat_model()

    def answer(user: str) -> Iterator[str]:
        with quick.conversation(user_id=user):
            yield "first"
            yield "second"

    one, two = answer("u-1"), answer("u-2")
    next(one), next(two)
    assert list(one) == ["second"]
    model.invoke("still inside the second")
    assert list(two) == ["second"]
    model.invoke("outside", config={"callbacks": [quick.handler]})
    quick.flush()
    assert [call.get("user_id") for call in memory.calls] == ["u-2", None]


def test_a_config_that_outlives_its_scope_is_not_mixed_with_the_open_one(
    quick: VitalTracker, memory: MemoryStore
) -> None:
    with quick.panel("board", user_id="u-1", members=[CARDIO]) as panel:
        config = panel.seats[0].config()
    del panel
    gc.collect()
    with quick.conversation(user_id="u-2", session_id="s-2"):
        fake_chat_model().invoke("q", config=config)
    quick.flush()
    (call,) = memory.calls
    assert (call["user_id"], call["service_type"], call["panel_position"]) == ("u-1", "virtual_panel", 1)
    assert "session_id" not in call


def test_a_panel_without_members_inside_another_has_no_size(quick: VitalTracker, memory: MemoryStore) -> None:
    with quick.panel("outer", members=[CARDIO, LEGAL]), quick.panel("inner"):
        fake_chat_model().invoke("q")
    quick.flush()
    assert (memory.calls[0]["panel_id"], memory.calls[0].get("panel_size")) == ("inner", None)


async def test_two_tasks_on_one_seat_leave_it_each_for_itself(quick: VitalTracker, memory: MemoryStore) -> None:
    model = fake_chat_model()
    async with quick.panel("board", user_id="u-1", members=[CARDIO]) as panel:
        inside = asyncio.Barrier(2)

        async def sit() -> None:
            async with panel.seats[0]:
                await inside.wait()
                await model.ainvoke("on the seat")
            await model.ainvoke("off the seat")

        await asyncio.gather(sit(), sit())
    quick.flush()
    positions = sorted(call.get("panel_position", 0) for call in memory.calls)
    assert positions == [0, 0, 1, 1]


def test_a_scope_opened_again_lies_in_the_run_that_is_open_now(quick: VitalTracker, memory: MemoryStore) -> None:
    """If this failed, what a solution does when it is run again would be counted for its first run."""
    solution = quick.solution("care-plan", user_id="u-1")
    workflow = solution.workflow("intake")
    pairs = []
    for _ in range(3):
        with solution, workflow:
            pairs.append((workflow.run_id, solution.run_id))
    quick.flush()
    assert len({run for pair in pairs for run in pair}) == 6
    parents = {run["id"]: run.get("parent_run_id") for run in memory.runs}
    assert [(run, parents[run]) for run, _ in pairs] == pairs
