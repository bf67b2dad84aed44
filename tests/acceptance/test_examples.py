"""Every example runs as it stands, and the database then holds what it says: who, what for, and the cost to the last digit."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.helpers import run
from tests.integration.helpers import Rows, dollars, only
from tests.support.folders import REPOSITORY

EXAMPLES = REPOSITORY / "examples"

# What the examples' fake models report, times the providers' prices in dollars per million tokens.
GPT_4O = dollars((1840, "2.50"), (212, "10"))
GPT_4O_MINI = dollars((930, "0.15"), (88, "0.60"))
CLAUDE_HAIKU_4_5 = dollars((2210, "1"), (164, "5"))


@pytest.fixture
def said(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> str:
    """What the example named by the test's parameter printed."""
    script = EXAMPLES / f"{request.param}.py"
    # They flush where it matters; on a slow machine nothing is sent between two calls of theirs for the passing of time.
    done = run([sys.executable, str(script)], tmp_path, VITAL_DATABASE_URL=database_url, VITAL_FLUSH_INTERVAL=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def example(name: str) -> pytest.MarkDecorator:
    """Run this example for the test."""
    return pytest.mark.parametrize("said", [name], indirect=True)


def columns(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Some columns of the rows."""
    return [tuple(row[name] for name in names) for row in rows]


def test_each_example_has_a_test_and_says_what_it_shows() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert source.startswith('"""'), path
        if path.stem in ("models", "limits"):  # what the examples share
            continue
        assert f'@example("{path.stem}")' in tested, path
        assert "def main() -> None:" in source, path
        assert f"python examples/{path.name}" in source, path


@example("conversation")
def test_a_conversation_is_attributed_turn_by_turn(said: str, rows: Rows) -> None:
    calls = rows()
    assert (
        columns(calls, "service_type", "service_id", "user_id", "session_id", "agent_id", "agent_name", "agent_tier")
        == [("1:1_conversation", "s-1", "u-1", "s-1", "cardio", "Cardiologist", "tier_1")] * 3
    )
    assert [call["total_cost"] for call in calls] == [GPT_4O] * 3
    assert len({call["service_run_id"] for call in calls}) == 3
    assert calls[2]["ttft_ms"] is not None, "the third turn is streamed"
    runs = rows("select id, status from service_runs")
    assert {run["id"] for run in runs} == {call["service_run_id"] for call in calls}
    assert {run["status"] for run in runs} == {"ok"}
    assert "Cardiologist: 3 calls, $0.0201600" in said


@example("panel")
def test_a_panel_is_attributed_seat_by_seat(said: str, rows: Rows) -> None:
    calls = rows()
    seats = [(1, "cardio", GPT_4O), (2, "legal", CLAUDE_HAIKU_4_5), (3, "market", GPT_4O_MINI)]
    assert columns(calls, "panel_position", "agent_id", "total_cost") == seats * 2
    assert set(columns(calls, "service_type", "panel_id", "panel_size", "user_id")) == {
        ("virtual_panel", "launch-board", 3, "u-1")
    }
    run = only(rows("select id, service_name, status from service_runs"))
    assert {call["service_run_id"] for call in calls} == {run["id"]}
    assert run["status"] == "ok"
    assert "launch-board / seat 2 of 3 / Counsel: 2 calls, $0.006060" in said


@example("workflow")
def test_a_workflow_is_attributed_step_by_step_into_its_subgraph(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "workflow_step", "workflow_step_name", "agent_id", "total_cost") == [
        ("triage", "Triage", "cardio", GPT_4O),
        *[("research", None, None, GPT_4O_MINI)] * 2,
        ("report", "Report", "legal", CLAUDE_HAIKU_4_5),
    ]
    assert set(columns(calls, "service_type", "workflow_id", "service_name", "session_id", "framework")) == {
        ("workflow", "intake", "Intake", "t-1", "langgraph")
    }
    assert [call["metadata"]["langgraph_path"] for call in calls] == [
        "triage",
        "research/sources",
        "research/weigh",
        "report",
    ]
    total = only(rows("select steps, calls, total_cost, status from workflow_analytics"))
    assert tuple(total.values()) == (3, 4, GPT_4O + 2 * GPT_4O_MINI + CLAUDE_HAIKU_4_5, "ok")
    assert "intake / Triage: 1 calls, $0.0067200" in said


@example("solution")
def test_whatever_runs_inside_a_solution_belongs_to_it(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "service_type", "workflow_id", "panel_position", "total_cost") == [
        ("solution_builder", None, None, GPT_4O),
        ("workflow", "drafting", None, GPT_4O_MINI),
        ("virtual_panel", None, 1, CLAUDE_HAIKU_4_5),
        ("virtual_panel", None, 2, GPT_4O_MINI),
    ]
    assert {call["solution_id"] for call in calls} == {"care-plan"}
    runs = {run["service_type"]: run for run in rows("select * from service_runs")}
    assert {run["parent_run_id"] for run in runs.values()} == {None, runs["solution_builder"]["id"]}
    whole = GPT_4O + 2 * GPT_4O_MINI + CLAUDE_HAIKU_4_5
    total = only(rows("select calls, total_cost from workflow_analytics where service_type = 'solution_builder'"))
    assert tuple(total.values()) == (4, whole)
    assert f"solution care-plan: 4 calls, ${whole:f}" in said


@example("agent")
def test_an_agents_calls_are_counted_inside_its_tool_too(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "model", "message_type", "total_cost") == [
        ("gpt-4o-mini", "chat", dollars((410, "0.15"), (22, "0.60"))),
        ("claude-haiku-4-5", "tool_execution", CLAUDE_HAIKU_4_5),
        ("gpt-4o-mini", "chat", dollars((640, "0.15"), (31, "0.60"))),
    ]
    assert set(columns(calls, "service_type", "user_id", "session_id", "agent_id")) == {
        ("1:1_conversation", "u-1", "s-1", "triage")
    }
    assert calls[1]["metadata"]["tool"] == "guideline"
    assert "agent Triage nurse: 3 calls" in said


@example("retrieval")
def test_embeddings_are_recorded_in_their_scope_and_flagged_where_estimated(said: str, rows: Rows) -> None:
    calls = rows()
    # One token for every four bytes: 24 + 29 + 26 bytes of texts, then 21 of the question, each request rounded up.
    assert columns(calls, "call_type", "model", "prompt_tokens", "usage_estimated", "total_cost") == [
        ("embedding", "text-embedding-3-small", 20, True, dollars((20, "0.02"))),
        ("embedding", "text-embedding-3-small", 6, True, dollars((6, "0.02"))),
        ("chat", "gpt-4o-mini", 930, False, GPT_4O_MINI),
    ]
    assert set(columns(calls, "service_type", "workflow_id", "user_id")) == {("workflow", "answer-from-sources", "u-1")}
    assert "text-embedding-3-small: 2 calls, 26 prompt tokens, $0.00000052" in said


@example("fastapi_app")
def test_each_request_of_a_web_service_is_its_users_own(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "user_id", "session_id", "agent_id", "total_cost") == [
        (user, f"web-{user}", "cardio", GPT_4O_MINI) for user in ("u-1", "u-2", "u-3")
    ]
    assert all(call["ttft_ms"] is not None for call in calls), "answers are streamed"
    assert {run["status"] for run in rows("select status from service_runs")} == {"ok"}
    assert said.count("First, ask who will use it.") == 3


@example("by_hand")
def test_calls_recorded_by_hand_are_priced_like_any_other(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "provider", "model", "framework", "message_type", "status", "total_cost") == [
        ("openai", "gpt-4o", "autogen", "chat", "ok", dollars((1200, "2.50"), (300, "10"))),
        (
            "openai",
            "gpt-4o-mini",
            "openai",
            "preset_action",
            "ok",
            dollars((500, "0.15"), (1500, "0.075"), (100, "0.60")),
        ),
        (
            "perplexity",
            "llama-3.1-sonar-small-128k-online",
            "perplexity",
            "chat",
            "ok",
            dollars((500, "0.20"), (250, "0.20")),
        ),
        ("anthropic", "claude-haiku-4-5", None, "chat", "error", Decimal(0)),
    ]
    autogen, sdk, perplexity, failed = calls
    assert (autogen["service_type"], autogen["workflow_id"], autogen["agent_id"]) == (
        "workflow",
        "literature-review",
        "researcher",
    )
    assert autogen["latency_ms"] == 850
    assert (sdk["cache_read_tokens"], sdk["service_type"]) == (1500, None)
    assert perplexity["metadata"] == {"model_assumed": True, "query": "recent trials"}
    assert failed["error_type"] == "TimeoutError"
    assert "never stored" not in str(rows("select to_jsonb(t) from token_usage_logs t"))
    assert said.splitlines() == [
        "gpt-4o: 1 calls, 0 failed, $0.0060000",
        "gpt-4o-mini: 1 calls, 0 failed, $0.000247500",
        "llama-3.1-sonar-small-128k-online: 1 calls, 0 failed, $0.0001500",
        "claude-haiku-4-5: 1 calls, 1 failed, $0",
    ]


def tidy(rows: Rows) -> bool:
    """Whether the example has removed its budgets, and nothing is left of them but the alerts."""
    return rows("select id from budget_limits") == rows("select id from budget_windows") == []


@example("budget_alert")
def test_an_alert_is_told_at_each_threshold_and_stops_nothing(said: str, rows: Rows) -> None:
    assert columns(rows(), "status", "budget_action", "total_cost") == [("ok", None, GPT_4O)] * 4
    told = [line for line in said.splitlines() if line.startswith("user u-")]
    assert [line.partition(" has ")[2] for line in told] == [
        "spent $0.013 of $0.02 today (67 %); at the limit: alert.",
        "spent $0.026 of $0.02 today (134 %); the limit is reached.",
    ]
    alerts = rows("select threshold, spent, superseded from cost_alerts order by threshold")
    assert [tuple(alert.values()) for alert in alerts] == [
        (Decimal("0.5"), 2 * GPT_4O, False),
        (Decimal("0.8"), 4 * GPT_4O, True),
        (Decimal("1.0"), 4 * GPT_4O, False),
    ]
    assert tidy(rows)


@example("budget_throttle")
def test_throttled_calls_pass_one_by_one(said: str, rows: Rows) -> None:
    calls = rows()
    assert columns(calls, "status", "budget_action", "total_cost") == [
        *[("ok", None, GPT_4O_MINI)] * 2,
        *[("ok", "throttle", GPT_4O_MINI)] * 5,
        ("blocked", "throttle", Decimal(0)),
    ]
    assert [call["throttled_ms"] is not None for call in calls] == [False] * 3 + [True] * 4 + [False]
    starts = [call["created_at"] for call in calls[2:7]]
    assert (starts[-1] - starts[0]).total_seconds() > 1.9, "four slots of half a second"
    assert calls[7]["error_type"] == "BudgetThrottled"
    assert "not now: come again in 0." in said
    assert tidy(rows)


@example("budget_downgrade")
def test_over_the_limit_a_cheaper_model_answers(said: str, rows: Rows) -> None:
    assert columns(rows(), "status", "model", "requested_model", "budget_action", "total_cost") == [
        ("ok", "gpt-4o", None, None, GPT_4O),
        ("ok", "gpt-4o", None, None, GPT_4O),
        ("ok", "gpt-4o-mini", "gpt-4o", "downgrade", dollars((1840, "0.15"), (212, "0.60"))),
        ("ok", "claude-haiku-4-5", "gpt-4o", "downgrade", CLAUDE_HAIKU_4_5),
        ("blocked", "gpt-4o", None, "downgrade", Decimal(0)),
        ("ok", "gpt-4o-mini", None, None, GPT_4O_MINI),
    ]
    assert "Only models no dearer than claude-haiku-4-5 pass now." in said
    assert tidy(rows)


@example("budget_block")
def test_a_budget_is_spent_to_the_end_and_not_beyond(said: str, rows: Rows) -> None:
    # What is set aside for a call is learned from those before it: 0.0084. 13 calls and that fit into 0.10, 14 and that do not.
    *calls, stopped = rows()
    assert columns(calls, "status", "budget_action", "total_cost") == [("ok", None, GPT_4O)] * 14
    assert columns([stopped], "status", "budget_action", "total_cost", "total_tokens", "error_type") == [
        ("blocked", "block", Decimal(0), 0, "BudgetExceeded")
    ]
    assert "14 answers, then: The budget of session s-" in said
    assert f"spent ${14 * GPT_4O:.7f} of $0.10" in said
    assert tidy(rows)


@example("budget_admit")
def test_code_that_calls_a_provider_by_itself_goes_by_the_budgets(said: str, rows: Rows) -> None:
    gpt_4o = dollars((420, "2.50"), (60, "10"))
    calls = rows()
    assert columns(calls, "status", "model", "requested_model", "budget_action", "total_cost") == [
        ("ok", "gpt-4o", None, None, gpt_4o),
        ("ok", "gpt-4o", None, None, gpt_4o),
        ("ok", "gpt-4o-mini", "gpt-4o", "downgrade", dollars((420, "0.15"), (60, "0.60"))),
        ("blocked", "gpt-4o-mini", None, "block", Decimal(0)),
    ]
    assert len({call["session_id"] for call in calls}) == 1
    assert "gpt-4o-mini, downgrade: gpt-4o-mini would answer" in said
    assert tidy(rows)
