"""The month so far and where it ends: in all, by service and by organization, and how that compares with the time before.

Amounts are US dollars as Decimal, rates percent. Everything is of what whoever asks may see. Raises StoreError.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY
from vital_tracking.queries.answers import Amount
from vital_tracking.queries.bill import BillMonth, bill_month, other_by, other_parts, total
from vital_tracking.queries.explore import Period, explore
from vital_tracking.queries.forecast import Forecast, cost_forecast
from vital_tracking.stores import Store

_DAYS_OF_A_MONTH: Final = 30
_HABIT_DAYS: Final = 28
_MONTHS: Final = 6
_MICRO: Final = Decimal("0.000001")


class MonthPart(TypedDict):
    """What a service or organization has cost this month and what it comes to; `name` None for calls that have none.

    What is to come is divided as the last 28 days were, so that the parts add up to the whole.
    """

    name: str | None
    spent: Amount
    projected: Amount
    share_percent: Amount | None


class PastMonth(TypedDict):
    """What a calendar month's calls cost, and what everything else; named by its first day, the last is that which runs."""

    month: date
    calls: int
    cost: Amount
    other_cost: Amount


class Month(TypedDict):
    """The forecast of the calendar month, and what stands beside it: `bill` has other costs in it, and apart.

    `projected_monthly_cost` is the daily average of the period that was asked for, times 30. `last_week` and `week_before` are
    the seven whole days before today and those before them; all three are of calls and other costs together.
    """

    forecast: Forecast
    bill: BillMonth
    projected_monthly_cost: Amount
    last_week: Amount
    week_before: Amount
    by_service: list[MonthPart]
    by_organization: list[MonthPart]
    months: list[PastMonth]


def month(store: Store, period: Period, *, organization: str | None = None) -> Month:
    """Where the month ends that runs now in the period's time zone, of an organization or of all that may be seen."""
    zone = period.timezone
    filters = {} if organization is None else {"organization": [organization]}
    ahead = cost_forecast(store, organization=organization, timezone=zone)
    today = Period.last_days(1, timezone=zone, now=ahead["moment"]).first_day
    first = ahead["days"][0][0]

    def costs(since: date, until: date, by: str | None) -> dict[Any, Decimal]:
        found = explore(
            store,
            Period.of_days(since, until, timezone=zone),
            by=() if by is None else (by,),
            filters=filters,
            measures=("calls", "total_cost"),
            rows=10_000,
        )
        rows = found.rows if by else [found.total]
        return {row.get(by or ""): row["total_cost"] for row in rows}

    def parts(by: str) -> list[MonthPart]:
        return divided(
            costs(first, today, by), costs(today - timedelta(days=_HABIT_DAYS - 1), today, by), ahead["projected"]
        )

    def others(of: Period) -> Decimal:
        return total(part["cost"] for part in other_parts(store, of, filters).values())

    def week(ends: date) -> Decimal:
        of_calls = costs(ends - timedelta(days=6), ends, None).get(None, Decimal(0))
        return MONEY.add(of_calls, others(Period.of_days(ends - timedelta(days=6), ends, timezone=zone)))

    of_calls = explore(store, period, filters=filters, measures=("total_cost",)).total["total_cost"]
    chosen = MONEY.add(of_calls, others(period))
    return Month(
        forecast=ahead,
        bill=bill_month(store, ahead, organization=organization),
        projected_monthly_cost=(chosen / len(period.days) * _DAYS_OF_A_MONTH).quantize(_MICRO),
        last_week=week(today - timedelta(days=1)),
        week_before=week(today - timedelta(days=8)),
        by_service=parts("service"),
        by_organization=parts("organization"),
        months=_months(store, first, today, zone, filters),
    )


def divided(spent: Mapping[Any, Decimal], habit: Mapping[Any, Decimal], projected: Decimal) -> list[MonthPart]:
    """What is spent by name and what each comes to, the dearest first; what is to come is divided as the habit was."""
    so_far = sum(spent.values(), Decimal(0))
    to_come = max(projected - so_far, Decimal(0))
    weights = habit if sum(habit.values(), Decimal(0)) else spent
    whole = sum(weights.values(), Decimal(0))
    names = sorted({*spent, *weights}, key=lambda name: (-weights.get(name, Decimal(0)), name is None, str(name)))
    left, ends = to_come, {}
    for name in reversed(names):  # the dearest is the last, and takes what rounding leaves
        more = (to_come * weights.get(name, Decimal(0)) / whole).quantize(_MICRO) if whole else Decimal(0)
        more = left if whole and name == names[0] else more
        left -= more
        ends[name] = spent.get(name, Decimal(0)) + more
    sum_of_all = sum(ends.values(), Decimal(0))
    found = [
        MonthPart(
            name=name,
            spent=spent.get(name, Decimal(0)),
            projected=end,
            share_percent=(end / sum_of_all * 100).quantize(Decimal("0.01")) if sum_of_all else None,
        )
        for name, end in ends.items()
    ]
    return sorted(found, key=lambda part: (-part["projected"], part["name"] is None, str(part["name"])))


def _months(store: Store, first: date, today: date, zone: str, filters: Mapping[str, list[str]]) -> list[PastMonth]:
    since = first
    for _ in range(_MONTHS - 1):
        since = (since - timedelta(days=1)).replace(day=1)
    period = Period.of_days(since, today, timezone=zone)
    found = explore(store, period, by=("month",), filters=filters, measures=("calls", "total_cost"))
    calls, others = {row["month"]: row for row in found.rows}, other_by(store, period, "month", filters)
    return [
        PastMonth(
            month=one,
            calls=calls[one]["calls"] if one in calls else 0,
            cost=calls[one]["total_cost"] if one in calls else Decimal(0),
            other_cost=others.get(one, Decimal(0)),
        )
        for one in sorted({*calls, *others})
    ]
