"""tracker.guard: the model's own class, one row a call, and what each action of a budget does to each way of asking.

If one of these fails, a call goes out that nobody pays for, a guarded model is no longer usable where the model was, or a
call is recorded twice or not at all. Requests are counted at the provider's server.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from pydantic import BaseModel, Field

from tests.integration.helpers import MODES, Rows, ask, dollars, only
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import VitalTracker
from vital_tracking.core.admission import Admission, Request
from vital_tracking.errors import BudgetExceeded, BudgetThrottled, BudgetUnavailable, Stop
from vital_tracking.langchain.control_flow import stopped
from vital_tracking.langchain.guard import guard
from vital_tracking.stores.postgres import PostgresStore

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

USER: dict[str, Any] = {"metadata": {"vital_user_id": "u-1"}}  # no callbacks: the guard attaches the handler
PERSON = {"title": "Person", "description": "A person.", "type": "object", "properties": {"name": {"type": "string"}}}

Limit = Callable[..., None]


class Person(BaseModel):
    """A person."""

    name: str = Field(description="The name of the person.")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def limit(store: PostgresStore) -> Limit:
    """Sets a budget of every user, in calls; by default one that is used up from the start."""

    def set_budget(action: str, total_limit: str = "0", **more: Any) -> None:
        budget = {
            "entity_type": "user",
            "entity_id": "*",
            "metric": "calls",
            "action": action,
            "total_limit": total_limit,
        }
        store.call("set_budget_v1", budget=json.dumps(budget | more))

    return set_budget


class Refuses(BaseCallbackHandler):
    """A handler of the team's own that lets no call begin."""

    raise_error = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError


def held(rows: Rows) -> list[Any]:
    """What is set aside for calls that were never made; nothing, if all is well."""
    return [row["granted"] for row in rows("select granted from budget_windows where granted <> 0")]


async def asked(model: Any, mode: str, config: Any = None, question: Any = "Hi") -> Any:
    """Ask in one of MODES; also where an async v3 stream does not even start."""
    if mode == "astream_events_v3":
        return await (await model.astream_events(question, config, version="v3"))
    return await ask(model, mode, config, question)


# What a guarded model is


@pytest.mark.parametrize("make", [ProviderServer.chat_openai, ProviderServer.chat_anthropic])
def test_a_guarded_model_is_of_the_models_own_class(
    tracker: VitalTracker, provider: ProviderServer, make: Callable[..., BaseChatModel]
) -> None:
    """isinstance, names and serialization are what code elsewhere decides by; the model itself stays as it was."""
    model = make(provider, temperature=0.5, tags=["mine"])
    guarded = tracker.guard(model)
    cls = type(guarded)
    assert cls is not type(model)
    assert isinstance(guarded, type(model))
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(cls, name) == getattr(type(model), name)
    assert cls.lc_id() == type(model).lc_id()
    assert dumpd(guarded) == dumpd(model)
    assert guarded.model_dump() == model.model_dump()
    assert guarded.callbacks is model.callbacks is None
    assert guarded.tags == ["mine"]
    guarded.temperature = 0.1
    assert model.temperature == 0.5


def test_copies_of_a_guarded_model_are_guarded(tracker: VitalTracker, provider: ProviderServer, limit: Limit) -> None:
    """model_copy, configurable fields and instances of the guarded class must not slip past the budget."""
    limit("block")
    guarded = tracker.guard(provider.chat_openai(temperature=0))
    configurable = guarded.configurable_fields(temperature=ConfigurableField(id="temperature"))
    fresh = type(guarded)(**provider._client("gpt-4o-mini", "/v1"))
    for copied in (
        guarded.model_copy(update={"temperature": 1}),
        guarded.model_copy(deep=False),
        configurable.with_config(configurable={"temperature": 1}),
        guarded.bind(temperature=1),
        guarded.with_config(tags=["x"]),
        fresh,
    ):
        with pytest.raises(BudgetExceeded):
            copied.invoke("Hi", USER)
    assert provider.requests == []


def test_a_class_made_in_a_function_can_be_guarded(tracker: VitalTracker, rows: Rows) -> None:
    """A team's own model, wherever it is defined."""

    class Options(BaseModel):
        answer: str = "yes"

    class Local(BaseChatModel):
        options: Options

        @property
        def _llm_type(self) -> str:
            return "local"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self.options.answer))])

    guarded = tracker.guard(Local(options=Options()))
    assert guarded.invoke("Hi", USER).content == "yes"
    assert only(stored(tracker, rows))["user_id"] == "u-1"


