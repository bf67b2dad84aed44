"""A throw-away PostgreSQL on this machine, which does not wait for its disk, with a migrated database on it."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServer


@contextlib.contextmanager
def a_database_server(budgets: Sequence[Mapping[str, str]] = ()) -> Iterator[tuple[PostgresServer, str]]:
    """The server, which can be stopped and started, and the database's URL."""
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
    from tests.support.postgres import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="vital-bench-"))
    folder.chmod(0o755)
    try:
        with PostgresServer(folder / "data") as server:
            server.create_database("bench")
            store = PostgresStore(server.url("bench"))
            store.migrate(find_migrations())
            for budget in budgets:
                store.call("set_budget_v1", budget=json.dumps(budget))
            store.close()
            yield server, server.url("bench")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
