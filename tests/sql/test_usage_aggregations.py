"""The aggregations are the sums of the calls: whatever happens to the calls, in whichever order, and whoever does it at once."""

from __future__ import annotations

import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.sql.helpers import (
    COSTS,
    Connection,
    Row,
    assert_waits_for_lock,
    call_id,
    connect,
    record,
)
from tests.sql.test_budget_properties import SETTINGS
from tests.sql.usage_sums import (
    DAYS,
    ENDS,
    KEYS,
    MEASURES,
    MOMENTS,
    ORGANIZATIONS,
    PLACES,
    TABLES,
    all_calls,
    assert_sums_are_those_of_the_calls,
    backfill,
    differences,
    held,
    some_calls,
    the_call,
)
from tests.support.effort import examples

CALLS = st.tuples(
    st.sampled_from(MOMENTS),
    st.sampled_from(ORGANIZATIONS),
    st.sampled_from(["u-1", "u-2", None]),
    st.sampled_from(PLACES),
    st.sampled_from(ENDS),
)


class Ledger(RuleBasedStateMachine):
    """Calls come, come again, end after all, get prices, are changed and deleted; days are counted anew in between."""

    db: Connection

    def __init__(self) -> None:
        super().__init__()
        self.transaction = self.db.transaction(force_rollback=True)
        self.transaction.__enter__()
        self.number = 0
        self.steps = 0
        self.sent: list[Row] = []

    def teardown(self) -> None:
        try:
            assert differences(self.db) == []
        finally:
            self.transaction.__exit__(None, None, None)

    def some(self, data: st.DataObject, condition: str) -> list[Row]:
        """One to four calls of those that fulfil a condition, if there are any."""
        found = self.db.execute(
            f"select id, created_at, calls from token_usage_logs where {condition} order by id"  # type: ignore[arg-type]
        ).fetchall()
        return data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=4, unique_by=str)) if found else []

    @initialize(drawn=st.lists(CALLS, min_size=6, max_size=6))
    def begin(self, drawn: list[tuple[Any, ...]]) -> None:
        self.record_new(drawn, None, False)

    @rule(drawn=st.lists(CALLS, min_size=1, max_size=8), data=st.data(), poison=st.booleans())
    def record_new(self, drawn: list[tuple[Any, ...]], data: st.DataObject | None, poison: bool) -> None:
        """New calls, in any order of time, with some that were sent before, and perhaps with one that is no call at all."""
        fresh = []
        for one in drawn:
            self.number += 1
            fresh.append(the_call(self.number, *one))
        again = data.draw(st.lists(st.sampled_from(self.sent), max_size=3)) if data and self.sent else []
        bad = [{"id": "poison"}, {**fresh[0], "id": call_id(0), "total_tokens": 7}] if poison else []
        known = {(str(row["id"]), row["created_at"]) for row in all_calls(self.db)}
        sent = {(row["id"], datetime.fromisoformat(row["created_at"])) for row in (*again, *fresh)}
        report = record(self.db, *again, *bad, *fresh, fresh[-1])
        assert (report["inserted"], len(report["rejected"])) == (len(sent - known), len(bad))
        self.sent += fresh

    @rule(drawn=CALLS, data=st.data(), both=st.booleans())
    def true_end(self, drawn: tuple[Any, ...], data: st.DataObject, both: bool) -> None:
        """Calls that were given up have ended after all, perhaps for somebody else; or both ends come in one batch."""
        late = self.some(data, "status in ('abandoned', 'cancelled')")
        ends = []
        for one in late:
            moment = {"id": str(one["id"]), "created_at": one["created_at"].isoformat()}
            ends.append({**the_call(1, *drawn), **moment, "replaces_abandoned": True})
        if both or not ends:
            self.number += 1
            end = the_call(self.number, *drawn)
            ends += [{**end, "status": "abandoned", "cache_hit": False}, {**end, "replaces_abandoned": True}]
        replaced = sum(one["calls"] == 1 for one in late)
        new = len(ends) > len(late)
        assert record(self.db, *ends)["inserted"] == replaced + new

    @rule(data=st.data(), price=st.sampled_from(["0", "0.1", "2e-30"]))
    def reprice(self, data: st.DataObject, price: str) -> None:
        """Calls get their prices; those that have one keep it."""
        amounts = {**dict.fromkeys(COSTS, price), "input_cost": "0", "output_cost": "0", "price_version": "v"}
        prices = [
            {"id": str(one["id"]), "created_at": one["created_at"].isoformat(), **amounts}
            for one in self.some(data, "not cache_hit and status <> 'blocked'")
        ]
        self.db.execute("select reprice_calls_v1(%s)", [json.dumps(prices)])

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.db.execute(
            "delete from token_usage_logs where id = any(%s)", [[one["id"] for one in self.some(data, "true")]]
        )

    @rule(
        data=st.data(),
        change=st.sampled_from(
            [
                "created_at = created_at + interval '1 month'",
                "created_at = '2033-05-02', workflow_step = 's'",
                "organization_id = case when organization_id is null then 'acme' end, user_id = 'u-3'",
                "latency_ms = latency_ms + 1, calls = calls + 1, panel_id = null, workflow_id = null, workflow_step = null",
                "agent_name = 'Another', completion_tokens = completion_tokens + 5, total_tokens = total_tokens + 5",
                "id = id",
            ]
        ),
    )
    def change(self, data: st.DataObject, change: str) -> None:
        """The owner changes calls, which may take them to another bucket or partition."""
        ids = [one["id"] for one in self.some(data, "true")]
        # A call that was sent again after it had been moved cannot follow.
        with suppress(psycopg.errors.UniqueViolation), self.db.transaction():
            self.db.execute(f"update token_usage_logs set {change} where id = any(%s)", [ids])  # type: ignore[arg-type]

    @rule(organization=st.sampled_from(ORGANIZATIONS), moment=st.sampled_from(MOMENTS), day=st.sampled_from(DAYS))
    def recompute(self, organization: str | None, moment: str, day: str) -> None:
        self.db.execute("select aggregate_usage_hourly(%s, %s)", [organization, moment])
        self.db.execute("select aggregate_usage_daily(%s, %s)", [organization, day])

    @rule(day=st.sampled_from(DAYS), table=st.sampled_from(TABLES), drawn=CALLS)
    def lose_and_backfill(self, day: str, table: str, drawn: tuple[Any, ...]) -> None:
        """A day's sums are lost, calls are recorded and deleted meanwhile, and the day is filled again."""
        self.db.execute(f"delete from {table} where {KEYS[table][1]}::date = %s", [day])  # type: ignore[arg-type]
        self.record_new([drawn], None, False)
        self.db.execute("delete from token_usage_logs where id = (select min(id::text)::uuid from token_usage_logs)")
        backfill(self.db, "2026-01-01", "2034-01-01")

    @precondition(lambda self: self.steps > 10)
    @rule()
    def delete_all(self) -> None:
        self.db.execute("delete from token_usage_logs")

    @invariant()
    def sums_are_those_of_the_calls(self) -> None:
        self.steps += 1
        assert_sums_are_those_of_the_calls(self.db)
        if self.steps % 8 == 0:
            assert differences(self.db) == []


