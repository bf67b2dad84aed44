"""tracker.admit and aadmit: budgets for code that calls a provider by itself.

If one of these fails, such code spends what it may not, pays for a model that it was not to use, or leaves money set aside
for calls that it never made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.budgets.helpers import CALL, COST, USAGE, check_sums, granted, set_budget
from tests.integration.helpers import Rows, only
from vital_tracking import Agent, BudgetExceeded, BudgetThrottled, Price, VitalTracker
from vital_tracking.direct.admitted_call import AdmittedCall
from vital_tracking.stores.postgres import PostgresStore


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


async def admit(tracker: VitalTracker, in_loop: bool, **call: Any) -> AdmittedCall:
    """By either door."""
    return await tracker.aadmit(**call) if in_loop else await asyncio.to_thread(tracker.admit, **call)


both_doors = pytest.mark.parametrize("in_loop", [False, True], ids=["admit", "aadmit"])


def spent(rows: Rows) -> list[Any]:
    return [row["spent"] for row in rows("select spent from budget_windows order by id")]


@both_doors
async def test_a_call_is_admitted_made_and_recorded(
    in_loop: bool, tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """What admit was told stands in the row, beside what the call used."""
    set_budget(store, metric="cost_usd", total_limit="1")
    agent = Agent("cardio", name="Cardiologist", tier="tier_1")
    call = await admit(tracker, in_loop, **CALL, user_id="u-1", session_id="s-1", organization_id="acme", agent=agent)
    assert (call.model, call.max_tokens, call.action, call.waited) == ("gpt-4o-mini", 20, None, 0)
    call_id = call.record(**USAGE, response_time_ms=1200, framework="autogen", tags=["night"])
    assert tracker.flush().inserted == 1
    row = only(rows())
    assert str(row["id"]) == call_id
    assert (row["provider"], row["model"], row["total_cost"]) == ("openai", "gpt-4o-mini", COST)
    assert (row["user_id"], row["session_id"], row["organization_id"]) == ("u-1", "s-1", "acme")
    assert (row["agent_id"], row["agent_name"], row["agent_tier"]) == ("cardio", "Cardiologist", "tier_1")
    assert (row["latency_ms"], row["framework"], row["tags"]) == (1200, "autogen", ["night"])
    assert (row["budget_action"], row["throttled_ms"], row["requested_model"]) == (None, None, None)
    assert spent(rows) == [COST]
    check_sums(store)


@both_doors
async def test_a_blocked_call_is_a_row_that_costs_nothing(
    in_loop: bool, tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """Blocked, at no cost: the admin sees what the budget has kept away."""
    set_budget(store, total_limit="0")
    with pytest.raises(BudgetExceeded) as caught:
        await admit(tracker, in_loop, **CALL, user_id="u-1", downgrade_to="gpt-4.1-nano")
    assert (caught.value.entity_type, caught.value.entity_id, caught.value.limit) == ("user", "u-1", 0)
    tracker.flush()
    row = only(rows())
    assert (row["status"], row["success"], row["total_cost"], row["total_tokens"]) == ("blocked", False, 0, 0)
    assert (row["user_id"], row["model"], row["error_type"]) == ("u-1", "gpt-4o-mini", "BudgetExceeded")
    assert row["budget_action"] == "block"
    assert spent(rows) == [0]
    check_sums(store)


async def test_a_call_not_made_after_all_gives_its_money_back(
    tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """Code that decides not to call after all leaves no trace."""
    set_budget(store, total_limit="2")
    for _ in range(5):
        with tracker.admit(**CALL, user_id="u-1"):
            pass
        async with await tracker.aadmit(**CALL, user_id="u-1") as call:
            call.release()
            call.release()
    tracker.close()
    assert rows() == []
    assert granted(rows) == 0


async def test_a_call_that_fails_costs_nothing_and_its_error_goes_on(
    tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """The provider has refused: nothing is billed, the class of the error is kept, and the error goes on."""
    set_budget(store, metric="cost_usd", total_limit="1")
    with pytest.raises(ConnectionError), tracker.admit(**CALL, user_id="u-1"):
        raise ConnectionError("no prompt text must get out of here")
    call = await tracker.aadmit(**CALL, user_id="u-1")
    call.record(**USAGE)  # billed, and then something else went wrong
    await call.__aexit__(TimeoutError, TimeoutError(), None)
    tracker.close()
    failed, ended = rows()
    assert (failed["status"], failed["error_type"], failed["total_cost"]) == ("error", "ConnectionError", 0)
    assert (ended["status"], ended["error_type"], ended["total_cost"]) == ("ok", None, COST)
    assert spent(rows) == [COST]
    assert granted(rows) == 0


def test_a_second_record_is_one_more_call(tracker: VitalTracker, store: PostgresStore, rows: Rows) -> None:
    """A retry of the code's own was billed too, though nothing was set aside for it."""
    set_budget(store, metric="cost_usd", total_limit="1")
    call = tracker.admit(**CALL, user_id="u-1")
    call.record(**USAGE)
    call.record(**USAGE)
    tracker.close()
    assert [row["total_cost"] for row in rows()] == [COST, COST]
    assert spent(rows) == [2 * COST]
    assert granted(rows) == 0
    check_sums(store)


