"""Materialized views: what they hold, how they are refreshed, who reads them, and what pg_cron is asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.sql.helpers import (
    ADMIN,
    STAND_IN_FOR_PG_CRON,
    Connection,
    Row,
    a_call,
    acting_as,
    an_end,
    an_unpriced_call,
    call,
    record,
    record_runs,
)

VIEWS = ["mv_service_costs", "mv_workflow_efficiency", "mv_panel_performance", "mv_user_service_usage"]


def moment(db: Connection, days_ago: int = 0) -> str:
    """Noon (UTC) of a day, as a call has it."""
    found = db.execute(
        "select (date_trunc('day', now(), 'UTC') - %s * interval '1 day' + interval '12 hours')::text as at", [days_ago]
    ).fetchone()
    assert found is not None
    return str(found["at"])


def rows_of(db: Connection, view: str, order: str = "1, 2, 3") -> list[Row]:
    return db.execute(sql.SQL("select * from {} order by {}").format(sql.Identifier(view), sql.SQL(order))).fetchall()


def refreshed(db: Connection) -> Row:
    return dict(call(db, "refresh_analytics"))


def test_a_refresh_says_which_views_when_and_how_long(db: Connection) -> None:
    """If this failed, nobody could tell how old the figures are."""
    assert [row["name"] for row in rows_of(db, "analytics_freshness", "name")] == sorted(VIEWS)
    assert [len(rows_of(db, view)) for view in VIEWS] == [0, 0, 0, 0]
    before = db.execute("select clock_timestamp() as at").fetchone()
    assert before is not None
    answer = refreshed(db)
    assert (answer["busy"], [view["name"] for view in answer["views"]]) == (False, VIEWS)
    assert all(view["seconds"] >= 0 for view in answer["views"])
    known = db.execute(
        "select name, refreshed_at > %s as fresh, seconds >= 0 as timed from analytics_freshness", [before["at"]]
    ).fetchall()
    assert {row["name"] for row in known if row["fresh"] and row["timed"]} == set(VIEWS)


def test_views_show_the_last_refresh_until_the_next(db: Connection) -> None:
    """If this failed, a refresh would miss what is new, what has changed or what is gone."""
    at = moment(db)
    refreshed(db)
    record(db, a_call(1, created_at=at), a_call(2, created_at=at, organization_id="acme", service_type="workflow"))
    assert rows_of(db, "mv_service_costs") == []
    refreshed(db)
    assert [(row["organization_id"], row["service_type"], row["calls"]) for row in rows_of(db, "mv_service_costs")] == [
        ("acme", "workflow", 1), (None, None, 1),
    ]  # fmt: skip
    db.execute("delete from token_usage_logs where organization_id = 'acme'")
    record(db, a_call(3, created_at=at))
    refreshed(db)
    assert [(row["organization_id"], row["calls"]) for row in rows_of(db, "mv_service_costs")] == [(None, 2)]


def test_a_view_that_was_never_filled_is_filled(db: Connection) -> None:
    """If this failed, a restored database would keep its views empty: what is not filled cannot be refreshed concurrently."""
    record(db, a_call(1, created_at=moment(db)))
    for view in VIEWS:
        db.execute(sql.SQL("refresh materialized view {} with no data").format(sql.Identifier(view)))
    assert [view["name"] for view in refreshed(db)["views"]] == VIEWS
    assert len(rows_of(db, "mv_service_costs")) == 1


def test_two_refreshes_never_run_at_once(own_db: Connection, database_url: str) -> None:
    """If this failed, slow refreshes would pile up behind each other."""
    with psycopg.connect(database_url) as first:
        first.execute("select refresh_analytics()")
        assert refreshed(own_db) == {"views": [], "busy": True}
        # Readers are not held up by it.
        assert rows_of(own_db, "mv_service_costs") == []
        first.rollback()
    assert len(refreshed(own_db)["views"]) == 4


def test_the_materialized_view_of_services_is_that_of_calls_and_runs(db: Connection) -> None:
    """If this failed, the view would tell other sums than the bill, or cost per run of runs that never were."""
    at = moment(db, 29)
    acme: Row = {"created_at": at, "organization_id": "acme", "service_type": "workflow"}
    record(
        db,
        a_call(1, **acme, latency_ms=100.0),
        a_call(2, **acme, status="error", input_cost="0", output_cost="0.18", total_cost="0.18", potential_cost="1"),
        an_unpriced_call(3, **{**acme, "service_type": "virtual_panel"}),
        a_call(4, **{**acme, "created_at": moment(db, 30)}),
    )
    record_runs(
        db,
        an_end("r-1", organization_id="acme", started_at=at, ended_at=moment(db, 28)),
        an_end("r-2", organization_id="acme", started_at=at, ended_at=moment(db, 28), status="error"),
        an_end("r-3", started_at=at, ended_at=at),
    )
    refreshed(db)
    panel, workflow = rows_of(db, "mv_service_costs")
    assert (workflow["calls"], workflow["failed_calls"], workflow["success_rate"]) == (2, 1, 50)
    assert (workflow["total_cost"], workflow["cache_savings"]) == (Decimal("0.60"), Decimal("0.82"))
    assert (workflow["runs"], workflow["failed_runs"], workflow["cost_per_run"]) == (2, 1, Decimal("0.30"))
    assert (workflow["average_run_ms"], workflow["average_latency_ms"]) == (86_400_000, 100)
    assert workflow["p95_latency_ms"] == pytest.approx(100, rel=0.05)
    assert (workflow["percent_of_cost"], workflow["average_cost"]) == (100, Decimal("0.30"))
    # No price, no run, no latency: no average of nothing.
    assert (panel["calls"], panel["unpriced_calls"], panel["total_cost"], panel["average_cost"]) == (1, 1, 0, None)
    assert (panel["runs"], panel["cost_per_run"], panel["average_latency_ms"], panel["p50_latency_ms"]) == (
        0, None, None, None,
    )  # fmt: skip


def test_the_materialized_view_of_steps_is_that_of_the_calls(db: Connection) -> None:
    """If this failed, authors would look at the wrong step."""
    at = moment(db)
    step: Row = {"created_at": at, "organization_id": "acme", "service_type": "workflow", "workflow_id": "intake"}
    record(
        db,
        a_call(1, **{**step, "created_at": moment(db, 1)}, workflow_step="a", workflow_step_name="Old", latency_ms=300),
        a_call(2, **step, workflow_step="a", workflow_step_name="New", latency_ms=300.0),
        a_call(3, **step, workflow_step="b", latency_ms=200.0),
        a_call(4, created_at=at, workflow_step="a"),
        a_call(5, **{**step, "organization_id": None}),
    )
    record_runs(
        db,
        *[an_end(f"r-{n}", organization_id="acme", started_at=at, ended_at=at) for n in range(4)],
        an_end("r-n", started_at=at, ended_at=at),
    )
    refreshed(db)
    a, b, nobody, loose = rows_of(db, "mv_workflow_efficiency")
    assert (a["workflow_step_name"], a["calls"], a["total_cost"]) == ("New", 2, Decimal("0.84"))
    assert (a["percent_of_cost"], a["percent_of_time"]) == (Decimal("66.6667"), 75)
    assert (a["workflow_runs"], a["calls_per_run"], a["cost_per_run"]) == (4, Decimal("0.5"), Decimal("0.21"))
    assert (b["workflow_step_name"], b["calls_per_run"]) == (None, Decimal("0.25"))
    # Runs of nobody's organization are runs too; a step outside any workflow has none.
    assert (nobody["organization_id"], nobody["workflow_runs"], nobody["percent_of_time"]) == (None, 1, None)
    assert (loose["workflow_id"], loose["workflow_runs"], loose["cost_per_run"]) == (None, None, None)


def test_the_materialized_view_of_panel_members_is_that_of_the_calls(db: Connection) -> None:
    """If this failed, the dearest member of a panel could not be told from the others."""
    seat: Row = {"organization_id": "acme", "service_type": "virtual_panel", "panel_id": "board", "panel_size": 2}
    cardio: Row = {"panel_position": 1, "agent_id": "cardio"}
    at = moment(db)
    record(
        db,
        a_call(1, **seat, **cardio, created_at=moment(db, 2), agent_name="Heart"),
        a_call(2, **seat, **cardio, created_at=at, agent_name="Cardiologist"),
        a_call(3, **seat, created_at=at, panel_position=2, agent_id="legal", cache_hit=True, **FREE),
    )
    record_runs(db, an_end("p-1", **PANEL_RUN, started_at=at, ended_at=at))
    refreshed(db)
    first, second = rows_of(db, "mv_panel_performance")
    assert (first["agent_id"], first["agent_name"], first["calls"], first["percent_of_cost"]) == (
        "cardio", "Cardiologist", 2, 100,
    )  # fmt: skip
    assert (first["panel_runs"], first["cost_per_run"]) == (1, Decimal("0.84"))
    assert (second["panel_position"], second["hit_rate"], second["cache_savings"]) == (2, 100, Decimal("0.42"))


def test_the_materialized_view_of_users_is_that_of_the_calls(db: Connection) -> None:
    """If this failed, heavy users would be overlooked."""
    mine: Row = {"organization_id": "acme", "user_id": "u-1", "service_type": "workflow"}
    record(
        db,
        a_call(1, **mine, created_at=moment(db, 3)),
        a_call(2, **mine, created_at=moment(db, 1)),
        a_call(3, created_at=moment(db, 1), calls=5),
    )
    record_runs(db, an_end("r-1", **mine, started_at=moment(db, 1), ended_at=moment(db, 1)))
    refreshed(db)
    known, nobody = rows_of(db, "mv_user_service_usage")
    assert (known["user_id"], known["active_days"], known["calls"], known["runs"]) == ("u-1", 2, 2, 1)
    assert str(known["last_day"]) == moment(db, 1)[:10]
    assert (nobody["organization_id"], nobody["user_id"], nobody["calls"], nobody["runs"]) == (None, None, 5, 0)


FREE: Row = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}
PANEL_RUN: Row = {
    "service_type": "virtual_panel",
    "service_id": "board",
    "workflow_id": None,
    "panel_id": "board",
    "organization_id": "acme",
}


def test_only_the_service_role_reads_and_refreshes(anywhere: Connection) -> None:
    """If this failed, figures of all organizations would be open, or the secret key of a project could not refresh them."""
    with anywhere.transaction(force_rollback=True):
        record(anywhere, a_call(1, created_at=moment(anywhere), organization_id="acme"))
        anywhere.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        with acting_as(anywhere, "service_role"):
            assert len(refreshed(anywhere)["views"]) == 4
            assert [len(rows_of(anywhere, view)) for view in VIEWS] == [1, 0, 0, 1]
            assert len(rows_of(anywhere, "analytics_freshness")) == 4
        for role in ("anon", "authenticated"):
            for statement in (
                *[f"select from {name}" for name in (*VIEWS, "analytics_freshness")],
                "select refresh_analytics()",
                "select schedule_refresh()",
            ):
                with acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(InsufficientPrivilege):
                    anywhere.execute(statement)


def schedules(db: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in db.execute("select * from cron.job").fetchall()]


def test_pg_cron_refreshes_where_it_is_installed(db: Connection) -> None:
    """If this failed, views would stay as old as the migration on every Supabase project, or be refreshed twice."""
    assert call(db, "schedule_refresh") is False
    db.execute(STAND_IN_FOR_PG_CRON)
    assert [call(db, "schedule_refresh") for _ in range(2)] == [True, True]
    [job] = schedules(db)
    assert job == ("vital_tracking.refresh_analytics", "*/5 * * * *", "select public.refresh_analytics()")
    assert db.execute(job[2]).rowcount == 1


def test_a_pg_cron_that_refuses_breaks_nothing(db: Connection) -> None:
    """If this failed, a migration would fail where only some may schedule jobs, or in a database other than pg_cron's."""
    db.execute(STAND_IN_FOR_PG_CRON)
    db.execute(
        "create or replace function cron.schedule(job_name text, schedule text, command text) returns bigint"
        " language plpgsql as $$ begin raise insufficient_privilege; end $$"
    )
    assert call(db, "schedule_refresh") is False
    db.execute("drop function cron.schedule")
    assert call(db, "schedule_refresh") is False
