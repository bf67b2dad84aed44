"""All advice about some days: every kind that applies, why the others do not, and what is saved where all of it is taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from vital_tracking.advice.kinds import (
    auto_scaling,
    batch_processing,
    billing_model,
    caching,
    job_scheduling,
    model_consolidation,
    model_switch,
    peak_shifting,
    plan_optimization,
    plan_upgrade,
    resource_optimization,
    semantic_caching,
    smart_routing,
)
from vital_tracking.advice.machine_evidence import MachineEvidence, read_machine_evidence
from vital_tracking.advice.plan_evidence import PlanEvidence, read_plan_evidence
from vital_tracking.advice.recommendation import NOTHING, Kind, NotApplicable, Recommendation, Saving
from vital_tracking.advice.window import TTL, Window, days_of, read_window, so_far
from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.explore import Period
from vital_tracking.stores import Store

DAYS: Final = 30
"""How many days advice looks at, unless it is said."""

MOST: Final = 500
"""So many recommendations are given at once, those with most in them."""

_Found = list[Recommendation] | NotApplicable

OF_CALLS: Final[Mapping[Kind, Callable[[Window], _Found]]] = {
    Kind.model_switch: model_switch.advise,
    Kind.smart_routing: smart_routing.advise,
    Kind.caching: caching.advise,
    Kind.semantic_caching: semantic_caching.advise,
    Kind.model_consolidation: model_consolidation.advise,
    Kind.batch_processing: batch_processing.advise,
    Kind.job_scheduling: job_scheduling.advise,
    Kind.peak_shifting: peak_shifting.advise,
}

OF_PLANS: Final[Mapping[Kind, Callable[[PlanEvidence], _Found]]] = {
    Kind.plan_upgrade: plan_upgrade.advise,
    Kind.plan_optimization: plan_optimization.advise,
    Kind.billing_model: billing_model.advise,
}

OF_MACHINES: Final[Mapping[Kind, Callable[[MachineEvidence], _Found]]] = {
    Kind.resource_optimization: resource_optimization.advise,
    Kind.auto_scaling: auto_scaling.advise,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The advice about a period.

    `recommendations` come with the greatest expected saving first; `sequential` has, for each of them, what it adds where those
    before it are taken, too, and is nothing for those that are not counted. `total` is the sum: each call repriced once through
    all of them. Savings are those of the period; `bill` is what its calls cost.
    """

    period: Period
    organization: str | None
    bill: Decimal
    recommendations: Sequence[Recommendation]
    sequential: Sequence[Saving]
    total: Saving
    not_applicable: Sequence[NotApplicable]
    notes: Sequence[str]

    @property
    def days(self) -> Decimal:
        """How many days the period has."""
        return days_of(self.period)


def generate_recommendations(
    store: Store,
    days: int = DAYS,
    *,
    organization: str | None = None,
    timezone: str = "UTC",
    now: datetime | None = None,
    prices: PriceBook | None = None,
    dismissed: Collection[str] = (),
    progress: Callable[[float], None] = lambda _share: None,
) -> Advice:
    """The advice about the last `days` days, today included, of an organization or all that the asker may see.

    `prices` are the store's own over the list, where none are given. What is `dismissed`, by id, is no part of the total.
    `progress` is told the share of the calls that has been read. Raises StoreError.
    """
    moment = now or datetime.now(UTC)
    period = so_far(Period.last_days(days, timezone=timezone, now=moment), moment)
    return advice_of(
        read_window(store, period, organization=organization, ttl=TTL, prices=prices, progress=progress),
        read_plan_evidence(store, period, organization, now=moment),
        read_machine_evidence(store, period, organization),
        dismissed,
    )


def advice_of(
    window: Window, plans: PlanEvidence, machines: MachineEvidence, dismissed: Collection[str] = ()
) -> Advice:
    """The advice that such evidence gives; what is `dismissed`, by id, takes nothing from the others."""
    answers = [
        *(advise(window) for advise in OF_CALLS.values()),
        *(advise(plans) for advise in OF_PLANS.values()),
        *(advise(machines) for advise in OF_MACHINES.values()),
    ]
    given = [one for answer in answers if not isinstance(answer, NotApplicable) for one in answer]
    given.sort(key=lambda one: (-one.saving.expected, -one.saving.high, -(one.revenue or 0), one.kind, one.id))
    left_out = len(given[MOST:])
    del given[MOST:]
    sequential = in_sequence(window, given, dismissed)
    total = NOTHING
    for saving in sequential:
        total = total.plus(saving)
    return Advice(
        period=window.period,
        organization=window.organization,
        bill=window.bill,
        recommendations=given,
        sequential=sequential,
        total=total,
        not_applicable=[answer for answer in answers if isinstance(answer, NotApplicable)],
        notes=_notes(window, left_out),
    )


def in_sequence(window: Window, given: Sequence[Recommendation], dismissed: Collection[str] = ()) -> list[Saving]:
    """What each recommendation adds where those before it are taken; those of machines stand beside the bill of calls."""
    counted = [one for one in given if one.counted and one.id not in dismissed]
    effects = iter(window.what_if(*(change for one in counted for change in one.changes)).effects)
    added = {}
    for one in counted:
        found = NOTHING if one.changes else one.saving
        for _ in one.changes:
            found = found.plus(next(effects).saving)
        added[one.id] = found
    return [added.get(one.id, NOTHING) for one in given]


def _notes(window: Window, left_out: int) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"{left_out:,} more recommendations with less in them are left out.")
    if not window.groups:
        notes.append("No calls were billed in this time: there is nothing to reprice.")
    unpriced = sum(group.calls for group in window.groups if not group.key.priced)
    if unpriced:
        notes.append(f"{unpriced:,} calls have no known price and are in no figure: vital-tracking prices check")
    estimated = sum(group.estimated_calls for group in window.groups)
    if estimated:
        notes.append(f"The tokens of {estimated:,} calls were estimated, since nobody reported them.")
    if window.days < 7:
        notes.append(f"Only {window.days:.1f} days were looked at: a week says more.")
    return notes
