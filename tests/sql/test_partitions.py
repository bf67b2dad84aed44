"""Monthly partitions of `token_usage_logs`: edges, the default partition, and making them while calls come in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.helpers import Connection, a_call, an_unpriced_call, assert_waits_for_lock, call_id, connect, record

WHERE = "select id::text, tableoid::regclass::text as partition from token_usage_logs order by id"
DEFAULT = "vital_private.token_usage_logs_default"


def ensure(db: Connection, first_month: str | None, months: int | None) -> int:
    with db.transaction():
        made = db.execute("select ensure_partitions_v1(%s::date, %s) as made", [first_month, months]).fetchone()
    assert made is not None
    return int(made["made"])


def partitions(db: Connection) -> dict[str, str]:
    return {row["id"]: row["partition"] for row in db.execute(WHERE).fetchall()}


def month(name: str) -> str:
    return f"vital_private.token_usage_logs_{name}"


def test_a_month_begins_and_ends_at_midnight_utc_whoever_asks(db: Connection) -> None:
    """If this failed, two sessions in different time zones would make overlapping partitions, or leave a gap."""
    db.execute("set local timezone = 'Pacific/Kiritimati'")
    assert ensure(db, "2030-11-17", 3) == 3
    record(
        db,
        a_call(1, created_at="2030-10-31T23:59:59.999999+00:00"),
        a_call(2, created_at="2030-11-01T00:00:00+00:00"),
        a_call(3, created_at="2030-12-31T23:59:59.999999+00:00"),
        a_call(4, created_at="2031-01-01T00:00:00+00:00"),
        a_call(5, created_at="2031-01-31T23:59:59.999999+00:00"),
        a_call(6, created_at="2031-02-01T00:00:00+00:00"),
    )
    assert partitions(db) == {
        call_id(1): DEFAULT,
        call_id(2): month("2030_11"),
        call_id(3): month("2030_12"),
        call_id(4): month("2031_01"),
        call_id(5): month("2031_01"),
        call_id(6): DEFAULT,
    }


def test_a_new_database_has_last_month_to_a_year_ahead(db: Connection) -> None:
    """If this failed, a fresh installation would fill its default partition."""
    names = db.execute(
        "select to_char(now() at time zone 'UTC' + step * interval '1 month', 'YYYY_MM') as name"
        " from generate_series(-1, 12) as step"
    ).fetchall()
    assert len(names) == 14
    for row in names:
        found = db.execute("select to_regclass(%s) is not null as made", [month(row["name"])]).fetchone()
        assert found == {"made": True}, row["name"]


def test_making_partitions_again_makes_none(db: Connection) -> None:
    """If this failed, every start of the tracker would fail or take a lock for long."""
    assert ensure(db, "2040-01-15", 12) == 12
    assert ensure(db, "2040-01-31", 12) == 0
    assert ensure(db, "2040-06-01", 12) == 5


@pytest.mark.parametrize(("first", "months"), [("2040-01-01", 0), ("2040-01-01", 121), ("2040-01-01", None), (None, 1)])
def test_partitions_of_no_month_are_refused(db: Connection, first: str | None, months: int | None) -> None:
    """If this failed, a slip would make thousands of partitions, or fail without a reason."""
    with pytest.raises(psycopg.DataError, match="months a number from 1 to 120"):
        ensure(db, first, months)


def test_rows_move_out_of_the_default_partition_unchanged(db: Connection) -> None:
    """If this failed, a year without partitions could not be mended, or would lose rows."""
    calls = [
        a_call(1, created_at="2040-03-01T00:00:00+00:00", tags=["a"], metadata={"k": 1}, user_id="u"),
        an_unpriced_call(2, created_at="2040-03-31T23:59:59+00:00", status="error"),
        a_call(3, created_at="2040-04-01T00:00:00+00:00"),
    ]
    record(db, *calls)
    before = db.execute("select * from token_usage_logs order by id").fetchall()
    assert set(partitions(db).values()) == {DEFAULT}
    assert ensure(db, "2040-03-01", 1) == 1
    assert partitions(db) == {call_id(1): month("2040_03"), call_id(2): month("2040_03"), call_id(3): DEFAULT}
    assert db.execute("select * from token_usage_logs order by id").fetchall() == before
    assert record(db, *calls)["duplicate"] == 3


def test_a_new_partition_has_the_rules_and_indexes_of_the_table(db: Connection) -> None:
    """If this failed, rows of later months would be slow to find, or unchecked."""
    ensure(db, "2040-03-01", 1)
    indexes = (
        "select count(*) as indexes, count(*) filter (where inhparent is not null) as attached"
        " from pg_index left join pg_inherits on inhrelid = indexrelid where indrelid = %s::regclass"
    )
    assert db.execute(indexes, [month("2040_03")]).fetchone() == {"indexes": 9, "attached": 9}
    checks = "select conname from pg_constraint where contype = 'c' and conrelid = %s::regclass order by 1"
    table = db.execute(checks, ["public.token_usage_logs"]).fetchall()
    assert table == db.execute(checks, [month("2040_03")]).fetchall()
    answer = record(db, a_call(1, created_at="2040-03-05T00:00:00Z", potential_cost="NaN"))
    assert answer["rejected"][0]["rule"] == "token_usage_logs_costs_not_negative"


def test_a_query_of_one_month_reads_one_partition(db: Connection) -> None:
    """If this failed, every report would read every month there ever was."""
    ensure(db, "2031-05-01", 1)
    plan = db.execute(
        "explain (costs off) select sum(total_cost) from token_usage_logs"
        " where created_at >= '2031-05-01Z' and created_at < '2031-06-01Z'"
    ).fetchall()
    read = {word for row in plan for word in row["QUERY PLAN"].split() if word.startswith("token_usage_logs_")}
    assert {name[:24] for name in read} == {"token_usage_logs_2031_05"}


def test_two_processes_that_make_partitions_at_once_make_each_once(own_db: Connection, database_url: str) -> None:
    """If this failed, two processes that start together would see one of them fail."""

    def make(_: int) -> int:
        with connect(database_url) as connection:
            return ensure(connection, "2041-01-01", 12)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == [0, 0, 0, 12]


def test_calls_that_come_while_a_partition_is_made_wait_and_are_stored(own_db: Connection, database_url: str) -> None:
    """If this failed, calls recorded during maintenance would be lost, or maintenance would deadlock with them."""
    call = a_call(1, created_at="2041-03-05T00:00:00+00:00")
    with connect(database_url) as maker, connect(database_url) as writer, ThreadPoolExecutor(1) as pool:
        with maker.transaction():
            assert ensure(maker, "2041-03-01", 1) == 1
            writing = pool.submit(record, writer, call)
            assert_waits_for_lock(own_db)
        assert writing.result(30)["inserted"] == 1
    assert partitions(own_db) == {call_id(1): month("2041_03")}


def test_a_partition_waits_for_calls_that_are_being_written(own_db: Connection, database_url: str) -> None:
    """If this failed, a row could be left behind in the default partition, and the month could never be attached."""
    with connect(database_url) as maker, connect(database_url) as writer, ThreadPoolExecutor(1) as pool:
        with writer.transaction():
            record(writer, a_call(1, created_at="2041-03-05T00:00:00+00:00"))
            making = pool.submit(ensure, maker, "2041-03-01", 1)
            assert_waits_for_lock(own_db)
        assert making.result(30) == 1
    assert partitions(own_db) == {call_id(1): month("2041_03")}
