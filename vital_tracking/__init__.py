"""What every LangChain and LangGraph call costs, to the last decimal, in a PostgreSQL or Supabase that you own."""

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
