"""A whole database as one file, by PostgreSQL's own pg_dump, and back by pg_restore."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vital_tracking.errors import VitalError
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.embedded import EmbeddedStore
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.programs import command_for, find_program, run_program

# Roles belong to the server and are not in the file; what it grants is granted to these.
_ROLES: Final = ("anon", "authenticated", "service_role", "vital_auditor")
# What the migrations fill, and what is worked out from the rest.
_NO_RECORDS: Final = (
    "vital_private.",
    "supabase_migrations.",
    "public.plans",
    "public.resource_prices",
    "public.retention_policies",
    "public.analytics_freshness",
    "public.mv_",
)


def back_up(store: PostgresStore, path: Path) -> None:
    """Write a database to a file of pg_dump's custom format: all of it, as it is at one moment, while others go on writing.

    The program is of the server's major version, or the next newer one that is here. Raises VitalError.
    """
    command, environment = command_for(find_program("pg_dump", store.server_version), store.conninfo)
    run_program([*command, "--format=custom", "--no-owner", f"--file={path}"], environment)


def restore(store: PostgresStore, path: Path) -> None:
    """Fill an empty database from such a file, all or nothing, and bring it to this version's migrations.

    Empty is a PostgreSQL without tables, and an embedded one without anything that was recorded or set. Raises VitalError.
    """
    _check_file(path)
    if isinstance(store, EmbeddedStore):
        if filled := sorted(
            name for name, rows in store.tables_with_rows().items() if rows and not name.startswith(_NO_RECORDS)
        ):
            raise VitalError(
                f"The {store.description} is not empty ({_some(filled)}). Restore beside it, into a folder of its own: "
                "VITAL_DATA_DIR=other-folder vital-tracking restore ..."
            )
        store.empty()
    elif tables := sorted(store.tables_with_rows()):
        raise VitalError(
            f"{store.description} is not empty ({_some(tables)}). Make a database for it (createdb restored), and name that one: "
            "VITAL_DATABASE_URL=... vital-tracking restore ..."
        )
    store.make_roles(_ROLES)
    command, environment = command_for(find_program("pg_restore", store.server_version), store.conninfo)
    options = ("--no-owner", "--single-transaction", "--exit-on-error")
    run_program([*command, *options, str(path)], environment)
    store.migrate(find_migrations())


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(5)
    except OSError as error:
        raise VitalError(f"{path} cannot be read ({error.strerror or type(error).__name__}).") from None
    if begins != b"PGDMP":
        raise VitalError(
            f"{path} is no backup: it was not written by vital-tracking backup, or pg_dump --format=custom."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
