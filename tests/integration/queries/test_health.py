"""What the status page and `vital-tracking doctor` find in a database."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg

from tests.sql.helpers import a_call
from vital_tracking.queries.health import examine_store
from vital_tracking.stores.postgres import PostgresStore


def test_of_many_windows_with_one_fault_the_first_are_told_and_the_others_counted(
    store: PostgresStore, database_url: str
) -> None:
    """If this failed, a page would have ten thousand lines that say the same, and what else is wrong would be lost among them."""
    store.call("set_budget_v1", budget=json.dumps({"entity_type": "user", "entity_id": "*", "daily_limit": "0.5"}))
    now = datetime.now(UTC).isoformat()
    calls = [a_call(number, user_id=f"u-{number}", created_at=now) for number in range(1, 14)]
    store.call("record_calls_v1", calls=json.dumps(calls))
    with psycopg.connect(database_url) as connection:
        connection.execute("update budget_windows set spent = spent + 1")
    found = list(examine_store(store))
    differing = [check for check in found if check.what.startswith("budget of user u-")]
    assert len([check for check in differing if "spent is" in check.what]) == 10
    assert [check.what for check in found if check.what.endswith("with such differences")] == [
        "3 more windows with such differences"
    ]
    assert "sums of the last day: those of the calls" in [check.what for check in found]
