"""model_consolidation: a model that is hardly used, whose work another one already does at no higher price.

Applies to a chat model with less than 5 % of the bill, where in every work that it does another model answers more calls already
and would have cost no more for these. Effort: low.
"""

from __future__ import annotations

from decimal import Decimal

from vital_tracking.advice.changes import SwitchModel
from vital_tracking.advice.kinds.switching import where_of
from vital_tracking.advice.quality import Quality, judge
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Model, Window, Work
from vital_tracking.core.cost import MONEY, ZERO

MOST_PERCENT = Decimal(5)
"""A model with less of the bill than this is hardly used."""


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model that could go."""
    works: dict[Model, list[Work]] = {}
    calls: dict[tuple[Work, Model], int] = {}
    for (work, model), groups in window.by_work.items():
        works.setdefault(model, []).append(work)
        calls[work, model] = sum(group.calls for group in groups)
    if len(works) < 2:
        return NotApplicable(Kind.model_consolidation, "Only one chat model is used.")
    found = []
    for model, its_works in works.items():
        spent = sum((group.cost for work in its_works for group in window.by_work[work, model]), ZERO)
        if spent <= 0 or MONEY.multiply(spent, 100) >= MONEY.multiply(window.bill, MOST_PERCENT):
            continue
        changes = [_other(window, work, model, calls) for work in its_works]
        if any(change is None for change in changes):
            continue
        switches = [change for change in changes if change is not None]
        done = window.what_if(*switches, groups=[group for work in its_works for group in window.by_work[work, model]])
        if done.saving.expected < 0 or not any(effect.calls for effect in done.effects):
            continue
        share = MONEY.divide(100 * spent, window.bill)
        others = sorted({change.model for change in switches})
        found.append(
            Recommendation(
                kind=Kind.model_consolidation,
                organization=window.organization,
                subject={"provider": model.provider, "model": model.name},
                current=f"{model.name} ({share:.1f} % of the bill) does what {' and '.join(others)} does, too.",
                recommended=f"Do without {model.name}.",
                impact="One model fewer to test, watch and pay for.",
                saving=done.saving,
                calls=sum(effect.calls for effect in done.effects),
                evidence={"provider": model.provider, "model": model.name},
                confidence=Level.medium,
                effort=Level.low,
                risk="Whoever chose it may have had a reason that the figures do not show.",
                how_to_try=f"Ask who uses it, then name {' or '.join(others)} instead.",
                assumptions=switches[0].assumptions,
                changes=tuple(switches),
            )
        )
    return found or NotApplicable(
        Kind.model_consolidation,
        "No model with less than 5 % of the bill does only what another one already does, more often and at no higher price.",
    )


def _other(window: Window, work: Work, model: Model, calls: dict[tuple[Work, Model], int]) -> SwitchModel | None:
    """The model that answers most calls of the same work, where it is not known to be worse and costs no more."""
    others = sorted(
        (other for same, other in calls if same == work and other != model and calls[work, other] > calls[work, model]),
        key=lambda other: -calls[work, other],
    )
    for other in others:
        if judge(window, work.agent, model, other).quality in (Quality.worse, Quality.one_tier_lower):
            continue
        change = SwitchModel(where=where_of(work, model), model=other.name, provider=other.provider)
        effect = window.what_if(change, groups=window.by_work[work, model]).effects[0]
        if effect.calls and effect.saving.expected >= 0:
            return change
    return None
