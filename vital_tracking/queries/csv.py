"""What a cell of a CSV file holds, so that no spreadsheet runs it as a formula."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Final
from uuid import UUID

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, or passes over before one; the last four are = + - @ in full width."""


def safe_cell(value: object) -> str:
    """The text of one cell: a number as it is, text that could begin a formula behind an apostrophe, None as an empty cell.

    What is no number by its type is text: "-1" gets its apostrophe. Times are written as ISO, lists and mappings as JSON.
    Quoting (a comma, a quote, a line's end inside) is left to the csv writer.
    """
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Decimal):
        return plain(value)
    text = json.dumps(value, default=plain, ensure_ascii=False) if isinstance(value, list | dict) else plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain(value: object) -> str:
    """A value of a row as text: amounts with all their digits and no exponent."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not expected in a row")
