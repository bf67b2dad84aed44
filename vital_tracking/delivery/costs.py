"""What calls cost, and what budgets count of them."""

from __future__ import annotations

from decimal import Decimal

from vital_tracking.core.cost import Cost
from vital_tracking.core.price_spans import PriceSpans
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.rates import ceiling_rates
from vital_tracking.core.record import CallRecord


class Costs:
    """Prices calls. `ceiling_price` (US dollars per million tokens in and out, such as `15/75`) stands in for unknown prices."""

    def __init__(self, prices: PriceBook, ceiling_price: str) -> None:
        self._prices = prices
        self._ceiling = ceiling_rates(ceiling_price)

    def cost_of(self, record: CallRecord) -> Cost | None:
        """What a call cost; None where no price is known."""
        return record.cost if record.cost is not None else self._prices.cost_of(record)

    def spans(self) -> PriceSpans:
        """The same prices, for usual calls."""
        return PriceSpans(self._prices)

    def counted(self, record: CallRecord, cost: Cost | None) -> Decimal | None:
        """What budgets count of a call, in US dollars: its cost, else what it costs at the ceiling price."""
        if cost is not None:
            return cost.total
        if "usage_missing" in record.notes or record.cache_hit:
            return None
        ceiling = self._ceiling.cost(record.usage)
        return None if ceiling is None else ceiling.total
