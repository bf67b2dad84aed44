"""Costs that are no calls to models: the newest ones, what they come to, the prices in force, and their part of the bill.

Amounts are US dollars as Decimal with all their digits. Costs without a price are in no amount, and counted beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.explore import Explored, Filters, Period
from vital_tracking.queries.paging import every_row
from vital_tracking.queries.platform import PlatformFilters, explore_platform, page_of_rows, place_of_row
from vital_tracking.stores import Store

OF_BOTH: Final = ("organization", "user")
"""What calls and other costs are both filtered by. A bill that is filtered by anything else is of calls alone."""


@answer_type
class OtherCost(TypedDict):
    """A cost: so much (`quantity`) of a `unit` of a `resource`, at `unit_price`; `cost_usd` None where no price is known."""

    id: UUID
    occurred_at: datetime
    organization_id: str | None
    user_id: str | None
    cost_type: str
    service: str | None
    resource: str | None
    quantity: Amount
    unit: str | None
    unit_price: Amount | None
    cost_usd: Amount | None
    priced: bool
    price_version: str | None
    metadata: dict[str, Any]


COST_COLUMNS: Final = tuple(OtherCost.__annotations__)


def other_costs(
    store: Store, filters: PlatformFilters | None = None, *, limit: int = 100, after: str | None = None
) -> list[OtherCost]:
    """The newest costs that the filters let pass, at most `limit` (10,000 at once).

    The next page begins `after` the `place_of_row` of the last one. Raises StoreError; ValueError where `after` is no place.
    """
    return typed(list[OtherCost], page_of_rows(store, "costs", filters, limit, after))


def every_other_cost(
    store: Store, filters: PlatformFilters | None = None, *, at_once: int = 1000
) -> Iterator[OtherCost]:
    """All costs that the filters let pass, the newest first, in the memory of `at_once` of them. Raises StoreError."""
    return every_row(lambda after: other_costs(store, filters, limit=at_once, after=after), place_of_row, at_once)


def explore_costs(
    store: Store,
    period: Period,
    *,
    by: Sequence[str] = (),
    filters: Filters | None = None,
    rows: int = 1000,
    whole: bool = False,
) -> Explored:
    """What the costs of a period come to by some of COST_DIMENSIONS, or by hour, day, week or month. Raises StoreError.

    Where the `whole` is needed, as for an invoice, StoreRejected is raised for parts of days whose rows are gone.
    """
    return explore_platform(store, "costs", period, by=by, filters=filters, rows=rows, whole=whole)
