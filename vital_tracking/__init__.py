"""What every LangChain and LangGraph call costs, to the last decimal, in a PostgreSQL or Supabase that you own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vital_tracking.alerts.alert import BudgetAlert
    from vital_tracking.core.context import Agent, CallContext, step
    from vital_tracking.core.price import Price
    from vital_tracking.core.pricing import PriceBook
    from vital_tracking.core.tally import Spent
    from vital_tracking.core.usage import TokenUsage
    from vital_tracking.delivery import Delivered, Stats
    from vital_tracking.direct.admitted_call import AdmittedCall
    from vital_tracking.errors import (
        BudgetExceeded,
        BudgetThrottled,
        BudgetUnavailable,
        MissingExtra,
        SettingsError,
        StoreError,
        StoreNotReady,
        StoreRejected,
        StoreUnavailable,
        VitalError,
    )
    from vital_tracking.scopes import Panel, Scope, Seat
    from vital_tracking.settings import Settings
    from vital_tracking.tracker import VitalTracker

__version__ = "0.1.0"

__all__ = [
    "AdmittedCall",
    "Agent",
    "BudgetAlert",
    "BudgetExceeded",
    "BudgetThrottled",
    "BudgetUnavailable",
    "CallContext",
    "Delivered",
    "MissingExtra",
    "Panel",
    "Price",
    "PriceBook",
    "Scope",
    "Seat",
    "Settings",
    "SettingsError",
    "Spent",
    "Stats",
    "StoreError",
    "StoreNotReady",
    "StoreRejected",
    "StoreUnavailable",
    "TokenUsage",
    "VitalError",
    "VitalTracker",
    "step",
]

# Where each name is at home: imported when it is first used, for whoever needs one of them only.
_HOMES: Final = {
    "AdmittedCall": "vital_tracking.direct.admitted_call",
    "Agent": "vital_tracking.core.context",
    "BudgetAlert": "vital_tracking.alerts.alert",
    "BudgetExceeded": "vital_tracking.errors",
    "BudgetThrottled": "vital_tracking.errors",
    "BudgetUnavailable": "vital_tracking.errors",
    "CallContext": "vital_tracking.core.context",
    "Delivered": "vital_tracking.delivery",
    "MissingExtra": "vital_tracking.errors",
    "Panel": "vital_tracking.scopes",
    "Price": "vital_tracking.core.price",
    "PriceBook": "vital_tracking.core.pricing",
    "Scope": "vital_tracking.scopes",
    "Seat": "vital_tracking.scopes",
    "Settings": "vital_tracking.settings",
    "SettingsError": "vital_tracking.errors",
    "Spent": "vital_tracking.core.tally",
    "Stats": "vital_tracking.delivery",
    "StoreError": "vital_tracking.errors",
    "StoreNotReady": "vital_tracking.errors",
    "StoreRejected": "vital_tracking.errors",
    "StoreUnavailable": "vital_tracking.errors",
    "TokenUsage": "vital_tracking.core.usage",
    "VitalError": "vital_tracking.errors",
    "VitalTracker": "vital_tracking.tracker",
    "step": "vital_tracking.core.context",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
