"""What the tests of admission share: budgets, requests, and the audit of all sums."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.integration.helpers import Rows
from tests.support.waiting import until
from vital_tracking import VitalTracker
from vital_tracking.core.admission import Request
from vital_tracking.core.context import CallContext
from vital_tracking.stores.postgres import PostgresStore

# A call whose cost is known beforehand: the hold is the cost.
CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 100, "max_tokens": 20}
USAGE: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 20}
COST = Decimal("0.000027")  # 100 at $0.15 and 20 at $0.60 a million


def set_budget(store: PostgresStore, **columns: Any) -> dict[str, Any]:
    """Make or change a budget; by default one of every user, in calls, that blocks."""
    budget = {"entity_type": "user", "entity_id": "*", "metric": "calls", "action": "block", "timezone": noon_zone()}
    stored = store.call("set_budget_v1", budget=json.dumps(budget | columns))
    return dict(stored)


def noon_zone() -> str:
    """A time zone in which it is about noon now, so that no day or month ends while a test runs."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{'-' if ahead >= 0 else '+'}{abs(ahead)}"


def check_sums(store: PostgresStore) -> None:
    """Every window's spent is the sum of its calls, its granted that of its grants, and none is over its limit."""
    found = store.call("audit_budgets_v1")
    assert (found["differences"], found["overshoot"]) == ([], [])


def granted(rows: Rows) -> Decimal:
    """What is set aside in all windows."""
    return Decimal(rows("select coalesce(sum(granted), 0) as granted from budget_windows")[0]["granted"])


def request_for(user: str | None = "u-1", **changes: Any) -> Request:
    """A request of CALL's model and size."""
    return Request(CallContext(user_id=user), "openai", "gpt-4o-mini", prompt_tokens=100, max_tokens=20, **changes)


def knows_its_budgets(tracker: VitalTracker) -> VitalTracker:
    """The tracker, once it has read the budgets."""
    tracker._controller.start()
    until(lambda: tracker._controller.policy is not None)
    return tracker
