"""What OpenAPI says of answers about budgets and alerts: an example of each, and of errors that only they have."""

from __future__ import annotations

from typing import Any, Final

from vital_tracking.queries.preview import UNKNOWN
from vital_tracking.web.described import described
from vital_tracking.web.problems import Problem

BUDGET: Final[dict[str, Any]] = {
    "id": 3,
    "organization_id": "acme",
    "entity_type": "user",
    "entity_id": "*",
    "metric": "cost_usd",
    "minute_limit": None,
    "daily_limit": 5,
    "monthly_limit": 100,
    "total_limit": None,
    "action": "block",
    "alert_thresholds": [0.5, 0.8, 1],
    "throttle_interval_s": 2,
    "downgrade_to": None,
    "timezone": "Europe/Berlin",
    "enforce": True,
    "strict": False,
    "when_unavailable": "allow",
    "counting_since": None,
    "created_at": "2026-11-01T08:00:00+00:00",
    "updated_at": "2026-11-01T08:00:00+00:00",
}

_WINDOW: Final[dict[str, Any]] = {
    "id": 71,
    "budget_id": 3,
    "organization_id": "acme",
    "entity_type": "user",
    "entity_id": "u-1",
    "metric": "cost_usd",
    "action": "block",
    "enforce": True,
    "period": "day",
    "starts_at": "2026-11-29T23:00:00+00:00",
    "ends_at": "2026-11-30T23:00:00+00:00",
    "timezone": "Europe/Berlin",
    "limit_amount": 5,
    "spent": 3.25,
    "granted": 0.05,
    "left": 1.7,
}

BUDGETS: Final = {
    "now": "2026-11-30T12:00:00+00:00",
    "budgets": [BUDGET],
    "windows": [
        {
            "window": _WINDOW,
            "reached_at": "2026-11-30T18:30:00+00:00",
            "rate_per_hour": 0.25,
            "rests_on": "the last 24 hours",
        }
    ],
}

_DAY: Final = {
    "day": "2026-11-30",
    "calls": 120,
    "amount": 7.5,
    "stopped": 18,
    "slowed": 0,
    "downgraded": 0,
    "stopped_amount": 2.5,
    "stopped_cost": 2.5,
    "stopped_unpriced": 0,
    "alerts": {"0.5": 3, "0.8": 2, "1": 1},
}

PREVIEW: Final = {
    "preview": {"first_day": "2026-11-30", "last_day": "2026-11-30", "entities": 12, "entities_met": 1, "days": [_DAY]},
    "total": _DAY,
    "unknown": UNKNOWN,
}

BLOCKED: Final = {
    "id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a",
    "created_at": "2026-11-30T12:00:00+00:00",
    "organization_id": "acme",
    "user_id": "u-1",
    "session_id": "s-1",
    "provider": "openai",
    "model": "gpt-4o",
    "budget_action": "block",
    "blocked_by": {
        "budget": 3,
        "action": "block",
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "cost_usd",
        "period": "day",
        "limit": 5,
        "spent": 4.99,
        "held": 0,
        "needed": 0.03,
        "ends_at": "2026-11-30T23:00:00+00:00",
    },
    "budget": BUDGET,
    "limit_amount": 5,
    "spent": 4.99,
    "granted": 0,
    "ends_at": "2026-11-30T23:00:00+00:00",
}

RAISED: Final = [
    {
        "budget_id": 3,
        "entity_id": "u-1",
        "action": "block",
        "timezone": "Europe/Berlin",
        "period": "day",
        "limit_amount": 5,
        "in_force": 15,
        "until": "2026-11-30T23:00:00+00:00",
    }
]

ALERT: Final[dict[str, Any]] = {
    "id": 9,
    "created_at": "2026-11-30T11:58:00+00:00",
    "budget_id": 3,
    "organization_id": "acme",
    "entity_type": "user",
    "entity_id": "u-1",
    "metric": "cost_usd",
    "action": "block",
    "enforce": True,
    "period": "day",
    "window_starts_at": "2026-11-29T23:00:00+00:00",
    "window_ends_at": "2026-11-30T23:00:00+00:00",
    "threshold": 0.8,
    "limit_amount": 5,
    "spent": 4.01,
    "held": None,
    "superseded": False,
    "delivered_at": "2026-11-30T11:58:02+00:00",
}

NO_SUCH_BUDGET: Final[dict[int | str, dict[str, Any]]] = {
    404: described(
        Problem(
            404,
            "no-such-budget",
            "There is no such budget, or none that you may see",
            hint="GET /api/v1/budgets lists them.",
        ),
        "There is no such budget, or none that whoever asks may see.",
    )
}

NOT_BLOCKED: Final[dict[int | str, dict[str, Any]]] = {
    404: described(
        Problem(
            404,
            "not-blocked",
            "No budget blocked such a call, or it is none that you may see",
            hint="GET /api/v1/calls with status=blocked lists those that were.",
        ),
        "No budget blocked such a call, or it is none that whoever asks may see.",
    )
}
