"""Meters: how much room databases and folders take, as the storage that it costs, for exactly the time since the last reading."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from typing_extensions import TypedDict

from vital_tracking.errors import VitalError
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store


@dataclass(frozen=True, slots=True)
class Size:
    """How many bytes a resource takes; of a folder, `unread` is how many of its entries could not be looked at."""

    resource: str
    bytes: int
    unread: int = 0


@answer_type
class Metered(TypedDict):
    """What a reading came to: gigabyte-months since the last one (None: it is the first), and their cost in US dollars.

    `cost_usd` is None where storage has no price, and where there was nothing to record. `also_of` are the other organizations
    (empty text: none) for which a resource of that name is metered.
    """

    resource: str
    bytes: int
    since: datetime | None
    gb_months: Decimal
    cost_usd: Decimal | None
    also_of: list[str]


@answer_type
class _DatabaseSize(TypedDict):
    name: str
    bytes: int


def database_sizes(store: Store) -> list[Size]:
    """The sizes of the databases of the store's server, as PostgreSQL reckons them (`pg_database_size`). Raises StoreError."""
    found = typed(list[_DatabaseSize], store.call("database_sizes_v1"))
    return [Size(f"postgresql:{size['name']}", size["bytes"]) for size in found]


def folder_size(path: Path) -> Size:
    """What the files in a folder hold, those in its folders too: links are not followed, a file with several names counts once.

    Raises VitalError where the folder itself cannot be read.
    """
    path = path.resolve()
    seen: set[tuple[int, int]] = set()
    held = unread = 0
    try:
        entries = _entries(path)
        for entry in entries:
            if isinstance(entry, OSError):
                unread += 1
            elif (entry.st_dev, entry.st_ino) not in seen:
                if entry.st_nlink > 1:
                    seen.add((entry.st_dev, entry.st_ino))
                held += entry.st_size
    except OSError as error:
        raise VitalError(f"{path} cannot be read: {error.strerror}.") from None
    return Size(f"folder:{path}", held, unread)


def _entries(folder: Path) -> Iterator[os.stat_result | OSError]:
    """The files below a folder; in place of what cannot be looked at the error. Of the folder itself it is raised."""
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            yield entry.stat(follow_symlinks=False)
                    except OSError as error:
                        yield error
        except OSError as error:
            if place == os.fspath(folder):
                raise
            yield error


def record_sizes(
    store: Store, sizes: Sequence[Size], *, organization: str | None = None, read_at: datetime | None = None
) -> list[Metered]:
    """Record what sizes cost since each was read last: storage in gigabyte-months (10^9 bytes), to the part of the month.

    A size is taken to have stood since the last reading; what a month comes to does not depend on how often it was read, and a
    reading counts once. The first one of a resource costs nothing. `read_at` is now by default, by the database's clock.
    Raises StoreError where the database cannot answer.
    """
    readings = [
        {
            "resource": size.resource,
            "bytes": size.bytes,
            "organization_id": organization,
            "service": "meter",
            "read_at": read_at.isoformat() if read_at else None,
        }
        for size in sizes
    ]
    return typed(list[Metered], store.call("record_sizes_v1", readings=json.dumps(readings)))
