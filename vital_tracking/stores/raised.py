"""What functions of ours refuse, told in their own words.

A database's messages may quote data, so they stay where they are; but for those that our own functions raise, which are written
for whoever asked. These are known by the migrations of this package, where each message stands with its SQLSTATE: no message of
PostgreSQL itself, and none of a team's own trigger, has such words.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Final

from vital_tracking.errors import StoreRejected
from vital_tracking.migrate import find_migrations

# raise exception 'words % words', values using errcode = '22023'
_RAISE: Final = re.compile(r"raise exception\s+'((?:[^']|'')*)'[^;]*?\berrcode = '(\w{5})'", re.IGNORECASE)
# problem := format('words %L words', value), for a raise exception '%', problem using errcode = '23514' of the same migration
_PROBLEM: Final = re.compile(r"\bproblem := (?:format\(\s*)?'((?:[^']|'')*)'")
_RAISE_PROBLEM: Final = re.compile(r"raise exception '%', problem\s+using errcode = '(\w{5})'")
_FORMATTED: Final = re.compile(r"%[LIs]")
_DENIED: Final = "42501"  # whoever asks is told that in other words, by who he is
_LEAST_WORDS: Final = 10
_LONGEST: Final = 1_000


def refusal(sqlstate: str | None, message: str | None, hint: str | None) -> StoreRejected | None:
    """The error for a message that a function of ours raises with this SQLSTATE; None where it is none of these."""
    pattern = _messages().get(sqlstate or "")
    if pattern is None or not message or len(message) > _LONGEST or not pattern.fullmatch(message):
        return None
    said = f"{message} {hint}" if hint else message
    return StoreRejected(said, sqlstate=sqlstate, problem=message, hint=hint or None)


@cache
def _messages() -> Mapping[str, re.Pattern[str]]:
    """Of each SQLSTATE all the messages that go with it, as one pattern; what a message is filled with is any text."""
    found: dict[str, list[str]] = defaultdict(list)
    for migration in find_migrations():
        problems = [_FORMATTED.sub("%", problem) for problem in _PROBLEM.findall(migration.sql)]
        raised = _RAISE.findall(migration.sql)
        raised += [(problem, code) for code in set(_RAISE_PROBLEM.findall(migration.sql)) for problem in problems]
        for message, sqlstate in raised:
            words = message.replace("''", "'").replace("%%", "\0").split("%")
            # Of a message that is put together elsewhere too little stands here to know it by.
            if sqlstate != _DENIED and sum(map(len, words)) >= _LEAST_WORDS:
                found[sqlstate].append(".+".join(re.escape(part.replace("\0", "%")) for part in words))
    return {sqlstate: re.compile("|".join(patterns), re.DOTALL) for sqlstate, patterns in found.items()}
