"""Subscriptions from a CSV file: one a line, checked as far as that needs no database."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Final

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


def subscription_rows(lines: Iterable[str], organization: str | None = None) -> Iterator[dict[str, object]]:
    """The subscriptions of a file, as `import_subscriptions` takes them; an empty field is one that is not named.

    `organization` is where users' calls count where a line says nothing. Raises ValueError, with the line, for what is none.
    """
    reader = csv.DictReader(lines)
    header = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in _NEEDED if name not in header]:
        raise ValueError(f"line 1: the header lacks {', '.join(missing)}; a file has: {', '.join(COLUMNS)}")
    if unknown := [name for name in header if name not in COLUMNS]:
        raise ValueError(f"line 1: the header has {', '.join(unknown)}; a file has: {', '.join(COLUMNS)}")
    reader.fieldnames = header
    for given in reader:
        if None in given:
            raise ValueError(f"line {reader.line_num}: more fields than the header has")
        row: dict[str, object] = {name: value.strip() for name, value in given.items() if value and value.strip()}
        if missing := [name for name in _NEEDED if name not in row]:
            raise ValueError(f"line {reader.line_num}: no {', '.join(missing)}")
        row.setdefault("entity_type", "user")
        if row["entity_type"] == "user" and organization is not None:
            row.setdefault("organization_id", organization)
        if "reset_day" in row:
            row["reset_day"] = _day(str(row["reset_day"]), reader.line_num)
        if "enforced" in row:
            row["enforced"] = _flag(str(row["enforced"]), reader.line_num)
        yield row


def _day(text: str, line: int) -> int:
    if text.isdecimal() and 1 <= int(text) <= 31:
        return int(text)
    raise ValueError(f"line {line}: reset_day {text!r} is no day from 1 to 31")


def _flag(text: str, line: int) -> bool:
    found = {**_YES, **_NO}.get(text.lower())
    if found is None:
        raise ValueError(f"line {line}: enforced {text!r} is neither true nor false")
    return found
