"""All pages: one module a question, or a few of a kind."""

from typing import Final

from vital_tracking.web.pages import (
    abuse,
    agents,
    alerts,
    anomalies,
    audit,
    budget,
    budgets,
    forecast,
    forget,
    organization,
    prices,
    routes,
    saved,
    status,
    tenants,
    tools,
    user,
)

_PAGES: Final = (
    routes, user, agents, forget, saved, budgets, budget, alerts, forecast, anomalies, prices, organization, audit,
    status, tenants, abuse, tools,
)  # fmt: skip
ROUTERS: Final = tuple(pages.routes for pages in _PAGES)
"""The routes of all pages; a module of pages adds itself here."""
