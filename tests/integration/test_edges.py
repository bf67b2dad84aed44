"""Corners where scopes, callbacks, prices and delivery meet: each was once wrong, and would cost a user a right bill."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, StateGraph
from langsmith.run_helpers import tracing_context
from langsmith.run_trees import RunTree

from vital_tracking import Agent, Price, PriceBook, Settings, TokenUsage, VitalTracker, step
from vital_tracking.core.record import CallRecord
from vital_tracking.errors import StoreUnavailable, store_error
from vital_tracking.langchain import callbacks as attach
from vital_tracking.testing import MemoryStore, fake_chat_model

Rows = Callable[..., list[dict[str, Any]]]
AT = datetime(2026, 3, 1, tzinfo=UTC)
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


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def quick(memory: MemoryStore) -> Iterator[VitalTracker]:
    tracker = VitalTracker(memory, settings=Settings(flush_interval_s=60))
    yield tracker
    tracker.close()


def graph(node: Callable[..., Any], **options: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("lead", node, **options)
    builder.add_edge(START, "lead")
    builder.add_edge("lead", END)
    return builder.compile()


# Configs and the run around them


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


def test_config_joins_what_the_caller_has_and_changes_nothing_of_it(quick: VitalTracker) -> None:
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


def test_misspelt_options_are_refused(quick: VitalTracker) -> None:
    with pytest.raises(TypeError, match="usr_id"):
        quick.conversation(usr_id="u-1")  # type: ignore[call-arg]


def test_scopes_that_overlap_leave_nothing_open(quick: VitalTracker, memory: MemoryStore) -> None:
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


def test_record_belongs_to_the_run_around_it(quick: VitalTracker, memory: MemoryStore) -> None:
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


def test_a_closed_tracker_stays_out_of_the_way(memory: MemoryStore) -> None:
    """Its handler must not grow, and its scopes must not keep a live tracker's handler out."""
    closed, live_store = VitalTracker(memory), MemoryStore()
    handler = closed.handler
    scope = closed.conversation(user_id="u-1")
    closed.close()
    model = fake_chat_model()
    for _ in range(50):
        model.invoke("q", config={"callbacks": [handler]})
    assert (len(handler._calls._ended), handler.in_flight, closed.stats().dropped) == (0, 0, 50)
    with VitalTracker(live_store) as live:
        live.install()
        with scope:
            model.invoke("q", config=scope.config())
    assert len(live_store.calls) == 1


def test_an_uninstall_between_two_looks_of_langchain_does_not_reach_the_user(quick: VitalTracker) -> None:
    """LangChain looks at a hook twice; when it has gone in between, LangChain makes a handler of the class by itself."""
    looks = iter([quick.handler, None])
    ambient = attach._Ambient()
    ambient.get = lambda: next(looks, None)  # type: ignore[method-assign]
    from langchain_core.tracers import context

    before = list(context._configure_hooks)
    ambient.register()
    try:
        assert fake_chat_model().invoke("q").content == "Hello there."
    finally:
        context._configure_hooks[:] = before


# Money


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


@pytest.mark.parametrize(
    ("provider", "answered", "asked", "cost"),
    [
        # dollars for a million tokens in and a million out
        ("openai", "gpt-4o-2024-08-06", "gpt-4o", Decimal(2)),  # the team's own price, 1 + 1
        ("openrouter", "anthropic/claude-3.7-sonnet", "openai/gpt-4o", Decimal(18)),  # another model answered: listed
        ("openrouter", "nobody/knows-it", "openai/gpt-4o", Decimal(2)),  # nothing is known of the one that answered
        ("openai", "meta-llama/Llama-3.1-8B-Instruct", None, None),  # a server of one's own
        ("openai", "openai/gpt-oss-20b", None, None),
        ("ollama", "openai/gpt-oss-20b", None, None),
        ("openai", "anthropic/claude-3.5-haiku", None, Decimal("4.8")),  # a gateway behind OpenAI's client
        ("google_genai", "models/gemini-2.5-flash", None, Decimal("2.8")),
    ],
)
def test_which_price_counts(provider: str, answered: str, asked: str | None, cost: Decimal | None) -> None:
    own = [Price("gpt-4o", input=1, output=1, provider="openai"), Price("openai/gpt-4o", input=1, output=1)]
    usage = TokenUsage(prompt_tokens=10**6, completion_tokens=10**6)
    found = PriceBook(own).cost(usage, provider, (answered, asked), AT)
    assert (found.total if found else None) == cost


def test_the_teams_price_is_found_by_any_name_of_its_provider() -> None:
    book = PriceBook([Price("gemini-2.5-pro", input=1, output=1, provider="google")])
    usage = TokenUsage(prompt_tokens=10**6)
    for provider in ("google", "google_genai", "google_vertexai", "Gemini"):
        found = book.cost(usage, provider, ("gemini-2.5-pro",), AT)
        assert found is not None
        assert found.total == 1


def test_the_true_end_wins_over_the_given_up_row_in_one_batch(tracker: VitalTracker, rows: Rows) -> None:
    """Both may wait out the same outage and travel together."""
    given_up = CallRecord(id=str(uuid4()), created_at=AT, provider="openai", model="gpt-4o", status="cancelled")
    true_end = CallRecord(
        id=given_up.id,
        created_at=AT,
        provider="openai",
        model="gpt-4o",
        usage=TokenUsage(prompt_tokens=1_000_000),
        replaces_abandoned=True,
    )
    for record in (given_up, true_end):
        tracker._recorder.put(record)
    tracker.flush()
    (row,) = rows()
    assert (row["status"], row["total_cost"]) == ("ok", Decimal("2.5"))


