"""The page of names that admins type, run whole: its SQL and its Python, as service role, organization admin and user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from postgrest.exceptions import APIError
from psycopg.errors import InsufficientPrivilege

from tests.integration.stores.test_supabase_access import empty
from tests.sql.helpers import (
    Connection,
    Row,
    a_call,
    acting_as,
    an_end,
    an_unpriced_call,
    connect,
    record,
    record_runs,
    set_budget,
)
from tests.support.supabase_lite import SupabaseLite

pytestmark = pytest.mark.timeout(300)

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sql.md").read_text(encoding="utf-8")
SQL = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for statement in block.split(";\n")
    if statement.strip()
]
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ONLY_THE_SERVICE_ROLE = re.compile(r"\bmv_|refresh_analytics|update budget_limits")

# Role, subject, and whose of the calls below they see.
ROLES: dict[str, tuple[str, str, set[str]]] = {
    "service role": ("service_role", "", {"u-1", "u-2", "u-3"}),
    "organization admin": ("authenticated", "admin-1", {"u-1", "u-2"}),
    "user": ("authenticated", "u-1", {"u-1"}),
}


def the_calls(now: datetime) -> list[Row]:
    """Calls of this hour and of noon yesterday and the day before, of two users of acme and one of another organization."""
    yesterday = now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    moments = (now - timedelta(minutes=1), yesterday, yesterday - timedelta(days=1))
    owners = (("u-1", "acme"), ("u-2", "acme"), ("u-3", "other"))
    what: Row = {
        "agent_id": "cardio",
        "agent_name": "Cardiologist",
        "provider": "openai",
        "model": "m",
        "framework": "langgraph",
        "service_type": "workflow",
        "workflow_id": "intake",
        "workflow_step": "triage",
        "panel_id": "board",
        "panel_position": 1,
    }
    calls: list[Row] = []
    for n, (user, organization) in enumerate(owners):
        for at in moments:
            whose = {"user_id": user, "organization_id": organization, "created_at": at.isoformat(), **what}
            calls.append(a_call(len(calls) + 1, **whose, message_type="chat", latency_ms=100.0 * (n + 1)))
            calls.append(an_unpriced_call(len(calls) + 1, **whose, message_type="embedding"))
            calls.append(
                a_call(len(calls) + 1, **whose, message_type="chat", status="error", error_type="TimeoutError")
            )
    return calls


@pytest.fixture(scope="module")
def known(lite: SupabaseLite) -> Iterator[Connection]:
    """The database behind the API, with what the page asks about."""
    with connect(lite.database_url) as connection:
        empty(connection)
        with connection.transaction():
            connection.execute("insert into organization_members values ('acme', 'admin-1', 'admin')")
            set_budget(connection, entity_type="user", daily_limit="3")
            calls = the_calls(datetime.now(UTC))
            at = calls[0]["created_at"]
            record_runs(connection, an_end("r-1", organization_id="acme", user_id="u-1", started_at=at, ended_at=at))
            assert record(connection, *calls)["inserted"] == len(calls)
            connection.execute("select refresh_analytics()")
        yield connection
        empty(connection)


def test_the_page_names_everything_that_admins_type() -> None:
    """If this failed, a name would be promised that nobody has shown to work."""
    for name in (
        *(
            "agent_usage_detailed",
            "agent_performance_metrics",
            "system_analytics",
            "usage_logs",
            "usage_aggregations_hourly",
        ),
        *("usage_aggregations_daily", "get_dashboard_stats", "get_tenant_cost", "get_agent_success_rate"),
        *("service_costs", "workflow_efficiency", "panel_performance", "user_service_usage", "update budget_limits"),
    ):
        assert any(name in statement for statement in SQL), name
        if name != "update budget_limits":
            assert any(f'"{name}"' in block for block in PYTHON), name


@pytest.mark.parametrize("who", ROLES)
def test_the_sql_of_the_page_answers(known: Connection, who: str) -> None:
    """If this failed, an admin would type what they always typed, and get an error or nothing."""
    role, subject, _ = ROLES[who]
    with acting_as(known, role, {"sub": subject}):
        for statement in SQL:
            if ONLY_THE_SERVICE_ROLE.search(statement) and role != "service_role":
                with pytest.raises(InsufficientPrivilege), known.transaction():
                    known.execute(statement.encode())
                continue
            cursor = known.execute(statement.encode())
            assert cursor.rowcount > 0 or (who == "organization admin" and "budget_status" in statement), statement
            if "as difference" in statement:
                assert [(row["difference"], row["of_calls"] > 0) for row in cursor.fetchall()] == [(0, True)]


def test_the_page_gives_one_user_more(known: Connection) -> None:
    """If this failed, who follows the page would change nothing, or a limit that does not count."""
    limit = "select limit_amount from budget_status where entity_id = %s and period = 'day' and ends_at > now()"
    with acting_as(known, "service_role"):
        updated = known.execute(
            "update budget_limits set daily_limit = 10 where entity_type = 'user' and entity_id = 'u-1'"
        )
        assert updated.rowcount == 0
        for statement in SQL:
            if "override_budget_v1" in statement:
                known.execute(statement.encode())
        found = {user: known.execute(limit, [user]).fetchall() for user in ("u-1", "u-2")}
        assert {user: [row["limit_amount"] for row in rows] for user, rows in found.items()} == {
            "u-1": [10],
            "u-2": [3],
        }


@pytest.mark.parametrize("who", ROLES)
def test_the_python_of_the_page_answers(
    lite: SupabaseLite, known: Connection, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a dashboard over the API would break on a name, on an amount that is text, or on an unpriced call."""
    role, subject, seen = ROLES[who]
    monkeypatch.setenv("SUPABASE_URL", lite.url)
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", lite.service_key)
    first, *others = PYTHON
    page: dict[str, Any] = {}
    exec(first, page)
    page["supabase"] = lite.client() if role == "service_role" else lite.client_as(lite.jwt(subject))
    for block in others:
        if ONLY_THE_SERVICE_ROLE.search(block) and role != "service_role":
            with pytest.raises(APIError) as refused:
                exec(block, page)
            assert refused.value.code == "42501"
            continue
        exec(block, page)
    in_acme = len(seen & {"u-1", "u-2"})
    # Of each user 3 times 3 calls, of which 2 have a price of $0.42.
    assert (len(page["logs"]), page["unpriced"], round(page["spent"], 6)) == (9 * in_acme, 3 * in_acme, 2.52 * in_acme)
    assert {row["error_message"] for row in page["failures"]} == {"TimeoutError"}
    assert page["busiest"]["total_requests"] == 3 * in_acme
    assert (round(page["week"], 6), page["by_model"].keys()) == (round(2.52 * in_acme, 6), {"m"})
    assert round(sum(cost for _, cost in page["series"]), 6) == round(2.52 * in_acme, 6)
    assert page["system"][0]["total_users"] == len(seen)
    assert page["providers"].keys() == {"openai"}
    assert page["cost_of"].keys() == {"cardio"}
    assert float(page["rate"]) == pytest.approx(200 / 3, abs=1e-3)
    assert round(page["cost"], 6) == round(2.52 * in_acme, 6)
    for name in ("services", "steps", "seats", "users"):
        rows = page[name]
        assert sum(row["calls"] for row in rows) == 9 * len(seen), name
        assert sum(Decimal(str(row["total_cost"])) for row in rows) == Decimal("2.52") * len(seen), name


