"""What advice about models has in common: which other model would do some work for less, and how good it is at it.

Work (an agent, or a step of a workflow) is looked at by itself where its calls to a model are worth advice, the dearest forty.
What is left of a model is looked at together, so that thousands of small agents count as what they are: a part of the bill.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from vital_tracking.advice.changes import EVERYWHERE, Factors, SwitchModel, Where
from vital_tracking.advice.quality import ENOUGH, Judgement, Quality, judge
from vital_tracking.advice.what_if import Effect, merged
from vital_tracking.advice.window import Model, Window, Work
from vital_tracking.core.cost import MONEY, exact_sum
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.request_size import Size
from vital_tracking.core.usage import TOKEN_FIELDS, TokenUsage
from vital_tracking.queries.call_groups import CallGroup
from vital_tracking.queries.explore import ANY
from vital_tracking.queries.shadow import ShadowPairs, answer_ratio, prompt_ratio

WORTH_PERCENT: Final = Decimal("0.5")
"""Advice about less than this percentage of the bill is not given."""

_MOST_WORK: Final = 40

_TRIED: Final = 8
"""So many models, the cheapest first, are tried for a part: of those that are good enough, and of those of unknown quality."""

UNKNOWN_QUALITY: Final = (
    "Find out with a shadow run: guard(model, shadow=other, share=0.02) asks both for two of a hundred requests and shows the "
    "answer of the first; or give both models a tier: vital-tracking prices tier MODEL 1..3."
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what a model is called for: one work, or all `works` that are too small to be looked at by themselves."""

    model: Model
    works: Sequence[Work]
    where: Where
    groups: Sequence[CallGroup]

    @property
    def agents(self) -> Collection[str | None]:
        """The agents whose work it is."""
        return {work.agent for work in self.works}

    @property
    def title(self) -> str:
        """What people call it."""
        if len(self.works) == 1:
            return self.works[0].title
        return f"{len(self.works):,} agents and steps, each of which is a small part of the bill"


@dataclass(frozen=True, slots=True)
class Option:
    """Another model for some work: what it would save there, and how good it is."""

    model: Model
    change: SwitchModel
    effect: Effect
    judgement: Judgement


def parts_of(window: Window) -> list[Part]:
    """What models are called for, in parts that are worth advice, the dearest work first, then what is left of each model."""
    found: list[Part] = []
    rest: dict[Model, list[tuple[Work, Sequence[CallGroup]]]] = {}
    for (work, model), groups in window.by_work.items():
        if len(found) < _MOST_WORK and is_worth(window, _cost(groups)):
            found.append(Part(model, [work], where_of(window, work, model), groups))
        else:
            rest.setdefault(model, []).append((work, groups))
    by_themselves = list(found)
    for model, left in rest.items():
        groups = [group for _, its in left for group in its]
        if is_worth(window, _cost(groups)):
            others = [part.works[0] for part in by_themselves if part.model == model]
            works = [work for work, _ in left]
            where = where_of(window, works[0], model) if len(works) == 1 else where_of_model(window, model, others)
            found.append(Part(model, works, where, groups))
    return found


def _cost(groups: Iterable[CallGroup]) -> Decimal:
    return exact_sum(group.cost for group in groups)


def is_worth(window: Window, amount: Decimal) -> bool:
    """Whether an amount of the window's money is worth advice."""
    return amount > 0 and MONEY.multiply(amount, 100) >= MONEY.multiply(WORTH_PERCENT, window.bill)


def where_of(window: Window, work: Work, model: Model) -> Where:
    """The calls of some work to one model."""
    return replace(where_of_model(window, model), **work._asdict())


def where_of_model(window: Window, model: Model, but: Iterable[Work] = ()) -> Where:
    """The calls to a model, but for some work; without embeddings, where it did some, too."""
    kind = "llm" if model in window.embedding_models else ANY
    return Where(provider=model.provider, model=model.name, kind=kind, but=tuple(work._asdict() for work in but))


def measured_factors(
    window: Window, agents: Collection[str | None], model: Model, other: Model
) -> tuple[Factors | None, Factors | None]:
    """How many tokens the other model makes of some agents' prompts, and how long it answers, by shadow runs; None: not known."""
    found = [
        pairs
        for pairs in window.shadows
        if (pairs["model"], pairs["shadow_model"]) == (model.name, other.name) and pairs["agent_id"] in agents
    ]
    measured = sum(pairs["measured_pairs"] for pairs in found)
    if measured < ENOUGH:
        return None, None
    together: ShadowPairs = {**found[0]}
    for name in ("prompt_tokens", "shadow_prompt_tokens", "completion_tokens", "shadow_completion_tokens"):
        together[name] = sum(pairs[name] for pairs in found)
    source = f"as measured by {measured:,} shadow runs, give or take a tenth"
    return _about(prompt_ratio(together), source), _about(answer_ratio(together), source)


def _about(ratio: Decimal | None, source: str) -> Factors | None:
    if not ratio:
        return None
    return Factors(MONEY.multiply(ratio, Decimal("0.9")), ratio, MONEY.multiply(ratio, Decimal("1.1")), source)


def best_option(
    window: Window,
    part: Part,
    *,
    good_enough: Collection[Quality],
    groups: Sequence[CallGroup],
    size: Size | None = None,
) -> Option | None:
    """The model that saves most on `groups` of a part: of those that are good enough, else of those of unknown quality."""
    alike = merged(groups)
    tried = {True: 0, False: 0}
    found: list[Option] = []
    for other in _cheaper(window, part.model, alike):
        judgement = judge(window, part.agents, part.model, other)
        good = judgement.quality in good_enough
        if not good and judgement.quality is not Quality.unknown:
            continue
        tokens, answers = measured_factors(window, part.agents, part.model, other)
        if answers is None and other in window.reasoning_models and part.model not in window.reasoning_models:
            continue  # what it thinks before it answers is paid for, and nobody knows how much that would be
        if tried[good] == _TRIED:
            continue
        tried[good] += 1
        change = SwitchModel(
            where=EVERYWHERE, model=other.name, provider=other.provider, tokens=tokens, answers=answers
        )
        (effect,) = window.what_if(change, groups=alike).effects
        if is_worth(window, effect.saving.expected):
            found.append(Option(other, replace(change, where=replace(part.where, size=size)), effect, judgement))
    return max(
        found, key=lambda option: (option.judgement.quality in good_enough, option.effect.saving.expected), default=None
    )


def _cheaper(window: Window, model: Model, groups: Sequence[CallGroup]) -> list[Model]:
    """The other chat models, those first that would have cost least for the same tokens; none whose price is not known."""
    prices, at = window.prospect.prices, window.prospect.eras[-1]
    priced = [group for group in groups if group.key.priced]
    calls = sum(group.calls for group in priced)
    usage = TokenUsage(**{name: sum(getattr(group.usage, name) for group in priced) for name in TOKEN_FIELDS})
    usage = usage._replace(audio_input_tokens=0, audio_output_tokens=0)
    known = [
        (cost, place, other)
        for place, other in enumerate(window.chat_models)
        if other != model and (cost := cost_of(prices, other, usage, at, calls)) is not None
    ]
    return [other for _, _, other in sorted(known)]


def cost_of(prices: PriceBook, model: Model, usage: TokenUsage, at: datetime, calls: int) -> Decimal | None:
    """What so many calls with these tokens together cost at a model, about: as if all prompts were as long as the mean one."""
    cost = prices.cost(usage, model.provider, (model.name,), at, calls=max(calls, 1))
    return None if cost is None else cost.total
