"""What admins read: breakdowns, workflows with everything inside them, and the state of the tracking itself."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import Connection, Row, a_call, a_run, an_end, an_unpriced_call, record, record_runs


def breakdown(db: Connection, by: str, **arguments: Any) -> list[Row]:
    names = "".join(f", {name} => %({name})s" for name in arguments)
    with db.transaction():
        return db.execute(
            f"select * from cost_breakdown(%(by)s{names})",
            {"by": by, **arguments},  # type: ignore[arg-type]
        ).fetchall()


CONTEXT: Row = {
    "organization_id": "acme",
    "user_id": "u-1",
    "session_id": "s-1",
    "service_type": "virtual_panel",
    "agent_id": "cardio",
    "agent_name": "Cardiologist",
    "agent_tier": "tier_1",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "panel_id": "board",
    "panel_position": 2,
    "panel_size": 3,
    "workflow_id": "intake",
    "workflow_step": "triage",
    "workflow_step_name": "Triage",
    "solution_id": "care-plan",
    "framework": "langchain",
    "message_type": "chat",
}

LABELS = {
    "organization": "acme",
    "user": "u-1",
    "session": "s-1",
    "service": "virtual_panel",
    "agent": "Cardiologist",
    "tier": "tier_1",
    "model": "gpt-4o-mini",
    "provider": "openai",
    "panel": "board",
    "workflow": "intake",
    "panel_seat": "board / seat 2 of 3 / Cardiologist",
    "workflow_step": "intake / Triage",
    "solution": "care-plan",
    "framework": "langchain",
    "message_type": "chat",
    "status": "ok",
}


KEYS = {"agent": "cardio", "panel_seat": "board / 2 / cardio", "workflow_step": "triage / intake"}


@pytest.mark.parametrize(("by", "label"), LABELS.items())
def test_costs_break_down_by_everything_that_is_offered(db: Connection, by: str, label: str) -> None:
    """If this failed, an admin could not see where the money goes."""
    record(db, a_call(1, latency_ms=100, **CONTEXT), a_call(2, latency_ms=300, **CONTEXT))
    assert breakdown(db, by) == [
        {
            "label": label,
            "calls": 2,
            "failed_calls": 0,
            "cached_calls": 0,
            "unpriced_calls": 0,
            "prompt_tokens": 200,
            "completion_tokens": 40,
            "total_cost": Decimal("0.84"),
            "potential_cost": Decimal("0.84"),
            "average_latency_ms": 200.0,
            "key": KEYS.get(by, label),
        }
    ]


@pytest.mark.parametrize(
    ("by", "changes", "label"),
    [
        ("agent", {"agent_name": None}, "cardio"),
        ("panel_seat", {"panel_size": None}, "board / seat 2 / Cardiologist"),
        ("panel_seat", {"agent_id": None, "agent_name": None}, "board / seat 2 of 3"),
        ("panel_seat", {"agent_name": None}, "board / seat 2 of 3 / cardio"),
        ("workflow_step", {"workflow_step_name": None}, "intake / triage"),
        ("workflow_step", {"workflow_id": None}, "Triage"),
    ],
)
def test_a_label_makes_do_with_what_is_known(db: Connection, by: str, changes: Row, label: str) -> None:
    """If this failed, calls with less context would vanish from the report."""
    record(db, a_call(1, **{**CONTEXT, **changes}))
    assert [row["label"] for row in breakdown(db, by)] == [label]


def test_a_breakdown_groups_by_the_key_and_shows_the_newest_label(db: Connection) -> None:
    """If this failed, two agents of one name would merge into one line, and a renamed agent, seat or step would be two."""
    for number, (agent, name, size, step) in enumerate(
        [
            ("a-1", "Helper", 2, "Old"),
            ("a-2", "Helper", 2, "Old"),
            ("a-1", "Assistant", 3, "New"),
            ("a-1", None, None, None),
        ],
        start=1,
    ):
        facts = {**CONTEXT, "agent_id": agent, "agent_name": name, "panel_size": size, "workflow_step_name": step}
        record(db, a_call(number, **facts, created_at=f"2026-01-1{number}T10:00:00Z"))
    for by, expected in {
        "agent": [("Assistant", "a-1", 3), ("Helper", "a-2", 1)],
        "panel_seat": [
            ("board / seat 2 of 3 / Assistant", "board / 2 / a-1", 3),
            ("board / seat 2 of 2 / Helper", "board / 2 / a-2", 1),
        ],
        "workflow_step": [("intake / New", "triage / intake", 4)],
    }.items():
        assert [(row["label"], row["key"], row["calls"]) for row in breakdown(db, by)] == expected, by


def test_failed_cached_and_unpriced_calls_are_counted_apart(db: Connection) -> None:
    """If this failed, an unknown price would pass for a saving."""
    free = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}
    record(
        db,
        a_call(1, user_id="u"),
        a_call(2, user_id="u", status="error"),
        a_call(3, user_id="u", cache_hit=True, **free),
        an_unpriced_call(4, user_id="u"),
    )
    [row] = breakdown(db, "user")
    assert (row["calls"], row["failed_calls"], row["cached_calls"], row["unpriced_calls"]) == (4, 1, 1, 1)
    # 0.42 + 0.42 + 0 for the cached one; the unpriced one is in no sum.
    assert (row["total_cost"], row["potential_cost"]) == (Decimal("0.84"), Decimal("1.26"))


def test_a_row_that_stands_for_several_calls_counts_as_them_all(db: Connection) -> None:
    """If this failed, calls that were merged in need would be missing from reports, or seem slower than they were."""
    run = {"user_id": "u", "service_run_id": "r-1"}
    record_runs(db, an_end())
    record(
        db,
        a_call(1, latency_ms=100, **run),
        a_call(2, latency_ms=300, **run),
        a_call(3, calls=7, total_cost="2.94", potential_cost="2.94", **run),
        a_call(4, calls=3, status="error", **run),
        an_unpriced_call(5, calls=5, cache_hit=True, **run),
    )
    [row] = breakdown(db, "user")
    assert (row["calls"], row["failed_calls"], row["cached_calls"], row["unpriced_calls"]) == (17, 3, 5, 5)
    assert (row["total_cost"], row["average_latency_ms"]) == (Decimal("4.20"), 200.0)
    run_s = analytics(db)["r-1"]
    assert (run_s["calls"], run_s["failed_calls"], run_s["unpriced_calls"]) == (17, 3, 5)
    assert run_s["total_cost"] == Decimal("4.20")
    detailed = db.execute("select calls from agent_usage_detailed order by id").fetchall()
    assert [row["calls"] for row in detailed] == [1, 1, 7, 3, 5]


def test_counts_of_calls_are_whole_numbers_to_every_client(db: Connection) -> None:
    """If this failed, a client would read a number of calls as text or as a fraction."""
    kinds = db.execute(
        "select distinct format_type(atttypid, null) as kind from pg_attribute"
        " where attrelid = 'workflow_analytics'::regclass and attname like '%calls'"
    ).fetchall()
    assert kinds == [{"kind": "bigint"}]
    record(db, a_call(1, user_id="u", calls=2**31 - 1), a_call(2, user_id="u", calls=2**31 - 1))
    [row] = breakdown(db, "user")
    assert (type(row["calls"]), row["calls"]) == (int, 2**32 - 2)


def test_the_dearest_comes_first_and_only_unpriced_costs_zero(db: Connection) -> None:
    """If this failed, the list would not show first what matters most."""
    record(db, a_call(1, user_id="a"), a_call(2, user_id="b"), a_call(3, user_id="b"), an_unpriced_call(4, user_id="c"))
    assert [(row["label"], str(row["total_cost"])) for row in breakdown(db, "user")] == [
        ("b", "0.84"),
        ("a", "0.42"),
        ("c", "0"),
    ]


def test_a_breakdown_is_limited_to_its_time_and_organization(db: Connection) -> None:
    """If this failed, a month's bill would hold another month's calls."""
    record(
        db,
        a_call(1, created_at="2026-01-01T00:00:00+00:00", organization_id="acme"),
        a_call(2, created_at="2026-01-31T23:59:59.999999+00:00", organization_id="acme"),
        a_call(3, created_at="2026-02-01T00:00:00+00:00", organization_id="acme"),
        a_call(4, created_at="2026-01-15T00:00:00+00:00", organization_id="other"),
    )
    january = {"since": "2026-01-01Z", "until": "2026-02-01Z"}
    assert {row["label"]: row["calls"] for row in breakdown(db, "organization", **january)} == {"acme": 2, "other": 1}
    assert [row["calls"] for row in breakdown(db, "organization", organization="acme")] == [3]


@pytest.mark.parametrize("by", ["", "model; drop table token_usage_logs", "USER", "user_id", None])
def test_a_wrong_grouping_is_refused_with_the_right_ones(db: Connection, by: Any) -> None:
    """If this failed, a slip would give an empty report, or run as SQL."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot group by") as refused:
        breakdown(db, by)
    assert "workflow_step" in (refused.value.diag.message_hint or "")


