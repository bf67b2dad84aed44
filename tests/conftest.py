"""What all tests share: a throw-away PostgreSQL, a migrated template cloned for each test, and a tracker on it.

`VITAL_TEST_POSTGRES=16` runs the same tests on PostgreSQL 16.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.folders import quick_temporary
from tests.support.postgres import PostgresServer
from tests.support.provider_server import ProviderServer
from vital_tracking import Settings, VitalTracker
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

POSTGRES_VERSION = int(os.environ.get("VITAL_TEST_POSTGRES", "18"))

# Hosted Supabase grants everything on new objects in the schema public; the migrations must take it back.
HOSTED_DEFAULT_PRIVILEGES = """
do $$
declare
  name text;
begin
  foreach name in array array['anon', 'authenticated'] loop
    if not exists (select from pg_roles where rolname = name) then
      execute format('create role %I nologin noinherit', name);
    end if;
  end loop;
  if not exists (select from pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
end $$;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""

# Tests start many processes: what each would compile again is kept, whatever the shell says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Each client of a provider reads the certificates of every authority for 30 ms, though nothing here asks beyond loopback.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("support") / "no_authority.pem")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("vital", deadline=None)
hypothesis.settings.load_profile("vital")

_names = itertools.count(1)


def pytest_configure() -> None:
    """Ctrl-C ends what it ends in a terminal, also where the tests were started in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the many collections that tests ask for need not go through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the settings of the shell it is run from."""
    for name in list(os.environ):
        if name.startswith(("VITAL_DATA", "VITAL_BATCH", "VITAL_ORG", "SUPABASE_", "LANGSMITH_", "LANGCHAIN_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def spool_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the trackers of this test, and of the processes it starts, spool to where nothing else is said."""
    with quick_temporary("vital-spool-") as folder:
        monkeypatch.setattr("vital_tracking.spool.location.default_data_dir", lambda: folder)
        monkeypatch.setenv("VITAL_SPOOL_DIR", str(folder / "spool"))
        yield folder / "spool"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of the version under test, on a socket and a loopback port."""
    with quick_temporary("vital-test-") as folder:
        folder.chmod(0o755)
        with PostgresServer(folder / "data", version=POSTGRES_VERSION) as server:
            yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: PostgresServer) -> str:
    """A database with hosted Supabase's default privileges and all migrations, to be cloned."""
    postgres_server.create_database("vital_template")
    with psycopg.connect(postgres_server.url("vital_template"), autocommit=True) as connection:
        connection.execute(HOSTED_DEFAULT_PRIVILEGES)
    store = PostgresStore(postgres_server.url("vital_template"))
    store.migrate(find_migrations())
    store.close()
    return "vital_template"


@pytest.fixture
def database_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """The URL of a fresh migrated database of this test's own."""
    name = f"test_{os.getpid()}_{next(_names)}"
    postgres_server.create_database(name, template=template_database)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def store(database_url: str) -> Iterator[PostgresStore]:
    """A PostgreSQL store on this test's database."""
    opened = PostgresStore(database_url)
    yield opened
    opened.close()


@pytest.fixture
def make_tracker(database_url: str) -> Iterator[Callable[..., VitalTracker]]:
    """Makes trackers on this test's database; they are closed at its end. Keyword arguments go to Settings or the tracker."""
    made: list[VitalTracker] = []

    def make(**options: Any) -> VitalTracker:
        settings = {name: options.pop(name) for name in list(options) if name in Settings.model_fields}
        settings.setdefault("flush_interval_s", 60.0)  # tests flush; nothing is sent behind their back
        tracker = VitalTracker(PostgresStore(database_url), settings=Settings(**settings), **options)
        made.append(tracker)
        return tracker

    yield make
    for tracker in made:
        tracker.close()


@pytest.fixture
def tracker(make_tracker: Callable[..., VitalTracker]) -> VitalTracker:
    """A tracker on this test's database."""
    return make_tracker()


@pytest.fixture
def rows(database_url: str) -> Callable[..., list[dict[str, Any]]]:
    """Runs a query as the owner and gives its rows: `rows()` gives every call in the order they started."""

    def query(sql: str = "select * from token_usage_logs order by id", *arguments: Any) -> list[dict[str, Any]]:
        with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(sql, arguments or None).fetchall()

    return query


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    """A local server that speaks the wire formats of OpenAI and Anthropic."""
    with ProviderServer() as server:
        yield server
