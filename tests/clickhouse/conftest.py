"""A ClickHouse for each test: a database of its own in one engine of this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folders import quick_temporary
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.stores.postgres import PostgresStore

pytest.importorskip("chdb")

_names = itertools.count(1)


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