def test_what_cannot_be_guarded_is_refused_at_once(tracker: VitalTracker, provider: ProviderServer) -> None:
    """Not on the day when the money is gone."""
    model = provider.chat_openai()
    azure = model.model_copy()
    azure.__dict__["deployment_name"] = (
        "gpt-4o"  # as AzureChatOpenAI has it: the deployment decides, whatever the model says
    )
    for wrong, downgrade_to in (
        (model.bind(stop=["x"]), None),
        (RunnableLambda(str), None),
        (model, [3]),
        (model, model.bind(stop=["x"])),
        (azure, "gpt-4o-mini"),
    ):
        with pytest.raises(TypeError):
            tracker.guard(wrong, downgrade_to=downgrade_to)


# Recording


@pytest.mark.parametrize("attached", ["by the guard", "by config", "by a scope", "by install", "on the model"])
async def test_every_call_is_one_row(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit, attached: str
) -> None:
    """However the handler comes to the call, and with a budget that holds money for it: once, and with its context."""
    limit("block", "1000")
    config = dict(USER)
    model = provider.chat_openai()
    if attached == "by config":
        config["callbacks"] = [tracker.handler]
    if attached == "by install":
        tracker.install()
    if attached == "on the model":
        model.callbacks = [tracker.handler]
    guarded = tracker.guard(model)

    async def all_modes() -> None:
        for mode in MODES:
            answer = await asked(guarded, mode, config)
            assert answer.text == "Hello there."

    if attached == "by a scope":
        with tracker.conversation(user_id="u-1", session_id="s-1"):
            await all_modes()
    else:
        await all_modes()
    found = stored(tracker, rows)
    assert len(found) == len(provider.requests) == len(MODES)
    for row in found:
        assert (row["user_id"], row["status"], row["model"]) == ("u-1", "ok", "gpt-4o-mini")
        assert (row["requested_model"], row["budget_action"], row["throttled_ms"]) == (None, None, None)
        assert row["total_cost"] == dollars((100, "0.15"), (20, "0.60"))
    assert rows("select spent from budget_windows") == [{"spent": len(MODES)}]


