"""Who sees what through the application: row level security alone, for members, admins, strangers and operators."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends

from tests.integration.web.conftest import MONITORING, Clock, Issuer, Make, bearer, client
from tests.sql.access_world import READERS, calls_in
from tests.sql.helpers import ADMIN, ALICE, CAROL, STRANGER, Connection
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.problems import forbidden
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

USERS = [
    name
    for name, who in READERS.items()
    if isinstance(who.claims, dict) and isinstance(who.claims.get("sub"), str) and who.role == "authenticated"
]

routes = api_router()


@routes.get("/api/v1/cost", dependencies=[Depends(reads("cost"))])
def cost(store: Reader, organization: str | None = None) -> ExactJSON:
    """What calls cost, by model."""
    rows = store.breakdown("model", organization=organization)
    return ExactJSON({"total_cost": sum(row["total_cost"] or 0 for row in rows)})


@routes.get("/api/v1/stats")
def stats(store: Reader, organization: str) -> ExactJSON:
    """An organization's figures, which only its admins may ask for."""
    return ExactJSON(store.call("dashboard_summary", organization=organization))


@routes.post("/api/v1/refused-by-the-database")
def change(store: Reader, who: Asker) -> ExactJSON:
    """Something that the database refuses to users."""
    return ExactJSON(store.call("audit_budgets_v1"))


@routes.post("/api/v1/only-admins")
def only_admins(who: Asker) -> ExactJSON:
    """Something that is refused by us."""
    raise forbidden("Not for you.")


def lines(owner: Connection) -> list[dict[str, Any]]:
    return owner.execute(
        "select actor, organization_id, table_name, operation, key, database_role from admin_audit order by id"
    ).fetchall()


@pytest.mark.parametrize("name", USERS)
def test_everybody_is_told_what_is_theirs(make: Make, issuer: Issuer, owner: Connection, name: str) -> None:
    """If this failed, an organization's costs would be on another's page."""
    who = READERS[name]
    assert isinstance(who.claims, dict)
    browser = client(make(routes), headers=bearer(issuer.token(**who.claims)))
    theirs = set(who.own | who.administered)
    assert calls_in(browser.get("/api/v1/cost").json()["total_cost"]) == theirs
    for organization, inside in (("acme", {1, 2, 7}), ("other", {3, 6}), ("acme' or true --", set()), ("*", set())):
        answer = browser.get("/api/v1/cost", params={"organization": organization})
        assert calls_in(answer.json()["total_cost"]) == theirs & inside
        allowed = bool(who.administered & inside)
        answer = browser.get("/api/v1/stats", params={"organization": organization})
        assert answer.status_code == (200 if allowed else 403), answer.text
        if not allowed:
            assert set(answer.json()) == {"type", "title", "status", "detail", "hint"}


def test_claims_of_a_token_grant_nothing(make: Make, issuer: Issuer) -> None:
    """If this failed, somebody could be admin by what their token says of itself."""
    claims = {
        "organization_id": "acme",
        "user_role": "admin",
        "app_metadata": {"role": "admin", "organization_id": "acme", "claims_admin": True},
        "user_metadata": {"sub": ADMIN},
        "is_admin": True,
    }
    browser = client(make(routes), headers=bearer(issuer.token(sub=STRANGER, **claims)))
    assert calls_in(browser.get("/api/v1/cost").json()["total_cost"]) == set()
    assert browser.get("/api/v1/stats?organization=acme").status_code == 403
    for name in ("user", "user_id", "sub", "claims", "role", "as_user"):
        assert calls_in(browser.get(f"/api/v1/cost?{name}={ADMIN}").json()["total_cost"]) == set()
    for name in ("X-User-Id", "X-Organization", "X-Forwarded-User", "X-Role", "X-Hasura-Role", "apikey"):
        answer = browser.get("/api/v1/cost", headers={name: ADMIN})
        assert calls_in(answer.json()["total_cost"]) == set()


def test_the_operator_reads_all_and_the_monitor_nothing(make: Make, owner: Connection) -> None:
    """If this failed, the dashboard of an installation would be empty; or a scraper would read the books."""
    link = OperatorLink()
    browser = client(make(routes, operator=link))
    browser.get(f"/open?token={link.token}")
    assert calls_in(browser.get("/api/v1/cost").json()["total_cost"]) == {1, 2, 3, 4, 5, 6, 7}
    assert [(line["actor"], line["operation"]) for line in lines(owner)] == [(None, "read")]
    answer = client(make(routes)).get("/api/v1/cost", headers=bearer(MONITORING))
    assert answer.status_code == 403


