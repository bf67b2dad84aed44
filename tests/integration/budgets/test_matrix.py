"""Every action of a budget on every way to ask a model, with every way to attach budgets to it.

If one of these fails, there is a path on which a budget does not hold: a call goes out that nobody allowed, or one is stopped
that should have gone, or what stopped it does not reach the caller. Requests are counted at the provider's server, rows are
read from the database, and after each case all sums of all budgets must be right. The paths are in budget_matrix_paths.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from tests.integration.budgets.matrix_paths import (
    ANSWER,
    BOUND_PATHS,
    COMPLETION_PATHS,
    FEW,
    PATHS,
    THINGS,
    Path,
    node,
    sends,
)
from tests.integration.budgets.matrix_world import (
    CHEAP,
    COMPLETION_MODEL,
    DEAR,
    EVERY,
    GUARD,
    HANDLER,
    INTERVAL_S,
    OTHER,
    PRICES,
    Case,
    Cell,
    World,
    cells,
    in_turn,
    spread,
)
from tests.integration.helpers import collect, dollars
from tests.support.postgres import PostgresServer
from tests.support.provider_server import ProviderServer
from vital_tracking import BudgetExceeded, BudgetThrottled

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    # ChatOpenAI, where it streams an object.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # LangChain's asynchronous manager drops the other handlers' coroutines where one handler stops the call.
    pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine object ahandle_event:pytest.PytestUnraisableExceptionWarning"
    ),
]

OK: tuple[str, str | None] = ("ok", None)


@pytest.fixture(scope="module")
def world(postgres_server: PostgresServer, template_database: str) -> Iterator[World]:
    """One database, tracker and provider's server for all cases; at the end nothing may be left set aside."""
    name = "budget_matrix"
    postgres_server.create_database(name, template=template_database)
    with ProviderServer() as server:
        opened = World(postgres_server.url(name), server)
        yield opened
        opened.close()
        collect()  # what LangChain has dropped warns here, and not in a test that comes later
    postgres_server.drop_database(name)


def matrix(found: Sequence[Cell]) -> pytest.MarkDecorator:
    """Parametrizes a test by attachment and path."""
    names = [f"{attachment}-{path.name}" for attachment, path in found]
    return pytest.mark.parametrize(("attachment", "path"), found, ids=names)


def cost_of(model: str) -> Any:
    """What one answer of the server costs."""
    prompt, answer = PRICES[model]
    return dollars((100, prompt), (20, answer))


def is_answered(case: Case, model: str, action: str | None, *, requested: str | None = None, failed: int = 0) -> bool:
    """Whether each call of the case is one request and one row, at its price, and says what its budget did."""
    calls = case.path.calls
    assert len(case.requests) == calls + failed
    assert {request.body["model"] for request in case.requests[failed:]} == {model}
    rows = case.rows()
    assert [row["status"] for row in rows] == ["error"] * failed + ["ok"] * calls
    for row in rows[failed:]:
        assert (row["model"], row["requested_model"]) == (model, requested)
        assert (row["budget_action"], row["total_cost"]) == (action, cost_of(model))
        assert row["organization_id"] == case.organization
    return True


def is_stopped(case: Case, error: BudgetExceeded, action: str) -> bool:
    """Whether the error says which budget stopped the case, and no request but blocked rows came of it."""
    assert (error.action, error.entity_type, error.entity_id) == (action, "user", case.user)
    assert (error.limit, error.spent, error.period) == (1, 1, "month")
    assert error.ends_at is not None
    assert error.ends_at > datetime.now(UTC)
    assert error.ends_at.day == 1
    assert case.requests == []
    rows = case.rows()
    assert 1 <= len(rows) <= case.path.calls * case.path.thing.asks
    assert {(row["status"], row["total_cost"], row["budget_action"]) for row in rows} == {("blocked", 0, action)}
    assert {row["error_type"] for row in rows} == {type(error).__name__}
    assert rows[0]["model"] == case.name
    return True


# Nothing is stopped


def is_unhindered(case: Case, action: str | None) -> bool:
    """Whether the case is answered as if there were no budget. What repairs failures meets a first request that fails."""
    path = case.path
    failed = int(path.thing.repairs and path.questions == 1 and "stream" not in path.mode)
    case.world.failing[case.user] = failed
    assert case.ask() == [ANSWER] * path.calls
    case.world.settle(case)
    model = OTHER if failed and "fallback" in path.name else DEAR
    return is_answered(case, model, action, failed=failed) and case.ended(OK)