def analytics(db: Connection) -> dict[str, Row]:
    rows = db.execute("select * from workflow_analytics").fetchall()
    return {row["service_run_id"]: row for row in rows}


def test_a_run_s_totals_hold_everything_that_ran_inside_it(db: Connection) -> None:
    """If this failed, a solution would seem cheaper than the workflows and panels it is made of."""
    record_runs(
        db,
        an_end("solution", service_type="solution_builder", workflow_id=None, solution_id="care-plan"),
        an_end("intake", parent_run_id="solution", ancestor_run_ids=["solution"]),
        an_end("panel", service_type="virtual_panel", parent_run_id="intake", ancestor_run_ids=["intake", "solution"]),
        a_run("other", workflow_id="billing"),
    )
    step = {"workflow_id": "intake", "user_id": "u"}
    record(
        db,
        a_call(1, service_run_id="solution"),
        a_call(2, service_run_id="intake", workflow_step="triage", **step),
        a_call(3, service_run_id="intake", workflow_step="triage", status="error", **step),
        a_call(4, service_run_id="intake", workflow_step="plan", **step),
        an_unpriced_call(5, service_run_id="panel", workflow_step="board", **step),
        a_call(6, service_run_id="panel", total_cost="0.50", potential_cost="0.60"),
        a_call(7, service_run_id="other"),
        a_call(8),
    )
    runs = analytics(db)
    assert set(runs) == {"solution", "intake", "other"}
    solution, intake = runs["solution"], runs["intake"]
    # The solution's own 0.42, the workflow's 3 x 0.42, the panel's 0.50; the unpriced call is counted beside them.
    assert solution["total_cost"] == Decimal("0.42") + 3 * Decimal("0.42") + Decimal("0.50") == Decimal("2.18")
    assert solution["potential_cost"] == 4 * Decimal("0.42") + Decimal("0.60")
    assert (solution["calls"], solution["failed_calls"], solution["unpriced_calls"], solution["steps"]) == (6, 1, 1, 3)
    assert (solution["prompt_tokens"], solution["completion_tokens"], solution["total_tokens"]) == (600, 120, 720)
    assert intake["total_cost"] == 3 * Decimal("0.42") + Decimal("0.50")
    assert (intake["calls"], intake["steps"], intake["duration_ms"]) == (5, 3, 90_000)
    assert (runs["other"]["calls"], runs["other"]["status"], runs["other"]["duration_ms"]) == (1, "running", None)


