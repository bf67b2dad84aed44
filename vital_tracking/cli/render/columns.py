"""Tables that fit the terminal: what has no room is left out where it may be, and named; nothing falls away unsaid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vital_tracking.cli.render.console import FoldingTable, console, table
from vital_tracking.queries.words import counted

Line: TypeAlias = Mapping[str, Any]
"""A line of a table, as its columns read it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, whether it is a number, its cells. With the largest `goes` it is left out first; with 0 never.

    `draws` says that it only draws what other columns tell, so that nobody need be told that it is missing.
    """

    heading: str
    number: bool
    cell: Callable[[Any], str | Text]
    goes: int = 0
    draws: bool = False


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table, and the headings of the columns that it has no room for."""

    table: Table
    hidden: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the terminal shows it without folding a line."""
        return width_of(self.table) <= console.width

    def __rich__(self) -> RenderableType:
        """The table, and below it what it leaves out."""
        if not self.hidden:
            return self.table
        said = f"{counted(len(self.hidden), 'column')} hidden: {', '.join(self.hidden)}; wider terminal or --json"
        return Group(self.table, Text(said, "dim"))


def fitted(
    title: str, columns: Sequence[Column], lines: Sequence[Any], *, rows: int | None = None, spare: bool = True
) -> Fitted:
    """A table of the columns that are not empty; with `spare`, columns are left out until it fits the terminal.

    The first `rows` lines are rows; those after them are sums, the last one that of all.
    """
    rows = len(lines) if rows is None else rows
    cells = {id(column): [column.cell(line) for line in lines] for column in columns}
    known = [column for column in columns if any(str(cell).strip(" -*~") for cell in cells[id(column)][: max(rows, 1)])]

    def of(kept: Sequence[Column]) -> FoldingTable:
        headings = [(column.heading, column.number) for column in kept]
        return table(title, headings, zip(*(cells[id(column)] for column in kept), strict=True) if kept else [])

    kept, hidden = list(known), list[Column]()
    while True:
        made = of(kept)
        least = max(kept, key=lambda column: column.goes, default=None)
        if not spare or least is None or not least.goes or width_of(made) <= console.width:
            break
        kept.remove(least)
        hidden.append(least)
    if hidden and made.folds(console.width):  # each row is a list, in which all have room
        made, hidden = of([column for column in known if not column.draws]), []
    for number in range(rows, len(lines)):
        made.rows[number].style = "bold" if number == len(lines) - 1 else "dim"
    return Fitted(made, tuple(column.heading for column in columns if column in hidden and not column.draws))


def width_of(made: Table) -> int:
    """How wide a table is where nothing of it is folded."""
    return console.measure(made, options=console.options.update_width(10_000)).maximum
