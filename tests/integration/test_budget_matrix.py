"""Every action of a budget on every way to ask a model, with every way to attach budgets to it.

If one of these fails, there is a path on which a budget does not hold: a call goes out that nobody allowed, or one is stopped
that should have gone, or what stopped it does not reach the caller. Requests are counted at the provider's server, rows are
read from the database, and after each case all sums of all budgets must be right. The paths are in budget_matrix.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from tests.integration.budget_matrix import (
    ANSWER,
    CHEAP,
    DEAR,
    EVERY,
    GUARD,
    HANDLER,
    INTERVAL_S,
    OTHER,
    PRICES,
    THINGS,
    Case,
    Path,
    World,
    cases,
)
from tests.integration.helpers import collect, dollars
from tests.support.postgres import PostgresServer
from tests.support.provider_server import ProviderServer
from vital_tracking import BudgetExceeded, BudgetThrottled

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    # LangChain's asynchronous manager drops the other handlers' coroutines where one handler stops the call.
    pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning"),
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


def matrix(*attachments: str, **options: Any) -> pytest.MarkDecorator:
    """Parametrizes a test by attachment and path."""
    found = cases(attachments, **options)
    return pytest.mark.parametrize(
        ("attachment", "path"), found, ids=[f"{attachment}-{path.name}" for attachment, path in found]
    )


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


@pytest.mark.parametrize("organization", ["none", "alert", "shadow"])
@matrix(*EVERY)
def test_nothing_is_stopped(world: World, organization: str, attachment: str, path: Path) -> None:
    """Far from every limit, over one that only alerts, and over one that is not enforced: a user would miss an answer.

    Retries and fallbacks meet a first request that fails, so that they do what they are for.
    """
    case = Case(world, organization, attachment, path)
    if organization != "none":
        world.spend(case)
    failed = int(path.thing.repairs and path.questions == 1)
    world.failing[case.user] = failed
    if failed and "stream" in path.mode:
        failed = world.failing[case.user] = 0  # LangChain's fallbacks of streams are its own matter
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    fell_back = failed and "fallback" in path.name
    assert is_answered(case, OTHER if fell_back else DEAR, "shadow_block" if organization == "shadow" else None, failed=failed)
    assert case.ended(OK)
    alerts = world.rows("select count(*) from cost_alerts where entity_id = %s and threshold = 1", case.user)
    assert alerts == [{"count": int(organization != "none")}]


# Block


@matrix(*EVERY, "guard_in_scope")
def test_a_used_up_budget_lets_nothing_out(world: World, attachment: str, path: Path) -> None:
    """A request would be money that the admin has refused; an error of another kind, or none, would hide why there is no answer."""
    case = Case(world, "block", attachment, path)
    world.spend(case)
    with pytest.raises(BudgetExceeded) as caught:
        case.ask()
    world.settle(case)
    assert not isinstance(caught.value, BudgetThrottled)
    assert is_stopped(case, caught.value, "block")
    assert case.ended(("error", "BudgetExceeded"))


@matrix(*EVERY)
def test_money_for_one_call_pays_for_one(world: World, attachment: str, path: Path) -> None:
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


# Throttle


@matrix(*HANDLER)
def test_the_handler_lets_a_throttled_call_go_where_its_slot_is_free(world: World, attachment: str, path: Path) -> None:
    """It cannot wait: a call without a slot must stop, and say when to come again."""
    case = Case(world, "slow", attachment, path)
    world.spend(case)
    if path.calls == 1:
        assert case.ask() == [ANSWER]
    else:
        with suppress(BudgetThrottled):
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


@matrix(*GUARD)
def test_a_guarded_call_waits_for_its_slot(world: World, attachment: str, path: Path) -> None:
    """Calls over the limit go out one an interval, and their rows say how long they waited; nobody is told to come again."""
    case = Case(world, "throttle", attachment, path)
    world.spend(case)
    ask = case.prepared()
    before = Case(world, "throttle", attachment, Path(path.name, "invoke", THINGS["agent" if case.middleware else "model"]))
    begun = time.monotonic()
    assert before.ask() == [ANSWER]  # it takes the first slot
    at_once = time.monotonic() - begun < INTERVAL_S / 2
    assert ask() == [ANSWER] * path.calls
    world.settle(case)
    first, *waited = case.rows()
    assert len(waited) == path.calls == len(case.requests) - 1
    assert {(row["status"], row["budget_action"], row["total_cost"]) for row in (first, *waited)} == {
        ("ok", "throttle", cost_of(DEAR))
    }
    starts = sorted(row["created_at"] for row in (first, *waited))
    assert (starts[-1] - starts[0]).total_seconds() > INTERVAL_S * path.calls * 0.9
    if at_once:
        assert all(0 < row["throttled_ms"] < 10_000 for row in waited)


# Downgrade


@matrix(*HANDLER)
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


@pytest.mark.parametrize("organization", ["downgrade", "across"])
@matrix(*HANDLER, where=lambda path: "repairs" not in path.name)
def test_the_handler_lets_a_cheap_model_pass(world: World, organization: str, attachment: str, path: Path) -> None:
    """Over the limit a model that is cheap enough goes on; also where the budget names another provider's model."""
    case = Case(world, organization, attachment, path, name=CHEAP, more="-cheap")
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, CHEAP, None)


@matrix(*GUARD)
def test_a_guard_goes_on_with_a_cheaper_model(world: World, attachment: str, path: Path) -> None:
    """The request must name the cheaper model, or the money is gone all the same; the row names both."""
    case = Case(world, "downgrade", attachment, path, downgrade_to=CHEAP)
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, CHEAP, "downgrade", requested=DEAR)
    assert case.ended(OK)


@matrix(*GUARD)
def test_a_guard_goes_on_with_another_providers_model(world: World, attachment: str, path: Path) -> None:
    """The same where the cheaper model speaks another protocol."""
    case = Case(world, "across", attachment, path, downgrade_to=world.models[OTHER])
    world.spend(case)
    assert case.ask() == [ANSWER] * path.calls
    world.settle(case)
    assert is_answered(case, OTHER, "downgrade", requested=DEAR)
    assert {request.path for request in case.requests} == {"/v1/messages"}
    assert case.ended(OK)
