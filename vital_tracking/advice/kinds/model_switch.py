"""model_switch: another model for some work, as good by what the team knows, for less money.

Applies to the work (agent, or step of a workflow) and model on which at least half a percent of the bill is spent, where a model
that the team uses or gave a tier would have cost less and is as good: by outcomes of the same agent, else by tiers. Where
nobody knows how good another model is, there is one recommendation for all work of a model together: it says so, its confidence
is low, and it is no part of the total. Effort: medium, since answers change and must be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vital_tracking.advice.kinds.switching import UNKNOWN_QUALITY, Option, best_option, dear_work
from vital_tracking.advice.quality import Quality
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Model, Window, Work

_NAMED: Final = 4


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each work and model that another model would do for less."""
    found: list[Recommendation] = []
    unknown: dict[tuple[Model, Model], list[tuple[Work, Option]]] = {}
    for work, model, groups in dear_work(window):
        option = best_option(window, work, model, groups, good_enough={Quality.as_good})
        if option is None:
            continue
        if option.judgement.quality is Quality.as_good:
            found.append(_as_good(window, work, model, option))
        else:
            unknown.setdefault((model, option.model), []).append((work, option))
    found += [_unknown(window, model, other, options) for (model, other), options in unknown.items()]
    if found:
        return found
    if len(window.chat_models) < 2:
        return NotApplicable(Kind.model_switch, "Only one chat model is known: use another one, or give one a tier.")
    return NotApplicable(
        Kind.model_switch,
        "No model that is used, or has a tier, would do any of the dear work for less and is not known to be worse.",
    )


_RISK: Final = "Answers differ: other lengths, other formats, tools called otherwise. Prompts may need to be adapted."


def _as_good(window: Window, work: Work, model: Model, option: Option) -> Recommendation:
    return Recommendation(
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
        risk=_RISK,
        how_to_try="Let it answer a part of the traffic for a week and compare outcomes.",
        assumptions=option.change.assumptions,
        changes=(option.change,),
    )


def _unknown(window: Window, model: Model, other: Model, options: Sequence[tuple[Work, Option]]) -> Recommendation:
    changes = [option.change for _, option in options]
    done = window.what_if(*changes, groups=[group for work, _ in options for group in window.by_work[work, model]])
    works = list(dict.fromkeys(work.title for work, _ in options))
    named = ", ".join(works[:_NAMED]) + (f" and {len(works) - _NAMED} more" if len(works) > _NAMED else "")
    return Recommendation(
        kind=Kind.model_switch,
        organization=window.organization,
        subject={"provider": model.provider, "model": model.name, "to": other.name},
        current=f"{model.name} does the work of {named}.",
        recommended=f"Find out whether {other.name} does it as well.",
        impact=options[0][1].judgement.reason,
        saving=done.saving,
        calls=sum(effect.calls for effect in done.effects),
        evidence={"provider": model.provider, "model": model.name},
        confidence=Level.low,
        effort=Level.medium,
        risk=_RISK,
        how_to_try=UNKNOWN_QUALITY,
        assumptions=changes[0].assumptions,
        counted=False,
        changes=tuple(changes),
    )
