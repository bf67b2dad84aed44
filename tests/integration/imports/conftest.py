"""One database for the tests of this room: each test has organizations of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

ORGANIZATIONS = itertools.count(1)


@pytest.fixture(scope="package")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """The URL of the database."""
    postgres_server.create_database("imports", template=template_database)
    yield postgres_server.url("imports")
    postgres_server.drop_database("imports")


@pytest.fixture(scope="package")
def shared(url: str) -> Iterator[PostgresStore]:
    """A store on it."""
    store = PostgresStore(url)
    yield store
    store.close()


@pytest.fixture
def whose() -> dict[str, str]:
    """An organization, and a server, that no other test has."""
    name = f"o-{next(ORGANIZATIONS)}"
    return {"organization": name, "server": name}
