"""smart_routing: short requests to a smaller model, longer ones to that of today.

Applies where at least a fifth of the calls of some work have prompts below 500 tokens (simple requests) and a model that is at
most one tier lower, or as good by outcomes, would answer these for less. Where nobody knows how good it is, that is said, and it
is no part of the total. Where a model is as good for all of the work, model_switch says so, and this kind stays silent about it.
Effort: high, since something must choose.
"""

from __future__ import annotations

from vital_tracking.advice.evidence import evidence_of
from vital_tracking.advice.kinds.switching import UNKNOWN_QUALITY, best_option, parts_of
from vital_tracking.advice.quality import Quality
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Window
from vital_tracking.core.request_size import SIZES, Size, size_of

LEAST_SHARE = 20
"""The percentage of calls that must be simple."""


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each part and model whose simple requests a smaller model would answer for less."""
    found = []
    for part in parts_of(window):
        simple = [group for group in part.groups if size_of(group.key.size) is Size.simple]
        calls, of_all = sum(group.calls for group in simple), sum(group.calls for group in part.groups)
        if 100 * calls < LEAST_SHARE * of_all:
            continue
        good_enough = {Quality.as_good, Quality.one_tier_lower}
        option = best_option(window, part, good_enough=good_enough, groups=simple, size=Size.simple)
        if option is None or option.judgement.quality is Quality.as_good:
            continue
        known = option.judgement.quality in good_enough
        found.append(
            Recommendation(
                kind=Kind.smart_routing,
                organization=window.organization,
                subject={**option.change.where.named, "to": option.model.name, "size": Size.simple},
                current=f"{part.model.name} answers all requests of {part.title}; {100 * calls // of_all} % of them are short.",
                recommended=f"Let {option.model.name} answer those below {SIZES[Size.simple]} tokens.",
                impact=option.judgement.reason,
                saving=option.effect.saving,
                calls=option.effect.calls,
                evidence=evidence_of(window, option.change),
                confidence=Level.medium if known else Level.low,
                effort=Level.high,
                risk="A short request need not be an easy one.",
                how_to_try="Route a tenth of the short requests for a week and compare outcomes."
                if known
                else UNKNOWN_QUALITY,
                assumptions=option.change.assumptions,
                counted=known,
                changes=(option.change,),
            )
        )
    if found:
        return found
    return NotApplicable(
        Kind.smart_routing,
        "No dear work has a fifth of short requests that a model one tier lower would answer for less.",
    )
