"""Lists that are read page by page: every row once, in its order, and no page more than is needed."""

from __future__ import annotations

import pytest

from vital_tracking.queries.paging import every_row


@pytest.mark.parametrize(("rows", "pages"), [(0, 1), (2, 1), (3, 2), (7, 3)])
def test_every_row_is_read_once(rows: int, pages: int) -> None:
    """If this failed, an export would miss calls or bring some twice, or ask the database without end."""
    asked: list[int | None] = []

    def page_after(place: int | None) -> list[int]:
        asked.append(place)
        first = 0 if place is None else place + 1
        return list(range(rows))[first : first + 3]

    assert list(every_row(page_after, lambda row: row, 3)) == list(range(rows))
    assert len(asked) == pages
