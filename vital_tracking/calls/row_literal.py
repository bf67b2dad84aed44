"""Rows of calls as the database reads them: literals of the type `vital_private.call_v2`, in quotes in the literal of an array.

A field holds nothing (NULL, or the column's default), a plain value, or text in quotes. Each value is escaped twice, for the row
and for the array around it: a quote becomes two, each behind a backslash; a backslash becomes four.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import orjson

from vital_tracking.core.context import CONTEXT_FIELDS

CALL_COLUMNS: Final = (
    "id",
    "created_at",
    *CONTEXT_FIELDS,
    "provider",
    "model",
    "requested_model",
    "sent_model",
    "call_type",
    "status",
    "run_id",
    "parent_run_id",
    "trace_id",
    "langsmith_project",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "audio_output_tokens",
    "usage_estimated",
    "priced",
    "input_cost",
    "output_cost",
    "fees",
    "total_cost",
    "potential_cost",
    "price_version",
    "ceiling_cost",
    "reported_cost",
    "latency_ms",
    "ttft_ms",
    "first_word_ms",
    "throttled_ms",
    "cache_hit",
    "request_hash",
    "prefix_hashes",
    "prompt_bytes",
    "tags",
    "metadata",
    "billed_units",
    "calls",
    "error_type",
    "budget_action",
    "blocked_by",
    "draw_windows",
    "draw_amounts",
    "replaces_abandoned",
)
"""The fields of a row, in their order; the migration of recording has the same list."""

_JSON: Final = frozenset({"metadata", "billed_units", "blocked_by"})
_LISTS: Final = frozenset({"tags", "prefix_hashes"})
_TRUTHS: Final = frozenset({"usage_estimated", "priced", "cache_hit", "replaces_abandoned"})
_COUNTS: Final = frozenset({"panel_position", "panel_size", "prompt_bytes", "calls"})
_PLACES: Final = {name: place for place, name in enumerate(CALL_COLUMNS)}
_COLUMNS: Final = frozenset(CALL_COLUMNS) | {"draws"}

_quoted: Final[Callable[[str], object]] = re.compile(r'[,()"\\]').search
_unstorable: Final[Callable[[str], object]] = re.compile("[\0\ud800-\udfff]").search


def text_field(value: str) -> str:
    """A text, or the text of JSON, as a field. ValueError where it holds a character that PostgreSQL cannot store."""
    if not value.isascii() or "\0" in value:
        if _unstorable(value):
            raise ValueError("PostgreSQL stores neither NUL nor half a surrogate pair.")
    elif value.isalnum():
        return value
    if _quoted(value) or not value:
        return '\\"' + value.replace("\\", "\\\\\\\\").replace('"', '\\"\\"') + '\\"'
    return value


def list_field(values: Iterable[str]) -> str:
    """Texts as the field of an array."""
    return text_field(
        "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"
    )


def number_field(value: int | float | Decimal) -> str:
    """A number as a field, with all its digits. ValueError where it is infinite or none."""
    if isinstance(value, bool) or not isfinite(value):
        raise ValueError("Only a finite number can be stored as a number.")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


def encoded_row(row: Mapping[str, Any]) -> str:
    """The literal of a row that holds the values of JSON by the columns' names, and `draws` as [[window id, amount], ...].

    What is missing or None is NULL or the column's default. ValueError where a value cannot be stored, or a name is no column's.
    """
    if not _COLUMNS.issuperset(row):
        raise ValueError("A row has a field that is no column.")
    if draws := row.get("draws"):
        row = {
            **row,
            "draw_windows": "{" + ",".join(str(window) for window, _ in draws) + "}",
            "draw_amounts": "{" + ",".join(str(amount) for _, amount in draws) + "}",
        }
    fields = [""] * len(CALL_COLUMNS)
    for name, value in row.items():
        if value is not None and name != "draws":
            fields[_PLACES[name]] = _field(name, value)
    return '"(' + ",".join(fields) + ')"'


def batch_of(rows: Iterable[str]) -> str:
    """The literal of an array of rows."""
    return "{" + ",".join(rows) + "}"


def rows_of(batch: str) -> list[dict[str, Any]]:
    """The rows in the literal of an array, as `decoded_row` gives them."""
    # A quote without a backslash before it stands at both ends of a row and nowhere in it.
    return [decoded_row(f'"{row}"') for row in batch[2:-2].split('","')] if len(batch) > 2 else []


def decoded_row(literal: str) -> dict[str, Any]:
    """The row of a literal, as `encoded_row` took it, without what is NULL; money stays text. ValueError where it is none."""
    fields = _fields(literal)
    if len(fields) != len(CALL_COLUMNS):
        raise ValueError("A row has not as many fields as there are columns.")
    row = {name: _value(name, text) for name, text in zip(CALL_COLUMNS, fields, strict=True) if text is not None}
    windows, amounts = row.pop("draw_windows", None), row.pop("draw_amounts", None)
    if windows:
        row["draws"] = [
            [int(window), amount]
            for window, amount in zip(windows[1:-1].split(","), amounts[1:-1].split(","), strict=True)
        ]
    return row


def _field(name: str, value: Any) -> str:
    if isinstance(value, str):
        return text_field(value)
    if isinstance(value, bool):
        return "t" if value else "f"
    if name in _JSON:
        return text_field(orjson.dumps(value).decode())
    return list_field(value) if name in _LISTS else number_field(value)


def _value(name: str, text: str) -> Any:
    if name in _JSON:
        return orjson.loads(text)
    if name in _LISTS:
        return [re.sub(r"\\(.)", r"\1", element, flags=re.DOTALL) for element in _ELEMENT.findall(text)]
    if name in _TRUTHS and text in ("t", "f"):
        return text == "t"
    with contextlib.suppress(ValueError):  # of what the database refused it says what it was
        if name in _COUNTS or name.endswith("_tokens"):
            return int(text)
        if name.endswith("_ms"):
            return float(text)
    return text


_ELEMENT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# A field of a row: in quotes, in which a quote is two, or plain; the comma or bracket behind it.
_FIELD: Final = re.compile(r'(?:"((?:[^"\\]|\\.|"")*)"|([^,()"\\]*))([,)])', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(.)|""', re.DOTALL)


def _fields(literal: str) -> list[str | None]:
    """The fields of a literal, None for NULL."""
    if not (literal.startswith('"(') and literal.endswith(')"')):
        raise ValueError("A row does not begin or end as one.")
    text = re.sub(
        r"\\(.)", r"\1", literal[2:-1], flags=re.DOTALL
    )  # as the array hands it over, without its first bracket
    fields: list[str | None] = []
    place = 0
    while place < len(text):
        found = _FIELD.match(text, place)
        if found is None:
            raise ValueError("A row cannot be read.")
        in_quotes, plain, behind = found.groups()
        if in_quotes is not None:
            fields.append(_ESCAPED.sub(lambda match: match[1] or '"', in_quotes))
        else:
            fields.append(plain or None)
        place = found.end()
        if (behind == ")") != (place == len(text)):
            raise ValueError("A row ends before its end, or not at all.")
    return fields
