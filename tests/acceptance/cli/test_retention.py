"""`vital-tracking retention`, `archive` and `forget-user`: what goes is shown, asked for, in a file first, and gone after."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.cli.helpers import Several, fine, refused
from tests.acceptance.cli.test_export import duck
from tests.integration.helpers import Rows
from tests.sql.helpers import a_call, a_cost, an_unpriced_call
from tests.sql.platform_rows import a_cost as a_platform_cost
from tests.sql.platform_rows import an_event, an_execution
from tests.sql.test_retention import at, month_ago, name
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer
from vital_tracking import VitalTracker
from vital_tracking.queries.parquet import read_back
from vital_tracking.stores.postgres import PostgresStore

OLD, OLDER = f"{month_ago(5):%Y-%m}", f"{month_ago(6):%Y-%m}"


@pytest.fixture
def calls(store: PostgresStore) -> None:
    """Calls of six, five and this month, the old ones in partitions of theirs."""
    store.call("ensure_partitions_v1", first_month=month_ago(6).date(), months=2)
    made = [a_cost(number, "0.1", user_id="u-1", **at(months)) for number, months in enumerate((6, 6, 5, 0), start=1)]
    made[0] |= {"input_cost": "0.06", "fees": "0.04", "billed_units": {"web_searches": 4}, "reported_cost": "0.11"}
    made += [
        an_unpriced_call(5, user_id="u-2", **at(6)),
        a_cost(6, "0.00000000000000000000000001", user_id="u-2", **at(5)),
    ]
    assert store.call("record_calls_v1", calls=json.dumps(made))["inserted"] == 6


def costs(rows: Rows) -> list[Decimal]:
    [sums] = rows("select sum(total_cost) as cost from usage_aggregations_daily_agents")
    [held] = rows("select coalesce(sum(total_cost), 0) as cost from token_usage_logs")
    return [sums["cost"], held["cost"]]


@pytest.mark.usefixtures("calls")
def test_old_months_are_archived_read_back_and_dropped(
    several: Several, rows: Rows, tmp_path: Path, store: PostgresStore
) -> None:
    """If this failed, calls would be in no file and no database."""
    before = costs(rows)[0]
    shown, archived, again, planned, dropped, nothing, run, late = several(
        ["retention", "show"],
        ["archive"],
        ["archive", OLDER, "--json"],
        ["retention", "run", "--dry-run"],
        ["archive", "--drop", "--yes"],
        ["archive"],
        ["retention", "run", "--yes"],
        ["retention", "partitions"],
    )
    assert f"In no archive: {OLDER}, {OLD}" in fine(shown)
    assert "vital-tracking archive" in shown.stdout
    for text in (f"{OLDER}  3 rows, $0.2000", "with indexes ->", "written and read back", "duckdb -c"):
        assert text in fine(archived), text
    assert "dropped" not in archived.stdout
    [once_more] = json.loads(fine(again))["months"]
    assert (once_more["rows"], once_more["total_cost"], once_more["written"], once_more["dropped"]) == (
        3,
        "0.2",
        True,
        False,
    )
    assert "In no archive" not in fine(planned)
    assert f"{OLDER} (3 rows), {OLD} (2 rows)" in planned.stdout
    assert dropped.stdout.count("written and read back, dropped") == 2, dropped.stdout + dropped.stderr
    assert "Nothing to archive" in fine(nothing)
    assert "Nothing has had its time" in fine(run)
    assert OLD not in fine(late)
    assert costs(rows) == [before, Decimal("0.1")]
    files = sorted((tmp_path / "archive").iterdir())
    assert [file.name for file in files] == [
        f"token_usage_logs_{month.replace('-', '_')}.parquet" for month in (OLDER, OLD)
    ]
    [[count, cost, unpriced]] = duck(
        f"select count(*), sum(total_cost)::text, count(*) filter (where not priced)"
        f" from '{tmp_path}/archive/*.parquet'"
    )
    assert (count, Decimal(cost), unpriced) == (5, Decimal("0.30000000000000000000000001"), 1)
    [[fees, reported, units]] = duck(
        "select sum(fees)::text, sum(reported_cost)::text, max(billed_units->>'web_searches')"
        f" from '{tmp_path}/archive/*.parquet' where total_cost = input_cost + output_cost + fees"
    )
    assert (Decimal(fees), Decimal(reported), units) == (Decimal("0.04"), Decimal("0.11"), "4")
    # What comes late goes into a file beside the first, once it is dropped.
    store.call("record_calls_v1", calls=json.dumps([a_cost(7, "0.7", **at(6))]))
    left, counted, late_file = several(
        ["archive"], ["archive", OLDER, "--json"], ["archive", "--drop", "--yes", "--json"]
    )
    assert f"{OLDER}  1 row of calls came after the month was dropped: --drop" in fine(left)
    assert "Nothing to archive" not in left.stdout
    said = json.loads(fine(counted))
    assert (said["months"], said["late"]) == ([], [{"of": "calls", "month": OLDER, "rows": 1}])
    assert [(row["rows"], Path(row["file"]).name) for row in json.loads(fine(late_file))["months"]] == [
        (1, f"token_usage_logs_{OLDER.replace('-', '_')}_2.parquet")
    ]
    assert read_back(files[0]).rows == 3
    assert costs(rows)[1] == Decimal("0.1")
    assert len(list((tmp_path / "archive").iterdir())) == 3


@pytest.mark.usefixtures("calls")
def test_a_late_call_is_in_one_archive_or_in_the_database(
    several: Several,
    rows: Rows,
    tmp_path: Path,
    store: PostgresStore,
    database_url: str,
    postgres_server: PostgresServer,
) -> None:
    """If this failed, calls would be in two files at once, or in none when the database had dropped them without an answer."""
    [done] = several(["archive", "--drop", "--yes"])
    fine(done)
    late = [a_cost(7, "0.7", **at(6)), a_cost(8, "0.8", **at(5))]
    store.call("record_calls_v1", calls=json.dumps(late))
    with FaultProxy(postgres_server.port) as proxy:
        proxy.lose(1, b"archive_month_v1", "answer")
        order, unanswered, rest = several(
            ["archive", OLD, "--drop", "--yes"],
            [f"VITAL_DATABASE_URL={proxy.url(database_url)}", "archive", OLDER, "--drop", "--yes"],
            ["archive", "--drop", "--yes"],
        )
    assert "No file is written" in refused(order)
    assert "nobody knows" in refused(unanswered)
    fine(rest)
    [[count, cost]] = duck(f"select count(*), sum(total_cost)::text from '{tmp_path}/archive/*.parquet'")
    assert (count, Decimal(cost)) == (7, Decimal("1.80000000000000000000000001"))
    assert len(list((tmp_path / "archive").iterdir())) == 4
    assert costs(rows)[1] == Decimal("0.1")


@pytest.mark.usefixtures("calls")
def test_an_archive_names_nobody_who_was_forgotten(several: Several, tmp_path: Path, store: PostgresStore) -> None:
    """If this failed, a file would name somebody who was forgotten before the month was dropped."""
    with psycopg.connect(store.conninfo) as refreshing:
        refreshing.execute("select pg_advisory_xact_lock(hashtext('vital_tracking.refresh_analytics'))")
        first, forgotten, last = several(
            ["archive"], ["forget-user", "u-2", "--yes"], ["archive", "--drop", "--yes", "--json"]
        )
    fine(first)
    assert "name the user until they are refreshed" in fine(forgotten)
    assert [row["written"] for row in json.loads(fine(last))["months"]] == [True, True]
    [[count, named]] = duck(
        f"select count(*), count(*) filter (where user_id = 'u-2') from '{tmp_path}/archive/*.parquet'"
    )
    assert (count, named) == (5, 0)
    assert len(list((tmp_path / "archive").iterdir())) == 2


def test_events_costs_and_executions_are_archived_as_calls_are(
    several: Several, rows: Rows, tmp_path: Path, store: PostgresStore
) -> None:
    """If this failed, what a platform does and pays for would fill the database for years, or be in no file."""
    store.call("ensure_partitions_v1", first_month=month_ago(6).date(), months=2)
    moment = month_ago(6).isoformat()
    store.call(
        "record_events_v1",
        events=json.dumps([an_event(n, occurred_at=moment, value="0.5", user_id="u-9") for n in (1, 2)]),
    )
    store.call("record_costs_v1", costs=json.dumps([a_platform_cost(3, occurred_at=moment)]))
    store.call("record_executions_v1", executions=json.dumps([an_execution(4, started_at=moment)]))
    before = rows(
        "select sum(cost_usd) as cost, (select sum(events) from platform_events_5min) as events from tenant_costs_daily"
    )
    listed, unknown, done, gone, exported, traces, forgotten = several(
        ["retention", "partitions", "--of", "costs"],
        ["archive", "--of", "event"],
        ["archive", "--of", "events", "--of", "all", "--drop", "--yes"],
        ["archive", OLDER, "--of", "costs"],
        ["retention", "show", "--json"],
        ["forget-user", "u-9", "--dry-run", "--json"],
        ["forget-user", "u-9", "--yes"],
    )
    found = json.loads(fine(traces))
    assert (found["events"], found["days"]) == (0, 1)  # what is in a file is in the sums, too
    fine(forgotten)
    assert rows("select user_id from platform_events_daily_sessions where events <> 0") == [{"user_id": None}]
    assert OLDER in fine(listed)
    assert "events" in refused(unknown, code=2)
    for text in (
        f"{OLDER}  2 rows, value 1.0  ",
        f"{OLDER}  1 row, $0.2300  ",
        "3 files: ",
        " with indexes -> ",
        "dropped",
    ):
        assert text in fine(done), text
    assert f"There are no costs of {OLDER}" in refused(gone)
    keep = {row["table_name"]: row["keep"] for row in json.loads(fine(exported))["tables"]}
    assert [keep[name] for name in ("platform_events", "tenant_cost_events", "agent_executions")] == [
        "3 years",
        "7 years",
        "3 years",
    ]
    assert sorted(file.name for file in (tmp_path / "archive").iterdir()) == [
        f"{name}_{OLDER.replace('-', '_')}.parquet"
        for name in ("agent_executions", "platform_events", "tenant_cost_events")
    ]
    [[count, value]] = duck(f"select count(*), sum(value)::text from '{tmp_path}/archive/platform_events_*.parquet'")
    assert (count, Decimal(value)) == (2, Decimal(1))
    assert rows("select count(*) as n from platform_events") == [{"n": 0}]
    assert before == rows(
        "select sum(cost_usd) as cost, (select sum(events) from platform_events_5min) as events from tenant_costs_daily"
    )


@pytest.mark.usefixtures("calls")
def test_retention_asks_and_says_what_goes(several: Several, rows: Rows) -> None:
    """If this failed, a slip would delete a year of calls; or nobody could keep them longer."""
    before = costs(rows)
    asked, longer, shown, forever, bad, short, unknown, quick, done, audit = several(
        ["retention", "run"],
        ["retention", "set", "token_usage_logs", "1 year"],
        ["retention", "show", "--json"],
        ["retention", "set", "token_usage_logs", "forever", "--json"],
        ["retention", "set", "token_usage_logs", "soon"],
        ["retention", "set", "token_usage_logs", "30d"],
        ["retention", "set", "calls", "90d"],
        ["retention", "set", "token_usage_logs", "31d"],
        ["retention", "run", "--yes", "--json"],
        ["export", "audit", "-"],
    )
    assert asked.returncode == 1
    assert "In no archive" in asked.stdout
    assert "Delete them for good?" in asked.stdout
    assert "kept 1 year" in fine(longer)
    assert {row["table_name"]: row["rows"] for row in json.loads(fine(shown))["tables"]}["token_usage_logs"] == 0
    assert json.loads(fine(forever)) == {"table_name": "token_usage_logs", "keep": None}
    assert "90d" in refused(bad, code=2)
    assert "31 days" in refused(short)
    assert "usage_aggregations_hourly_totals" in refused(unknown)
    fine(quick)
    assert json.loads(fine(done))["deleted"] == {"token_usage_logs": 5}
    assert costs(rows) == [before[0], Decimal("0.1")]
    assert "retention_policies,update" in fine(audit)


@pytest.mark.usefixtures("calls")
def test_archiving_asks_before_it_takes_anything(several: Several, store: PostgresStore, tmp_path: Path) -> None:
    """If this failed, a file of another database would be overwritten, or a month dropped that nobody meant."""
    newest, nonsense, absent, asked, order, first = several(
        ["archive", f"{month_ago(0):%Y-%m}"],
        ["archive", "july"],
        ["archive", "2001-01"],
        ["archive", "--drop"],
        ["archive", OLD, "--drop", "--yes"],
        ["archive", OLD, "--to", "elsewhere"],
    )
    assert "not over yet" in refused(newest)
    assert "2026-07" in refused(nonsense, code=2)
    assert "no calls of 2001-01" in refused(absent)
    assert asked.returncode == 1
    assert "Drop" in asked.stdout
    assert "older months" in refused(order)
    fine(first)
    file = tmp_path / "archive" / f"token_usage_logs_{OLD.replace('-', '_')}.parquet"
    store.call("record_calls_v1", calls=json.dumps([a_call(8, **at(5))]))
    file.write_bytes(b"not mine")
    broken, forced = several(["archive", OLD], ["archive", OLD, "--force"])
    assert "cannot be read" in refused(broken)
    fine(forced)
    assert read_back(file).rows == 3
    with psycopg.connect(store.conninfo) as connection:
        connection.execute("delete from vital_private.archived_months")
        connection.execute("delete from token_usage_logs where user_id = 'u-2'")
    [foreign] = several(["archive", OLD])
    assert "holds other rows" in refused(foreign)
    assert read_back(file).rows == 3


@pytest.mark.usefixtures("calls")
def test_forgetting_a_user_asks_first_and_leaves_the_costs(several: Several, rows: Rows) -> None:
    """If this failed, a request to be forgotten could not be met, or would be met without asking."""
    before = costs(rows)
    dry, asked, done, again, nobody, partly = several(
        ["forget-user", "u-1", "--dry-run"],
        ["forget-user", "u-1"],
        ["forget-user", "u-1", "--yes"],
        ["forget-user", "u-1", "--yes"],
        ["forget-user", " "],
        ["forget-user", "u-2", "--organization", "acme", "--yes", "--json"],
    )
    assert "u-1: 4 calls for $0.4000" in fine(dry)
    assert asked.returncode == 1
    assert "Nobody can undo it" in asked.stdout
    assert "forgotten: 4 calls in 4 rows" in fine(done)
    assert "sha256:" in done.stdout
    assert "u-1" not in done.stdout.partition("forgotten:")[2]
    assert "nothing of u-1" in fine(again)
    assert "name the user" in refused(nobody, code=2)
    assert json.loads(fine(partly))["rows"] == 0
    assert costs(rows) == before
    assert {row["user_id"] for row in rows("select user_id from token_usage_logs")} == {None, "u-2"}


def test_a_process_that_records_makes_the_partitions_it_needs(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """If this failed, a hosted database that no command ever tends would run out of months, and fill one heap."""
    rows_of = "select tableoid::regclass::text as home from token_usage_logs"
    with psycopg.connect(make_tracker().store.conninfo, autocommit=True) as connection:  # type: ignore[attr-defined]
        connection.execute(f"drop table vital_private.{name(0)}")
    tracker: Any = make_tracker()
    tracker.record(
        provider="openai", model="gpt-4o-mini", prompt_tokens=10, completion_tokens=1, started_at=datetime.now(UTC)
    )
    assert tracker.flush(30).inserted == 1
    assert rows(rows_of) == [{"home": f"vital_private.{datetime.now(UTC):token_usage_logs_%Y_%m}"}]
