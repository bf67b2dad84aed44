"""Amounts of a metric as people read them. Values in, text out."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

_FINEST: Final = 12
_FINE: Final = ("cost_usd", "gb_months")


def amount_text(value: Decimal, metric: str, *, exact: bool = False, rounding: str = ROUND_DOWN) -> str:
    """An amount of a budget's metric, without its unit: $4.02, 4,020.

    Rounded to cents, below ten cents to two significant digits, towards zero: an amount just below a limit never reads as if it
    had reached it. Nothing but 0 reads as 0. `exact` keeps every digit; `rounding` is one of decimal's, for what stands at no
    limit. `gb_months` are rounded as money is.
    """
    sign, value = ("-" if value < 0 else ""), abs(value)
    if not exact:
        places = max(2, 1 - value.adjusted()) if value and metric in _FINE else 2
        if value.adjusted() >= -_FINEST:
            places = min(places, _FINEST)
        digits = Context(prec=max(28, value.adjusted() + places + 2))  # all of them, however large the amount
        value = value.quantize(Decimal(1).scaleb(-places), rounding=rounding, context=digits)
    whole, _, fraction = format(value, ",f").partition(".")
    fraction = fraction.rstrip("0")
    if metric == "cost_usd":
        return f"{sign}${whole}.{fraction:0<2}"
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole
