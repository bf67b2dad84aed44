"""Partitions kept in order, rows deleted by their age, and what must not change by it: sums, windows, alerts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import (
    STAND_IN_FOR_PG_CRON,
    Connection,
    Row,
    a_call,
    a_cost,
    a_run,
    acquire,
    an_end,
    audit,
    call,
    call_id,
    connect,
    record,
    record_runs,
    renew,
    set_budget,
    spent,
    windows,
    wish,
)

NOW = datetime.now(UTC)
DEFAULT = "vital_private.token_usage_logs_default"
AGGREGATES = ("hourly_totals", "daily_totals", "daily_agents", "daily_users", "daily_parts")


def month_ago(months: int, day: int = 15) -> datetime:
    """Noon of a day of the month so many months ago."""
    year, month = divmod(NOW.year * 12 + NOW.month - 1 - months, 12)
    return datetime(year, month + 1, day, 12, tzinfo=UTC)


def at(months: int, day: int = 15) -> dict[str, str]:
    return {"created_at": month_ago(months, day).isoformat()}


def name(months: int) -> str:
    return f"token_usage_logs_{month_ago(months):%Y_%m}"


def homes(db: Connection) -> dict[str, str]:
    found = db.execute("select id::text, tableoid::regclass::text as home from token_usage_logs order by id").fetchall()
    return {row["id"]: row["home"] for row in found}


def sums(db: Connection) -> list[list[tuple[Any, ...]]]:
    """All that the aggregations hold."""
    tables = (f"select * from usage_aggregations_{name} where calls <> 0 order by 1, 2, 3, 4, 5" for name in AGGREGATES)
    return [[tuple(row.values()) for row in db.execute(table).fetchall()] for table in tables]


def kept_since(db: Connection) -> Any:
    found = db.execute("select vital_private.rows_kept_since()::text as since").fetchone()
    assert found is not None
    return found["since"]


def of(report: Row, table: str = "token_usage_logs") -> Row:
    [found] = [row for row in report["tables"] if row["table_name"] == table]
    return dict(found)


def retain(db: Connection, *, dry_run: bool = False, **options: Any) -> Row:
    return dict(call(db, "apply_retention", dry_run=dry_run, **options))


# Partitions


def test_calls_of_the_default_partition_are_moved_into_their_month(db: Connection) -> None:
    """If this failed, a database that nobody has tended for a year would keep everything in one heap, for good."""
    db.execute(f"drop table vital_private.{name(0)}")
    calls = [
        a_call(1, user_id="u-1", **at(0, 1)),
        a_call(2, **at(0, 2)),
        a_call(3, **at(6)),
        a_call(4, created_at="1999-01-01T00:00:00Z"),
        a_call(5, created_at="9000-01-01T00:00:00Z"),
    ]
    record(db, *calls)
    before, summed = db.execute("select * from token_usage_logs order by id").fetchall(), sums(db)
    assert set(homes(db).values()) == {DEFAULT}
    assert call(db, "maintain_partitions_v1") == {"made": 2, "moved": 3, "waiting": 0, "busy": False}
    month = f"vital_private.{name(0)}"
    assert list(homes(db).values()) == [month, month, f"vital_private.{name(6)}", DEFAULT, DEFAULT]
    assert db.execute("select * from token_usage_logs order by id").fetchall() == before
    assert sums(db) == summed
    # Nothing is left to do, and what is out of every reach stays where it is.
    assert call(db, "maintain_partitions_v1") == {"made": 0, "moved": 0, "waiting": 0, "busy": False}
    assert call(db, "maintain_partitions") == {"made": 0, "moved": 0, "waiting": 0, "busy": False}


def test_months_are_made_ahead_before_they_are_needed(db: Connection) -> None:
    """If this failed, the first call of a month would find no partition."""
    ahead = f"token_usage_logs_{month_ago(-6):%Y_%m}"
    db.execute(f"drop table vital_private.{ahead}")
    db.execute(f"drop table vital_private.token_usage_logs_{month_ago(-12):%Y_%m}")
    assert call(db, "maintain_partitions_v1")["made"] == 2
    assert db.execute("select to_regclass(%s) as there", [f"vital_private.{ahead}"]).fetchone() != {"there": None}


def test_maintenance_does_not_hold_up_writers(own_db: Connection, database_url: str) -> None:
    """If this failed, a long report would make maintenance wait, and every call behind it."""
    record(own_db, a_call(1, **at(6)))
    with connect(database_url) as reader, connect(database_url) as other:
        with reader.transaction():
            reader.execute("select count(*) from token_usage_logs")
            assert call(own_db, "maintain_partitions", patience_ms=20) == {
                "made": 0,
                "moved": 0,
                "waiting": 1,
                "busy": False,
            }
            assert record(other, a_call(2, **at(6)))["inserted"] == 1
        with other.transaction():
            other.execute("select pg_advisory_xact_lock(hashtext('vital_tracking.partitions'))")
            assert call(own_db, "maintain_partitions")["busy"]
        assert call(own_db, "maintain_partitions")["moved"] == 2


def test_many_processes_that_start_at_once_move_each_call_once(own_db: Connection, database_url: str) -> None:
    """If this failed, processes that start together would fail, or wait for each other."""
    record(own_db, *[a_call(number, **at(6)) for number in range(1, 51)])

    def maintain(_: int) -> Row:
        with connect(database_url) as connection:
            return dict(call(connection, "maintain_partitions_v1"))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(maintain, range(8)))
    assert sum(row["moved"] for row in done) == 50
    assert set(homes(own_db).values()) == {f"vital_private.{name(6)}"}


# Retention


def an_old_house(db: Connection) -> dict[str, Decimal]:
    """Calls of six, five and this month and of no month, a budget by user with its windows; what is spent in them."""
    call(db, "ensure_partitions_v1", first_month=month_ago(6).date(), months=2)
    budget = set_budget(db, entity_id="*", total_limit=100, monthly_limit=50, alert_thresholds=["0.01"], action="alert")
    db.execute("update budget_limits set counting_since = counting_since")
    # A budget as old as the calls: it counts all of them.
    db.execute("alter table budget_limits disable trigger budget_limits_check")
    db.execute("update budget_limits set counting_since = %s where id = %s", [month_ago(12), budget["id"]])
    db.execute("alter table budget_limits enable trigger budget_limits_check")
    db.execute("update vital_private.budget_periods set since = %s where budget_id = %s", [month_ago(12), budget["id"]])
    calls = [
        a_cost(number, number, workflow_id="w", latency_ms=100 * number, **at(months))
        for number, months in enumerate((6, 6, 5, 0, 0), start=1)
    ]
    record(db, *calls, a_cost(6, 6, **at(40)))
    assert audit(db) == []
    return spent(db, period="total")


def test_retention_deletes_old_months_and_leaves_every_sum(db: Connection) -> None:
    """If this failed, deleting old calls would change what was spent, or let somebody spend it twice."""
    total = an_old_house(db)
    assert total == {"u-1": Decimal(15)}
    summed, before, alerts = sums(db), windows(db), db.execute("select id from cost_alerts order by id").fetchall()
    plan = retain(db, dry_run=True)
    rows = of(plan)
    assert (rows["rows"], rows["keep"], plan["dry_run"]) == (4, "90 days", True)
    assert [(m["month"], m["rows"], m["archived"]) for m in rows["months"]] == [
        (f"{month_ago(6):%Y-%m}", 2, False),
        (f"{month_ago(5):%Y-%m}", 1, False),
    ]
    assert len(homes(db)) == 6, "a dry run deletes"
    assert kept_since(db) == "-infinity"
    done = retain(db)
    assert (of(done)["rows"], done["more"], done["waiting"]) == (4, False, False)
    assert set(homes(db)) == {call_id(4), call_id(5)}
    assert sums(db) == summed
    assert windows(db) == before
    assert [row["id"] for row in db.execute("select id from cost_alerts order by id")] == [row["id"] for row in alerts]
    assert datetime.fromisoformat(kept_since(db)) == datetime.fromisoformat(of(plan)["kept_from"])
    # Nobody counts anew what cannot be counted any more.
    assert audit(db) == []
    assert call(db, "recount_budgets_v1") == {"mended": 0}
    assert windows(db) == before
    assert of(retain(db))["rows"] == 0
    entry = db.execute("select * from admin_audit where operation = 'retention'").fetchone()
    assert entry is not None
    assert entry["changes"] == {"rows": 4, "months": [f"{month_ago(6):%Y-%m}", f"{month_ago(5):%Y-%m}"]}


def test_a_call_of_a_deleted_month_is_counted_and_deleted_too(db: Connection) -> None:
    """If this failed, a spool that comes back after months would lose money, or break the sums."""
    an_old_house(db)
    retain(db)
    record(db, a_cost(7, 7, **at(6)))
    assert homes(db)[call_id(7)] == DEFAULT
    assert spent(db, period="total") == {"u-1": Decimal(22)}
    assert audit(db) == []
    assert call(db, "recount_budgets_v1") == {"mended": 0}
    assert call(db, "maintain_partitions_v1")["moved"] == 0, "a month that has gone comes back"
    summed = sums(db)
    assert of(retain(db))["rows"] == 1
    assert sums(db) == summed


def test_what_retention_leaves_is_still_audited(db: Connection) -> None:
    """If this failed, retention would blind the proof of the windows that run."""
    an_old_house(db)
    retain(db)
    db.execute("update budget_windows set spent = spent + 1 where period = 'month' and ends_at > now()")
    assert [row["kind"] for row in audit(db)] == ["spent"]
    assert call(db, "recount_budgets_v1") == {"mended": 1}
    db.execute("update budget_windows set granted = granted + 1 where period = 'total'")
    assert [(row["kind"], row["period"]) for row in audit(db)] == [("granted", "total")]


def test_retention_deletes_a_bounded_number_of_rows_at_a_time(db: Connection) -> None:
    """If this failed, a first clean-up would hold its locks for an hour."""
    calls = [a_call(number, created_at="2014-03-01T00:00:00Z") for number in range(1, 6)]
    record(db, *calls)
    record_runs(
        db, *[an_end(f"r-{n}", started_at="2014-03-01T00:00:00Z", ended_at="2014-03-01T01:00:00Z") for n in range(3)]
    )
    record_runs(db, a_run("r-new", started_at=NOW.isoformat()))
    first = retain(db, max_rows=2)
    assert (of(first)["rows"], of(first, "service_runs")["rows"], first["more"]) == (2, 2, True)
    second, third = retain(db, max_rows=2), retain(db, max_rows=2)
    assert [of(row)["rows"] for row in (second, third)] == [2, 1]
    assert (of(second, "service_runs")["rows"], second["more"], third["more"]) == (1, True, False)
    assert [row["id"] for row in db.execute("select id from service_runs")] == ["r-new"]


def test_each_table_keeps_what_its_policy_says(db: Connection) -> None:
    """If this failed, sums would go with the rows, or windows before the calls that are in them."""
    an_old_house(db)
    for table in (
        "usage_aggregations_hourly_totals",
        "usage_aggregations_daily_users",
        "budget_windows",
        "cost_alerts",
        "admin_audit",
    ):
        call(db, "set_retention_v1", table_name=table, keep="31 days")
    for months in (0, 6):
        db.execute(
            "insert into admin_audit (at, database_role, table_name, operation) values (%s, 'x', 'x', 'x')",
            [month_ago(months)],
        )
    call(db, "set_retention_v1", table_name="token_usage_logs", keep=None)
    report = retain(db)
    assert of(report)["kept_from"] is None
    assert {row["table_name"]: row["rows"] for row in report["tables"] if row["rows"]} == {"admin_audit": 1}, (
        "while calls are kept, so are their sums and windows"
    )
    call(db, "set_retention_v1", table_name="token_usage_logs", keep="31 days")
    report = retain(db)
    assert {row["table_name"]: row["rows"] for row in report["tables"] if row["rows"]} == {"token_usage_logs": 4}, (
        "calls go last, so that nobody waits longer than dropping them takes; their sums may go from the next run on"
    )
    report = retain(db)
    by_table = {row["table_name"]: row["rows"] for row in report["tables"]}
    assert by_table["usage_aggregations_hourly_totals"] == 3
    assert by_table["usage_aggregations_daily_users"] == 3
    assert by_table["usage_aggregations_daily_agents"] == 0, "seven years"
    # The windows of the old months have gone with their alerts; the total runs on and knows what was spent.
    assert by_table["budget_windows"] == 2
    left = windows(db)
    assert sorted(row["period"] for row in left) == ["month", "total"]
    assert {row["period"]: row["spent"] for row in left}["total"] == 15
    told = db.execute("select period, threshold from cost_alerts").fetchall()
    assert {row["period"] for row in told} == {"month", "total"}
    record(db, a_cost(8, 1, **at(0)))
    assert len(db.execute("select from cost_alerts").fetchall()) == len(told), "an alert is raised twice"
    assert audit(db) == []


def test_a_window_with_grants_is_not_deleted(db: Connection) -> None:
    """If this failed, a grant would vanish under the process that spends it."""
    an_old_house(db)
    budget = db.execute("select id from budget_limits").fetchone()
    assert budget is not None
    acquire(db, "h", [wish(budget["id"], "u-1")])
    db.execute(
        "update budget_grants set window_id = (select min(id) from budget_windows where ends_at < now())"
        " where window_id = (select min(window_id) from budget_grants)"
    )
    held = db.execute("select min(window_id) as id from budget_grants").fetchone()
    assert held is not None
    for table in ("budget_windows", "token_usage_logs"):
        call(db, "set_retention_v1", table_name=table, keep="31 days")
    for _ in range(2):
        retain(db)
    assert held["id"] in {row["id"] for row in windows(db)}
    renew(db, "h")
    retain(db)
    assert held["id"] not in {row["id"] for row in windows(db)}


def test_no_call_is_deleted_before_it_is_in_the_sums(db: Connection) -> None:
    """If this failed, calls older than the aggregations would be deleted without a trace in any sum."""
    an_old_house(db)
    db.execute("insert into vital_private.usage_backfill values (%s)", [month_ago(6)])
    with (
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not in the aggregations yet"),
        db.transaction(),
    ):
        retain(db)
    assert of(retain(db, dry_run=True))["rows"] == 4
    db.execute("delete from vital_private.usage_backfill")
    assert of(retain(db))["rows"] == 4


@pytest.mark.parametrize("keep", ["30 days", "-1 year", "0", "2000 years"])
def test_a_retention_too_short_or_of_no_table_is_refused(db: Connection, keep: str) -> None:
    """If this failed, a slip would delete the month that budgets are counted from."""
    with pytest.raises(psycopg.errors.CheckViolation), db.transaction():
        call(db, "set_retention_v1", table_name="token_usage_logs", keep=keep)
    with pytest.raises(psycopg.DataError, match="no retention of"), db.transaction():
        call(db, "set_retention_v1", table_name="pg_class", keep="90 days")


def test_retention_while_calls_come_in_loses_none(own_db: Connection, database_url: str) -> None:
    """If this failed, a clean-up would lose calls that arrive during it, or stand still for a report."""
    an_old_house(own_db)
    with connect(database_url) as reader, connect(database_url) as writer, ThreadPoolExecutor(1) as pool:
        cleaning = pool.submit(retain, reader)
        written = sum(record(writer, a_cost(100 + number, 1, **at(number % 7)))["inserted"] for number in range(40))
        report = cleaning.result(30)
    assert written == 40
    assert not report["waiting"]
    assert audit(own_db) == []
    totals = own_db.execute(
        "select sum(total_cost) as cost, sum(calls) as calls from usage_aggregations_hourly_totals"
    ).fetchone()
    assert totals == {"cost": Decimal(61), "calls": Decimal(46)}


# Archives


def totals(db: Connection, months: int) -> Row:
    first = month_ago(months, 1).replace(hour=0)
    until = month_ago(months - 1, 1).replace(hour=0)
    return dict(call(db, "row_totals_v1", since=first, until=until))


def archive(db: Connection, months: int, held: int, cost: object, *, ids: str | None = None, drop: bool = False) -> Row:
    return dict(
        call(
            db,
            "archive_month_v1",
            table_name="token_usage_logs",
            month=month_ago(months).date(),
            held=held,
            amount=str(cost),
            ids=totals(db, months)["ids"] if ids is None else ids,
            file="f",
            drop_rows=drop,
        )
    )


def test_a_month_is_dropped_only_as_it_was_archived(db: Connection) -> None:
    """If this failed, calls would be deleted that are in no file."""
    an_old_house(db)
    record(db, a_cost(7, "0.00000000000000000001", **at(40)))
    months = call(db, "months_v1")["months"]
    assert [(row["month"], row["partition"], row["gone"]) for row in months] == [
        (f"{month_ago(40):%Y-%m}", False, False),
        (f"{month_ago(6):%Y-%m}", True, False),
        (f"{month_ago(5):%Y-%m}", True, False),
        (f"{month_ago(0):%Y-%m}", True, False),
    ]
    assert totals(db, 6)["rows"] == 2
    assert totals(db, 6)["amount"] == "3"
    assert totals(db, 6)["digits"]["total_cost"] == [1, 0]
    oldest = totals(db, 40)
    assert (oldest["rows"], oldest["digits"]["total_cost"]) == (2, [1, 20])
    everything = call(db, "row_totals_v1")
    assert (everything["rows"], everything["amount"]) == (7, "21.00000000000000000001")
    assert call(db, "row_totals_v1", user_id="u-1", organization="o")["rows"] == 0
    assert call(db, "row_totals_v1", user_id="u-1")["rows"] == 7
    for held, cost, ids in ((2, "3.01", None), (3, "3", None), (2, "3", "0")):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="have changed"), db.transaction():
            archive(db, 6, held, cost, ids=ids)
    assert archive(db, 6, 2, "3.00") == {"rows": 2, "dropped": False, "bytes": None}
    assert of(retain(db, dry_run=True))["months"][0]["archived"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="older rows"), db.transaction():
        archive(db, 6, 2, 3, drop=True)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="31 days ago"), db.transaction():
        archive(db, 0, 2, 9, drop=True)
    summed = sums(db)
    assert archive(db, 40, 2, "6.00000000000000000001", drop=True)["dropped"]
    dropped = archive(db, 6, 2, 3, drop=True)
    assert dropped["dropped"]
    assert dropped["bytes"] > 0
    assert set(homes(db)) == {call_id(3), call_id(4), call_id(5)}
    assert sums(db) == summed
    assert audit(db) == []
    operations = db.execute(
        "select operation, key ->> 'month' as month from admin_audit where table_name = 'token_usage_logs' order by id"
    )
    assert [(row["operation"], row["month"]) for row in operations] == [
        ("archive", f"{month_ago(6):%Y-%m}"),
        ("drop", f"{month_ago(40):%Y-%m}"),
        ("drop", f"{month_ago(6):%Y-%m}"),
    ]
    # What comes late for a month that has gone is told apart, and does not hide what the first file holds.
    record(db, a_cost(8, 8, **at(6)))
    [late] = [row for row in call(db, "months_v1")["months"] if row["month"] == f"{month_ago(6):%Y-%m}"]
    assert (late["gone"], late["partition"], late["rows"], late["archived"]["rows"]) == (True, False, 1, 2)
    assert archive(db, 6, 1, 8, drop=True)["dropped"]
    assert set(homes(db)) == {call_id(3), call_id(4), call_id(5)}
    assert spent(db, period="total") == {"u-1": Decimal(23)}


def test_a_month_that_grows_after_its_archive_counts_as_not_archived(db: Connection) -> None:
    """If this failed, retention would say that a file holds what came after it was written."""
    an_old_house(db)
    archive(db, 5, 1, 3)
    assert [row["archived"] for row in of(retain(db, dry_run=True))["months"]] == [False, True]
    record(db, a_cost(9, 1, **at(5)))
    assert [row["archived"] for row in of(retain(db, dry_run=True))["months"]] == [False, False]


def test_null_deletes_nothing_and_drops_no_month_unseen(db: Connection) -> None:
    """If this failed, a script with a variable that is not set would delete the oldest calls, or a month that no file holds."""
    an_old_house(db)
    before = homes(db)
    said = call(db, "apply_retention", dry_run=None)
    assert said["dry_run"] is True
    assert homes(db) == before
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_rows"), db.transaction():
        call(db, "apply_retention", dry_run=False, max_rows=-1)
    whole = {"table_name": "token_usage_logs", "month": "2020-01-01", "held": 0, "amount": "0", "ids": "0", "file": "x"}
    for argument in whole:
        with pytest.raises(psycopg.errors.NullValueNotAllowed, match=argument), db.transaction():
            call(db, "archive_month_v1", **{**whole, "drop_rows": True, argument: None})
    assert homes(db) == before


def test_pg_cron_deletes_only_where_an_admin_says_so(db: Connection) -> None:
    """If this failed, a hosted database would run out of months, or delete calls that nobody said to delete."""
    assert call(db, "schedule_maintenance") is False
    db.execute(STAND_IN_FOR_PG_CRON)
    assert [call(db, "schedule_maintenance") for _ in range(2)] == [True, True]
    jobs = "select command from cron.job order by jobname"
    assert call(db, "schedule_maintenance", retention=None), "NULL arms nothing"
    assert [row["command"] for row in db.execute(jobs)] == [
        "select public.find_abuse_v1()",
        "select public.maintain_partitions()",
    ]
    assert call(db, "schedule_maintenance", retention=True)
    commands = [row["command"] for row in db.execute(jobs)]
    assert commands == [
        "select public.apply_retention(false, 200000)",
        "select public.find_abuse_v1()",
        "select public.maintain_partitions()",
    ]
    for command in commands:
        db.execute(command.encode())


def test_no_sum_is_counted_again_from_a_month_that_is_being_dropped(own_db: Connection, database_url: str) -> None:
    """If this failed, a recount that waits for retention would find an empty month, and wipe its sums for good."""
    record(own_db, *(a_cost(number, 1, **at(6, number)) for number in range(1, 4)))
    call(own_db, "maintain_partitions")
    before = sums(own_db)
    day = month_ago(6, 1)
    own_db.execute("insert into vital_private.usage_backfill values (%s)", [month_ago(-1)])
    asked = (
        (f"select aggregate_usage_daily(null, '{day:%Y-%m-%d}')", "are gone"),
        (f"select aggregate_usage_hourly(null, '{day:%Y-%m-%d %H:%M}Z')", "are gone"),
        (f"insert into vital_private.usage_backfill values ('{day:%Y-%m-%d}'); select backfill_usage_v1()", None),
    )

    def ask(statement: str) -> str | None:
        with connect(database_url) as beside:
            try:
                beside.execute(statement)  # type: ignore[arg-type]
            except psycopg.errors.ObjectNotInPrerequisiteState as error:
                return str(error)
        return None

    with connect(database_url) as retention, ThreadPoolExecutor(3) as pool:
        with retention.transaction():
            assert of(retain(retention))["rows"] == 3
            answers = [pool.submit(ask, statement) for statement, _ in asked]
            waiting = "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            while own_db.execute(waiting).fetchone() != {"n": 3}:
                pass
        for answer, (statement, expected) in zip(answers, asked, strict=True):
            said = answer.result(30)
            assert (expected in said) if expected and said else said is expected, statement
    assert sums(own_db) == before


def test_parts_of_hours_whose_calls_are_gone_are_not_reported_as_free(db: Connection) -> None:
    """If this failed, a month in a zone of half hours would silently lack its first and last half hour."""
    record(db, a_cost(1, 1, organization_id="acme", **at(6)))
    call(db, "maintain_partitions")
    noon = month_ago(6)
    question = (
        "select total_cost from organization_cost('acme', %s::timestamptz, %s::timestamptz + interval '30 minutes')"
    )
    assert db.execute(question, [noon, noon]).fetchone() == {"total_cost": 1}
    retain(db)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="whole hours"), db.transaction():
        db.execute(question, [noon, noon])
    whole = "select total_cost from organization_cost('acme', %s::timestamptz, %s::timestamptz + interval '1 hour')"
    assert db.execute(whole, [noon, noon]).fetchone() == {"total_cost": 1}
    assert db.execute(question, [NOW, NOW]).fetchone() == {"total_cost": 0}
