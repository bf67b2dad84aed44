"""What OpenAPI says of answers: their form, an example of each, and of every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.web.csv import csv_lines
from vital_tracking.web.described import described
from vital_tracking.web.problems import Problem

_DAY: Final = {"date": "2026-11-30", "cost": 12.345678}

_CALL: Final[dict[str, Any]] = {
    "id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a",
    "created_at": "2026-11-30T12:00:00+00:00",
    "organization_id": "acme",
    "user_id": "u-1",
    "session_id": "s-1",
    "service_type": "workflow",
    "service_id": "intake",
    "service_name": "intake",
    "service_run_id": "0192c8a0-5a5a-7a5a-8a5a-000000000001",
    "agent_id": "cardio",
    "agent_name": "Cardiologist",
    "agent_tier": "tier_1",
    "agent_role": None,
    "workflow_id": "intake",
    "workflow_step": "triage",
    "workflow_step_name": "Triage",
    "panel_id": None,
    "panel_position": None,
    "solution_id": None,
    "framework": "langgraph",
    "provider": "openai",
    "model": "gpt-4o",
    "requested_model": None,
    "sent_model": None,
    "call_type": "chat",
    "message_type": "chat",
    "calls": 1,
    "prompt_tokens": 1200,
    "completion_tokens": 80,
    "total_tokens": 1280,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
    "billed_units": None,
    "usage_estimated": False,
    "input_cost": 0.003,
    "output_cost": 0.0008,
    "fees": 0,
    "total_cost": 0.0038,
    "potential_cost": 0.0038,
    "reported_cost": None,
    "priced": True,
    "price_version": "genai-prices 0.2.3",
    "response_time_ms": 1250.5,
    "ttft_ms": 310.2,
    "first_word_ms": None,
    "throttled_ms": None,
    "cache_hit": False,
    "status": "ok",
    "error_type": None,
    "budget_action": None,
    "blocked_by": None,
    "run_id": "0192c8a0-5a5a-7a5a-8a5a-000000000002",
    "trace_id": None,
    "tags": [],
    "metadata": {"prompt_version": "2"},
}
_SUMS: Final = {
    "calls": 1,
    "failed_calls": 0,
    "blocked_calls": 0,
    "abandoned_calls": 0,
    "retried_calls": 0,
    "cached_calls": 0,
    "unpriced_calls": 0,
    "estimated_calls": 0,
    "prompt_tokens": 1200,
    "completion_tokens": 80,
    "total_tokens": 1280,
    "input_cost": 0.003,
    "output_cost": 0.0008,
    "fees": 0,
    "total_cost": 0.0038,
    "potential_cost": 0.0038,
    "model_ms": 1250.5,
}
_RUN: Final[dict[str, Any]] = {
    "id": "0192c8a0-5a5a-7a5a-8a5a-000000000001",
    "parent_run_id": None,
    "organization_id": "acme",
    "user_id": "u-1",
    "session_id": "s-1",
    "service_type": "workflow",
    "service_id": "intake",
    "service_name": "intake",
    "agent_id": None,
    "workflow_id": "intake",
    "panel_id": None,
    "panel_size": None,
    "solution_id": None,
    "status": "ok",
    "started_at": "2026-11-30T12:00:00+00:00",
    "ended_at": "2026-11-30T12:00:02+00:00",
    "error_type": None,
    "metadata": {},
}


def _node(kind: str, name: str, children: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": None,
        "name": name,
        "status": None,
        "error_type": None,
        "started_at": "2026-11-30T12:00:00+00:00",
        "ended_at": "2026-11-30T12:00:02+00:00",
        "duration_ms": 2000.0,
        "agent_id": None,
        "agent_name": None,
        "provider": None,
        "model": None,
        "run": None,
        **more,
        "sums": _SUMS,
        "children": children,
    }


_LEAF: Final = _node(
    "call", "gpt-4o", [], id=_CALL["id"], status="ok", agent_id="cardio", provider="openai", model="gpt-4o"
)
_EXPLORED: Final = {"day": "2026-11-30", "user": "u-1", "total_cost": 12.345678, "calls": 2100}
_ROWS: Final[Mapping[str, list[dict[str, Any]]]] = {"calls": [_CALL], "explore": [_EXPLORED]}

EXAMPLES: Final[Mapping[str, Any]] = {
    "overview": {
        "total_api_calls": 15234,
        "total_cost": 125.756789,
        "model_cost": 123.456789,
        "other_cost": 2.3,
        "cost_per_call": 0.008104,
        "period_start": "2026-11-24T00:00:00+00:00",
        "period_end": "2026-12-01T00:00:00+00:00",
        "by_service": {
            "llm": {"calls": 15000, "cost": 122.1, "avg_latency_ms": 1250.5, "unique_users": 48},
            "embeddings": {"calls": 234, "cost": 1.356789, "avg_latency_ms": 80.2, "unique_users": 12},
            "storage": {"calls": 0, "cost": 2.3, "avg_latency_ms": None, "unique_users": None},
        },
        "by_service_type": {
            "workflow": {"calls": 15234, "cost": 123.456789, "avg_latency_ms": 1232.5, "unique_users": 48}
        },
        "by_user_count": 48,
        "unpriced_calls": 0,
        "estimated_calls": 3,
        "unpriced_costs": 0,
        "fresh_at": "2026-11-30T12:00:00+00:00",
    },
    "patterns": {
        "peak_hours": [{"hour": 14, "calls": 2100}],
        "peak_days": [{"day": "Tuesday", "calls": 3400}],
        "popular_endpoints": [{"endpoint": "intake/triage", "calls": 4100, "avg_latency_ms": 900.1, "error_rate": 0.5}],
        "usage_trends": {"daily_calls": [{"date": "2026-11-30", "calls": 2100}], "daily_costs": [_DAY]},
    },
    "by-user": [
        {
            "user_id": "u-1",
            "username": "Maria Keller",
            "email": "maria@acme.example",
            "total_calls": 1200,
            "total_cost": 9.81,
            "by_service": {"workflow": {"calls": 1200, "cost": 9.81}},
            "subscription_tier": "starter",
            "quota_used_percent": 4.0,
        }
    ],
    "quotas": {
        "starter": {
            "subscribers": 2,
            "used": 13500,
            "limit": 60000,
            "percentage": 22.5,
            "tokens_used": 2100000,
            "tokens_limit": 10000000,
            "over_quota": 0,
        },
        "enterprise": {
            "subscribers": 1,
            "used": 812000,
            "limit": "unlimited",
            "percentage": 0,
            "tokens_used": 96000000,
            "tokens_limit": "unlimited",
            "over_quota": 0,
        },
    },
    "by-service": [
        {
            "service_name": "llm",
            "total_calls": 15000,
            "total_cost": 122.1,
            "avg_latency_ms": 1250.5,
            "success_rate": 99.2,
            "error_rate": 0.8,
            "unique_users": 48,
        }
    ],
    "costs": {
        "total_cost": 125.756789,
        "model_cost": 123.456789,
        "other_cost": 2.3,
        "cost_breakdown": {"openai": 100.0, "anthropic": 23.456789, "storage": 2.3},
        "cost_trends": [_DAY],
        "projected_monthly_cost": 538.957667,
        "cost_per_user": 2.619933,
        "cost_per_service": {"workflow": 123.456789, "storage": 2.3},
        "forecast": None,
        "bill": None,
        "unpriced_calls": 0,
        "unpriced_costs": 0,
    },
    "calls": [_CALL],
    "call": _CALL,
    "runs": [{**_RUN, "duration_ms": 2000.0, "nested_runs": 0, **_SUMS}],
    "run": {
        "id": _RUN["id"],
        "within": [],
        "calls_told": 1,
        "root": _node(
            "run", "intake", [_node("step", "Triage", [_LEAF], id="triage")], id=_RUN["id"], status="ok", run=_RUN
        ),
    },
    "explore": {
        "since": "2026-11-24T00:00:00+00:00",
        "until": "2026-12-01T00:00:00+00:00",
        "timezone": "UTC",
        "by": ["day", "user"],
        "measures": ["total_cost", "calls"],
        "source": "daily_users",
        "fresh_at": "2026-11-30T12:00:00+00:00",
        "copied_until": None,
        "groups": 1,
        "total": {"total_cost": 12.345678, "calls": 2100},
        "rows": [_EXPLORED],
        "names": {},
    },
    "optimization": {
        "recommendations": [
            {
                "id": "5f2a0c1d2e3f4a5b",
                "type": "model_switch",
                "priority": "HIGH",
                "current": "gpt-4o for triage",
                "recommended": "gpt-4o-mini for triage",
                "potential_savings": "$45.00/month",
                "potential_savings_usd": {"low": 38.5, "expected": 45, "high": 47.25},
                "impact": "The same calls at a sixteenth of the price.",
                "implementation_effort": "low",
                "sequential_savings_usd": {"low": 38.5, "expected": 45, "high": 47.25},
                "counted": True,
                "revenue": None,
                "organization": "acme",
                "subject": {"step": "triage", "model": "gpt-4o"},
                "calls": 2100,
                "evidence": {
                    "filters": {"step": "triage", "model": "gpt-4o"},
                    "since": "2026-11-01T00:00:00+00:00",
                    "until": "2026-12-01T00:00:00+00:00",
                    "page": "/calls?timezone=UTC&since=2026-11-01&until=2026-11-30&step=triage&model=gpt-4o",
                    "api": "/api/v1/calls?timezone=UTC&since=2026-11-01&until=2026-11-30&step=triage&model=gpt-4o",
                    "command": "vital-tracking calls --since 2026-11-01 --until 2026-12-01 --model gpt-4o --step triage",
                },
                "confidence": "medium",
                "risk": "Answers may be worse: the quality of gpt-4o-mini is not known here.",
                "how_to_try": "Run both models on a share of the calls, and compare their outcomes.",
                "command": None,
                "assumptions": ["Answers are 0.75 to 1.5 times as long."],
                "first_seen": "2026-11-23T06:00:00+00:00",
                "last_seen": "2026-11-30T06:00:00+00:00",
                "still_given": True,
                "status": "open",
                "decided_by": None,
                "decided_at": None,
                "reason": None,
                "promised_savings_usd": None,
                "measured_saving_usd": None,
                "measured_at": None,
                "measured_note": None,
                "measured_from": None,
            }
        ],
        "total_potential_savings": "$45.00/month",
        "total_potential_savings_usd": {"low": 38.5, "expected": 45, "high": 47.25},
        "estimated_implementation_time": "1 hour",
        "not_applicable": [{"type": "auto_scaling", "reason": "No model of yours is priced by the hour."}],
        "notes": [],
        "bill": 368.12,
        "organization": "acme",
        "period_start": "2026-11-01T00:00:00+00:00",
        "period_end": "2026-12-01T00:00:00+00:00",
        "found_at": "2026-11-30T06:00:00+00:00",
    },
    "performance": {
        "avg_latency_ms": 1250.5,
        "p50_latency_ms": 980.0,
        "p95_latency_ms": 3900.0,
        "p99_latency_ms": 6100.0,
        "success_rate": 99.2,
        "error_rate": 0.8,
        "timeout_rate": 0.1,
        "by_endpoint": {"intake/triage": {"avg_latency_ms": 900.1, "success_rate": 99.5, "error_rate": 0.5}},
    },
}

_HEADERS: Final = {
    "ETag": {"schema": {"type": "string"}, "description": "Of If-None-Match, for 304.", "example": 'W/"5f2a"'},
    "Cache-Control": {"schema": {"type": "string"}, "example": "private, max-age=30"},
}
_LINK: Final = {
    "Link": {
        "schema": {"type": "string"},
        "description": "Where there may be more: the next page, rel=next.",
        "example": '</api/v1/calls?limit=1&after=2026-11-30T12%3A00%3A00%2B00%3A00%2F0192c8a0>; rel="next"',
    }
}


def answers(model: Any, name: str, *, paged: bool = False, missing: str = "") -> dict[int | str, dict[str, Any]]:
    """The answers of a route: what it gives, with the example of that name, and that there may be none (`missing`)."""
    good = {
        "model": model,
        "description": "The answer.",
        "headers": {**_HEADERS, **(_LINK if paged else {})},
        "content": {"application/json": {"example": EXAMPLES[name]}},
    }
    return {200: good, 304: {"description": "It has not changed."}, **_missing(missing)}


def csv_answers(name: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that gives a file of CSV, with the example of that name."""
    lines = csv_lines(list(_ROWS[name][0]), ([*row.values()] for row in _ROWS[name]))
    content = {"text/csv": {"schema": {"type": "string"}, "example": "".join(lines)}}
    return {200: {"description": "A file, sent as it is read.", "content": content}}


def _missing(said: str) -> dict[int | str, dict[str, Any]]:
    if not said:
        return {}
    problem = Problem(404, "not-found", said.rstrip("."), hint="See whether it is spelled right, and is yours to see.")
    return {404: described(problem, said)}
