"""One user's page: budgets, calls, runs, what was blocked and why, for himself as for his admin; and forgetting him."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers
from tests.integration.web.history import Open, make_history
from tests.integration.web.test_pages import figures, page, table
from tests.sql.helpers import ADMIN, ALICE, BOB, Connection, a_call, call, call_id, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
BLOCKED = call_id(5001)


@pytest.fixture(scope="module")
def users_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with three weeks of calls, a budget of each user, and a call that it stopped."""
    postgres_server.create_database("web_users", template=template_database)
    url = postgres_server.url("web_users")
    with connect(url) as connection:
        budget = {"entity_type": "user", "organization_id": "acme", "monthly_limit": "5", "daily_limit": "0.5"}
        number = call(connection, "set_budget_v1", budget=json.dumps({**budget, "action": "block"}))["id"]
        make_history(connection)
        stopped = {
            "budget": number, "action": "block", "entity_type": "user", "entity_id": ALICE, "organization_id": "acme",
            "metric": "cost_usd", "period": "day", "limit": "0.5", "spent": "0.49", "held": "0", "needed": "0.02",
        }  # fmt: skip
        free = dict.fromkeys(("input_cost", "output_cost", "fees", "total_cost", "potential_cost"), "0")
        now = datetime.now(UTC).isoformat()
        whose = {"user_id": ALICE, "organization_id": "acme", "created_at": now, "model": "gpt-4o"}
        blocked = a_call(5001, **whose, **free, status="blocked", budget_action="block", blocked_by=stopped)
        mine = (
            a_call(n, user_id=user, organization_id="acme", created_at=now) for n, user in ((5002, ALICE), (5003, BOB))
        )
        assert record(connection, blocked, *mine)["inserted"] == 3
    yield url
    postgres_server.drop_database("web_users")


@pytest.fixture
def users(users_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    store = PostgresStore(users_url)
    yield browsers(store, make, issuer)
    store.close()


@pytest.fixture
def database(users_url: str) -> Iterator[Connection]:
    """Its owner's connection."""
    with connect(users_url) as connection:
        yield connection


def rows_of(database: Connection, user: str) -> list[dict[str, object]]:
    query = "select * from token_usage_logs where user_id = %s order by created_at desc, id desc"
    return database.execute(query, [user]).fetchall()


def test_a_user_sees_of_himself_what_his_admin_sees(users: Open, database: Connection) -> None:
    """If this failed, a user would have to ask an admin what he has spent and why he was stopped."""
    newest = rows_of(database, ALICE)[:10]
    asked = {"user": ALICE, "organization": "acme"}
    query = "select count(*) as windows from budget_windows where entity_id = %s and ends_at > now()"
    running = database.execute(query, [ALICE]).fetchone()
    assert running is not None
    seen = {}
    for reader in ("operator", "organization admin", "user"):
        browser = users(reader)
        text = page(browser, f"users?days=30&user={ALICE}&organization=acme")
        assert figures(text)["Calls"] == str(len(rows_of(database, ALICE)))
        assert text.count("<meter") == running["windows"] > 0
        assert ("Forget this user" in text) == (reader != "user")
        for whole in ("All calls", "All runs", "All blocked calls"):
            assert f">{whole}</a>" in text
        seen[reader] = {
            part: table(browser, "users", part, **asked) for part in ("windows", "calls", "runs", "blocked")
        }
        for row in seen[reader]["windows"]:
            del row["reached_at"]  # told from the moment of asking
    parts = seen["operator"]
    assert seen["organization admin"] == parts == seen["user"]
    assert [row["created_at"][:19] for row in parts["calls"]] == [
        f"{row['created_at']:%Y-%m-%dT%H:%M:%S}" for row in newest
    ]
    assert {row["period"] for row in parts["windows"]} <= {"day", "month"}
    [blocked] = parts["blocked"]
    assert "$0.49 of $0.50" in blocked["why"]
    assert 0 < len(parts["runs"]) <= 10
    nothing = page(users("stranger"), f"users?days=30&user={ALICE}")
    assert "No call matches." in nothing
    assert "No window of a budget on this user runs." in nothing
    assert page(users("user"), f"users?days=30&user={ALICE}&model=gpt-4o")  # what runs are not filtered by


def test_forgetting_shows_first_what_goes_and_is_for_admins_alone(users: Open, database: Connection) -> None:
    """If this failed, a person could not be forgotten without an operator, or would be by anybody, or unseen."""
    sums = "select sum(total_cost) as cost, sum(calls) as calls from token_usage_logs"
    before = database.execute(sums).fetchone()
    mine = len(rows_of(database, BOB))
    form = {"user": BOB, "organization": "acme"}
    button = f"Forget {BOB} in acme"
    for reader in ("user", "admin of another", "stranger"):
        browser = users(reader)
        text = page(browser, f"users/forget?user={BOB}&organization=acme")
        assert button not in text
        assert "There is nothing of this user that you may see" in text
        assert browser.post("/users/forget", data=form).status_code == 403
        assert browser.post("/api/v1/members/forget", json={"user_id": BOB}).status_code == 403
    assert f"{len(rows_of(database, ALICE))} calls" in page(users("user"), f"users/forget?user={ALICE}")
    admin = users("organization admin")
    text = unescape(page(admin, f"users/forget?user={BOB}"))
    for said in (button, f"{mine} calls", "1 membership", "2 windows", "every sum, every report", "a digest"):
        assert said in text
    assert users("operator").post("/users/forget", data=form).status_code == 403  # from another site's page
    assert admin.post("/users/forget", data={**form, "organization": ""}).status_code == 403
    last = admin.post("/users/forget", data={**form, "user": ADMIN})
    assert (last.status_code, "stays until there is another" in last.text) == (409, True)
    done = admin.post("/users/forget", data=form, headers=SAME_SITE)
    assert done.status_code == 200
    assert "<h1>Forgotten</h1>" in done.text
    assert f"{mine} calls became" in done.text
    assert rows_of(database, BOB) == []
    assert database.execute(sums).fetchone() == before
    lines = database.execute(
        "select operation, count(*) as lines, bool_or(key::text || changes::text like %s) as named from admin_audit"
        " where operation in ('refused', 'forget_user') group by operation order by operation", [f"%{BOB}%"],
    ).fetchall()  # fmt: skip
    assert [(line["operation"], line["lines"]) for line in lines] == [("forget_user", 1), ("refused", 8)]
    answer = admin.post("/api/v1/members/forget", json={"user_id": BOB, "organization_id": "acme"})
    assert (answer.status_code, answer.json()["done"]) == (200, True)


def test_the_page_of_agents_says_who_they_are(users: Open, database: Connection) -> None:
    """If this failed, nobody would see that two programs share the id of an agent."""
    query = (
        "select count(*) as calls, min(created_at)::date::text as first from token_usage_logs where agent_id = 'legal'"
    )
    legal = database.execute(query).fetchone()
    assert legal is not None
    operator = users("operator")
    rows = [row for row in table(operator, "agents", "seen") if row["agent"] == "legal"]
    assert sum(int(row["calls"]) for row in rows) == legal["calls"]
    assert min(row["first_day"] for row in rows) == legal["first"]
    assert {row["names"] for row in rows} == {"Legal counsel"}
    for reader in ("organization admin", "user", "stranger"):
        text = page(users(reader), "agents?days=30&agent=legal")
        assert "Agents seen" in text
        assert ("Legal counsel</td>" in text) == (reader != "stranger")
    assert "Agents seen" not in page(operator, "agents?days=30&model=gpt-4o")
