"""Budgets: what may be spent, by whom, how far it is spent, and whether a call would pass.

Amounts are Decimal in the budget's metric: US dollars (`cost_usd`), tokens or calls. All functions raise StoreError where the
database cannot answer, and StoreRejected where it refuses what it was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NotRequired

from typing_extensions import TypedDict

from vital_tracking.core.entities import strictness
from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import Amount, FiniteTime, answer_type, typed
from vital_tracking.stores import Store

MOST_WINDOWS: Final = 10_000
"""As many windows as the database tells of at once."""


@answer_type
class BudgetLimit(TypedDict):
    """A budget. A limit is None where there is none; `organization_id` None counts the calls of all organizations.

    `until` is when it ends by itself; None: never.
    """

    id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    minute_limit: Amount | None
    daily_limit: Amount | None
    monthly_limit: Amount | None
    total_limit: Amount | None
    action: str
    alert_thresholds: list[Amount]
    throttle_interval_s: Amount
    downgrade_to: str | None
    timezone: str
    enforce: bool
    strict: bool
    when_unavailable: str
    until: NotRequired[FiniteTime]
    counting_since: datetime | None
    created_at: datetime
    updated_at: datetime


@answer_type
class Budgets(TypedDict):
    """All budgets, and what the database's clock said when it was asked."""

    now: datetime
    budgets: list[BudgetLimit]


BUDGET_KEY: Final = ("organization_id", "entity_type", "entity_id", "metric", "action")
"""What tells a budget from every other."""


@answer_type
class _StoredWindow(TypedDict):
    id: int | None
    budget_id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    enforce: bool
    period: str
    starts_at: datetime
    ends_at: FiniteTime
    timezone: str
    limit_amount: Amount
    spent: Amount
    granted: Amount


@answer_type
class BudgetWindow(_StoredWindow):
    """One period of a budget for one entity. `granted` is what processes hold for calls under way, `left` what is still free.

    `ends_at` is None where the window never ends; `id` is None where it has not begun.
    """

    left: Amount


@answer_type
class CheckedWindow(BudgetWindow):
    """A window that a call would meet, with the model that its budget lets pass over the limit."""

    downgrade_to: str | None


BUDGET_COLUMNS: Final = tuple(BudgetLimit.__annotations__)
WINDOW_COLUMNS: Final = (*_StoredWindow.__annotations__, "left")


def all_budgets(store: Store) -> Budgets:
    """All budgets, by entity. What keeps quotas is told by `queries.plans`."""
    found = typed(Budgets, store.call("budgets_v1"))
    return {**found, "budgets": [row for row in found["budgets"] if not row.get("by_plan")]}


def belongs(row: Mapping[str, Any], organization: str | None) -> bool:
    """Whether a budget, window or alert is an organization's own; True where none is asked for."""
    return organization is None or organization in (
        row["organization_id"],
        row["entity_id"] if row["entity_type"] == "organization" else None,
    )


def windows(
    store: Store,
    *,
    entity: str | None = None,
    organization: str | None = None,
    ended: bool = False,
    quotas: bool = True,
    limit: int = 200,
) -> list[BudgetWindow]:
    """The windows that run, the fullest first: of an entity, or an organization's own; with `ended` also those that are over.

    Without `quotas` those of plans, and of budgets that end by themselves, are left out.
    """
    asked = {
        "entity": entity, "organization": organization, "running_only": not ended, "quotas": quotas, "max_rows": limit,
    }  # fmt: skip
    return [_with_left(row) for row in typed(list[_StoredWindow], store.call("budget_windows_v1", **asked))]


def fullest_windows(store: Store) -> dict[int, BudgetWindow]:
    """The window that is nearest to its limit, by budget."""
    fullest: dict[int, BudgetWindow] = {}
    for window in windows(store, limit=MOST_WINDOWS):
        fullest.setdefault(window["budget_id"], window)
    return fullest


