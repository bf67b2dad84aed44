"""The reports of usage that admins were promised: overview, patterns, users, services, costs, performance.

Each takes a store, a period and filters, and returns data with the fields that its name promises. Amounts are US dollars as
Decimal, rates are percent, latencies milliseconds, days those of the period's zone. All raise StoreError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.errors import StoreDenied, StoreRejected
from vital_tracking.queries.answers import Amount
from vital_tracking.queries.bill import BillMonth, OtherPart, bill_month, other_by, other_parts
from vital_tracking.queries.bill import total as sum_of
from vital_tracking.queries.explore import Explored, Filters, Period, each_day, explore
from vital_tracking.queries.forecast import Forecast, cost_forecast, has_history
from vital_tracking.queries.names import names_of
from vital_tracking.queries.plans import percent_used, plans_of
from vital_tracking.queries.plans import quotas as plan_quotas
from vital_tracking.stores import Store

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NONE: Final = "none"
"""How reports name the group of calls that have no such value."""

_DAYS_OF_A_MONTH: Final = 30
_PEAKS: Final = 5
_ENDPOINTS: Final = 20


class GroupUsage(TypedDict):
    """What one kind or service comes to. Of kinds that are no calls to models `calls` counts what is billed by the call."""

    calls: int
    cost: Amount
    avg_latency_ms: float | None
    unique_users: int | None


class Overview(TypedDict):
    """Totals, by kind and by service. `unpriced_calls` are in no cost, `estimated_calls` have tokens that nobody reported.

    `total_cost` is that of the calls (`model_cost`, to which `by_service_type` adds up) and of everything else (`other_cost`); to
    it adds up `by_service`. Where filters are of calls alone, such as a model, there are no other costs.
    """

    total_api_calls: int
    total_cost: Amount
    model_cost: Amount
    other_cost: Amount
    cost_per_call: Amount | None
    period_start: datetime
    period_end: datetime
    by_service: dict[str, GroupUsage]
    by_service_type: dict[str, GroupUsage]
    by_user_count: int
    unpriced_calls: int
    estimated_calls: int
    unpriced_costs: int
    fresh_at: datetime


def overview(store: Store, period: Period, filters: Filters | None = None) -> Overview:
    """What all calls of a period come to."""
    measures = ("calls", "unpriced_calls", "estimated_calls", "total_cost", "average_latency_ms", "active_users")
    kinds = explore(store, period, by=("kind",), filters=filters, measures=measures)
    services = explore(store, period, by=("service",), filters=filters, measures=measures)
    total, others = services.total, other_parts(store, period, filters)
    other_cost = sum_of(part["cost"] for part in others.values())
    return Overview(
        total_api_calls=total["calls"],
        total_cost=MONEY.add(total["total_cost"], other_cost),
        model_cost=total["total_cost"],
        other_cost=other_cost,
        cost_per_call=cost_per_call(total),
        period_start=period.since,
        period_end=period.until,
        by_service=_with_others(_groups(kinds, "kind"), others),
        by_service_type=_groups(services, "service"),
        by_user_count=total["active_users"],
        unpriced_calls=total["unpriced_calls"],
        estimated_calls=total["estimated_calls"],
        unpriced_costs=sum(part["unpriced_costs"] for part in others.values()),
        fresh_at=services.fresh_at,
    )


def cost_per_call(sums: Mapping[str, Any]) -> Decimal | None:
    """US dollars a priced call; None where there is none."""
    priced = sums["calls"] - sums["unpriced_calls"]
    cost: Decimal = sums["total_cost"]
    return cost / priced if priced else None


def _with_others(groups: dict[str, GroupUsage], others: Mapping[str, OtherPart]) -> dict[str, GroupUsage]:
    """Kinds of calls, and the other costs by theirs; what a provider bills beside its calls is of their kind."""
    nothing = GroupUsage(calls=0, cost=ZERO, avg_latency_ms=None, unique_users=None)
    found = dict(groups)
    for kind, part in others.items():
        group = found.get(kind, nothing)
        calls = group["calls"] if kind in groups else part["calls"]
        found[kind] = {**group, "calls": calls, "cost": MONEY.add(group["cost"], part["cost"])}
    return found


def _groups(found: Explored, dimension: str) -> dict[str, GroupUsage]:
    return {
        row[dimension] or NONE: GroupUsage(
            calls=row["calls"],
            cost=row["total_cost"],
            avg_latency_ms=row["average_latency_ms"],
            unique_users=row["active_users"],
        )
        for row in found.rows
    }


class Patterns(TypedDict):
    """When calls are made, and what is called."""

    peak_hours: list[dict[str, Any]]
    peak_days: list[dict[str, Any]]
    popular_endpoints: list[dict[str, Any]]
    usage_trends: dict[str, list[dict[str, Any]]]


def patterns(store: Store, period: Period, filters: Filters | None = None) -> Patterns:
    """The hours and weekdays with the most calls, the endpoints that are called most, and calls and costs by day."""
    hours = explore(store, period, by=("hour_of_day",), filters=filters, measures=("calls",), order_by="calls")
    weekdays = explore(store, period, by=("weekday",), filters=filters, measures=("calls",), order_by="calls")
    endpoints = explore(
        store,
        period,
        by=("endpoint",),
        filters=filters,
        measures=("calls", "average_latency_ms", "success_rate"),
        order_by="calls",
        rows=_ENDPOINTS,
    )
    days = _days(store, period, filters)
    return Patterns(
        peak_hours=[{"hour": row["hour_of_day"], "calls": row["calls"]} for row in _most(hours.rows)[:_PEAKS]],
        peak_days=[{"day": WEEKDAYS[row["weekday"] - 1], "calls": row["calls"]} for row in _most(weekdays.rows)],
        popular_endpoints=[
            {
                "endpoint": row["endpoint"] or NONE,
                "calls": row["calls"],
                "avg_latency_ms": row["average_latency_ms"],
                "error_rate": _error_rate(row),
            }
            for row in endpoints.rows
        ],
        usage_trends={
            "daily_calls": [{"date": row["day"], "calls": row["calls"]} for row in days],
            "daily_costs": [{"date": row["day"], "cost": row["total_cost"]} for row in days],
        },
    )


def _most(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: -row["calls"])


def _error_rate(row: Mapping[str, Any]) -> float | None:
    rate = row["success_rate"]
    return None if rate is None else round(100 - rate, 4)


def _days(store: Store, period: Period, filters: Filters | None) -> list[Mapping[str, Any]]:
    return each_day(
        explore(store, period, by=("day",), filters=filters, measures=("calls", "total_cost"), rows=10_000), period
    )


class UserUsage(TypedDict):
    """What a user's calls come to. Plan and quota are None where he is on none that may be seen, the quota where it is unlimited.

    `username` is the name, else the address, else the id; `email` is told to admins of an organization of his, and to himself.
    """

    user_id: str | None
    username: str | None
    email: str | None
    total_calls: int
    total_cost: Amount
    by_service: dict[str, dict[str, Any]]
    subscription_tier: str | None
    quota_used_percent: Amount | None


def by_user(store: Store, period: Period, filters: Filters | None = None, *, limit: int = 100) -> list[UserUsage]:
    """The `limit` users who cost most, with what they spent on each service."""
    measures = ("calls", "total_cost")
    dearest = explore(store, period, by=("user",), filters=filters, measures=measures, rows=limit)
    users = [row["user"] for row in dearest.rows]
    if not users:
        return []
    split = explore(
        store,
        period,
        by=("user", "service"),
        filters={**(filters or {}), "user": users},
        measures=measures,
        rows=100_000,
    )
    services: dict[str | None, dict[str, dict[str, Any]]] = {}
    for row in split.rows:
        spent = {"calls": row["calls"], "cost": row["total_cost"]}
        services.setdefault(row["user"], {})[row["service"] or NONE] = spent
    known = names_of(store, users)
    tiers = plans_of(store, users)
    return [
        UserUsage(
            user_id=row["user"],
            username=row["user"] and known.user(row["user"]),
            email=row["user"] and known.email(row["user"]),
            total_calls=row["calls"],
            total_cost=row["total_cost"],
            by_service=services.get(row["user"], {}),
            subscription_tier=tiers[row["user"]]["plan"] if row["user"] in tiers else None,
            quota_used_percent=tiers[row["user"]]["used_percent"] if row["user"] in tiers else None,
        )
        for row in dearest.rows
    ]


class QuotaUsage(TypedDict):
    """What a plan's subscribers use together: calls and tokens against the sums of their limits, `unlimited` where there is none.

    `percentage` is that of the calls, 0 where they are unlimited; `over_quota` counts those who used more than they have.
    """

    subscribers: int
    used: Amount
    limit: Amount | Literal["unlimited"]
    percentage: Amount
    tokens_used: Amount
    tokens_limit: Amount | Literal["unlimited"]
    over_quota: int


def quotas(store: Store, *, organization: str | None = None) -> dict[str, QuotaUsage]:
    """How much of their quotas the subscribers of each plan have used in their months, by plan, the smallest first."""
    return {
        row["plan"]: QuotaUsage(
            subscribers=row["subscribers"],
            used=row["calls_used"],
            limit="unlimited" if row["calls_limit"] is None else row["calls_limit"],
            percentage=percent_used(row["calls_used"], row["calls_limit"]) or Decimal(0),
            tokens_used=row["tokens_used"],
            tokens_limit="unlimited" if row["tokens_limit"] is None else row["tokens_limit"],
            over_quota=row["over"],
        )
        for row in plan_quotas(store, organization=organization)
    }


class ServiceUsage(TypedDict):
    """What a kind of service comes to. Of kinds that are no calls to models `total_calls` counts what is billed by the call."""

    service_name: str
    total_calls: int
    total_cost: Amount
    avg_latency_ms: float | None
    success_rate: float | None
    error_rate: float | None
    unique_users: int | None


def by_service(store: Store, period: Period, filters: Filters | None = None) -> list[ServiceUsage]:
    """What was used, by kind (`llm`, `embeddings`, and those of other costs, such as `storage`), the dearest first."""
    measures = ("calls", "total_cost", "average_latency_ms", "success_rate", "active_users")
    found = explore(store, period, by=("kind",), filters=filters, measures=measures)
    rates = {row["kind"]: row for row in found.rows}
    kinds = _with_others(_groups(found, "kind"), other_parts(store, period, filters))
    return [
        ServiceUsage(
            service_name=kind,
            total_calls=group["calls"],
            total_cost=group["cost"],
            avg_latency_ms=group["avg_latency_ms"],
            success_rate=rates[kind]["success_rate"] if kind in rates else None,
            error_rate=_error_rate(rates[kind]) if kind in rates else None,
            unique_users=group["unique_users"],
        )
        for kind, group in sorted(kinds.items(), key=lambda one: -one[1]["cost"])
    ]


class Costs(TypedDict):
    """What was spent, how it went, and where it leads: `forecast` that of the calls, `bill` with other costs; None where there is
    nothing to tell it from.

    `total_cost` is `model_cost` and `other_cost`; what there is by provider, by service and by day adds up to it, with other
    costs under their kinds.
    """

    total_cost: Amount
    model_cost: Amount
    other_cost: Amount
    cost_breakdown: dict[str, Amount]
    cost_trends: list[dict[str, Any]]
    projected_monthly_cost: Amount
    cost_per_user: Amount | None
    cost_per_service: dict[str, Amount]
    forecast: Forecast | None
    bill: BillMonth | None
    unpriced_calls: int
    unpriced_costs: int


def costs(store: Store, period: Period, filters: Filters | None = None) -> Costs:
    """The costs of a period; projected to a month is its daily average times 30."""
    measures = ("calls", "unpriced_calls", "total_cost", "active_users")
    services = explore(store, period, by=("service",), filters=filters, measures=measures)
    providers = explore(store, period, by=("provider",), filters=filters, measures=("calls", "total_cost"))
    model_cost: Decimal = services.total["total_cost"]
    others = other_parts(store, period, filters)
    other_cost = sum_of(part["cost"] for part in others.values())
    total = MONEY.add(model_cost, other_cost)
    users = services.total["active_users"]
    of_days = other_by(store, period, "day", filters)
    organization = (filters or {}).get("organization", (None,))[0]
    ahead = month_end(store, period, filters)
    return Costs(
        total_cost=total,
        model_cost=model_cost,
        other_cost=other_cost,
        cost_breakdown=_all_costs({row["provider"] or NONE: row["total_cost"] for row in providers.rows}, others),
        cost_trends=[
            {"date": row["day"], "cost": MONEY.add(row["total_cost"], of_days.get(row["day"], ZERO))}
            for row in _days(store, period, filters)
        ],
        projected_monthly_cost=total / len(period.days) * _DAYS_OF_A_MONTH,
        cost_per_user=total / users if users else None,
        cost_per_service=_all_costs({row["service"] or NONE: row["total_cost"] for row in services.rows}, others),
        forecast=ahead,
        bill=None if ahead is None else bill_month(store, ahead, organization=organization),
        unpriced_calls=services.total["unpriced_calls"],
        unpriced_costs=sum(part["unpriced_costs"] for part in others.values()),
    )


def _all_costs(costs: dict[str, Decimal], others: Mapping[str, OtherPart]) -> dict[str, Decimal]:
    """Costs of calls by a name, and the other costs by their kinds."""
    found = dict(costs)
    for kind, part in others.items():
        found[kind] = MONEY.add(found.get(kind, ZERO), part["cost"])
    return found


def month_end(store: Store, period: Period, filters: Filters | None = None) -> Forecast | None:
    """Where the calendar month ends, for all calls or an organization's; None where that cannot be told or may not be asked."""
    organizations = (filters or {}).get("organization", (None,))
    if set(filters or {}) - {"organization"} or len(organizations) != 1:
        return None
    try:
        ahead = cost_forecast(store, organization=organizations[0], timezone=period.timezone)
    except (StoreRejected, StoreDenied):
        return None
    return ahead if has_history(ahead) else None


