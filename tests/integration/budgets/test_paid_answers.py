"""Budgets count all that a provider bills: answers that the client could not use, and fees that are no tokens.

If one of these fails, a program that only ever fails, or only ever searches, spends past its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr, ValidationError

from tests.integration.budgets.helpers import check_sums, set_budget
from tests.integration.helpers import Rows
from tests.support.wire_server import Json, WireServer, as_json
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]

# 4,000 tokens in at $2.50 and 1,000 out at $10 a million.
COST = Decimal("0.02")
ANSWER: Json = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"age": "old"}'}}],
    "usage": {"prompt_tokens": 4000, "completion_tokens": 1000, "total_tokens": 5000},
}


class Person(BaseModel):
    """What the answer does not fit."""

    age: int


@pytest.fixture
def server() -> Iterator[WireServer]:
    """Answers every request with the same paid answer."""
    with WireServer(lambda _: as_json(ANSWER)) as running:
        yield running


def test_answers_that_the_client_refuses_are_counted(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, server: WireServer
) -> None:
    """A limit of five cents pays for two answers of two cents, or for three where the third was thought to be cheaper."""
    set_budget(store, metric="cost_usd", daily_limit="0.05")
    tracker = make_tracker()
    model = ChatOpenAI(
        model="gpt-4o", base_url=f"{server.url}/v1", api_key=SecretStr("k"), max_tokens=100, max_retries=0
    )
    person = model.with_structured_output(Person, method="json_schema")
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    made = 0
    for _ in range(10):
        try:
            person.invoke("How old?", config=config)
        except ValidationError:
            made += 1
        except BudgetExceeded:
            break
        tracker.flush()
    tracker.flush()
    assert made in (2, 3)
    assert len(server.requests) == made
    paid = {"status": "error", "total_cost": COST, "usage_estimated": False}
    found = rows("select status, total_cost, usage_estimated from token_usage_logs where status <> 'blocked'")
    assert found == [paid] * made
    assert rows("select spent from budget_windows") == [{"spent": made * COST}]


def test_fees_are_counted(store: PostgresStore, make_tracker: MakeTracker, rows: Rows) -> None:
    """A hundred searches cost a dollar, whatever the few tokens around them do."""
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = make_tracker()
    call = {"provider": "openai", "model": "gpt-5", "prompt_tokens": 100, "max_tokens": 10, "user_id": "u-1"}
    tracker.admit(**call).record(prompt_tokens=100, completion_tokens=10, web_searches=100)
    tracker.flush()
    with pytest.raises(BudgetExceeded):
        make_tracker().admit(**call)
    (row,) = rows("select total_cost, fees, billed_units from token_usage_logs where status = 'ok'")
    assert row == {"total_cost": Decimal("1.000225"), "fees": Decimal(1), "billed_units": {"web_searches": 100}}
    assert rows("select spent from budget_windows") == [{"spent": Decimal("1.000225")}]
    assert store.call("audit_budgets_v1")["differences"] == []


def test_a_refused_request_costs_nothing(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, server: WireServer
) -> None:
    """Nobody bills what was refused: a hundred refusals use up no budget."""
    set_budget(store, metric="cost_usd", daily_limit="0.05")
    server.answer = lambda _: as_json({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)
    tracker = make_tracker()
    model = ChatOpenAI(
        model="gpt-4o", base_url=f"{server.url}/v1", api_key=SecretStr("k"), max_tokens=100, max_retries=0
    )
    for _ in range(10):
        with pytest.raises(Exception, match="400"):
            model.invoke("Hi", config={"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}})
    tracker.flush()
    assert rows("select sum(total_cost) as cost, count(*) as calls from token_usage_logs") == [
        {"cost": Decimal(0), "calls": 10}
    ]
    check_sums(store)
