"""All pages: one module a question, or a few of a kind."""

from typing import Final

from vital_tracking.web.pages import (
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
    quotas,
    routes,
    saved,
    status,
    tools,
    user,
)

_PAGES: Final = (
    routes, user, agents, forget, saved, budgets, budget, quotas, alerts, forecast, anomalies, prices, organization, audit,
    status, tools,
)  # fmt: skip
ROUTERS: Final = tuple(pages.routes for pages in _PAGES)
"""The routes of all pages; a module of pages adds itself here."""
