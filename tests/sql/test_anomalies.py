"""Days out of the ordinary with the rows that show them, and requests that were paid for again: those, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.helpers import ADMIN, ALICE, CAROL, Connection, Row, acting_as, call, connect
from tests.sql.synthetic_usage import FUNCTIONS

# Two organizations, six weeks from Monday, 2 March on: 4 agents, 2 models and 8 users. Weekends are quiet, every tenth day of an
# agent is half as busy again, costs and latencies of single calls differ by ten, one call in fifty fails.
CALM = """
insert into token_usage_logs (
  id, created_at, organization_id, user_id, service_type, agent_id, agent_name, provider, model, prompt_tokens, total_tokens,
  input_cost, output_cost, fees, total_cost, potential_cost, price_version, priced, latency_ms, status, request_hash
)
select
  gen_random_uuid(), day + make_interval(secs => 86400 * pg_temp.chance('at' || name)), organization,
  'user-' || floor(8 * pg_temp.chance('who' || name))::int, 'workflow', agent, initcap(agent), 'openai',
  case agent when 'agent-4' then 'gpt-x' else 'gpt-y' end, 100, 100, cost, 0, 0, cost, cost, 'test', true,
  exp(5 + 2.3 * pg_temp.chance('ms' || name)), case when pg_temp.chance('ok' || name) < 0.02 then 'error' else 'ok' end, md5(name)
from (
  select
    *, concat_ws('/', organization, day, agent, number) as name,
    round((0.02 * exp(2.3 * pg_temp.chance('cost' || concat_ws('/', organization, day, agent, number))))::numeric, 6) as cost
  from generate_series(timestamptz '2026-03-02 00:00Z', '2026-04-12 00:00Z', '1 day') as day
  cross join unnest(array['acme', 'globex']) as organization
  cross join unnest(array['agent-1', 'agent-2', 'agent-3', 'agent-4']) as agent
  cross join lateral generate_series(
    1,
    case when extract(isodow from day) > 5 then 7 when pg_temp.chance(organization || day || agent) < 0.1 then 36 else 24 end
  ) as number
) as calls
"""
SINCE, UNTIL, DAY = "2026-03-30", "2026-04-13", "2026-04-08"


@pytest.fixture(scope="module")
def calm(urls: dict[str, str]) -> Iterator[Connection]:
    """The owner's connection to a database with calm weeks, in a transaction that is rolled back in the end."""
    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        connection.execute(FUNCTIONS)
        connection.execute(CALM)
        yield connection


@contextmanager
def undone(connection: Connection) -> Iterator[Connection]:
    """What is changed inside is taken back."""
    with connection.transaction(force_rollback=True):
        yield connection


def anomalies(connection: Connection, organization: str | None = None, max_rows: int = 50) -> list[Row]:
    return connection.execute(
        "select * from usage_anomalies(%s, %s, %s, %s)", [SINCE, UNTIL, organization, max_rows]
    ).fetchall()


def names(found: list[Row]) -> set[tuple[str, str, str, str, str]]:
    return {(a["organization_id"], a["subject"], a["id"], str(a["day"]), a["metric"]) for a in found}


def change(connection: Connection, set_columns: str, where: str) -> int:
    """Change calls of that day at acme; how many."""
    return connection.execute(
        f"update token_usage_logs set {set_columns} where created_at >= '{DAY}Z' and created_at < '2026-04-09Z'"
        f" and organization_id = 'acme' and {where}"
    ).rowcount


def add(connection: Connection, number: int, **columns: Any) -> None:
    """Add so many calls at acme on that day, a minute apart."""
    row = {
        "organization_id": "acme", "service_type": "workflow", "model": "gpt-y", "price_version": "test", "priced": True,
        "input_cost": columns.get("total_cost", 0), "output_cost": 0, "fees": 0, "total_cost": 0, "potential_cost": 0, **columns,
    }  # fmt: skip
    if not row["priced"]:
        row |= dict.fromkeys(("input_cost", "output_cost", "fees", "total_cost", "potential_cost", "price_version"))
    day = row.pop("day", DAY)
    connection.execute(
        f"insert into token_usage_logs (id, created_at, {', '.join(row)})"
        f" select gen_random_uuid(), timestamptz '{day} 08:00Z' + n * interval '1 minute', {', '.join(['%s'] * len(row))}"
        f" from generate_series(1, {number}) as n",
        list(row.values()),
    )


