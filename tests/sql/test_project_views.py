"""The names that admins know: their columns in their order, what they show of unpriced and of gone calls, and odd arguments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg.errors import InvalidParameterValue

from tests.sql.access_world import PURE
from tests.sql.helpers import Connection, Row, a_call, acting_as, an_unpriced_call, record
from tests.sql.test_roles import EXECUTABLE

# The columns that dashboards and queries of admins name, in their order. Ours follow.
COLUMNS = {
    "agent_usage_detailed": """
        id user_id agent_id agent_name framework provider message_type input_tokens output_tokens total_tokens cost_usd
        response_time_ms success error_message request_metadata timestamp
    """,
    "agent_performance_metrics": """
        user_id agent_id agent_name framework provider date total_requests successful_requests failed_requests
        total_input_tokens total_output_tokens total_tokens total_cost_usd avg_response_time_ms popular_actions
    """,
    "system_analytics": """
        date total_users active_users new_users total_requests successful_requests failed_requests total_input_tokens
        total_output_tokens total_tokens total_cost_usd cost_by_provider avg_response_time_ms success_rate popular_agents
        framework_usage provider_usage top_users_by_usage
    """,
    "usage_logs": """
        project_id created_at provider model input_tokens output_tokens total_tokens cost_usd potential_cost_usd cached
        latency_ms
    """,
    "usage_aggregations_hourly": """
        project_id hour_start total_requests cached_requests input_tokens output_tokens total_cost_usd potential_cost_usd
        total_savings_usd savings_percent cache_hit_rate avg_latency_ms by_provider by_model
    """,
    "usage_aggregations_daily": """
        project_id date total_requests cached_requests input_tokens output_tokens total_cost_usd potential_cost_usd
        total_savings_usd savings_percent cache_hit_rate avg_latency_ms by_provider by_model
    """,
}
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
CARDIO: Row = {
    "organization_id": "acme",
    "user_id": "u-1",
    "agent_id": "cardio",
    "agent_name": "Cardiologist",
    "framework": "langgraph",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "message_type": "chat",
    "created_at": NOON.isoformat(),
}
FREE: Row = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}


def query(db: Connection, text: str, *arguments: Any) -> list[Row]:
    return db.execute(text, arguments or None).fetchall()


@pytest.mark.parametrize("name", COLUMNS)
def test_a_view_has_the_columns_that_admins_know_first_and_in_order(db: Connection, name: str) -> None:
    """If this failed, a query that admins have typed for years would end with an unknown column."""
    found = [column.name for column in db.execute(f"select * from {name} limit 0").description or ()]
    expected = COLUMNS[name].split()
    assert found[: len(expected)] == expected


def test_the_dashboard_has_the_columns_of_a_day(db: Connection) -> None:
    """If this failed, a dashboard would find other columns over rpc than in the view."""
    days, stats = (
        [column.name for column in db.execute(text).description or ()]
        for text in ("select * from usage_aggregations_daily limit 0", "select * from get_dashboard_stats('acme', 1)")
    )
    assert days == stats


def test_hours_and_days_are_those_of_the_calls(db: Connection) -> None:
    """If this failed, the accuracy check of an admin would find a difference, or an unpriced call would be a saving."""
    record(
        db,
        a_call(1, **CARDIO, latency_ms=100.0, potential_cost="0.50"),
        a_call(
            2,
            **{**CARDIO, "provider": None, "model": "other", "created_at": (NOON + timedelta(minutes=30)).isoformat()},
        ),
        a_call(3, **CARDIO, cache_hit=True, **FREE),
        an_unpriced_call(4, **{**CARDIO, "created_at": (NOON + timedelta(hours=2)).isoformat()}),
        a_call(5, **{**CARDIO, "organization_id": None}, status="error", error_type="APITimeoutError"),
    )
    days = query(db, "select * from usage_aggregations_daily order by project_id")
    first, nobody = days
    assert (first["project_id"], first["total_requests"], first["cached_requests"], first["unpriced_requests"]) == (
        "acme", 4, 1, 1,
    )  # fmt: skip
    assert (first["total_cost_usd"], first["potential_cost_usd"], first["total_savings_usd"]) == (
        Decimal("0.84"), Decimal("1.34"), Decimal("0.50"),
    )  # fmt: skip
    assert (first["savings_percent"], first["cache_hit_rate"], first["avg_latency_ms"]) == (Decimal("37.3134"), 25, 100)
    assert first["by_provider"] == {
        "openai": {"requests": 3, "total_tokens": 360, "cost_usd": 0.42, "unpriced_requests": 1},
        "(no provider)": {"requests": 1, "total_tokens": 120, "cost_usd": 0.42, "unpriced_requests": 0},
    }
    assert {name: part["requests"] for name, part in first["by_model"].items()} == {"gpt-4o-mini": 3, "other": 1}
    assert (nobody["project_id"], nobody["failed_requests"], nobody["timed_out_requests"], nobody["timeout_rate"]) == (
        None, 1, 1, 100,
    )  # fmt: skip
    assert nobody["by_provider"]["openai"]["requests"] == 1
    hours = query(db, "select * from usage_aggregations_hourly where project_id = 'acme' order by hour_start")
    assert [(hour["total_requests"], hour["total_cost_usd"], hour["by_model"].keys()) for hour in hours] == [
        (3, Decimal("0.84"), {"gpt-4o-mini", "other"}), (1, 0, {"gpt-4o-mini"}),
    ]  # fmt: skip
    [check] = query(
        db,
        "select (select sum(cost_usd) from usage_logs where project_id = 'acme' and created_at::date = d.date)"
        " = d.total_cost_usd as same from usage_aggregations_daily as d where d.project_id = 'acme'",
    )
    assert check == {"same": True}
    *_, yesterday, today = query(db, "select * from get_dashboard_stats('acme', 7)")
    assert yesterday == first
    assert (today["total_requests"], today["total_cost_usd"], today["savings_percent"], today["by_model"]) == (
        0,
        0,
        0,
        {},
    )
    [row] = query(db, "select * from get_dashboard_stats(null, 2) where total_requests > 0")
    assert (row["project_id"], row["total_requests"]) == (None, 5)


def test_what_is_gone_is_told_as_far_as_the_sums_know_it(db: Connection) -> None:
    """If this failed, an agent's history would end with the retention of calls, or an hour would seem to know no model."""
    record(db, a_call(1, **CARDIO), a_call(2, **{**CARDIO, "message_type": "embedding"}))
    view = (
        "select user_id, agent_id, framework, provider, total_requests, popular_actions from agent_performance_metrics"
    )
    row: Row = {"agent_id": "cardio", "framework": "langgraph", "provider": "openai", "total_requests": 2}
    told = {**row, "popular_actions": {"chat": 1, "embedding": 1}}
    assert query(db, view) == [{"user_id": "u-1", **told}]
    db.execute("select vital_private.rows_gone_before(%s)", [NOON + timedelta(hours=20)])
    db.execute("select set_config('vital_tracking.keep_sums', 'on', true)")
    db.execute("delete from token_usage_logs")
    assert query(db, view) == [{"user_id": None, **told}]
    [hour] = query(db, "select total_requests, by_provider, by_model from usage_aggregations_hourly")
    assert hour == {"total_requests": 2, "by_provider": None, "by_model": None}
    [day] = query(db, "select by_model from usage_aggregations_daily")
    assert day["by_model"]["gpt-4o-mini"]["requests"] == 2
    [rate] = query(db, "select get_agent_success_rate('cardio', 240) as rate")
    assert rate == {"rate": 100}


