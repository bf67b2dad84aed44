"""What admins ask: views, dashboards and lists over the aggregations, and who may ask what."""

from __future__ import annotations

from decimal import Decimal

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    STRANGER,
    Connection,
    Row,
    a_call,
    acting_as,
    an_unpriced_call,
    call,
    record,
)
from tests.sql.test_materialized_views import moment
from tests.sql.test_usage_reports import BLOCKED, CARDIO, FREE, query


def test_the_system_view_has_a_row_a_day_with_the_right_figures(db: Connection) -> None:
    """If this failed, quiet days would be missing, or users counted as new again and again."""
    at = "2026-01-{:02}T10:00:00Z".format
    other: Row = {"organization_id": "other", "provider": "anthropic", "agent_id": "legal"}
    record(
        db,
        a_call(1, **CARDIO, created_at=at(10), latency_ms=100.0),
        a_call(2, **{**CARDIO, "user_id": "u-2"}, created_at=at(10), calls=2),
        a_call(3, **{**CARDIO, **other}, created_at=at(12)),
        a_call(4, **{**CARDIO, **other, "user_id": None}, created_at=at(12), status="error"),
        an_unpriced_call(5, created_at=at(12), user_id="u-3"),
        a_call(6, created_at=at(13), user_id="u-3", **BLOCKED),
    )
    days = query(db, "select * from system_analytics where date < '2026-01-15' order by date")
    assert [
        tuple(map(str, (row["date"], row["total_users"], row["active_users"], row["new_users"], row["total_requests"])))
        for row in days
    ] == [
        ("2026-01-10", "2", "2", "2", "3"),
        ("2026-01-11", "2", "0", "0", "0"),
        ("2026-01-12", "3", "2", "1", "3"),
        ("2026-01-13", "3", "1", "0", "1"),
        ("2026-01-14", "3", "0", "0", "0"),
    ]
    first, empty, third, blocked, _ = days
    assert (first["total_cost_usd"], first["cost_by_provider"]) == (Decimal("0.84"), {"openai": 0.84})
    assert first["popular_agents"] == [
        {"agent_id": "cardio", "agent_name": "Cardiologist", "requests": 3, "cost_usd": 0.84}
    ]
    assert [user["user_id"] for user in first["top_users_by_usage"]] == ["u-2", "u-1"]
    assert (empty["success_rate"], empty["cache_hit_rate"], empty["avg_response_time_ms"]) == (None, None, None)
    assert (
        empty["total_cost_usd"],
        empty["cost_by_provider"],
        empty["top_users_by_usage"],
        empty["popular_agents"],
    ) == (
        0,
        {},
        [],
        [],
    )
    assert third["cost_by_provider"] == {"anthropic": 0.84, "(no provider)": 0}
    assert (third["unpriced_requests"], round(third["success_rate"], 1)) == (1, Decimal("66.7"))
    assert (blocked["blocked_requests"], blocked["success_rate"]) == (1, None)
    [today] = query(db, "select max(date) = (now() at time zone 'UTC')::date as yes from system_analytics")
    assert today["yes"]


def test_the_dashboard_shows_an_organization_its_own_figures(db: Connection) -> None:
    """If this failed, the first page that an admin looks at would be wrong."""
    for number, ago in enumerate((0, 0, 1, 4, 9, 10), start=1):
        record(db, a_call(number, **CARDIO, created_at=moment(db, ago), potential_cost="0.50", latency_ms=50.0))
    record(db, a_call(7, created_at=moment(db), organization_id="other"))
    record(db, a_call(8, created_at=moment(db), organization_id="acme", cache_hit=True, **FREE))
    stats = call(db, "dashboard_summary", organization="acme", days=5)
    assert (stats["organization"], stats["days"], stats["until"], stats["since"]) == (
        "acme", 5, moment(db)[:10], moment(db, 4)[:10],
    )  # fmt: skip
    assert [stats["totals"][name] for name in ("calls", "total_cost", "cache_savings", "active_users")] == [
        5, "1.68", "0.74", 1,
    ]  # fmt: skip
    assert [stats["previous"][name] for name in ("calls", "total_cost", "active_users")] == [1, "0.42", 1]
    assert stats["change_percent"] == {"calls": 400, "total_cost": 300, "active_users": 0}
    assert stats["cache"] == {
        "cached_calls": 1,
        "hit_rate": 20,
        "cache_savings": "0.74",
        "savings_rate": pytest.approx(74 / 2.42, abs=1e-4),
        "prompt_cache_rate": 0,
    }
    assert [(day["day"], day["calls"], day["total_cost"]) for day in stats["by_day"]] == [
        (moment(db, ago)[:10], calls, cost)
        for ago, calls, cost in ((4, 1, "0.42"), (3, 0, "0"), (2, 0, "0"), (1, 1, "0.42"), (0, 3, "0.84"))
    ]
    assert [(row["service_type"], row["calls"], row["percent_of_cost"]) for row in stats["by_service"]] == [
        ("virtual_panel", 4, 100), (None, 1, 0),
    ]  # fmt: skip
    assert [(row["model"], row["calls"]) for row in stats["by_model"]] == [("gpt-4o-mini", 4), (None, 1)]
    [user], [agent] = stats["top_users"], stats["top_agents"]
    assert (user["user_id"], user["calls"], user["total_cost"], user["cache_savings"]) == ("u-1", 4, "1.68", "0.32")
    assert (agent["agent_id"], agent["agent_name"], agent["success_rate"]) == ("cardio", "Cardiologist", 100)
    assert call(db, "dashboard_summary", organization=None, days=5)["totals"]["calls"] == 6
    nothing = call(db, "dashboard_summary", organization="nobody", days=2)
    assert (nothing["totals"]["calls"], nothing["change_percent"]["calls"], len(nothing["by_day"])) == (0, None, 2)
    assert (nothing["by_service"], nothing["by_model"], nothing["top_users"], nothing["top_agents"]) == ([], [], [], [])


