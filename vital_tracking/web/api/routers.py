"""The whole API: one module a resource."""

from typing import Final

from vital_tracking.web.api import (
    alerts,
    anomalies,
    audit,
    budgets,
    calls,
    explore,
    forecast,
    members,
    plans,
    prices,
    rate_limits,
    runs,
    usage,
)

ROUTERS: Final = tuple(
    resource.routes
    for resource in (
        usage,
        calls,
        runs,
        explore,
        budgets,
        alerts,
        forecast,
        anomalies,
        prices,
        plans,
        rate_limits,
        members,
        audit,
    )
)
"""The routes of all resources; one adds its module here."""
