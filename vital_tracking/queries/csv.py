"""Rows as CSV, and what a cell holds, so that no spreadsheet runs it as a formula."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import IO, Final
from uuid import UUID

from vital_tracking.stores.relations import ColumnKind, Relation, Values

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


def write_csv(file: IO[str], relation: Relation, batches: Iterable[list[Values]]) -> int:
    """Write a heading and rows; how many rows. Cells of text are made safe, numbers and times are what they are."""
    writer = csv.writer(file)
    writer.writerow(relation.columns)
    texts = [place for place, kind in enumerate(relation.columns.values()) if kind is ColumnKind.text]
    rows = 0
    for batch in batches:
        rows += len(batch)
        writer.writerows(_safe(row, texts) for row in batch)
    return rows


def _safe(row: Values, texts: Sequence[int]) -> Sequence[str | None]:
    """A row whose texts no spreadsheet runs. What begins with a letter or a digit, as nearly all does, need not be looked at."""
    if odd := [place for place in texts if (text := row[place]) and not text[0].isalnum()]:
        cells = list(row)
        for place in odd:
            cells[place] = safe_cell(cells[place])
        return cells
    return row