async def test_without_budgets_calls_are_recorded_all_the_same(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A guard is also a way to attach the handler."""
    guarded = tracker.guard(provider.chat_anthropic())
    for mode in MODES:
        await asked(guarded, mode, USER)
    assert [row["model"] for row in stored(tracker, rows)] == ["claude-haiku-4-5"] * len(MODES)


async def test_the_callers_run_tags_and_metadata_are_on_the_row(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Names, ids and tags that the caller gives are those of the row, also where another model answers."""
    limit("downgrade")
    model = provider.chat_openai(model="gpt-4o", tags=["model"], metadata={"vital_session_id": "s-1"})
    for downgrade_to in ("gpt-4o-mini", provider.chat_anthropic(model="claude-3-haiku-20240307")):
        guarded = tracker.guard(model, downgrade_to=downgrade_to)
        for mode in ("invoke", "astream"):
            await asked(guarded, mode, {**USER, "tags": ["caller"], "run_name": "named"})
    found = stored(tracker, rows)
    assert [row["model"] for row in found] == ["gpt-4o-mini"] * 2 + ["claude-3-haiku-20240307"] * 2
    for row in found:
        assert (row["user_id"], row["session_id"], sorted(row["tags"])) == ("u-1", "s-1", ["caller", "model"])


# Block


async def test_a_used_up_budget_stops_every_way_of_asking(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """No request leaves, the caller gets the error, and one row says so."""
    limit("block")
    guarded = tracker.guard(provider.chat_openai())
    for mode in MODES:
        with pytest.raises(BudgetExceeded) as caught:
            await asked(guarded, mode, USER)
        assert (caught.value.action, caught.value.entity_type, caught.value.entity_id) == ("block", "user", "u-1")
        assert isinstance(caught.value, GraphBubbleUp)  # LangGraph is imported here
    assert provider.requests == []
    found = stored(tracker, rows)
    assert len(found) == len(MODES)
    for row in found:
        assert (row["status"], row["total_cost"], row["model"], row["user_id"]) == ("blocked", 0, "gpt-4o-mini", "u-1")
    assert held(rows) == []


async def test_a_batch_stops_where_the_money_ends(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """50 questions at once with money for 10: ten requests, and nothing is left set aside."""
    limit("block", "10")
    guarded = tracker.guard(provider.chat_openai())
    answers = await guarded.abatch(["Hi"] * 50, USER, return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 40
    assert len(provider.requests) == 10
    answers = guarded.batch(["Hi"] * 5, USER, return_exceptions=True)
    assert all(isinstance(answer, BudgetExceeded) for answer in answers)
    states = [row["status"] for row in stored(tracker, rows)]
    assert (states.count("ok"), states.count("blocked"), len(provider.requests)) == (10, 45, 10)
    assert held(rows) == []


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")  # ChatOpenAI, where OpenAI's answers hold nulls
async def test_several_prompts_of_one_request_are_asked_together_or_not_at_all(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """generate([a, b, c]) with money for two: no request at all, and the two holds go back."""
    limit("block", "2")
    guarded = tracker.guard(provider.chat_openai())
    three = [[HumanMessage("Hi")]] * 3
    with pytest.raises(BudgetExceeded):
        guarded.generate(three, metadata=USER["metadata"])
    with pytest.raises(BudgetExceeded):
        await guarded.agenerate(three, metadata=USER["metadata"])
    assert provider.requests == []
    result = await guarded.agenerate(three[:2], metadata=USER["metadata"])
    assert len(result.generations) == len(provider.requests) == 2
    assert [row["status"] for row in stored(tracker, rows)] == ["blocked", "blocked", "ok", "ok"]
    assert held(rows) == []


async def test_a_stream_takes_its_money_when_it_begins_and_gives_back_the_rest(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit, rows: Rows
) -> None:
    """A stream that nobody reads takes no money, and one that is broken off gives back what it did not use."""
    limit("block", "1")
    guarded = tracker.guard(provider.chat_openai())
    guarded.stream("Hi", USER)
    guarded.astream("Hi", USER)
    guarded.stream_events("Hi", USER, version="v3")
    await guarded.astream_events("Hi", USER, version="v3")
    assert provider.requests == []
    stream = guarded.stream("Hi", USER)
    next(stream)
    stream.close()
    assert only(stored(tracker, rows))["status"] == "cancelled"
    late = guarded.stream_events("Hi", USER, version="v3")
    for _ in range(2):  # a stopped stream stays stopped
        with pytest.raises(BudgetExceeded):
            _ = late.output
    with pytest.raises(BudgetExceeded):
        list(late.text)
    async with await guarded.astream_events("Hi", USER, version="v3") as stopped_stream:
        with pytest.raises(BudgetExceeded):
            await stopped_stream.text
        with pytest.raises(BudgetExceeded):
            await stopped_stream.output
    assert len(provider.requests) == 1
    assert held(rows) == []


async def test_calls_made_between_chunks_are_admitted_for_themselves(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Calls that are made while a guarded stream is read are admitted and recorded for themselves."""
    limit("block", "3")
    guarded = tracker.guard(provider.chat_openai())
    stream = guarded.stream("Hi", USER)
    next(stream)
    guarded.invoke("Hi", USER)
    list(stream)
    astream = guarded.astream("Hi", USER)
    await anext(astream)
    with pytest.raises(BudgetExceeded):
        await guarded.ainvoke("Hi", USER)
    assert [chunk.text async for chunk in astream][-1] == ""
    assert [row["status"] for row in stored(tracker, rows)] == ["ok", "ok", "ok", "blocked"]
    assert len(provider.requests) == 3


async def test_retries_and_fallbacks_of_a_stopped_call_make_no_request(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """with_retry asks again and is refused again; with_fallbacks goes to a model that is guarded too."""
    limit("block")
    guarded = tracker.guard(provider.chat_openai())
    other = tracker.guard(provider.chat_anthropic())
    for runnable in (
        guarded.with_retry(stop_after_attempt=2, wait_exponential_jitter=False),
        guarded.with_fallbacks([other]),
    ):
        with pytest.raises(BudgetExceeded):
            runnable.invoke("Hi", USER)
        with pytest.raises(BudgetExceeded):
            await runnable.ainvoke("Hi", USER)
    assert provider.requests == []


# Downgrade


async def test_a_cheaper_model_of_the_same_provider_answers(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """The row says which model answered, which was asked for, and why; also where the dearer name was bound."""
    limit("downgrade", downgrade_to="gpt-4o-mini")
    guarded = tracker.guard(provider.chat_openai(model="gpt-4o", temperature=0.5), downgrade_to="gpt-4o-mini")
    for mode in MODES:
        assert (await asked(guarded, mode, USER)).text == "Hello there."
    guarded.bind(model="gpt-4.1").invoke("Hi", USER)
    found = stored(tracker, rows)
    assert len(found) == len(provider.requests) == len(MODES) + 1
    assert {(request.body["model"], request.body["temperature"]) for request in provider.requests} == {
        ("gpt-4o-mini", 0.5)
    }
    assert [row["requested_model"] for row in found] == ["gpt-4o"] * len(MODES) + ["gpt-4.1"]
    for row in found:
        assert (row["model"], row["budget_action"], row["status"]) == ("gpt-4o-mini", "downgrade", "ok")
        assert row["total_cost"] == dollars((100, "0.15"), (20, "0.60"))
    assert held(rows) == []


async def test_a_model_of_another_provider_answers(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """In every way of asking, and without what was bound for the first provider only."""
    limit("downgrade", downgrade_to="claude-haiku-4-5")
    cheaper = provider.chat_anthropic(max_tokens=99)
    guarded = tracker.guard(provider.chat_openai(model="gpt-4"), downgrade_to=cheaper)
    for mode in MODES:
        assert (await asked(guarded, mode, USER)).text == "Hello there."
    guarded.bind(logprobs=True, temperature=0.25, max_completion_tokens=11).invoke("Hi", USER)
    found = stored(tracker, rows)
    assert len(found) == len(MODES) + 1
    for row in found:
        assert (row["provider"], row["model"], row["requested_model"]) == ("anthropic", "claude-haiku-4-5", "gpt-4")
        assert (row["budget_action"], row["status"]) == ("downgrade", "ok")
    assert {request.path for request in provider.requests} == {"/v1/messages"}
    assert provider.requests[0].body["max_tokens"] == 99
    bound = provider.requests[-1].body
    assert (bound["temperature"], bound["max_tokens"], "logprobs" in bound) == (0.25, 11, False)
    assert cheaper.callbacks is None


@pytest.mark.parametrize("downgraded", [False, True])
async def test_v3_streams_show_what_they_show_unguarded(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit, downgraded: bool
) -> None:
    """Text as it comes, tool calls, every event, and the message: also read twice, and by readers that wait side by side."""
    limit("downgrade", "0" if downgraded else "1000")
    plain = provider.chat_anthropic() if downgraded else provider.chat_openai(model="gpt-4o")
    dear = tracker.guard(provider.chat_openai(model="gpt-4o"), downgrade_to=provider.chat_anthropic())
    guarded: Any = dear.bind_tools([add])
    provider.reply(Reply(text="One two three.", tool_calls=[("add", {"a": 1, "b": 2})]))

    def shown(events: Any) -> list[Any]:
        return [{key: value for key, value in event.items() if key in ("event", "index", "delta")} for event in events]

    expected = shown(plain.bind_tools([add]).stream_events("Hi", version="v3"))
    stream = guarded.stream_events("Hi", USER, version="v3")
    assert "".join(stream.text) == str(stream.text) == "One two three."
    assert shown(stream) == shown(stream) == expected
    assert [call["name"] for call in stream.tool_calls.get()] == ["add"]
    assert stream.output.id is not None
    astream = await guarded.astream_events("Hi", USER, version="v3")
    text, calls, message = await asyncio.gather(astream.text, astream.tool_calls, astream)
    assert (text, [call["name"] for call in calls], message.text) == ("One two three.", ["add"], "One two three.")
    assert shown([event async for event in astream]) == expected
    found = stored(tracker, rows)
    assert len(found) == 2
    assert len(provider.requests) == 3
    for row, output in zip(found, (stream.output, message), strict=True):
        assert row["run_id"] in output.id
        assert row["ttft_ms"] is not None


def test_the_best_model_that_may_still_be_used_answers(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """The best model that may still be used answers; below the last one the call stops, and the row names both models."""
    limit("downgrade", downgrade_to="claude-haiku-4-5")
    haiku, gpt4 = provider.chat_anthropic(model="claude-3-haiku-20240307"), provider.chat_openai(model="gpt-4")
    chains: list[tuple[Any, str]] = [
        (["gpt-4o-mini", haiku], "gpt-4o-mini"),
        (["gpt-4.1", haiku], "claude-3-haiku-20240307"),
        ([gpt4, "gpt-4.1-nano"], "gpt-4.1-nano"),
    ]
    for chain, model in chains:
        tracker.guard(provider.chat_openai(model="gpt-4o"), downgrade_to=chain).invoke("Hi", USER)
        assert provider.requests[-1].body["model"] == model
    with pytest.raises(BudgetExceeded) as caught:
        tracker.guard(provider.chat_openai(model="gpt-4o"), downgrade_to=["gpt-4.1", gpt4]).invoke("Hi", USER)
    assert caught.value.action == "downgrade"
    *ok, stop = stored(tracker, rows)
    assert [(row["model"], row["requested_model"]) for row in ok] == [(model, "gpt-4o") for _, model in chains]
    assert (stop["status"], stop["model"], stop["requested_model"]) == ("blocked", "gpt-4", "gpt-4o")
    assert len(provider.requests) == len(chains)
    assert held(rows) == []


def test_without_a_cheaper_model_a_downgrade_stops(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """And a model that is cheap enough already goes on."""
    limit("downgrade", downgrade_to="gpt-4o-mini")
    with pytest.raises(BudgetExceeded):
        tracker.guard(provider.chat_openai(model="gpt-4o")).invoke("Hi", USER)
    tracker.guard(provider.chat_openai(model="gpt-4o-mini")).invoke("Hi", USER)
    assert [row["status"] for row in stored(tracker, rows)] == ["blocked", "ok"]


def test_the_cheaper_models_answer_is_cached_for_itself(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, limit: Limit
) -> None:
    """LangChain's cache must not hand out a cheap answer as the dear model's, nor the other way round."""
    set_llm_cache(InMemoryCache())
    try:
        model = provider.chat_openai(model="gpt-4o")
        free = make_tracker()
        free.guard(model, downgrade_to="gpt-4o-mini").invoke("Hi", USER)
        limit("downgrade", downgrade_to="gpt-4o-mini")
        bound = make_tracker()
        for _ in range(2):
            bound.guard(model, downgrade_to="gpt-4o-mini").invoke("Hi", USER)
        assert [request.body["model"] for request in provider.requests] == ["gpt-4o", "gpt-4o-mini"]
    finally:
        set_llm_cache(None)


def test_a_default_limit_of_the_dearer_model_is_not_asked_of_the_cheaper(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit
) -> None:
    """ChatAnthropic sets max_tokens to the most that its model can: a smaller model would refuse the request."""
    limit("downgrade")
    model = provider.chat_anthropic(model="claude-opus-5")
    assert model.max_tokens == 128_000
    tracker.guard(model, downgrade_to="claude-haiku-4-5").invoke("Hi", USER)
    assert (
        provider.requests[-1].body["max_tokens"]
        == provider.chat_anthropic(model="claude-haiku-4-5").max_tokens
        == 64_000
    )


# Tools and structured answers


@pytest.mark.parametrize("first", ["openai", "anthropic"])
def test_bound_tools_go_along_to_another_providers_model(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit, first: str
) -> None:
    """In its own form; the bound model shows no trace of it, and tools bound by hand go along too."""
    limit("downgrade")
    pair = [provider.chat_openai(), provider.chat_anthropic()]
    if first == "anthropic":
        pair.reverse()
    guarded = tracker.guard(pair[0], downgrade_to=pair[1])
    provider.reply(Reply(text="", tool_calls=[("add", {"a": 1, "b": 2})]))
    bound = guarded.bind_tools([add], tool_choice="any", parallel_tool_calls=False)
    assert bound.kwargs == pair[0].bind_tools([add], tool_choice="any", parallel_tool_calls=False).kwargs
    assert dumpd(bound) == dumpd(pair[0].bind_tools([add], tool_choice="any", parallel_tool_calls=False))
    by_hand = guarded.bind(tools=bound.kwargs["tools"], tool_choice=bound.kwargs["tool_choice"])
    expected = pair[1].bind_tools([add], tool_choice="any", parallel_tool_calls=False).kwargs
    for runnable, kwargs in ((bound, expected), (by_hand, pair[1].bind_tools([add], tool_choice="any").kwargs)):
        answer = runnable.invoke("Hi", USER)
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 1, "b": 2})]
        sent = provider.requests[-1]
        assert sent.path == ("/v1/messages" if first == "openai" else "/v1/chat/completions")
        assert {name: sent.body[name] for name in kwargs} == kwargs
    for choice in (
        "required",
        True,
        {"type": "tool", "name": "add"},
        {"type": "function", "function": {"name": "add"}},
    ):
        guarded.bind(tools=bound.kwargs["tools"], tool_choice=choice).invoke("Hi", USER)
        name = "add" if isinstance(choice, dict) else "any"
        wanted = pair[1].bind_tools([add], tool_choice=name).kwargs["tool_choice"]
        assert provider.requests[-1].body["tool_choice"] == wanted
    guarded.bind(tools=bound.kwargs["tools"], tool_choice="none").invoke("Hi", USER)
    assert "tools" not in provider.requests[-1].body


@pytest.mark.parametrize("over", [False, True])
async def test_structured_answers_come_from_whoever_answers(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit, over: bool
) -> None:
    """One parser reads the answers of every model on the downgrade chain."""
    limit("downgrade", "0" if over else "1000")
    guarded = tracker.guard(provider.chat_openai(model="gpt-4o"), downgrade_to=provider.chat_anthropic())
    provider.reply(Reply(text="", tool_calls=[("Person", {"name": "Ada"})]))
    for schema, expected in ((Person, Person(name="Ada")), (PERSON, {"name": "Ada"})):
        plain = guarded.with_structured_output(schema)
        assert plain.invoke("Hi", USER) == expected
        assert await plain.ainvoke("Hi", USER) == expected
        assert [part async for part in plain.astream("Hi", USER)][-1] == expected
        raw = guarded.with_structured_output(schema, include_raw=True).invoke("Hi", USER)
        assert (raw["parsed"], raw["parsing_error"], raw["raw"].tool_calls[0]["name"]) == (expected, None, "Person")
    assert {request.path for request in provider.requests} == {"/v1/messages" if over else "/v1/chat/completions"}


def test_structured_answers_of_one_provider_keep_its_own_format(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit
) -> None:
    """A downgrade chain of one provider keeps what that provider does best (here: a JSON schema)."""
    limit("downgrade", downgrade_to="gpt-4o-mini")
    guarded = tracker.guard(provider.chat_openai(model="gpt-4o"), downgrade_to="gpt-4o-mini")
    provider.reply(Reply(text='{"name": "Ada"}'))
    assert guarded.with_structured_output(Person).invoke("Hi", USER) == Person(name="Ada")
    sent = provider.requests[-1].body
    assert (sent["model"], sent["response_format"]["type"]) == ("gpt-4o-mini", "json_schema")
    provider.reply(Reply(text="", tool_calls=[("Person", {"name": "Ada"})]))
    by_tool = guarded.with_structured_output(Person, method="function_calling", include_raw=True)
    assert by_tool.invoke("Hi", USER)["parsed"] == Person(name="Ada")
    assert provider.requests[-1].body["model"] == "gpt-4o-mini"


# Throttle


async def test_a_throttled_call_waits_for_its_slot(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """In every way of asking, and the row says how long."""
    limit("throttle", throttle_interval_s="0.2")
    guarded = tracker.guard(provider.chat_openai())
    begun = time.monotonic()
    await asyncio.gather(*(asked(guarded, mode, USER) for mode in MODES))
    assert time.monotonic() - begun > 0.2 * (len(MODES) - 1) * 0.9
    found = stored(tracker, rows)
    assert len(found) == len(provider.requests) == len(MODES)
    assert {row["status"] for row in found} == {"ok"}
    waited = [row for row in found if row["throttled_ms"]]
    assert len(waited) >= len(MODES) // 2  # a slow machine may bring one of them just when its slot has come
    assert {row["budget_action"] for row in waited} == {"throttle"}
    assert max(row["throttled_ms"] for row in waited) > 1000


async def test_waiting_calls_do_not_hold_up_the_event_loop(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Everything else in the process goes on while calls wait for their slots."""
    limit("throttle", throttle_interval_s="0.4")
    guarded = tracker.guard(provider.chat_openai())
    await guarded.ainvoke("Hi", USER)
    lags: list[float] = []

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - before - 0.005)

    watcher = asyncio.create_task(watch())
    begun = time.monotonic()
    await asyncio.gather(*(guarded.ainvoke("Hi", USER) for _ in range(4)))
    assert time.monotonic() - begun > 1.2
    watcher.cancel()
    assert max(lags) < 0.3  # less than any wait for a slot
    assert len(stored(tracker, rows)) == 5


async def test_a_slot_that_is_too_far_off_stops_the_call(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """max_wait is the longest wait; the error says when to try again."""
    limit("throttle", throttle_interval_s="60")
    guarded = tracker.guard(provider.chat_openai(), max_wait=0.5)
    guarded.invoke("Hi", USER)
    for mode in ("invoke", "ainvoke", "stream", "astream_events_v3"):
        with pytest.raises(BudgetThrottled) as caught:
            await asked(guarded, mode, USER)
        assert caught.value.retry_after == pytest.approx(60, abs=15)
    assert [row["status"] for row in stored(tracker, rows)] == ["ok"] + ["blocked"] * 4
    assert len(provider.requests) == 1


async def test_a_call_cancelled_while_it_waits_leaves_nothing_behind(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Neither a request nor money set aside for it."""
    limit("block", "10")
    limit("throttle", throttle_interval_s="5")
    guarded = tracker.guard(provider.chat_openai())
    await guarded.ainvoke("Hi", USER)
    waiting = [
        asyncio.create_task(guarded.ainvoke("Hi", USER)),
        asyncio.create_task(guarded.agenerate([[HumanMessage("Hi")]] * 2, metadata=USER["metadata"])),
        asyncio.create_task(asked(guarded, "astream", USER)),
        asyncio.create_task(asked(guarded, "astream_events_v3", USER)),
    ]
    await asyncio.sleep(0.3)
    for task in waiting:
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert len(provider.requests) == 1
    stored(tracker, rows)
    assert rows("select distinct spent from budget_windows") == [{"spent": 1}]
    assert tracker.close().complete
    assert held(rows) == []


# Clamping


async def test_an_answer_is_cut_to_what_the_window_can_pay(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, store: PostgresStore
) -> None:
    """A strict budget near its end: the request asks for a shorter answer, however its length was given."""
    budget = {"entity_type": "user", "metric": "tokens", "action": "block", "total_limit": "500", "strict": True}
    store.call("set_budget_v1", budget=json.dumps(budget))
    provider.reply(Reply(input_tokens=2, output_tokens=1))
    for model, field in (
        (provider.chat_openai(), "max_completion_tokens"),
        (provider.chat_openai(max_tokens=100_000), "max_completion_tokens"),
        (provider.chat_openai(max_tokens=100_000, use_responses_api=True), "max_output_tokens"),
        (provider.chat_anthropic(), "max_tokens"),
    ):
        for runnable in (tracker.guard(model), tracker.guard(model).bind(max_tokens=50_000)):
            for mode in ("invoke", "astream"):
                await asked(runnable, mode, USER)
                assert 16 <= provider.requests[-1].body[field] <= 500
    short = tracker.guard(provider.chat_openai(max_tokens=20))
    await asked(short, "invoke", USER)
    assert provider.requests[-1].body["max_completion_tokens"] == 20  # what fits stays as it was
    assert {row["status"] for row in stored(tracker, rows)} == {"ok"}


# Around the model


async def test_in_chains_and_graphs_the_run_around_says_which_budget_counts(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """The context of the run around the model decides which budget it meets, and the stop comes out of the graph."""
    limit("block", "4")
    guarded = tracker.guard(provider.chat_openai())
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | guarded | StrOutputParser()
    assert chain.invoke({"question": "Hi"}, USER) == "Hello there."
    assert [text async for text in chain.astream({"question": "Hi"}, USER)]

    async def node(state: Any) -> dict[str, Any]:
        return {"messages": [await guarded.ainvoke(state["messages"])]}

    attempts: list[int] = []

    def sync_node(state: Any) -> dict[str, Any]:
        attempts.append(1)
        return {"messages": [guarded.invoke(state["messages"])]}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=Exception)
    builder = StateGraph(MessagesState).add_node("one", node).add_node("two", sync_node, retry_policy=policy)
    graph = builder.add_edge(START, "one").add_edge("one", "two").compile()
    question = {"messages": [("user", "Hi")]}
    await graph.ainvoke(question, USER)
    with pytest.raises(BudgetExceeded):
        await graph.ainvoke(question, USER)
    builder = StateGraph(MessagesState).add_node("two", sync_node, retry_policy=policy)
    with pytest.raises(BudgetExceeded):
        builder.add_edge(START, "two").compile().invoke(question, USER)
    assert len(attempts) == 2  # LangGraph did not try the stopped node again
    found = stored(tracker, rows)
    assert [row["status"] for row in found] == ["ok"] * 4 + ["blocked"] * 2
    assert {row["user_id"] for row in found} == {"u-1"}
    assert [row["workflow_step"] for row in found] == [None, None, "one", "two", "one", "two"]
    assert len(provider.requests) == 4


async def test_in_scopes_and_threads_the_open_scope_says_which_budget_counts(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """The open scope says whose money it is, although no config is handed on."""
    limit("block", "2")
    guarded = tracker.guard(provider.chat_openai())
    with tracker.conversation(user_id="u-1", session_id="s-1"):
        guarded.invoke("Hi")
        await asyncio.to_thread(guarded.invoke, "Hi")
        with pytest.raises(BudgetExceeded):
            await guarded.ainvoke("Hi")
    with tracker.conversation(user_id="u-2", session_id="s-2"):
        guarded.invoke("Hi")
    found = stored(tracker, rows)
    assert [(row["user_id"], row["status"]) for row in found] == [
        ("u-1", "ok"), ("u-1", "ok"), ("u-1", "blocked"), ("u-2", "ok"),
    ]  # fmt: skip


def test_a_model_guarded_twice_pays_once(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Guarding twice, or going down to a guarded model, takes the money once and records the call once."""
    limit("downgrade", "1", downgrade_to="gpt-4o-mini")
    model = provider.chat_openai(model="gpt-4o")
    guarded = tracker.guard(model, downgrade_to="gpt-4o-mini")
    assert tracker.guard(guarded) is guarded
    again = tracker.guard(
        tracker.guard(model),
        downgrade_to=tracker.guard(provider.chat_openai(model="gpt-4"), downgrade_to="gpt-4o-mini"),
    )
    again.invoke("Hi", USER)
    again.invoke("Hi", USER)
    first, second = stored(tracker, rows)
    assert (first["model"], first["requested_model"]) == ("gpt-4o", None)
    assert (second["model"], second["requested_model"]) == ("gpt-4o-mini", "gpt-4o")
    assert held(rows) == []


def test_a_router_around_a_guarded_model_is_admitted_once(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """A team's router that hands calls on: the inner guard still asks, and an outer one does not ask twice for one call."""
    limit("block", "1")

    class Proxy(BaseChatModel):
        inner: BaseChatModel

        @property
        def _llm_type(self) -> str:
            return "proxy"

        def generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return self.inner.generate(messages, *args, **kwargs)

        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError

    proxy = tracker.guard(Proxy(inner=tracker.guard(provider.chat_openai())))
    assert proxy.invoke("Hi", USER).text == "Hello there."
    with pytest.raises(BudgetExceeded):
        proxy.invoke("Hi", USER)
    assert [row["status"] for row in stored(tracker, rows)] == ["ok", "blocked"]
    assert held(rows) == []


def test_money_goes_back_where_another_handler_stops_the_call(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """A handler of the team that refuses the call before ours has seen it: what was admitted is free again."""

    limit("block", "1")
    refusing = {**USER, "callbacks": [Refuses()]}
    for _ in range(3):
        with pytest.raises(PermissionError):
            tracker.guard(provider.chat_openai()).invoke("Hi", refusing)
        with pytest.raises(PermissionError):
            list(tracker.guard(provider.chat_openai()).stream("Hi", refusing))
    assert provider.requests == []
    assert tracker.guard(provider.chat_openai()).invoke("Hi", USER).text == "Hello there."


# Faults


class Broken:
    """A controller in which everything goes wrong that must not: the guard's last line of defence."""

    active = True

    def admit(self, request: Request, **options: Any) -> Admission:
        raise RuntimeError

    async def aadmit(self, request: Request, **options: Any) -> Admission:
        raise RuntimeError

    def release(self, admission: Admission) -> None:
        raise RuntimeError


async def test_a_fault_of_ours_breaks_no_call(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """It is counted, and the call is made."""
    broken: Any = Broken()
    guarded = guard(provider.chat_openai(), controller=broken, handler=tracker.handler, downgrade_to="gpt-4o-mini")
    for mode in MODES:
        assert (await asked(guarded, mode, USER)).text == "Hello there."
    assert tracker.flush().complete
    assert len(rows()) == len(provider.requests) == len(MODES)
    assert tracker.stats().faults == len(MODES)
    broken.admit = lambda request, **options: Admission()
    with pytest.raises(PermissionError):  # not what releasing raises
        guarded.invoke("Hi", {**USER, "callbacks": [Refuses()]})
    assert tracker.stats().faults == len(MODES) + 1


async def test_an_invalid_question_fails_as_it_does_unguarded(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit
) -> None:
    """The user's error, not ours, and no fault is counted."""
    limit("block", "10")
    model = provider.chat_openai()
    guarded = tracker.guard(model)
    wrong: Any = 3
    for mode in MODES:
        with pytest.raises(ValueError, match="Invalid input type") as plain:
            await asked(model, mode, USER, wrong)
        with pytest.raises(ValueError, match="Invalid input type") as ours:
            await asked(guarded, mode, USER, wrong)
        assert str(ours.value) == str(plain.value)
    assert tracker.stats().faults == 0


def test_a_closed_tracker_lets_calls_through(tracker: VitalTracker, provider: ProviderServer) -> None:
    """The user's model goes on working when the tracker has been closed."""
    guarded = tracker.guard(provider.chat_openai())
    tracker.close()
    assert guarded.invoke("Hi", USER).text == "Hello there."


# The error as it is raised


@pytest.mark.parametrize("kind", [BudgetExceeded, BudgetThrottled, BudgetUnavailable])
def test_the_error_of_a_stopped_call_passes_langgraph_and_pickling(kind: type[BudgetExceeded]) -> None:
    """Its class is ours in name, by except clauses and after pickling (process pools, task queues)."""
    plain = kind(Stop(action="block", entity_type="user", entity_id="u-1"))
    error = stopped(plain)
    assert isinstance(error, kind)
    assert isinstance(error, GraphBubbleUp)
    assert (type(error).__name__, type(error).__qualname__, str(error)) == (
        kind.__name__,
        kind.__qualname__,
        str(plain),
    )
    assert stopped(error) is error
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.stop) == (kind, plain.stop)
