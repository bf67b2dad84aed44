"""`vital-tracking migrate`: brings a database to this version's tables, functions and views, or takes them out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.console import say
from vital_tracking.cli.render.session import Yes
from vital_tracking.errors import SettingsError
from vital_tracking.migrate import find_migrations, seed_sql, write_into, write_uninstall_into
from vital_tracking.queries.maintenance import make_partitions
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import direct_store
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
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FOLDER",
            help="Touch no database: write those migrations that your Supabase project's folder lacks into it, to be pushed.",
        ),
    ] = None,
    uninstall: Annotated[
        bool,
        typer.Option(
            "--uninstall", help="Take out all tables, functions and views of vital_tracking with all their data."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Apply the migrations that the database has not seen. Safe to run again, and beside your project's own migrations.

    What was applied stands in vital_private.migrations; the history of `supabase db push` stays your project's.

    \b
    Examples:
      vital-tracking migrate
      vital-tracking migrate --write supabase/migrations
      vital-tracking migrate --uninstall
    """
    if seed and (write or uninstall):
        raise typer.BadParameter("the default budgets are set in a database, with `migrate --seed` alone")
    if write and database_url:
        raise typer.BadParameter("--write touches no database: leave --database-url out")
    migrations = find_migrations()
    if dry_run:
        for migration in migrations:
            say(f"{migration.version} {migration.name}")
        return
    if write:
        _write(write, uninstall=uninstall)
        return
    if uninstall:
        _uninstall(_store(database_url, migrated=False), yes=yes)
        return
    store = _store(database_url)
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


def _write(folder: Path, *, uninstall: bool) -> None:
    if uninstall:
        say(f"wrote {write_uninstall_into(folder, find_migrations())}")
        say("It deletes all calls, sums, budgets and prices when it is pushed: supabase db push")
        return
    written = write_into(folder, find_migrations())
    for path in written:
        say(f"wrote {path}")
    say("Now push them: supabase db push" if written else f"{folder} holds all migrations of this version")


def _uninstall(store: PostgresStore, *, yes: bool) -> None:
    migrations = find_migrations()
    there = store.installed(migrations)
    if not there.relations and not there.functions and not there.schema:
        say(f"{store.description} holds nothing of vital_tracking")
        return
    calls = f" with {counted(there.calls, 'call')}" if there.calls is not None else ""
    say(f"This drops from {store.description}, with all that is in them:")
    for name in there.relations:
        say(f"  {name}{calls if name == 'public.token_usage_logs' else ''}")
    say(f"  {counted(there.functions, 'function')} of the schema public, the schema vital_private, and jobs of pg_cron")
    say("Roles stay. Calls that wait in the spools of processes are not touched.")
    if not yes:
        typer.confirm("Drop all of it? Nobody can undo it", abort=True)
    store.uninstall(migrations)
    say(f"{store.description} holds nothing of vital_tracking any more")
    store.close()


_OVER_THE_API: Final = SettingsError(
    "VITAL_DATABASE_URL",
    "is not set, and the API of Supabase cannot change tables",
    "Give the project's connection string with --database-url, or write the migrations into your project with --write "
    "supabase/migrations and run `supabase db push`.",
)


def _store(database_url: str | None, *, migrated: bool = True) -> PostgresStore:
    if database_url:
        return _store_at(database_url)
    return direct_store(Settings.from_env(), _OVER_THE_API, migrated=migrated)


def _store_at(database_url: str) -> PostgresStore:
    try:
        return PostgresStore(database_url)
    except SettingsError as error:
        raise SettingsError("--database-url", "cannot be read as a PostgreSQL URL", error.fix) from None
