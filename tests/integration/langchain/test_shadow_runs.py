"""Shadow runs of a guard: a second model is asked in the background, recorded, and otherwise as if it were not there.

If one of these fails, somebody waits for an answer that nobody reads, sees a stream of two models, or pays for
what no budget counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs

from tests.integration.helpers import MODES, Rows, ask, dollars
from tests.support.langsmith_sink import LangSmithSink
from tests.support.provider_server import ProviderServer, Reply, Request
from tests.support.stores import stored
from vital_tracking import VitalTracker, step
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id
from vital_tracking.langchain.shadow import is_chosen
from vital_tracking.queries.shadow import answer_ratio, prompt_ratio, shadow_pairs
from vital_tracking.stores.postgres import PostgresStore

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

USER: RunnableConfig = {"metadata": {"vital_user_id": "u-1"}}
DEAR, CHEAP = "gpt-4o", "gpt-4o-mini"
CONTEXT = (
    "organization_id",
    "user_id",
    "session_id",
    "service_id",
    "service_run_id",
    "workflow_step",
    "message_type",
)


@tool
def look_up(key: str) -> str:
    """Look a key up."""
    raise AssertionError("a shadow's tool calls are nobody's")


class Watcher(BaseCallbackHandler):
    """A handler of the team's own that notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.seen.append(f"start {kwargs['invocation_params'].get('model')}")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.seen.append("end")

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append("error")


def by_model(dear: Reply, cheap: Reply) -> Callable[[Request], Reply]:
    """What each of the two models answers."""
    return lambda request: cheap if request.body["model"] == CHEAP else dear


def models(provider: ProviderServer) -> list[str]:
    return [request.body["model"] for request in provider.requests]


def shadow_of(row: dict[str, Any]) -> str | None:
    found: str | None = row["metadata"].get("shadow_of")
    return found


@pytest.fixture
def answers(provider: ProviderServer) -> Iterator[ProviderServer]:
    """A provider whose two models answer otherwise."""
    provider.respond_with(by_model(Reply(text="Dear words."), Reply(text="Cheap.", input_tokens=110, output_tokens=5)))
    yield provider
    provider.release.set()


@pytest.mark.parametrize("budgeted", [False, True])
async def test_each_way_of_asking_has_its_shadow(
    tracker: VitalTracker, answers: ProviderServer, rows: Rows, store: PostgresStore, budgeted: bool
) -> None:
    """The answer and what the user's handlers see are the same; the second model's call is a row of the same owner."""
    if budgeted:
        limit = {"entity_type": "user", "entity_id": "*", "metric": "calls", "action": "block", "total_limit": "1000"}
        store.call("set_budget_v1", budget=json.dumps(limit))
    model = answers.chat_openai(model=DEAR)
    plain, shadowed = tracker.guard(model), tracker.guard(model, shadow=CHEAP, share=1)
    assert type(shadowed).__name__ == type(model).__name__
    with tracker.workflow("w", user_id="u-1", session_id="s-1"):
        for mode in MODES:
            seen = []
            for guarded in (plain, shadowed):
                watcher = Watcher()
                answer = await ask(guarded, mode, {"callbacks": [watcher], "tags": ["t"], "metadata": step("draft")})
                assert answer.text == "Dear words."
                seen.append(watcher.seen)
                assert tracker.flush().complete
            assert seen[0] == seen[1], mode
            assert "error" not in seen[1]
    assert sorted(models(answers)) == [DEAR] * 2 * len(MODES) + [CHEAP] * len(MODES)
    found = stored(tracker, rows)
    calls = {str(row["id"]): row for row in found}
    shadows = [row for row in found if shadow_of(row)]
    assert len(shadows) == len({shadow_of(row) for row in shadows}) == len(MODES)
    for row in shadows:
        first = calls[shadow_of(row) or ""]
        assert [row[name] for name in CONTEXT] == [first[name] for name in CONTEXT]
        assert (row["user_id"], row["workflow_step"], row["tags"]) == ("u-1", "draft", ["t"])
        assert (row["model"], first["model"], row["prompt_tokens"], row["status"]) == (CHEAP, DEAR, 110, "ok")
        assert row["created_at"] > first["created_at"]
        assert (row["parent_run_id"], row["langsmith_project"]) == (None, None)
    stats = tracker.stats()
    assert (stats.shadow_runs, stats.shadow_runs_left_out) == (len(MODES), 0)
    (pairs,) = shadow_pairs(store, since=found[0]["created_at"], until=shadows[-1]["created_at"] + timedelta(seconds=1))
    assert (pairs["model"], pairs["shadow_model"], pairs["measured_pairs"]) == (DEAR, CHEAP, len(MODES))
    assert (prompt_ratio(pairs), answer_ratio(pairs)) == (Decimal("1.1"), Decimal("0.25"))
    assert pairs["shadow_cost"] == len(MODES) * dollars((110, "0.15"), (5, "0.60"))
    if budgeted:
        assert rows("select spent from budget_windows") == [{"spent": 3 * len(MODES)}]