def _with_left(row: _StoredWindow) -> BudgetWindow:
    left = row["limit_amount"] - row["spent"] - row["granted"]
    return {**row, "left": left}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call would meet: the strictest action of the budgets that it does not fit under, or None where it fits under all.

    `over` are the windows of enforced budgets that it does not fit under, the strictest first; `watched` those of budgets
    that only watch.
    """

    action: str | None
    over: Sequence[CheckedWindow]
    watched: Sequence[CheckedWindow]


@dataclass(frozen=True, slots=True)
class CallCheck:
    """The windows that a call would meet, what they say of it, their budgets by id, and the database's clock."""

    now: datetime
    windows: Sequence[CheckedWindow]
    verdict: Verdict
    budgets: Mapping[int, BudgetLimit]


def check_call(
    store: Store, entities: Mapping[str, str], *, cost: Decimal | None = None, tokens: Decimal | None = None
) -> CallCheck:
    """Which windows a call would meet, the one with the least left first, and whether it would pass. Holds nothing.

    `entities` are those of the call by the names of `core.entities.ENTITIES`, such as `{"user": "u-1", "model": "gpt-4o"}`;
    `cost` is in US dollars. What is not given is taken to fit.
    """
    state = all_budgets(store)
    by_id = {budget["id"]: budget for budget in state["budgets"]}
    met = typed(list[_StoredWindow], store.call("check_budget_v1", entities=json.dumps(dict(entities))))
    rows = []
    for row in met:
        budget = by_id.get(row["budget_id"])  # it may have been made since
        rows.append(CheckedWindow(**_with_left(row), downgrade_to=budget["downgrade_to"] if budget else None))
    return CallCheck(state["now"], rows, verdict(rows, cost, tokens, entities.get("model")), by_id)


def verdict(rows: Sequence[CheckedWindow], cost: Decimal | None, tokens: Decimal | None, model: str | None) -> Verdict:
    """Judge a call of this cost and so many tokens by the windows it meets; what is None is not known, and fits into any rest."""
    needs = {"cost_usd": cost, "tokens": tokens, "calls": Decimal(1)}
    full = [row for row in rows if not _fits(row["left"], needs[row["metric"]])]
    # A budget that downgrades lets calls of the model pass that it downgrades to.
    full = [row for row in full if row["action"] != "downgrade" or model is None or row["downgrade_to"] != model]
    strictest = sorted(full, key=lambda row: strictness(row["action"]), reverse=True)
    over = [row for row in strictest if row["enforce"]]
    return Verdict(over[0]["action"] if over else None, over, [row for row in strictest if not row["enforce"]])


def _fits(room: Decimal, need: Decimal | None) -> bool:
    return room > 0 if need is None else need == 0 or need <= room


def key_of(budget: BudgetLimit) -> dict[str, Any]:
    """What tells a stored budget from others: the columns of BUDGET_KEY, and its end where it has one."""
    row: Mapping[str, Any] = budget
    until = budget.get("until")
    return {name: row[name] for name in BUDGET_KEY} | ({"until": until.isoformat()} if until else {})


def find_budget(budgets: Iterable[BudgetLimit], key: Mapping[str, object]) -> BudgetLimit | None:
    """The budget of a key, `BUDGET_KEY` by name, where there is one; those that end by themselves stand beside it."""
    return next(
        (row for row in budgets if all(row.get(name) == key[name] for name in BUDGET_KEY) and not row.get("until")),
        None,
    )


def budget_of(store: Store, number: int) -> BudgetLimit | None:
    """The budget of that id; None where there is none that may be seen."""
    return next((row for row in all_budgets(store)["budgets"] if row["id"] == number), None)


def beside(budgets: Iterable[BudgetLimit], budget: BudgetLimit) -> list[BudgetLimit]:
    """The other budgets of the same organization, entity and metric: each acts at its own limit."""
    same = [name for name in BUDGET_KEY if name != "action"]
    return [
        row for row in budgets if row["id"] != budget["id"] and all(row.get(name) == budget.get(name) for name in same)
    ]


