"""What the options of `budgets` may hold: checked before the database is asked, with words on what to write."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final, get_type_hints

import typer

from vital_tracking.cli.render.options import chosen, named
from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.core.entities import ENTITIES, ENTITY_TYPES
from vital_tracking.core.rates import amount
from vital_tracking.core.sanitize import money

LIFTED: Final = "none"
"""What lifts a limit, and clears the model or the thresholds of a budget."""

_MOST_PLACES: Final = 12
_MOST_THRESHOLDS: Final = 10
_HIGHEST_THRESHOLD: Final = 10


def budget_entity(entity_type: str, entity_id: str) -> tuple[str, str]:
    """What a budget is for: its type and id; `*` for each one of them."""
    chosen(entity_type, "entity type", ENTITY_TYPES)
    named(entity_id, "the entity's id")
    if entity_type == "service" and entity_id != "*":
        chosen(entity_id, "service", SERVICE_TYPES)
    return entity_type, entity_id


def limit_of(text: str, option: str, metric: str) -> str | None:
    """A limit as the database takes it; None for the word that lifts it."""
    if text.strip().lower() == LIFTED:
        return None
    example = "5 or 0.50" if metric == "cost_usd" else "100000"
    wrong = typer.BadParameter(
        f"{option} must be an amount such as {example}, not negative, not too large or too finely divided"
        + (f"; {option} {LIFTED} lifts the limit" if option.startswith("--") else "")
    )
    try:
        value = amount(text.strip().removeprefix("$"), option)
    except ValueError:
        raise wrong from None
    if metric != "cost_usd" and value != value.to_integral_value():
        raise typer.BadParameter(f"{option} must be a whole number of {metric}, such as {example}")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MOST_PLACES:
        raise wrong
    return money(value)


def thresholds_of(text: str) -> list[str]:
    """Shares of a limit, in their order: 0.5,0.8,1.0 or 50%,80%,100%."""
    if text.strip().lower() == LIFTED:
        return []
    shares: set[Decimal] = set()
    for part in text.split(","):
        try:
            given = part.strip()
            share = amount(given.removesuffix("%").strip(), "--thresholds") / (100 if given.endswith("%") else 1)
        except ValueError:
            share = Decimal(0)
        if not 0 < share <= _HIGHEST_THRESHOLD:
            raise typer.BadParameter(
                f"--thresholds takes shares of the limit such as 0.5,0.8,1.0 or 50%,80%,100%, above 0 and up to "
                f"{_HIGHEST_THRESHOLD}; --thresholds {LIFTED} for no alerts"
            )
        shares.add(share.normalize())
    if len(shares) > _MOST_THRESHOLDS:
        raise typer.BadParameter(f"--thresholds takes at most {_MOST_THRESHOLDS} shares, such as 0.5,0.8,1.0")
    return [money(share) for share in sorted(shares)]


def entity_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each entity that a budget can stand on; it gets those that were given as `entities`."""
    options = [
        inspect.Parameter(
            entity.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(help=entity.help)],
        )
        for entity in ENTITIES
    ]
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "entities"
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        entities = {name: value for name in ENTITY_TYPES if (value := given.pop(name)) is not None}
        command(entities=entities, **given)

    parameters = [*options, *own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
