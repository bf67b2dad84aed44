"""Costs for which there is room neither on disk nor in memory: their money is kept, in sums."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from vital_tracking import VitalTracker

Rows = Callable[..., list[dict[str, Any]]]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_money_and_quantities_are_kept_where_there_is_no_room(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    tracker = make_tracker(spool=False, background=False, queue_bytes=1)
    for number in range(1, 101):
        tracker.track_cost(
            "compute",
            quantity=Decimal(number),
            unit_price=Decimal("0.001"),
            user_id="u-1",
            organization_id=("acme", "other")[number % 2],
            occurred_at=AT,
            metadata={"number": number},
        )
        tracker.track_cost("other", cost_usd=Decimal("0.0000000001"), occurred_at=AT)
        tracker.track_cost("compute", quantity=2, resource="gpu-1", occurred_at=AT)
    tracker.track_event("lost")
    stats = tracker.stats()
    assert (stats.merged, stats.dropped) == (299, 1)  # the first of all found room
    assert tracker.flush().complete
    found = rows(
        "select organization_id, cost_type, resource, sum(quantity) as quantity, sum(cost_usd) as cost,"
        " sum(coalesce((metadata ->> 'costs')::integer, 1)) as costs from tenant_cost_events group by 1, 2, 3 order by 1, 2"
    )
    assert [tuple(row.values()) for row in found] == [
        ("acme", "compute", None, Decimal(2550), Decimal("2.550"), 50),
        ("other", "compute", None, Decimal(2500), Decimal("2.500"), 50),
        (None, "compute", "gpu-1", Decimal(200), None, 100),
        (None, "other", None, Decimal(100), Decimal("0.0000000100"), 100),
    ]
    assert len(rows("select id from tenant_cost_events")) <= 5
    assert rows("select * from platform_events") == []


def test_what_is_small_is_not_counted_as_shortened(make_tracker: Callable[..., VitalTracker]) -> None:
    """If this failed, an admin would look for details that nobody has left out."""
    tracker = make_tracker(spool=False, background=False, queue_bytes=4000)
    for _ in range(20):
        tracker.track_event("page_view")
    assert tracker.stats().waiting > 4
    assert tracker.stats().shortened == 0
