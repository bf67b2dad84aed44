"""What doctor says of the database's state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vital_tracking.queries.health import TrackingStatus, _database


@pytest.mark.parametrize("compiles", [True, False])
def test_a_server_that_compiles_queries_is_named_with_what_to_do(compiles: bool) -> None:
    """If this failed, an admin whose views take minutes would not learn why."""
    now = datetime.now(UTC)
    status = TrackingStatus(
        server_version="17.4",
        compiles_queries=compiles,
        database_time=now,
        calls_last_day=1,
        last_call_at=now,
        unpriced_calls=0,
        unpriced_models=[],
        calls_in_default_partition=0,
        partitions_until=now + timedelta(days=300),
        runs_still_open=0,
    )

    told = [check for check in _database(status) if "jit" in check.what]

    assert [check.state for check in told] == (["warn"] if compiles else [])
    assert all("set jit = off" in (check.fix or "") for check in told)