async def test_nobody_waits_for_a_slow_shadow_and_few_run_at_once(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, a slow second model would slow users down, or a busy service would be asked twice for everything."""
    provider.respond_with(by_model(Reply(), Reply(hang=True)))
    guarded = tracker.guard(provider.chat_openai(model=DEAR), shadow=CHEAP, share=1)
    assert (await guarded.ainvoke("Hi", USER)).text == "Hello there."
    for _ in range(6):
        assert guarded.invoke("Hi", USER).text == "Hello there."
    await asyncio.to_thread(provider.wait_for_stalls, 4)
    assert models(provider).count(CHEAP) == 4
    assert tracker.stats().in_flight == 4
    provider.release.set()
    assert len(stored(tracker, rows)) == 7 + 4
    stats = tracker.stats()
    assert (stats.shadow_runs, stats.shadow_runs_left_out, stats.in_flight) == (4, 3, 0)


def test_a_tracker_that_closes_waits_for_its_shadows_and_begins_none(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, a script's shadow runs would be rows of calls given up, though they were paid for."""
    provider.respond_with(by_model(Reply(), Reply(hang=True)))
    tracker = make_tracker()
    guarded = tracker.guard(provider.chat_openai(model=DEAR), shadow=CHEAP, share=1)
    guarded.invoke("Hi", USER)
    provider.wait_for_stalls(1)
    provider.release.set()
    assert tracker.close(20).complete
    assert [(row["model"], row["status"]) for row in rows()] == [(DEAR, "ok"), (CHEAP, "ok")]
    guarded.invoke("Hi", USER)
    assert models(provider).count(CHEAP) == 1


def test_a_shadow_that_fails_is_a_row_and_nothing_else(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, a second model's outage would be the users' outage."""
    provider.respond_with(by_model(Reply(), Reply(status=400)))
    watcher = Watcher()
    guarded = tracker.guard(provider.chat_openai(model=DEAR), shadow=CHEAP, share=1)
    assert guarded.invoke("Hi", {**USER, "callbacks": [watcher]}).text == "Hello there."
    first, shadow = stored(tracker, rows)
    assert (first["status"], shadow["status"], shadow_of(shadow)) == ("ok", "error", str(first["id"]))
    assert watcher.seen == [f"start {DEAR}", "end"]


def test_a_call_without_an_answer_has_no_shadow(tracker: VitalTracker, provider: ProviderServer, rows: Rows) -> None:
    """Of two models of which one was not heard to its end, nothing can be learnt; and a failed call is not paid for twice."""
    provider.script([Reply(status=400)])
    guarded = tracker.guard(provider.chat_openai(model=DEAR, cache=InMemoryCache()), shadow=CHEAP, share=1)
    with pytest.raises(Exception, match="scripted"):
        guarded.invoke("Hi", USER)
    stream = guarded.stream("Ho", USER)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    del stream
    guarded.invoke("Hi", USER)
    guarded.invoke("Hi", USER)  # a cache answers
    assert [shadow_of(row) is not None for row in stored(tracker, rows)].count(True) == 1
    assert models(provider).count(CHEAP) == 1


def test_where_a_budget_denies_it_nothing_is_run_or_said(
    tracker: VitalTracker, answers: ProviderServer, rows: Rows, store: PostgresStore
) -> None:
    """A shadow run takes its money where all calls do, and is no blocked call that alarms anybody."""
    limit = {"entity_type": "user", "entity_id": "u-1", "metric": "calls", "action": "block", "total_limit": "3"}
    store.call("set_budget_v1", budget=json.dumps(limit))
    guarded = tracker.guard(answers.chat_openai(model=DEAR), shadow=CHEAP, share=1)
    for _ in range(2):
        guarded.invoke("Hi", USER)
        assert tracker.flush().complete
    assert models(answers) == [DEAR, CHEAP, DEAR]
    with pytest.raises(BudgetExceeded):
        guarded.invoke("Hi", USER)
    found = stored(tracker, rows)
    assert [(row["model"], row["status"]) for row in found] == [
        (DEAR, "ok"),
        (CHEAP, "ok"),
        (DEAR, "ok"),
        (DEAR, "blocked"),
    ]
    assert (tracker.stats().shadow_runs, tracker.stats().shadow_runs_left_out) == (1, 1)
    assert rows("select spent, granted from budget_windows") == [{"spent": 3, "granted": 0}]


def test_a_downgraded_call_has_no_shadow(
    tracker: VitalTracker, answers: ProviderServer, rows: Rows, store: PostgresStore
) -> None:
    """Where money is short, none is spent on a second answer."""
    limit = {"entity_type": "user", "entity_id": "u-1", "metric": "calls", "action": "downgrade", "total_limit": "0"}
    store.call("set_budget_v1", budget=json.dumps(limit))
    dear = answers.chat_openai(model=DEAR)
    guarded = tracker.guard(tracker.guard(dear, downgrade_to=CHEAP), shadow="gpt-4.1", share=1)
    assert guarded.invoke("Hi", USER).text == "Cheap."
    assert [row["model"] for row in stored(tracker, rows)] == [CHEAP]


def test_tools_are_offered_in_the_shadows_own_way_and_never_run(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """A model without its tools would answer something else, and its figures would say nothing."""
    provider.reply(Reply(text="", tool_calls=[("look_up", {"key": "a"})]))
    model = provider.chat_openai(model=DEAR)
    guarded = tracker.guard(model, shadow=tracker.guard(provider.chat_anthropic(callbacks=[Watcher()])), share=1)
    question: list[Any] = [HumanMessage("Hi")]
    answer = guarded.bind_tools([look_up]).invoke(question, USER)
    question.append(ToolMessage("changed meanwhile", tool_call_id="x"))
    assert answer.tool_calls[0]["name"] == "look_up"
    first, shadow = stored(tracker, rows)
    assert (shadow["provider"], shadow_of(shadow)) == ("anthropic", str(first["id"]))
    plain = model.bind_tools([look_up]).invoke([HumanMessage("Hi")])
    asked, shadowed, unguarded = (request.body for request in provider.requests)
    assert plain.tool_calls[0]["args"] == answer.tool_calls[0]["args"]
    assert asked["tools"] == unguarded["tools"]
    assert [one["name"] for one in shadowed["tools"]] == ["look_up"]
    assert [message["content"] for message in shadowed["messages"]] == ["Hi"]


@pytest.mark.usefixtures("tracing")
def test_what_is_the_callers_is_not_the_shadows(
    tracker: VitalTracker, answers: ProviderServer, rows: Rows, langsmith_sink: LangSmithSink
) -> None:
    """Tracers, caches and rate limiters serve the caller alone."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    try:
        limiter = InMemoryRateLimiter(requests_per_second=0.0001, max_bucket_size=1)
        limiter.available_tokens = 1.0
        watcher = Watcher()
        model = answers.chat_openai(model=DEAR, rate_limiter=limiter, callbacks=[watcher])
        guarded = tracker.guard(model, shadow=CHEAP, share=1)
        with collect_runs() as runs:
            guarded.invoke("Hi", USER)
            first, shadow = stored(tracker, rows)
        assert (first["langsmith_project"], shadow["langsmith_project"]) == ("clinic", None)
        traced = b"".join(langsmith_sink.received)
        assert b"Dear words." in traced
        assert b"Cheap." not in traced
        assert len(runs.traced_runs) == 1
        assert watcher.seen == [f"start {DEAR}", "end"]
        assert len(cache._cache) == 1
        assert tracker.guard(answers.chat_openai(model=CHEAP)).invoke("Hi", USER).text == "Cheap."
        assert models(answers) == [DEAR, CHEAP, CHEAP]
    finally:
        set_llm_cache(None)


def test_the_share_is_kept_and_told_by_the_calls_ids() -> None:
    """If this failed, a hundredth would be paid for as a half, or a test could not say which calls are shadowed."""
    ids = [UUID(new_id()) for _ in range(4000)]
    assert all(is_chosen(one, 1) for one in ids)
    chosen = [one for one in ids if is_chosen(one, 0.1)]
    assert 250 < len(chosen) < 550
    assert chosen == [one for one in ids if is_chosen(one, 0.1)]
    assert set(chosen) <= {one for one in ids if is_chosen(one, 0.2)}
    assert not is_chosen(UUID(int=0), 1e-12)


def test_what_can_be_no_shadow_is_refused_at_once(tracker: VitalTracker, provider: ProviderServer) -> None:
    """Not on the hundredth call."""
    model = provider.chat_openai()
    azure = model.model_copy()
    azure.__dict__["deployment_name"] = "gpt-4o"
    wrong: Any
    for wrong in (3, model.bind(stop=["x"]), [model]):
        with pytest.raises(TypeError):
            tracker.guard(model, shadow=wrong)
    with pytest.raises(TypeError):
        tracker.guard(azure, shadow=CHEAP)
    for share in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="share"):
            tracker.guard(model, shadow=CHEAP, share=share)
    guarded = tracker.guard(model, shadow=CHEAP)
    assert tracker.guard(guarded) is guarded
