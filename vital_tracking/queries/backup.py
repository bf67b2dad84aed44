"""Backup and restore of the database, with what its calls come to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from vital_tracking.errors import SettingsError
from vital_tracking.queries.export import row_totals
from vital_tracking.queries.maintenance import refresh_views
from vital_tracking.queries.parquet import part_of
from vital_tracking.settings import Settings
from vital_tracking.stores import backup, direct_store
from vital_tracking.stores.postgres import PostgresStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restored database holds: `calls` and what they cost in US dollars (those with a known price)."""

    database: str
    calls: int
    total_cost: Decimal


def back_up(settings: Settings, path: Path) -> str:
    """Write the configured database to a file, which has its name once all is written; what the database is called.

    Raises SettingsError for Supabase over its API, VitalError where pg_dump fails or is not there.
    """
    partial = part_of(path)
    with contextlib.closing(_direct(settings, migrated=False)) as store:
        try:
            backup.back_up(store, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return store.description


def restore(settings: Settings, path: Path) -> Restored:
    """Fill the configured database, which must be empty, from such a file. Raises SettingsError and VitalError."""
    with contextlib.closing(_direct(settings)) as store:
        backup.restore(store, path)
        refresh_views(store)
        totals = row_totals(store)
        return Restored(database=store.description, calls=totals["calls"], total_cost=totals["amount"])


_OF_SUPABASE: Final = SettingsError(
    "SUPABASE_URL",
    "names a project of Supabase's, which makes its own backups every day (Dashboard, Database, Backups)",
    "For a file of your own: supabase db dump, and supabase db dump --data-only.",
)


def _direct(settings: Settings, *, migrated: bool = True) -> PostgresStore:
    if settings.store == "supabase":  # beside our tables a project holds schemas that pg_dump may not read
        raise _OF_SUPABASE
    return direct_store(settings, _OF_SUPABASE, migrated=migrated)
