"""All pages: one module a question, or a few of a kind."""

from typing import Final

from vital_tracking.web.pages import (
    abuse,
    advice,
    agents,
    alerts,
    anomalies,
    audit,
    budget,
    budgets,
    costs,
    events,
    forecast,
    forget,
    organization,
    prices,
    quotas,
    routes,
    saved,
    status,
    tenants,
    tools,
    user,
)

_PAGES: Final = (
    routes,
    user,
    agents,
    forget,
    saved,
    budgets,
    budget,
    quotas,
    alerts,
    forecast,
    anomalies,
    tenants,
    abuse,
    advice,
    prices,
    events,
    costs,
    organization,
    audit,
    status,
    tools,
)
ROUTERS: Final = tuple(pages.routes for pages in _PAGES)
"""The routes of all pages; a module of pages adds itself here."""
