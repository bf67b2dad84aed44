"""VitalMiddleware: an agent of `create_agent` whose model's calls are recorded and guarded, without callbacks or scopes.

If one of these fails, an agent spends what nobody allowed, or its calls are missing from the bill.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.integration.helpers import Rows
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import VitalTracker
from vital_tracking.errors import BudgetExceeded
from vital_tracking.langchain.middleware import VitalMiddleware
from vital_tracking.stores.postgres import PostgresStore

USER: dict[str, Any] = {"metadata": {"vital_user_id": "u-1"}}
QUESTION: Any = {"messages": [("user", "What is 1 + 2?")]}
CALL = Reply(text="", tool_calls=[("add", {"a": 1, "b": 2})])

Limit = Callable[..., None]


class Sum(BaseModel):
    """The sum."""

    total: int


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


async def test_an_agents_calls_are_recorded_without_a_handler(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """The middleware alone is enough; a handler in the config changes nothing."""
    agent = create_agent(provider.chat_openai(), [add], middleware=[VitalMiddleware(tracker)], name="adder")
    for config in (USER, {**USER, "callbacks": [tracker.handler]}):
        provider.script([CALL, Reply(text="3"), CALL, Reply(text="3")])
        assert agent.invoke(QUESTION, config)["messages"][-1].text == "3"
        assert (await agent.ainvoke(QUESTION, config))["messages"][-1].text == "3"
    found = stored(tracker, rows)
    assert len(found) == len(provider.requests) == 8
    for row in found:
        assert (row["user_id"], row["agent_id"], row["framework"], row["status"]) == ("u-1", "adder", "langgraph", "ok")
        assert row["workflow_step"] == "model"


@pytest.mark.parametrize("middleware", ["none", "retry", "fallback"])
async def test_a_stopped_agent_makes_no_request(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit, middleware: str
) -> None:
    """LangChain's retry and fallback middleware swallow errors: this one they must let pass."""
    limit("block", "1")
    around: dict[str, list[Any]] = {
        "none": [],
        "retry": [ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)],
        "fallback": [ModelFallbackMiddleware(provider.chat_anthropic())],
    }
    agent = create_agent(provider.chat_openai(), [add], middleware=[*around[middleware], VitalMiddleware(tracker)])
    provider.script([CALL])
    with pytest.raises(BudgetExceeded):
        agent.invoke(QUESTION, USER)
    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(QUESTION, USER)
    assert len(provider.requests) == 1
    assert [row["status"] for row in stored(tracker, rows)] == ["ok", "blocked", "blocked"]


