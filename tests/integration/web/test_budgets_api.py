"""Budgets and alerts over the API: who reads, who changes, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Issuer, Make, bearer, client
from tests.sql.helpers import ADMIN, ALICE, CAROL, STRANGER, a_call, call, call_id, connect, record
from vital_tracking.stores.postgres import PostgresStore

PATH = "/api/v1/budgets"
WANTED = {"organization_id": "acme", "entity_type": "user", "daily_limit": 0.5, "action": "block"}


@pytest.fixture
def people(database_url: str, make: Make, issuer: Issuer) -> Iterator[dict[str, TestClient]]:
    """The browsers of an admin, a member, another's admin and a stranger, over a database of their own."""
    store = PostgresStore(database_url)
    with connect(database_url) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        moment = connection.execute("select to_json(now()) as now").fetchone()
        assert moment is not None
        calls = (a_call(n, user_id=ALICE, organization_id="acme", created_at=moment["now"]) for n in (1, 2))
        assert record(connection, *calls)["inserted"] == 2
    app = make(over=store, user_requests=10_000, organization_requests=10_000, burst_requests=10_000)
    yield {
        name: client(app, headers=bearer(issuer.token(sub=subject)))
        for name, subject in (("admin", ADMIN), ("member", ALICE), ("other", CAROL), ("stranger", STRANGER))
    }
    store.close()


def test_admins_change_and_everybody_reads_what_stands_on_them(people: dict[str, TestClient]) -> None:
    """If this failed, an admin could not set a limit from a program, or anybody could."""
    admin, member, other = people["admin"], people["member"], people["other"]
    for name in ("member", "other", "stranger"):
        answer = people[name].post(PATH, json=WANTED)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), name
    made = admin.post(PATH, json=WANTED)
    assert made.status_code == 200, made.text
    number = made.json()["id"]
    seen = {name: [row["id"] for row in one.get(PATH).json()["budgets"]] for name, one in people.items()}
    assert {name for name, ids in seen.items() if number in ids} == {"admin", "member"}
    told = member.get(PATH, params={"limit": 5})
    [window] = [row for row in told.json()["windows"] if row["window"]["budget_id"] == number]
    assert (window["window"]["entity_id"], window["window"]["spent"]) == (ALICE, 0.84)
    assert window["rests_on"] == "reached"
    assert member.get(PATH, params={"limit": 5}, headers={"If-None-Match": told.headers["etag"]}).status_code == 304
    assert other.get(f"{PATH}/{number}").status_code == 404
    assert other.patch(f"{PATH}/{number}", json={"daily_limit": 9}).status_code == 404
    assert other.delete(f"{PATH}/{number}").status_code == 404
    assert member.delete(f"{PATH}/{number}").status_code == 403
    assert member.patch(f"{PATH}/{number}", json={"daily_limit": 9}).status_code == 403
    changed = admin.patch(f"{PATH}/{number}", json={"daily_limit": 0.75, "enforce": False})
    assert (changed.json()["daily_limit"], changed.json()["enforce"], changed.json()["action"]) == (
        0.75,
        False,
        "block",
    )
    raised = admin.post(f"{PATH}/{number}/raise", json={"raise_by": 2, "until": "tomorrow", "entity_id": ALICE})
    assert [row["in_force"] for row in raised.json()] == [2.75]
    assert admin.delete(f"{PATH}/{number}").status_code == 204
    assert admin.delete(f"{PATH}/{number}").status_code == 404


def test_a_preview_tells_what_would_have_been_and_stores_nothing(people: dict[str, TestClient]) -> None:
    """If this failed, a limit would be set blindly, or by looking at it."""
    answer = people["admin"].post(f"{PATH}/preview", json=WANTED)
    assert answer.status_code == 200, answer.text
    total = answer.json()["total"]
    assert (total["calls"], total["stopped"], total["stopped_cost"], total["alerts"]) == (
        2,
        1,
        0.42,
        {"0.5": 1, "0.8": 1},
    )
    assert len(answer.json()["preview"]["days"]) == 30
    assert "cannot be known" in answer.json()["unknown"]
    assert people["stranger"].post(f"{PATH}/preview", json=WANTED).json()["total"]["calls"] == 0
    assert not [row for row in people["admin"].get(PATH).json()["budgets"] if row["organization_id"] == "acme"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", PATH, {**WANTED, "created_by": "me"}),
        ("POST", PATH, {**WANTED, "id": 1}),
        ("POST", PATH, {**WANTED, "daily_limit": -1}),
        ("POST", PATH, {**WANTED, "daily_limit": None}),
        *(
            ("POST", PATH, {**WANTED, "timezone": name})
            for name in ("Mars/Olympus", "Factory", "localtime", "europe/berlin")
        ),
        ("POST", PATH, {**WANTED, "entity_type": "team"}),
        ("PATCH", f"{PATH}/1", {"organization_id": "other"}),
        ("POST", f"{PATH}/1/raise", {"raise_by": 1, "until": "soon"}),
        ("POST", f"{PATH}/1/raise", {"raise_by": 1, "until": "2026-02-30"}),
        ("POST", f"{PATH}/1/raise", {"raise_by": 1, "until": "9999-12-31"}),
        ("POST", f"{PATH}/preview?days=91", WANTED),
        ("GET", f"{PATH}?limit=0", None),
        ("GET", f"{PATH}/0", None),
        ("GET", f"{PATH}/calls/x/why", None),
        ("GET", "/api/v1/alerts?since=yesterday", None),
        ("GET", "/api/v1/alerts?limit=1001", None),
        ("GET", "/api/v1/alerts?since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z", None),
    ],
)
def test_what_is_out_of_range_is_said_to_be(
    people: dict[str, TestClient], method: str, path: str, body: dict[str, object] | None
) -> None:
    """If this failed, a mistaken or malicious field would be taken silently."""
    answer = people["admin"].request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text


