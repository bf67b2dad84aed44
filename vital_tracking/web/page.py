"""The parts that pages are made of: a table, whose rows a chart may be drawn from, and which can be had as CSV.

The table is the one source: it works without JavaScript, is what screen readers read, and what charts are drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, TypeAlias

from vital_tracking.web import numbers
from vital_tracking.web.csv import csv_lines

UnitName: TypeAlias = Literal[
    "text",
    "id",
    "usd",
    "calls",
    "tokens",
    "percent",
    "ms",
    "day",
    "moment",
    "minute",
    "points",
    "brief",
    "flag",
    "command",
    "meter",
    "amount",
    "prose",
    "of_row",
    "change",
]
Row: TypeAlias = Mapping[str, Any]

_WRITTEN: Final[Mapping[str, Callable[[Any], str]]] = {
    "usd": numbers.usd,
    "calls": numbers.count,
    "tokens": numbers.count,
    "percent": numbers.percent,
    "meter": numbers.percent,
    "ms": numbers.duration,
    "change": numbers.change_text,
    "points": numbers.points,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the field of a row that it shows, its heading, its unit, and where a cell leads (None: nowhere).

    An `amount` is one in the row's `metric`, what is `of_row` in the row's `unit`, `prose` is shown whole, what is `brief` in a
    narrow column, an `id` is cut. `none` is what stands where a text has no value. `about` is said where the heading is pointed
    at. A `rare` column is shown where some row has something in it. One that stands `beside` another is shown softly, after its
    label, in the cell of the column before it.
    """

    name: str
    label: str
    unit: UnitName = "text"
    link: Callable[[Row], str | None] | None = None
    none: str = numbers.NOTHING
    about: str = ""
    rare: bool = False
    beside: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its cells are aligned as numbers."""
        return self.unit in _WRITTEN or self.unit in ("amount", "of_row")

    def text(self, row: Row) -> str:
        """What a cell shows."""
        value = row.get(self.name)
        if value is None:
            return self.none
        unit = row["unit"] if self.unit == "of_row" else self.unit
        if unit in _WRITTEN:
            return _WRITTEN[unit](value)
        if self.unit == "amount":
            return numbers.usd(value) if row["metric"] == "cost_usd" else f"{numbers.count(value)} {row['metric']}"
        if self.unit == "moment" and isinstance(value, datetime):
            return numbers.moment(value)
        if self.unit == "minute" and isinstance(value, datetime):
            return numbers.moment(value).rpartition(":")[0]
        if isinstance(value, date):
            return value.isoformat()
        return str(value)

    @staticmethod
    def places(text: str) -> int:
        """How many digits the text of a cell shows after the point."""
        _, _, digits = text.partition(".")
        return len(digits) if digits.isdecimal() else 0

    def value(self, row: Row) -> Any:
        """What a cell holds; of a flag its words, without how they are coloured."""
        value = row.get(self.name)
        return value[1] if value and self.unit == "flag" else value

    def exact(self, row: Row) -> str:
        """What a program or a chart reads of a cell."""
        return numbers.machine(self.value(row))


@dataclass(frozen=True, slots=True)
class Chart:
    """How a part is drawn: `x` and `y` are columns of its table, `series` the column that tells lines or bars apart.

    Kinds: `bars`, `lines`, `area`, `doughnut`, `heatmap` (then `series` is the other axis). `stacked` piles series up; `ahead` is
    the one of `y` that is not there yet.
    """

    kind: Literal["bars", "lines", "area", "doughnut", "heatmap"]
    x: str
    y: tuple[str, ...]
    series: str | None = None
    stacked: bool = False
    horizontal: bool = False
    ahead: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page: what it shows in a title and a sentence, its rows, the chart of them, what is said of none.

    `total` is a last row. `more` says how many rows are not shown, `leads` where all are, as its words and its address. It takes
    a `span` of the page's width, or all of it (`wide`).
    """

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    chart: Chart | None = None
    note: str = ""
    empty: str = "No calls in this time."
    total: Row | None = None
    more: str = ""
    leads: tuple[str, str] | None = None
    wide: bool = False
    sortable: bool = True
    span: Literal["half", "third", "two-thirds"] = "half"

    @property
    def shown(self) -> list[Column]:
        """The columns of the page's table; a CSV has them all."""
        return [one for one in self.columns if not one.rare or any(row.get(one.name) for row in self.rows)]

    @property
    def pads(self) -> dict[str, int]:
        """How many digits after the point the amounts of a column have at most, so that their points can be aligned."""
        rows = [*self.rows, *([self.total] if self.total else ())]
        return {
            one.name: max((one.places(one.text(row)) for row in rows), default=0)
            for one in self.shown
            if one.unit in ("usd", "amount")
        }

    def csv(self) -> Iterator[str]:
        """The rows as CSV, a line at a time, with all digits; no spreadsheet runs a cell as a formula."""
        yield from csv_lines([column.name for column in self.columns], self._cells())

    def _cells(self) -> Iterator[list[object]]:
        for row in self.rows:
            yield [column.value(row) for column in self.columns]


@dataclass(frozen=True, slots=True)
class Card:
    """A figure with its name, what it was in the time before, and where it leads. `good` says which way is better."""

    label: str
    value: str
    exact: str = ""
    note: str = ""
    change: str = ""
    trend: Literal["", "up", "down", "same"] = ""
    good: Literal["up", "down", ""] = ""
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page: the question that it answers, one sentence that says what it shows and how fresh that is, and its parts.

    `of_time` is False where it is about one thing, whatever time is chosen; `live` is False where looking takes the database so
    long that an open page does not look again by itself. `newest` is what it shows in place of calls, such as events, and when
    the newest of it was.
    """

    name: str
    title: str
    lead: str
    cards: Sequence[Card] = ()
    parts: Sequence[Part] = ()
    notices: Sequence[str] = ()
    crumbs: Sequence[tuple[str, str]] = ()
    template: str = "page.html"
    of_time: bool = True
    live: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    newest: tuple[str, datetime | date | None] | None = None
