"""`vital-tracking psql` and `stop`: opens and stops the embedded PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

from vital_tracking.cli.render.console import say
from vital_tracking.errors import StoreNotReady
from vital_tracking.settings import Settings
from vital_tracking.stores.embedded import EmbeddedStore, server_dir


def psql(context: typer.Context) -> None:
    """Open the embedded PostgreSQL in psql. Further arguments go to psql: vital-tracking psql -c 'select 1'"""
    try:
        store = _embedded(migrated=True)
    except StoreNotReady as error:  # whoever looks into it may want to know why it does not fit this version
        typer.echo(f"Warning: {error}", err=True)
        store = _embedded()
    arguments = [str(store.psql), store.conninfo, *context.args]
    store.close()
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(arguments[0], arguments)  # noqa: S606 - the wheel's own psql, with the user's own arguments
    sys.exit(subprocess.call(arguments))  # noqa: S603 - as above


def stop() -> None:
    """Stop the embedded PostgreSQL, which otherwise goes on running for the next process. Data are kept."""
    settings = Settings.from_env()
    folder = server_dir(settings.data_dir, settings.postgres_version)
    if not (folder / "postmaster.pid").exists():
        say(f"no embedded PostgreSQL is running in {folder}")
        return
    store = _embedded()
    store.stop()
    say(f"stopped the {store.description}")


def _embedded(*, migrated: bool = False) -> EmbeddedStore:
    settings = Settings.from_env()
    return EmbeddedStore(settings.data_dir, version=settings.postgres_version, migrated=migrated)
