"""`vital-tracking backup` and `restore`: the whole database as one file, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.session import Json
from vital_tracking.errors import VitalError
from vital_tracking.queries import backup as backups
from vital_tracking.queries.words import counted, size, usd
from vital_tracking.settings import Settings


def backup(
    file: Annotated[Path, typer.Argument(help="The file, such as calls.dump.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there.")] = False,
    json_: Json = False,
) -> None:
    """Write the configured database, the embedded one or a PostgreSQL, to one file.

    It holds all of the database as it is at one moment, other tables in it too, in pg_dump's custom format; calls go on being
    recorded meanwhile. pg_dump must not be older than the server: that of the extra `local` is used, or one that is installed.
    What waits in the spool is not in it. Roles are not in it either; restore makes those that are needed.

    \b
    Examples:
      vital-tracking backup calls.dump
      vital-tracking backup "calls-$(date +%F).dump"
    """
    if file.is_dir():
        raise VitalError(f"{file} is a folder. Name a file in it, such as {file / 'calls.dump'}")
    if file.exists() and not force:
        raise VitalError(f"{file} is there already. To replace it: --force")
    if not file.absolute().parent.is_dir():
        raise VitalError(f"{file} cannot be written: there is no folder {file.absolute().parent}")
    database = backups.back_up(Settings.from_env(), file)
    written = file.stat().st_size
    if json_:
        as_json({"file": str(file), "bytes": written, "database": database})
        return
    say(f"{file}: {database}, {size(written)}")
    say(f"To get it back, into an empty database: vital-tracking restore {file}")


def restore(
    file: Annotated[Path, typer.Argument(help="A file of vital-tracking backup.")], json_: Json = False
) -> None:
    """Fill an empty database from a backup: all of it or, where something goes wrong, nothing.

    The embedded database counts as empty while nothing was recorded or set; a PostgreSQL while it has no tables. An older
    backup is brought to this version's migrations. The server's major version must not be older than that of
    the server that was backed up.

    \b
    Examples:
      VITAL_DATA_DIR=restored vital-tracking restore calls.dump
      VITAL_DATABASE_URL=postgresql://localhost/restored vital-tracking restore calls.dump
    """
    restored = backups.restore(Settings.from_env(), file)
    if json_:
        as_json(asdict(restored))
        return
    say(f"{restored.database}: {counted(restored.calls, 'call')}, {usd(restored.total_cost)}")
    say("To see whether all is well: vital-tracking doctor --full")
