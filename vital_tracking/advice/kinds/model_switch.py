"""model_switch: another model for some work, as good by what the team knows, for less money.

Applies to the work (agent, or step of a workflow) and model on which at least half a percent of the bill is spent, where a model
that the team uses or gave a tier would have cost less and is as good: by outcomes of the same agent, else by tiers. Where
nobody knows how good it is, that is said, the confidence is low, and it is no part of the total. Effort: medium, since answers
change and must be looked at.
"""

from __future__ import annotations

from vital_tracking.advice.kinds.switching import UNKNOWN_QUALITY, best_option, config_hint, dear_work
from vital_tracking.advice.quality import Quality
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Window


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each work and model that another model would do for less."""
    found = []
    for work, model, groups in dear_work(window):
        option = best_option(window, work, model, groups, good_enough={Quality.as_good})
        if option is None:
            continue
        known = option.judgement.quality is Quality.as_good
        found.append(
            Recommendation(
                kind=Kind.model_switch,
                organization=window.organization,
                subject={**option.change.where.named, "to": option.model.name},
                current=f"{model.name} does the work of {work.title}.",
                recommended=f"Let {option.model.name} do it.",
                impact=option.judgement.reason,
                saving=option.effect.saving,
                calls=option.effect.calls,
                evidence=option.change.where.named,
                confidence=option.judgement.confidence,
                effort=Level.medium,
                risk="Answers differ: other lengths, other formats, tools called otherwise. Prompts may need to be adapted.",
                how_to_try="Run both for a week on a part of the traffic and compare outcomes."
                if known
                else UNKNOWN_QUALITY,
                command=config_hint(work, option.model),
                assumptions=option.change.assumptions,
                counted=known,
                changes=(option.change,),
            )
        )
    if found:
        return found
    if len(window.chat_models) < 2:
        return NotApplicable(
            Kind.model_switch, "Only one chat model is known: use another one, or give it a tier, to compare them."
        )
    return NotApplicable(
        Kind.model_switch,
        "No model that is used, or has a tier, would do any of the dear work for less and is not known to be worse.",
    )