def test_a_call_without_a_price_breaks_no_sum(lite: SupabaseLite, known: Connection) -> None:
    """If this failed, one call of an unknown model would stop a dashboard with `float + None`."""
    with known.transaction():
        unpriced = an_unpriced_call(
            900, organization_id="free", user_id="u-9", created_at=datetime.now(UTC).isoformat()
        )
        record(known, unpriced)
    try:
        client: Any = lite.client()
        [day] = client.table("usage_aggregations_daily").select("*").eq("project_id", "free").execute().data
        stats = client.rpc("get_dashboard_stats", {"p_project_id": "free", "p_days": 2}).execute().data
        for row in (day, *stats):
            for name in (
                "total_cost_usd",
                "potential_cost_usd",
                "total_savings_usd",
                "savings_percent",
                "cache_hit_rate",
            ):
                assert float(row[name]) == 0
        assert [row["unpriced_requests"] for row in stats][-1] == day["unpriced_requests"] == 1
        [log] = client.table("usage_logs").select("cost_usd").eq("project_id", "free").execute().data
        assert log == {"cost_usd": None}
    finally:
        known.execute("delete from token_usage_logs where organization_id = 'free'")


def test_functions_are_called_by_the_names_of_their_parameters(known: Connection) -> None:
    """If this failed, `rpc('get_dashboard_stats', {p_project_id, p_days})` would be unknown."""
    found = known.execute(
        "select proname as name, proargnames[:pronargs] as arguments from pg_proc"
        " where pronamespace = 'public'::regnamespace and proname = any(%s)",
        [["get_dashboard_stats", "get_tenant_cost", "get_agent_success_rate"]],
    ).fetchall()
    assert {row["name"]: row["arguments"] for row in found} == {
        "get_dashboard_stats": ["p_project_id", "p_days"],
        "get_tenant_cost": ["tenant_id", "start_time", "end_time"],
        "get_agent_success_rate": ["agent_id", "hours"],
    }
