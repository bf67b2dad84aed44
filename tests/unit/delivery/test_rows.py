"""Rows: their JSON says what they say, and no call gets the columns of another."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.calls.test_wire import ANYTHING, NOON, RECORDS
from vital_tracking.calls.json_codec import pack_record, unpack_record
from vital_tracking.calls.row_literal import decoded_row
from vital_tracking.core.context import CONTEXT_FIELDS, CallContext
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.rows import call_row, encode_call, shortened
from vital_tracking.ids import new_id

TRIES = settings(max_examples=50, deadline=None, derandomize=True)
CEILINGS = st.none() | st.decimals(min_value=0, max_value=10**6, places=12)
DRAWS = st.lists(st.tuples(st.integers(1, 10**9), st.just("0.25")), max_size=2)


def sent(record: CallRecord, ceiling: Decimal | None = None, draws: Any = ()) -> Any:
    return decoded_row(encode_call(record, record.cost, ceiling, draws))


@TRIES
@given(RECORDS, CEILINGS, DRAWS)
def test_what_is_sent_is_the_row(record: CallRecord, ceiling: Decimal | None, draws: list[tuple[int, str]]) -> None:
    """If this failed, a call would be stored otherwise than its row says."""
    row: Any = call_row(record, record.cost, ceiling)
    if draws:
        row["draws"] = draws
    for _ in range(2):  # made, and found again
        assert sent(record, ceiling, draws) == orjson.loads(orjson.dumps(row))


@TRIES
@given(st.lists(st.dictionaries(st.sampled_from(CONTEXT_FIELDS), ANYTHING, max_size=3), min_size=2, max_size=5))
def test_a_row_does_not_depend_on_the_rows_before_it(contexts: list[dict[str, Any]]) -> None:
    """If this failed, a call could be stored under what another one said."""
    alone = CallRecord(new_id(), NOON, CallContext(user_id="u"))
    before = sent(alone)
    for fields in contexts:
        sent(CallRecord(new_id(), NOON, CallContext(**fields)))
    assert sent(alone) == before


class Seat(IntEnum):
    FIRST = 1


@pytest.mark.parametrize("first", [1, True, 1.0, Decimal(1), Decimal("1.00"), Seat.FIRST])
def test_equal_values_of_other_types_are_told_apart(first: Any) -> None:
    """If this failed, who was seen first would decide whose calls those of an equal id are, and True would be a seat."""
    for value in (first, 1, True, 1.0, Decimal(1), Decimal("1.00"), Seat.FIRST):
        record = CallRecord(new_id(), NOON, CallContext(user_id=value, panel_position=value))
        row = call_row(record, None)
        assert row["user_id"] == str(value)
        assert row.get("panel_position") == (None if value is True else 1)
        assert ("metadata" in row) == (value is True)  # a note that it is no position
        assert sent(record) == row


@pytest.mark.parametrize("position", [3, 3.0, Decimal(3), type("Float", (float,), {})(3), Seat.FIRST, True, 3.5])
def test_a_seat_is_the_same_from_memory_and_from_disk(position: Any) -> None:
    """If this failed, a seat counted by somebody's own type of number would get lost in the spool."""
    record = CallRecord(new_id(), NOON, CallContext(panel_position=position), clocked=False)
    assert sent(unpack_record(pack_record(record), 0.0)) == sent(record)


def test_a_service_type_that_cannot_be_compared_does_not_cost_the_row() -> None:
    """If this failed, somebody's object would cost its call all but its money."""

    class Incomparable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    record = CallRecord(new_id(), NOON, CallContext(user_id="u", service_type=Incomparable()))  # type: ignore[arg-type]
    row = sent(record)
    assert (row["user_id"], row["metadata"]) == ("u", {"notes": ["invalid_service_type"]})


def test_the_shortest_record_keeps_whose_call_it_was_and_what_it_cost() -> None:
    """If this failed, a call that cannot be kept whole would be paid by nobody, or would cost nothing."""
    owners = {"organization_id": "o-1", "user_id": "u-1", "session_id": "s-1", "service_run_id": "r-1"}
    usage = TokenUsage(100, 20, 10, 5, reasoning_tokens=3)
    whole = CallRecord(
        new_id(), NOON, CallContext(**owners, agent_name="a"), "openai", "gpt-4o", usage=usage, tags=["t"],
        metadata={"k": "v"}, status="error", reported_cost=Decimal("0.5"), price_facts={"service_tier": "flex"},
        sent_model="gpt", calls=3, clocked=False,
    )  # fmt: skip
    row = call_row(shortened(whole), None)
    kept = {
        name: value for name, value in call_row(whole, None).items() if name not in ("tags", "metadata", "agent_name")
    }
    assert row == {**kept, "metadata": {"service_tier": "flex", "notes": ["shortened"]}}
    assert owners.items() <= row.items()
    for short in (unpack_record(pack_record(whole, short=True)), unpack_record(pack_record(shortened(whole)))):
        assert owners.items() <= call_row(short, None).items()
