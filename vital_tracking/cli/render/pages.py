"""What commands make of the pages' own parts: reports that are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vital_tracking.errors import MissingExtra


@contextmanager
def imported_pages() -> Iterator[None]:
    """Where the pages are imported; MissingExtra names what to install where they cannot be."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("vital_tracking"):
            raise
        raise MissingExtra("web", "Making a report") from None
