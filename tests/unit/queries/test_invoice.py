"""Amounts in cents add up: the lines of an invoice to its total, to the last cent."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from hypothesis import given
from hypothesis import strategies as st

from vital_tracking.core.cost import MONEY
from vital_tracking.queries.invoice import in_cents

AMOUNTS = st.lists(st.decimals(0, 10**9, places=20), max_size=30)


@given(AMOUNTS)
def test_lines_add_up_to_the_rounded_total_and_none_is_a_cent_off(costs: list[Decimal]) -> None:
    """If this failed, somebody who adds the lines up by hand would find another sum than the invoice asks for."""
    amounts = in_cents(costs)
    exact = Decimal(0)
    for cost in costs:
        exact = MONEY.add(exact, cost)
    assert sum(amounts, Decimal(0)) == exact.quantize(Decimal("0.01"), ROUND_HALF_UP, MONEY)
    for cost, amount in zip(costs, amounts, strict=True):
        assert abs(MONEY.subtract(cost, amount)) < Decimal("0.01")
        assert amount == amount.quantize(Decimal("0.01"))


def test_the_cents_that_are_missing_go_to_whoever_lost_most() -> None:
    """If this failed, a line would be rounded against the larger remainder, which no two tools would do alike."""
    thirds = [Decimal("0.333"), Decimal("0.334"), Decimal("0.333")]
    assert in_cents(thirds) == [Decimal("0.33"), Decimal("0.34"), Decimal("0.33")]
    assert in_cents([Decimal("0.004")] * 3) == [Decimal("0.01"), Decimal("0.00"), Decimal("0.00")]
    assert in_cents([Decimal("1.005"), Decimal("2.005")]) == [Decimal("1.00"), Decimal("2.01")]
    assert in_cents([]) == []
