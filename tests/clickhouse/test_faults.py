"""Faults over HTTP: what passes is tried again with the same token, what does not is told; never with a row or a password."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.clickhouse.both import assert_equal
from tests.clickhouse.faulty_server import CANARY, Fault, FaultyServer
from tests.sql.helpers import a_call, connect, record
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.following import follow
from vital_tracking.errors import CopyRefused, CopyUnavailable
from vital_tracking.stores.postgres import PostgresStore


@pytest.fixture
def faulty(clickhouse: ClickHouse) -> Iterator[FaultyServer]:
    """Such a server before the test's database."""
    server = FaultyServer(clickhouse)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def over_http(faulty: FaultyServer) -> Iterator[ClickHouse]:
    """The database through it."""
    server = ClickHouse(address_of(faulty.url))
    yield server
    server.close()


PASSING = (
    Fault(503, 242, "TABLE_IS_READ_ONLY"),
    Fault(500, 252, "TOO_MANY_PARTS"),
    Fault(500, 241, "MEMORY_LIMIT_EXCEEDED"),
    Fault(500, 159, "TIMEOUT_EXCEEDED", stored=True),
    Fault(500, 319, "UNKNOWN_STATUS_OF_INSERT", stored=True),
    Fault(502),
    Fault(429),
    Fault(0),
    Fault(0, stored=True),
)


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_tried_again_with_the_same_token(
    store: PostgresStore,
    database_url: str,
    clickhouse: ClickHouse,
    over_http: ClickHouse,
    faulty: FaultyServer,
    fault: Fault,
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1), a_call(2))
        faulty.faults = [fault]
        Copying(store, over_http).bring_up_to_date()
        assert len(faulty.tokens) == 2
        assert len(set(faulty.tokens)) == 1
        assert faulty.views == {("1", "0")}
        assert_equal(db, clickhouse)
        # Not even a merge was needed: what was stored twice was dropped by its token.
        assert clickhouse.query("select count() as n from token_usage_logs") == [{"n": 2}]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, 27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
        Fault(403, 497, "ACCESS_DENIED"),
        Fault(403, 516, "AUTHENTICATION_FAILED"),
        Fault(404),
    ],
    ids=str,
)
def test_what_does_not_pass_is_told_without_a_row_or_a_password(
    store: PostgresStore, database_url: str, over_http: ClickHouse, faulty: FaultyServer, fault: Fault
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1))
        faulty.faults = [fault]
        with pytest.raises(CopyRefused) as caught:
            Copying(store, over_http).bring_up_to_date()
    assert CANARY not in str(caught.value)
    assert (fault.name or "HTTP 404") in str(caught.value)
    assert len(faulty.tokens) == 1


@pytest.mark.parametrize(("version", "taken"), [("23.12.6.19", False), ("24.1.8.22", True), ("head", True)])
def test_a_server_that_is_too_old_is_told_at_once(
    over_http: ClickHouse, clickhouse: ClickHouse, faulty: FaultyServer, version: str, taken: bool
) -> None:
    """If this failed, the tables would be made, and a forgotten person would stay in them."""
    faulty.version = version
    if taken:
        over_http.command(f"create database {clickhouse.address.database}", database=False)
        return
    with pytest.raises(CopyRefused, match=r"is of version 23\.12: a copy needs 24\.1 or newer"):
        over_http.command(f"create database {clickhouse.address.database}", database=False)
    assert not clickhouse.query(
        "select 1 from system.databases where name = {name:String}",
        {"name": clickhouse.address.database},
        database=False,
    )


def test_a_server_that_stays_away_is_told_and_followed_again(
    store: PostgresStore,
    database_url: str,
    clickhouse: ClickHouse,
    over_http: ClickHouse,
    faulty: FaultyServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1))
        faulty.faults = [Fault(503, 242, "TABLE_IS_READ_ONLY")] * 3
        with pytest.raises(CopyUnavailable):
            Copying(store, over_http, patience_s=0).bring_up_to_date()
        copying = Copying(store, over_http, patience_s=0)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if not faulty.faults and len(pauses) > 2:
                copying.stop()

        monkeypatch.setattr(copying, "pause", pause)
        with caplog.at_level(logging.WARNING, logger="vital_tracking"):
            assert follow(copying, every_s=0.1) == 1
        assert_equal(db, clickhouse)
    assert pauses[:2] == [2.0, 4.0]
    said = [entry.getMessage() for entry in caplog.records if entry.name == "vital_tracking"]
    assert len(said) == 2, said
    assert CANARY not in "".join(said)


def test_whoever_started_last_fills_the_copy(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    with connect(database_url) as db:
        first = Copying(store, clickhouse)
        first.bring_up_to_date()
        Copying(store, clickhouse).bring_up_to_date()
        record(db, a_call(1))
        with pytest.raises(CopyRefused, match="Another process"):
            first.bring_up_to_date()


def test_a_database_that_is_the_copy_of_another_one_is_left_alone(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    Copying(store, clickhouse).begin()
    with connect(database_url) as db:
        db.execute("update vital_private.database_identity set id = gen_random_uuid()")
    with pytest.raises(CopyRefused, match="copy of another PostgreSQL"):
        Copying(store, clickhouse).begin()


def test_a_database_that_was_restored_elsewhere_fills_its_copy_anew(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """Transaction ids begin anew on another server: by the old place, new rows would never be read."""
    with connect(database_url) as db:
        record(db, a_call(1))
        Copying(store, clickhouse).bring_up_to_date()
        db.execute("update vital_private.export_places set place = '9000000000'")
        record(db, a_call(2))
        Copying(store, clickhouse).bring_up_to_date()
        assert_equal(db, clickhouse)
        [left] = db.execute("select epoch from vital_private.exports").fetchall()
        assert left["epoch"] == 2
