"""A ClickHouse for each test: a database of its own in one engine of this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sql.helpers import connect
from tests.support.folders import quick_temporary
from tests.support.postgres import PostgresServer
from tests.support.waiting import until
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.stores.postgres import PostgresStore

pytest.importorskip("chdb")

_names = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server(postgres_server: PostgresServer) -> PostgresServer:
    """The server, without autovacuum: its transactions hold a copy back for a moment, as any do, and come at any time."""
    with connect(postgres_server.url("postgres")) as connection:
        connection.execute("alter system set autovacuum = off")
        connection.execute("select pg_reload_conf()")
        working = "select from pg_stat_activity where backend_type = 'autovacuum worker'"
        until(lambda: not connection.execute(working).fetchall())
    return postgres_server


@pytest.fixture(scope="session")
def engine_folder() -> Iterator[Path]:
    """Where the engine keeps its parts; it has one folder a process."""
    with quick_temporary("vital-clickhouse-") as folder:
        yield folder


@pytest.fixture
def copy_url(engine_folder: Path) -> str:
    """The URL of a database that is not there yet."""
    return f"chdb://{engine_folder}?database=copy_{next(_names)}"


@pytest.fixture
def clickhouse(copy_url: str) -> Iterator[ClickHouse]:
    """That database."""
    server = ClickHouse(address_of(copy_url))
    yield server
    server.command(f"drop database if exists {server.address.database}", database=False)
    server.close()


@pytest.fixture
def store(database_url: str) -> Iterator[PostgresStore]:
    """A PostgreSQL of this test's own."""
    opened = PostgresStore(database_url)
    yield opened
    opened.close()
