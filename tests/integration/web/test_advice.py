"""Advice on the page, over the API and in mail: the same figures everywhere, decided about and renewed by whoever may."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers
from tests.integration.web.history import Open
from tests.integration.web.test_pages import figures, page, table
from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from tests.sql.helpers import ADMIN, ALICE, Connection, a_call, call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.queries.recommendations import last_advice
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.mail.advice import advice_document
from vital_tracking.web.mail.summary import summary_document

SAME = {"Sec-Fetch-Site": "same-origin"}
OPTIMIZATION = "analytics/usage/optimization"


def a_range(low: str, expected: str, high: str) -> dict[str, str]:
    """A saving."""
    return {"low": low, "expected": expected, "high": high}


CASES = (
    a_recommendation(1, saving=a_range("38.5", "45", "47.25"), sequential=a_range("38.5", "45", "47.25")),
    a_recommendation(
        2,
        type="caching",
        recommended="an <b>exact</b> cache",
        subject={"service": "workflow"},
        evidence={"service": "workflow", "agent": None},
        saving=a_range("3.2", "4.1", "4.1"),
        sequential=a_range("2", "2.9", "3.1"),
        priority="medium",
        effort="medium",
        command="vital-tracking budgets set user --daily 4",
    ),
    a_recommendation(
        3,
        type="semantic_caching",
        saving=a_range("0", "0.00000028", "9"),
        sequential=a_range("0", "0", "0"),
        counted=False,
        priority="low",
    ),
)


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with a member, an admin and a call of theirs, and advice for all and for their organization."""
    postgres_server.create_database("web_advice", template=template_database)
    address = postgres_server.url("web_advice")
    with connect(address) as connection:
        for user, role in ((ADMIN, "admin"), (ALICE, "member")):
            connection.execute("insert into organization_members values ('acme', %s, %s)", [user, role])
        now = datetime.now(UTC).isoformat()
        record(connection, a_call(1, organization_id="acme", user_id=ALICE, created_at=now))
    yield address
    postgres_server.drop_database("web_advice")


@pytest.fixture
def database(url: str) -> Iterator[Connection]:
    """Its owner's connection, with the advice as it was found, and no line in the audit."""
    with connect(url) as connection:
        connection.execute("truncate recommendations, advice_runs")
        connection.execute("set vital_tracking.audit_may_change = 'on'")
        connection.execute("truncate admin_audit")
        connection.execute("reset vital_tracking.audit_may_change")
        for organization in (None, "acme"):
            named = [
                {**one, "organization_id": organization, "id": an_id(place + (10 if organization else 0))}
                for place, one in enumerate(CASES, 1)
            ]
            told = an_advice(*named, organization_id=organization, bill="368.12", notes=["12 calls have no price."])
            call(connection, "save_advice_v1", advice=json.dumps(told))
        yield connection