def shown(connection: Connection, anomaly: Row) -> list[Row]:
    """The rows that its query lists."""
    return connection.execute(anomaly["query"]).fetchall()


def test_ordinary_weeks_raise_no_anomaly(calm: Connection) -> None:
    """If this failed, admins would learn to look away."""
    assert anomalies(calm) == []
    empty = call(calm, "anomalies_v1", since="2020-01-01", until="2020-02-01")
    assert empty["rows"] == []


def test_a_day_that_costs_many_times_the_usual_is_found_for_all_that_caused_it(calm: Connection) -> None:
    """If this failed, a runaway loop would show up on the invoice."""
    with undone(calm):
        add(
            calm, 40, user_id="user-3", agent_id="agent-2", input_cost=Decimal(2), total_cost=Decimal(2), latency_ms=500
        )
        found = anomalies(calm)
        assert names(found) == {
            ("acme", "user", "user-3", DAY, "cost"),
            ("acme", "agent", "agent-2", DAY, "cost"),
            ("acme", "model", "gpt-y", DAY, "cost"),
        }
        stakes = [a["cost_at_stake"] for a in found]
        assert stakes == sorted(stakes, reverse=True)
        for anomaly in found:
            assert anomaly["value"] > 80 > 20 > anomaly["usual"] > 0
            assert anomaly["cost_at_stake"] == pytest.approx(
                anomaly["value"] - anomaly["usual"], abs=Decimal("0.00001")
            )
            rows = shown(calm, anomaly)
            assert [row["total_cost"] for row in rows[:41]] == [2] * 40 + [rows[40]["total_cost"]]
            assert rows[40]["total_cost"] < 1
            assert len(rows) == 100 or sum(row["total_cost"] for row in rows) == anomaly["value"]
        assert anomalies(calm, "globex") == []
        assert anomalies(calm, "acme", max_rows=1) == found[:1]


def test_a_slow_day_is_found_by_its_median_or_its_95th_percentile(calm: Connection) -> None:
    """If this failed, users would be the first to notice a slow model."""
    with undone(calm):
        slow = change(calm, "latency_ms = latency_ms * 4", "agent_id = 'agent-4'")
        found = {a["subject"]: a for a in anomalies(calm)}
        assert names(list(found.values())) == {
            ("acme", "agent", "agent-4", DAY, "latency"),
            ("acme", "model", "gpt-x", DAY, "latency"),
        }
        anomaly = found["agent"]
        median = calm.execute(
            "select percentile_cont(0.5) within group (order by latency_ms) as ms from token_usage_logs"
            " where agent_id = 'agent-4' and organization_id = 'acme' and created_at::date = %s",
            [date.fromisoformat(DAY)],
        ).fetchone()
        assert median is not None
        assert (anomaly["measure"], anomaly["calls"]) == ("median", slow)
        assert float(anomaly["value"]) == pytest.approx(median["ms"], rel=0.05)
        assert 350 < anomaly["usual"] < 600
        rows = shown(calm, anomaly)
        assert slow / 2 < len(rows) <= slow
        assert {row["agent_id"] for row in rows} == {"agent-4"}
        assert min(row["response_time_ms"] for row in rows) > anomaly["usual"]
    with undone(calm):
        add(calm, 20, agent_id="agent-1", latency_ms=60000)
        add(calm, 80, agent_id="agent-1", latency_ms=500)
        [tail] = [a for a in anomalies(calm) if a["subject"] == "agent"]
        assert (tail["id"], tail["metric"], tail["measure"]) == ("agent-1", "latency", "p95")
        assert tail["value"] > 50000
    with undone(calm):  # one call that took ten minutes is no slow day
        add(calm, 1, agent_id="agent-1", latency_ms=600000)
        assert anomalies(calm) == []


