"""Calls that were given up and end after all: the true end is what stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from vital_tracking import TokenUsage, VitalTracker
from vital_tracking.core.record import CallRecord

Rows = Callable[..., list[dict[str, Any]]]
AT = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_call_given_up_is_stored_as_it_ended_where_both_are_in_one_batch(tracker: VitalTracker, rows: Rows) -> None:
    """Both may wait out the same outage and travel together."""
    given_up = CallRecord(id=str(uuid4()), created_at=AT, provider="openai", model="gpt-4o", status="cancelled")
    true_end = CallRecord(
        id=given_up.id,
        created_at=AT,
        provider="openai",
        model="gpt-4o",
        usage=TokenUsage(prompt_tokens=1_000_000),
        replaces_abandoned=True,
    )
    for record in (given_up, true_end):
        tracker._recorder.put(record)
    tracker.flush()
    (row,) = rows()
    assert (row["status"], row["total_cost"]) == ("ok", Decimal("2.5"))


@pytest.mark.parametrize("status", ["abandoned", "cancelled"])
def test_a_call_given_up_is_stored_as_it_ended_later(tracker: VitalTracker, rows: Rows, status: Any) -> None:
    given_up = CallRecord(id=str(uuid4()), created_at=AT, provider="openai", model="gpt-4o", status=status)
    tracker._recorder.put(given_up)
    tracker.flush()
    usage = TokenUsage(prompt_tokens=1_000_000)
    tracker._recorder.put(
        CallRecord(
            id=given_up.id, created_at=AT, provider="openai", model="gpt-4o", usage=usage, replaces_abandoned=True
        )
    )
    tracker.flush()
    (row,) = rows()
    assert (row["status"], row["total_cost"]) == ("ok", Decimal("2.5"))