def test_a_user_is_told_of_all_that_is_their_own(db: Connection) -> None:
    """If this failed, a user's own hours, agents and steps would stay empty: no sums hold them alone."""
    part: Row = {
        "service_type": "workflow",
        "workflow_id": "w",
        "workflow_step": "s",
        "panel_id": "p",
        "panel_position": 1,
    }
    record(
        db,
        a_call(1, **CARDIO, **part),
        a_call(2, **{**CARDIO, "user_id": "u-2"}, **part),
        a_call(3, **{**CARDIO, "organization_id": None}, **part, status="error", error_type="ReadTimeout"),
    )
    with acting_as(db, "authenticated", {"sub": "u-1"}):
        for name, column in {
            **dict.fromkeys(
                ("usage_aggregations_hourly", "usage_aggregations_daily", "agent_performance_metrics"), "total_requests"
            ),
            **dict.fromkeys(
                ("service_costs", "workflow_efficiency", "panel_performance", "user_service_usage"), "calls"
            ),
            "system_analytics": "total_requests",
            "top_usage('agent')": "calls",
            "top_usage('framework')": "calls",
            "get_dashboard_stats(null, 2)": "total_requests",
        }.items():
            assert sum(row[column] for row in query(db, f"select * from {name}")) == 2, name
        [found] = query(
            db,
            "select get_tenant_cost('acme', null, null) as mine, get_tenant_cost('other', null, null) as none,"
            " get_agent_success_rate('cardio', 48) as rate, get_agent_success_rate('nobody') as unknown",
        )
        assert found == {"mine": Decimal("0.42"), "none": 0, "rate": 50, "unknown": None}


