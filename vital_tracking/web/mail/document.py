"""A page as Markdown and as HTML for mail and chat: the same tables, with the sums of money to their last digit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from vital_tracking.queries.catalogue import MEASURES
from vital_tracking.web import numbers
from vital_tracking.web.page import Column, Page, Part, Row

MOST_ROWS: Final = 100
"""As many rows of a table as a mail shows."""


@dataclass(frozen=True, slots=True)
class Document:
    """A page in two forms: its title, and the page as Markdown and as a whole HTML document."""

    title: str
    markdown: str
    html: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its text, and where it leads."""

    text: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A part of a page as a mail shows it."""

    part: Part
    rows: list[list[Cell]]
    more: str


def document(page: Page, title: str, period: str, link: str | None) -> Document:
    """A page under a title, with the time that it is about. `link` leads to the page itself; without it no cell leads on."""
    tables = [_table(part, linked=link is not None) for part in page.parts]
    values = {"page": page, "title": title, "period": period, "link": link, "tables": tables}
    html = _environment().get_template("mail.html").render(**values)
    return Document(title, "\n".join(_markdown(page, period, link, tables)), html)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("vital_tracking.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _table(part: Part, *, linked: bool) -> Table:
    rows = [*part.rows[:MOST_ROWS], *([part.total] if part.total is not None else [])]
    hidden = len(part.rows) - MOST_ROWS
    more = [f"{hidden:,} more rows are on the page."] if hidden > 0 else []
    return Table(
        part,
        [[_cell(column, row, linked=linked) for column in part.columns] for row in rows],
        " ".join([*more, *([part.more] if part.more else [])]),
    )


def _cell(column: Column, row: Row, *, linked: bool) -> Cell:
    value = column.value(row)
    if column.unit == "flag":
        text = str(value or "")
    elif value is not None and (
        column.unit in ("usd", "amount") and column.name in _SUMS and row.get("metric", "cost_usd") == "cost_usd"
    ):
        text = numbers.usd_exact(value)
    else:
        text = column.text(row)
    return Cell(text, column.link(row) if linked and column.link else None)


# What is added up is shown with all its digits; quotients, which have no last one, as on the page.
_SUMS: Final = frozenset((*MEASURES, "spent", "limit_amount", "cost", "projected"))


def _markdown(page: Page, period: str, link: str | None, tables: list[Table]) -> Iterator[str]:
    yield from (escaped(period), "")
    if page.lead:
        yield from (escaped(page.lead), "")
    for card in page.cards:
        told = ", ".join(text for text in (card.change, card.note) if text)
        yield f"- {escaped(card.label)}: **{escaped(card.value)}**{f' ({escaped(told)})' if told else ''}"
    if page.cards:
        yield ""
    for notice in page.notices:
        yield from (f"> {escaped(notice)}", "")
    for table in tables:
        yield from (f"## {escaped(table.part.title)}", "")
        if table.part.note:
            yield from (escaped(table.part.note), "")
        if not table.rows:
            yield from (escaped(table.part.empty), "")
            continue
        yield _line([escaped(column.label) for column in table.part.columns])
        yield _line(["---:" if column.is_number else "---" for column in table.part.columns])
        for row in table.rows:
            yield _line([f"[{escaped(cell.text)}]({cell.link})" if cell.link else escaped(cell.text) for cell in row])
        yield ""
        if table.more:
            yield from (escaped(table.more), "")
    if link:
        yield f"[Open the page]({link})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that is no Markdown, on one line: what others chose as a name is shown, makes no link and calls nobody."""
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
    return re.sub(r"@(?=everyone|here|channel)", "@\N{ZERO WIDTH SPACE}", text)
