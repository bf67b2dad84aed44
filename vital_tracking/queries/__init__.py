"""The read side: one typed function a question over a store, for the command line, for pages and for your own code.

A function takes a store (`vital_tracking.stores.open_store(Settings.from_env())`) and filters, and returns data, never text.
Amounts are US dollars as Decimal with all their digits, rates are in percent, shares go from 0 to 1, durations are in
milliseconds, times carry their zone. Every function raises StoreUnavailable (try again), StoreNotReady (migrations or rights are
missing) or StoreRejected (what was asked is wrong).

    from vital_tracking import Settings
    from vital_tracking.queries import Filters, usage_report
    from vital_tracking.stores import open_store

    store = open_store(Settings.from_env())
    report = usage_report(store, "models", Filters(since=since, until=until))
    report["total"]["total_cost"]
"""

from __future__ import annotations

from vital_tracking.core.breakdowns import DIMENSIONS
from vital_tracking.queries import reports
from vital_tracking.queries.alerts import Alert, AlertFeed, recent_alerts
from vital_tracking.queries.budgets import (
    BudgetAudit,
    BudgetLimit,
    Budgets,
    BudgetWindow,
    CallCheck,
    Verdict,
    all_budgets,
    audit_budgets,
    check_call,
    fullest_windows,
    remove_budget,
    set_budget,
    windows,
)
from vital_tracking.queries.calls import StoredCall, last_call_at, metadata_keys, place_of, usage_records
from vital_tracking.queries.catalogue import FILTERS, GRAINS, GROUPINGS, MEASURES, Grouping, Measure, Unit
from vital_tracking.queries.check import Check
from vital_tracking.queries.configuration import Configuration, Setting, configuration
from vital_tracking.queries.exactness import Exactness, InexactCalls, inexact_calls
from vital_tracking.queries.explore import Explored, Period, explore
from vital_tracking.queries.export import Export, RowTotals, row_totals
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.forecast import Forecast, cost_forecast
from vital_tracking.queries.forget import UserTraces, forget_user, user_traces
from vital_tracking.queries.health import TrackingStatus, examine, tracking_status
from vital_tracking.queries.invoice import Invoice, InvoiceLine, invoice
from vital_tracking.queries.members import (
    ROLES,
    Member,
    MemberChange,
    MemberRefused,
    add_member,
    change_member,
    members,
    remove_member,
)
from vital_tracking.queries.price_check import PriceChange, PriceCheck, ReportedCost, check_prices, fetch_price_list
from vital_tracking.queries.prices import ModelPrice, Repriced, add_price, model_prices, price_book, reprice
from vital_tracking.queries.recommendations import LastAdvice, SavedRecommendation, last_advice, saved_recommendations
from vital_tracking.queries.retention import Months, Retention, months, retention_plan, set_retention
from vital_tracking.queries.run_nodes import RunAround, RunFacts, RunNode, RunSums
from vital_tracking.queries.runs import RunRow, RunTree, RunUnknown, run_place, run_tree, service_runs
from vital_tracking.queries.usage import (
    Anomalies,
    Breakdown,
    Duplicates,
    UsageReport,
    UsageRow,
    anomalies,
    cost_breakdown,
    duplicates,
    usage_report,
    usage_summary,
)

__all__ = [
    "DIMENSIONS",
    "FILTERS",
    "GRAINS",
    "GROUPINGS",
    "MEASURES",
    "ROLES",
    "Alert",
    "AlertFeed",
    "Anomalies",
    "Breakdown",
    "BudgetAudit",
    "BudgetLimit",
    "BudgetWindow",
    "Budgets",
    "CallCheck",
    "Check",
    "Configuration",
    "Duplicates",
    "Exactness",
    "Explored",
    "Export",
    "Filters",
    "Forecast",
    "Grouping",
    "InexactCalls",
    "Invoice",
    "InvoiceLine",
    "LastAdvice",
    "Measure",
    "Member",
    "MemberChange",
    "MemberRefused",
    "ModelPrice",
    "Months",
    "Period",
    "PriceChange",
    "PriceCheck",
    "ReportedCost",
    "Repriced",
    "Retention",
    "RowTotals",
    "RunAround",
    "RunFacts",
    "RunNode",
    "RunRow",
    "RunSums",
    "RunTree",
    "RunUnknown",
    "SavedRecommendation",
    "Setting",
    "StoredCall",
    "TrackingStatus",
    "Unit",
    "UsageReport",
    "UsageRow",
    "UserTraces",
    "Verdict",
    "add_member",
    "add_price",
    "all_budgets",
    "anomalies",
    "audit_budgets",
    "change_member",
    "check_call",
    "check_prices",
    "configuration",
    "cost_breakdown",
    "cost_forecast",
    "duplicates",
    "examine",
    "explore",
    "fetch_price_list",
    "forget_user",
    "fullest_windows",
    "inexact_calls",
    "invoice",
    "last_advice",
    "last_call_at",
    "members",
    "metadata_keys",
    "model_prices",
    "months",
    "place_of",
    "price_book",
    "recent_alerts",
    "remove_budget",
    "remove_member",
    "reports",
    "reprice",
    "retention_plan",
    "row_totals",
    "run_place",
    "run_tree",
    "saved_recommendations",
    "service_runs",
    "set_budget",
    "set_retention",
    "tracking_status",
    "usage_records",
    "usage_report",
    "usage_summary",
    "user_traces",
    "windows",
]