def test_a_day_of_failures_is_found_and_a_few_unlucky_calls_are_not(calm: Connection) -> None:
    """If this failed, an expired key would go unnoticed; or every third failure would be news."""
    with undone(calm):
        failed = change(calm, "status = 'error'", "agent_id = 'agent-1'")
        found = anomalies(calm)
        assert ("acme", "agent", "agent-1", DAY, "error_rate") in names(found)
        [anomaly] = [a for a in found if a["subject"] == "agent"]
        assert (anomaly["value"], anomaly["measure"], anomaly["calls"]) == (100, "percent", failed)
        assert 0 < anomaly["usual"] < 10
        assert 0 < anomaly["cost_at_stake"] < 5
        rows = shown(calm, anomaly)
        assert len(rows) == failed
        assert {(row["agent_id"], row["success"]) for row in rows} == {("agent-1", False)}
        assert {a["metric"] for a in found} == {"error_rate"}
    with undone(calm):  # blocked calls have not failed: they were not made
        change(calm, "status = 'blocked', input_cost = 0, total_cost = 0", "agent_id = 'agent-1'")
        assert anomalies(calm) == []
    with undone(calm):
        calm.execute(
            "update token_usage_logs set status = 'error' where id in (select id from token_usage_logs"
            " where created_at::date = %s and organization_id = 'acme' and agent_id = 'agent-1' and status = 'ok' limit 3)",
            [DAY],
        )
        assert anomalies(calm) == []


def test_small_new_and_irregular_usage_raises_no_anomaly(calm: Connection) -> None:
    """If this failed, the list would be full of cents, of new names and of what is as irregular as ever."""
    with undone(calm):
        for day in range(9, 40):
            add(calm, 1, day=date(2026, 2, 25) + timedelta(day), agent_id="penny", user_id="p",
                total_cost=Decimal("0.001"))  # fmt: skip
        add(calm, 60, agent_id="penny", user_id="p", total_cost=Decimal("0.005"))
        assert anomalies(calm) == []
    with undone(calm):  # new, and as dear as the others
        add(calm, 5, agent_id="new", user_id="new", model="new", total_cost=Decimal(1))
        assert anomalies(calm) == []
    with undone(calm):
        for number, cost in enumerate([1, 9, 3, 30, 2, 14, 1, 6, 22, 4, 2, 11, 1, 35, 5, 3, 18, 1, 7]):
            add(
                calm,
                1,
                day=date(2026, 3, 12) + timedelta(number),
                user_id="gambler",
                model="dice",
                total_cost=Decimal(cost),
            )
        add(calm, 1, user_id="gambler", model="dice", total_cost=Decimal(40))
        assert anomalies(calm) == []


def found_users(connection: Connection) -> dict[str, Row]:
    """The anomalies of users, by the user."""
    return {a["id"]: a for a in anomalies(connection) if a["subject"] == "user"}


def test_a_new_user_with_a_large_bill_on_the_first_day_is_found(calm: Connection) -> None:
    """If this failed, a stolen key would have to be in use for a week before anybody is told."""
    with undone(calm):
        add(calm, 50, agent_id="agent-2", user_id="unseen", total_cost=Decimal(10))
        [newcomer] = found_users(calm).values()
        assert (newcomer["id"], newcomer["metric"], newcomer["measure"]) == ("unseen", "cost", "newcomer")
        assert newcomer["value"] == 500
        assert 1 < newcomer["usual"] < 20  # what others' days come to
        assert newcomer["cost_at_stake"] == newcomer["value"] - newcomer["usual"]
        assert newcomer["score"] > 4
        assert [row["total_cost"] for row in shown(calm, newcomer)] == [10] * 50
        # And on the next day it is no habit yet.
        add(calm, 300, day="2026-04-09", user_id="unseen", total_cost=Decimal(10))
        assert {str(a["day"]) for a in anomalies(calm) if a["id"] == "unseen"} == {DAY, "2026-04-09"}


@pytest.mark.parametrize(("first", "second"), [(500, 400), (0, 9), (12, 40)])
def test_what_a_new_user_does_again_is_no_news_and_neither_is_small_money(
    calm: Connection, first: int, second: int
) -> None:
    """If this failed, every new customer would be news each day of the first week."""
    with undone(calm):
        add(calm, 1, day="2026-04-07", user_id="unseen", total_cost=Decimal(first))
        add(calm, 1, user_id="unseen", total_cost=Decimal(second))
        assert {str(a["day"]) for a in anomalies(calm) if a["id"] == "unseen"} <= {"2026-04-07"}


@pytest.mark.parametrize(
    ("usual", "today", "is_found"), [("1", "300", True), ("0.01", "3", False), ("40", "60", False), ("2", "5", False)]
)
def test_a_weekly_user_is_compared_with_the_other_weeks(
    calm: Connection, usual: str, today: str, is_found: bool
) -> None:
    """If this failed, a user who comes on Wednesdays could spend what he likes, or would be news each time."""
    with undone(calm):
        for day in ("2026-03-11", "2026-03-18", "2026-03-25", "2026-04-01"):
            add(calm, 1, day=day, user_id="weekly", total_cost=Decimal(usual))
        add(calm, 1, user_id="weekly", total_cost=Decimal(today))
        [*found] = [a for a in anomalies(calm) if a["id"] == "weekly"]
        assert [(str(a["day"]), a["measure"]) for a in found] == [(DAY, "sum")] * is_found
        assert all(a["usual"] == pytest.approx(Decimal(usual), abs=Decimal("0.001")) for a in found)


