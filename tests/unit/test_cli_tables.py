"""Tables of the command line: whatever the terminal's width, each figure is shown whole."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import console, table

COLUMNS = (("ORGANIZATION", False), ("COST", True), ("WHAT", False), ("CALLS", True))


def shown(rows: list[tuple[str, ...]], width: int) -> str:
    """What a terminal of this width shows."""
    screen = Console(width=width, file=StringIO(), color_system=None)
    screen.print(table("Bill", COLUMNS, rows))
    assert isinstance(screen.file, StringIO)
    return screen.file.getvalue()


ids = st.text("abcdefghij-", min_size=1, max_size=40)
amounts = st.decimals(0, 10**9, places=9).map(lambda amount: f"${amount:,}")


@given(
    rows=st.lists(st.tuples(ids, amounts, ids, st.integers(0, 10**12).map(str)), min_size=1, max_size=3),
    width=st.integers(20, 120),
)
def test_no_figure_is_cut_off_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    said = shown(rows, width)
    assert max(len(line) for line in said.splitlines()) <= width
    assert sorted("".join(said.split())) == sorted(
        "".join("".join(["Bill", *(cell for row in rows for cell in row)]).split() + _headings(said))
    )


def _headings(said: str) -> list[str]:
    """The headings as often as they are shown: once above columns, once a row in lists."""
    times = "".join(said.split()).count("COST") or 1
    return [heading for heading, _ in COLUMNS] * times


def test_a_row_becomes_a_list_where_columns_have_no_room() -> None:
    said = shown([("acme", "$1,234.567890123", "a panel", "17")], 40)
    assert [line.split() for line in said.splitlines()] == [
        ["Bill"],
        ["ORGANIZATION", "acme"],
        ["COST", "$1,234.567890123"],
        ["WHAT", "a", "panel"],
        ["CALLS", "17"],
    ]


def test_a_list_leaves_no_column_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, whoever looks from a narrow terminal would not see what there is room for."""
    columns = (
        Column("organization", False, lambda row: row[0]),
        Column("cost", True, lambda row: row[1]),
        Column("figures", False, lambda row: row[2], 1),
    )
    rows = [("acme-clinics-north", "$1,234,567.891234", "412 calls in 5 minutes")]
    for width, headings, hidden in ((200, 3, ()), (50, 2, ("figures",)), (20, 3, ())):
        monkeypatch.setattr(console, "width", width)
        made = fitted("", columns, rows)
        assert (len(made.table.columns), made.hidden) == (headings, hidden), width