def test_the_dashboard_knows_agents_by_their_newest_name(db: Connection) -> None:
    """If this failed, a renamed agent would be listed twice, or by the name that it no longer has."""
    for number, (ago, name, model) in enumerate(((3, "Zoe", "a"), (1, "Adam", "b"), (0, None, "a")), start=1):
        record(db, a_call(number, **{**CARDIO, "agent_name": name, "model": model}, created_at=moment(db, ago)))
    [agent] = call(db, "dashboard_summary", organization="acme", days=30)["top_agents"]
    assert (agent["agent_name"], agent["calls"], agent["total_cost"]) == ("Adam", 3, "1.26")
    [rate] = query(db, "select * from agent_success_rate('cardio')")
    assert (rate["agent_name"], rate["calls"], rate["success_rate"]) == ("Adam", 3, 100)
    assert [row["label"] for row in query(db, "select * from top_usage('agent')")] == ["Adam"]


TOPS = {
    "organization": "acme",
    "service": "virtual_panel",
    "user": "u-1",
    "agent": "Cardiologist",
    "tier": "tier_1",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "panel": "board",
    "panel_seat": "board / seat 2 / Cardiologist",
    "workflow": "intake",
    "workflow_step": "intake / Triage",
}


def test_top_usage_finds_what_costs_most_by_every_grouping(db: Connection) -> None:
    """If this failed, "who spent it" would have no answer."""
    record(
        db,
        a_call(1, **CARDIO, created_at=moment(db, 29), latency_ms=100.0),
        a_call(2, **{**CARDIO, "organization_id": "other"}, created_at=moment(db)),
        a_call(3, **CARDIO, created_at=moment(db, 30)),
        a_call(4, created_at=moment(db)),
    )
    for by, label in TOPS.items():
        rows = query(db, "select * from top_usage(%s, organization => 'acme')", by)
        assert [(row["label"], row["calls"], row["total_cost"]) for row in rows] == [(label, 1, Decimal("0.42"))]
        assert (rows[0]["percent_of_cost"], rows[0]["average_latency_ms"], rows[0]["total_tokens"]) == (100, 100, 120)
        assert sum(row["calls"] for row in query(db, "select * from top_usage(%s)", by)) == 2
        assert query(db, "select * from top_usage(%s, max_rows => 0)", by) == []


def test_engagement_and_success_rates_are_those_of_the_calls(db: Connection) -> None:
    """If this failed, a user of one busy day would look as engaged as one who comes every day."""
    mine: Row = {"organization_id": "acme", "user_id": "u-1", "agent_id": "cardio"}
    record(
        db,
        a_call(1, **mine, created_at=moment(db, 2), service_type="workflow"),
        a_call(2, **mine, created_at=moment(db, 2), calls=3, status="error"),
        a_call(3, **mine, created_at=moment(db, 0), service_type="virtual_panel"),
        a_call(4, **mine, created_at=moment(db, 0), **BLOCKED),
        a_call(5, **{**mine, "user_id": "u-2"}, created_at=moment(db, 1)),
    )
    first, second = query(db, "select * from user_engagement(organization => 'acme')")
    assert (first["user_id"], first["active_days"], first["calls"], first["calls_per_active_day"]) == ("u-1", 2, 6, 3)
    assert (str(first["first_day"]), str(first["last_day"])) == (moment(db, 2)[:10], moment(db)[:10])
    assert (first["services"], second["services"], first["failed_calls"]) == (["virtual_panel", "workflow"], [], 4)
    assert len(query(db, "select * from user_engagement(max_rows => 1)")) == 1
    [agent] = query(db, "select * from agent_success_rate('cardio', 7, 'acme')")
    assert (agent["calls"], agent["failed_calls"], agent["blocked_calls"], agent["success_rate"]) == (
        7,
        4,
        1,
        50,
    )
    assert query(db, "select * from agent_success_rate('nobody')") == []