@pytest.mark.parametrize("known", [1, 2])
def test_a_user_of_one_or_two_days_who_spends_hundreds_of_times_as_much_is_found(calm: Connection, known: int) -> None:
    """If this failed, somebody who tried it out on two days could empty the budget on the third, and nobody would hear of it."""
    with undone(calm):
        for day in ("2026-03-25", "2026-04-01")[:known]:
            add(calm, 1, day=day, user_id="weekly", total_cost=Decimal(1))
        add(calm, 1, user_id="weekly", total_cost=Decimal(300))
        assert [(str(a["day"]), a["measure"]) for a in anomalies(calm) if a["id"] == "weekly"] == [(DAY, "newcomer")]


def test_where_nothing_is_known_yet_a_hundred_dollars_of_one_user_are_news(calm: Connection) -> None:
    """If this failed, the first days of an organization would be no one's to watch; or its agents and models all news."""
    with undone(calm):
        for name, cost in (("dear", 500), ("fair", 60)):
            add(calm, 1, organization_id="young", user_id=name, agent_id=name, model=name, total_cost=Decimal(cost))
        found = [a for a in anomalies(calm) if a["organization_id"] == "young"]
        assert [(a["subject"], a["id"], a["measure"]) for a in found] == [("user", "dear", "newcomer")]


def test_new_agents_and_models_that_take_over_the_work_of_others_are_no_news(calm: Connection) -> None:
    """If this failed, every change of a model would raise an alarm."""
    with undone(calm):
        change(calm, "model = 'gpt-z', agent_id = 'agent-5'", "agent_id = 'agent-4'")
        assert anomalies(calm) == []


def test_a_weekday_that_always_is_busy_is_usual(calm: Connection) -> None:
    """If this failed, the weekly batch would be news every week."""
    with undone(calm):
        for day in ("2026-03-11", "2026-03-18", "2026-03-25", "2026-04-01", DAY):
            add(
                calm,
                30,
                day=day,
                agent_id="agent-3",
                user_id="batch",
                model="gpt-x",
                total_cost=Decimal(2),
                latency_ms=9000,
            )
        found = names(anomalies(calm))
        assert {row for row in found if row[3] == DAY} == set()


def test_calls_without_a_price_are_counted_beside_the_cost(calm: Connection) -> None:
    """If this failed, a day would look dear or cheap while its calls have no price."""
    with undone(calm):
        add(calm, 40, agent_id="agent-2", total_cost=Decimal(2))
        add(calm, 7, agent_id="agent-2", priced=False)
        assert {a["unpriced_calls"] for a in anomalies(calm)} == {7}


def test_queries_are_quoted_and_calls_of_nobody_are_found_too(calm: Connection) -> None:
    """If this failed, an agent's name could run a statement when an admin pastes the query."""
    agent = "o'brien\\'; drop table token_usage_logs; --"
    with undone(calm):
        for organization in ("it's", None):
            for day in range(10, 38):
                day_before = date(2026, 3, 1) + timedelta(day)
                add(
                    calm,
                    2,
                    day=day_before,
                    agent_id=agent,
                    organization_id=organization,
                    model=None,
                    total_cost=Decimal("0.5"),
                )
            add(calm, 3, agent_id=agent, organization_id=organization, model=None, total_cost=Decimal(50))
        found = anomalies(calm)
        assert {(a["organization_id"], a["id"]) for a in found} == {("it's", agent), (None, agent)}
        for anomaly in found:
            rows = shown(calm, anomaly)
            assert [row["total_cost"] for row in rows] == [50, 50, 50]
            assert {row["organization_id"] for row in rows} == {anomaly["organization_id"]}


