"""Writes the made-up history into a store, by the functions that record every call, and takes it out again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from typing_extensions import TypedDict

from vital_tracking.calls.row_literal import batch_of
from vital_tracking.core.record import CallRecord
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.rows import encode_call, run_row
from vital_tracking.demo.cast import ORGANIZATIONS, Organization
from vital_tracking.demo.history import DAYS, History
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.budgets import BudgetLimit, set_budget
from vital_tracking.queries.plans import import_subscriptions
from vital_tracking.stores import Store

_A_BATCH: Final = 1000
_OURS: Final = json.dumps([organization.id for organization in ORGANIZATIONS])


@answer_type
class DemoHistory(TypedDict):
    """What there is of the history, and whether there are other calls; `platform_rows` are events, other costs and executions,
    `mark` says how it was made.
    """

    calls: int
    runs: int
    budgets: int
    platform_rows: int
    first: datetime | None
    last: datetime | None
    mark: str | None
    others: bool


@answer_type
class _Removed(TypedDict):
    done: bool
    calls: int
    runs: int
    budgets: int
    platform_rows: int


def found(store: Store) -> DemoHistory:
    """What there is of the history in a store. Raises StoreError."""
    return typed(DemoHistory, store.call("demo_history_v1", organizations=_OURS))


def history_of(there: DemoHistory, days: int = DAYS, *, now: datetime | None = None) -> History:
    """The history to write: the one that is there already, where one is, else `days` days up to now."""
    known = History.marked(there["mark"] or "")
    return known or History((now or datetime.now(UTC)).replace(second=0, microsecond=0), days)


def write(store: Store, history: History, costs: Costs, progress: Callable[[int], None] = lambda _: None) -> int:
    """Write a history with its budgets and plans; how many calls were new. `progress` is told how many days are done.

    Calls and runs are known by their ids, so what is there already stays as it is. Raises StoreError.
    """
    first = (history.until - timedelta(days=history.days)).date()
    months = (history.until.year - first.year) * 12 + history.until.month - first.month + 1
    store.call("ensure_partitions_v1", first_month=first, months=months)
    budgets = {organization.id: _budgets(store, organization) for organization in ORGANIZATIONS}
    blocking = {name: _stop(made[-1]) for name, made in budgets.items()}
    new = 0
    waiting: list[CallRecord] = []
    for number, day in enumerate(history.each_day(blocking), 1):
        for runs in _batches(day.runs):
            store.call("record_runs_v1", runs=orjson.dumps([run_row(run) for run in runs]).decode())
        for function, argument, rows in (
            ("record_events_v1", "events", day.platform.events),
            ("record_costs_v1", "costs", day.platform.costs),
            ("record_executions_v1", "executions", day.platform.executions),
        ):
            for some in _batches(rows):
                store.call(function, **{argument: orjson.dumps(some).decode()})
        waiting += day.calls
        last = number == history.days
        while len(waiting) >= _A_BATCH or (last and waiting):
            batch, waiting = waiting[:_A_BATCH], waiting[_A_BATCH:]
            answer = store.call("record_calls_v2", calls=batch_of(_row(call, costs) for call in batch))
            new += answer["inserted"]
            _nobody_is_told(store, answer.get("alerts") or ())
        progress(number)
    # What was used in the month that runs counts.
    import_subscriptions(store, (one for organization in ORGANIZATIONS for one in _subscriptions(organization)))
    return new


def remove(store: Store, progress: Callable[[int], None] = lambda _: None) -> _Removed:
    """Take the history out, batch by batch; what was removed. `progress` is told how many calls are done.

    Where it is stopped, run it again. Raises StoreError.
    """
    calls = runs = budgets = platform_rows = 0
    while True:
        answer = typed(_Removed, store.call("remove_demo_history_v1", organizations=_OURS))
        calls, runs, budgets = calls + answer["calls"], runs + answer["runs"], budgets + answer["budgets"]
        platform_rows += answer["platform_rows"]
        progress(calls)
        if answer["done"]:
            return {"done": True, "calls": calls, "runs": runs, "budgets": budgets, "platform_rows": platform_rows}


def _row(call: CallRecord, costs: Costs) -> str:
    cost = costs.cost_of(call)
    return encode_call(call, cost, costs.counted(call, cost) if cost is None else None, ())


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _A_BATCH):
        yield items[start : start + _A_BATCH]


def _budgets(store: Store, organization: Organization) -> list[BudgetLimit]:
    """What an organization may spend; the last one stops calls."""
    mine = {"organization_id": organization.id, "timezone": organization.zone}
    wanted: tuple[dict[str, object], ...] = (
        {"entity_type": "organization", "entity_id": organization.id, "monthly_limit": organization.monthly_usd},
        {"entity_type": "tier", "entity_id": "tier_1", "monthly_limit": organization.tier_1_usd, "action": "downgrade"},
        {"entity_type": "service", "entity_id": "workflow", "daily_limit": "1.50", "action": "throttle"},
        {"entity_type": "user", "entity_id": "*", "daily_limit": "1.20", "monthly_limit": "15", "action": "block"},
    )
    return [set_budget(store, {**mine, **one}) for one in wanted]


def _subscriptions(organization: Organization) -> list[dict[str, object]]:
    """Who is on which plan: whoever does most on a large one, whoever does least on trial, which is too small."""
    plans = {0: "professional", len(organization.users) - 1: "trial"}
    return [
        {
            "organization_id": organization.id,
            "entity_type": "user",
            "entity_id": user,
            "plan": plans.get(place, "starter"),
            "timezone": organization.zone,
        }
        for place, user in enumerate(organization.users)
    ]


def _stop(budget: BudgetLimit) -> dict[str, object]:
    """What the row of a call says that this budget stopped."""
    return {
        "budget": budget["id"],
        "action": "block",
        "entity_type": "user",
        "organization_id": budget["organization_id"],
        "metric": "cost_usd",
        "period": "day",
        "limit": str(budget["daily_limit"]),
        "spent": str(budget["daily_limit"]),
        "needed": "0.02",
    }


def _nobody_is_told(store: Store, alerts: Sequence[dict[str, Any]]) -> None:
    """Made-up alerts are shown, and are not sent to people."""
    ids = [alert["id"] for alert in alerts if alert["organization_id"] in {one.id for one in ORGANIZATIONS}]
    if ids:
        store.call("settle_alerts_v1", ids=json.dumps(ids), delivered=True)