def test_time_outs_are_told_from_other_errors(db: Connection) -> None:
    """If this failed, a provider that hangs would look like one that refuses."""
    kinds = (
        "APITimeoutError",
        "ReadTimeout",
        "TimeoutError",
        "DeadlineExceeded",
        "RateLimitError",
        "CancelledError",
        None,
    )
    for number, kind in enumerate(kinds, start=1):
        record(db, a_call(number, **CARDIO, status="error", error_type=kind))
    [day] = query(db, "select timed_out_requests, timeout_rate, failed_requests from usage_aggregations_daily")
    assert day == {"timed_out_requests": 4, "timeout_rate": Decimal("57.1429"), "failed_requests": 7}


REFUSED = (
    "organization_cost(null, now(), now())",
    "organization_cost('acme', now(), now() - interval '1 day')",
    "get_tenant_cost(null)",
    "get_tenant_cost('acme', now(), now() - interval '1 day')",
    "get_agent_success_rate(null)",
    "get_agent_success_rate('cardio', 0)",
    "get_agent_success_rate('cardio', -1)",
    "get_dashboard_stats('acme', 0)",
    "get_dashboard_stats('acme', -7)",
    "dashboard_summary('acme', 100000)",
    "latency_percentile(1e1200, 95)",
    "latency_percentile(1e1200, -0.1)",
    "latency_percentile(1e1200, 'nan')",
    "latency_percentile(1e1200, null)",
    "cost_breakdown('model', now(), now() - interval '1 day')",
    "cost_breakdown('nothing')",
    "top_usage('model', 0)",
    "top_usage('model', max_rows => -1)",
    "agent_success_rate(days => -1)",
    "user_engagement(0)",
    "user_engagement(max_rows => -5)",
    "usage_report_v1('users', null, now())",
    "usage_report_v1('users', now(), now() - interval '1 day')",
    "usage_report_v1('users', now(), now(), rows => -1)",
    "audit_usage_v1(now(), now() - interval '1 day')",
    "queue_backfill_v1(null, null)",
    "queue_backfill_v1(now(), now() - interval '1 day')",
    "aggregate_usage_hourly('acme', null)",
    "aggregate_usage_daily('acme', null)",
    "aggregate_usage_daily(null, null)",
)


@pytest.mark.parametrize("question", REFUSED)
def test_a_question_that_means_nothing_is_refused_with_a_hint(db: Connection, question: str) -> None:
    """If this failed, an admin would read $0, or a percentile of nothing, where the question was wrong."""
    record(db, a_call(1, **CARDIO, latency_ms=100.0))
    with pytest.raises(InvalidParameterValue) as refused:
        db.execute(f"select {question}")
    assert refused.value.diag.message_hint


def test_null_stands_for_the_usual_or_for_all(db: Connection) -> None:
    """If this failed, a client that leaves a choice open would be told of nothing."""
    record(db, a_call(1, **CARDIO, latency_ms=100.0), a_call(2, **{**CARDIO, "created_at": "2026-01-15T10:00:00Z"}))
    [found] = query(
        db,
        "select (select calls from organization_cost('acme', null, null)) as ever,"
        " (select calls from organization_cost('acme', now() - interval '3 days', null)) as lately,"
        " (select sum(total_requests) from get_dashboard_stats('acme', null)) as stats,"
        " (select sum(calls) from cost_breakdown('model', null, null)) as broken_down,"
        " (select sum(calls) from top_usage('model', null, null, null)) as top,"
        " (select sum(calls) from agent_success_rate(null, null)) as agents,"
        " (select sum(calls) from user_engagement(null, null, null)) as engaged,"
        " get_tenant_cost('acme') as cost, coalesce(get_agent_success_rate('cardio', null), 100) as rate,"
        " audit_usage_v1(null, null) -> 'differences' as differences,"
        " json_array_length(usage_report_v1('users', now() - interval '3 days', now(), rows => null) -> 'rows') as rows",
    )
    assert {name: int(found.pop(name)) for name in ("ever", "lately", "stats", "broken_down")} == {
        "ever": 2, "lately": 1, "stats": 1, "broken_down": 2,
    }  # fmt: skip
    assert found == {
        "top": 1,
        "agents": 1,
        "engaged": 1,
        "cost": Decimal("0.84"),
        "rate": 100,
        "differences": [],
        "rows": 1,
    }
    db.execute("update usage_aggregations_daily_users set calls = calls + 1")
    [found] = query(db, "select audit_usage_v1(null, null) -> 'differences' as differences")
    assert found["differences"]


def test_every_question_of_signed_in_users_has_a_time_limit(db: Connection) -> None:
    """If this failed, one slow question over the API could hold a connection for as long as it likes."""
    asked = [
        name.removeprefix("public.")
        for name, roles in EXECUTABLE.items()
        if "authenticated" in roles and "public." in name
    ]
    found = query(
        db,
        "select proname as name from pg_proc where pronamespace = 'public'::regnamespace and proname = any(%s)"
        " and not coalesce(array_to_string(proconfig, ' '), '') ~ 'statement_timeout='",
        asked,
    )
    assert {row["name"] for row in found} <= PURE