def test_alerts_are_told_page_by_page_and_as_csv(people: dict[str, TestClient]) -> None:
    """If this failed, nobody would find what was crossed, but on the command line."""
    found = people["member"].get("/api/v1/alerts", params={"limit": 1})
    assert found.status_code == 200, found.text
    assert people["stranger"].get("/api/v1/alerts").json() == []
    assert people["member"].get("/api/v1/alerts.csv").text.splitlines()[0].startswith("id,created_at,budget_id")


def test_pages_show_budgets_and_alerts_to_those_they_stand_on(people: dict[str, TestClient]) -> None:
    """If this failed, a stopped user would not see why."""
    people["admin"].post(PATH, json=WANTED)
    page = people["member"].get("/budgets")
    assert page.status_code == people["member"].get("/alerts").status_code == 200
    assert "of organization acme" in page.text
    assert "of organization acme" not in people["stranger"].get("/budgets").text


FORM = {"organization_id": "acme", "entity_type": "user", "entity_id": "*", "daily_limit": "0.5", "action": "block"}


def test_a_budget_is_made_previewed_changed_raised_and_removed_on_pages(people: dict[str, TestClient]) -> None:
    """If this failed, an admin would need the command line to set a limit."""
    admin, member = people["admin"], people["member"]
    assert 'href="/budgets/new"' in admin.get("/budgets").text
    assert 'href="/budgets/new"' not in member.get("/budgets").text
    assert 'name="daily_limit"' not in member.get("/budgets/new").text
    empty = admin.get("/budgets/new")
    assert 'formmethod="get"' in empty.text
    assert "<option>acme</option>" in empty.text

    shown = admin.get("/budgets/new", params={**FORM, "preview": "1"})
    assert shown.status_code == 200, shown.text
    assert "cannot be known" in shown.text
    assert shown.text.count("data-v=") > 30 * 4
    assert "$0.42" in shown.text
    days = admin.get("/budgets/new", params={**FORM, "preview": "1", "part": "preview", "format": "csv"})
    assert sum(int(line.split(",")[4]) for line in days.text.splitlines()[1:]) == 1

    for name, value, words in (
        ("daily_limit", "-1", "not negative"),
        ("daily_limit", "", "needs a limit"),
        ("zone", "Mars/Olympus", "no IANA time zone"),
        ("zone", "Factory", "no IANA time zone"),
        ("zone", "CET", "name a city, such as Europe/Berlin"),
        ("alert_thresholds", "soon", "percent of the limit"),
        ("action", "scold", "Choose one of"),
    ):
        wrong = admin.post("/budgets/new", data={**FORM, "downgrade_to": "kept-model", name: value})
        assert wrong.status_code == 422, name
        assert words in wrong.text, name
        assert f'aria-describedby="wrong-{name}"' in wrong.text
        assert 'value="kept-model"' in wrong.text

    refused = member.post("/budgets/new", data=FORM)
    assert refused.status_code == 403
    assert "Only an admin of that organization" in refused.text
    made = admin.post("/budgets/new", data=FORM)
    assert made.status_code == 303, made.text
    place = made.headers["location"]
    again = admin.post("/budgets/new", data=FORM)
    assert (again.status_code, "already" in again.text) == (422, True)
    assert member.get(place).status_code == 200
    assert 'name="daily_limit"' not in member.get(place).text
    assert people["other"].get(place).status_code == 404

    assert admin.get(place, params={"preview": "1", "daily_limit": "100"}).status_code == 200
    assert admin.post(place, data={"daily_limit": "0.75", "organization_id": "other"}).headers["location"] == place
    assert (
        admin.post(f"{place}/raise", data={"whose": ALICE, "raise_by": "2", "until": "2020-01-01"}).status_code == 422
    )
    wrong = admin.post(f"{place}/raise", data={"raise_by": "x", "until": "tomorrow"})
    assert (wrong.status_code, "Say whose" in wrong.text, "such as 5" in wrong.text) == (422, True, True)
    assert member.post(f"{place}/raise", data={"whose": ALICE, "raise_by": "2", "until": "tomorrow"}).status_code == 403
    raised = admin.post(f"{place}/raise", data={"whose": ALICE, "raise_by": "2", "until": "tomorrow"})
    assert (raised.status_code, raised.headers["location"]) == (303, place)
    page = admin.get(place).text
    assert "$2.75" in page
    assert "<meter" in page
    assert "daily_limit: 0.5" in page
    assert f"user={ALICE}&amp;organization=acme" in page
    assert "raise_by: 2" in page

    assert "Remove it" in admin.get(f"{place}/remove").text
    assert member.post(f"{place}/remove").status_code == 403
    assert admin.post(f"{place}/remove").headers["location"] == "/budgets"
    assert admin.get(place).status_code == admin.post(f"{place}/remove").status_code == 404


