"""How commands show what they found: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vital_tracking.queries.csv import plain, safe_cell

# As wide as the terminal; for a pipe or a file wide enough that nothing is folded.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)

_BAR: Final = 16
_LEAST_TEXT: Final = 10


def say(text: str) -> None:
    """Print a line as it is: not folded, so that a command in it can be copied, and no word in it taken for markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def drawable(letters: str) -> bool:
    """Whether the terminal, pipe or file can show these characters."""
    try:
        letters.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bar(value: Decimal | int, largest: Decimal | int, width: int = _BAR) -> str:
    """A bar as long as `value` is large beside `largest`."""
    block, sliver = "█▏" if drawable("█▏") else "#|"
    share = float(Decimal(value) / Decimal(largest)) if largest else 0.0
    full = min(max(round(share * width), 0), width)
    return block * full + (sliver if not full and value > 0 else "")


def share_bar(spent: Decimal, granted: Decimal, limit: Decimal) -> Text:
    """A bar of a limit: what is spent (green, from four fifths on yellow, at the limit red), what is granted, and the rest."""
    share = spent / limit if limit else Decimal(1)
    colour = "red" if share >= 1 else "yellow" if share >= Decimal("0.8") else "green"
    block, sliver, shade, dot = "█▏▒·" if drawable("█▏▒·") else "#|=."
    full = min(max(int(share * _BAR), 0), _BAR)
    gone = block * full or (sliver if spent > 0 else "")
    reach = int((spent + granted) / limit * _BAR) if limit else _BAR
    held = max(min(reach, _BAR) - len(gone), int(len(gone) < _BAR)) if granted > 0 else 0
    return Text.assemble((gone, colour), (shade * held, "cyan"), (dot * (_BAR - len(gone) - held), "dim"))


class FoldingTable(Table):
    """A table that shows each row as a list of its cells where the terminal is too narrow for columns: nothing is cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The columns, or where they do not fit a list a row."""
        if not self.folds(options.max_width):
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text(str(self.title), "bold")
        for number, cells in enumerate(zip(*(column.cells for column in self.columns), strict=True)):
            if number:
                yield Text()
            grid = Table.grid(padding=(0, 2))
            grid.style = self.rows[number].style or ""
            grid.add_column(style="bold", overflow="fold", max_width=options.max_width // 2)
            grid.add_column(overflow="fold")
            for column, cell in zip(self.columns, cells, strict=True):
                grid.add_row(column.header, cell)
            yield grid

    def folds(self, width: int) -> bool:
        """Whether so many letters are too few for its columns, and each row is a list."""
        return sum(self._least_widths()) + 2 * (len(self.columns) - 1) > width

    def _least_widths(self) -> Iterable[int]:
        """The columns' least widths: a number stays on one line, text is folded no narrower than a few letters."""
        for column in self.columns:
            lines = [line for cell in (column.header, *column.cells) for line in str(cell).splitlines()]
            widest = max(map(cell_len, lines), default=0)
            yield widest if column.no_wrap else min(widest, _LEAST_TEXT)


def table(title: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str | Text]]) -> FoldingTable:
    """A table; each column is its heading and whether it is a number, set to the right. Text in cells is shown as it is."""
    made = FoldingTable(
        title=Text(printable(title)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for heading, number in columns:
        made.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        made.add_row(*(_shown(cell) for cell in row))
    return made


def _shown(cell: str | Text) -> Text:
    """A cell's text: no word of it taken for markup."""
    return cell if isinstance(cell, Text) else Text(printable(cell))


def printable(text: str) -> str:
    """Text that others chose, without control characters: in somebody's id they could change the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def as_json(rows: object) -> None:
    """Print JSON: amounts as text, so that no reader turns them into a float."""
    ascii_only = not console.encoding.startswith("utf")
    json.dump(rows, sys.stdout, default=_plain, indent=2, ensure_ascii=ascii_only)
    sys.stdout.write("\n")


def _plain(value: object) -> object:
    """What JSON has no word for: dataclasses by their fields, the rest as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return plain(value)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print CSV; a cell that a spreadsheet would take for a formula begins with an apostrophe."""
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([safe_cell(row.get(column)) for column in columns])


def progress_bar(*more: ProgressColumn) -> Progress:
    """A bar with numbers, on the standard error, so that the output stays what was asked for; `more` stands behind it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
