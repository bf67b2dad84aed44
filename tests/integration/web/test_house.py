"""The rooms of the house: members and the audit, for each reader, and what nobody may change who is no admin of it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers, client
from tests.integration.web.history import Open
from tests.integration.web.test_pages import page
from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, Connection, connect
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

MEMBERS = [("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")]
SEEN = {
    "operator": {user for _, user, _ in MEMBERS},
    "organization admin": {ADMIN, ALICE},
    "admin of another": {CAROL},
    "user": {ALICE},
    "stranger": set(),
}
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def house_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database for these tests."""
    postgres_server.create_database("web_house", template=template_database)
    yield postgres_server.url("web_house")
    postgres_server.drop_database("web_house")


@pytest.fixture
def database(house_url: str) -> Iterator[Connection]:
    """Its owner's connection; members and audit are as at the beginning."""
    with connect(house_url) as connection:
        connection.execute("delete from organization_members")
        for member in MEMBERS:
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        with connection.transaction():
            connection.execute("set local vital_tracking.audit_may_change = 'on'")
            connection.execute("truncate admin_audit")
        yield connection


@pytest.fixture
def house(database: Connection, house_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    store = PostgresStore(house_url)
    yield browsers(store, make, issuer)
    store.close()


def lines(database: Connection, operation: str) -> list[dict[str, Any]]:
    return database.execute(
        "select actor, organization_id, key ->> 'user_id' as whom, changes from admin_audit where operation = %s order by id",
        [operation],
    ).fetchall()


def roles(database: Connection, organization: str = "acme") -> dict[str, str]:
    query = "select user_id, role from organization_members where organization_id = %s"
    rows = database.execute(query, [organization]).fetchall()
    return {row["user_id"]: row["role"] for row in rows}


@pytest.mark.parametrize("reader", SEEN)
def test_members_are_shown_to_whom_they_concern(house: Open, reader: str) -> None:
    """If this failed, anybody could list who works for whom, or an admin would not see the own people."""
    browser = house(reader)
    assert {one["user_id"] for one in browser.get("/api/v1/members").json()} == SEEN[reader]
    text = page(browser, "organization")
    assert {user for _, user, _ in MEMBERS if user in text} == SEEN[reader]
    assert ("Add a member" in text) == (reader not in ("user", "stranger"))
    of_acme = {one["user_id"] for one in browser.get("/api/v1/members?organization=acme").json()}
    assert of_acme == SEEN[reader] - {CAROL}


def test_admins_add_promote_demote_and_remove_and_each_change_is_audited(house: Open, database: Connection) -> None:
    """If this failed, a team would need an operator for every new colleague, or could not tell who let whom in."""
    browser = house("organization admin")
    bob = {"organization_id": "acme", "user_id": BOB}
    assert browser.post("/api/v1/members", json={**bob, "role": "auditor"}).status_code == 201
    assert browser.patch("/api/v1/members", json={**bob, "role": "admin"}).json() == {
        **bob,
        "before": "auditor",
        "after": "admin",
    }
    assert browser.post("/api/v1/members", json=bob).status_code == 409
    assert browser.delete("/api/v1/members", params={"organization": "acme", "user": ADMIN}).status_code == 200
    assert roles(database) == {ALICE: "member", BOB: "admin"}
    assert browser.delete("/api/v1/members", params={"organization": "acme", "user": BOB}).status_code == 403
    assert [(line["actor"], line["whom"]) for line in lines(database, "insert")][-1:] == [(ADMIN, BOB)]
    assert [(line["actor"], line["changes"]) for line in lines(database, "update")] == [
        (ADMIN, {"role": ["auditor", "admin"]})
    ]
    assert [(line["actor"], line["whom"]) for line in lines(database, "refused")] == [(ADMIN, BOB), (ADMIN, BOB)]


def test_the_last_admin_stays(house: Open, database: Connection) -> None:
    """If this failed, an organization could lock itself out."""
    browser = house("organization admin")
    me = {"organization_id": "acme", "user_id": ADMIN}
    assert browser.patch("/api/v1/members", json={**me, "role": "member"}).status_code == 409
    assert browser.delete("/api/v1/members", params={"organization": "acme", "user": ADMIN}).status_code == 409
    assert browser.delete("/api/v1/members", params={"organization": "acme", "user": BOB}).status_code == 404
    assert roles(database) == {ADMIN: "admin", ALICE: "member"}


@pytest.mark.parametrize("reader", ["admin of another", "user", "stranger"])
def test_nobody_else_changes_members_and_each_try_is_audited(house: Open, database: Connection, reader: str) -> None:
    """If this failed, a member could make himself an admin and read what everybody spends."""
    browser = house(reader)
    for user in (ALICE, BOB):
        wanted = {"organization_id": "acme", "user_id": user, "role": "admin"}
        answers = [
            browser.post("/api/v1/members", json=wanted),
            browser.patch("/api/v1/members", json=wanted),
            browser.delete("/api/v1/members", params={"organization": "acme", "user": user}),
            browser.post("/organization/members", data={"organization": "acme", "user": user, "what": "change"}),
        ]
        assert [one.status_code for one in answers] == [403] * 4
    assert roles(database) == {ADMIN: "admin", ALICE: "member"}
    assert len(lines(database, "refused")) == 8


def test_the_page_s_forms_change_members_from_our_own_pages_alone(house: Open, database: Connection) -> None:
    """If this failed, a page of another site could make its author an admin."""
    browser = house("operator")
    form = {"organization": "acme", "user": BOB, "what": "add", "role": "auditor"}
    assert browser.post("/organization/members", data=form).status_code == 403
    done = browser.post("/organization/members", data=form, headers=SAME_SITE)
    assert (done.status_code, done.headers["location"]) == (303, "/organization?organization=acme")
    assert roles(database)[BOB] == "auditor"
    text = page(browser, "organization?organization=acme")
    assert f'value="{BOB}"' in text
    browser.post("/organization/members", data={**form, "what": "remove"}, headers=SAME_SITE)
    assert BOB not in roles(database)


def test_an_organization_that_is_probably_mistyped_is_asked_about_on_pages(house: Open, database: Connection) -> None:
    """If this failed, one letter too many would make another organization, with a member or a budget that nobody meets."""
    operator = house("operator")
    member = {"organization": "acmee", "user": BOB, "what": "add", "role": "auditor", "name": "Bob"}
    asked = operator.post("/organization/members", data=member, headers=SAME_SITE)
    assert asked.status_code == 422
    assert "did you mean acme? If it is new, mark that." in asked.text
    assert all(f'value="{value}"' in asked.text for value in ("acmee", BOB, "Bob", "yes"))
    assert "<option selected>auditor</option>" in asked.text
    assert BOB not in roles(database)
    budget = {"entity_type": "organization", "metric": "cost_usd", "action": "block", "daily_limit": "5"}
    for key in ({"organization_id": "acmee", "entity_id": "*"}, {"organization_id": "", "entity_id": "acmee"}):
        said = operator.post("/budgets/new", data={**budget, **key}, headers=SAME_SITE)
        assert said.status_code == 422
        assert "did you mean acme? If it is new, mark that." in said.text
        assert 'name="new" value="yes"' in said.text
    new = operator.post("/budgets/new", data={**budget, "entity_id": "acmee", "new": "yes"}, headers=SAME_SITE)
    assert new.status_code == 303
    database.execute("delete from budget_limits where entity_id = 'acmee'")
    other = operator.post("/organization/members", data={**member, "organization": "globex"}, headers=SAME_SITE)
    assert (other.status_code, roles(database, "globex")) == (303, {BOB: "auditor"})


@pytest.mark.parametrize(
    "body",
    [{}, {"organization_id": "acme"}, {"organization_id": "acme", "user_id": "u", "role": "owner"},
     {"organization_id": "acme", "user_id": "u", "created_at": "2026-01-01"}, {"organization_id": " ", "user_id": "u"},
     {"organization_id": "acme", "user_id": "x" * 256}, {"organization_id": "a\0", "user_id": "u"}],
)  # fmt: skip
def test_a_change_that_cannot_be_is_a_problem(house: Open, body: dict[str, Any]) -> None:
    browser = house("organization admin")
    for method in ("POST", "PATCH"):
        answer = browser.request(method, "/api/v1/members", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("reader", SEEN)
def test_the_audit_is_shown_to_whom_it_concerns(house: Open, database: Connection, reader: str) -> None:
    """If this failed, an admin could not see who changed a role, or a member could."""
    database.execute("update organization_members set role = 'auditor' where user_id = %s", [ALICE])
    for organization in ("acme", "other"):
        database.execute(
            "insert into organization_members select %s, 'new-' || n, 'member' from generate_series(1, 60) as n",
            [organization],
        )
    if reader == "user":
        database.execute("update organization_members set role = 'member' where user_id = %s", [ALICE])
    browser = house(reader)
    of = {"operator": {"acme", "other"}, "organization admin": {"acme"}, "admin of another": {"other"}}.get(
        reader, set()
    )
    seen, path = [], "/api/v1/audit?operation=insert&limit=25"
    while path:
        answer = browser.get(path)
        assert answer.status_code == 200, answer.text
        seen += answer.json()
        path = answer.headers["link"].split(">")[0][1:] if "link" in answer.headers else ""
    assert {line["organization_id"] for line in seen} == of
    assert len({line["id"] for line in seen}) == len(seen) == 60 * len(of)
    rows = list(csv.DictReader(browser.get("/api/v1/audit.csv?operation=insert").text.splitlines()))
    assert [int(row["id"]) for row in rows] == [line["id"] for line in seen]
    changes = browser.get("/api/v1/audit?operation=update&what=organization_members").json()
    assert ("acme" in of) == any(line["changes"] == {"role": ["member", "auditor"]} for line in changes)

    text = page(browser, "audit?operation=insert")
    older = re.search(r'<a class="button" href="/([^"]+)">Older</a>', text)
    assert (older is not None) == (len(of) == 2)
    if older is not None:
        assert "new-1" in page(browser, unescape(older[1]))
    if not of:
        assert "No line that you may see" in text


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "before=0", "before=x", "since=yesterday", f"actor={'x' * 256}", "what=%00"]
)
def test_an_audit_that_cannot_be_asked_for_is_a_problem(house: Open, query: str) -> None:
    answer = house("operator").get(f"/api/v1/audit?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("path", ["api/v1/members", "api/v1/audit", "api/v1/audit.csv", "organization", "audit"])
def test_nobody_who_is_not_signed_in_is_told_anything(make: Make, path: str) -> None:
    assert client(make()).get(f"/{path}").status_code == 401


@pytest.mark.parametrize("reader", SEEN)
def test_names_are_written_by_admins_and_told_to_whom_they_concern(
    house: Open, database: Connection, reader: str
) -> None:
    """If this failed, an admin would see ids alone, anybody could rename a colleague, or read an address."""
    browser, allowed = house(reader), reader in ("operator", "organization admin")
    form = {"organization": "acme", "user": ALICE, "what": "name", "name": "Maria <b>", "email": "maria@acme.example"}
    named = browser.post("/organization/members", data=form, headers=SAME_SITE)
    whole = browser.post("/organization/name", data={"organization": "acme", "name": "Acme Clinics"}, headers=SAME_SITE)
    assert [named.status_code, whole.status_code] == [303 if allowed else 403] * 2
    if not allowed:
        database.execute("select name_member_v1('acme', %s, 'Maria <b>', 'maria@acme.example')", [ALICE])
        database.execute("select name_organization_v1('acme', 'Acme Clinics')")
    told = {one["user_id"]: (one["name"], one["email"]) for one in browser.get("/api/v1/members").json()}
    sees = allowed or reader == "user"
    assert told.get(ALICE) == (("Maria <b>", "maria@acme.example") if sees else None)
    text = page(browser, "organization?organization=acme")
    assert [said in text for said in ("Maria &lt;b&gt;", "maria@acme.example", "Acme Clinics (acme)")] == [sees] * 3
    assert ("How long what is kept" in text) == (allowed or reader == "admin of another")
    body = {"organization_id": "acme", "user_id": ALICE, "name": ""}
    assert browser.put("/api/v1/members/name", json=body, headers=SAME_SITE).status_code == (200 if allowed else 403)
    body = {"organization_id": "acme", "name": ""}
    assert browser.put("/api/v1/organizations/name", json=body, headers=SAME_SITE).status_code == (
        200 if allowed else 403
    )
