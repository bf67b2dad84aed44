"""Measures and groupings are written once: whatever keeps, counts, compares or shows them follows from the catalogue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.sql.helpers import Connection, Row, a_call, acting_as, call, call_id, record
from vital_tracking.core.breakdowns import BREAKDOWNS, DIMENSIONS
from vital_tracking.queries.catalogue import GROUPINGS, MEASURES
from vital_tracking.queries.explored_report import COLUMNS
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.usage import usage_report
from vital_tracking.stores.postgres import PostgresStore

TABLES = ("hourly_totals", "daily_totals", "daily_agents", "daily_users", "daily_parts")
YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
DAY = (YESTERDAY, YESTERDAY + timedelta(hours=1))

A_MEASURE = """
insert into vital_private.usage_measures (position, name, unit, of_call, in_reports, in_views, about) values (
  26, 'throttled_calls', 'calls', 'case when call.throttled_ms > 0 then call.calls::bigint else 0 end', true, false,
  'Calls that waited.'
);
insert into vital_private.usage_measures (position, name, unit, of_sums, in_reports, in_views, about) values (
  112, 'throttle_rate', 'percent', 'round(100.0 * s.throttled_calls / nullif(s.calls, 0), 4)', true, false,
  'Percent of calls that waited.'
);
select vital_private.build_usage_aggregations();
"""


def kept(connection: Connection) -> dict[str, int]:
    """What each aggregation holds of the new measure."""
    found = {}
    for table in TABLES:
        [row] = connection.execute(
            f"select sum(throttled_calls)::integer as kept from usage_aggregations_{table}"
        ).fetchall()
        found[table] = row["kept"]
    return found


def differences(connection: Connection) -> list[Row]:
    """What the audit of yesterday finds."""
    [row] = connection.execute("select audit_usage_v1(%s, %s) as report", DAY).fetchall()
    return list(row["report"]["differences"])


def waited(number: int, throttled_ms: float | None) -> Row:
    """A call of yesterday in a workflow, which may have waited for a budget."""
    return a_call(
        number, created_at=YESTERDAY.isoformat(), user_id="u-1", workflow_id="intake", throttled_ms=throttled_ms
    )


def test_a_new_measure_is_kept_counted_compared_and_reported(db: Connection) -> None:
    """If this failed, a measure would be kept by one path and missed by another, and reports would not add up."""
    record(db, waited(1, 20.0))  # from before there was such a measure
    db.execute(A_MEASURE)
    record(db, waited(2, 30.0), waited(3, None), waited(4, 40.0))
    assert kept(db) == dict.fromkeys(TABLES, 2)
    db.execute("update token_usage_logs set throttled_ms = null where id = %s", [call_id(2)])
    assert kept(db) == dict.fromkeys(TABLES, 1)
    db.execute("delete from token_usage_logs where id = %s", [call_id(4)])
    assert kept(db) == dict.fromkeys(TABLES, 0)

    # The audit misses the first call, and counting again finds it.
    assert [(one["aggregation"], one["difference"]["throttled_calls"]) for one in differences(db)] == [
        (f"usage_aggregations_{table}", "-1") for table in TABLES
    ]
    db.execute("select queue_backfill_v1(%s, %s)", DAY)
    db.execute("select backfill_usage_v1()")
    assert kept(db) == dict.fromkeys(TABLES, 1)
    assert differences(db) == []

    for report in (name for name, grouping in GROUPINGS.items() if grouping.summed):
        answer = call(db, "usage_report_v1", report=report, since=DAY[0], until=DAY[1])
        for row in [answer["total"], *answer["rows"]]:
            assert (row["throttled_calls"], row["throttle_rate"]) == ((1, 33.3333) if row["calls"] else (0, None))
    stats = call(db, "dashboard_summary", organization=None, days=2)
    assert stats["totals"]["throttled_calls"] == 1
    [read] = db.execute("select sum(throttled_calls)::integer as n from vital_private.measured_calls").fetchall()
    assert read == {"n": 1}


def test_building_again_changes_nothing(db: Connection) -> None:
    """If this failed, a migration that is repeated would lose sums or the rights to read them."""
    record(db, waited(1, None))
    before = db.execute("select * from usage_aggregations_daily_agents").fetchall()
    db.execute("select vital_private.build_usage_aggregations()")
    assert db.execute("select * from usage_aggregations_daily_agents").fetchall() == before
    with acting_as(db, "authenticated", {"sub": "u-1"}):
        assert len(db.execute("select from vital_private.measured_calls").fetchall()) == 1
    record(db, waited(2, None))
    assert differences(db) == []


def test_a_new_grouping_is_one_row(db: Connection) -> None:
    """If this failed, a new grouping would have to be written once for every function that offers it."""
    db.execute(
        "insert into vital_private.usage_groupings (position, name, keys, source, call_label, sum_label)"
        " values (17, 'tier_and_model', '{agent_tier, model}', 'daily_agents',"
        " 'u.agent_tier || '' / '' || u.model', 'concat_ws('' / '', u.agent_tier, u.model)')"
    )
    record(db, {**waited(1, None), "agent_tier": "tier_1", "model": "m"})
    for function in ("cost_breakdown", "top_usage"):
        [row] = db.execute(f"select label, calls, total_cost::text from {function}('tier_and_model')").fetchall()
        assert row == {"label": "tier_1 / m", "calls": 1, "total_cost": "0.42"}


def test_the_library_knows_the_reports_and_measures_of_the_database(db: Connection, store: PostgresStore) -> None:
    """If this failed, a table or CSV would lack columns that the report has, or name some that it has not."""
    catalogue = call(db, "usage_catalogue_v1")
    reports = {one["name"]: one for one in catalogue["groupings"] if "usage_report_v1" in one["offered_by"]}
    assert {name: (set(one["labels"]), tuple(one["more_measures"])) for name, one in reports.items()} == {
        name: (set(grouping.labels), grouping.more) for name, grouping in GROUPINGS.items() if grouping.summed
    }
    offered = {one["name"] for one in catalogue["groupings"] if "cost_breakdown" in one["offered_by"]}
    assert set(BREAKDOWNS) == offered
    for name, one in reports.items():
        assert {COLUMNS.get(dimension, dimension) for dimension in GROUPINGS[name].by} == set(one["keys"]), name
    for split in (*DIMENSIONS, "team"):
        told = usage_report(store, "organizations", Filters(since=DAY[0], until=DAY[1]), by=split)
        assert (told["total"]["calls"], told["rows"]) == (0, []), split
    units = {one["name"]: one["unit"] for one in catalogue["measures"]}
    assert [one["name"] for one in catalogue["measures"] if one["in_reports"]] == [
        name for name in GROUPINGS["services"].columns if name in MEASURES and name != "share"
    ]
    for name in MEASURES.keys() & units.keys():
        assert MEASURES[name].unit.name == units[name], name


def test_the_catalogue_names_units_and_who_offers_a_grouping(db: Connection) -> None:
    """If this failed, a client could not tell dollars from tokens, or would ask for a grouping that is not offered."""
    catalogue = call(db, "usage_catalogue_v1")
    units = {one["name"]: one["unit"] for one in catalogue["measures"]}
    assert (units["total_cost"], units["hit_rate"], units["p95_latency_ms"], units["total_tokens"]) == (
        "usd",
        "percent",
        "ms",
        "tokens",
    )
    offered = {one["name"]: (one["offered_by"], one["aggregation"]) for one in catalogue["groupings"]}
    assert offered["session"] == (["cost_breakdown"], None)
    assert offered["panel"] == (["cost_breakdown", "top_usage"], "usage_aggregations_daily_parts")
    assert offered["users"] == (["usage_report_v1"], "usage_aggregations_daily_users")
    for function in ("cost_breakdown", "top_usage"):
        for name, (functions, _) in offered.items():
            if function in functions:
                db.execute(f"select * from {function}(%s)", [name])
