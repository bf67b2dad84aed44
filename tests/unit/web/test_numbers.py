"""Figures as pages show them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from vital_tracking.core.amounts import amount_text
from vital_tracking.web import numbers


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"), ("4.025", "$4.02"), ("4.035", "$4.04"), ("1.239", "$1.24"), ("1234567.891", "$1,234,567.89"),
        ("0.0995", "$0.10"), ("0.0449", "$0.045"), ("0.0000049", "$0.0000049"), ("0.00000000000000014", "$0.00000000000000014"),
        ("-0.0449", "-$0.045"), ("99.999", "$100.00"),
    ],
)  # fmt: skip
def test_amounts_are_rounded_and_never_to_nothing(amount: str, shown: str) -> None:
    """If this failed, amounts would be too small by up to a cent each, or something would look as if it cost nothing."""
    assert numbers.usd(Decimal(amount)) == shown


def test_an_amount_below_a_limit_never_reads_as_the_limit() -> None:
    """If this failed, a budget would read as full while calls still pass."""
    assert amount_text(Decimal("4.9999"), "cost_usd") == "$4.99"
    assert amount_text(Decimal("0.0000000000000001"), "cost_usd") == "$0.0000000000000001"


@pytest.mark.parametrize(
    ("points", "shown"),
    [("-0.3", "\N{PLUS-MINUS SIGN}0"), ("0", "\N{PLUS-MINUS SIGN}0"), ("9.5", "+10"), ("-12", "\N{MINUS SIGN}12")],
)
def test_points_have_a_sign_and_no_negative_zero(points: str, shown: str) -> None:
    """If this failed, a tenant whose health stays would be told as falling."""
    assert numbers.points(Decimal(points)) == shown
