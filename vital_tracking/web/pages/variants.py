"""Variants side by side: what calls come to by the values of a key of their metadata, such as two versions of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from vital_tracking.queries.explore import ANY
from vital_tracking.queries.reports import cost_per_call
from vital_tracking.web.numbers import change
from vital_tracking.web.page import Column, Part, Row, UnitName
from vital_tracking.web.pages.common import NONE_OF
from vital_tracking.web.view import View

_MOST: Final = 6
_MEASURES: Final = (
    "calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "total_tokens", "total_cost", "success_rate",
    "average_latency_ms", "p95_latency_ms",
)  # fmt: skip


def _tokens_per_call(row: Row) -> Decimal | None:
    made = row["calls"] - row["blocked_calls"]
    return Decimal(row["total_tokens"]) / made if made else None


def _of(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


_COMPARED: Final[tuple[tuple[str, UnitName, Callable[[Row], Any]], ...]] = (
    ("Calls", "calls", _of("calls")),
    ("Cost", "usd", _of("total_cost")),
    ("Cost a call", "usd", cost_per_call),
    ("Tokens a call", "tokens", _tokens_per_call),
    ("Latency, mean", "ms", _of("average_latency_ms")),
    ("Latency, 95th percentile", "ms", _of("p95_latency_ms")),
    ("Success rate", "percent", _of("success_rate")),
    ("Unpriced calls", "calls", _of("unpriced_calls")),
    ("Estimated calls", "calls", _of("estimated_calls")),
)
"""What is compared: its name, its unit, and what it is of a variant."""


def variants_part(view: View, key: str) -> Part:
    """The values of a key as columns, each with its difference to the first in percent.

    They are those that the page is filtered by, in that order; else the six with the most calls, by name.
    """
    dimension = f"metadata.{key}"
    wanted = view.asked.filters.get(dimension, (ANY,))
    filters = {} if dimension in view.asked.filters else {dimension: (ANY,)}
    found = view.explore(dimension, measures=_MEASURES, filters=filters, order_by="calls", rows=_MOST)
    by_value = {row[dimension]: row for row in found.rows}
    order = [value for value in dict.fromkeys(wanted) if value in by_value] or sorted(by_value, key=_as_text)
    rest = [value for value in sorted(by_value, key=_as_text) if value not in order]
    variants = [by_value[value] for value in (*order, *rest)]
    hidden = found.groups - len(variants)
    return Part(
        "variants",
        f"Variants of {key} side by side",
        _columns(view, dimension, [row[dimension] for row in variants]),
        [_row(dimension, variants, *compared) for compared in _COMPARED] if variants else [],
        note=_note(found.source, variants, key),
        empty=f"No call of this time has the key {key} in its metadata.",
        more=f"{hidden:,} more values are not shown: choose some by {dimension}=VALUE in the address."
        if hidden > 0
        else "",
        wide=True,
        sortable=False,
    )


def _as_text(value: Any) -> tuple[bool, int, str]:
    """The order of values: 2 before 10, and what is none last."""
    text = str(value or "")
    return value is None, len(text) if text.isdigit() else 0, text


def _columns(view: View, dimension: str, values: list[Any]) -> list[Column]:
    columns = [Column("measure", "Measure")]
    for place, value in enumerate(values):
        name = NONE_OF if value is None else str(value)
        columns.append(Column(_key(dimension, value), name, "of_row", link=_to_calls(view, dimension, value)))
        if place:
            columns.append(Column(f"{_key(dimension, value)} difference_percent", "Difference", "change"))
    return columns


def _to_calls(view: View, dimension: str, value: Any) -> Callable[[Row], str | None]:
    path = view.to("calls", **{dimension: value})
    return lambda row: path if row["measure"] == "Calls" else None


def _row(
    dimension: str, variants: list[Mapping[str, Any]], label: str, unit: UnitName, of: Callable[[Row], Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": label, "unit": unit}
    first = of(variants[0])
    for place, variant in enumerate(variants):
        name = _key(dimension, variant[dimension])
        row[name] = of(variant)
        if place:
            row[f"{name} difference_percent"] = change(row[name], first)
    return row


def _key(dimension: str, value: Any) -> str:
    """The name of a variant's column: no other column is called so."""
    return f"{dimension}={'' if value is None else value}"


def from_calls(source: str) -> str:
    """What is said of figures that come from no sums."""
    if source != "calls":
        return ""
    return (
        "Added up from the calls themselves, since no sums hold this: a million calls take some seconds. Where that is longer "
        "than the database may take, ask for fewer days, or filter."
    )


def _note(source: str, variants: list[Any], key: str) -> str:
    said = from_calls(source)
    if len(variants) == 1:
        return f"Only one value of {key} was seen, and nothing to compare it with. {said}".strip()
    return f"Differences are to the first column, in percent of it. {said}".strip()
