"""`vital-tracking migrate`: brings a database to this version's tables, functions and views."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from vital_tracking.cli.render.console import say
from vital_tracking.errors import SettingsError
from vital_tracking.migrate import find_migrations, seed_sql
from vital_tracking.queries.maintenance import make_partitions
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store
from vital_tracking.stores.postgres import PostgresStore


def migrate(
    database_url: Annotated[
        str | None,
        typer.Option("--database-url", help="The database to migrate; by default the one that the environment names."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List this version's migrations and change nothing.")
    ] = False,
    seed: Annotated[
        bool, typer.Option("--seed", help="Set the default budgets too; those that are there stay as they are.")
    ] = False,
) -> None:
    """Apply the migrations that the database has not seen. Safe to run again, and beside `supabase db push`."""
    migrations = find_migrations()
    if dry_run:
        for migration in migrations:
            say(f"{migration.version} {migration.name}")
        return
    store = _store_at(database_url) if database_url else _direct_store()
    applied = store.migrate(migrations)
    made = make_partitions(store, datetime.now(UTC).date(), 13)
    for migration in applied:
        say(f"applied {migration.version} {migration.name}")
    if seed:
        store.seed(seed_sql())
        say("set the default budgets; see: vital-tracking budgets list")
    partitions = counted(made, "new partition")
    say(f"{store.description} is up to date: {len(migrations)} migrations, {partitions}")
    store.close()


def _store_at(database_url: str) -> PostgresStore:
    try:
        return PostgresStore(database_url)
    except SettingsError as error:
        raise SettingsError("--database-url", "cannot be read as a PostgreSQL URL", error.fix) from None


def _direct_store() -> PostgresStore:
    settings = Settings.from_env()
    if settings.supabase_url:
        if settings.database_url:
            return PostgresStore(settings.database_url.get_secret_value())
        raise SettingsError(
            "VITAL_DATABASE_URL",
            "is not set, and the API of Supabase cannot change tables",
            "Run `supabase db push` in this project, or give the project's connection string with --database-url.",
        )
    store = open_store(settings)
    assert isinstance(store, PostgresStore)  # noqa: S101 - without SUPABASE_URL there is no other
    return store
