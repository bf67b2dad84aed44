"""What the pages of events and of other costs share: their form, links to their own rows, time before, and figures by time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from zoneinfo import ZoneInfo

from vital_tracking.queries.explore import TIMES, Explored
from vital_tracking.web import numbers
from vital_tracking.web.page import Card, Row
from vital_tracking.web.pages.calls import FIELD
from vital_tracking.web.pages.common import NONE_OF
from vital_tracking.web.platform_asked import PlatformAsked
from vital_tracking.web.view import DAYS_OF, View

ROWS: Final = 100
"""How many rows of the list stand on a page."""

Labels = Mapping[str, tuple[str, Sequence[str]]]


def here(view: View, page: str, /, **own: Any) -> str:
    """The page's list with other parameters; None stands for rows that have none of it."""
    changes = {name: "" if value is None else str(value) for name, value in own.items()}
    return f"{view.path(page)}?{view.asked.here(**changes)}#list"


def rows_link(view: View, page: str, *dimensions: str) -> Callable[[Row], str]:
    """Where a figure leads: to the rows behind it, on the same page; from a total to all that were asked for."""

    def of(row: Row) -> str:
        asked = view.asked
        for name in dimensions:
            if name in DAYS_OF and name in row:
                asked = asked.within(row[name], DAYS_OF[name](row[name]))
            elif name == "hour" and name in row:
                day = row[name].astimezone(ZoneInfo(asked.period.timezone)).date()
                asked = asked.within(day, day)
        own = {name: row[name] for name in dimensions if name in row and name not in TIMES}
        return here(replace(view, asked=asked), page, **own)

    return of


def form(view: View, asked: PlatformAsked, page: str, fields: Labels, flag: tuple[str, str]) -> dict[str, Any]:
    """The fields of the form as what was asked fills them; `kept` is what it hands on without a field."""
    values = {name: found[0] or "" for name, found in asked.where.items() if len(found) == 1}
    filled = {name: values.get(name, "") for name in fields}
    beyond = {*fields, flag[0]}
    return {
        "fields": [(f"{FIELD}{name}", label, filled[name], choices) for name, (label, choices) in fields.items()],
        "filled": any(filled.values()),
        "flag": (*flag, asked.flagged),
        "kept": [(name, value) for name, value in (*view.asked.pairs, *view.asked.own.items()) if name not in beyond],
        "csv": f"{view.path(page)}?{view.asked.here(format='csv', part='all')}",
    }


def pager(view: View, page: str, after: str | None, place: str | None) -> dict[str, Any]:
    """Where the list goes on, and where it began."""
    return {
        "older": f"{view.path(page)}?{view.asked.here(after=place)}#list" if place else None,
        "newest": f"{view.path(page)}?{view.asked.here()}#list" if after else None,
    }


def grown_card(label: str, now: Any, before: Any, write: Callable[[Any], str], *, exact: str = "", **more: Any) -> Card:
    """A figure against the time before."""
    grown = numbers.change(now, before)
    told = "" if now is None or (grown is None and not now) else numbers.change_text(grown)
    trend: Any = {"+": "up", "\N{MINUS SIGN}": "down"}.get(told[:1], "")  # as it is shown: no colour for nothing
    return Card(label, write(now), exact, note=f"before: {write(before)}", change=told, trend=trend, **more)


def by_time_and(
    found: Explored, time: str, dimension: str, measure: str, *, most: int, nothing: Any = 0
) -> tuple[list[str], list[Row]]:
    """A row for each step of time with a column for each of the greatest values of a dimension, and one for all others."""
    sums: dict[str, Any] = {}
    for row in found.rows:
        sums[_named(row[dimension])] = sums.get(_named(row[dimension]), nothing) + (row[measure] or nothing)
    names = sorted(sums, key=lambda name: (-sums[name], name))
    kept, others = names[:most], len(names) > most
    columns = [*kept, *(["others"] if others else [])]
    steps: dict[Any, dict[str, Any]] = {}
    for row in found.rows:
        step = steps.setdefault(row[time], {time: row[time], **dict.fromkeys(columns, nothing)})
        name = _named(row[dimension])
        step[name if name in kept else "others"] += row[measure] or nothing
    return columns, [steps[one] for one in sorted(steps)]


def _named(value: str | None) -> str:
    return NONE_OF if value is None else value