class Performance(TypedDict):
    """How long calls take and how they end."""

    avg_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    success_rate: float | None
    error_rate: float | None
    timeout_rate: float | None
    by_endpoint: dict[str, dict[str, Any]]


def performance(store: Store, period: Period, filters: Filters | None = None) -> Performance:
    """Latencies and how many calls failed, in all and by what was called."""
    measures = (
        "calls",
        "average_latency_ms",
        "p50_latency_ms",
        "p95_latency_ms",
        "p99_latency_ms",
        "success_rate",
        "timeout_rate",
    )
    total = explore(store, period, filters=filters, measures=measures).total
    endpoints = explore(
        store,
        period,
        by=("endpoint",),
        filters=filters,
        measures=("calls", "average_latency_ms", "success_rate"),
        order_by="calls",
    )
    return Performance(
        avg_latency_ms=total["average_latency_ms"],
        p50_latency_ms=total["p50_latency_ms"],
        p95_latency_ms=total["p95_latency_ms"],
        p99_latency_ms=total["p99_latency_ms"],
        success_rate=total["success_rate"],
        error_rate=_error_rate(total),
        timeout_rate=total["timeout_rate"],
        by_endpoint={
            row["endpoint"] or NONE: {
                "avg_latency_ms": row["average_latency_ms"],
                "success_rate": row["success_rate"],
                "error_rate": _error_rate(row),
            }
            for row in endpoints.rows
        },
    )
