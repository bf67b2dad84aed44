"""Calls that cost more than was thought of them before: a budget is overstepped by one such call, and not by every one of them.

If one of these fails, a limit holds only for calls that are as cheap as they look.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from tests.integration.budgets.helpers import check_sums, knows_its_budgets, set_budget
from tests.integration.helpers import Rows
from tests.support.provider_server import ProviderServer, Reply
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.queries.health import examine
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]

CHEAP: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 100, "max_tokens": 20}
DEAR: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 10_000}
COST = Decimal("0.006015")  # 100 at $0.15 and 10,000 at $0.60 a million


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


def dear_calls(tracker: VitalTracker, most: int, user: str = "u-1") -> tuple[int, BudgetExceeded | None]:
    """Make calls that are dearer than they look, one after the other: how many, and what stopped the next one."""
    for number in range(most):
        try:
            tracker.admit(user_id=user, **CHEAP).record(**DEAR)
        except BudgetExceeded as error:
            return number, error
    return most, None


def test_one_process_oversteps_by_the_call_that_crosses_the_limit(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(store, metric="cost_usd", daily_limit="0.01")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=60))
    made, error = dear_calls(tracker, 20)
    assert made == 2
    assert error is not None
    assert (error.spent, error.stop.granted) == (2 * COST, 0)
    assert "$0.01203 of $0.01 spent" in str(error)
    tracker.flush()
    assert rows("select spent, granted from budget_windows")[0]["spent"] == 2 * COST
    assert dear_calls(tracker, 1)[0] == 0
    audit = store.call("audit_budgets_v1")
    assert audit["differences"] == []
    [over] = audit["overshoot"]
    assert Decimal(over["spent"]) == 2 * COST
    assert Decimal(over["beyond_hold"]) >= Decimal(over["overshoot"])
    assert [Decimal(over[cause]) for cause in ("unasked", "late", "before")] == [0, 0, 0]
    monkeypatch.setenv("VITAL_DATABASE_URL", database_url)
    told = [f"{check.what} {check.fix}" for check in examine() if "over its limit" in check.what]
    assert len(told) == 1
    assert "by calls that cost more than was held for them" in told[0]


def test_the_rest_of_a_window_is_left_to_the_others(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """What one process has overdrawn the others see as soon as it asks again, although its rows are not stored yet."""
    set_budget(store, metric="cost_usd", daily_limit="0.02")
    first, second = (knows_its_budgets(make_tracker(flush_interval_s=60)) for _ in range(2))
    assert dear_calls(first, 1)[0] == 1
    first.admit(user_id="u-1", **CHEAP).release()
    assert dear_calls(second, 20)[0] == 2
    assert dear_calls(first, 20)[0] <= 2
    for tracker in (first, second):
        tracker.flush()
    [window] = store.call("budget_windows_v1")
    assert Decimal(window["spent"]) <= Decimal("0.02") + 2 * COST
    assert store.call("audit_budgets_v1")["differences"] == []


def test_what_was_overdrawn_is_not_counted_twice(store: PostgresStore, make_tracker: MakeTracker, rows: Rows) -> None:
    """Else an overrun would cost the window its price once more, until the process that made it gives its grants back."""
    set_budget(store, metric="cost_usd", daily_limit="1")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=60))
    for _ in range(5):
        assert dear_calls(tracker, 3)[0] == 3
        tracker.flush()
    tracker.close()
    [window] = rows("select spent, granted from budget_windows")
    assert (window["spent"], window["granted"]) == (15 * COST, 0)
    check_sums(store)


def test_calls_at_the_same_time_overstep_by_one_once_an_overrun_is_known(
    store: PostgresStore, make_tracker: MakeTracker, rows: Rows
) -> None:
    """Money for nine: one that shows what they cost, seven at once, and the one that crosses the limit, alone."""
    set_budget(store, metric="cost_usd", daily_limit="0.05")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=60))
    assert dear_calls(tracker, 1)[0] == 1
    under_way = [tracker.admit(user_id="u-1", **CHEAP) for _ in range(7)]
    with pytest.raises(BudgetExceeded):
        tracker.admit(user_id="u-1", **CHEAP)
    for call in under_way:
        call.record(**DEAR)
    assert dear_calls(tracker, 20)[0] == 1
    tracker.flush()
    assert rows("select spent from budget_windows") == [{"spent": 9 * COST}]
    assert store.call("audit_budgets_v1")["differences"] == []


def test_one_dear_call_does_not_stop_those_that_are_as_thought(store: PostgresStore, make_tracker: MakeTracker) -> None:
    """What it has cost is set aside for the next ones only where there is as much, and for fewer and fewer of them."""
    set_budget(store, metric="cost_usd", daily_limit="0.01")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=60))
    assert dear_calls(tracker, 1)[0] == 1
    for _ in range(40):
        tracker.admit(user_id="u-1", **CHEAP).record(prompt_tokens=100, completion_tokens=20)
    at_once = [tracker.admit(user_id="u-1", **CHEAP) for _ in range(40)]
    for call in at_once:
        call.release()


@pytest.mark.parametrize("streamed", [False, True])
def test_calls_of_a_model_are_charged_as_they_end(
    store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer, streamed: bool
) -> None:
    """An answer twenty times as long as `max_tokens` let expect: reasoning models count thoughts that nobody limits."""
    set_budget(store, metric="cost_usd", daily_limit="0.01")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=60))
    provider.reply(Reply(text="x", input_tokens=100, output_tokens=10_000))
    model = provider.chat_openai(model="gpt-4o-mini", max_tokens=20, stream_usage=True)
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    call: Callable[[], Any] = lambda: list(model.stream("Hi", config)) if streamed else model.invoke("Hi", config)  # noqa: E731
    for _ in range(2):
        call()
    with pytest.raises(BudgetExceeded) as stopped:
        call()
    assert stopped.value.spent == 2 * COST


def test_failed_calls_leave_everything_to_the_next_one(
    store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer
) -> None:
    """One caller, one call at a time, none of which costs anything: the money for one call is there every time."""
    set_budget(store, metric="cost_usd", daily_limit="0.0035")
    tracker = knows_its_budgets(make_tracker(flush_interval_s=0.001, batch_size=1))
    provider.reply(Reply(status=400))
    model = provider.chat_openai(model="gpt-4o-mini", max_retries=0)
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    for _ in range(300):
        with pytest.raises(Exception, match="400"):
            model.invoke("Hi", config)


def test_tools_and_schemas_are_set_aside_for(
    store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer
) -> None:
    """An agent's tools are a part of every prompt: twenty of them are thousands of tokens, from the first call on."""
    tool = {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look something up in the house's own records, by any of its names. " * 8,
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string", "description": "What to look up"}},
            },
        },
    }
    tools = [{**tool, "function": {**tool["function"], "name": f"look_up_{number}"}} for number in range(20)]
    set_budget(store, metric="tokens", daily_limit="3000")
    tracker = knows_its_budgets(make_tracker())
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    model = provider.chat_openai(model="gpt-4o-mini", max_tokens=20)
    model.invoke("Hi", config)
    with pytest.raises(BudgetExceeded):
        model.bind_tools(tools).invoke("Hi", config)
    with pytest.raises(BudgetExceeded):
        model.invoke("Hi", config, functions=[one["function"] for one in tools])
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"properties": tools}}}
    with pytest.raises(BudgetExceeded):
        model.invoke("Hi", config, response_format=schema)
    with pytest.raises(BudgetExceeded):
        tracker.guard(model).bind_tools(tools).invoke("Hi", config)
    with pytest.raises(BudgetExceeded):
        tracker.admit(provider="openai", model="gpt-4o-mini", prompt="Hi", max_tokens=20, user_id="u-1", tools=tools)


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/scan.png"}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "A" * 400_000, "format": "mp3"}}


@pytest.mark.parametrize("blocks", [[PICTURE, PICTURE], [FILE], [SOUND]], ids=["pictures", "file", "sound"])
def test_pictures_sounds_and_files_are_set_aside_for(
    blocks: list[dict[str, Any]], store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer
) -> None:
    """They have no text, and thousands of tokens."""
    set_budget(store, metric="tokens", daily_limit="3000")
    tracker = knows_its_budgets(make_tracker())
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
    model = provider.chat_openai(model="gpt-4o", max_tokens=20)
    question = HumanMessage([{"type": "text", "text": "What is this?"}, *blocks])
    model.invoke("Hi", config)
    for asked in (model, tracker.guard(model)):
        with pytest.raises(BudgetExceeded):
            asked.invoke([question], config)
