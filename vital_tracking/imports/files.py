"""Which files were imported, and how far."""

from __future__ import annotations

from datetime import datetime

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store


@answer_type
class BadLineSeen(TypedDict):
    """A line that could not be read: its number, where in the text it begins, its length in bytes, and what is wrong with it."""

    place: int
    line_number: int
    line_length: int
    reason: str


@answer_type
class ImportedFile(TypedDict):
    """A file of which lines were imported, up to `place` in bytes of its text; `bad`: its first bad ones of the last 30 days."""

    file_key: str
    name: str | None
    server: str | None
    place: int
    lines: int
    events: int
    costs: int
    bad_lines: int
    first_read_at: datetime
    last_read_at: datetime
    bad: list[BadLineSeen]


def imported_files(store: Store, *, limit: int = 50) -> list[ImportedFile]:
    """The files that were imported, the last read first. Raises StoreError."""
    return typed(list[ImportedFile], store.call("imports_v1", max_rows=limit))
