"""What advice about models has in common: which other model would do some work for less, and how good it is at it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from vital_tracking.advice.changes import SwitchModel, Where
from vital_tracking.advice.quality import Judgement, Quality, judge
from vital_tracking.advice.what_if import Effect
from vital_tracking.advice.window import Model, Window, Work
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.request_size import Size
from vital_tracking.queries.call_groups import CallGroup

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
        if is_worth(window, sum((group.cost for group in groups), ZERO)):
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
        change = SwitchModel(where=where_of(work, model, size), model=other.name, provider=other.provider)
        (effect,) = window.what_if(change, groups=groups).effects
        if is_worth(window, effect.saving.expected):
            found.append(Option(other, change, effect, judgement))
    return max(
        found, key=lambda option: (option.judgement.quality in good_enough, option.effect.saving.expected), default=None
    )