def test_a_budget_that_ends_by_itself_still_does_once_it_was_changed(
    people: dict[str, TestClient], database_url: str
) -> None:
    """If this failed, whoever loosened a block of a day would have made one for ever beside it."""
    admin = people["admin"]
    asked = {**WANTED, "daily_limit": "0", "until": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    with connect(database_url) as connection:
        made = call(connection, "set_budget_v1", budget=json.dumps(asked))
    place = f"/budgets/{made['id']}"
    assert admin.post(place, data={"daily_limit": "0.75"}).headers["location"] == place
    assert admin.patch(f"{PATH}/{made['id']}", json={"monthly_limit": 3}).status_code == 200
    [one] = admin.get(PATH).json()["budgets"]
    assert (one["id"], one["daily_limit"], one["monthly_limit"]) == (made["id"], 0.75, 3)
    assert datetime.fromisoformat(one["until"]) == datetime.fromisoformat(asked["until"])


def test_a_form_of_another_site_changes_nothing(people: dict[str, TestClient], make: Make, issuer: Issuer) -> None:
    """If this failed, any page that an admin visits could lift his limits."""
    browser = people["admin"]
    token = browser.headers["authorization"].removeprefix("Bearer ")
    del browser.headers["authorization"]
    browser.cookies.set("vital_access", token)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        answer = browser.post("/budgets/new", data=FORM, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status, site


def test_a_shadow_is_previewed_and_stops_nothing(people: dict[str, TestClient]) -> None:
    """If this failed, nobody could see what a budget would do before it does it."""
    for wanted in (WANTED, {**WANTED, "enforce": False}):
        total = people["admin"].post(f"{PATH}/preview", json=wanted).json()["total"]
        assert (total["calls"], total["stopped"]) == (2, 1)


def test_new_alerts_are_counted_until_they_are_seen_and_a_blocked_call_says_why(
    people: dict[str, TestClient], database_url: str
) -> None:
    """If this failed, an alert would be overlooked, and whoever is stopped would not learn by what."""
    admin, member = people["admin"], people["member"]
    assert 'class="count"' not in member.get("/budgets").text
    number = admin.post(PATH, json=WANTED).json()["id"]
    with connect(database_url) as connection:
        moment = connection.execute("select now()::text as now").fetchone()
        assert moment is not None
        usual = {"user_id": ALICE, "organization_id": "acme", "created_at": moment["now"]}
        by = {"budget": number, "action": "block", "entity_type": "user", "entity_id": ALICE, "organization_id": "acme",
              "metric": "cost_usd", "period": "day", "limit": "0.5", "spent": "0.84", "held": "0",
              "needed": "0.1"}  # fmt: skip
        free = dict.fromkeys(("input_cost", "output_cost", "total_cost", "potential_cost"), "0")
        blocked = {**usual, "status": "blocked", "budget_action": "block", "blocked_by": by, **free}
        unmeasured = {**blocked, "blocked_by": {name: value for name, value in by.items() if name != "needed"}}
        assert record(connection, a_call(3, **usual), a_call(4, **blocked), a_call(5, **unmeasured))["inserted"] == 3
    counted = member.get("/budgets")
    assert 'class="count"' in counted.text
    assert 'class="count"' not in people["stranger"].get("/budgets").text
    first = member.get("/alerts")
    assert '<span class="badge warn">new</span>' in first.text
    assert f'href="/budgets/{number}"' in first.text
    assert "HttpOnly" in first.headers["set-cookie"]
    again = member.get("/alerts")
    assert (again.status_code, "badge warn" in again.text, "set-cookie" in again.headers) == (200, False, False)
    assert 'class="count"' not in member.get("/budgets").text

    told = member.get(f"/calls/{call_id(4)}").text
    assert f"Budget {number}, block" in told
    assert "$0.84 of $0.50" in told
    assert "vital-tracking budgets raise user" in told
    assert "+AMOUNT" in member.get(f"/calls/{call_id(5)}").text  # where it was not noted how much a call needs
    assert f'href="/budgets/{number}"' in told
    assert "status=blocked" in member.get(f"/budgets/{number}").text
