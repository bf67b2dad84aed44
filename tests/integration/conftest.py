"""What many tests use one after the other, since to make another one takes long: a database, and Supabase's API over one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.support.folders import quick_temporary
from tests.support.hooks import Hooks
from tests.support.postgres import PostgresServer
from tests.support.provider_server import ProviderServer
from tests.support.supabase_lite import SupabaseLite

EMPTY = """
delete from budget_limits;
delete from cost_alerts;
delete from token_usage_logs;
delete from service_runs;
delete from platform_events;
delete from tenant_cost_events;
delete from agent_executions;
delete from model_prices;
"""


@pytest.fixture(scope="session")
def _one_for_many(postgres_server: PostgresServer, template_database: str) -> Iterator[tuple[str, Callable[[], None]]]:
    name = f"reused_{os.getpid()}"
    postgres_server.create_database(name, template=template_database)
    url = postgres_server.url(name)
    connection: psycopg.Connection[Any] | None = None

    def empty() -> None:
        """By a connection that is kept: a new one reads for 20 ms what it deletes from."""
        nonlocal connection
        try:
            connection = connection or psycopg.connect(url, autocommit=True)
            connection.execute(EMPTY)
        except psycopg.OperationalError:  # the server was stopped meanwhile
            connection = psycopg.connect(url, autocommit=True)
            connection.execute(EMPTY)

    yield url, empty
    if connection is not None:
        connection.close()
    postgres_server.drop_database(name)


@pytest.fixture
def reused_database(_one_for_many: tuple[str, Callable[[], None]]) -> Iterator[str]:
    """The URL of a migrated, empty database. A test leaves its rows there, and nothing else."""
    url, empty = _one_for_many
    yield url
    empty()


@pytest.fixture(scope="session")
def lite(postgres_server: PostgresServer, template_database: str) -> Iterator[SupabaseLite]:
    """Supabase's API over a migrated database. Tests empty what they are not to find."""
    postgres_server.create_database("behind_api", template=template_database)
    with (
        quick_temporary("vital-lite-") as workdir,
        SupabaseLite(postgres_server.url("behind_api"), workdir) as server,
    ):
        yield server
    postgres_server.drop_database("behind_api")


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    """A web server that takes alerts and reports."""
    server = Hooks()
    yield server
    server.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of requests that a failed test has left hanging: its event loop would wait for them before the server is stopped."""
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, ProviderServer):
            value.release.set()