# Which organizations and users each sees: ALICE and BOB called for acme, CAROL and ADMIN for another; ADMIN is acme's admin.
WHO: dict[str, tuple[str, Row, set[str], set[str]]] = {
    "admin": ("authenticated", {"sub": ADMIN}, {"acme"}, {ALICE, BOB, ADMIN}),
    "admin of another": ("authenticated", {"sub": CAROL}, {"other"}, {CAROL, ADMIN}),
    "member": ("authenticated", {"sub": ALICE}, set(), {ALICE}),
    "stranger": ("authenticated", {"sub": STRANGER}, set(), set()),
    "nobody": ("authenticated", {}, set(), set()),
    "service role": ("service_role", {}, {"acme", "other"}, {ALICE, BOB, CAROL, ADMIN}),
}


@pytest.mark.parametrize("who", WHO)
def test_reports_show_everyone_what_is_theirs(anywhere: Connection, who: str) -> None:
    """If this failed, a customer would read another customer's figures."""
    role, claims, organizations, users = WHO[who]
    owners = [(ALICE, "acme"), (BOB, "acme"), (CAROL, "other"), (ADMIN, "other")]
    with anywhere.transaction(force_rollback=True):
        at = moment(anywhere)
        for number, (user, organization) in enumerate(owners):
            names = {"organization_id": organization, "user_id": user, "agent_id": f"agent of {organization}"}
            record(anywhere, a_call(number, created_at=at, **names))
        anywhere.execute(
            "insert into organization_members values"
            " ('acme', %s, 'admin'), ('acme', %s, 'member'), ('other', %s, 'admin')",
            [ADMIN, ALICE, CAROL],
        )
        with acting_as(anywhere, role, claims):
            mine = [one for one in owners if one[1] in organizations or one[0] == claims.get("sub")]
            seen_in = {organization for _, organization in mine}
            for name in ("service_performance_metrics", "agent_performance_metrics", "agent_success_rate()"):
                seen = query(anywhere, f"select * from {name}")
                assert {row["organization_id"] for row in seen} == seen_in, name
                assert sum(row.get("calls", row.get("total_requests")) for row in seen) == len(mine)
            assert {row["label"] for row in query(anywhere, "select * from top_usage('organization')")} == seen_in
            assert {row["user_id"] for row in query(anywhere, "select * from user_engagement()")} == users
            assert {row["label"] for row in query(anywhere, "select * from top_usage('user')")} == users
            # Who administers an organization is told of its days alone, not of their own calls elsewhere.
            days = query(anywhere, "select * from system_analytics")
            expected = 2 * len(organizations) or len(mine)
            assert [(row["total_requests"], row["total_users"], row["active_users"]) for row in days] == (
                [(expected, expected, expected)] if expected else []
            )
            assert sum(len(row["top_users_by_usage"]) for row in days) == expected
            asked: tuple[str | None, ...] = ("acme", "other", None)
            for project in asked:
                with anywhere.transaction():
                    if project in organizations or role == "service_role":
                        stats = call(anywhere, "dashboard_summary", organization=project)
                        assert stats["totals"]["calls"] == (2 if project else 4)
                        assert len(stats["top_users"]) == (2 if project else 4)
                    else:
                        with pytest.raises(InsufficientPrivilege), anywhere.transaction():
                            call(anywhere, "dashboard_summary", organization=project)


@pytest.mark.parametrize(
    ("role", "statements"),
    [
        (
            "anon",
            [
                "select from service_performance_metrics",
                "select from agent_performance_metrics",
                "select from system_analytics",
                "select get_dashboard_stats('acme')",
                "select dashboard_summary('acme')",
                "select top_usage('user')",
                "select agent_success_rate()",
                "select user_engagement()",
                "select usage_report_v1('users', now(), now())",
            ],
        ),
        ("authenticated", ["select usage_report_v1('users', now(), now(), 'acme')"]),
    ],
)
def test_visitors_get_no_report(anywhere: Connection, role: str, statements: list[str]) -> None:
    """If this failed, the publishable key in every browser would open the books."""
    for statement in statements:
        with acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(InsufficientPrivilege):
            anywhere.execute(sql.SQL(statement))
