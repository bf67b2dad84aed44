"""What the options of `budgets` and `alerts` may hold: checked before the database is asked, with words on what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final
from zoneinfo import available_timezones

import typer

from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.core.entities import ENTITY_TYPES
from vital_tracking.core.pricing import amount
from vital_tracking.core.sanitize import clean_text, money

LIFTED: Final = "none"
"""What lifts a limit, and clears the model or the thresholds of a budget."""

_LARGEST: Final = Decimal("1e15")
_MOST_PLACES: Final = 12
_MOST_THRESHOLDS: Final = 10
_HIGHEST_THRESHOLD: Final = 10
_DAY_S: Final = 86_400
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


def chosen(text: str, what: str, choices: Sequence[str]) -> str:
    """One of the choices; where `text` is none, the message names them and the closest."""
    if text in choices:
        return text
    raise typer.BadParameter(f"{what} {text!r} is unknown{_meant(text, choices)} One of: {', '.join(choices)}")


def named(text: str, what: str) -> str:
    """A name that calls can carry: not empty, not longer than the database keeps them."""
    if not text.strip():
        raise typer.BadParameter(f"{what} is empty: name one, or leave it out")
    if clean_text(text) != text:
        raise typer.BadParameter(f"{what} holds characters that no call carries, or is longer than 256: shorten it")
    return text


def entity(entity_type: str, entity_id: str) -> tuple[str, str]:
    """What a budget is for: its type and id; `*` for each one of them."""
    chosen(entity_type, "entity type", ENTITY_TYPES)
    named(entity_id, "the entity's id")
    if entity_type == "service" and entity_id != "*":
        chosen(entity_id, "service", SERVICE_TYPES)
    return entity_type, entity_id


def limit(text: str, option: str, metric: str) -> str | None:
    """A limit as the database takes it; None for the word that lifts it."""
    if text.strip().lower() == LIFTED:
        return None
    example = "5 or 0.50" if metric == "cost_usd" else "100000"
    try:
        value = amount(text.strip().removeprefix("$"), option)
    except ValueError:
        raise typer.BadParameter(
            f"{option} must be an amount such as {example}, not negative; {option} {LIFTED} lifts the limit"
        ) from None
    if metric != "cost_usd" and value != value.to_integral_value():
        raise typer.BadParameter(f"{option} must be a whole number of {metric}, such as {example}")
    exponent = value.as_tuple().exponent
    if value > _LARGEST or (isinstance(exponent, int) and exponent < -_MOST_PLACES):
        raise typer.BadParameter(
            f"{option} must be an amount such as {example}: this one is too large or too finely divided"
        )
    return money(value)


def span(text: str, option: str) -> Decimal:
    """A span such as 500ms, 10s or 2m in seconds: longer than nothing, at most a day."""
    if match := _SPAN.fullmatch(text.strip().lower()):
        seconds = Decimal(match[1]) * _SECONDS[match[2]]
        if 0 < seconds <= _DAY_S:
            return seconds.normalize()
    raise typer.BadParameter(f"{option} takes a span such as 500ms, 10s or 2m, longer than nothing and at most a day")


def thresholds(text: str) -> list[str]:
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


def zone(text: str) -> str:
    """An IANA time zone by its proper name; where there is none, the message names the closest."""
    known = available_timezones()
    if not known or text in known:
        return text
    proper = {name.lower(): name for name in known}
    if found := proper.get(text.strip().lower().replace(" ", "_")):
        return found
    raise typer.BadParameter(
        f"--timezone {text!r} is no IANA time zone{_meant(text, sorted(known))} It looks like Europe/Berlin, Asia/Kolkata or UTC"
    )


def _meant(text: str, choices: Sequence[str]) -> str:
    """The closest choices, as a question; a zone is also known by the name of its city."""
    short: dict[str, str] = {}
    for choice in choices:
        short.setdefault(choice.lower(), choice)
        short.setdefault(choice.rpartition("/")[2].lower(), choice)
    wanted = text.strip().lower().replace(" ", "_")
    close = [wanted] if wanted in short else difflib.get_close_matches(wanted, short, n=3, cutoff=0.7)
    names = list(dict.fromkeys(short[name] for name in close))
    return f"; did you mean {' or '.join(names)}?" if names else "."
