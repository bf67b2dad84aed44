"""The application over Supabase itself: people who have signed up, with their own tokens, on every way in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.integration.stores.test_supabase_access import empty
from tests.integration.web.conftest import bearer, client
from tests.integration.web.test_access import routes
from tests.integration.web.ways_in import OPEN, addresses
from tests.sql.access_world import calls_in
from tests.sql.helpers import a_call, connect, record
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.settings import Settings
from vital_tracking.web import create_app
from vital_tracking.web.rate_limits import RateLimits
from vital_tracking.web.settings import WebSettings

pytestmark = pytest.mark.timeout(300)

PASSWORD = "secret-word-7391"
# Who they are in which organization; call n costs 10^(n-1) dollars.
PEOPLE = {"member": ("acme", "member"), "admin": ("acme", "admin"), "other": ("other", "admin"), "stranger": None}
CALLS = {1: ("member", "acme"), 2: ("admin", "acme"), 3: ("other", "other"), 4: ("member", None)}
SEEN = {"member": {1, 4}, "admin": {1, 2}, "other": {3}, "stranger": set()}

Person = dict[str, Any]


@pytest.fixture(scope="module")
def people(lite: SupabaseLite) -> Iterator[dict[str, Person]]:
    """Four people with accounts of their own, and their calls."""
    found: dict[str, Person] = {}
    for name in PEOPLE:
        email = f"{name}-{uuid.uuid4().hex}@example.com"
        answer = httpx.post(
            f"{lite.url}/auth/v1/signup",
            json={"email": email, "password": PASSWORD, "data": {"role": "admin", "organization_id": "acme"}},
            headers={"apikey": lite.publishable_key},
            trust_env=False,
        ).json()
        found[name] = {"email": email, "id": answer["user"]["id"], "token": answer["access_token"]}
    with connect(lite.database_url) as connection:
        empty(connection)
        for name, place in PEOPLE.items():
            if place:
                organization, role = place
                values = [organization, found[name]["id"], role]
                connection.execute("insert into organization_members values (%s, %s, %s)", values)
        now = datetime.now(UTC).isoformat()
        money = ("input_cost", "total_cost", "potential_cost")
        calls = [
            a_call(
                number,
                user_id=found[name]["id"],
                organization_id=organization,
                output_cost="0",
                provider="own",
                model="m",
                created_at=now,
                **dict.fromkeys(money, str(10 ** (number - 1))),
            )
            for number, (name, organization) in CALLS.items()
        ]
        assert record(connection, *calls)["inserted"] == len(CALLS)
        yield found
        empty(connection)


@pytest.fixture
def app(lite: SupabaseLite) -> FastAPI:
    """The application of a team that has set what Supabase's own pages show."""
    made = create_app(
        settings=Settings(supabase_url=lite.url, supabase_service_key=SecretStr(lite.service_key)),
        web=WebSettings.from_env(
            {
                "SUPABASE_URL": lite.url,
                "SUPABASE_ANON_KEY": lite.publishable_key,
                "SUPABASE_JWT_SECRET": lite.jwt_secret,
            },
            dotenv="absent.env",
        ),
    )
    made.include_router(routes, dependencies=[Depends(made.state.vital.attach)])
    return made


def by_token(app: FastAPI, person: Person) -> TestClient:
    return client(app, headers=bearer(person["token"]))


def by_sign_in(app: FastAPI, person: Person) -> TestClient:
    browser = client(app, headers={"Sec-Fetch-Site": "same-origin"})
    answer = browser.post("/sign-in", data={"email": person["email"], "password": PASSWORD})
    assert answer.status_code == 303
    return browser


