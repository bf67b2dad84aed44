"""Lists that are longer than a page: all of their rows, in the memory of one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Place = TypeVar("Place")


def every_row(
    page_after: Callable[[Place | None], Sequence[Row]], place_of: Callable[[Row], Place], at_once: int
) -> Iterator[Row]:
    """All rows of a list whose pages are asked for by the place of the last row before them, `at_once` on a page."""
    place: Place | None = None
    while True:
        rows = page_after(place)
        yield from rows
        if len(rows) < at_once:
            return
        place = place_of(rows[-1])
