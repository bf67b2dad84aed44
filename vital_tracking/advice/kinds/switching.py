"""What advice about models has in common: which other model would do some work for less, and how good it is at it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from vital_tracking.advice.changes import Factors, SwitchModel, Where
from vital_tracking.advice.quality import ENOUGH, Judgement, Quality, judge
from vital_tracking.advice.what_if import Effect
from vital_tracking.advice.window import Model, Window, Work
from vital_tracking.core.cost import MONEY, exact_sum
from vital_tracking.core.request_size import Size
from vital_tracking.queries.call_groups import CallGroup
from vital_tracking.queries.shadow import answer_ratio, prompt_ratio

WORTH_PERCENT: Final = Decimal("0.5")
"""Advice about less than this percentage of the bill is not given."""

_MOST_WORK: Final = 40

UNKNOWN_QUALITY: Final = (
    "Find out with a shadow run: guard(model, shadow=other, share=0.02) asks both for two of a hundred requests and shows the "
    "answer of the first; or give both models a tier: vital-tracking prices tier MODEL 1..3."
)


@dataclass(frozen=True, slots=True)
class Option:
    """Another model for some work: what it would save there, and how good it is."""

    model: Model
    change: SwitchModel
    effect: Effect
    judgement: Judgement


def dear_work(window: Window) -> Iterator[tuple[Work, Model, Sequence[CallGroup]]]:
    """The work on which much is spent, by model, the dearest first."""
    for (work, model), groups in list(window.by_work.items())[:_MOST_WORK]:
        if is_worth(window, exact_sum(group.cost for group in groups)):
            yield work, model, groups


def is_worth(window: Window, amount: Decimal) -> bool:
    """Whether an amount of the window's money is worth advice."""
    return amount > 0 and MONEY.multiply(amount, 100) >= MONEY.multiply(WORTH_PERCENT, window.bill)


def where_of(work: Work, model: Model, size: Size | None = None) -> Where:
    """The calls of some work to one model."""
    return Where(
        provider=model.provider,
        model=model.name,
        service=work.service,
        agent=work.agent,
        workflow=work.workflow,
        step=work.step,
        size=size,
    )


def measured_factors(window: Window, work: Work, model: Model, other: Model) -> tuple[Factors | None, Factors | None]:
    """How many tokens the other model makes of the work's prompts, and how long it answers, by shadow runs; None: not known."""
    for pairs in window.shadows:
        of_them = (pairs["model"], pairs["shadow_model"], pairs["agent_id"]) == (model.name, other.name, work.agent)
        if of_them and pairs["measured_pairs"] >= ENOUGH:
            source = f"as measured by {pairs['measured_pairs']:,} shadow runs, give or take a tenth"
            return _about(prompt_ratio(pairs), source), _about(answer_ratio(pairs), source)
    return None, None


def _about(ratio: Decimal | None, source: str) -> Factors | None:
    if not ratio:
        return None
    return Factors(MONEY.multiply(ratio, Decimal("0.9")), ratio, MONEY.multiply(ratio, Decimal("1.1")), source)


def best_option(
    window: Window,
    work: Work,
    model: Model,
    groups: Sequence[CallGroup],
    *,
    good_enough: Collection[Quality],
    size: Size | None = None,
) -> Option | None:
    """The model that saves most of those that are good enough; where none is known to be, of those of unknown quality."""
    found: list[Option] = []
    for other in window.chat_models:
        if other == model:
            continue
        judgement = judge(window, work.agent, model, other)
        if judgement.quality not in good_enough and judgement.quality is not Quality.unknown:
            continue
        tokens, answers = measured_factors(window, work, model, other)
        if answers is None and other in window.reasoning_models and model not in window.reasoning_models:
            continue  # what it thinks before it answers is paid for, and nobody knows how much that would be
        change = SwitchModel(
            where=where_of(work, model, size), model=other.name, provider=other.provider, tokens=tokens, answers=answers
        )
        (effect,) = window.what_if(change, groups=groups).effects
        if is_worth(window, effect.saving.expected):
            found.append(Option(other, change, effect, judgement))
    return max(
        found, key=lambda option: (option.judgement.quality in good_enough, option.effect.saving.expected), default=None
    )