@matrix(spread(EVERY, turn=0))
def test_far_from_its_limits_a_budget_is_not_felt(world: World, attachment: str, path: Path) -> None:
    """Budgets of every action, all with money left: a user would miss an answer for nothing."""
    case = Case(world, "none", attachment, path, downgrade_to=CHEAP)
    assert is_unhindered(case, None)
    assert case.alerts() == 0


@matrix(in_turn(EVERY, turn=1))
def test_an_alert_stops_nothing(world: World, attachment: str, path: Path) -> None:
    """A budget that only alerts is told of once, and calls go on."""
    case = Case(world, "alert", attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert is_unhindered(case, None)
    assert case.alerts() == 1


@matrix(spread(EVERY, turn=2))
def test_a_budget_that_is_not_enforced_stops_nothing(world: World, attachment: str, path: Path) -> None:
    """An admin who tries a budget out must not stop anybody; the rows say what would have been."""
    case = Case(world, "shadow", attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert is_unhindered(case, "shadow_block")
    assert case.alerts() == 1


@pytest.mark.parametrize("organization", ["shadow_throttle", "shadow_downgrade"])
@matrix(cells(EVERY, FEW))
def test_what_is_not_enforced_only_says_what_it_would_do(
    world: World, organization: str, attachment: str, path: Path
) -> None:
    """An admin who tries a budget out must change nothing: no wait, no other model."""
    case = Case(world, organization, attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert case.ask() == [ANSWER]
    world.settle(case)
    assert is_answered(case, DEAR, organization)
    assert case.rows()[0]["throttled_ms"] is None
    assert case.ended(OK)


# Block


@matrix([*cells(EVERY, [*PATHS, *BOUND_PATHS]), *cells(["guard_in_scope"])])
def test_a_used_up_budget_lets_nothing_out(world: World, attachment: str, path: Path) -> None:
    """A request would be money that the admin has refused; without the error nobody knows why there is no answer."""
    case = Case(world, "block", attachment, path)
    world.spend(case)
    with pytest.raises(BudgetExceeded) as caught:
        case.ask()
    world.settle(case)
    assert not isinstance(caught.value, BudgetThrottled)
    assert is_stopped(case, caught.value, "block")
    assert case.ended(("error", "BudgetExceeded"))


@matrix(cells(HANDLER, COMPLETION_PATHS))
def test_a_used_up_budget_stops_completions(world: World, attachment: str, path: Path) -> None:
    """Models that are no chat models start by another event, and several prompts of theirs are one request."""
    case = Case(world, "block", attachment, path, name=COMPLETION_MODEL)
    world.spend(case)
    with pytest.raises(BudgetExceeded) as caught:
        case.ask()
    world.settle(case)
    assert is_stopped(case, caught.value, "block")
    assert case.ended(("error", "BudgetExceeded"))


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("mode", ["generate", "agenerate"])
def test_prompts_that_are_one_request_go_together_or_not_at_all(world: World, kind: str, mode: str) -> None:
    """With money for one of two prompts nothing may be sent; what was set aside for the first must be free again."""
    path = Path(f"{kind}-{mode}", mode, THINGS["model"])
    case = Case(world, "block", "config", path, name=DEAR if kind == "chat" else COMPLETION_MODEL, more="-together")
    question = [HumanMessage(case.question)] if kind == "chat" else case.question

    def ask(count: int) -> Any:
        with case.attached() as config:
            result = getattr(case.model, mode)([question] * count, **config)
            return asyncio.run(result) if inspect.iscoroutine(result) else result

    with pytest.raises(BudgetExceeded):
        ask(2)
    assert case.requests == []
    assert ask(1).generations[0][0].text == ANSWER
    with pytest.raises(BudgetExceeded):
        ask(1)
    world.settle(case)
    assert len(case.requests) == 1
    # At once in an event loop, the second prompt may be refused before the first one has begun, which then leaves no row.
    first = ([], ["blocked"]) if mode == "agenerate" and kind == "completion" else (["blocked"],)
    assert [row["status"] for row in case.rows()] in [[*begun, "blocked", "ok", "blocked"] for begun in first]


@matrix(spread(["config", *GUARD], turn=0))
def test_money_for_one_call_pays_for_no_second_one(world: World, attachment: str, path: Path) -> None:
    """Calls made at once, or tried again, must not share what is there for one of them."""
    case = Case(world, "block", attachment, path, more="-last")
    if path.calls == 1:
        assert case.ask() == [ANSWER]
    else:
        with pytest.raises(BudgetExceeded):
            case.ask()
    with pytest.raises(BudgetExceeded):
        case.ask()
    world.settle(case)
    assert len(case.requests) == 1
    states = [row["status"] for row in case.rows()]
    assert (states.count("ok"), set(states)) == (1, {"ok", "blocked"})
    first = OK if path.calls == 1 else ("error", "BudgetExceeded")
    assert case.ended(first, ("error", "BudgetExceeded"))


@matrix(spread(EVERY, [path for path in PATHS if path.mode in ("batch", "abatch")], turn=0))
def test_of_fifty_questions_ten_are_answered(world: World, attachment: str, path: Path) -> None:
    """Asked all at once, by threads or tasks: none may slip through beside the ten that there is money for."""
    case = Case(world, "ten", attachment, path)
    made, given = path.thing.make(case), [path.thing.given(case)] * 50

    with case.attached() as config:
        result = getattr(made, path.mode)(given, config, return_exceptions=True)
        results = asyncio.run(result) if inspect.iscoroutine(result) else result
    world.settle(case)
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 40
    assert [path.thing.answers(result) for result in results if not isinstance(result, BudgetExceeded)] == [
        [ANSWER]
    ] * 10
    assert len(case.requests) == 10
    states = [row["status"] for row in case.rows()]
    assert (states.count("ok"), set(states)) == (10, {"ok", "blocked"})
    assert case.windows() == [(10, 0)]


# Throttle


@matrix(spread(HANDLER, turn=0))
def test_the_handler_lets_a_throttled_call_go_where_its_slot_is_free(world: World, attachment: str, path: Path) -> None:
    """It cannot wait: a call without a slot must stop, and say when to come again."""
    case = Case(world, "slow", attachment, path)
    world.spend(case)
    if path.calls == 1:
        assert case.ask() == [ANSWER]
    else:
        with pytest.raises(BudgetThrottled):
            case.ask()
    assert len(case.requests) == 1
    with pytest.raises(BudgetThrottled) as caught:
        case.ask()
    world.settle(case)
    assert len(case.requests) == 1
    assert (caught.value.action, caught.value.entity_id) == ("throttle", case.user)
    assert 30 < (caught.value.retry_after or 0) <= 60
    rows = case.rows()
    assert [row["status"] for row in rows].count("ok") == 1
    assert {(row["status"], row["budget_action"], row["total_cost"]) for row in rows} == {
        ("ok", "throttle", cost_of(DEAR)),
        ("blocked", "throttle", 0),
    }


def waits_for_its_slot(case: Case) -> bool:
    """Whether a case over its limit goes out one call an interval, and whether its rows say that they waited.

    No call may start before its slot. On a machine that is busy with other things one may ask so late that its slot is free:
    then it does not wait, and this is to be tried again.
    """
    world, path = case.world, case.path
    world.spend(case)
    ask = case.prepared()
    alone = Path(path.name, "invoke", THINGS["agent" if case.middleware else "model"])
    begun = datetime.now(UTC)
    assert dataclasses.replace(case, path=alone).ask() == [ANSWER]  # it takes the first slot
    assert ask() == [ANSWER] * path.calls
    world.settle(case)
    rows = case.rows()
    assert len(rows) == len(case.requests) == path.calls + 1
    assert {(row["status"], row["budget_action"], row["total_cost"]) for row in rows} == {
        ("ok", "throttle", cost_of(DEAR))
    }
    waited = sorted(rows[1:], key=itemgetter("created_at"))
    for number, row in enumerate(waited, start=1):
        assert row["created_at"] > begun + timedelta(seconds=INTERVAL_S * number - 0.01)
    return all(0 < (row["throttled_ms"] or 0) < 10_000 for row in waited)


@matrix(cells(GUARD))
def test_a_guarded_call_waits_for_its_slot(world: World, attachment: str, path: Path) -> None:
    """Calls over the limit go out one an interval, and their rows say how long they waited; nobody is told to come again."""
    assert any(
        waits_for_its_slot(Case(world, "throttle", attachment, path, more=f"-{attempt}")) for attempt in range(5)
    )


# Downgrade


@matrix(spread(HANDLER, turn=1))
def test_the_handler_stops_a_dear_model(world: World, attachment: str, path: Path) -> None:
    """It cannot change the model: a dear one must stop. What falls back to a cheap one gets its answer from that."""
    case = Case(world, "across", attachment, path)
    world.spend(case)
    if "with_fallbacks" in path.name:
        assert case.ask() == [ANSWER] * path.calls
        world.settle(case)
        assert {request.body["model"] for request in case.requests} == {OTHER}
        states = [(row["status"], row["model"]) for row in case.rows()]
        assert sorted(states) == [("blocked", DEAR)] * path.calls + [("ok", OTHER)] * path.calls
        assert case.ended(OK)
        return
    with pytest.raises(BudgetExceeded) as caught:
        case.ask()
    world.settle(case)
    assert is_stopped(case, caught.value, "downgrade")
    assert case.ended(("error", "BudgetExceeded"))


@matrix([*cells(["config"]), *cells(["scope"], FEW)])
def test_the_handler_lets_a_cheap_model_pass(world: World, attachment: str, path: Path) -> None:
    """Over the limit a model that is cheap enough goes on; also where the budget names another provider's model."""
    organization = "downgrade" if attachment == "scope" else "across"
    case = Case(world, organization, attachment, path, name=CHEAP, more="-cheap")
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, CHEAP, None)


@matrix(cells(GUARD, [*PATHS, *BOUND_PATHS]))
def test_a_guard_goes_on_with_a_cheaper_model(world: World, attachment: str, path: Path) -> None:
    """The request must name the cheaper model, or the money is gone all the same; the row names both."""
    case = Case(world, "downgrade", attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, CHEAP, "downgrade", requested=DEAR)
    assert case.ended(OK)


@matrix(cells(GUARD, [*PATHS, *BOUND_PATHS]))
def test_a_guard_goes_on_with_another_providers_model(world: World, attachment: str, path: Path) -> None:
    """The same where the cheaper model speaks another protocol."""
    case = Case(world, "across", attachment, path, downgrade_to=world.models[OTHER])
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, OTHER, "downgrade", requested=DEAR)
    assert {request.path for request in case.requests} == {"/v1/messages"}
    assert case.ended(OK)


@matrix(cells(GUARD, FEW))
def test_of_two_budgets_the_lower_downgrades_before_the_higher_blocks(
    world: World, attachment: str, path: Path
) -> None:
    """The strictest action wins: a cheaper model must not be a way around the budget that blocks."""
    case = Case(world, "ladder", attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert case.ask() == [ANSWER]
    with pytest.raises(BudgetExceeded) as caught:
        case.ask()
    world.settle(case)
    assert caught.value.action == "block"
    assert [request.body["model"] for request in case.requests] == [CHEAP]
    rows = [(row["status"], row["model"], row["requested_model"], row["budget_action"]) for row in case.rows()]
    assert rows == [("ok", CHEAP, DEAR, "downgrade"), ("blocked", DEAR, None, "block")]


# After a stop


@pytest.mark.parametrize("attachment", ["config", "guard"])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("fan_out", [False, True])
def test_a_stopped_graph_goes_on_where_it_stopped(world: World, attachment: str, mode: str, fan_out: bool) -> None:
    """When money is there again (here: another user's) no node that was paid for may run, and be billed, a second time."""
    path = Path(f"resumed-{mode}-{fan_out}", mode, THINGS["sends" if fan_out else "node"])
    case, other = (Case(world, "block", attachment, path, more=more) for more in ("-poor", "-rich"))
    if fan_out:
        graph = sends(case, checkpointer=InMemorySaver())
    else:
        builder = StateGraph(MessagesState).add_node("one", node(case.model)).add_node("two", node(case.model))
        graph = builder.add_edge(START, "one").add_edge("one", "two").compile(checkpointer=InMemorySaver())

    def run(given: Any, payer: Case) -> Any:
        with payer.attached() as config:
            result = getattr(graph, mode)(given, {**config, "configurable": {"thread_id": case.user}})
            return asyncio.run(result) if inspect.iscoroutine(result) else result

    with pytest.raises(BudgetExceeded):
        run(path.thing.given(case), case)
    assert graph.get_state({"configurable": {"thread_id": case.user}}).next
    assert len(case.requests) == 1
    if fan_out:  # one of the three was made, the two others are left: one more than there is money for
        with pytest.raises(BudgetExceeded):
            run(None, other)
    else:
        run(None, other)
    world.settle(case)
    world.settle(other)
    assert len(case.requests) == 2
    if not fan_out:
        assert [(row["status"], row["workflow_step"]) for row in case.rows()] == [("ok", "one"), ("blocked", "two")]
        assert [(row["status"], row["workflow_step"]) for row in other.rows()] == [("ok", "two")]
