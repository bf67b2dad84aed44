"""`vital-tracking psql`: opens the configured database in PostgreSQL's own command line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final
from urllib.parse import urlsplit

import typer

from vital_tracking.errors import SettingsError, StoreNotReady
from vital_tracking.settings import Settings
from vital_tracking.stores import direct_store
from vital_tracking.stores.programs import command_for, find_program

CONTEXT_SETTINGS: Final = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What psql takes is passed on to it."""


def psql(context: typer.Context) -> None:
    """Open the configured database in psql: the PostgreSQL that is set, else the embedded one.

    Further arguments go to psql. A password is handed over in psql's environment, never on its command line. Supabase's API
    speaks no SQL: set VITAL_DATABASE_URL to the project's connection string too. To look into the embedded database while
    another one is configured: VITAL_STORE=embedded vital-tracking psql

    \b
    Examples:
      vital-tracking psql
      vital-tracking psql -c "select * from cost_breakdown('model')"
      vital-tracking psql --csv -c "select * from system_analytics" > days.csv
    """
    settings = Settings.from_env()
    try:
        store = direct_store(settings, _over_the_api(settings))
    except StoreNotReady as error:  # whoever looks into it may want to know why it does not fit this version
        typer.echo(f"Warning: {error}", err=True)
        store = direct_store(settings, _over_the_api(settings), migrated=False)
    store.close()
    command, environment = command_for(find_program("psql"), store.conninfo)
    command += context.args
    if sys.stdin.isatty() and not context.args:
        typer.echo(f"{store.description}; \\q ends.", err=True)
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)  # noqa: S606 - PostgreSQL's own psql, with the user's own arguments
    sys.exit(subprocess.call(command, env=environment))  # noqa: S603 - as above


def _over_the_api(settings: Settings) -> SettingsError:
    """What to do where the store is Supabase over its API."""
    project = urlsplit(settings.supabase_url or "").hostname or ""
    name, _, domain = project.partition(".")
    editor = f" Or open https://supabase.com/dashboard/project/{name}/sql" if domain == "supabase.co" else ""
    return SettingsError(
        "VITAL_DATABASE_URL",
        f"is not set, and psql cannot speak with the API of Supabase at {project}",
        f"Set it to the project's connection string (Connect, Session pooler).{editor}",
    )
