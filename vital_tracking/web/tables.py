"""Tables of parts as HTML. A page has a thousand cells: written by a template they took most of its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from vital_tracking.web import numbers
from vital_tracking.web.page import Column, Part, Row

STACKED_FROM: Final = 4
"""Tables of so many columns, or of two with sentences, are read row by row on phones; then each cell says what it is."""

_CLASSES: Final = {"prose": "prose", "brief": "brief", "id": "id", "moment": "at", "minute": "at", "day": "at"}


def table(part: Part) -> Markup:
    """The table of a part, in a box of its own that scrolls where a table is wider."""
    columns = [column for column in part.shown if not column.beside]
    besides = _besides(part.shown)
    stacked = len(columns) >= STACKED_FROM or sum(column.unit == "prose" for column in columns) > 1
    pads = part.pads
    cells = [_cell(column, besides.get(column.name), pads.get(column.name, 0), stacked) for column in columns]
    title = escape(part.title)
    out = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}, table">\n<table',
        ' class="stack"' if stacked else "",
        " data-sortable" if part.sortable and len(part.rows) > 1 else "",
        f'>\n<caption class="hidden">{title}</caption>\n<thead><tr>',
        *map(_heading, columns),
        "</tr></thead>\n<tbody>\n",
    ]
    for row in part.rows:
        out.append('<tr class="others">' if row.get("others") else "<tr>")
        out.extend(cell(row, False) for cell in cells)
        out.append("</tr>\n")
    out.append("</tbody>\n")
    if part.total:
        out.append("<tfoot><tr>")
        out.extend(cell(part.total, True) for cell in cells)
        out.append("</tr></tfoot>\n")
    out.append("</table>\n</div>")
    return Markup("".join(out))  # noqa: S704 - of what is escaped


def _heading(column: Column) -> str:
    number = ' class="n"' if column.is_number else ""
    about = f' title="{escape(column.about)}"' if column.about else ""
    told = f'{number}{about} data-unit="{column.unit}" data-name="{escape(column.name)}"'
    return f'<th scope="col"{told}>{escape(column.label)}</th>'


def _besides(columns: Sequence[Column]) -> dict[str, Column]:
    """What stands beside which column, by its name."""
    return {before.name: column for before, column in pairwise(columns) if column.beside}


def _cell(column: Column, beside: Column | None, most_places: int, stacked: bool) -> Callable[[Row, bool], str]:
    """What writes the cells of a column: of a row, and whether it is the total."""
    name, unit, link = column.name, column.unit, column.link
    kind = ' class="n"' if column.is_number else f' class="{_CLASSES[unit]}"' if unit in _CLASSES else ""
    label = f' data-label="{escape(column.label)}"' if stacked else ""

    def cell(row: Row, is_total: bool) -> str:
        value = row.get(name)
        text = column.text(row)
        shown = escape(text)
        title = pad = ""
        if unit == "id":
            title = f' title="{shown}"'
        elif value is not None and (unit == "usd" or (unit == "amount" and row["metric"] == "cost_usd")):
            title = f' title="{numbers.usd_exact(value)}"'
        if most_places and value is not None and (missing := most_places - column.places(text)) > 0:
            pad = f' data-pad="{"0" * missing}"'
        told = f'{kind}{pad}{title}{label} data-v="{escape(column.exact(row))}"'
        also = ""
        if beside is not None and row.get(beside.name) is not None:
            also = f' <span class="beside">{escape(f"{beside.label} {beside.text(row)}".strip())}</span>'
        return f"<td{told}>{inside(row, value, shown, is_total)}{also}</td>"

    def inside(row: Row, value: object, shown: str, is_total: bool) -> str:
        if unit == "flag":
            return f'<span class="badge {escape(row[name][0])}">{escape(row[name][1])}</span>' if value else ""
        if unit == "meter":
            return (
                f'<span class="none">{shown}</span>'
                if value is None
                else f'<meter min="0" low="60" high="80" optimum="0" max="100" value="{column.exact(row)}"'
                f' aria-label="{escape(column.label)}"></meter> <span class="of">{shown}</span>'
            )
        if link is not None and (href := link(row)):
            return f'<a href="{escape(href)}">{shown}</a>'
        if value is None:
            return "" if is_total else f'<span class="none">{shown}</span>'
        return f'<code class="command">{shown}</code>' if unit == "command" else shown

    return cell
