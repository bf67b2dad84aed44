"""Changes as people write them, such as `gpt-4o=gpt-4o-mini`. What is wrong is said with what to write."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Final

from vital_tracking.advice.changes import Factors, SwitchModel, Where
from vital_tracking.advice.window import Model
from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.explore import ANY

_FEW: Final = 6


class NotUnderstood(ValueError):
    """What was written is no change; the message says what is."""


def switch_of(
    text: str,
    where: Where,
    used: Iterable[Model],
    prices: PriceBook,
    *,
    tokens: Factors | None = None,
    answers: Factors | None = None,
) -> SwitchModel:
    """A switch written as FROM=TO, FROM=PROVIDER/TO, or *=TO for every model; `used` are the models that calls went to.

    Where no provider is written, it is the one whose calls went to TO, else that of FROM where its list has TO, else the only
    one that lists it. Raises NotUnderstood.
    """
    source, equals, target = (part.strip() for part in text.partition("="))
    if not equals or not source or not target:
        raise NotUnderstood(
            f"{text!r} is no switch: write FROM=TO, such as gpt-4o=gpt-4o-mini, or *=TO for every model"
        )
    models = list(used)
    if source != ANY and source not in {model.name for model in models}:
        names = sorted({model.name for model in models})
        raise NotUnderstood(f"no call went to {source} in this time{did_you_mean(source, names)}")
    to = _target(target, source, models, prices)
    named = {name: getattr(where, name) for name in Where.__dataclass_fields__} | {"model": source}
    return SwitchModel(where=Where(**named), model=to.name, provider=to.provider, tokens=tokens, answers=answers)


def _target(text: str, source: str, used: Iterable[Model], prices: PriceBook) -> Model:
    listed = [Model(provider, name) for provider, name in prices.models()]
    provider, slash, name = text.partition("/")
    if slash and any(model.provider == provider.lower() and model.name.lower() == name.lower() for model in listed):
        return Model(provider.lower(), name)
    for model in used:
        if model.name == text:
            return model
    of_source = {model.provider for model in used if source in (ANY, model.name)}
    same = [model for model in listed if model.name.lower() == text.lower()]
    near = [model for model in same if model.provider in of_source]
    for found in (near, same):
        if len(found) == 1:
            return found[0]
    if same:
        several = ", ".join(sorted(f"{model.provider}/{model.name}" for model in same)[:_FEW])
        raise NotUnderstood(f"several providers have {text}: write one of them, such as {several}")
    raise NotUnderstood(f"no price is known for {text}{did_you_mean(text, [model.name for model in listed])}")


def factors_of(text: str, what: str) -> Factors:
    """A range of factors written as 0.8..1.2, or 0.8..1..1.2 with what is expected in the middle. Raises NotUnderstood."""
    try:
        numbers = [Decimal(part.strip()) for part in text.split("..")]
        if len(numbers) == 1:
            return Factors(numbers[0], numbers[0], numbers[0])
        if len(numbers) == 2:
            low, high = numbers
            return Factors(low, min(max(low, Decimal(1)), high), high)
        low, expected, high = numbers
        return Factors(low, expected, high)
    except (InvalidOperation, ValueError):
        raise NotUnderstood(
            f"{what} is a range of factors above 0, such as 0.8..1.2 or 0.9..1..1.4, not {text!r}"
        ) from None
