"""The PostgreSQL store against a real server: errors, outages, threads, forks, poolers."""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import a_call, a_run, an_end, call_id, literal_of
from tests.support.postgres import PostgresServer, free_port, outage
from vital_tracking.errors import SettingsError, StoreError, StoreNotReady, StoreRejected, StoreUnavailable
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

Rows = Callable[..., list[dict[str, Any]]]


def record(store: PostgresStore, *calls: object) -> Any:
    return store.call("record_calls_v2", calls=literal_of(calls))


def until_it_works(attempt: Callable[[], Any]) -> Any:
    """What the batch processor does: again while the database is unavailable."""
    for _ in range(20):
        try:
            return attempt()
        except StoreUnavailable:
            continue
    return attempt()


def everything_said(error: BaseException) -> str:
    """An error with all that hangs on to it."""
    texts = []
    found: BaseException | None = error
    while found is not None:
        texts += [repr(found), str(found), repr(getattr(found, "__dict__", {}))]
        found = found.__cause__ or found.__context__
    return "\n".join(texts)


@pytest.fixture(autouse=True)
def _give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vital_tracking.stores.postgres._CONNECT_TIMEOUT_S", 1)


@pytest.fixture
def locked_url(postgres_server: PostgresServer, database_url: str) -> Iterator[str]:
    """The URL of a role that needs the password `right-one`."""
    hba = postgres_server.data_dir / "pg_hba.conf"
    before = hba.read_text(encoding="utf-8")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create role locked login password 'right-one'")
        hba.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{before}", encoding="utf-8")
        connection.execute("select pg_reload_conf()")
        yield database_url.replace("postgres@", "locked:right-one@")
        hba.write_text(before, encoding="utf-8")
        connection.execute("select pg_reload_conf()")
        connection.execute("drop role locked")


def test_calls_runs_and_breakdowns_come_back_exactly(store: PostgresStore) -> None:
    """If this failed, money would change on its way through the store."""
    exact = "0.420000000000000000000000000001"
    assert record(store, a_call(1, total_cost=exact, user_id="u"), a_call(2, user_id="v"))["inserted"] == 2
    [row] = store.read("agent_usage_detailed", columns=["id", "created_at", "total_cost"], equals={"user_id": "u"})
    assert row["total_cost"] == Decimal(exact)
    assert row["created_at"] == datetime(2026, 1, 15, 10, tzinfo=UTC)
    assert store.breakdown("user")[0]["total_cost"] == Decimal(exact)
    assert store.breakdown("user", since=datetime(2026, 2, 1, tzinfo=UTC)) == []
    assert store.breakdown("user", organization="acme") == []
    store.call("record_runs_v1", runs=json.dumps([a_run(), an_end()]))


def test_the_newest_rows_come_first_and_no_more_than_asked(store: PostgresStore) -> None:
    """If this failed, `vital-tracking calls` would show old calls."""
    record(store, *(a_call(number, created_at=f"2026-01-{number:02}T00:00:00Z") for number in range(1, 6)))
    found = store.read("agent_usage_detailed", columns=["id"], limit=2)
    assert [str(row["id"]) for row in found] == [call_id(5), call_id(4)]
    since = store.read("agent_usage_detailed", columns=["id"], since=datetime(2026, 1, 4, tzinfo=UTC))
    assert len(since) == 2


@pytest.mark.parametrize("limit", [1, 2000])
def test_a_name_is_never_sql(store: PostgresStore, limit: int) -> None:
    """If this failed, a filter typed by a user could run as SQL."""
    with pytest.raises(StoreNotReady):
        store.read('x"; drop table token_usage_logs; --', columns=["id"], limit=limit)
    assert store.read("agent_usage_detailed", columns=["id"], equals={"user_id": "' or true --"}, limit=limit) == []


def test_a_wrong_password_says_what_to_mend_and_shows_none(locked_url: str) -> None:
    """If this failed, a user would be told to migrate, or find the password in a log."""
    with pytest.raises(StoreNotReady, match=r"refuses the user or the password.*VITAL_DATABASE_URL") as refused:
        PostgresStore(locked_url.replace("right-one", "wrong-one")).call("model_prices_v1")
    assert refused.value.sqlstate == "28P01"
    assert "wrong-one" not in everything_said(refused.value)
    with pytest.raises(StoreNotReady, match="wants a password"):
        PostgresStore(locked_url.replace(":right-one", "")).call("model_prices_v1")
    store = PostgresStore(locked_url)
    with pytest.raises(StoreNotReady) as refused:  # the password is right; the role may not use the functions
        store.call("model_prices_v1")
    assert refused.value.sqlstate == "42501"
    assert "Your role may not do this" in str(refused.value)
    assert "vital-tracking migrate" not in str(refused.value), "that would not help"
    store.close()


