"""Subscriptions from a CSV file: one a line, checked as far as that needs no database."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vital_tracking.core.closest import did_you_mean
from vital_tracking.queries.plans import SUBSCRIBERS
from vital_tracking.queries.zones import proper_zone

COLUMNS: Final = (
    "entity_type",
    "entity_id",
    "plan",
    "organization_id",
    "since",
    "until",
    "reset_day",
    "timezone",
    "enforced",
)
"""The columns that a file may have, in any order: `entity_id` and `plan` it must have; entity_type is user by default."""

_NEEDED: Final = ("entity_id", "plan")
_YES: Final = {"true": True, "yes": True, "1": True, "enforced": True}
_NO: Final = {"false": False, "no": False, "0": False, "watched": False}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: its number, and its subscription as `import_subscriptions` takes it, or what is wrong with it."""

    number: int
    columns: dict[str, object]
    problem: str | None = None


def subscription_lines(lines: Iterable[str], organization: str | None = None) -> Iterator[Line]:
    """The lines of a file, each for itself; an empty field is one that is not named.

    `organization` is where users' calls count where a line says nothing. Raises ValueError where the header is none.
    """
    reader = csv.DictReader(lines)
    header = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in _NEEDED if name not in header]:
        raise ValueError(f"line 1: the header lacks {', '.join(missing)}; a file has: {', '.join(COLUMNS)}")
    if unknown := [name for name in header if name not in COLUMNS]:
        raise ValueError(f"line 1: the header has {', '.join(unknown)}; a file has: {', '.join(COLUMNS)}")
    reader.fieldnames = header
    for given in reader:
        try:
            yield Line(reader.line_num, _columns(given, organization))
        except ValueError as error:
            yield Line(reader.line_num, {}, str(error))


def _columns(given: Mapping[str | None, Any], organization: str | None) -> dict[str, object]:
    if None in given:
        raise ValueError("more fields than the header has")
    row: dict[str, object] = {str(name): value.strip() for name, value in given.items() if value and value.strip()}
    if missing := [name for name in _NEEDED if name not in row]:
        raise ValueError(f"no {', '.join(missing)}")
    kind = row.setdefault("entity_type", "user")
    if kind not in SUBSCRIBERS:
        raise ValueError(f"entity_type {kind!r} is unknown{did_you_mean(str(kind), SUBSCRIBERS)}")
    if kind == "user" and organization is not None:
        row.setdefault("organization_id", organization)
    if "reset_day" in row:
        row["reset_day"] = _day(str(row["reset_day"]))
    if "timezone" in row:
        row["timezone"] = _zone(str(row["timezone"]))
    if "enforced" in row:
        row["enforced"] = _flag(str(row["enforced"]))
    return row


def _day(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 31:
        return int(text)
    raise ValueError(f"reset_day {text!r} is no day from 1 to 31")


def _zone(text: str) -> str:
    try:
        return proper_zone(text)
    except ValueError as error:
        raise ValueError(f"timezone {text!r} {error}") from None


def _flag(text: str) -> bool:
    found = {**_YES, **_NO}.get(text.lower())
    if found is None:
        raise ValueError(f"enforced {text!r} is neither true nor false")
    return found
