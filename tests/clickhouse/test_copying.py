"""Each row is in the copy once, in its last state, and none is missed, whatever happens meanwhile."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.clickhouse.both import assert_equal, in_clickhouse
from tests.sql.helpers import a_call, a_run, an_end, an_unpriced_call, call, call_id, connect, record, record_runs
from tests.sql.platform_rows import a_cost, an_event, an_execution, send
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.errors import CopyRefused
from vital_tracking.queries.copies import copies, end_copies, lag_of
from vital_tracking.queries.metrics import metrics
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import CALLS, RUNS


def test_the_copy_holds_every_row_of_every_table_cell_by_cell(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    with connect(database_url) as db:
        record(
            db,
            a_call(1, organization_id=None, tags=["it's", "a\\b", "t\tn\n"], metadata={"k": 'a "b" \\ \n'}),
            a_call(
                2, organization_id="acme", input_cost="0.000000000001", output_cost="0", total_cost="0.000000000001"
            ),
            an_unpriced_call(3),
            a_call(4, prefix_hashes=["a", "b"], prompt_bytes=9000, billed_units={"web_searches": 2}, latency_ms=0.1),
        )
        record_runs(db, a_run("r-1"), a_run("r-2", ancestor_run_ids=["r-1"], parent_run_id="r-1"), an_end("r-2"))
        send(db, "platform_events", an_event(1, value="-1.5", properties={"path": "/a"}))
        send(db, "tenant_cost_events", a_cost(1, quantity="0.000000000001"), a_cost(2, cost_type="search"))
        send(db, "agent_executions", an_execution(1, rating=4, citations=2))
        assert Copying(store, clickhouse).bring_up_to_date() == 10
        assert assert_equal(db, clickhouse) == 10


def test_what_commits_late_is_not_missed(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    """A cursor over the time of recording would be past a row that was recorded before it and committed after it."""
    with connect(database_url) as db, connect(database_url) as late:
        copying = Copying(store, clickhouse)
        copying.begin()
        with late.transaction():
            record(late, a_call(1, organization_id="late"))
            record(db, a_call(2, organization_id="soon"))
            copying.bring_up_to_date()
            assert in_clickhouse(clickhouse, CALLS).keys() <= {call_id(2)}
        copying.bring_up_to_date()
        assert_equal(db, clickhouse)


def test_changes_travel(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    """Repriced calls, the true end of an abandoned one, ended runs, calls that were deleted, a row under another key."""
    with connect(database_url) as db:
        abandoned = a_call(4, status="abandoned", total_tokens=0, prompt_tokens=0, completion_tokens=0)
        record(db, an_unpriced_call(1), a_call(2), a_call(3), abandoned)
        record_runs(db, a_run("r-1"))
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        price = {"input_cost": "1.5", "output_cost": "0", "fees": "0", "total_cost": "1.5", "potential_cost": "2"}
        priced = {"id": call_id(1), "created_at": a_call(1)["created_at"], "price_version": "p", **price}
        call(db, "reprice_calls_v1", prices=json.dumps([priced]))
        record(db, a_call(4, replaces_abandoned=True))
        record_runs(db, an_end("r-1"))
        db.execute("delete from token_usage_logs where id = %s", [call_id(2)])
        db.execute("update token_usage_logs set organization_id = 'other' where id = %s", [call_id(3)])
        copying.bring_up_to_date()
        assert assert_equal(db, clickhouse) == 4
        found = in_clickhouse(clickhouse, CALLS)
        assert found[call_id(1)]["total_cost"] == Decimal("1.5")
        assert found[call_id(4)]["status"] == "ok"
        assert in_clickhouse(clickhouse, RUNS)["r-1"]["status"] == "ok"


def test_a_copy_that_is_made_anew_is_filled_anew(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1), a_call(2))
        Copying(store, clickhouse).bring_up_to_date()
        clickhouse.command(f"drop database {clickhouse.address.database}", database=False)
        assert Copying(store, clickhouse).bring_up_to_date() == 2
        assert assert_equal(db, clickhouse) == 2


def test_a_copy_that_was_ended_is_not_gone_on_with(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """If this failed, a person who was forgotten meanwhile would be in the copy for ever."""
    with connect(database_url) as db:
        record(db, a_call(1))
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        [ended] = end_copies(store, clickhouse.address.shown)
        assert (ended["target"], copies(store)) == (clickhouse.address.shown, [])
        record(db, a_call(2))
        with pytest.raises(CopyRefused, match="or the copy was ended: this one stops"):
            copying.bring_up_to_date()
        with pytest.raises(CopyRefused, match="that this PostgreSQL does not know"):
            Copying(store, clickhouse).begin()
        clickhouse.command(f"drop database {clickhouse.address.database}", database=False)
        Copying(store, clickhouse).bring_up_to_date()
        assert assert_equal(db, clickhouse) == 2
        told = db.execute(
            "select operation, key, changes from admin_audit where table_name = 'exports' order by id"
        ).fetchall()
        assert [one["operation"] for one in told] == ["insert", "delete", "insert"]
        assert {one["key"]["target"] for one in told} == {clickhouse.address.shown}


def test_the_lag_is_told_and_who_holds_the_copy_back(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """If this failed, nobody would know why the copy stands still."""
    with connect(database_url) as db, connect(database_url) as late:
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        late.execute("set application_name = 'nightly import'")
        with late.transaction():
            record(late, a_call(1, organization_id="late"))
            record(db, a_call(2, organization_id="soon"))
            copying.bring_up_to_date()
            [copy] = copies(store)
            [calls] = [table for table in copy["tables"] if table["table_name"] == CALLS.name]
            assert calls["waiting_rows"] == 1  # the other one is not over, so nobody sees it
            assert calls["lag_seconds"] > 0
            assert lag_of(copy) == calls["lag_seconds"]
            assert copy["held_by"] is None  # not yet for long
            [row] = db.execute("select vital_private.oldest_writer() as holder").fetchall()
            assert row["holder"]["application"] == "nightly import"
            assert row["holder"]["pid"] == late.info.backend_pid
            told = {metric.name: metric.samples for metric in metrics(store)}["export_lag_seconds"]
            assert next(amount for labels, amount in told if labels["table"] == CALLS.name) > 0
        copying.bring_up_to_date()
        assert lag_of(copies(store)[0]) == 0