def test_an_unknown_user_or_database_says_which(postgres_server: PostgresServer) -> None:
    """If this failed, a slip in the URL would look like an outage, and be waited for."""
    with pytest.raises(StoreNotReady, match=r"has no such database.*VITAL_DATABASE_URL") as refused:
        PostgresStore(postgres_server.url("absent")).call("model_prices_v1")
    assert refused.value.sqlstate == "3D000"
    with pytest.raises(StoreNotReady, match=r"no host can have.*VITAL_DATABASE_URL") as refused:
        PostgresStore("postgresql://user:canary@db..example.com/db").call("model_prices_v1")
    assert "canary" not in str(refused.value)
    with pytest.raises(StoreNotReady, match="knows no such user"):
        PostgresStore(postgres_server.url().replace("postgres@", "nobody@")).call("model_prices_v1")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """If this failed, an outage would look like bad data, and rows would be given up."""
    store = PostgresStore(f"postgresql://user:secret-word@127.0.0.1:{free_port()}/db")
    with pytest.raises(StoreUnavailable) as refused:
        store.call("model_prices_v1")
    assert "secret-word" not in everything_said(refused.value) + store.description
    store.close()


@pytest.mark.parametrize("text", ["postgresql://user:secret-word@[", "a secret-word and no url"])
def test_an_unreadable_url_is_named_and_not_shown(text: str) -> None:
    """If this failed, a mistyped URL would put its password on the screen."""
    with pytest.raises(SettingsError, match="VITAL_DATABASE_URL") as refused:
        PostgresStore(text)
    assert "secret-word" not in str(refused.value)


def test_an_option_that_cannot_be_read_is_no_outage() -> None:
    """If this failed, a slip in the port would be waited for as if the database were down."""
    with pytest.raises(StoreNotReady, match="VITAL_DATABASE_URL"):
        PostgresStore("postgresql://127.0.0.1:port/db").call("model_prices_v1")


def test_a_database_that_is_not_migrated_says_what_to_run(postgres_server: PostgresServer) -> None:
    """If this failed, a user with a fresh database would not know the next step."""
    postgres_server.create_database("not_migrated")
    store = PostgresStore(postgres_server.url("not_migrated"))
    try:
        with pytest.raises(StoreNotReady, match="vital-tracking migrate"):
            record(store, a_call(1))
        with pytest.raises(StoreNotReady, match="supabase db push"):
            store.breakdown("user")
        assert len(store.migrate(find_migrations())) == len(find_migrations())
        assert store.migrate(find_migrations()) == []
        assert record(store, a_call(1))["inserted"] == 1
    finally:
        store.close()
        postgres_server.drop_database("not_migrated")


def test_a_migration_that_fails_leaves_nothing_behind(postgres_server: PostgresServer) -> None:
    """If this failed, a database could be left half migrated."""
    postgres_server.create_database("half_way")
    store = PostgresStore(postgres_server.url("half_way"))
    broken = [*find_migrations()]
    broken[-1] = type(broken[-1])(broken[-1].version, broken[-1].name, broken[-1].sql + "\nselect nonsense;")
    try:
        with pytest.raises(StoreNotReady):
            store.migrate(broken)
        assert len(store.migrate(find_migrations())) == len(find_migrations())
    finally:
        store.close()
        postgres_server.drop_database("half_way")


def test_four_processes_that_migrate_at_once_migrate_once(postgres_server: PostgresServer) -> None:
    """If this failed, a deployment of several processes would fail at its first start."""
    postgres_server.create_database("at_once")

    def migrate(_: int) -> int:
        store = PostgresStore(postgres_server.url("at_once"))
        try:
            return len(store.migrate(find_migrations()))
        finally:
            store.close()

    try:
        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(migrate, range(4))) == [0, 0, 0, len(find_migrations())]
    finally:
        postgres_server.drop_database("at_once")


SECRETS: list[Callable[[PostgresStore], Any]] = [
    lambda store: store.call("unpriced_calls_v1", after_created_at=None, after_id="secret-word", batch_size=1),
    lambda store: store.call("record_calls_v1", calls="secret-word"),
    lambda store: store.call("record_calls_v1", calls="secret-word\0"),
    lambda store: store.call("record_calls_v1", calls="secret-word\ud800"),
    lambda store: store.call("add_model_price_v1", price='{"model": "m", "input_usd_per_mtok": "secret-word"}'),
    lambda store: store.breakdown("secret-word"),
    lambda store: store.breakdown("user", since="secret-word"),  # type: ignore[arg-type]
    lambda store: store.read("agent_usage_detailed", columns=["id"], equals={"id": "secret-word"}),
]


