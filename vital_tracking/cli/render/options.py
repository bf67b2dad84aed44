"""What options of several commands may hold: checked before the database is asked, with words on what to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import typer

from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.sanitize import clean_text
from vital_tracking.queries.calls import place
from vital_tracking.queries.zones import proper_zone

_FORMAT: Final = "vital_tracking.format"
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)}


def chosen(text: str, what: str, choices: Sequence[str]) -> str:
    """One of the choices; where `text` is none, the message names them and the closest."""
    if text in choices:
        return text
    raise typer.BadParameter(f"{what} {text!r} is unknown{did_you_mean(text, choices)} One of: {', '.join(choices)}")


def after_place(text: str | None) -> None:
    """Refuse what is no place in a list of pages."""
    if text is not None:
        try:
            place(text)
        except ValueError:
            raise typer.BadParameter(
                "--after takes the place that the page before it names, such as 2026-11-30T10:00:00+00:00/0193f2c4-..."
            ) from None


def either(names: Sequence[str]) -> str:
    """Names as a choice: a, b or c."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def named(text: str, what: str) -> str:
    """A name that calls can carry: not empty, not longer than the database keeps them."""
    if not text.strip():
        raise typer.BadParameter(f"{what} is empty: name one, or leave it out")
    if clean_text(text) != text:
        raise typer.BadParameter(f"{what} holds characters that no call carries, or is longer than 256: shorten it")
    return text


def a_name(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """The callback of an option that names something of a call: an empty name would find nothing, as if there were no calls."""
    return value if value is None else named(value, parameter.opts[0])


def span(text: str, option: str, *, longest: timedelta = timedelta(days=1)) -> Decimal:
    """A span such as 500ms, 10s, 2m, 24h or 7d in seconds: longer than nothing, at most a day, or what is `longest`."""
    if match := _SPAN.fullmatch(text.strip().lower()):
        seconds = Decimal(match[1]) * _SECONDS[match[2]]
        if 0 < seconds <= Decimal(longest.total_seconds()):
            return seconds.normalize()
    most = "a day" if longest.days == 1 else f"{longest.days} days"
    examples = "500ms, 10s or 2m" if longest.days == 1 else "30m, 24h or 7d"
    raise typer.BadParameter(f"{option} takes a span such as {examples}, longer than nothing and at most {most}")


def zone(text: str, option: str = "--timezone") -> str:
    """An IANA time zone by its proper name; where there is none, the message names the closest."""
    try:
        return proper_zone(text)
    except ValueError as wrong:
        raise typer.BadParameter(f"{option} {text!r} {wrong}") from None


def words(choices: Sequence[str], what: str, *, metavar: str | None = None) -> dict[str, Any]:
    """What makes an option or argument one of some words: help and completion name them, and for others the closest are named.

    `metavar` stands in the help instead of all of them.
    """

    def check(value: str | None) -> str | None:
        return value if value is None else chosen(value, what, choices)

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return {"metavar": metavar or f"[{'|'.join(choices)}]", "callback": check, "autocompletion": complete}


def one_format(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    """The callback of --json, --csv and other forms, of which a command takes one."""
    if value:
        option = parameter.opts[0]
        other = context.meta.setdefault(_FORMAT, option)
        if other != option:
            raise typer.BadParameter(f"{other} and {option} are two forms of the same answer: leave one of them out")
    return value