def test_a_call_that_costs_more_than_was_held_is_counted_whole(
    tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """It is spent all the same; the audit shows by how much the limit was passed."""
    set_budget(store, metric="cost_usd", total_limit=str(COST))
    tracker.admit(**CALL, user_id="u-1").record(prompt_tokens=1000, completion_tokens=200)
    with pytest.raises(BudgetExceeded):
        tracker.admit(**CALL, user_id="u-1")
    tracker.close()
    assert spent(rows) == [10 * COST]
    found = store.call("audit_budgets_v1")
    assert found["differences"] == []
    assert [Decimal(one["overshoot"]) for one in found["overshoot"]] == [9 * COST]


@both_doors
async def test_over_the_limit_the_next_cheaper_model_is_offered(
    in_loop: bool, make_tracker: Callable[..., VitalTracker], store: PostgresStore, rows: Rows
) -> None:
    """Down the downgrade chain to the first that passes; the row says what was asked for."""
    set_budget(store, action="downgrade", total_limit="0", downgrade_to="m-small")
    prices = [Price("m-large", 10, 30), Price("m-middle", 5, 15), Price("m-small", 1, 3)]
    tracker = make_tracker(prices=prices)
    request = {"model": "m-large", "prompt_tokens": 10, "max_tokens": 10, "user_id": "u-1"}
    with pytest.raises(BudgetExceeded) as caught:
        await admit(tracker, in_loop, **request, downgrade_to=["m-middle"])
    assert caught.value.action == "downgrade"
    call = await admit(tracker, in_loop, **request, downgrade_to=["m-middle", "m-small"])
    assert (call.model, call.action) == ("m-small", "downgrade")
    call.record(prompt_tokens=10, completion_tokens=10)
    tracker.close()
    blocked, made = rows()
    assert (blocked["status"], blocked["model"], blocked["requested_model"]) == ("blocked", "m-middle", "m-large")
    assert (made["model"], made["requested_model"], made["budget_action"]) == ("m-small", "m-large", "downgrade")
    assert made["total_cost"] == Decimal("0.00004")
    assert granted(rows) == 0


@both_doors
async def test_the_code_learns_how_long_it_waited_for_a_slot(
    in_loop: bool, tracker: VitalTracker, store: PostgresStore, rows: Rows
) -> None:
    """The code learns how long it has waited, and by when to try again where it would not."""
    set_budget(store, action="throttle", total_limit="0", throttle_interval_s="1")
    began = time.monotonic()
    waited: list[float] = []
    for _ in range(2):
        call = await admit(tracker, in_loop, **CALL, user_id="u-1", max_wait=5)
        assert call.action == "throttle"
        waited.append(call.waited)
        call.record(**USAGE)
    assert time.monotonic() - began >= 1  # the second one's turn is so much after the first one's
    assert waited[0] == 0
    assert 0 <= waited[1] <= 1
    with pytest.raises(BudgetThrottled) as caught:
        await admit(tracker, in_loop, **CALL, user_id="u-1")
    assert 0 < (caught.value.retry_after or 0) <= 1
    tracker.flush()
    first, second, stopped = rows()
    assert [row["budget_action"] for row in (first, second, stopped)] == ["throttle"] * 3
    assert float(second["throttled_ms"]) == pytest.approx(waited[1] * 1000, abs=0.01)
    assert (stopped["status"], stopped["error_type"]) == ("blocked", "BudgetThrottled")


def test_a_scope_says_whose_call_it_is(tracker: VitalTracker, store: PostgresStore, rows: Rows) -> None:
    """Inside a scope nothing need be told again; what is told wins."""
    set_budget(store, entity_type="service", entity_id="1:1_conversation", total_limit="2")
    set_budget(store, entity_type="session", total_limit="1")
    with tracker.conversation(user_id="u-1", session_id="s-1"):
        tracker.admit(**CALL).record(**USAGE)
        with pytest.raises(BudgetExceeded) as caught:
            tracker.admit(**CALL)
        assert (caught.value.entity_type, caught.value.entity_id) == ("session", "s-1")
        tracker.admit(**CALL, session_id="s-2").record(**USAGE)
        with pytest.raises(BudgetExceeded) as caught:
            tracker.admit(**CALL, session_id="s-3")
        assert caught.value.entity_type == "service"
    tracker.admit(**CALL, session_id="s-4").record(**USAGE)
    tracker.close()
    found = [(row["status"], row["session_id"], row["service_type"]) for row in rows()]
    service = "1:1_conversation"
    assert found == [
        ("ok", "s-1", service),
        ("blocked", "s-1", service),
        ("ok", "s-2", service),
        ("blocked", "s-3", service),
        ("ok", "s-4", None),
    ]
    check_sums(store)


def test_a_prompt_without_counts_is_estimated(tracker: VitalTracker, store: PostgresStore) -> None:
    """Its bytes say how long it may be; the error says what the call would need."""
    set_budget(store, metric="tokens", total_limit="600")
    with tracker.admit(provider="openai", model="gpt-4o-mini", prompt="x" * 1000, max_tokens=50, user_id="u-1"):
        pass
    with pytest.raises(BudgetExceeded) as caught:
        tracker.admit(provider="openai", model="gpt-4o-mini", prompt="ü" * 1000, max_tokens=50, user_id="u-1")
    needed = caught.value.stop.needed
    assert needed is not None
    assert 1000 + 50 <= needed < 1200


@pytest.mark.parametrize("garbage", [-1, 1.5, True, "7", 10**30, float("nan"), None])
def test_unusable_token_counts_are_taken_as_not_given(
    garbage: Any, tracker: VitalTracker, store: PostgresStore
) -> None:
    """A hold must not become negative, or an error, for what some SDK reports."""
    set_budget(store, metric="cost_usd", total_limit="1")
    call = tracker.admit(model="gpt-4o-mini", prompt_tokens=garbage, max_tokens=garbage, user_id="u-1")
    assert call._admission is not None
    hold = call._admission.hold
    assert hold is not None
    assert min(hold.amounts.without_extra()[:3]) > 0
    call.release()
    assert tracker.stats().faults == 0


def test_a_closed_tracker_stops_nobody(tracker: VitalTracker, store: PostgresStore) -> None:
    """At the end of a program the last calls go through, as each budget says for when nobody can be asked."""
    set_budget(store, total_limit="10")
    tracker.admit(**CALL, user_id="u-1").record(**USAGE)
    tracker.close()
    call = tracker.admit(**CALL, user_id="u-1")
    assert call.action == "unchecked"
    call.record(**USAGE)
    assert tracker.stats().dropped == 1