@pytest.mark.parametrize("attempt", SECRETS)
def test_refused_data_show_in_no_error(store: PostgresStore, attempt: Callable[[PostgresStore], Any]) -> None:
    """If this failed, what a user typed would stand in the application's log, or go to its error tracker."""
    with pytest.raises(StoreRejected) as refused:
        attempt(store)
    assert "secret-word" not in everything_said(refused.value)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)


def test_eight_threads_share_a_store(store: PostgresStore, rows: Rows) -> None:
    """If this failed, two threads would get each other's answers, or wait for ever."""

    def send(worker: int) -> int:
        answers = [record(store, a_call(worker * 100 + number)) for number in range(20)]
        return sum(answer["inserted"] for answer in answers)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(8))) == 160
    assert len(rows()) == 160


def test_an_outage_is_told_and_got_over(
    store: PostgresStore, postgres_server: PostgresServer, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, a restart of the database would need a restart of every process that writes to it."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: record(store, a_call(number)), range(8)))
    with outage(postgres_server), caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as refused:
                record(store, a_call(100))
            assert isinstance(refused.value, StoreError)
        assert [entry.getMessage() for entry in caplog.records] == []
    assert until_it_works(lambda: record(store, a_call(101)))["inserted"] == 1
    assert len(rows()) == 9


def test_a_restart_between_two_calls_costs_a_few_tries_and_no_rows(
    store: PostgresStore, postgres_server: PostgresServer, rows: Rows
) -> None:
    """If this failed, connections kept from before the restart would block the store."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: record(store, a_call(number)), range(8)))
    with outage(postgres_server):
        pass
    assert until_it_works(lambda: record(store, a_call(50)))["inserted"] == 1
    assert len(rows()) == 9


def test_warnings_of_an_application_s_own_pool_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """If this failed, using vital_tracking would silence the application's own connection pool."""
    with caplog.at_level(logging.WARNING, logger="psycopg.pool"):  # the command line sets it for its own process
        logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "pool-1", "down")
        logging.getLogger("psycopg.pool").warning("plain words")
    assert len(caplog.records) == 2


def test_a_fork_leaves_the_parent_s_connection_to_the_parent(store: PostgresStore, rows: Rows) -> None:
    """If this failed, a forking web server would mix up two processes' answers or end its parent's connection."""

    def backend() -> int:
        return int(
            store._run(lambda connection: connection.execute("select pg_backend_pid() as pid").fetchone())["pid"]
        )  # type: ignore[index]

    before = backend()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.after_fork()
            gc.collect()
            assert backend() != before
            record(store, a_call(1))
            store.close()
            store._inherited.clear()
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    for number in range(2, 12):
        record(store, a_call(number))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend() == before
    record(store, a_call(12))
    assert len(rows()) == 12


def test_nothing_is_left_in_a_session_for_the_next_user_of_a_pooler(store: PostgresStore) -> None:
    """If this failed, Supabase's pooler in transaction mode would answer `prepared statement does not exist`."""
    for number in range(30):
        record(store, a_call(number))
        store.read("agent_usage_detailed", columns=["id"], limit=1)
        store.breakdown("user")
    store.migrate(find_migrations())
    state = store._run(
        lambda connection: connection.execute(
            "select (select count(*) from pg_prepared_statements) as prepared,"
            " (select count(*) from pg_settings where source = 'session') as settings,"
            " (select count(*) from pg_locks where locktype = 'advisory') as locks,"
            " (select count(*) from pg_cursors where is_holdable) as cursors"
        ).fetchone()
    )
    assert state == {"prepared": 0, "settings": 0, "locks": 0, "cursors": 0}


def test_each_call_is_a_transaction_of_its_own(store: PostgresStore, rows: Rows) -> None:
    """If this failed, rows would wait for a later call to be committed, or be lost with it."""
    record(store, a_call(1))
    assert len(rows()) == 1
    assert rows("select from pg_stat_activity where datname = current_database() and state like 'idle in%'") == []


def test_closing_is_quick_while_the_database_is_down(store: PostgresStore, postgres_server: PostgresServer) -> None:
    """If this failed, a program would hang at its end."""
    record(store, a_call(1))
    with outage(postgres_server):
        raised: list[BaseException | None] = []

        def attempt() -> None:
            try:
                record(store, a_call(2))
            except StoreError as error:
                raised.append(error)

        trying = threading.Thread(target=attempt)
        trying.start()
        started = time.monotonic()
        store.close()
        assert time.monotonic() - started < 2
        trying.join(30)
    assert [type(error) for error in raised] == [StoreUnavailable]
