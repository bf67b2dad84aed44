"""Databases for the SQL tests: as hosted Supabase grants, as plain PostgreSQL does, and migrated by no superuser."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.conftest import POSTGRES_VERSION
from tests.sql.helpers import Connection, connect
from tests.support.folders import quick_temporary
from tests.support.postgres import PostgresServer
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

KINDS = ("hosted", "plain", "no superuser")

MIGRATOR = """
create role migrator login createrole;
grant create on database limited to migrator;
"""


def migrate(url: str) -> int:
    """Apply the migrations; how many."""
    store = PostgresStore(url)
    try:
        return len(store.migrate(find_migrations()))
    finally:
        store.close()


@pytest.fixture(scope="session")
def bare_urls() -> Iterator[dict[str, str]]:
    """Two databases on a server that never saw Supabase: one migrated by the superuser, one by a limited role, at once.

    So both create the roles that are missing, at the same moment.
    """
    with quick_temporary("vital-bare-") as folder:
        folder.chmod(0o755)
        with PostgresServer(folder / "data", version=POSTGRES_VERSION) as server:
            server.create_database("plain")
            server.create_database("limited")
            with psycopg.connect(server.url("limited"), autocommit=True) as superuser:
                superuser.execute(MIGRATOR)
                superuser.execute("grant create on schema public to migrator")
            limited = server.url("limited").replace("postgres@", "migrator@")
            with ThreadPoolExecutor(2) as pool:
                done = list(pool.map(migrate, [server.url("plain"), limited]))
            assert done == [len(find_migrations())] * 2
            yield {"plain": server.url("plain"), "no superuser": server.url("limited")}


@pytest.fixture(scope="session")
def urls(
    bare_urls: dict[str, str], postgres_server: PostgresServer, template_database: str
) -> Iterator[dict[str, str]]:
    """A migrated database of each kind, for tests that leave nothing behind."""
    postgres_server.create_database("hosted_for_roles", template=template_database)
    yield {**bare_urls, "hosted": postgres_server.url("hosted_for_roles")}
    postgres_server.drop_database("hosted_for_roles")


@pytest.fixture(params=KINDS)
def anywhere(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[Connection]:
    """The owner's connection to each kind of database in turn; the test must roll back what it does."""
    with connect(urls[request.param]) as connection:
        yield connection


@pytest.fixture
def db(urls: dict[str, str]) -> Iterator[Connection]:
    """The owner's connection to a migrated database, in a transaction that is rolled back at the test's end."""
    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def own_db(database_url: str) -> Iterator[Connection]:
    """The owner's connection to a database of this test's own, for tests with several connections."""
    with connect(database_url) as connection:
        yield connection
