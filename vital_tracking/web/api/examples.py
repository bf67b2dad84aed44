"""What OpenAPI says of answers: their form, an example of each, and of every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.web.problems import MEDIA_TYPE

_DAY: Final = {"date": "2026-11-30", "cost": 12.345678}

EXAMPLES: Final[Mapping[str, Any]] = {
    "overview": {
        "total_api_calls": 15234,
        "total_cost": 123.456789,
        "cost_per_call": 0.008104,
        "period_start": "2026-11-24T00:00:00+00:00",
        "period_end": "2026-12-01T00:00:00+00:00",
        "by_service": {
            "llm": {"calls": 15000, "cost": 122.1, "avg_latency_ms": 1250.5, "unique_users": 48},
            "embeddings": {"calls": 234, "cost": 1.356789, "avg_latency_ms": 80.2, "unique_users": 12},
        },
        "by_service_type": {
            "workflow": {"calls": 15234, "cost": 123.456789, "avg_latency_ms": 1232.5, "unique_users": 48}
        },
        "by_user_count": 48,
        "unpriced_calls": 0,
        "estimated_calls": 3,
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
            "username": "u-1",
            "total_calls": 1200,
            "total_cost": 9.81,
            "by_service": {"workflow": {"calls": 1200, "cost": 9.81}},
            "subscription_tier": None,
            "quota_used_percent": None,
        }
    ],
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
        "total_cost": 123.456789,
        "cost_breakdown": {"openai": 100.0, "anthropic": 23.456789},
        "cost_trends": [_DAY],
        "projected_monthly_cost": 529.100524,
        "cost_per_user": 2.572017,
        "cost_per_service": {"workflow": 123.456789},
        "forecast": None,
        "unpriced_calls": 0,
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

_PROBLEMS: Final[Mapping[int, tuple[str, str, str]]] = {
    401: ("not-signed-in", "Sign in first", "Send Authorization: Bearer with a token that has not expired."),
    403: ("not-allowed", "This is not for you", "Ask an admin of the organization."),
    422: ("invalid-request", "The request cannot be understood", "Correct the parts that `errors` names."),
    429: ("too-many-requests", "Too many requests", "Wait as long as Retry-After says."),
    503: ("database-unavailable", "The database does not answer", "Try again in a few seconds."),
}


def answers(model: Any, name: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: what it gives, with the example of that name, and what can go wrong."""
    good = {"model": model, "description": "The report.", "content": {"application/json": {"example": EXAMPLES[name]}}}
    return {200: good, **{status: _problem(status, *said) for status, said in _PROBLEMS.items()}}


def _problem(status: int, kind: str, title: str, hint: str) -> dict[str, Any]:
    example = {
        "type": f"urn:vital-tracking:problem:{kind}",
        "title": title,
        "status": status,
        "detail": title,
        "hint": hint,
    }
    return {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
