"""Any measure by any two dimensions: a report of one's own, whose address is how it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

from vital_tracking.queries.catalogue import MEASURES, Unit
from vital_tracking.queries.explore import DIMENSIONS, TIMES, Explored
from vital_tracking.queries.reports import WEEKDAYS
from vital_tracking.queries.saved_reports import saved_reports
from vital_tracking.web.asked import METADATA
from vital_tracking.web.page import Chart, Column, Page, Part, UnitName
from vital_tracking.web.pages.common import id_columns, name_of
from vital_tracking.web.pages.overview import notices
from vital_tracking.web.pages.variants import from_calls, variants_part
from vital_tracking.web.problems import Problem
from vital_tracking.web.view import View

_UNITS: Final[Mapping[Unit, UnitName]] = {
    Unit.calls: "calls",
    Unit.tokens: "tokens",
    Unit.usd: "usd",
    Unit.percent: "percent",
    Unit.ms: "ms",
}
_CHOSEN: Final = tuple(name for name in MEASURES if name not in ("share", "last_day", "services"))
_TOP: Final = 8
_ROWS: Final = 2_000
_LONGEST_KEY: Final = 71


def page(view: View, parameters: Mapping[str, str], channels: Sequence[str] = ()) -> Page:
    """The calls that were asked for by `by` and `then`, as `measure` says, and the `variants` of a key of the metadata.

    `channels` are those to which the reader may have reports sent: the operator's alone.
    """
    by = _one_of(parameters, "by", "service", DIMENSIONS, metadata=True)
    then = _one_of(parameters, "then", "", {"": "", **DIMENSIONS}, metadata=True)
    measure = _one_of(parameters, "measure", "total_cost", dict.fromkeys(_CHOSEN, ""))
    key = _key(parameters)
    # A time comes first, so that its steps are in their order.
    dimensions = [by] if then in ("", by) else [then, by] if then in TIMES and by not in TIMES else [by, then]
    told = ("calls", "unpriced_calls", "estimated_calls", measure)
    found = cache(lambda: view.explore(*dimensions, measures=told, order_by=measure, rows=_ROWS))
    builders = {"explored": lambda: _explored(view, found(), dimensions, measure)}
    if key:
        builders["variants"] = lambda: variants_part(view, key)
    return Page(
        "explore",
        "Explore",
        f"{_title(dimensions, measure)}. The address of this page is the report: keep it or share it.",
        notices=[] if view.part in builders else notices(found().total),
        parts=view.parts(builders),
        template="explore.html",
        extra={
            "by": by,
            "then": then,
            "measure": measure,
            "variants": key,
            "query": view.asked.here(measure=measure, by=by, then=then or None),
            "measures": [(name, MEASURES[name].label.capitalize()) for name in _CHOSEN],
            "dimensions": [
                *((name, label.capitalize()) for name, label in DIMENSIONS.items()),
                *((name, _label(name)) for name in _keys(by, then, f"{METADATA}{key}")),
            ],
            "saved": [
                (kept, f"{view.path('explore')}?{urlencode(kept.asked)}")
                for kept in saved_reports(view.store)
                if kept.kind == "explore"
            ],
            "channels": channels,
            "weekdays": WEEKDAYS,
            "timezone": view.asked.period.timezone,
        },
    )


def _explored(view: View, found: Explored, dimensions: list[str], measure: str) -> Part:
    names = [name_of(found, dimension) for dimension in dimensions]
    rows = [
        {**row, **{f"{d}_name": _shown(row, d, name) for d, name in zip(dimensions, names, strict=True)}}
        for row in found.rows
    ]
    columns = [Column(f"{d}_name", _label(d).capitalize()) for d in dimensions]
    columns[-1] = Column(columns[-1].name, columns[-1].label, link=view.link("calls", *dimensions))
    columns += id_columns(found, dimensions)
    shown = MEASURES[measure]
    measures = [Column(measure, shown.label.capitalize(), _UNITS[shown.unit])]
    measures += [
        Column(name, label, "calls")
        for name, label in (("calls", "Calls"), ("unpriced_calls", "Unpriced"))
        if name != measure
    ]
    return Part(
        "explored",
        _title(dimensions, measure),
        [*columns, *measures],
        rows,
        _chart(dimensions, measure, len(rows)),
        note=from_calls(found.source),
        more=f"{found.groups - len(rows):,} more groups are not shown: filter, or choose a coarser one."
        if found.groups > len(rows)
        else "",
        wide=True,
    )


def _title(dimensions: list[str], measure: str) -> str:
    return f"{MEASURES[measure].label.capitalize()} by {' by '.join(_label(d) for d in dimensions)}"


def _keys(*dimensions: str) -> list[str]:
    """The keys of the metadata among these dimensions, each once."""
    return [one for one in dict.fromkeys(dimensions) if one.startswith(METADATA) and one != METADATA]


def _key(parameters: Mapping[str, str]) -> str:
    """The key of the metadata whose values are compared; none where it is empty."""
    key = parameters.get("variants", "").strip()
    if len(key) <= _LONGEST_KEY and key.isprintable():
        return key
    raise Problem(
        422,
        "invalid-request",
        "There is no such key of the metadata",
        hint=f"Name one of at most {_LONGEST_KEY} characters, such as prompt_version.",
    )


def _one_of(
    parameters: Mapping[str, str], name: str, default: str, offered: Mapping[str, str], *, metadata: bool = False
) -> str:
    value = parameters.get(name, default)
    if value in offered or (
        metadata and value.startswith("metadata.") and 9 < len(value) <= 80 and value.isprintable()
    ):
        return value
    raise Problem(
        422,
        "invalid-request",
        f"There is no {name} of that name",
        hint=f"Choose {'metadata.KEY or ' * metadata}one of {', '.join(one for one in offered if one)}.",
    )


def _label(dimension: str) -> str:
    return DIMENSIONS.get(dimension, dimension.removeprefix("metadata."))


def _shown(row: Mapping[str, Any], dimension: str, name: Any) -> str:
    return str(row[dimension]) if dimension in TIMES else str(name(row))


def _chart(dimensions: list[str], measure: str, rows: int) -> Chart | None:
    if not rows:
        return None
    x = f"{dimensions[0]}_name"
    series = f"{dimensions[1]}_name" if len(dimensions) > 1 else None
    if dimensions[0] in TIMES:
        return Chart("lines" if series else "bars", x, (measure,), series=series)
    return Chart("bars", x, (measure,), series=series, stacked=series is not None, horizontal=series is None)
