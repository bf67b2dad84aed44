"""The made-up history: it adds up, it is written once, and it goes without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.helpers import Connection, a_call, call, connect, record, set_budget
from tests.sql.platform_rows import a_cost, an_event, differences, send
from tests.support.postgres import PostgresServer
from vital_tracking.advice.life import renew_advice
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.costs import Costs
from vital_tracking.demo import writing
from vital_tracking.demo.cast import ORGANIZATIONS
from vital_tracking.demo.history import History
from vital_tracking.queries.abuse import abuse_findings, find_abuse
from vital_tracking.queries.plans import quotas
from vital_tracking.stores.postgres import PostgresStore

DAYS = 3
KEPT = (
    "token_usage_logs", "service_runs", "budget_limits", "budget_windows", "cost_alerts", "usage_aggregations_hourly",
    "usage_aggregations_daily", "usage_aggregations_daily_users", "platform_events", "tenant_cost_events", "agent_executions",
    "platform_events_5min", "platform_events_daily_sessions", "tenant_costs_5min", "tenant_costs_daily",
    "agent_executions_hourly", "subscriptions", "recommendations", "advice_runs",
)  # fmt: skip


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, template_database: str) -> Iterator[tuple[PostgresStore, Connection]]:
    """A database with a call of the team's own, under a budget for all organizations."""
    postgres_server.create_database("demo_history", template=template_database)
    url = postgres_server.url("demo_history")
    store = PostgresStore(url)
    with connect(url) as connection:
        set_budget(connection, entity_type="user", entity_id="*", monthly_limit="1000")
        now = datetime.now(UTC).isoformat()
        assert record(connection, a_call(1, created_at=now))["inserted"] == 1
        theirs = {"organization_id": ORGANIZATIONS[0].id, "occurred_at": now}
        send(connection, "platform_events", an_event(1, **theirs))
        send(connection, "tenant_cost_events", a_cost(1, **theirs))
        yield store, connection
    store.close()
    postgres_server.drop_database("demo_history")


def costs() -> Costs:
    return Costs(PriceBook(), "15/75")


def everything(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """All rows of what the history touches."""
    return {name: connection.execute(f"select * from {name} as t order by t::text").fetchall() for name in KEPT}


def test_the_history_adds_up_is_written_once_and_goes_without_a_trace(
    database: tuple[PostgresStore, Connection],
) -> None:
    """If this failed, what a newcomer looks at would not add up, or would stay in the team's own sums."""
    store, connection = database
    before = everything(connection)
    there = writing.found(store)
    assert (there["calls"], there["others"]) == (0, True)
    history = writing.history_of(there, DAYS)
    progress: list[int] = []
    new = writing.write(store, history, costs(), progress.append)
    assert progress == [1, 2, 3]
    there = writing.found(store)
    assert there["calls"] == new > 50
    assert there["runs"] > 20
    assert there["last"] is not None
    assert there["last"] < history.until + timedelta(minutes=30)

    # The bill is the sum of the rows, by whatever it is told apart.
    assert call(connection, "audit_usage_v1", since=None, until=None)["differences"] == []
    assert call(connection, "audit_budgets_v1")["differences"] in (None, [])
    sums = connection.execute(
        """select sum(total_cost) as rows, (select sum(d.total_cost_usd) from usage_aggregations_daily as d) as days
        from token_usage_logs"""
    ).fetchone()
    assert sums is not None
    assert sums["rows"] == sums["days"] > Decimal(1)
    kinds = connection.execute(
        """select count(*) filter (where not priced) as unpriced, count(*) filter (where usage_estimated) as estimated,
        count(*) filter (where status = 'blocked') as blocked, count(*) filter (where call_type = 'embedding') as embeddings,
        count(*) filter (where cache_read_tokens > 0) as cached, count(*) filter (where metadata ? 'attempt') as tried,
        count(distinct organization_id) as organizations, count(distinct provider) as providers,
        count(*) filter (where request_hash is not null) - count(distinct request_hash) as again
        from token_usage_logs where metadata ? 'demo_history'"""
    ).fetchone()
    assert kinds is not None
    assert all(count > 0 for count in kinds.values()), kinds
    assert kinds["organizations"] == len(ORGANIZATIONS)
    assert connection.execute("select from cost_alerts where delivered_at is null and not superseded").fetchall() == []

    # What is no call is there, too, in plausible amounts, and its sums are those of its rows.
    assert differences(connection) == []
    beside = connection.execute(
        """select
          (select count(distinct organization_id) from platform_events where properties ? 'demo_history') as of_events,
          (select count(distinct event_name) from platform_events) as names,
          (select count(distinct cost_type) from tenant_cost_events where priced) as types,
          (select sum(cost_usd) from tenant_cost_events where metadata ? 'demo_history') as dollars,
          (select count(distinct agent_id) from agent_executions where success) as agents,
          (select count(rating) from agent_executions) as rated"""
    ).fetchone()
    assert beside is not None
    assert beside["of_events"] == len(ORGANIZATIONS)
    assert beside["names"] >= 4 <= beside["types"]
    assert 1 < beside["dollars"] < 100
    assert min(beside["agents"], beside["rated"]) > 3
    assert there["platform_rows"] > there["runs"]

    used = {row["plan"]: row for row in quotas(store)}
    assert used["trial"]["subscribers"] == used["professional"]["subscribers"] == len(ORGANIZATIONS)
    assert used["starter"]["subscribers"] > len(ORGANIZATIONS) < used["starter"]["calls_used"]

    # Twice is once, however much later and whatever length is asked for then.
    again = writing.history_of(there, 60, now=datetime.now(UTC) + timedelta(days=2))
    assert again == history
    assert writing.write(store, again, costs()) == 0

    # A program has gone wrong just now, and is found as any would be.
    assert find_abuse(store)["new"] >= 1
    loop = {one["pattern"]: one for one in abuse_findings(store)}["repeated_request"]
    assert (loop["organization_id"], loop["state"]) == ("demo-kestrel", "open")

    assert renew_advice(store, store)["recommendations"]
    gone = writing.remove(store)
    assert (gone["calls"], gone["runs"], gone["budgets"]) == (new, there["runs"], 4 * len(ORGANIZATIONS))
    assert gone["platform_rows"] == there["platform_rows"]
    assert everything(connection) == before
    assert abuse_findings(store) == []
    assert writing.remove(store) == {"done": True, "calls": 0, "runs": 0, "budgets": 0, "platform_rows": 0}


def test_budgets_of_an_organization_with_calls_of_its_own_stay(database: tuple[PostgresStore, Connection]) -> None:
    """If this failed, somebody whose organization has the same name would lose their budgets."""
    store, connection = database
    name = ORGANIZATIONS[0].id
    set_budget(connection, organization_id=name, entity_type="organization", entity_id=name, monthly_limit="5")
    assert record(connection, a_call(2, organization_id=name))["inserted"] == 1
    assert writing.remove(store)["budgets"] == 0
    assert writing.found(store)["budgets"] == 1


def test_a_history_is_the_same_each_time() -> None:
    until = datetime(2026, 5, 20, 12, tzinfo=UTC)
    first, second = ([*History(until, 2).each_day()] for _ in range(2))
    assert first == second
    assert History.marked(History(until, 2).mark) == History(until, 2)
    assert History.marked("by hand") is None
