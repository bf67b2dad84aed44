"""What units cost of what is no call to a model: dated prices of storage, bandwidth and so on; and costs that had none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.platform import USUAL_UNITS
from vital_tracking.core.sanitize import money
from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.explore import Period
from vital_tracking.queries.platform import explore_platform
from vital_tracking.stores import Store

_ANOTHER: Final = "23505"
_NO_UNIT: Final = "22023"
_A_BATCH: Final = 10_000
_A_YEAR: Final = 365


@answer_type
class ResourcePrice(TypedDict):
    """US dollars (`unit_price`) for one `unit` of a kind of cost from an instant on; `resource` None: of any."""

    id: int
    cost_type: str
    resource: str | None
    unit: str
    unit_price: Decimal
    valid_from: datetime
    note: str | None


def resource_prices(store: Store) -> list[ResourcePrice]:
    """All prices of what is no call that the asker may see, by kind and resource, the newest first of each. Raises StoreError."""
    return typed(list[ResourcePrice], store.call("resource_prices_v1"))


def in_force(prices: Iterable[ResourcePrice], moment: datetime) -> list[ResourcePrice]:
    """Of all prices those that hold at a moment: of each kind, unit and resource the newest that has begun."""
    found: dict[tuple[str, str, str | None], ResourcePrice] = {}
    for price in sorted(prices, key=lambda price: price["valid_from"]):
        if price["valid_from"] <= moment:
            found[price["cost_type"], price["unit"], price["resource"]] = price
    return sorted(found.values(), key=lambda price: (price["cost_type"], price["unit"], price["resource"] or ""))


def units_of(store: Store, cost_type: str) -> list[str]:
    """In what costs of a kind are counted: the usual unit, those that have a price, and those of the last year's costs.

    Raises StoreError.
    """
    usual = USUAL_UNITS.get(cost_type)
    priced = {price["unit"] for price in resource_prices(store) if price["cost_type"] == cost_type}
    counted = explore_platform(
        store, "costs", Period.last_days(_A_YEAR), by=["unit"], filters={"cost_type": [cost_type]}
    )
    used = {row["unit"] for row in counted.rows if row["unit"] is not None}
    return sorted(priced | used | ({usual} if usual else set()))


def add_resource_price(
    store: Store,
    cost_type: str,
    unit_price: Decimal,
    *,
    unit: str | None = None,
    resource: str | None = None,
    valid_from: datetime | None = None,
    note: str | None = None,
) -> None:
    """Add a price for costs that arise from `valid_from` on, by default from now on.

    `unit` is by default the usual one of its kind, `resource` None any. Raises VitalError where there is another price from
    that instant on, or where the kind of cost has no usual unit.
    """
    price = {
        "cost_type": cost_type,
        "unit_price": money(unit_price),
        "unit": unit,
        "resource": resource,
        "valid_from": valid_from.isoformat() if valid_from else None,
        "note": note,
    }
    try:
        store.call("add_resource_price_v1", price=json.dumps(price))
    except StoreRejected as error:
        if error.sqlstate == _ANOTHER:
            raise VitalError(
                "There is another price from that moment on. Prices are never overwritten: choose another --from."
            ) from None
        if error.sqlstate == _NO_UNIT and unit is None:
            raise VitalError(f"{cost_type} has no usual unit: name one, such as --unit hour.") from None
        raise


@answer_type
class _Place(TypedDict):
    after_at: datetime
    after_id: str


@answer_type
class _RepricedBatch(TypedDict):
    repriced: int
    unpriced: int | None
    next: _Place | None


@answer_type
class RepricedCosts(TypedDict):
    """How many costs got a price, and how many have none still."""

    repriced: int
    unpriced: int


def reprice_costs(store: Store, *, since: datetime | None = None, again: bool = False) -> RepricedCosts:
    """Price costs from `since` on that had no price, as of when they arose; with `again` also those whose price has changed.

    Costs of all organizations: prices are the same for all. Raises StoreError.
    """
    total = 0
    place: Mapping[str, object] = {}
    while True:
        answer = store.call("reprice_costs_v1", since=since, again=again, max_rows=_A_BATCH, **place)
        done = typed(_RepricedBatch, answer)
        total += done["repriced"]
        if done["next"] is None:
            return {"repriced": total, "unpriced": done["unpriced"] or 0}
        place = {**done["next"]}
