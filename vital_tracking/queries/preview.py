"""What a budget would have done in the last days. Amounts are Decimal in the budget's metric, costs in US dollars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.cost import exact_sum
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store

PREVIEW_DAYS: Final = 30
MOST_PREVIEW_DAYS: Final = 90

UNKNOWN: Final = (
    "These are the calls that were made. What would have come after a stopped, slowed or downgraded call cannot be known: "
    "people and programs would have tried again, or done something else. Calls count with what they cost in the end, not with "
    "what is held for them before; exceptions and other budgets are left out."
)
"""What a preview cannot know, as it is said wherever one is shown."""


@answer_type
class PreviewDay(TypedDict):
    """A day in the budget's time zone: calls that it counts, their amount, what it would have done, alerts by threshold.

    `stopped_cost` is the cost of the stopped calls whose price is known; `stopped_unpriced` is how many are in none.
    """

    day: date
    calls: int
    amount: Amount
    stopped: int
    slowed: int
    downgraded: int
    stopped_amount: Amount
    stopped_cost: Amount
    stopped_unpriced: int
    alerts: dict[str, int]


@answer_type
class BudgetPreview(TypedDict):
    """What a budget would have done: the days, how many entities it counts, and how many met its limit."""

    first_day: date
    last_day: date
    entities: int
    entities_met: int
    days: list[PreviewDay]


def preview_budget(store: Store, columns: Mapping[str, object], *, days: int = PREVIEW_DAYS) -> BudgetPreview:
    """Replay the calls of the last days, today included, against a budget as `set_budget` takes it; nothing is stored."""
    return typed(BudgetPreview, store.call("budget_preview_v1", budget=json.dumps(dict(columns)), days=days))


def preview_totals(preview: BudgetPreview) -> PreviewDay:
    """All days of a preview together, under its last day."""
    days = preview["days"]
    alerts: dict[str, int] = {}
    for day in days:
        for threshold, count in day["alerts"].items():
            alerts[threshold] = alerts.get(threshold, 0) + count
    return PreviewDay(
        day=preview["last_day"],
        calls=sum(day["calls"] for day in days),
        amount=exact_sum(day["amount"] for day in days),
        stopped=sum(day["stopped"] for day in days),
        slowed=sum(day["slowed"] for day in days),
        downgraded=sum(day["downgraded"] for day in days),
        stopped_amount=exact_sum(day["stopped_amount"] for day in days),
        stopped_cost=exact_sum(day["stopped_cost"] for day in days),
        stopped_unpriced=sum(day["stopped_unpriced"] for day in days),
        alerts=alerts,
    )
