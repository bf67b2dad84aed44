"""The one bill: what calls to models and everything else come to, apart and together, and where the month of both ends.

Amounts are US dollars as Decimal with all their digits; what has no price is in none of them. Raises StoreError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.queries.answers import Amount
from vital_tracking.queries.explore import Filters, Period
from vital_tracking.queries.forecast import Forecast
from vital_tracking.queries.other_costs import OF_BOTH, explore_costs
from vital_tracking.stores import Store

_HABIT_DAYS: Final = 28
SHARE: Final = "share"
"""The unit of what was allocated: a month's invoice at once, which says nothing of other days."""
_MICRO: Final = Decimal("0.000001")


class OtherPart(TypedDict):
    """What a kind of other cost comes to: US dollars of what has a price, rows, those without one, and counted calls."""

    cost: Amount
    costs: int
    unpriced_costs: int
    calls: int


def kind_of(cost_type: str) -> str:
    """How reports call a type of cost: as they call calls of that kind."""
    return "embeddings" if cost_type == "embedding" else cost_type


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """The sum of amounts, exactly; what is unknown adds nothing."""
    added = ZERO
    for amount in amounts:
        added = MONEY.add(added, amount or ZERO)
    return added


def has_other_costs(filters: Filters | None) -> bool:
    """Whether what is asked is asked of other costs, too: they have no model, agent or workflow."""
    return not set(filters or {}) - set(OF_BOTH)


def other_parts(store: Store, period: Period, filters: Filters | None = None) -> Mapping[str, OtherPart]:
    """Other costs of a period by their kind, the dearest first; none where filters are of calls alone."""
    if not has_other_costs(filters):
        return {}
    found: dict[str, OtherPart] = {}
    for row in explore_costs(store, period, by=("cost_type", "unit"), filters=filters, rows=10_000).rows:
        part = found.setdefault(kind_of(row["cost_type"]), OtherPart(cost=ZERO, costs=0, unpriced_costs=0, calls=0))
        part["cost"] = MONEY.add(part["cost"], row["cost_usd"] or ZERO)
        part["costs"] += row["costs"]
        part["unpriced_costs"] += row["unpriced_costs"]
        if row["unit"] == "call" and row["quantity"] is not None:
            part["calls"] += int(row["quantity"])
    return dict(sorted(found.items(), key=lambda one: (-one[1]["cost"], one[0])))


def other_by(store: Store, period: Period, grain: str, filters: Filters | None = None) -> dict[Any, Decimal]:
    """Other costs of a period by hour, day, week or month of its zone; none where filters are of calls alone."""
    if not has_other_costs(filters):
        return {}
    found = explore_costs(store, period, by=(grain,), filters=filters, rows=10_000)
    return {row[grain]: row["cost_usd"] or ZERO for row in found.rows}


class BillMonth(TypedDict):
    """The calendar month of calls and other costs together, and the part of the others. `low` to `high` is the likely range.

    What is to come of other costs is their average day of the last 28, or of the days since the first of them. `other_days` are
    what they cost on each day, and are to cost on those that are to come.
    """

    spent: Amount
    projected: Amount
    low: Amount
    high: Amount
    other_spent: Amount
    other_projected: Amount
    other_costs: int
    unpriced_costs: int
    other_days: list[tuple[date, Amount | None, Amount | None]]


def bill_month(store: Store, ahead: Forecast, *, organization: str | None = None) -> BillMonth:
    """The month of a forecast of calls, with the other costs of the same organization or of all that may be seen."""
    zone = ahead["timezone"]
    days = [day for day, _, _ in ahead["days"]]
    today = ahead["moment"].astimezone(ZoneInfo(zone)).date()
    first = min(days[0], today - timedelta(days=_HABIT_DAYS))
    filters = {} if organization is None else {"organization": [organization]}
    asked = Period.of_days(first, today, timezone=zone)
    found = explore_costs(store, asked, by=("day", "unit"), filters=filters, rows=100_000)
    cost: dict[date, Decimal] = {}
    daily: dict[date, Decimal] = {}
    for row in found.rows:
        cost[row["day"]] = MONEY.add(cost.get(row["day"], ZERO), row["cost_usd"] or ZERO)
        if row["unit"] != SHARE:
            daily[row["day"]] = MONEY.add(daily.get(row["day"], ZERO), row["cost_usd"] or ZERO)
    spent = total(cost.get(day) for day in days if day <= today)
    usual, spread = _habit(daily, today)
    to_come = {
        day: (max(usual - daily.get(day, ZERO), ZERO) if day == today else usual) for day in days if day >= today
    }
    left = total(to_come.values())
    range_ = (spread * Decimal(len(to_come)).sqrt()).quantize(_MICRO)
    of_month = [row for row in found.rows if row["day"] >= days[0]]
    projected = MONEY.add(spent, left)
    return BillMonth(
        spent=MONEY.add(ahead["spent"], spent),
        projected=MONEY.add(ahead["projected"], projected),
        low=total((ahead["low"], spent, max(left - range_, ZERO))),
        high=total((ahead["high"], projected, range_)),
        other_spent=spent,
        other_projected=projected,
        other_costs=sum(row["costs"] for row in of_month),
        unpriced_costs=sum(row["unpriced_costs"] for row in of_month),
        other_days=[(day, cost.get(day, ZERO) if day <= today else None, to_come.get(day)) for day in days],
    )


def _habit(cost: Mapping[date, Decimal], today: date) -> tuple[Decimal, Decimal]:
    """The average day before today, of 28 or since the first, and by how much days differ from it on average."""
    before = [day for day in cost if today - timedelta(days=_HABIT_DAYS) <= day < today]
    if not before:
        return ZERO, ZERO
    known = [cost.get(min(before) + timedelta(days=n), ZERO) for n in range((today - min(before)).days)]
    usual = max(total(known) / len(known), ZERO).quantize(_MICRO)
    return usual, total(abs(one - usual) for one in known) / len(known)