@pytest.mark.parametrize("way", [by_token, by_sign_in])
def test_everybody_is_told_what_is_theirs_and_no_more(
    app: FastAPI, people: dict[str, Person], lite: SupabaseLite, way: Any
) -> None:
    """If this failed, a customer of a hosted project would read another's bill."""
    for name, person in people.items():
        with way(app, person) as browser:
            answer = browser.get("/api/v1/cost")
            assert answer.status_code == 200, (name, answer.text)
            assert calls_in(answer.json()["total_cost"]) == SEEN[name], name
            for organization in ("acme", "other"):
                place = PEOPLE[name]
                allowed = place is not None and place == (organization, "admin")
                answer = browser.get("/api/v1/cost", params={"organization": organization})
                inside = {number for number, call in CALLS.items() if call[1] == organization}
                assert answer.status_code == 200, (name, organization, answer.text)
                assert calls_in(answer.json()["total_cost"]) == SEEN[name] & inside, (name, organization)
                assert allowed or not SEEN[name] & inside - {1}
            assert browser.post("/api/v1/refused-by-the-database").status_code == 403
            organizations = browser.get("/api/v1/status").json()["organizations"]
            assert [(one["organization_id"], one["role"]) for one in organizations] == (
                [PEOPLE[name]] if PEOPLE[name] else []
            )
    with connect(lite.database_url) as connection:
        lines = connection.execute(
            "select distinct actor, organization_id, operation, database_role from admin_audit"
            " where operation in ('read', 'refused')"
        ).fetchall()
    told = {(line["actor"], line["organization_id"], line["operation"]) for line in lines}
    ids = {name: person["id"] for name, person in people.items()}
    assert told == {(ids["admin"], "acme", "read"), (ids["other"], "other", "read")} | {
        (actor, None, "refused") for actor in ids.values()
    }
    assert {line["database_role"] for line in lines} == {"service_role"}


def test_every_address_answers_everybody_with_what_is_theirs(
    app: FastAPI, people: dict[str, Person], lite: SupabaseLite
) -> None:
    """If this failed, a page would be missing over Supabase, or show a customer another's calls."""
    with connect(lite.database_url) as connection:
        ids = {
            row["id"]: row["number"]
            for row in connection.execute(
                "select id::text, (log(total_cost) + 1)::integer as number from token_usage_logs"
            ).fetchall()
        }
    app.state.vital.limits = RateLimits(WebSettings(user_requests=10_000, organization_requests=10_000))
    for number, (name, person) in enumerate(people.items()):
        browser = by_token(app, person)
        hidden = {one for one, call in ids.items() if call not in SEEN[name]}
        for path in addresses(app)[number :: len(people)]:  # each is asked by one of them
            answer = browser.get(path)
            assert answer.status_code in (200, 303, 403, 404, 422), (name, path, answer.text[:300])
            assert not [one for one in hidden if one in answer.text], (name, path)
            assert not [
                other["email"] for other in people.values() if other is not person and other["email"] in answer.text
            ]
        listed = browser.get("/api/v1/calls").json()
        assert {ids[call["id"]] for call in listed} == SEEN[name]
        assert browser.get("/api/v1/explore?measure=calls&by=user").json()["total"]["calls"] == len(SEEN[name])
        for one, call in ids.items():
            assert browser.get(f"/api/v1/calls/{one}").status_code == (200 if call in SEEN[name] else 404)
    nobody = client(app, headers={"apikey": lite.service_key})
    for path in addresses(app):
        answer = nobody.get(path)
        told = path in OPEN or path.startswith("/static")
        assert told or answer.status_code in (303, 401, 403, 404), (path, answer.status_code)


def test_anonymous_visitors_are_told_nothing(app: FastAPI, people: dict[str, Person], lite: SupabaseLite) -> None:
    """If this failed, the key in every browser would open the books."""
    headers: list[dict[str, str]] = [
        {},
        {"apikey": lite.publishable_key},
        {"apikey": lite.service_key},
        bearer(lite.publishable_key),
        bearer(lite.service_key),
        bearer(json.dumps(people["admin"]["id"])),
    ]
    for given in headers:
        for method, path in (
            ("GET", "/api/v1/cost"),
            ("GET", "/api/v1/status"),
            ("POST", "/api/v1/refused-by-the-database"),
        ):
            answer = client(app, headers=given).request(method, path)
            assert answer.status_code == 401, (path, answer.text)
            assert lite.service_key not in answer.text
