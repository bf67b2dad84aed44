"""Amounts and shares as tables and sentences show them."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from vital_tracking.core.amounts import amount_text


def dollars(value: Decimal | None, *, exact: bool = False) -> str:
    """An amount of US dollars, as pages show it: cents, halves to even, or with `exact` every digit."""
    return "-" if value is None else amount_text(value, "cost_usd", exact=exact, rounding=ROUND_HALF_EVEN)


def share_text(share: float | None) -> str:
    """A share of 1 in percent; small ones with a decimal."""
    return percent_text(None if share is None else share * 100)


def percent_text(percent: float | None) -> str:
    """A rate in percent; small ones with a decimal."""
    if percent is None:
        return "-"
    return f"{percent:.1f} %" if 0 < abs(percent) < 9.95 else f"{percent:.0f} %"


def cost_text(cost: Decimal, calls: int, unpriced_calls: int, *, exact: bool) -> str:
    """The cost of some calls; where none of them has a known price, that it is unpriced."""
    return "unpriced" if calls and unpriced_calls == calls else dollars(cost, exact=exact)
