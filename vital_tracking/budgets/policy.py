"""Budgets as the database keeps them, which of them a call meets, and the errors by which they stop it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, NamedTuple

from vital_tracking.core.context import SERVICE_TYPES, CallContext
from vital_tracking.core.entities import ENTITY_FIELDS, ENTITY_TYPES, METRICS, strictness
from vital_tracking.core.sanitize import clean_text
from vital_tracking.errors import BudgetExceeded, BudgetThrottled, BudgetUnavailable, Stop


class Budget(NamedTuple):
    """One row of `budget_limits`, as far as admission needs it. `metric` is a position in METRICS.

    `by_plan`: it keeps quotas. Who has one the database knows, and answers without a window for whom has none.
    """

    id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: int
    action: str
    enforce: bool
    strict: bool
    deny_when_unavailable: bool
    downgrade_to: str | None
    by_plan: bool = False

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Budget:
        """A budget from a row of `budgets_v1`; KeyError or ValueError where it is not one."""
        return cls(
            id=int(row["id"]),
            organization_id=row["organization_id"],
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            metric=METRICS.index(row["metric"]),
            action=row["action"],
            enforce=row["enforce"],
            strict=row["strict"],
            deny_when_unavailable=row["when_unavailable"] == "deny",
            downgrade_to=row["downgrade_to"],
            by_plan=row.get("by_plan", False),
        )

    @property
    def note(self) -> str:
        """What a row says of a call that this budget would have stopped, were it enforced."""
        return f"shadow_{self.action}"


class Policy:
    """All budgets that can stop, slow or change a call; the database alone sees to those that only alert."""

    def __init__(self, version: str = "", budgets: Iterable[Budget] = ()) -> None:
        self.version = version
        self.budgets = tuple(budget for budget in budgets if budget.action != "alert")
        self._by_entity: dict[tuple[str, str], list[Budget]] = {}
        for budget in self.budgets:
            self._by_entity.setdefault((budget.entity_type, budget.entity_id), []).append(budget)
        self._types = tuple(kind for kind in ENTITY_TYPES if any(b.entity_type == kind for b in self.budgets))
        deciding = [ENTITY_FIELDS[kind] for kind in self._types if kind != "model"]
        # The fields that decide which budgets a call meets, and whose calls its size is estimated by: of two calls that agree in
        # them both are the same.
        self.key_of: Callable[[CallContext], tuple[Any, ...]] = attrgetter(
            *dict.fromkeys(["organization_id", "agent_id", *deciding])
        )

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Policy:
        """The budgets from the JSON of `budgets_v1`."""
        return cls(answer["version"], [Budget.from_row(row) for row in answer["budgets"]])

    def matching(self, context: CallContext, model: str | None) -> list[tuple[Budget, str]]:
        """The budgets that a call meets, the strictest first, each with the id of its entity."""
        found: list[tuple[Budget, str]] = []
        organization = clean_text(context.organization_id)
        for kind in self._types:
            named = model if kind == "model" else getattr(context, ENTITY_FIELDS[kind])
            entity = clean_text(named)  # as it stands in the row, by which the database counts
            if entity is None or (kind == "service" and entity not in SERVICE_TYPES):
                continue
            for name in dict.fromkeys((entity, "*")):
                found += [
                    (budget, entity)
                    for budget in self._by_entity.get((kind, name), ())
                    if budget.organization_id is None or budget.organization_id == organization
                ]
        return sorted(found, key=lambda one: strictness(one[0].action), reverse=True)


def refusal(
    windows: Sequence[Mapping[str, Any]],
    budgets: Mapping[int, Budget],
    needed: Sequence[Decimal],
    retry_after: float | None,
) -> BudgetExceeded:
    """The error for a call that the database refused: that of the strictest of the windows that stop it.

    `windows` are those of the answer of `acquire_grants_v1`; `needed` is what the call needs, by metric.
    """
    over = [window for window in windows if window["over"] and window["budget"] in budgets]
    binding = [
        window
        for window in over
        if window.get("stops") or (budgets[window["budget"]].enforce and budgets[window["budget"]].action == "throttle")
    ]
    # A budget may have been changed a moment ago, so that by what this process knows none stops the call: then any that is over.
    chosen = max(binding or over, key=lambda window: strictness(budgets[window["budget"]].action))
    budget = budgets[chosen["budget"]]
    throttled = budget.action == "throttle"
    stop = Stop(
        action=budget.action,
        entity_type=budget.entity_type,
        entity_id=chosen["entity"],
        metric=METRICS[budget.metric],
        period=chosen["period"],
        budget_id=budget.id,
        organization_id=budget.organization_id,
        limit=Decimal(chosen["limit"]),
        spent=Decimal(chosen["spent"]),
        granted=Decimal(chosen["granted"]),
        needed=needed[budget.metric],
        ends_at=datetime.fromisoformat(chosen["ends_at"]) if chosen["ends_at"] else None,
        downgrade_to=budget.downgrade_to,
        retry_after=retry_after if throttled else None,
    )
    return (BudgetThrottled if throttled else BudgetExceeded)(stop)


def answer_unlimited(budget: Budget, entity: str) -> BudgetExceeded:
    """The error for a call under a strict budget whose answer has no limit, so that its cost has none."""
    reason = "it is strict, and nothing limits the answer. Set max_tokens on the model, or use tracker.guard(model)."
    return BudgetExceeded(_stop_by(budget, entity, reason))


OUR_FAULT: Final = "the check failed by a fault of vital_tracking's own"
"""Why a call could not be checked, where nothing else is to blame."""


def no_answer(deadline_s: float) -> str:
    """Why a call could not be checked, where the database gave no answer in time."""
    return f"the database is away or did not answer within {deadline_s:g} s"


def not_checked(budget: Budget, entity: str, why: str) -> BudgetUnavailable:
    """The error for a call under a budget that denies what it cannot check, and `why` it could not be checked."""
    return BudgetUnavailable(_stop_by(budget, entity, f"{why}, and the budget denies what it cannot check."))


def policy_unknown(why: str) -> BudgetUnavailable:
    """The error for a call before the budgets are known, where VITAL_WHEN_UNAVAILABLE is deny."""
    reason = f"the budgets are not known, since {why}, and VITAL_WHEN_UNAVAILABLE is deny."
    return BudgetUnavailable(Stop(action="block", entity_type="organization", entity_id="*", reason=reason))


def _stop_by(budget: Budget, entity: str, reason: str) -> Stop:
    return Stop(
        action=budget.action,
        entity_type=budget.entity_type,
        entity_id=entity,
        metric=METRICS[budget.metric],
        budget_id=budget.id,
        reason=reason,
    )
