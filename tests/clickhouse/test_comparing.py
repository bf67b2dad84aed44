"""What differs between the two sides is found, and mended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.clickhouse.both import assert_equal
from tests.sql.helpers import a_call, a_run, call_id, connect, record, record_runs
from tests.sql.platform_rows import a_cost, an_event, an_execution, send
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.compare import Difference, differences, repair
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.queries.copies import copies
from vital_tracking.stores.postgres import PostgresStore


def found(store: PostgresStore, clickhouse: ClickHouse) -> list[Difference]:
    [copy] = copies(store)
    return list(differences(store, clickhouse, str(copy["copy"])))


def test_copies_that_are_equal_do_not_differ(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    with connect(database_url) as db:
        odd = {
            "input_cost": "0.0000000000004",
            "output_cost": "0",
            "total_cost": "0.0000000000004",
            "potential_cost": "1",
        }
        record(db, a_call(1), a_call(2, **odd), a_call(3, created_at="2026-02-01T00:00:00Z"))
        record_runs(db, a_run("r-1"), a_run("ü"))
        send(db, "platform_events", an_event(1, value="1.25"))
        send(db, "tenant_cost_events", a_cost(1))
        send(db, "agent_executions", an_execution(1))
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        assert found(store, clickhouse) == []
        # What is on its way is told apart from what is wrong.
        record(db, a_call(4))
        [late] = found(store, clickhouse)
        assert (late.relation.name, late.here.rows, late.there.rows, late.waiting) == ("token_usage_logs", 3, 2, 1)
        copying.bring_up_to_date()
        assert found(store, clickhouse) == []


@pytest.mark.parametrize(
    "damage",
    [
        "alter table token_usage_logs delete where id = '{id}' settings mutations_sync = 2",
        "alter table token_usage_logs update total_cost = 7 where id = '{id}' settings mutations_sync = 2",
        "alter table token_usage_logs update xact = xact - 1 where id = '{id}' settings mutations_sync = 2",
        "insert into token_usage_logs select * replace (generateUUIDv4() as id)"
        " from (select * from token_usage_logs where toString(id) = '{id}')",
    ],
    ids=["a row less", "another amount", "an older state", "a row more"],
)
def test_a_day_that_differs_is_named_and_sent_again(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, damage: str
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1), a_call(2), a_call(3, created_at="2026-02-01T00:00:00Z"))
        Copying(store, clickhouse).bring_up_to_date()
        clickhouse.command(damage.format(id=call_id(1)))
        [wrong] = found(store, clickhouse)
        assert str(wrong.day) == a_call(1)["created_at"][:10]
        assert wrong.waiting == 0
        assert repair(store, clickhouse, wrong, copies(store)[0]["epoch"]) == 2
        assert found(store, clickhouse) == []
        assert_equal(db, clickhouse)


def test_months_that_retention_dropped_stay_there_and_are_no_difference(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    with connect(database_url) as db:
        db.execute("select ensure_partitions_v1('2026-01-01', 12)")
        moments = db.execute("select now() - interval '200 days' as old, now() as new").fetchone()
        assert moments is not None
        rows = [(1, moments["old"]), (2, moments["new"] - timedelta(minutes=1))]
        record(db, *(a_call(number, created_at=at.isoformat()) for number, at in rows))
        record_runs(db, *(a_run(f"r-{number}", started_at=at.isoformat()) for number, at in rows))
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        db.execute("select vital_private.rows_gone_before(now() - interval '190 days')")
        db.execute("select apply_retention(false)")
        [left] = db.execute("select count(*) as n from token_usage_logs").fetchall()
        copying.bring_up_to_date()
        [[there]] = [row.values() for row in clickhouse.query("select count() as n from token_usage_logs final")]
        assert (left["n"], there) == (1, 2)
        assert found(store, clickhouse) == []


def test_doctor_names_the_days_and_repairs_them(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, copy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vital_tracking.queries.health import examine

    monkeypatch.setenv("VITAL_DATABASE_URL", database_url)
    monkeypatch.setenv("VITAL_CLICKHOUSE_URL", copy_url)

    def said(**how: bool) -> list[tuple[str, str]]:
        return [(check.state, check.what) for check in examine(full=True, **how) if "cop" in check.what]

    assert said() == [("warn", f"{clickhouse.address.shown} holds no copy yet")]
    with connect(database_url) as db:
        record(db, a_call(1), a_call(2))
        Copying(store, clickhouse).bring_up_to_date()
        assert [state for state, _ in said()] == ["ok", "ok"]
        clickhouse.command("truncate table token_usage_logs")
        day = a_call(1)["created_at"][:10]
        assert said()[-1] == ("fail", f"the copy differs on 1 day: {day} of token_usage_logs: 2 rows here, 0 there")
        assert said(mend=True)[-1] == ("ok", "1 day of the copy sent again, 2 rows")
        assert said()[-1] == ("ok", "the copy holds what is here")