def test_reading_other_peoples_data_leaves_a_line_an_hour(
    make: Make, issuer: Issuer, owner: Connection, clock: Clock
) -> None:
    """If this failed, an organization could not say who has looked at its people; or a page left open would fill the audit."""
    browser = client(make(routes))
    admin, alice = (bearer(issuer.token(sub=sub, exp=int(clock.now) + 9000)) for sub in (ADMIN, ALICE))
    for _ in range(3):
        assert browser.get("/api/v1/cost", headers=admin).status_code == 200
        assert browser.get("/api/v1/cost", headers=alice).status_code == 200
    line = {
        "actor": ADMIN,
        "organization_id": "acme",
        "table_name": "cost",
        "operation": "read",
        "key": {},
        "database_role": "postgres",
    }
    assert lines(owner) == [line]
    clock.now += 3601
    browser.get("/api/v1/cost", headers=admin)
    browser.get(f"/api/v1/cost?user={ALICE}", headers=admin)
    browser.get(f"/api/v1/cost?user={ADMIN}", headers=admin)
    browser.get("/api/v1/cost?organization=other", headers=admin)
    assert lines(owner) == [line, line, {**line, "key": {"user_id": ALICE}}]


def test_refused_tries_leave_a_line(make: Make, issuer: Issuer, owner: Connection) -> None:
    """If this failed, whoever tries doors would not be noticed."""
    browser = client(make(routes))
    alice = bearer(issuer.token(sub=ALICE))
    assert browser.get("/api/v1/stats?organization=acme", headers=alice).status_code == 403
    assert browser.post("/api/v1/refused-by-the-database", headers=alice).status_code == 403
    assert browser.post("/api/v1/only-admins", headers=alice).status_code == 403
    assert browser.post("/api/v1/only-admins", headers=bearer("x")).status_code == 401
    assert browser.post("/api/v1/only-admins").status_code == 401
    assert [
        (line["actor"], line["organization_id"], line["table_name"], line["operation"]) for line in lines(owner)
    ] == [
        (ALICE, "acme", "GET /api/v1/stats", "refused"),
        (ALICE, None, "POST /api/v1/refused-by-the-database", "refused"),
        (ALICE, None, "POST /api/v1/only-admins", "refused"),
    ]


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_another_site_changes_nothing_with_a_cookie(
    make: Make, issuer: Issuer, owner: Connection, headers: dict[str, str]
) -> None:
    """If this failed, a page that an admin visits could lift a budget."""
    changed: list[str] = []
    changing = api_router()

    @changing.api_route("/api/v1/change", methods=["POST", "PUT", "PATCH", "DELETE"])
    def change_it(who: Asker) -> ExactJSON:
        changed.append(str(who.subject))
        return ExactJSON({})

    token = issuer.token(sub=ADMIN)
    browser = client(make(changing), cookies={"vital_access": token})
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert browser.request(method, "/api/v1/change", headers=headers).status_code == 403
    assert changed == []
    assert {(line["actor"], line["operation"]) for line in lines(owner)} == {(ADMIN, "refused")}
    assert browser.post("/api/v1/change", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client(make(changing)).post("/api/v1/change", headers={**headers, **bearer(token)}).status_code == 200
    assert changed == [ADMIN, ADMIN]


def test_who_is_no_admin_any_more_is_told_nothing_at_once(make: Make, issuer: Issuer, owner: Connection) -> None:
    """If this failed, a token would go on showing an organization that its owner has left."""
    browser = client(make(routes), headers=bearer(issuer.token(sub=CAROL)))
    assert browser.get("/api/v1/stats?organization=other").status_code == 200
    owner.execute("update organization_members set role = 'member' where user_id = %s", [CAROL])
    try:
        assert browser.get("/api/v1/stats?organization=other").status_code == 403
        assert calls_in(browser.get("/api/v1/cost").json()["total_cost"]) == {3}
    finally:
        owner.execute("update organization_members set role = 'admin' where user_id = %s", [CAROL])
