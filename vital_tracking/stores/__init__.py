"""Where the data go: Supabase over its API, PostgreSQL directly, or the embedded PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vital_tracking.errors import SettingsError
from vital_tracking.settings import Settings
from vital_tracking.stores.protocol import Store

if TYPE_CHECKING:
    from vital_tracking.stores.postgres import PostgresStore

__all__ = ["Store", "direct_store", "open_store"]


def open_store(settings: Settings) -> Store:
    """The store that the settings name: Supabase, else PostgreSQL, else the embedded one. Drivers are imported here.

    Raises SettingsError where half of what Supabase needs is set and nothing else is.
    """
    if settings.supabase_url and settings.supabase_service_key:
        from vital_tracking.stores.supabase import SupabaseStore

        return SupabaseStore(settings.supabase_url, settings.supabase_service_key.get_secret_value())
    if settings.database_url:
        from vital_tracking.stores.postgres import PostgresStore

        return PostgresStore(settings.database_url.get_secret_value())
    if settings.supabase_url or settings.supabase_service_key:
        raise SettingsError(
            "supabase_service_key" if settings.supabase_url else "supabase_url",
            "is not set, and Supabase needs both",
            "Give the project's URL and its secret key.",
        )
    from vital_tracking.stores.embedded import EmbeddedStore

    return EmbeddedStore(settings.data_dir, version=settings.postgres_version)


def direct_store(settings: Settings, over_the_api: SettingsError, *, migrated: bool = True) -> PostgresStore:
    """The database itself, for what cannot be done over an API: the one of `database_url`, or the embedded one.

    With `migrated=False` the embedded one is opened as it is, whatever version made it.

    Raises `over_the_api` where the settings name Supabase over its API alone.
    """
    if settings.store == "supabase" and not settings.database_url:
        raise over_the_api
    if settings.database_url:
        from vital_tracking.stores.postgres import PostgresStore

        return PostgresStore(settings.database_url.get_secret_value())
    from vital_tracking.stores.embedded import EmbeddedStore

    return EmbeddedStore(settings.data_dir, version=settings.postgres_version, migrated=migrated)