def set_budget(store: Store, columns: Mapping[str, object]) -> BudgetLimit:
    """Make a budget, or change the one of the same key (BUDGET_KEY) in the columns that are named; as it is stored now.

    Columns are those of BudgetLimit; amounts are text, so that none is rounded on its way. Raises StoreRejected for what the
    database does not take, such as an unknown time zone.
    """
    return typed(BudgetLimit, _allowed(store.call("set_budget_v1", budget=json.dumps(dict(columns)))))


def _allowed(answer: Any) -> Any:
    """The answer of a function that changes budgets; StoreRejected (42501) where it was refused, which the audit holds."""
    if isinstance(answer, dict) and "refused" in answer:
        raise StoreRejected("Only an admin of that organization changes its budgets.", sqlstate="42501")
    return answer


@answer_type
class LimitInForce(TypedDict):
    """A limit of a budget for one entity: what each of its kind has, and what is in force for it now.

    `until` is when the first of its exceptions ends, None where none does.
    """

    budget_id: int
    entity_id: str
    action: str
    timezone: str
    period: str
    limit_amount: Amount
    in_force: Amount
    until: FiniteTime


@answer_type
class BudgetOverride(TypedDict):
    """An exception: limits of one entity in place of those that each has, or `raise_by`, what is added to every limit of it."""

    id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str | None
    minute_limit: Amount | None
    daily_limit: Amount | None
    monthly_limit: Amount | None
    total_limit: Amount | None
    raise_by: Amount | None
    until: FiniteTime


def overrides(store: Store) -> list[BudgetOverride]:
    """The exceptions that count now or later."""
    return typed(list[BudgetOverride], store.call("budget_overrides_v1"))


def override_budget(store: Store, columns: Mapping[str, object]) -> list[LimitInForce]:
    """Give one entity other limits than each of its kind has (`*`); a limit of None takes that back. What is in force now."""
    return typed(list[LimitInForce], _allowed(store.call("override_budget_v1", override=json.dumps(dict(columns)))))


def raise_budget(store: Store, columns: Mapping[str, object]) -> list[LimitInForce]:
    """Add `raise_by` to every limit of one entity `until` a moment; without it end all raises. What is in force now."""
    return typed(list[LimitInForce], _allowed(store.call("raise_budget_v1", raise_=json.dumps(dict(columns)))))


def reached_first(budgets: Iterable[BudgetLimit], budget: BudgetLimit) -> list[BudgetLimit]:
    """The budgets of each of a kind (`*`) of which a limit is reached before that of a budget for one of them."""
    limits = ("minute_limit", "daily_limit", "monthly_limit", "total_limit")

    def smaller(one: BudgetLimit) -> bool:
        row: dict[str, Any] = dict(one)
        mine: dict[str, Any] = dict(budget)
        return any(row[name] is not None and mine[name] is not None and row[name] < mine[name] for name in limits)

    return [
        one
        for one in budgets
        if budget["entity_id"] != "*" == one["entity_id"]
        and (one["entity_type"], one["metric"]) == (budget["entity_type"], budget["metric"])
        and one["organization_id"] in (None, budget["organization_id"])
        and one["action"] != "alert"
        and one["enforce"]
        and smaller(one)
    ]


def remove_budget(store: Store, number: int) -> bool:
    """Remove a budget with its windows; its alerts stay. Whether there was one."""
    return bool(_allowed(store.call("remove_budget_v1", budget_id=number))["removed"])


@answer_type
class BudgetUse(TypedDict):
    """How far one limit of a budget (`period`: minute, day, month, total) was used in a time, over the windows that touch it.

    `met` windows reached the limit. `fullest_percent` is None where there are none: nothing was counted for it.
    """

    budget_id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    enforce: bool
    created_at: datetime
    period: str
    limit_amount: Amount
    windows: int
    met: int
    most_spent: Amount
    fullest_percent: Amount | None


