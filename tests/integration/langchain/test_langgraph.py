"""What LangGraph, threads and LangSmith do around a call, as it shows on the row: step, path, attempt, tool, trace.

If one of these fails, a workflow's author sees costs at the wrong step, twice, or not at all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict
from uuid import UUID

import langsmith
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool
from langchain_core.tracers import LangChainTracer
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

from tests.integration.helpers import Rows, dollars, only
from tests.support.langsmith_sink import forget_environment
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import Agent, VitalTracker, step

COST = dollars((100, "0.15"), (20, "0.60"))  # the server's usual answer from gpt-4o-mini


def config(tracker: VitalTracker, **more: Any) -> dict[str, Any]:
    return {"callbacks": [tracker.handler], **more}


def asks(model: Any, text: str = "Hi") -> Callable[..., Any]:
    """A node that asks the model once."""

    async def node(state: Any) -> dict[str, Any]:
        await model.ainvoke(text)
        return {}

    return node


class RunIds(BaseCallbackHandler):
    """The runs as another handler sees them."""

    run_inline = True

    def __init__(self) -> None:
        self.root: UUID | None = None
        self.models: list[UUID] = []

    def on_chain_start(self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        if parent_run_id is None:
            self.root = run_id

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self.models.append(run_id)


# A LangGraph server


async def test_the_graph_and_the_assistant_of_a_server_are_captured(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """`langgraph dev` puts both into the config's metadata; without them no report tells the served graphs apart."""
    embeddings = tracker.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="m")

    async def look_up(state: Any) -> dict[str, Any]:
        await embeddings.aembed_query("q")
        return {}

    builder = StateGraph(MessagesState).add_node("triage", asks(provider.chat_openai())).add_node("look_up", look_up)
    graph = builder.add_edge(START, "triage").add_edge("triage", "look_up").compile()
    served = {"configurable": {"thread_id": "t-1"}, "metadata": {"graph_id": "intake", "assistant_id": "a-1"}}
    await graph.ainvoke({"messages": []}, {"callbacks": [tracker.handler], **served})
    found = stored(tracker, rows)
    assert [row["workflow_step"] for row in found] == ["triage", "look_up"]
    for row in found:
        assert (row["workflow_id"], row["session_id"]) == ("intake", "t-1")
        assert (row["service_type"], row["service_id"], row["service_name"]) == ("workflow", "a-1", "intake")
        assert (row["metadata"]["graph_id"], row["metadata"]["assistant_id"]) == ("intake", "a-1")


