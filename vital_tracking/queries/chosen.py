"""How advice tells which calls it rests on, beyond dimensions: choices that lists of calls take as text, in URLs and commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from vital_tracking.core.days import FIRST_DAY, LAST_DAY, known_day
from vital_tracking.queries.explore import DIMENSIONS
from vital_tracking.queries.explore import TIMES as NO_FILTERS
from vital_tracking.queries.zones import is_zone

_MOST: Final = 100
_WORDS: Final[Mapping[str, bool]] = {"yes": True, "no": False}
_SPAN: Final = re.compile(r"[1-9][0-9]{0,3}(s|min|h|d)")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice: what it `leaves` of the calls, an `example` of its text, and how that is read; ValueError where it cannot be.

    `form` is what its text looks like, as JSON Schema says it.
    """

    leaves: str
    example: str
    read: Callable[[str], Any]
    form: Mapping[str, Any]


def _word(text: str) -> bool:
    if text not in _WORDS:
        raise ValueError("write yes or no")
    return _WORDS[text]


def _tokens(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise ValueError("write a number of tokens, such as 500")
    return int(text)


def _zone(text: str) -> str:
    if not is_zone(text):
        raise ValueError("write an IANA time zone, such as Europe/Berlin")
    return text


def _span(text: str) -> str:
    if _SPAN.fullmatch(text) is None:
        raise ValueError("write a span such as 24h or 5min")
    return text


def _clock(text: str) -> str:
    if _CLOCK.fullmatch(text) is None:
        raise ValueError("write two times of UTC, such as 22:00-06:00")
    return text


def _moment(text: str) -> datetime:
    try:
        at = known_day(datetime.fromisoformat(text))
    except ValueError:
        raise ValueError("write an instant, such as 2026-11-02T08:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


_NAME: Final = rf"({'|'.join(name for name in DIMENSIONS if name not in NO_FILTERS)}|metadata\.[A-Za-z0-9_]{{1,40}})"
_VALUE: Final = rf"{_NAME}=[^&=\x00-\x1f]{{0,255}}"
_VALUES: Final = re.compile(rf"{_VALUE}(&{_VALUE}){{0,7}}")


def _without(text: str) -> dict[str, list[str | None]]:
    if _VALUES.fullmatch(text) is None:
        raise ValueError("write values by dimension, such as agent=cardio&service=workflow")
    return {name: [value or None] for name, value in parse_qsl(text, keep_blank_values=True)}


_YES_NO: Final = {"enum": list(_WORDS)}
_NUMBER: Final = {"pattern": "^[0-9]{1,12}$"}
_OF_ZONE: Final = {"format": "iana-time-zone", "maxLength": 64}
_OF_SPAN: Final = {"pattern": f"^{_SPAN.pattern}$"}
_INSTANT: Final = {"format": "date-time", "description": f"From {FIRST_DAY} to {LAST_DAY}."}

CHOICES: Final[Mapping[str, Choice]] = {
    "reached": Choice("that no cache answered and no budget stopped", "yes", _word, _YES_NO),
    "repriceable": Choice("billed by tokens alone at a known price, and no shadow runs", "yes", _word, _YES_NO),
    "audio": Choice("with tokens of sound, or without", "no", _word, _YES_NO),
    "prompt_from": Choice("with so many tokens of the prompt or more", "2000", _tokens, _NUMBER),
    "prompt_below": Choice("with fewer tokens of the prompt", "500", _tokens, _NUMBER),
    "unattended": Choice("that nobody waited for, by the nights of this time zone", "UTC", _zone, _OF_ZONE),
    "attended": Choice("that somebody may have waited for, by the nights of this time zone", "UTC", _zone, _OF_ZONE),
    "between": Choice("begun between these times of UTC", "22:00-06:00", _clock, {"pattern": f"^{_CLOCK.pattern}$"}),
    "repeated_within": Choice(
        "that an exact cache of the agent would have answered, if it kept answers for so long", "24h", _span, _OF_SPAN
    ),
    "new_within": Choice("that no such cache would have answered", "24h", _span, _OF_SPAN),
    "alike_within": Choice(
        "whose prompts a provider would have kept a beginning of for so long", "5min", _span, _OF_SPAN
    ),
    "without": Choice(
        "that have not all of these values",
        "agent=cardio&service=workflow",
        _without,
        {"pattern": f"^{_VALUES.pattern}$"},
    ),
    "begun_from": Choice("begun from this instant on", "2026-11-02T08:00:00Z", _moment, _INSTANT),
    "begun_before": Choice("begun before this instant", "2026-11-03T08:00:00Z", _moment, _INSTANT),
}
"""The choices by name. `without` may be given several times."""

TIMES: Final = ("begun_from", "begun_before")
"""Those that narrow the time that is asked about."""


def without_text(values: Mapping[str, str | None]) -> str:
    """The values by dimension that calls must not have all of, as `without` has them; None: those that have none."""
    return urlencode([(name, value or "") for name, value in sorted(values.items())])


def chosen_of(given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What choices say, by name, of pairs of a name and a text; other names are passed over. ValueError says what is wrong."""
    found: dict[str, Any] = {}
    for name, text in given:
        if name not in CHOICES:
            continue
        try:
            value = CHOICES[name].read(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if name == "without":
            found.setdefault(name, []).append(value)
        elif name in found:
            raise ValueError(f"{name}: give it once")
        else:
            found[name] = value
    if len(found.get("without", ())) > _MOST:
        raise ValueError(f"without: at most {_MOST} are taken")
    return found


def in_words(given: Sequence[tuple[str, str]]) -> str:
    """What choices leave, in words, as they were written; empty where there are none."""
    return "; ".join(f"{CHOICES[name].leaves} ({text})" for name, text in given if name in CHOICES)
