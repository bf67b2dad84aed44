"""Rows that are read for a copy elsewhere: reading may be given up at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.sql.helpers import a_run, connect, record_runs
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import RUNS


class GaveUp(Exception):
    """Whoever took the rows cannot go on."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ends", [GaveUp, KeyboardInterrupt])
def test_reading_that_is_given_up_between_two_chunks_ends(
    ends: type[BaseException], database_url: str, store: PostgresStore
) -> None:
    """If this failed, an export whose ClickHouse goes away in the middle would hang for ever, holding back every later one."""
    with connect(database_url) as db:
        record_runs(db, *(a_run(f"r-{number}") for number in range(200)))
    now = datetime.now(UTC)
    kept = []

    def give_up() -> None:
        with store.reading(RUNS, 1) as changes:
            chunks = changes.of_time(now - timedelta(days=3650), now + timedelta(days=3650), 100)
            kept.append(chunks)  # as the traceback of an error does
            assert next(chunks).rows == 1
            raise ends

    for _ in range(3):  # more often than there are connections to be lost
        with pytest.raises(ends):
            give_up()
    assert all(list(chunks) == [] for chunks in kept)
    assert store.read("token_usage_logs", columns=["id"]) == []
