"""The whole API: one module a resource."""

from typing import Final

from vital_tracking.web.api import (
    abuse,
    alerts,
    anomalies,
    audit,
    budgets,
    calls,
    costs,
    events,
    explore,
    forecast,
    members,
    plans,
    prices,
    rate_limits,
    recommendations,
    runs,
    tenants,
    usage,
)

ROUTERS: Final = tuple(
    resource.routes
    for resource in (
        usage,
        calls,
        runs,
        explore,
        events,
        costs,
        budgets,
        alerts,
        forecast,
        anomalies,
        prices,
        plans,
        rate_limits,
        members,
        audit,
        tenants,
        abuse,
        recommendations,
    )
)
"""The routes of all resources; one adds its module here."""