async def test_a_fallback_behind_the_middleware_meets_the_budget_too(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """If this failed, listing the middleware first would let a fallback's calls go unasked and unrecorded."""
    limit("block", "1")
    behind = ModelFallbackMiddleware(provider.chat_anthropic())
    agent = create_agent(provider.chat_openai(), middleware=[VitalMiddleware(tracker), behind])
    provider.script([Reply(status=500)])
    with pytest.raises(BudgetExceeded):
        agent.invoke(QUESTION, USER)
    with pytest.raises(BudgetExceeded):
        await agent.ainvoke(QUESTION, USER)
    assert len(provider.requests) == 1
    assert [row["status"] for row in stored(tracker, rows)] == ["error", "blocked", "blocked"]


@pytest.mark.parametrize("other", [False, True])
async def test_an_agent_goes_on_with_a_cheaper_model(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit, other: bool
) -> None:
    """In the middle of its work, with its tools and its structured answer."""
    limit("downgrade", "1")
    cheaper = provider.chat_anthropic() if other else "gpt-4o-mini"
    agent = create_agent(
        provider.chat_openai(model="gpt-4o"),
        [add],
        middleware=[VitalMiddleware(tracker, downgrade_to=cheaper)],
        response_format=ToolStrategy(Sum),
    )
    provider.script([CALL, Reply(text="", tool_calls=[("Sum", {"total": 3})])] * 2)
    assert agent.invoke(QUESTION, USER)["structured_response"] == Sum(total=3)
    assert (await agent.ainvoke(QUESTION, USER))["structured_response"] == Sum(total=3)
    name = "claude-haiku-4-5" if other else "gpt-4o-mini"
    found = stored(tracker, rows)
    assert [row["model"] for row in found] == ["gpt-4o"] + [name] * 3
    assert [row["requested_model"] for row in found] == [None] + ["gpt-4o"] * 3
    sent = [{json.dumps(one).count('"add"') for one in request.body["tools"]} for request in provider.requests]
    assert all(1 in counts for counts in sent)


@pytest.mark.parametrize("tools", [[], [add]])
def test_a_providers_own_structured_answer_goes_along(
    tracker: VitalTracker, provider: ProviderServer, limit: Limit, tools: list[Any]
) -> None:
    """create_agent asks for a JSON schema where the model can: the cheaper provider's model must be asked for it as well."""
    limit("downgrade")
    vital = VitalMiddleware(tracker, downgrade_to=provider.chat_anthropic())
    agent = create_agent(provider.chat_openai(model="gpt-4o"), tools, middleware=[vital], response_format=Sum)
    provider.reply(Reply(text='{"total": 3}'))
    assert agent.invoke(QUESTION, USER)["structured_response"] == Sum(total=3)
    assert provider.requests[-1].path == "/v1/messages"
    assert "output_config" in provider.requests[-1].body


async def test_a_guarded_agent_streams_as_it_does_unguarded(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows, limit: Limit
) -> None:
    """Tokens arrive as they do without it."""
    limit("block", "2")
    agent = create_agent(provider.chat_openai(), middleware=[VitalMiddleware(tracker)])
    pieces = [chunk.text for chunk, _ in agent.stream(QUESTION, USER, stream_mode="messages") if chunk.text]
    assert "".join(pieces) == "Hello there."
    assert len(pieces) > 1
    assert [chunk async for chunk in agent.astream(QUESTION, USER, stream_mode="updates")]
    with pytest.raises(BudgetExceeded):
        list(agent.stream(QUESTION, USER, stream_mode="messages"))
    assert [row["status"] for row in stored(tracker, rows)] == ["ok", "ok", "blocked"]


def test_an_agents_model_is_shadowed_and_its_tools_run_once(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, agents could not be tried on another model, or what their tools do would be done twice."""
    done: list[int] = []

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        done.append(a + b)
        return a + b

    provider.respond_with(lambda request: CALL if len(request.body["messages"]) == 1 else Reply(text="3"))
    agent = create_agent(
        provider.chat_openai(model="gpt-4o"),
        [add],
        middleware=[VitalMiddleware(tracker, shadow="gpt-4o-mini", share=1)],
    )
    answer = agent.invoke(QUESTION, USER)
    assert (answer["messages"][-1].text, len(answer["messages"]), done) == ("3", 4, [3])
    found = stored(tracker, rows)
    shadows = {row["metadata"]["shadow_of"]: row for row in found if "shadow_of" in row["metadata"]}
    assert sorted(shadows) == sorted(str(row["id"]) for row in found if row["model"] == "gpt-4o")
    assert [row["workflow_step"] for row in shadows.values()] == ["model", "model"]
    offered = [[one["function"]["name"] for one in request.body["tools"]] for request in provider.requests]
    assert offered == [["add"]] * 4


def test_a_model_is_guarded_once_and_let_go(tracker: VitalTracker, provider: ProviderServer) -> None:
    """Not anew for every call; and models made for one request do not pile up. A guarded model keeps its own downgrade chain."""
    middleware = VitalMiddleware(tracker, max_wait=1)
    model = provider.chat_openai()
    assert middleware._guard(model) is middleware._guard(model)
    guarded = tracker.guard(model, downgrade_to="gpt-4o-mini")
    assert middleware._guard(guarded) is guarded
    for _ in range(5):
        middleware._guard(provider.chat_openai())
    del model
    gc.collect()
    assert middleware._guarded == {}


@pytest.mark.parametrize("missing", ["langchain", "langgraph"])
def test_without_the_agents_extra_it_says_what_to_install(missing: str) -> None:
    """An ImportError from somewhere inside would leave the reader guessing."""
    code = textwrap.dedent(
        f"""
        import sys
        sys.modules[{missing!r}] = None
        from vital_tracking import MissingExtra
        try:
            import vital_tracking.langchain.middleware
        except MissingExtra as error:
            assert error.extra == "agents"
            print(error)
        """
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 'pip install "vital-tracking[agents]"' in result.stdout