def test_a_run_without_calls_cost_nothing(db: Connection) -> None:
    """If this failed, a run that made no call would be missing, or have no cost at all."""
    record_runs(db, an_end())
    row = analytics(db)["r-1"]
    assert (row["calls"], row["steps"], row["total_cost"], row["total_tokens"]) == (0, 0, 0, 0)


def test_a_detailed_call_shows_what_the_team_asked_for(db: Connection) -> None:
    """If this failed, the view that admins query would lack a fact about the call."""
    metadata = {"k": 1}
    record(db, a_call(1, status="error", error_type="Timeout", latency_ms=7.5, metadata=metadata, **CONTEXT))
    row = db.execute("select * from agent_usage_detailed").fetchone()
    assert row is not None
    assert (row["framework"], row["provider"], row["message_type"]) == ("langchain", "openai", "chat")
    assert (row["response_time_ms"], row["success"], row["error_type"], row["metadata"]) == (
        7.5,
        False,
        "Timeout",
        metadata,
    )
    assert (row["total_tokens"], row["total_cost"]) == (120, Decimal("0.42"))


def status(db: Connection) -> Row:
    row = db.execute("select tracking_status_v1() as status").fetchone()
    assert row is not None
    return dict(row["status"])


def test_the_status_of_an_empty_database(db: Connection) -> None:
    """If this failed, `doctor` would fail on a fresh installation."""
    found = status(db)
    assert (found["calls_last_day"], found["last_call_at"], found["unpriced_calls"]) == (0, None, 0)
    assert (found["unpriced_models"], found["calls_in_default_partition"], found["runs_still_open"]) == ([], 0, 0)
    ahead = db.execute("select %s::timestamp > now() + interval '11 months' as ahead", [found["partitions_until"]])
    assert ahead.fetchone() == {"ahead": True}