@pytest.mark.parametrize("status", ["abandoned", "cancelled"])
def test_the_true_end_replaces_the_given_up_row_later(tracker: VitalTracker, rows: Rows, status: Any) -> None:
    given_up = CallRecord(id=str(uuid4()), created_at=AT, provider="openai", model="gpt-4o", status=status)
    tracker._recorder.put(given_up)
    tracker.flush()
    usage = TokenUsage(prompt_tokens=1_000_000)
    tracker._recorder.put(
        CallRecord(
            id=given_up.id, created_at=AT, provider="openai", model="gpt-4o", usage=usage, replaces_abandoned=True
        )
    )
    tracker.flush()
    (row,) = rows()
    assert (row["status"], row["total_cost"]) == ("ok", Decimal("2.5"))


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


def test_embeddings_wrapped_twice_are_recorded_once(quick: VitalTracker, memory: MemoryStore) -> None:
    wrapped = quick.embeddings(quick.embeddings(DeterministicFakeEmbedding(size=4)), provider="openai", model="m")
    wrapped.embed_documents(["a", "b"])
    assert wrapped.embed_documents([]) == []
    quick.flush()
    assert len(memory.calls) == 1


# Delivery


def test_few_calls_wait_for_company_while_others_are_sent(memory: MemoryStore) -> None:
    """A steady trickle must not become a transaction a call: what comes during a request waits for the next one's time."""
    sizes: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def call(self, function: str, /, **arguments: object) -> Any:
            if function == "record_calls_v1":
                entered.set()
                assert go_on.wait(30)
            answer = super().call(function, **arguments)
            if function == "record_calls_v1":
                sizes.append(answer["inserted"])
            return answer

    tracker = VitalTracker(Slow(), settings=Settings(flush_interval_s=3600, batch_size=10))
    for _ in range(10):
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
    assert entered.wait(30)
    for _ in range(3):
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
    go_on.set()
    while not sizes:
        assert tracker._recorder._writer._thread is not None
    assert tracker.stats().waiting >= 3
    tracker.close()
    assert sizes == [10, 3]


@pytest.mark.parametrize(
    "state", ["25006", "XX000", "58030", "0A000", "53100", "57P01", "40001", "08006", "57014", None, "SUP"]
)
def test_what_does_not_blame_the_data_is_tried_again(state: str | None) -> None:
    """A read-only server or a full disk passes; a bill thrown away does not come back."""
    assert isinstance(store_error(state, "test"), StoreUnavailable)


def test_what_took_too_long_is_said_to_have_taken_too_long() -> None:
    """If this failed, a database that works would be called unavailable, and nobody would think of its time limit."""
    said = str(store_error("57014", "QueryCanceled"))
    assert "unavailable" not in said
    for word in ("statement_timeout", "VITAL_DATABASE_URL", "QueryCanceled"):
        assert word in said


def test_a_store_that_stumbles_in_a_way_nobody_foresaw_loses_nothing(memory: MemoryStore) -> None:
    stumbles = iter([RuntimeError("canary"), TypeError("canary")])

    class Stumbling(MemoryStore):
        def call(self, function: str, /, **arguments: object) -> Any:
            if function == "record_calls_v1" and (error := next(stumbles, None)) is not None:
                raise error
            return super().call(function, **arguments)

    store = Stumbling()
    with VitalTracker(store, settings=Settings(flush_interval_s=60)) as tracker:
        for _ in range(20):
            tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
        delivered = tracker.flush(30)
    assert (delivered.inserted, delivered.rejected, delivered.complete) == (20, 0, True)


def test_a_price_list_that_cannot_be_read_does_not_stop_delivery() -> None:
    class Odd(MemoryStore):
        def call(self, function: str, /, **arguments: object) -> Any:
            return 5 if function == "model_prices_v1" else super().call(function, **arguments)

    store = Odd()
    with VitalTracker(store) as tracker:
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
        assert tracker.flush(30).inserted == 1
    assert tracker.stats().faults == 1


def test_a_queued_call_keeps_no_text(quick: VitalTracker) -> None:
    """An outage must not fill memory with what users said."""

    class Text(str):
        __slots__ = ("__weakref__",)

    prompt = Text("canary")
    tree = RunTree(name="outer", run_type="chain", inputs={"q": "canary"}, client=None)
    gone = weakref.ref(prompt), weakref.ref(tree)
    handler, run_id = quick.handler, uuid4()
    with tracing_context(parent=tree, enabled=False):
        handler.on_chat_model_start(
            {"kwargs": {"p": prompt}}, [[prompt]], run_id=run_id, invocation_params={"p": prompt}
        )
    answer = AIMessage("canary", response_metadata={"logprobs": [prompt], "model_name": "gpt-4o"})
    from langchain_core.outputs import ChatGeneration, LLMResult

    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=answer)]]), run_id=run_id)
    del prompt, tree, answer
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert quick.stats().waiting == 1


async def test_two_tasks_on_one_seat_take_back_their_own(quick: VitalTracker, memory: MemoryStore) -> None:
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
