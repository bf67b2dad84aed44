"""Quotas as processes meet them: exact with all who spend at once, nobody else's affair, and lifted by an upgrade at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.integration.budgets.helpers import CALL, USAGE, check_sums, knows_its_budgets
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.queries.plans import end_subscription, quota_status, set_plan, subscribe
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]


def spend(tracker: VitalTracker, user: str, most: int) -> int:
    """Make calls for a user until a budget stops them: how many were made."""
    for number in range(most):
        try:
            tracker.admit(user_id=user, **CALL).record(**USAGE)
        except BudgetExceeded:
            return number
    return most


def test_an_enforced_quota_is_exact_and_an_upgrade_lifts_it_at_once(
    store: PostgresStore, make_tracker: MakeTracker
) -> None:
    """If this failed, many who spend at once would get more than the plan has, or what was paid for would be kept back."""
    set_plan(store, {"name": "tiny", "calls": 30})
    subscribe(store, {"entity_type": "user", "entity_id": "u-1", "plan": "tiny", "enforced": True})
    trackers = [knows_its_budgets(make_tracker(flush_interval_s=60)) for _ in range(3)]
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda one=tracker: made.append(spend(one, "u-1", 50)))
        for tracker in trackers
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 30
    assert spend(trackers[0], "u-2", 40) == 40  # who is on no plan is not limited
    subscribe(store, {"entity_type": "user", "entity_id": "u-1", "plan": "trial"})
    assert spend(trackers[1], "u-1", 5) == 5
    end_subscription(store, {"entity_type": "user", "entity_id": "u-1"})
    assert spend(trackers[2], "u-1", 700) == 700
    for tracker in trackers:
        tracker.flush()
    subscribe(store, {"entity_type": "user", "entity_id": "u-1", "plan": "trial"})
    [status] = quota_status(store, ids=["u-1"])
    assert status["calls_used"] == 735
    assert status["used_percent"] == 105
    check_sums(store)