def test_the_status_counts_what_needs_attention(db: Connection) -> None:
    """If this failed, unpriced calls, forgotten runs or missing partitions would stay unseen."""
    now = db.execute("select now()::text as now, (now() - interval '2 days')::text as before").fetchone()
    assert now is not None
    record(
        db,
        a_call(1, created_at=now["now"]),
        an_unpriced_call(2, created_at=now["now"], model="new-model"),
        an_unpriced_call(3, created_at=now["before"], model="new-model"),
        an_unpriced_call(4, created_at="2050-01-01T00:00:00Z"),
    )
    record_runs(db, a_run("old", started_at=now["before"]), a_run("new", started_at=now["now"]))
    found = status(db)
    assert (found["unpriced_calls"], found["unpriced_models"]) == (3, ["(no model)", "new-model"])
    assert (found["calls_in_default_partition"], found["runs_still_open"]) == (1, 1)
    assert found["calls_last_day"] == 3  # the two of now, and the one dated ahead
    record(db, an_unpriced_call(5, created_at="2050-01-01T00:00:00Z", calls=7))
    more = status(db)
    assert [more[name] - found[name] for name in ("calls_last_day", "unpriced_calls", "calls_in_default_partition")] == [
        7, 7, 7,
    ]  # fmt: skip


def history(db: Connection) -> list[Row]:
    row = db.execute("select usage_history_v1() as history").fetchone()
    assert row is not None
    return list(row["history"])


def test_estimates_of_answers_rest_on_single_calls_only(db: Connection) -> None:
    """If this failed, the next answers would be estimated as long as many together, and held to cost as much."""
    row = db.execute("select now()::text as now").fetchone()
    assert row is not None
    known: Row = {"created_at": row["now"], "model": "m", "agent_id": "a"}
    many = {"calls": 7, "completion_tokens": 140, "total_tokens": 240}
    record(db, *[a_call(number, **known) for number in range(7)], *[a_call(10 + n, **known, **many) for n in range(9)])
    assert history(db) == []
    record(db, a_call(9, **known))
    assert history(db) == [{"model": "m", "agent_id": "a", "completion_tokens": 20}]