def budget_use(store: Store, since: datetime, until: datetime, organization: str | None = None) -> list[BudgetUse]:
    """How far the limits of lasting budgets were used between two moments, of all or of an organization's own."""
    return typed(list[BudgetUse], store.call("budget_use_v1", since=since, until=until, organization=organization))


# Why calls were stopped


@answer_type
class BlockedBy(TypedDict, total=False):
    """What stopped a call, as it was at that moment: the budget's id, whose it is, its window, and what was in it.

    Amounts are in the budget's metric; `held` is what was set aside for other calls, `needed` what the call might have taken.
    `reason` stands in their place where the call was stopped for something else, such as a database that is away.
    """

    budget: int
    action: str
    entity_type: str
    entity_id: str
    organization_id: str
    metric: str
    period: str
    limit: Amount
    spent: Amount
    held: Amount
    needed: Amount
    ends_at: datetime
    downgrade_to: str
    retry_after: float
    reason: str


@answer_type
class BlockedCall(TypedDict):
    """A call that a budget stopped; and the budget, and its window that runs, as they are now, None where there is none."""

    id: str
    created_at: datetime
    organization_id: str | None
    user_id: str | None
    session_id: str | None
    provider: str | None
    model: str | None
    budget_action: str | None
    blocked_by: BlockedBy | None
    budget: BudgetLimit | None
    limit_amount: Amount | None
    spent: Amount | None
    granted: Amount | None
    ends_at: FiniteTime


@answer_type
class BlockedCalls(TypedDict):
    """Calls that budgets stopped, the newest first, and what the database's clock said when it was asked."""

    now: datetime
    calls: list[BlockedCall]


def blocked_calls(store: Store, whom: str | None = None, *, days: int = 30, limit: int = 10) -> BlockedCalls:
    """The last calls that budgets stopped: of a user, a session or whatever the budget is for, or the call of that id."""
    return typed(BlockedCalls, store.call("blocked_calls_v1", whom=whom, days=days, max_rows=limit))


def would_pass(call: BlockedCall) -> bool:
    """Whether a call that needs as much as this one fits into the window that runs now; True where none runs."""
    needed = (call["blocked_by"] or {}).get("needed")
    if call["limit_amount"] is None or call["spent"] is None or call["granted"] is None:
        return call["budget"] is None or needed is not None
    return needed is not None and _fits(call["limit_amount"] - call["spent"] - call["granted"], needed)


# Whether the sums are right


@answer_type
class AuditedWindow(TypedDict):
    """Which window an audit speaks of."""

    window_id: int | None
    entity_type: str
    entity_id: str
    period: str
    starts_at: datetime


@answer_type
class WindowDifference(AuditedWindow):
    """A window whose `spent` or `granted` (the `kind`) is not the sum of its calls or grants."""

    kind: str
    found: Decimal
    expected: Decimal


@answer_type
class Overshoot(AuditedWindow):
    """A window of a blocking budget that is over its limit, by how much, and what was spent in it past all grants, by cause.

    `beyond_hold`: calls cost more than was held for them; `unasked`: nothing had been set aside for calls; `late`: calls were
    recorded after the grants of their processes had lapsed; `before`: the rest, of before the limit was what it is.
    """

    metric: str
    limit_amount: Decimal
    spent: Decimal
    granted: Decimal
    overshoot: Decimal
    beyond_hold: Decimal
    unasked: Decimal
    late: Decimal
    before: Decimal


@answer_type
class BudgetAudit(TypedDict):
    """How many windows there are, which differ from their calls and grants, and which are over their limit."""

    windows: int
    differences: list[WindowDifference]
    overshoot: list[Overshoot]


def audit_budgets(store: Store) -> BudgetAudit:
    """Compare every window with its calls and grants, all at one moment."""
    return typed(BudgetAudit, store.call("audit_budgets_v1"))
