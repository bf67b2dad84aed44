"""model_consolidation: a model that is hardly used, whose work another one already does at no higher price.

Applies to a chat model with less than 5 % of the bill and at most 40 kinds of work, where in every work that it does another
model answers more calls already and would have cost no more for these. What takes over such work is none that could go as well.
Where nobody knows how good that is at it, this is said, and it is no part of the total: what is asked seldom may be asked what
is hard. Effort: low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from vital_tracking.advice.changes import SwitchModel
from vital_tracking.advice.evidence import evidence_where
from vital_tracking.advice.kinds.switching import where_of, where_of_model
from vital_tracking.advice.quality import Quality, judge
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.what_if import FIXED, UNPRICED
from vital_tracking.advice.window import Model, Window, Work
from vital_tracking.core.cost import MONEY, exact_sum

MOST_PERCENT = Decimal(5)
"""A model with less of the bill than this is hardly used."""

MOST_WORKS = 40
"""One that does more kinds of work than this is used everywhere."""

_TRIED = 8
"""So many models that do the same work more often are tried, the one that does it most first."""


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model that could go."""
    works: dict[Model, list[Work]] = {}
    calls: dict[Work, dict[Model, int]] = {}
    for (work, model), groups in window.by_work.items():
        works.setdefault(model, []).append(work)
        calls.setdefault(work, {})[model] = sum(group.calls for group in groups)
    if len(works) < 2:
        return NotApplicable(Kind.model_consolidation, "Only one chat model is used.")
    found: list[Recommendation] = []
    going, staying = set[Model](), set[Model]()
    for model, its_works in works.items():
        groups = [group for work in its_works for group in window.by_work[work, model]]
        spent = exact_sum(group.cost for group in groups)
        if (
            spent <= 0
            or MONEY.multiply(spent, 100) >= MONEY.multiply(window.bill, MOST_PERCENT)
            or len(its_works) > MOST_WORKS
            or model in staying
        ):
            continue
        stay = {
            work: {other: number for other, number in calls[work].items() if other not in going} for work in its_works
        }
        switches = _switches(window, model, its_works, stay)
        if switches is None:
            continue
        done = window.what_if(*switches, groups=groups)
        if done.saving.expected < 0 or not any(effect.calls for effect in done.effects):
            continue
        if any(reason not in (FIXED, UNPRICED) for effect in done.effects for reason in effect.left_out):
            continue  # there are calls that nothing else could have answered
        known = all(_is_as_good(window, model, change) for change in switches)
        share = MONEY.divide(100 * spent, window.bill)
        others = sorted({change.model for change in switches})
        going.add(model)
        staying |= {Model(change.provider, change.model) for change in switches}
        found.append(
            Recommendation(
                kind=Kind.model_consolidation,
                organization=window.organization,
                subject={"provider": model.provider, "model": model.name},
                current=f"{model.name} ({share:.1f} % of the bill) does what {' and '.join(others)} does, too.",
                recommended=f"Do without {model.name}.",
                impact="One model fewer to test, watch and pay for."
                if known
                else f"One model fewer to test, watch and pay for. Unknown quality: nobody has said or recorded whether "
                f"{' and '.join(others)} does it as well.",
                saving=done.saving,
                calls=sum(effect.calls for effect in done.effects),
                evidence=evidence_where(window, where_of_model(window, model)),
                confidence=Level.medium if known else Level.low,
                effort=Level.low,
                risk="Whoever chose it may have had a reason that the figures do not show.",
                how_to_try=f"Ask who uses it, then name {' or '.join(others)} instead.",
                assumptions=switches[0].assumptions,
                counted=known,
                changes=tuple(switches),
            )
        )
    return found or NotApplicable(
        Kind.model_consolidation,
        "No model with less than 5 % of the bill does only what another one already does, more often and at no higher price.",
    )


def _is_as_good(window: Window, model: Model, change: SwitchModel) -> bool:
    other = Model(change.provider, change.model)
    return judge(window, {change.where.agent}, model, other).quality is Quality.as_good


def _switches(
    window: Window, model: Model, works: Sequence[Work], calls: Mapping[Work, Mapping[Model, int]]
) -> list[SwitchModel] | None:
    """What lets other models do all of its work; None where some would be left."""
    switches = []
    for work in works:
        if (change := _other(window, work, model, calls[work])) is None:
            return None
        switches.append(change)
    return switches


def _other(window: Window, work: Work, model: Model, calls: Mapping[Model, int]) -> SwitchModel | None:
    """The model that answers most calls of the same work, where it is not known to be worse and costs no more."""
    others = sorted(
        (other for other in calls if other != model and calls[other] > calls[model]),
        key=lambda other: -calls[other],
    )[:_TRIED]
    for other in others:
        if judge(window, {work.agent}, model, other).quality in (Quality.worse, Quality.one_tier_lower):
            continue
        change = SwitchModel(where=where_of(window, work, model), model=other.name, provider=other.provider)
        effect = window.what_if(change, groups=window.by_work[work, model]).effects[0]
        if effect.calls and effect.saving.expected >= 0:
            return change
    return None
