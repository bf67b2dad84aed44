"""The helpers that users build their own tests on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.tools import tool

from tests.support.folders import REPOSITORY
from vital_tracking import Agent, BudgetExceeded, Settings, StoreNotReady, VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model


def test_calls_and_runs_can_be_looked_at_without_a_database() -> None:
    store = MemoryStore()
    with VitalTracker(store) as tracker:
        with tracker.conversation(user_id="u-1", session_id="s-1", agent=Agent("cardio")) as conversation:
            model = fake_chat_model(replies=["One.", "Two."], input_tokens=1000, output_tokens=500)
            assert model.invoke("Hello", config=conversation.config()).content == "One."
            assert (
                "".join(str(chunk.content) for chunk in model.stream("Hello", config=conversation.config())) == "Two."
            )
        delivered = tracker.flush()
    assert delivered.inserted == 2
    # gpt-4o-mini: 1,000 x 0.15 + 500 x 0.60 dollars a million.
    assert [call["total_cost"] for call in store.calls] == ["0.00045000", "0.00045000"]
    assert {call["agent_id"] for call in store.calls} == {"cardio"}
    assert [run["status"] for run in store.runs] == ["ok"]


async def test_the_fake_model_reports_usage_on_the_asynchronous_paths_too() -> None:
    model = fake_chat_model(cache_read_tokens=40)
    answer = await model.ainvoke("Hello")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_token_details"] == {"cache_read": 40}
    chunks = [chunk async for chunk in model.astream("Hello")]
    assert [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata] == [120]


def test_what_needs_a_database_says_so() -> None:
    store = MemoryStore()
    with pytest.raises(StoreNotReady, match="real database"):
        store.call("tracking_status_v1")
    with pytest.raises(StoreNotReady, match=r"\.calls"):
        store.read("agent_usage_detailed", columns=["id"])
    with pytest.raises(StoreNotReady, match="panel_seat"):
        store.breakdown("panel_seat")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def tracker(store: MemoryStore) -> Iterator[VitalTracker]:
    with VitalTracker(store, settings=Settings(background=False)) as tracker:
        yield tracker


# Budgets in memory


@pytest.mark.parametrize("metric", ["cost_usd", "tokens", "calls"])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_budget_blocks_at_its_limit(store: MemoryStore, tracker: VitalTracker, metric: str, flushed: bool) -> None:
    """Whether rows have been sent or not: an application's test of what happens at the limit needs no database."""
    # A call costs $0.000027 in 120 tokens; with what is held for the next one the third does not fit any more.
    limits = {"cost_usd": "0.00006", "tokens": 300, "calls": 2}
    store.set_budget("user", daily=limits[metric], metric=metric)
    model = fake_chat_model()
    for user in ("u-1", "u-2"):
        with tracker.conversation(user_id=user) as turn:
            for _ in range(2):
                model.invoke("Hi", max_tokens=20)
                if flushed:
                    tracker.flush()
            with pytest.raises(BudgetExceeded) as stopped:
                model.invoke("Hi", max_tokens=20)
            assert (stopped.value.entity_id, stopped.value.period, stopped.value.action) == (user, "day", "block")
        assert turn.spent.blocked == 1
    tracker.flush()
    assert {call["status"] for call in store.calls} == {"ok", "blocked"}


def test_a_budget_of_one_entity_leaves_others_alone(store: MemoryStore, tracker: VitalTracker) -> None:
    store.set_budget("agent", "cardio", total=0, metric="calls")
    with tracker.conversation(agent="legal"):
        fake_chat_model().invoke("Hi")
    with pytest.raises(BudgetExceeded), tracker.conversation(agent="cardio"):
        fake_chat_model().invoke("Hi")


def test_a_guard_takes_the_cheaper_model_at_the_limit(store: MemoryStore, tracker: VitalTracker) -> None:
    store.set_budget("user", "u-1", monthly=1, metric="calls", action="downgrade", downgrade_to="gpt-4o-mini")
    guarded = tracker.guard(fake_chat_model(model="gpt-4o"), downgrade_to="gpt-4o-mini")
    with tracker.conversation(user_id="u-1") as turn:
        for _ in range(3):
            guarded.invoke("Hi", config=turn.config())
    tracker.flush()
    assert [call["model"] for call in store.calls] == ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]


@pytest.mark.parametrize(
    "wrong",
    [{"action": "throttle", "daily": 1}, {"metric": "euros", "daily": 1}, {}, {"entity_type": "planet", "daily": 1}],
)
def test_a_budget_that_needs_a_database_is_refused(store: MemoryStore, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        store.set_budget(**{"entity_type": "user", **wrong})  # type: ignore[arg-type]


def test_a_breakdown_sums_calls_up(store: MemoryStore, tracker: VitalTracker) -> None:
    with tracker.conversation(user_id="u-1", agent=Agent("cardio", name="Cardiologist")):
        for _ in range(2):
            fake_chat_model().invoke("Hi")
        fake_chat_model(model="house", provider="house").invoke("Hi")
    tracker.flush()
    (row,) = store.breakdown("agent")
    assert (row["key"], row["label"], row["calls"], row["unpriced_calls"]) == ("cardio", "Cardiologist", 3, 1)
    assert (row["total_tokens"], row["total_cost"]) == (360, Decimal("0.000054"))
    assert [row["label"] for row in store.breakdown("model")] == ["gpt-4o-mini", "house"]


# The fake model


async def test_a_script_of_tools_errors_and_streams(store: MemoryStore, tracker: VitalTracker) -> None:
    @tool
    def pulse(patient: str) -> str:
        """The pulse of a patient."""
        return f"{patient}: 72"

    model = fake_chat_model(
        replies=[
            AIMessage("", tool_calls=[ToolCall(name="pulse", args={"patient": "p-1"}, id="1")]),
            "It is 72.",
            ConnectionError("rate limited"),
            "a b c",
        ]
    )
    agent = create_agent(model, tools=[pulse], name="nurse")
    with tracker.conversation(user_id="u-1") as turn:
        answer = agent.invoke({"messages": [("user", "How is p-1?")]}, config=turn.config())
        assert [message.content for message in answer["messages"][1:]] == ["", "p-1: 72", "It is 72."]
        with pytest.raises(ConnectionError):
            await model.ainvoke("Hi")
        assert [chunk.content async for chunk in model.astream("Hi")] == ["a ", "b ", "c", ""]
        streamed = [chunk for chunk in model.stream("Hi") if chunk.tool_call_chunks]
    assert streamed[0].tool_calls[0]["args"] == {"patient": "p-1"}
    tracker.flush()
    assert [call["status"] for call in store.calls] == ["ok", "ok", "error", "ok", "ok"]
    assert turn.cost == 4 * Decimal("0.000027")


# What pytest knows by itself


def test_the_suite_of_the_page_runs(tmp_path: Path) -> None:
    """docs/testing.md is an application and its tests: they run as they stand there."""
    page = (REPOSITORY / "docs" / "testing.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(code, encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.py")} == {"app.py", "test_app.py"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "vital_tracking.testing.plugin",
        ".",
    ]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_the_plugin_imports_nothing_before_a_test_asks_for_it() -> None:
    """pytest loads it for everybody who has the package: their runs must not become slower."""
    program = "import sys, vital_tracking.testing.plugin; print(*(name for name in sys.modules if 'vital' in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "langchain_core" not in done.stdout