def test_nothing_that_happens_to_calls_makes_the_sums_wrong(db: Connection) -> None:
    """If this failed, a report would show what the calls do not."""

    class LedgerHere(Ledger):
        pass

    LedgerHere.db = db
    db.execute("select ensure_partitions_v1('2033-05-01', 2)")
    db.execute("set local timezone = 'Asia/Kolkata'")  # whose days and hours are not those of the buckets
    run_state_machine_as_test(
        LedgerHere, settings=settings(SETTINGS, max_examples=examples(12), stateful_step_count=25)
    )


# What the audit sees


@pytest.mark.parametrize("table", TABLES)
def test_tampered_sums_are_found_and_a_backfill_corrects_them(db: Connection, table: str) -> None:
    """If this failed, doctor would say that all is well while reports are wrong."""
    record(db, *some_calls(40))
    intact = held(db, table)
    bucket = KEYS[table][1]
    [victim] = db.execute(f"select ctid, * from {table} order by {bucket}, ctid limit 1").fetchall()  # type: ignore[arg-type]
    for measure in (*MEASURES, "all of it"):
        with db.transaction(force_rollback=True):
            if measure == "all of it":
                db.execute(f"delete from {table} where ctid = %s", [victim["ctid"]])  # type: ignore[arg-type]
            elif measure == "total_tokens":
                continue  # it follows from the others
            else:
                db.execute(f"update {table} set {measure} = {measure} + 3 where ctid = %s", [victim["ctid"]])  # type: ignore[arg-type]
            day = MOMENTS[0][:10]
            [found] = differences(db, day, "2026-01-16")
            assert found["aggregation"] == table
            assert found["bucket"][:10] == day
            if measure not in ("latency_histogram", "all of it"):
                assert {name: float(value) for name, value in found["difference"].items() if name in MEASURES} == {
                    measure: 3
                }
            if measure in ("calls", "all of it"):
                backfill(db, day, "2026-01-16")
                assert differences(db) == []
                assert held(db, table) == intact


