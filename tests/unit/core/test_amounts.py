"""Amounts as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from vital_tracking.core.amounts import amount_text


@pytest.mark.parametrize(
    ("amount", "shown", "exact"),
    [
        ("2.8E-7", "$0.00000028", "$0.00000028"),
        ("1E+3", "$1,000.00", "$1,000.00"),
        ("0E-9", "$0.00", "$0.00"),
        ("-1.5E-8", "-$0.000000015", "-$0.000000015"),
        ("0.123456789", "$0.12", "$0.123456789"),
    ],
)
def test_no_amount_has_an_exponent(amount: str, shown: str, exact: str) -> None:
    """If this failed, somebody would read 2.8E-7 where a price stands."""
    assert amount_text(Decimal(amount), "cost_usd") == shown
    assert amount_text(Decimal(amount), "cost_usd", exact=True) == exact


def test_an_amount_of_any_size_is_told() -> None:
    """If this failed, one absurd price in the database would end every list that shows it in a stack trace."""
    assert amount_text(Decimal("1e30"), "cost_usd") == "$1" + ",000" * 10 + ".00"
    assert amount_text(Decimal("1e400"), "cost_usd").count("0") == 402
