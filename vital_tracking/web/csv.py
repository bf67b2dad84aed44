"""Rows as CSV, sent as they are read: no more of them are in memory than one page of the list."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import chain
from typing import Final

from starlette.responses import StreamingResponse

from vital_tracking.queries.csv import safe_cell

_AT_ONCE: Final = 1 << 14


def csv_lines(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """CSV in pieces of whole lines, with all digits; no spreadsheet runs a cell as a formula."""
    buffer = StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(heading)
    for row in rows:
        writer.writerow([safe_cell(value) for value in row])
        if buffer.tell() >= _AT_ONCE:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


class CsvFile(StreamingResponse):
    """A file of CSV, sent as it is read."""

    media_type = "text/csv"


def csv_response(lines: Iterator[str], name: str) -> CsvFile:
    """Pieces of CSV as a file of that name, sent as they come. The first is read at once: what goes wrong there is an error."""
    first = next(lines, "")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return CsvFile(chain([first], lines), headers=headers)
