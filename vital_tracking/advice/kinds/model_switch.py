"""model_switch: another model for some work, as good by what the team knows, for less money.

Applies to the work (agent, or step of a workflow) and model on which at least half a percent of the bill is spent, and to what is
left of a model together, where a model that the team uses or gave a tier would have cost less and is as good: by outcomes of the
same agents, else by tiers. Where nobody knows how good another model is, there is one recommendation for all such work of a model
together: it says so, its confidence is low, and it is no part of the total. Effort: medium, since answers change and must be
looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vital_tracking.advice.changes import SwitchModel
from vital_tracking.advice.evidence import evidence_of
from vital_tracking.advice.kinds.switching import (
    UNKNOWN_QUALITY,
    WORTH_PERCENT,
    Option,
    Part,
    best_option,
    measured_factors,
    parts_of,
    where_of_model,
)
from vital_tracking.advice.quality import Quality
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Model, Window

_NAMED: Final = 4

_RISK: Final = "Answers differ: other lengths, other formats, tools called otherwise. Prompts may need to be adapted."


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each part and model that another model would do for less."""
    parts = parts_of(window)
    found: list[Recommendation] = []
    known: dict[Model, list[Part]] = {}
    unknown: dict[Model, list[tuple[Part, Option]]] = {}
    for part in parts:
        option = best_option(window, part, good_enough={Quality.as_good}, groups=part.groups)
        if option is not None and option.judgement.quality is Quality.unknown:
            unknown.setdefault(part.model, []).append((part, option))
            continue
        known.setdefault(part.model, []).append(part)
        if option is not None:
            found.append(_as_good(window, part, option))
    for model, options in unknown.items():
        found += _unknown(window, model, options, known.get(model, ()))
    if found:
        return found
    if len(window.chat_models) < 2:
        return NotApplicable(Kind.model_switch, "Only one chat model is known: use another one, or give one a tier.")
    if window.bill > 0 and not parts:
        return NotApplicable(
            Kind.model_switch,
            f"No model has {WORTH_PERCENT} % of the bill. What another one would have cost for all of them: "
            "vital-tracking what-if --switch",
        )
    return NotApplicable(
        Kind.model_switch,
        "No model that is used, or has a tier, would do any of the dear work for less and is not known to be worse.",
    )


def _as_good(window: Window, part: Part, option: Option) -> Recommendation:
    return Recommendation(
        kind=Kind.model_switch,
        organization=window.organization,
        subject={**option.change.where.named, "to": option.model.name},
        current=f"{part.model.name} does the work of {part.title}.",
        recommended=f"Let {option.model.name} do it.",
        impact=option.judgement.reason,
        saving=option.effect.saving,
        calls=option.effect.calls,
        evidence=evidence_of(window, option.change),
        confidence=option.judgement.confidence,
        effort=Level.medium,
        risk=_RISK,
        how_to_try="Let it answer a part of the traffic for a week and compare outcomes.",
        assumptions=option.change.assumptions,
        changes=(option.change,),
    )


def _unknown(
    window: Window, model: Model, options: Sequence[tuple[Part, Option]], known: Sequence[Part]
) -> Iterator[Recommendation]:
    """Work of a model of which nobody knows how good others are at it: together, where one would do all of it."""
    others = {option.model for _, option in options}
    if len(others) > 1 or any(len(part.works) > 1 for part in known):
        for part, option in options:
            yield _find_out(window, [part], option, option.change)
        return
    where = where_of_model(window, model, [part.works[0] for part in known])
    agents = {agent for part, _ in options for agent in part.agents}
    option = options[0][1]
    tokens, answers = measured_factors(window, agents, model, option.model)
    change = SwitchModel(
        where=where, model=option.model.name, provider=option.model.provider, tokens=tokens, answers=answers
    )
    yield _find_out(window, [part for part, _ in options], option, change)


def _find_out(window: Window, parts: Sequence[Part], option: Option, change: SwitchModel) -> Recommendation:
    groups = [group for (_, model), its in window.by_work.items() if model == parts[0].model for group in its]
    (effect,) = window.what_if(change, groups=groups).effects
    works = list(dict.fromkeys(part.title for part in parts))
    named = ", ".join(works[:_NAMED]) + (f" and {len(works) - _NAMED} more" if len(works) > _NAMED else "")
    return Recommendation(
        kind=Kind.model_switch,
        organization=window.organization,
        subject={**change.where.named, "to": option.model.name},
        current=f"{parts[0].model.name} does the work of {named}.",
        recommended=f"Find out whether {option.model.name} does it as well.",
        impact=option.judgement.reason,
        saving=effect.saving,
        calls=effect.calls,
        evidence=evidence_of(window, change),
        confidence=Level.low,
        effort=Level.medium,
        risk=_RISK,
        how_to_try=UNKNOWN_QUALITY,
        assumptions=change.assumptions,
        counted=False,
        changes=(change,),
    )
