"""`tracker.record`: calls that no LangChain object made."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from vital_tracking import Agent, VitalTracker
from vital_tracking.core.record import CallRecord

Rows = Callable[..., list[dict[str, Any]]]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_every_field_reaches_its_column(tracker: VitalTracker, rows: Rows) -> None:
    call_id = tracker.record(
        provider="openai",
        model="gpt-4o",
        prompt_tokens=1000,
        completion_tokens=200,
        cache_read_tokens=400,
        reasoning_tokens=50,
        response_time_ms=812.5,
        ttft_ms=95.25,
        user_id="u-1",
        session_id="s-1",
        organization_id="org",
        agent=Agent("planner", name="Planner", tier="tier_2", role="lead"),
        framework="autogen",
        message_type="preset_action",
        started_at=AT,
        tags=["nightly"],
        metadata={"round": 3, "topic": "triage"},
    )
    assert tracker.flush().inserted == 1
    (row,) = rows()
    assert str(row["id"]) == call_id
    assert row["created_at"] == AT
    # gpt-4o: 2.50 uncached, 1.25 cached, 10 out, dollars a million.
    assert row["input_cost"] == (600 * Decimal("2.5") + 400 * Decimal("1.25")) / 10**6
    assert row["output_cost"] == 200 * Decimal(10) / 10**6
    assert row["total_cost"] == row["input_cost"] + row["output_cost"]
    assert row["potential_cost"] == (1000 * Decimal("2.5") + 200 * Decimal(10)) / 10**6
    expected = {
        "organization_id": "org",
        "user_id": "u-1",
        "session_id": "s-1",
        "agent_id": "planner",
        "agent_name": "Planner",
        "agent_tier": "tier_2",
        "agent_role": "lead",
        "framework": "autogen",
        "message_type": "preset_action",
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "cache_read_tokens": 400,
        "reasoning_tokens": 50,
        "latency_ms": 812.5,
        "ttft_ms": 95.25,
        "status": "ok",
        "success": True,
        "tags": ["nightly"],
        "metadata": {"round": 3, "topic": "triage"},
        "usage_estimated": False,
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("provider", "model", "cost"),
    [
        # dollars a million in and out; 10,000 and 1,000 tokens
        ("openai", "gpt-4o-mini", 10_000 * Decimal("0.15") + 1_000 * Decimal("0.6")),
        ("anthropic", "claude-3-haiku", 10_000 * Decimal("0.25") + 1_000 * Decimal("1.25")),
        ("perplexity", "llama-3.1-sonar-small-128k-online", 10_000 * Decimal("0.2") + 1_000 * Decimal("0.2")),
        ("google", "gemini-1.5-flash", 10_000 * Decimal("0.075") + 1_000 * Decimal("0.3")),
    ],
)
def test_a_provider_alone_is_priced_by_its_default_model_and_the_row_says_so(
    tracker: VitalTracker, rows: Rows, provider: str, model: str, cost: Decimal
) -> None:
    tracker.record(provider=provider, prompt_tokens=10_000, completion_tokens=1_000, started_at=AT)
    tracker.flush()
    (row,) = rows()
    assert row["model"] == model
    assert row["total_cost"] == cost / 10**6
    assert row["metadata"] == {"model_assumed": True}


def test_default_models_are_the_teams_to_choose(make_tracker: Callable[..., VitalTracker], rows: Rows) -> None:
    tracker = make_tracker(default_models={"openai": "gpt-4o"})
    tracker.record(provider="openai", prompt_tokens=1_000_000, completion_tokens=0, started_at=AT)
    tracker.flush()
    assert rows()[0]["model"] == "gpt-4o"
    assert rows()[0]["total_cost"] == Decimal("2.5")


def test_an_unknown_provider_is_unpriced_never_free(tracker: VitalTracker, rows: Rows) -> None:
    tracker.record(provider="nobody", prompt_tokens=10, completion_tokens=1)
    tracker.flush()
    (row,) = rows()
    assert row["total_cost"] is None
    assert row["priced"] is False
    assert tracker.stats().unpriced == 1


def test_a_failure_keeps_the_class_of_the_error_only(tracker: VitalTracker, rows: Rows) -> None:
    for error in (ValueError("canary text"), ValueError, "ValueError", "canary text with spaces"):
        tracker.record(provider="openai", model="gpt-4o", success=False, error=error, user_id="u-1")
    tracker.flush()
    found = rows()
    assert [row["error_type"] for row in found] == ["ValueError", "ValueError", "ValueError", "Error"]
    assert {row["status"] for row in found} == {"error"}
    assert {row["success"] for row in found} == {False}
    assert {row["total_cost"] for row in found} == {Decimal(0)}
    assert "canary" not in str(found)


def test_usage_that_nobody_knows_is_not_free(tracker: VitalTracker, rows: Rows) -> None:
    tracker.record(provider="openai", model="gpt-4o", response_time_ms=10)
    tracker.flush()
    (row,) = rows()
    assert row["total_cost"] is None
    assert row["usage_estimated"] is True
    assert row["metadata"] == {"notes": ["usage_missing"]}


@pytest.mark.parametrize("garbage", ["12", True, -1, math.nan, math.inf, 1e30, 1.5, [], {}])
def test_garbage_counts_are_stored_and_flagged(tracker: VitalTracker, rows: Rows, garbage: Any) -> None:
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=garbage, completion_tokens=10, user_id="u-1")
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=10, cache_read_tokens=garbage)
    assert tracker.flush().inserted == 2
    first, second = rows()
    assert first["metadata"]["notes"] == ["token_total_missing"]
    assert first["completion_tokens"] == 10
    assert second["metadata"]["notes"] == ["invalid_token_detail"]
    assert second["prompt_tokens"] == 10


def test_record_never_raises_whatever_it_is_given(tracker: VitalTracker, rows: Rows) -> None:
    anything: list[Any] = [object(), b"\0", "\ud800", "x" * 10**6, {"a": object()}, ["\0"], 10**400]
    for value in anything:
        tracker.record(
            provider=value,
            model=value,
            prompt_tokens=5,
            completion_tokens=5,
            response_time_ms=value,
            user_id=value,
            session_id=value,
            agent=value,
            framework=value,
            message_type=value,
            call_type=value,
            service_tier=value,
            started_at=value,
            tags=[value],
            metadata={"key": value, "other": "kept"},
            status=value,
            error=value,
        )
    delivered = tracker.flush()
    assert delivered.inserted == len(anything)
    assert delivered.rejected == 0
    assert {row["total_tokens"] for row in rows()} == {10}
    assert tracker.stats().faults == 0


def test_a_call_recorded_inside_a_scope_is_the_scopes(tracker: VitalTracker, rows: Rows) -> None:
    with tracker.workflow("intake", user_id="u-1", metadata={"ticket": 7}) as workflow:
        tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=1, user_id="u-2")
    tracker.flush()
    (row,) = rows()
    assert row["service_type"] == "workflow"
    assert row["service_run_id"] == workflow.run_id
    assert row["user_id"] == "u-2"
    assert row["metadata"] == {"ticket": 7}


def test_the_teams_prices_count_from_code_and_from_the_table(
    make_tracker: Callable[..., VitalTracker], rows: Rows, database_url: str
) -> None:
    from vital_tracking import Price

    rows(
        """select add_model_price_v1('{"model": "house", "input_usd_per_mtok": "3", "output_usd_per_mtok": "6",
        "valid_from": "2026-02-01T00:00:00Z"}')"""
    )
    tracker = make_tracker(
        prices=[Price("other", input="0.1", output="0.2", valid_from=datetime(2026, 1, 1, tzinfo=UTC))]
    )
    for model in ("house", "other"):
        tracker.record(provider="in_house", model=model, prompt_tokens=1000, completion_tokens=1000, started_at=AT)
    tracker.record(
        provider="in_house",
        model="house",
        prompt_tokens=1000,
        completion_tokens=1000,
        started_at=datetime(2026, 1, 31, tzinfo=UTC),
    )
    tracker.flush()
    costs = [(row["model"], row["total_cost"]) for row in rows("select * from token_usage_logs order by id")]
    assert costs == [("house", Decimal("0.009")), ("other", Decimal("0.0003")), ("house", None)]
    versions = [row["price_version"] for row in rows()]
    assert versions[0].startswith("model_prices ")
    assert versions[1] == "own price */other from 2026-01-01"


def test_a_record_with_a_value_nobody_foresaw_keeps_its_money(tracker: VitalTracker, rows: Rows) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("canary")

    tracker.record(
        provider="openai",
        model="gpt-4o",
        prompt_tokens=1_000_000,
        completion_tokens=0,
        metadata={"a": 1},
        tags=[Hostile()],  # type: ignore[list-item]
    )
    assert tracker.flush().inserted == 1
    (row,) = rows()
    assert row["total_cost"] == Decimal("2.5")
    assert row["tags"] == ["<Hostile>"]


def test_a_handed_in_record_is_not_changed(tracker: VitalTracker) -> None:
    record = CallRecord(id="01a20073-5140-75c7-9ed7-b8d2fa8b7d91", created_at=AT, provider="openai", model="gpt-4o")
    cost = tracker.prices.cost_of(record)
    assert cost is not None
    assert cost.total == 0