def test_the_command_line_gets_anomalies_with_amounts_as_text(calm: Connection) -> None:
    """If this failed, the report would show other days than the function, or rounded ones."""
    with undone(calm):
        add(calm, 40, user_id="user-3", agent_id="agent-2", total_cost=Decimal(2))
        found = anomalies(calm, "acme", 2)
        asked = call(calm, "anomalies_v1", since=SINCE, until=UNTIL, organization="acme", rows=2)["rows"]
    assert [(a["subject"], a["id"], a["day"], a["metric"]) for a in asked] == [
        (a["subject"], a["id"], str(a["day"]), a["metric"]) for a in found
    ]
    assert [(a["value"], a["usual"], a["cost_at_stake"], a["query"], a["calls"]) for a in asked] == [
        (str(a["value"]), str(a["usual"]), str(a["cost_at_stake"]), a["query"], a["calls"]) for a in found
    ]


def test_admins_see_the_anomalies_and_duplicates_of_their_organization_alone(calm: Connection) -> None:
    """If this failed, an admin would read another organization's agents and costs."""
    with undone(calm):
        calm.execute(
            "insert into organization_members values ('acme', %s, 'admin'), ('globex', %s, 'admin'), ('acme', %s, 'member')",
            [ADMIN, CAROL, ALICE],
        )
        add(calm, 40, user_id="user-3", agent_id="agent-2", total_cost=Decimal(2), request_hash="h")
        found = anomalies(calm)
        query = "select * from duplicate_requests(%s, %s)"
        twice = calm.execute(query, [SINCE, UNTIL]).fetchall()
        assert len(twice) == 1
        with acting_as(calm, "authenticated", {"sub": ADMIN}):
            assert anomalies(calm) == found
            assert calm.execute(query, [SINCE, UNTIL]).fetchall() == twice
            assert shown(calm, found[0]) != []
        for person in (CAROL, ALICE):
            with acting_as(calm, "authenticated", {"sub": person}):
                assert anomalies(calm) == anomalies(calm, "acme") == []
                assert calm.execute(query, [SINCE, UNTIL]).fetchall() == []
                assert shown(calm, found[0]) == []


def duplicates(connection: Connection, organization: str | None = None, rows: int = 50) -> Row:
    return dict(call(connection, "duplicates_v2", since=SINCE, until=UNTIL, organization=organization, rows=rows))


def test_requests_that_were_paid_for_again_are_found_with_what_a_cache_would_have_saved(calm: Connection) -> None:
    """If this failed, nobody would know what turning on the cache is worth."""
    nothing = {"requests": 0, "repeated_calls": 0, "saved_by_caching": "0", "rows": []}
    assert {name: duplicates(calm)[name] for name in nothing} == nothing
    with undone(calm):
        add(calm, 3, request_hash="a", agent_id="asker", total_cost=Decimal("0.25"), input_cost=Decimal("0.25"))
        add(calm, 1, request_hash="a", total_cost=Decimal(1), day="2026-04-10", agent_id="other")
        add(calm, 2, request_hash="b", organization_id="globex", total_cost=Decimal(2))
        add(calm, 2, request_hash="c", priced=False)
        # None of these was answered and paid for twice in this time by one organization.
        add(calm, 1, request_hash="a", organization_id="globex", total_cost=Decimal(9))
        add(calm, 5, request_hash="a", total_cost=Decimal(9), day="2026-03-20")
        add(calm, 5, request_hash="a", status="error", total_cost=Decimal(9))
        add(calm, 5, request_hash="a", cache_hit=True)
        add(calm, 5, request_hash="a", calls=3, total_cost=Decimal(9))
        add(calm, 5, request_hash=None, total_cost=Decimal(9))

        answer = duplicates(calm)
        assert (answer["requests"], answer["repeated_calls"], answer["saved_by_caching"]) == (3, 5, "3.5")
        assert [(r["request_hash"], r["organization_id"], r["calls"], r["unpriced_calls"], r["cost"], r["saved_by_caching"])
                for r in answer["rows"]] == [
            ("b", "globex", 2, 0, "4", "2"),
            ("a", "acme", 4, 0, "1.75", "1.5"),
            ("c", "acme", 2, 2, "0", "0"),
        ]  # fmt: skip
        first = answer["rows"][1]
        assert (first["agent_id"], first["model"]) == ("asker", "gpt-y")
        assert (first["first_at"], first["last_at"]) == ("2026-04-08T08:01:00+00:00", "2026-04-10T08:01:00+00:00")
        assert duplicates(calm, "acme", rows=0)["saved_by_caching"] == "1.5"
        assert duplicates(calm, "acme", rows=0)["rows"] == []
        assert len(duplicates(calm, rows=1)["rows"]) == 1
        assert duplicates(calm, rows=1)["requests"] == 3
