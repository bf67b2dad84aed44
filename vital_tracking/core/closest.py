"""Which of some words was meant by one that is none of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def closest(word: str, choices: Sequence[str]) -> list[str]:
    """The choices that somebody may have meant, three at most.

    One that lies in folders, such as a time zone, is also known by its last part; one of several words, such as total_cost, by
    each of them where nothing is closer.
    """
    short: dict[str, str] = {}
    for choice in choices:
        short.setdefault(choice.lower(), choice)
        short.setdefault(choice.rpartition("/")[2].lower(), choice)
    wanted = word.strip().lower().replace(" ", "_")
    if close := _like(wanted, short):
        return list(dict.fromkeys(short[name] for name in close))
    parts = {part for choice in choices for part in choice.lower().split("_")}
    meant = _like(wanted, parts)
    return [choice for choice in choices if set(meant[:1]) & set(choice.lower().split("_"))][:3]


def _like(word: str, names: Collection[str]) -> list[str]:
    return [word] if word in names else difflib.get_close_matches(word, names, n=3, cutoff=0.7)


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """The closest choices as the end of a sentence: `; did you mean users?`, or `.` where there are none."""
    names = closest(word, choices)
    return f"; did you mean {' or '.join(names)}?" if names else "."
