"""Throw-away PostgreSQLs on this machine: one that does not wait for its disk, and the embedded one, which does."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from vital_tracking.migrate import find_migrations
from vital_tracking.stores.embedded import EmbeddedStore
from vital_tracking.stores.postgres import PostgresStore

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServer


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """A folder that the server's own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="vital-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def a_database_server(budgets: Sequence[Mapping[str, str]] = ()) -> Iterator[tuple[PostgresServer, str]]:
    """The server that does not wait, which can be stopped and started, and the URL of a migrated database on it."""
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
    from tests.support.postgres import PostgresServer

    with a_folder() as folder, PostgresServer(folder / "data") as server:
        yield server, a_database(server.url(), "bench", budgets)


@contextlib.contextmanager
def the_embedded_server() -> Iterator[str]:
    """The embedded PostgreSQL as it is delivered, in a folder of its own; the URL of its maintenance database."""
    with a_folder() as folder:
        store = EmbeddedStore(folder)
        try:
            yield str(store._start().get_uri())
        finally:
            store.stop()


def a_database(url: str, name: str, budgets: Sequence[Mapping[str, str]] = ()) -> str:
    """Make a migrated database on the server of another one's URL; its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    made = urlsplit(url)._replace(path=f"/{name}").geturl()
    store = PostgresStore(made)
    store.migrate(find_migrations())
    for budget in budgets:
        store.call("set_budget_v1", budget=json.dumps(budget))
    store.close()
    return made


def cpu_ms(pids: Iterable[int]) -> float:
    """Milliseconds of CPU that these processes have had, with all their threads that still run."""
    spent = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e6