@pytest.mark.parametrize("day", ["2026-01-15", "2020-02-29", "2040-01-01"])
def test_sums_without_calls_are_found_and_removed(db: Connection, day: str) -> None:
    """If this failed, what is left over in the aggregations, before the first call or after the last, would stay."""
    record(db, *some_calls(40))
    intact = {table: held(db, table) for table in TABLES}
    for table in TABLES:
        db.execute(
            f"insert into {table} ({KEYS[table][1]}, organization_id, calls) values (%s, 'nobody', 5)",  # type: ignore[arg-type]
            [day],
        )
    found = differences(db)
    assert sorted(one["aggregation"] for one in found) == sorted(TABLES)
    assert {one["difference"]["organization_id"] for one in found} == {"nobody"}
    backfill(db, day, str(datetime.fromisoformat(day) + timedelta(days=1)))
    assert differences(db) == []
    assert {table: held(db, table) for table in TABLES} == intact


# Several at once


def test_eight_writers_the_owner_and_backfills_at_once_end_exact(own_db: Connection, database_url: str) -> None:
    """If this failed, sums would be lost between two who write them, or a batch would fail by a deadlock."""
    batches = 30
    shapes = [{**place, "agent_id": f"a-{agent}"} for place in PLACES for agent in range(2)]
    places = list(itertools.product(MOMENTS, ORGANIZATIONS, shapes))
    # Given up before, to be replaced at the same time by two workers each.
    abandoned = [
        the_call(100_000 + number, MOMENTS[number % 6], "acme", "u-1", PLACES[3], ENDS[7]) for number in range(60)
    ]
    record(own_db, *abandoned)
    expected = len(abandoned)

    def write(worker: int) -> int:
        """Batches over the same keys, in this worker's order; a few of them with calls of the others or true ends."""
        inserted = 0
        mine = places[::-1] if worker % 2 else places
        with connect(database_url) as connection:
            for number in range(batches):
                batch = [
                    the_call(worker * 10_000 + number * 10 + place, moment, organization, "u-1", shape, ENDS[place])
                    for place, (moment, organization, shape) in enumerate(mine[number * 7 :][:6] + mine[-6:])
                ]
                if number % 10 == 5:
                    late = abandoned[(worker // 2) * 15 + number // 2 :][:5]
                    batch += [{**call, "status": "ok", "agent_id": "a-0", "replaces_abandoned": True} for call in late]
                if number % 7 == 3:  # what another one sends too
                    batch.append(the_call(900_000 + number, *places[number][:2], "u-2", PLACES[1], ENDS[0]))
                if number % 11 == 6:
                    batch.append({"id": "poison"})
                random.Random(worker * 100 + number).shuffle(batch)
                inserted += record(connection, *batch)["inserted"]
        return inserted

    def own(worker: int) -> None:
        """Prices become known, and rows are changed and deleted, in single statements."""
        with connect(database_url) as connection:
            for number in range(batches):
                prices = connection.execute(
                    "select coalesce(jsonb_agg(jsonb_build_object('id', id, 'created_at', created_at, 'input_cost', '1',"
                    " 'output_cost', '0', 'fees', '0', 'total_cost', '1', 'potential_cost', '1', 'price_version', 'v'"
                    ")), '[]')::text as j"
                    " from (select id, created_at from token_usage_logs where not priced limit 20) as c"
                ).fetchone()
                assert prices is not None
                connection.execute("select reprice_calls_v1(%s)", [prices["j"]])
                connection.execute(
                    "select aggregate_usage_daily(%s, %s)", [ORGANIZATIONS[number % 3], DAYS[number % 3]]
                )
                connection.execute("select aggregate_usage_hourly(null, %s)", [MOMENTS[number % 6]])

    def fill(worker: int) -> None:
        with connect(database_url) as connection:
            for _ in range(batches // 5):
                backfill(connection, "2026-01-01", "2034-01-01")

    with ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(write, worker) for worker in range(1, 9)]
        others = [pool.submit(own, 0), pool.submit(fill, 0)]
        inserted = sum(job.result() for job in jobs)
        for other in others:
            other.result()
    [found] = own_db.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchall()
    assert found["deadlocks"] == 0
    replaced = own_db.execute(
        "select count(*) as n from token_usage_logs where status = 'ok' and id >= %s", [call_id(100_000)]
    )
    calls = all_calls(own_db)
    assert inserted > 8 * batches * 11
    assert len(calls) == expected + inserted - sum(
        row["status"] == "ok" and call_id(100_000) <= str(row["id"]) < call_id(200_000) for row in calls
    )
    assert replaced.fetchone() != {"n": 0}
    assert_sums_are_those_of_the_calls(own_db)
    assert differences(own_db) == []


def test_a_day_is_not_counted_while_a_writer_has_not_committed_it(own_db: Connection, database_url: str) -> None:
    """If this failed, a call that commits during a recount would be counted twice, or not at all."""
    with connect(database_url) as writer, connect(database_url) as admin, ThreadPoolExecutor(1) as pool:
        with writer.transaction():
            record(writer, *some_calls(5, seed=1, first=1))
            counting = pool.submit(admin.execute, "select aggregate_usage_daily(null, '2026-01-15')")
            assert_waits_for_lock(own_db)
            record(writer, *some_calls(5, seed=2, first=6))
        counting.result(timeout=30)
    assert_sums_are_those_of_the_calls(own_db)


# Calls that are older than the aggregations, and calls that are gone


def test_a_backfill_that_was_killed_goes_on_where_it_was(own_db: Connection, database_url: str) -> None:
    """If this failed, days recorded before the aggregations would be missing in reports, or be counted twice."""
    own_db.execute("alter table token_usage_logs disable trigger user")
    record(own_db, *some_calls(60))
    own_db.execute("alter table token_usage_logs enable trigger user")
    days = sorted({row["created_at"].astimezone(UTC).date().isoformat() for row in all_calls(own_db)}, reverse=True)
    own_db.execute("select queue_backfill_v1('-infinity', 'infinity')")
    assert [held(own_db, table) for table in TABLES] == [{}] * len(TABLES)
    assert differences(own_db) == []  # nobody says they were filled
    record(own_db, *some_calls(10, seed=2, first=100))
    [first] = own_db.execute("select backfill_usage_v1() as report").fetchall()
    assert (first["report"]["day"], first["report"]["left"]) == (days[0], len(days) - 1)
    with connect(database_url) as killed, connect(database_url) as beside:
        killed.execute("begin")
        killed.execute("select backfill_usage_v1()")
        [other] = beside.execute("select backfill_usage_v1() as report").fetchall()
        own_db.execute("select pg_terminate_backend(%s)", [killed.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            killed.execute("commit")
        assert other["report"]["day"] == days[2]  # not the day that the other one was at
    rest = backfill(own_db)
    assert [report["day"] for report in rest] == [days[1], *days[3:]]
    assert rest[-1]["left"] == 0
    assert_sums_are_those_of_the_calls(own_db)
    assert differences(own_db) == []
    assert backfill(own_db) == []


def test_sums_of_deleted_calls_stay_and_are_never_counted_again(db: Connection) -> None:
    """If this failed, the bill of last year would shrink as its calls are deleted."""
    record(db, *some_calls(60))
    before = {table: held(db, table) for table in TABLES}
    with db.transaction():
        db.execute("set local vital_tracking.keep_sums = 'on'")
        db.execute("delete from token_usage_logs where created_at < '2033-01-01'")
    db.execute("set local vital_tracking.keep_sums = 'off'")
    assert {table: held(db, table) for table in TABLES} == before
    assert differences(db) != []
    db.execute("select vital_private.rows_gone_before('2026-01-20 13:00Z')")
    assert differences(db) == []
    db.execute("select vital_private.rows_gone_before('2020-01-01')")  # never back
    [since] = db.execute("select vital_private.rows_kept_since() as since").fetchall()
    assert since["since"] == datetime(2026, 1, 21, tzinfo=UTC)
    for refused in ("aggregate_usage_hourly(null, '2026-01-20 23:00Z')", "aggregate_usage_daily('acme', '2026-01-15')"):
        with pytest.raises(psycopg.Error, match="are gone, so they cannot be counted anew") as caught, db.transaction():
            db.execute(f"select {refused}")  # type: ignore[arg-type]
        assert caught.value.sqlstate == "55000"
    db.execute("insert into vital_private.usage_backfill values ('2026-01-15')")
    backfill(db, "-infinity", "infinity")
    assert {table: held(db, table) for table in TABLES} == before
    # What the owner deletes is gone from the sums, except from those of the days whose calls are gone.
    db.execute("delete from token_usage_logs where status = 'ok'")
    assert differences(db) == []
    assert all(held(db, table) != before[table] for table in TABLES)
    db.execute("truncate token_usage_logs")
    assert differences(db) == []
    for table in TABLES:
        old = {key: sums for key, sums in before[table].items() if f"{key[1]:%Y-%m-%d}" < "2026-01-21"}
        assert held(db, table) == old != {}