async def test_what_a_scope_says_stays_on_a_server(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    graph = (
        StateGraph(MessagesState).add_node("triage", asks(provider.chat_openai())).add_edge(START, "triage").compile()
    )
    served: Any = {"graph_id": "intake", "assistant_id": "a-1"}
    with tracker.workflow("mine", user_id="u-1") as workflow:
        await graph.ainvoke({"messages": []}, workflow.config(metadata=served))
    with tracker.conversation(user_id="u-1") as turn:
        await graph.ainvoke({"messages": []}, turn.config(metadata=served))
    first, second = stored(tracker, rows)
    assert (first["workflow_id"], first["service_id"], first["service_name"]) == ("mine", "mine", "mine")
    assert (second["service_type"], second["service_id"], second["workflow_id"]) == ("1:1_conversation", None, "intake")


# Nodes


async def test_node_step_thread_and_trace_are_captured(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Without a scope or a word from the author: which node, which thread, which run."""
    model = provider.chat_openai()
    builder = StateGraph(MessagesState).add_node("triage", asks(model)).add_node("answer", asks(model))
    builder.add_edge(START, "triage").add_edge("triage", "answer")
    graph = builder.compile(checkpointer=InMemorySaver())
    ids = RunIds()
    await graph.ainvoke(
        {"messages": []}, {"callbacks": [tracker.handler, ids], "configurable": {"thread_id": "t-1"}, "tags": ["mine"]}
    )
    first, second = stored(tracker, rows)
    assert [first["workflow_step"], second["workflow_step"]] == ["triage", "answer"]
    assert [first["metadata"]["langgraph_step"], second["metadata"]["langgraph_step"]] == [1, 2]
    for row, run_id in zip((first, second), ids.models, strict=True):
        assert (row["framework"], row["session_id"], row["metadata"]["attempt"]) == ("langgraph", "t-1", 1)
        assert row["run_id"] == str(run_id)
        assert row["trace_id"] == str(ids.root)
        assert row["parent_run_id"] not in (None, row["run_id"], row["trace_id"])
        assert row["tags"] == ["mine"]
        assert row["total_cost"] == COST


async def test_a_named_step_has_name_agent_and_metadata(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The author's name for a step, and the agent that does it, win over the node's bare name."""
    model = provider.chat_openai()
    agent = Agent("cardio", name="Cardiologist", tier="tier_1", role="lead")
    named = step("triage", name="Triage", agent=agent, message_type="preset_action", metadata={"ward": "B"})
    builder = StateGraph(MessagesState).add_node("n1", asks(model), metadata=named).add_node("n2", asks(model))
    graph = builder.add_edge(START, "n1").add_edge("n1", "n2").compile()
    with tracker.workflow("intake", user_id="u-1") as workflow:
        await graph.ainvoke({"messages": []}, workflow.config())
    first, second = stored(tracker, rows)
    assert (first["workflow_id"], first["workflow_step"], first["workflow_step_name"]) == ("intake", "triage", "Triage")
    assert [first[name] for name in ("agent_id", "agent_name", "agent_tier", "agent_role")] == [
        "cardio", "Cardiologist", "tier_1", "lead",
    ]  # fmt: skip
    assert (first["message_type"], first["metadata"]["ward"]) == ("preset_action", "B")
    assert (second["workflow_step"], second["workflow_step_name"], second["agent_id"]) == ("n2", None, None)
    assert (second["message_type"], "ward" in second["metadata"]) == ("chat", False)


async def test_a_step_is_the_outermost_node_with_the_path_of_the_inner_ones_beside_it(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """By the innermost node, two subgraphs with a node of one name would fall into one step."""
    model = provider.chat_openai()
    inner = StateGraph(MessagesState).add_node("leaf", asks(model)).add_edge(START, "leaf").compile()
    middle = StateGraph(MessagesState).add_node("branch", inner).add_edge(START, "branch").compile()
    builder = StateGraph(MessagesState).add_node("left", inner).add_node("right", middle)
    graph = builder.add_edge(START, "left").add_edge("left", "right").compile()
    await graph.ainvoke({"messages": []}, config(tracker))
    found = stored(tracker, rows)
    assert [row["workflow_step"] for row in found] == ["left", "right"]
    assert [row["metadata"]["langgraph_path"] for row in found] == ["left/leaf", "right/branch/leaf"]
    assert len({row["trace_id"] for row in found}) == 1


def an_agent(provider: ProviderServer, name: str, tools: Sequence[Any] = ()) -> Any:
    return create_agent(provider.chat_openai(), tools=list(tools), name=name)


def asking(agent: Any) -> Any:
    """A tool that asks an agent."""

    @tool
    async def expert(question: str) -> str:
        """Ask the expert."""
        return str((await agent.ainvoke({"messages": [("user", question)]}))["messages"][-1].content)

    return expert


USES_EXPERT = Reply(tool_calls=(("expert", {"question": "q"}),))


async def test_agents_as_nodes_are_steps_of_their_own(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Each `create_agent` agent asks in a node named `model`: by that, no report tells the agents of a graph apart."""
    provider.script([Reply(), USES_EXPERT, Reply(), Reply()])
    expert = an_agent(provider, "expert")
    builder = StateGraph(MessagesState).add_node("triage", an_agent(provider, "nurse"))
    builder.add_node("review", an_agent(provider, "doctor", [asking(expert)]))
    graph = builder.add_edge(START, "triage").add_edge("triage", "review").compile()
    with tracker.workflow("intake") as workflow:
        await graph.ainvoke({"messages": [("user", "Hi")]}, workflow.config())
    assert [
        (row["workflow_step"], row["metadata"]["langgraph_path"], row["agent_id"]) for row in stored(tracker, rows)
    ] == [
        ("triage", "triage/model", "nurse"),
        ("review", "review/model", "doctor"),
        ("review", "review/tools/model", "expert"),
        ("review", "review/model", "doctor"),
    ]


async def test_an_agent_with_no_graph_around_it_has_its_own_nodes_as_steps(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Then the agent is the workflow; an agent that one of its tools asks is in the step of the tools."""
    provider.script([USES_EXPERT, Reply(), Reply()])
    await an_agent(provider, "lead", [asking(an_agent(provider, "expert"))]).ainvoke(
        {"messages": [("user", "Hi")]}, config(tracker)
    )
    assert [
        (row["workflow_step"], row["metadata"]["langgraph_path"], row["agent_id"]) for row in stored(tracker, rows)
    ] == [("model", "model", "lead"), ("tools", "tools/model", "expert"), ("model", "model", "lead")]


async def test_a_supervisor_and_the_agents_it_sends_to_are_steps(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A node that hands over by Command, and workers that are sent to twice, one of them in parallel with itself."""
    turns = iter([[Send("worker", {"messages": [("user", str(n))]}) for n in (1, 2)], "writer", "__end__"])
    model = provider.chat_openai()

    async def supervisor(state: MessagesState) -> Command[Any]:
        await model.ainvoke("Who is next?")
        return Command(goto=next(turns))

    builder = StateGraph(MessagesState).add_node("supervisor", supervisor)
    for name in ("worker", "writer"):
        builder.add_node(name, an_agent(provider, name)).add_edge(name, "supervisor")
    graph = builder.add_edge(START, "supervisor").compile()
    await graph.ainvoke({"messages": [("user", "Hi")]}, config(tracker))
    steps = [(row["workflow_step"], row["metadata"]["langgraph_path"]) for row in stored(tracker, rows)]
    worker = [("worker", "worker/model")] * 2
    assert steps[:1] + sorted(steps[1:3]) + steps[3:] == [
        ("supervisor", "supervisor"), *worker, ("supervisor", "supervisor"), ("writer", "writer/model"),
        ("supervisor", "supervisor"),
    ]  # fmt: skip


async def test_the_authors_name_wins_over_the_outermost_node(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Who names a node of a subgraph wants to see it apart."""
    model = provider.chat_openai()
    inner = StateGraph(MessagesState).add_node("find", asks(model), metadata=step("sources", name="Sources"))
    research = inner.add_node("weigh", asks(model)).add_edge(START, "find").add_edge("find", "weigh").compile()
    graph = StateGraph(MessagesState).add_node("research", research, metadata=step("dig")).add_edge(START, "research")
    await graph.compile().ainvoke({"messages": []}, config(tracker))
    assert [(row["workflow_step"], row["workflow_step_name"]) for row in stored(tracker, rows)] == [
        ("sources", "Sources"),
        ("dig", "dig"),
    ]


async def test_a_graph_that_a_node_runs_again_has_one_path(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LangGraph numbers the second run; a path with a number in it is another path in every report."""
    expert = an_agent(provider, "expert")

    async def twice(state: MessagesState) -> dict[str, Any]:
        for _ in range(3):
            await expert.ainvoke({"messages": [("user", "q")]})
        return {}

    graph = StateGraph(MessagesState).add_node("twice", twice).add_edge(START, "twice").compile()
    await graph.ainvoke({"messages": []}, config(tracker))
    found = stored(tracker, rows)
    assert {(row["workflow_step"], row["metadata"]["langgraph_path"]) for row in found} == {("twice", "twice/model")}
    assert len(found) == 3


async def test_a_workflow_inside_a_node_has_steps_of_its_own(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The outermost node of a nested workflow is one of its own graph, not the node of the graph around it."""
    model = provider.chat_openai()
    inner = StateGraph(MessagesState).add_node("draft", an_agent(provider, "writer")).add_edge(START, "draft").compile()

    async def build(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("outer")
        async with tracker.workflow("drafting"):
            await inner.ainvoke({"messages": [("user", "q")]})
            await model.ainvoke("in no node of the inner workflow's")
            with tracker.panel("board", members=["cardio"]) as panel, panel.seat("cardio"):
                await inner.ainvoke({"messages": [("user", "q")]})
        await model.ainvoke("outer")
        return {}

    graph = StateGraph(MessagesState).add_node("build", build).add_edge(START, "build").compile()
    with tracker.workflow("whole") as workflow:
        await graph.ainvoke({"messages": []}, workflow.config())
    assert [
        (row["workflow_id"], row["workflow_step"], row["metadata"]["langgraph_path"]) for row in stored(tracker, rows)
    ] == [
        ("whole", "build", "build"),
        ("drafting", "draft", "build/draft/model"),
        ("drafting", None, "build"),
        ("drafting", "draft", "build/draft/model"),
        ("whole", "build", "build"),
    ]


async def test_tasks_are_the_steps_of_the_functional_api(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Its graph has one node, which is the workflow itself: by that all tasks would be one step."""
    model = provider.chat_openai()
    expert = an_agent(provider, "expert")
    embeddings = tracker.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="m")

    @task
    async def gather(question: str) -> None:
        await expert.ainvoke({"messages": [("user", question)]})
        await embeddings.aembed_query("q")

    @entrypoint()
    async def intake(question: str) -> str:
        await gather(question)
        return str((await model.ainvoke(question)).content)

    await intake.ainvoke("q", config(tracker))
    assert [(row["workflow_step"], row["metadata"]["langgraph_path"]) for row in stored(tracker, rows)] == [
        ("gather", "intake/gather/model"),
        ("gather", "intake/gather"),
        ("intake", "intake"),
    ]


async def test_a_task_in_a_node_belongs_to_the_node(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A graph of nodes stays one of nodes, whatever they call."""
    model = provider.chat_openai()

    @task
    async def look(question: str) -> None:
        await model.ainvoke(question)

    async def triage(state: MessagesState) -> dict[str, Any]:
        await look("q")
        return {}

    graph = StateGraph(MessagesState).add_node("triage", triage).add_edge(START, "triage").compile()
    await graph.ainvoke({"messages": []}, config(tracker))
    row = only(stored(tracker, rows))
    assert (row["workflow_step"], row["metadata"]["langgraph_path"]) == ("triage", "triage/look")


async def test_calls_that_langchain_does_not_tell_of_carry_step_path_and_attempt(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """An embedding and a call of another library in a subgraph: without them a report loses the most of a retrieval's cost."""
    embeddings = tracker.embeddings(DeterministicFakeEmbedding(size=4), provider="openai", model="m")
    attempts = 0

    async def search(state: MessagesState) -> dict[str, Any]:
        nonlocal attempts
        attempts += 1
        await embeddings.aembed_query("q")
        await asyncio.to_thread(embeddings.embed_query, "q")
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1, completion_tokens=1)
        with tracker.admit(provider="openai", model="gpt-4o-mini") as call:
            call.record(prompt_tokens=1, completion_tokens=1)
        if attempts < 2:
            raise OSError
        return {}

    inner = StateGraph(MessagesState).add_node(
        "search",
        search,
        retry_policy=RetryPolicy(initial_interval=0, jitter=False, retry_on=OSError),
        metadata=step("find", metadata={"ward": "B"}),
    )
    research = inner.add_node("more", search).add_edge(START, "search").add_edge("search", "more").compile()
    graph = StateGraph(MessagesState).add_node("research", research).add_edge(START, "research").compile()
    with tracker.workflow("intake", metadata={"plan": "gold"}) as workflow:
        await graph.ainvoke({"messages": []}, workflow.config(configurable={"thread_id": "t-1"}))
    found = stored(tracker, rows)
    assert [
        (
            row["workflow_step"],
            row["metadata"]["langgraph_path"],
            row["metadata"]["attempt"],
            row["metadata"].get("ward"),
        )
        for row in found
    ] == [
        *[("find", "research/search", 1, "B")] * 4,
        *[("find", "research/search", 2, "B")] * 4,
        *[("research", "research/more", 1, None)] * 4,
    ]
    assert {(row["session_id"], row["metadata"]["plan"], row["metadata"]["langgraph_node"]) for row in found} == {
        ("t-1", "gold", "search"),
        ("t-1", "gold", "more"),
    }


class Items(TypedDict):
    items: list[str]
    done: Annotated[list[str], lambda old, new: old + new]


async def test_parallel_runs_of_one_node_are_calls_of_their_own(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Map-reduce: each of the parallel runs of one node is a call of its own."""
    provider.respond_with(lambda request: Reply(input_tokens=100 * int(request.body["messages"][0]["content"])))
    model = provider.chat_openai()

    async def work(state: dict[str, str]) -> dict[str, Any]:
        await model.ainvoke(state["item"])
        return {"done": [state["item"]]}

    builder = StateGraph(Items).add_node("work", work)
    builder.add_conditional_edges(START, lambda state: [Send("work", {"item": item}) for item in state["items"]])
    await builder.compile().ainvoke({"items": ["1", "2", "3", "4"], "done": []}, config(tracker))
    found = stored(tracker, rows)
    assert sorted(row["prompt_tokens"] for row in found) == [100, 200, 300, 400]
    assert {row["workflow_step"] for row in found} == {"work"}
    assert len({row["metadata"]["langgraph_checkpoint_ns"] for row in found}) == 4


async def test_an_interrupt_is_no_failure_and_its_resumption_is_a_second_bill(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The node runs again from its start when it is resumed, and asks the model again: both are billed, none failed."""
    model = provider.chat_openai()

    async def ask_human(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("Hi")
        return {"messages": [("user", interrupt("Really?"))]}

    graph = (
        StateGraph(MessagesState)
        .add_node("ask", ask_human)
        .add_edge(START, "ask")
        .compile(checkpointer=InMemorySaver())
    )
    with tracker.workflow("intake") as workflow:
        first = workflow.config(configurable={"thread_id": "t-1"})
        assert "__interrupt__" in await graph.ainvoke({"messages": []}, first)
    with tracker.workflow("intake") as workflow:
        await graph.ainvoke(Command(resume="yes"), workflow.config(configurable={"thread_id": "t-1"}))
    found = stored(tracker, rows)
    assert [row["status"] for row in found] == ["ok", "ok"]
    assert [row["total_cost"] for row in found] == [COST, COST]
    assert len({row["metadata"]["langgraph_checkpoint_ns"] for row in found}) == 1
    assert [run["status"] for run in rows("select status from service_runs")] == ["ok", "ok"]


async def test_each_attempt_of_a_retry_policy_is_billed_and_numbered(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A node that fails after its call is run again; without the number nobody sees why it costs three times."""
    model = provider.chat_openai()
    attempts = 0

    async def unstable(state: MessagesState) -> dict[str, Any]:
        nonlocal attempts
        attempts += 1
        await model.ainvoke("Hi")
        if attempts < 3:
            raise ConnectionError("again")
        return {}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False)
    graph = StateGraph(MessagesState).add_node("n", unstable, retry_policy=policy).add_edge(START, "n").compile()
    await graph.ainvoke({"messages": []}, config(tracker))
    found = stored(tracker, rows)
    assert [row["metadata"]["attempt"] for row in found] == [1, 2, 3]
    assert [row["total_cost"] for row in found] == [COST] * 3


async def test_an_answer_from_the_node_cache_is_no_row(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A node that LangGraph answers from its cache asks nobody."""
    builder = StateGraph(MessagesState).add_node("n", asks(provider.chat_openai()), cache_policy=CachePolicy())
    graph = builder.add_edge(START, "n").compile(cache=InMemoryCache())
    for _ in range(2):
        await graph.ainvoke({"messages": []}, config(tracker))
    assert len(provider.requests) == 1
    assert only(stored(tracker, rows))["total_cost"] == COST


# Agents and tools


async def test_a_call_inside_a_tool_is_the_tools_and_no_turn_of_the_agent(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A tool that asks a model itself: the call is the tool's, not a third turn of the agent; totals are not billed again."""
    inner = provider.chat_openai(model="gpt-4o")

    @tool
    async def lookup(question: str) -> str:
        """Look something up."""
        return (await inner.ainvoke(question)).text

    provider.script(
        [
            Reply(text="", tool_calls=[("lookup", {"question": "dose?"})]),
            Reply(text="200 mg", input_tokens=40, output_tokens=4),
            Reply(text="Take 200 mg."),
        ]
    )
    agent = create_agent(provider.chat_openai(), [lookup], name="pharmacist")
    result = await agent.ainvoke({"messages": [("user", "How much?")]}, config(tracker))
    assert result["messages"][-1].text == "Take 200 mg."
    ask, inside, answer = stored(tracker, rows)
    assert [row["workflow_step"] for row in (ask, inside, answer)] == ["model", "tools", "model"]
    assert [row["message_type"] for row in (ask, inside, answer)] == ["chat", "tool_execution", "chat"]
    assert (inside["metadata"]["tool"], inside["model"]) == ("lookup", "gpt-4o")
    assert inside["total_cost"] == dollars((40, "2.50"), (4, "10"))
    assert {ask["agent_id"], answer["agent_id"]} == {"pharmacist"}
    assert len({row["trace_id"] for row in (ask, inside, answer)}) == 1


def test_tools_and_retrievers_inside_each_other_keep_the_trace(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Calls made inside retrievers and tools belong to the run that started it all."""
    model = provider.chat_openai()

    @tool
    def outer_tool(question: str) -> str:
        """Ask through another tool."""
        return str(inner_tool.invoke({"question": question}))

    @tool
    def inner_tool(question: str) -> str:
        """Ask."""
        return str(model.invoke(question).text)

    class Library(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document(outer_tool.invoke({"question": query}))]

    ids = RunIds()
    chain = RunnableLambda(lambda question: Library().invoke(question))
    chain.invoke("Hi", {"callbacks": [tracker.handler, ids]})
    row = only(stored(tracker, rows))
    assert row["trace_id"] == str(ids.root)
    assert (row["message_type"], row["metadata"]["tool"]) == ("tool_execution", "inner_tool")
    assert not tracker.handler._calls.runs
    assert not tracker.handler._calls._children


# Threads


@pytest.fixture
def installed(tracker: VitalTracker) -> Iterator[VitalTracker]:
    tracker.install()
    yield tracker
    tracker.uninstall()


async def test_an_installed_handler_sees_every_thread(
    installed: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Raw threads and executors lose LangChain's context, and their calls with it, unless the handler is installed."""
    model = provider.chat_openai()

    def ask(tag: str) -> None:
        model.invoke("Hi", {"tags": [tag]})

    thread = threading.Thread(target=ask, args=("thread",))
    thread.start()
    await asyncio.to_thread(thread.join)
    with ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(ask, "pool"))
        await asyncio.get_running_loop().run_in_executor(pool, ask, "executor")
    await asyncio.to_thread(ask, "to_thread")
    await asyncio.gather(model.ainvoke("Hi", {"tags": ["gather"]}), model.ainvoke("Hi", {"tags": ["gather"]}))
    # `callbacks=[]` drops what was inherited, not what is installed.
    model.invoke("Hi", {"callbacks": [], "tags": ["empty"]})
    found = stored(installed, rows)
    assert sorted(tag for row in found for tag in row["tags"]) == sorted(
        ["thread", "pool", "executor", "to_thread", "gather", "gather", "empty"]
    )
    installed.uninstall()
    model.invoke("Hi")
    assert len(stored(installed, rows)) == 7


async def test_a_handler_installed_and_handed_on_bills_once(
    installed: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Installed, in the config and in the scope: still one bill."""
    with installed.conversation(user_id="u-1") as conversation:
        await provider.chat_openai().ainvoke("Hi", conversation.config())
    assert only(stored(installed, rows))["user_id"] == "u-1"


async def test_to_thread_keeps_the_scope_and_a_raw_threads_call_belongs_to_nobody(
    installed: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """asyncio.to_thread and LangChain's executor keep the scope; a raw thread's call is stored, but belongs to nobody."""
    model = provider.chat_openai()
    with installed.conversation(user_id="u-1"):
        await asyncio.to_thread(model.invoke, "Hi", {"tags": ["to_thread"]})
        with ContextThreadPoolExecutor(1) as pool:
            await asyncio.wrap_future(pool.submit(model.invoke, "Hi", {"tags": ["langchain"]}))
        thread = threading.Thread(target=model.invoke, args=("Hi", {"tags": ["thread"]}))
        thread.start()
        await asyncio.to_thread(thread.join)
    users = {tag: row["user_id"] for row in stored(installed, rows) for tag in row["tags"]}
    assert users == {"to_thread": "u-1", "langchain": "u-1", "thread": None}


async def test_an_empty_list_of_callbacks_drops_what_was_handed_on(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """LangChain's own rule: with callbacks=[] a call inside a chain is nobody's. install() is the way to see it."""
    model = provider.chat_openai()
    chain = RunnableLambda(lambda question: model.invoke(question, {"callbacks": []}))
    await asyncio.to_thread(chain.invoke, "Hi", config(tracker))
    assert len(provider.requests) == 1
    assert stored(tracker, rows) == []


def test_a_later_install_takes_over(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """Two trackers installed would bill each call twice; closing the old one must not take the new one off."""
    old, new = make_tracker(organization_id="old"), make_tracker(organization_id="new")
    old.install()
    new.install()
    old.close()
    provider.chat_openai().invoke("Hi")
    assert only(stored(new, rows))["organization_id"] == "new"


# LangSmith


async def test_langsmiths_ids_and_project_are_on_the_row(
    tracing: langsmith.Client, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """From a row to its trace in LangSmith and back: run id, trace id and project must be LangSmith's own."""
    ids = RunIds()
    seen: list[Any] = []
    model = provider.chat_openai()

    @langsmith.traceable(name="outside")
    async def outside() -> None:
        tree = langsmith.get_current_run_tree()
        seen.append(tree)
        await model.ainvoke("Hi", {"callbacks": [tracker.handler, ids]})

    with langsmith.tracing_context(enabled=True, client=tracing, project_name="ward"):
        await outside()
    await model.ainvoke("Hi", {"callbacks": [tracker.handler, ids]})
    nested, alone = stored(tracker, rows)
    assert nested["run_id"] == str(ids.models[0])
    assert nested["trace_id"] == str(seen[0].trace_id)
    assert nested["langsmith_project"] == seen[0].session_name == "ward"
    assert alone["trace_id"] == alone["run_id"] == str(ids.models[1])
    assert alone["langsmith_project"] == "clinic"


@pytest.mark.parametrize("around", ["nothing", "a graph", "a traced function", "a traced function that goes on"])
async def test_a_cancelled_call_is_closed_although_langsmiths_tracer_holds_on_to_it(
    around: str, tracing: langsmith.Client, tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, it would be counted a quarter of an hour late, and its money would be held for so long."""
    tracker.handler._calls.orphan_grace_s = 0
    provider.reply(Reply(hang=True))
    tracer = LangChainTracer(client=tracing)  # kept by the application, and with it the ids of its runs
    model, config_ = provider.chat_openai(), {"callbacks": [tracker.handler, tracer]}
    graph = StateGraph(MessagesState).add_node("ask", asks(model)).add_edge(START, "ask").compile()
    trees: list[Any] = []

    @langsmith.traceable
    async def traced() -> None:
        trees.append(langsmith.get_current_run_tree())
        asking = asyncio.create_task(model.ainvoke("Hi", config_))
        if around == "a traced function":
            await asking
        await cancel(asking)

    async def cancel(task: asyncio.Task[Any]) -> None:
        await asyncio.to_thread(provider.wait_for_stalls, 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with langsmith.tracing_context(enabled=True, client=tracing):
        if around == "a traced function that goes on":
            await traced()
        else:
            asked = {
                "nothing": lambda: model.ainvoke("Hi", config_),
                "a graph": lambda: graph.ainvoke({"messages": []}, config_),
                "a traced function": traced,
            }
            await cancel(asyncio.create_task(asked[around]()))
    assert only(stored(tracker, rows))["status"] == "cancelled"


async def test_without_tracing_a_row_names_no_project(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A project on rows of a team that does not trace would lead nowhere."""
    forget_environment()
    await provider.chat_openai().ainvoke("Hi", config(tracker))
    assert only(stored(tracker, rows))["langsmith_project"] is None
