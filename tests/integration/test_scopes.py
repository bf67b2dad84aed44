"""Scopes: whatever runs inside one is attributed to it, and its run becomes a row of `service_runs`.

If one of these fails, a call is billed to the wrong user, seat, step or solution, or to nobody.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from tests.integration.helpers import Rows, dollars, only
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import Agent, CallContext, VitalTracker, step
from vital_tracking.core.frames import current_frame
from vital_tracking.errors import VitalError

COST = dollars((100, "0.15"), (20, "0.60"))  # the server's usual answer from gpt-4o-mini
CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1", role="lead")
LEGAL = Agent("legal", name="Lawyer", tier="tier_2")
MARKET = Agent("market")
RUNS = "select * from service_runs order by id"


def has(row: dict[str, Any], **expected: Any) -> None:
    assert {name: row[name] for name in expected} == expected


class Other(BaseCallbackHandler):
    """The caller's own handler."""

    run_inline = True

    def __init__(self) -> None:
        self.ended = 0

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended += 1


# The four services


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_each_service_fills_its_own_columns(
    asynchronous: bool, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Each service's own columns, from `with` as from `async with`, with the config handed on."""
    model = provider.chat_openai()
    scopes = [
        tracker.conversation("c-1", user_id="u-1", session_id="s-1", agent=CARDIO, metadata={"ward": "B"}),
        tracker.panel("board", name="Launch board", user_id="u-2", members=[CARDIO, LEGAL]),
        tracker.workflow("intake", name="Intake", organization_id="org", framework="hybrid"),
        tracker.solution("care-plan", message_type="preset_action"),
    ]
    for scope in scopes:
        if asynchronous:
            async with scope as opened:
                await model.ainvoke("Hi", opened.config())
        else:
            with scope as opened:
                model.invoke("Hi", opened.config())
    conversation, panel, workflow, solution = stored(tracker, rows)
    has(conversation, service_type="1:1_conversation", service_id="c-1", service_name="Cardiologist")
    has(conversation, user_id="u-1", session_id="s-1", agent_id="cardio", agent_tier="tier_1", agent_role="lead")
    assert conversation["metadata"]["ward"] == "B"
    has(panel, service_type="virtual_panel", service_id="board", service_name="Launch board", panel_id="board")
    has(panel, panel_size=2, panel_position=None, agent_id=None, user_id="u-2")
    has(workflow, service_type="workflow", service_id="intake", service_name="Intake", workflow_id="intake")
    has(workflow, organization_id="org", framework="hybrid", message_type="chat")
    has(solution, service_type="solution_builder", service_id="care-plan", solution_id="care-plan")
    has(solution, message_type="preset_action", framework="langchain")
    runs = rows(RUNS)
    assert [run["id"] for run in runs] == [scope.run_id for scope in scopes]
    assert [row["service_run_id"] for row in (conversation, panel, workflow, solution)] == [run["id"] for run in runs]
    for run, row in zip(runs, (conversation, panel, workflow, solution), strict=True):
        has(run, status="ok", error_type=None, parent_run_id=None, ancestor_run_ids=[])
        assert run["started_at"] <= row["created_at"] <= run["ended_at"]
        has(
            run, **{name: row[name] for name in ("service_type", "service_id", "service_name", "user_id", "session_id")}
        )
    assert runs[0]["metadata"] == {"ward": "B"}


def test_a_conversation_is_named_after_its_session(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """A turn without an id of its own still groups with its session."""
    with tracker.conversation(user_id="u-1", session_id="s-1") as conversation:
        provider.chat_openai().invoke("Hi", conversation.config())
    has(only(stored(tracker, rows)), service_id="s-1", service_name=None)


async def test_a_call_in_nested_scopes_knows_them_all(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Solution over workflow over panel: each call knows all it is inside of, and each run its ancestors."""
    model = provider.chat_openai()
    with tracker.solution("care-plan", user_id="u-1", metadata={"a": 1}) as solution:
        await model.ainvoke("Hi", solution.config())
        with solution.workflow("intake", metadata={"b": 2}) as workflow:
            await model.ainvoke("Hi", workflow.config())
            async with workflow.panel("board", members=[CARDIO, LEGAL]) as panel:
                for seat in panel.seats:
                    await model.ainvoke("Hi", seat.config())
            await model.ainvoke("Hi", workflow.config())
        await model.ainvoke("Hi", solution.config())
    in_solution, in_workflow, seat_1, seat_2, after_panel, after_workflow = stored(tracker, rows)
    for row in (in_solution, after_workflow):
        has(row, service_type="solution_builder", solution_id="care-plan", workflow_id=None, panel_id=None)
    for row in (in_workflow, after_panel):
        has(row, service_type="workflow", solution_id="care-plan", workflow_id="intake", panel_id=None, agent_id=None)
    for position, row in enumerate((seat_1, seat_2), start=1):
        has(row, service_type="virtual_panel", solution_id="care-plan", workflow_id="intake", panel_id="board")
        has(row, panel_position=position, panel_size=2, user_id="u-1")
    assert [seat_1["agent_id"], seat_2["agent_id"]] == ["cardio", "legal"]
    assert [seat_1["agent_role"], seat_2["agent_role"]] == ["lead", None]
    assert (seat_1["metadata"]["a"], seat_1["metadata"]["b"]) == (1, 2)
    outer, middle, inner = rows(RUNS)
    assert (outer["parent_run_id"], outer["ancestor_run_ids"]) == (None, [])
    assert (middle["parent_run_id"], middle["ancestor_run_ids"]) == (outer["id"], [outer["id"]])
    assert (inner["parent_run_id"], inner["ancestor_run_ids"]) == (middle["id"], [middle["id"], outer["id"]])
    assert [run["status"] for run in (outer, middle, inner)] == ["ok", "ok", "ok"]


def test_a_scope_opened_from_its_parent_object_belongs_to_it(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """solution.workflow(...) in another thread, where no context variable tells of the solution."""
    model = provider.chat_openai()

    def work(solution: Any) -> None:
        with solution.workflow("intake") as workflow:
            model.invoke("Hi", workflow.config())

    with tracker.solution("care-plan", user_id="u-1") as solution:
        thread = threading.Thread(target=work, args=(solution,))
        thread.start()
        thread.join()
    has(only(stored(tracker, rows)), solution_id="care-plan", workflow_id="intake", user_id="u-1")
    outer, inner = rows(RUNS)
    assert inner["parent_run_id"] == outer["id"]


def test_each_members_calls_carry_its_seat(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """Each member's calls carry its seat: by config, inside `with seat:`, and found by agent or id."""
    model = provider.chat_openai()
    tracker.install()
    with tracker.panel("board", user_id="u-1", members=[CARDIO, LEGAL, MARKET]) as panel:
        model.invoke("Hi", panel.seats[0].config())
        with panel.seat("legal"):
            model.invoke("Hi")
        with panel.seat(MARKET) as seat:
            model.invoke("Hi", seat.config())
        model.invoke("Hi")
        with pytest.raises(VitalError, match="No member 'ghost'"):
            panel.seat("ghost")
    tracker.uninstall()
    found = stored(tracker, rows)
    assert [row["panel_position"] for row in found] == [1, 2, 3, None]
    assert [row["agent_name"] for row in found] == ["Cardiologist", "Lawyer", "market", None]
    assert {(row["panel_size"], row["user_id"], row["service_run_id"]) for row in found} == {(3, "u-1", panel.run_id)}


async def test_members_that_speak_at_once_keep_their_seats(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A panel whose members think in parallel: no member's cost may go to another."""
    provider.respond_with(lambda request: Reply(input_tokens=100 * int(request.body["messages"][0]["content"])))
    model = provider.chat_openai()

    async def speak(seat: Any) -> None:
        async with seat:
            await asyncio.sleep(0)
            await model.ainvoke(str(seat.position), {"callbacks": [tracker.handler]})

    async with tracker.panel("board", members=[Agent(f"a-{number}") for number in range(1, 9)]) as panel:
        await asyncio.gather(*(speak(seat) for seat in panel.seats))
    found = stored(tracker, rows)
    assert len(found) == 8
    for row in found:
        assert row["prompt_tokens"] == 100 * row["panel_position"]
        assert row["agent_id"] == f"a-{row['panel_position']}"


# Precedence and config


async def test_what_is_said_nearest_to_the_call_wins(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """What is said nearest to the call wins, field by field."""
    tracker = make_tracker(
        organization_id="org-default", default=CallContext(user_id="u-default", session_id="s-default")
    )
    model = provider.chat_openai()
    handler = {"callbacks": [tracker.handler]}
    await model.ainvoke("Hi", handler)
    await model.ainvoke("Hi", {**handler, "metadata": {"vital_user_id": "u-call"}})
    with tracker.conversation("c-1", user_id="u-scope") as conversation:
        await model.ainvoke("Hi", handler)
        await model.ainvoke("Hi", conversation.config())
        await model.ainvoke("Hi", {**handler, "metadata": {"vital_user_id": "u-call"}})
        await model.ainvoke("Hi", conversation.config(metadata={"vital_user_id": "u-call"}))
        await model.with_config(metadata={"vital_agent_id": "bound"}).ainvoke("Hi", conversation.config())
    found = stored(tracker, rows)
    assert [row["user_id"] for row in found] == [
        "u-default", "u-call", "u-scope", "u-scope", "u-call", "u-call", "u-scope",
    ]  # fmt: skip
    assert {row["organization_id"] for row in found} == {"org-default"}
    assert {row["session_id"] for row in found} == {"s-default"}
    assert [row["service_id"] for row in found] == [None, None, *["c-1"] * 5]
    assert found[-1]["agent_id"] == "bound"


async def test_naming_another_agent_takes_the_old_ones_name_away(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Agent B with the name and tier of agent A would spend A's budget."""
    model = provider.chat_openai()
    with tracker.conversation("c", agent=CARDIO) as conversation:
        await model.ainvoke("Hi", conversation.config(metadata={"vital_agent_id": "other"}))
        with conversation.workflow("w", agent=MARKET) as workflow:
            await model.ainvoke("Hi", workflow.config())
    first, second = stored(tracker, rows)
    has(first, agent_id="other", agent_name=None, agent_tier=None, agent_role=None)
    has(second, agent_id="market", agent_name="market", agent_tier=None, agent_role=None)


async def test_without_scopes_metadata_is_enough(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """Two lines of code, and every column can be set by plain LangChain metadata, handed on through chains."""
    metadata = {
        "vital_organization_id": "org",
        "vital_user_id": "u-1",
        "vital_service_type": "workflow",
        "vital_workflow_id": "intake",
        "vital_workflow_step": "triage",
        "vital_panel_position": 2,
        "vital_usr_id": "misspelt",
        "unrelated": "canary",
    }
    chain = RunnableLambda(lambda question: question) | provider.chat_openai()
    await chain.ainvoke("Hi", {"callbacks": [tracker.handler], "metadata": metadata})
    row = only(stored(tracker, rows))
    has(row, organization_id="org", user_id="u-1", service_type="workflow", workflow_id="intake", panel_position=2)
    has(row, workflow_step="triage")
    assert row["metadata"]["unknown_keys"] == ["vital_usr_id"]
    assert "canary" not in str(row)


@pytest.mark.parametrize("kind", ["none", "list", "sync manager", "async manager"])
def test_config_is_merged_into_the_callers_own(
    kind: str, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The caller's callbacks, metadata, tags and settings stay; its objects are not changed."""
    other = Other()
    callbacks: Any = {
        "none": None,
        "list": [other],
        "sync manager": CallbackManager([other], inheritable_handlers=[other]),
        "async manager": AsyncCallbackManager([other], inheritable_handlers=[other]),
    }[kind]
    own = {"callbacks": callbacks, "metadata": {"mine": 1}, "tags": ["a"], "configurable": {"thread_id": "t-1"}}
    with tracker.conversation(user_id="u-1") as conversation:
        merged = conversation.config(own, tags=["a", "b"], metadata={"too": 2}, max_concurrency=3)
        again = conversation.config(merged)
    assert merged["metadata"]["mine"] == 1
    assert merged["metadata"]["too"] == 2
    assert (merged["tags"], merged["configurable"], merged["max_concurrency"]) == (["a", "b"], {"thread_id": "t-1"}, 3)
    assert own["metadata"] == {"mine": 1}
    assert own["tags"] == ["a"]
    assert own["callbacks"] is callbacks
    handlers = getattr(callbacks, "handlers", callbacks) or []
    assert tracker.handler not in handlers
    attached = getattr(again["callbacks"], "handlers", again["callbacks"])
    assert attached.count(tracker.handler) == 1
    if kind != "async manager":
        provider.chat_openai().invoke("Hi", again)
        assert other.ended == (kind != "none")
        has(only(stored(tracker, rows)), user_id="u-1", tags=["a", "b"])


# Where the context variable and the config disagree


async def test_a_scope_opened_inside_a_node_wins_over_the_graphs(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The graph's metadata carry the outer scope to every call; the scope opened inside must win all the same."""
    model = provider.chat_openai()

    async def before(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("Hi")
        return {}

    async def inside(state: MessagesState) -> dict[str, Any]:
        async with tracker.panel("board", members=[CARDIO]) as panel:
            await model.ainvoke("Hi")
            await model.ainvoke("Hi", panel.seats[0].config())
        await model.ainvoke("Hi")
        return {}

    builder = StateGraph(MessagesState).add_node("before", before, metadata=step("first", name="First"))
    builder.add_node("inside", inside).add_edge(START, "before").add_edge("before", "inside")
    with tracker.workflow("intake", user_id="u-1") as workflow:
        await builder.compile().ainvoke({"messages": []}, workflow.config(metadata={"vital_session_id": "s-1"}))
    first, in_panel, in_seat, after = stored(tracker, rows)
    for row in (first, in_panel, in_seat, after):
        has(row, workflow_id="intake", user_id="u-1", session_id="s-1")
    has(first, service_type="workflow", workflow_step="first", workflow_step_name="First", panel_id=None)
    has(in_panel, service_type="virtual_panel", panel_id="board", panel_position=None, workflow_step="inside")
    has(in_seat, service_type="virtual_panel", panel_id="board", panel_position=1, agent_id="cardio")
    has(after, service_type="workflow", panel_id=None, panel_position=None, workflow_step="inside")
    outer, inner = rows(RUNS)
    assert inner["parent_run_id"] == outer["id"]
    assert inner["ancestor_run_ids"] == [outer["id"]]


def test_a_config_handed_to_another_thread_carries_the_scope(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A raw thread has no context variable: what the config says must be enough."""
    model = provider.chat_openai()
    with tracker.panel("board", user_id="u-1", members=[CARDIO]) as panel:
        config = panel.seats[0].config()
        thread = threading.Thread(target=model.invoke, args=("Hi", config))
        thread.start()
        thread.join()
    # Kept beyond its scope, and used inside another: it still says whose call this is.
    with tracker.conversation(user_id="u-2"):
        model.invoke("Hi", config)
    found = stored(tracker, rows)
    assert len(found) == 2
    for row in found:
        has(row, user_id="u-1", panel_id="board", panel_position=1, agent_id="cardio", service_run_id=panel.run_id)


async def test_two_tasks_at_once_keep_their_scopes_apart(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Two users served by one process at the same moment."""
    provider.respond_with(
        lambda request: Reply(input_tokens=100 * int(request.body["messages"][0]["content"]), hang=True)
    )
    model = provider.chat_openai()

    async def serve(number: int) -> None:
        async with tracker.conversation(user_id=f"u-{number}", session_id=f"s-{number}"):
            await model.ainvoke(str(number), {"callbacks": [tracker.handler]})

    tasks = [asyncio.create_task(serve(number)) for number in range(1, 11)]
    await asyncio.to_thread(provider.wait_for_stalls, 10)
    provider.release.set()
    await asyncio.gather(*tasks)
    assert current_frame.get() is None
    found = stored(tracker, rows)
    assert len(found) == 10
    for row in found:
        number = row["prompt_tokens"] // 100
        has(row, user_id=f"u-{number}", session_id=f"s-{number}", service_id=f"s-{number}")


# Ends of runs


class Refused(Exception):
    """An error of the user's."""


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (Refused("canary"), "error", "Refused"),
        (asyncio.CancelledError(), "cancelled", "CancelledError"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
        (SystemExit(1), "error", "SystemExit"),
    ],
)
async def test_a_run_ends_as_what_it_held_ended(
    error: BaseException, status: str, name: str, tracker: VitalTracker, rows: Rows
) -> None:
    """A failed run that looks like a good one hides what fails; the error reaches the user as it was."""
    with pytest.raises(type(error)) as caught:
        async with tracker.workflow("intake"):
            raise error
    assert caught.value is error
    assert current_frame.get() is None
    stored(tracker, rows)
    run = only(rows(RUNS))
    has(run, status=status, error_type=name)
    assert run["ended_at"] >= run["started_at"]
    assert "canary" not in str(run)


async def test_a_cancelled_task_leaves_its_scope(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """A request that is cancelled in the middle of a call ends its run as cancelled."""
    provider.reply(Reply(hang=True))

    async def serve() -> None:
        async with tracker.conversation(user_id="u-1") as conversation:
            await provider.chat_openai().ainvoke("Hi", conversation.config())

    task = asyncio.create_task(serve())
    await asyncio.to_thread(provider.wait_for_stalls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)
    row = only(stored(tracker, rows))
    has(row, status="cancelled", user_id="u-1")
    has(only(rows(RUNS)), status="cancelled", error_type="CancelledError")


def test_a_run_is_seen_while_it_runs(tracker: VitalTracker, rows: Rows) -> None:
    """An admin who looks at a long workflow sees it running; its end is final."""
    with tracker.workflow("intake"):
        tracker.flush()
        has(only(rows(RUNS)), status="running", ended_at=None)
    tracker.flush()
    has(only(rows(RUNS)), status="ok")


def test_a_scope_object_used_again_is_another_run(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """A scope made once and used for every request: each use is a run of its own; two at once are refused."""
    scope = tracker.panel("board", user_id="u-1", members=[CARDIO])
    run_ids = []
    for _ in range(3):
        with scope as panel:
            run_ids.append(panel.run_id)
            provider.chat_openai().invoke("Hi", panel.seats[0].config())
            with pytest.raises(VitalError, match="open already"):
                scope.__enter__()
    assert current_frame.get() is None
    found = stored(tracker, rows)
    assert len(set(run_ids)) == 3
    assert [row["service_run_id"] for row in found] == run_ids
    assert {row["panel_position"] for row in found} == {1}
    assert [run["status"] for run in rows(RUNS)] == ["ok", "ok", "ok"]


def test_a_scope_may_be_left_in_another_context(tracker: VitalTracker, rows: Rows) -> None:
    """Web frameworks enter a dependency in one context and leave it in another; Python refuses to reset there."""
    scope = tracker.workflow("intake")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert current_frame.get() is None
    stored(tracker, rows)
    has(only(rows(RUNS)), status="ok")


async def test_workflow_analytics_add_up_all_that_ran_inside(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """What a workflow and a solution cost in all, with what is nested in them, and how many steps it took."""
    model = provider.chat_openai()

    async def node(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("Hi")
        return {}

    graph = StateGraph(MessagesState).add_node("a", node).add_node("b", node).add_edge(START, "a").add_edge("a", "b")
    with tracker.solution("care-plan", user_id="u-1") as solution:
        await model.ainvoke("Hi", solution.config())
        with solution.workflow("intake") as workflow:
            await graph.compile().ainvoke({"messages": []}, workflow.config())
            with workflow.panel("board", members=[CARDIO]) as panel:
                await model.ainvoke("Hi", panel.seats[0].config())
    with pytest.raises(Refused), tracker.workflow("intake"):
        raise Refused
    stored(tracker, rows)
    whole, inner, failed = rows("select * from workflow_analytics order by service_run_id")
    has(whole, service_type="solution_builder", solution_id="care-plan", calls=4, total_tokens=480, status="ok")
    assert whole["total_cost"] == 4 * COST
    has(inner, service_type="workflow", workflow_id="intake", solution_id="care-plan", calls=3, steps=2, failed_calls=0)
    assert inner["total_cost"] == 3 * COST
    assert inner["parent_run_id"] == whole["service_run_id"]
    assert 0 < inner["duration_ms"] <= whole["duration_ms"]
    has(failed, calls=0, steps=0, total_cost=0, status="error", error_type="Refused")