@pytest.fixture
def people(database: Connection, url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    with closing(PostgresStore(url)) as store:
        yield browsers(store, make, issuer)


def get(browser: Any, path: str) -> Any:
    answer = browser.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def test_page_api_csv_sql_and_mail_tell_the_same(people: Open, database: Connection, url: str) -> None:
    """If this failed, an admin would not know which of our figures to believe."""
    browser = people("operator")
    found = get(browser, OPTIMIZATION)
    assert found["total_potential_savings"] == "$47.90/month"
    assert found["total_potential_savings_usd"] == {
        "low": Decimal("40.5"),
        "expected": Decimal("47.9"),
        "high": Decimal("50.35"),
    }
    assert found["estimated_implementation_time"] == "1 day and 2 hours"
    assert found["not_applicable"] == [{"type": "auto_scaling", "reason": "No model is priced by the hour."}]
    assert found["bill"] == Decimal("368.12")
    first, second, third = found["recommendations"]
    assert (first["type"], first["priority"], first["potential_savings"]) == ("model_switch", "HIGH", "$45.00/month")
    assert third["potential_savings"] == "$0.00000028/month"
    assert first["implementation_effort"] == "low"
    assert second["evidence"]["command"] == (
        "vital-tracking calls --since 2026-11-01 --until 2026-12-01 --only agent= --service workflow"
    )
    asked = "timezone=UTC&since=2026-11-01&until=2026-11-30&agent=&service=workflow"
    assert second["evidence"]["page"] == f"/calls?{asked}"
    for link in (second["evidence"]["page"], second["evidence"]["api"]):
        assert browser.get(link).status_code == 200
    # Where a time is named, it is looked for in that time, and nothing is saved.
    assert get(browser, f"{OPTIMIZATION}?days=7")["period_start"] != found["period_start"]
    assert len(get(browser, OPTIMIZATION)["recommendations"]) == 3

    text = page(browser, "advice")
    assert figures(text)["To be saved a month"] == "$47.90"
    assert "$47.90 a month" in text
    assert "13.0 % of the bill" in re.sub(r"\s", " ", unescape(text))
    assert "an &lt;b&gt;exact&lt;/b&gt; cache" in text
    assert asked.replace("&", "&amp;") in text
    assert "12 calls have no price." in text
    rows = table(browser, "advice", "recommendations")
    assert [Decimal(row["saving_expected"]) for row in rows] == [
        one["potential_savings_usd"]["expected"] for one in found["recommendations"]
    ]
    sql = database.execute("select saving_expected from open_recommendations where organization_id is null").fetchall()
    assert [row["saving_expected"] for row in sql] == [Decimal("45"), Decimal("4.1"), Decimal("0.00000028")]
    listed = browser.get("/api/v1/recommendations.csv?status=open").text
    assert "0.00000028" in listed
    assert "2.8E-7" not in listed + text
    overview = page(browser, "")
    assert "Where money can be saved" in overview
    assert f"/advice#{an_id(1)}" in overview

    with closing(PostgresStore(url)) as store:
        advice = last_advice(store)
        assert advice is not None
        made = advice_document(store, advice, "https://pages.example")
        summary = summary_document(store, [("report", "summary")], advice["until"], "s", None)
    assert "To be saved a month: **$47.90**" in made.markdown
    assert "https://pages.example/calls?" in made.html
    assert "an &lt;b&gt;exact&lt;/b&gt; cache" in made.html
    assert "Where money can be saved" in summary.markdown
    assert "Model switch" in summary.markdown


def test_what_is_decided_is_shown_with_who_and_why_and_can_be_taken_back(people: Open, database: Connection) -> None:
    """If this failed, what was decided yesterday would be asked again today."""
    browser = people("organization admin")
    assert get(browser, OPTIMIZATION)["organization"] == "acme"
    one, two = an_id(11), an_id(12)
    answer = browser.post(f"/api/v1/recommendations/{one}", json={"status": "taken", "reason": "as of release 41"})
    taken = json.loads(answer.text, parse_float=Decimal)
    assert (taken["status"], taken["decided_by"], taken["promised_savings_usd"]["expected"]) == ("taken", ADMIN, 45)
    answer = browser.post(f"/advice/{two}", data={"status": "dismissed", "why": "Quality counts."}, headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/advice?organization=acme")
    assert [row["id"] for row in get(browser, "recommendations?status=open")] == [an_id(13)]
    assert get(browser, OPTIMIZATION)["total_potential_savings"] == "$0.00/month"
    text = page(browser, "advice")
    assert "as of release 41" in text
    assert "Quality counts." in text
    assert "not yet" in text
    call(database, "note_saving_v1", recommendation=one, note="2,000 calls repriced.", saving="30.5")
    [row] = table(browser, "advice", "taken")
    assert (row["saved"], row["kept"]) == ("30.5", "less")
    assert figures(page(browser, "advice"))["Really saved a month"] == "$30.50"
    assert browser.post(f"/advice/{two}", data={"status": "open"}, headers=SAME).status_code == 303
    assert [row["id"] for row in get(browser, "recommendations?status=open")] == [two, an_id(13)]
    assert browser.post(f"/api/v1/recommendations/{an_id(1)}", json={"status": "taken"}).status_code == 404
    wrong = browser.post(f"/api/v1/recommendations/{two}", json={"status": "taken", "reason": "x" * 501})
    assert wrong.status_code == 422


def test_advice_is_looked_for_again_by_its_admins_and_operators_alone(people: Open, database: Connection) -> None:
    """If this failed, whoever is a member could renew what all see; or an admin could not, and nobody would know."""
    member, admin, operator = people("user"), people("organization admin"), people("operator")
    assert "for admins" in page(member, "advice")
    assert get(member, OPTIMIZATION)["recommendations"] == []
    for asked in ("", "?organization=acme", "?organization=acme&days=7"):
        assert "for admins" in get(member, f"{OPTIMIZATION}{asked}")["notes"][0]
    assert "for admins" in page(member, "advice?organization=acme")
    for sent in ({"organization_id": "acme"}, {}):
        assert member.post("/api/v1/recommendations", json=sent).status_code == 403
    assert admin.post("/api/v1/recommendations", json={}).status_code == 403
    answer = admin.post("/api/v1/recommendations", json={"organization_id": "acme", "days": 30})
    assert answer.status_code == 200, answer.text
    assert answer.json()["organization"] == "acme"
    # The old ones are given no longer, but not gone.
    assert {row["still_given"] for row in get(admin, "recommendations")} == {False}
    assert "No longer given" in page(admin, "advice")
    assert operator.post("/advice", data={"organization": ""}, headers=SAME).status_code == 303
    assert (
        operator.post("/advice", data={"organization": ""}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    )
    lines = database.execute(
        "select actor, operation, organization_id from admin_audit where table_name = 'recommendations' order by id"
    ).fetchall()
    assert [(line["actor"], line["operation"], line["organization_id"]) for line in lines] == [
        (ALICE, "refused", "acme"),
        (ALICE, "refused", None),
        (ADMIN, "refused", None),
        (ADMIN, "update", "acme"),
        (None, "update", None),
    ]


def test_advice_about_a_day_that_runs_is_for_the_time_that_is_over(people: Open, database: Connection) -> None:
    """If the API counted all of today, its savings of a month would be smaller than those of the page."""
    found = get(people("operator"), f"{OPTIMIZATION}?days=1")
    assert datetime.fromisoformat(found["period_end"]) <= max(
        datetime.now(UTC), datetime.fromisoformat(found["period_start"]) + timedelta(hours=1)
    )


def test_where_nobody_has_looked_the_page_says_so_and_how(people: Open, database: Connection) -> None:
    """If this failed, an empty page would look as if there was nothing to save."""
    database.execute("truncate recommendations, advice_runs")
    text = page(people("operator"), "advice")
    assert "Nobody has looked yet" in text
    assert "Look for advice" in text
