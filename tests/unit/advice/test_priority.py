"""The rules of priority and time."""

from __future__ import annotations

from decimal import Decimal

import pytest

from vital_tracking.advice.priority import priority_of, time_in_words
from vital_tracking.advice.recommendation import Level


@pytest.mark.parametrize(
    ("amount", "bill", "priority"),
    [
        ("10", "100", "high"),
        ("9.999999999999", "100", "medium"),
        ("2", "100", "medium"),
        ("1.999999999999", "100", "low"),
        ("0", "100", "low"),
        ("-50", "100", "low"),
        ("0", "0", "low"),
        ("0.0000001", "0", "high"),
    ],
)
def test_priority_is_the_share_of_the_months_bill(amount: str, bill: str, priority: str) -> None:
    assert priority_of(Decimal(amount), Decimal(bill)) == priority


@pytest.mark.parametrize(("amount", "priority"), [("50", "medium"), ("5", "low"), ("1", "low")])
@pytest.mark.parametrize(
    "unsure", [{"confidence": Level.low}, {"counted": False}, {"confidence": Level.low, "counted": False}]
)
def test_what_is_unsure_or_no_part_of_the_total_is_one_step_lower(
    amount: str, priority: str, unsure: dict[str, Level | bool]
) -> None:
    assert priority_of(Decimal(amount), Decimal(100), **unsure) == priority  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("efforts", "words"),
    [
        ("", "no time"),
        ("l", "1 hour"),
        ("lll", "3 hours"),
        ("m", "1 day"),
        ("mmmmm", "1 week"),
        ("llllllllh", "1 week and 1 day"),
        ("hhmmlll", "2 weeks, 2 days and 3 hours"),
    ],
)
def test_time_is_a_sum_in_words(efforts: str, words: str) -> None:
    levels = {"l": Level.low, "m": Level.medium, "h": Level.high}
    assert time_in_words(levels[one] for one in efforts) == words
