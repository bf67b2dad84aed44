"""Events and other costs over the API: sent by browsers and servers, and read by those whom they concern."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tests.integration.web.conftest import MONITORING, Issuer, Make, bearer, browsers, client
from tests.integration.web.history import READERS, Open, Row
from tests.integration.web.test_lists_api import get, pages
from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, STRANGER, Connection, call_id, connect
from tests.sql.platform_rows import a_cost, an_event, send
from tests.support.postgres import PostgresServer
from vital_tracking.core.addresses import address_hash
from vital_tracking.errors import SettingsError
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.settings import WebSettings

KEY = "a key of hashes"


@pytest.fixture(scope="module")
def events_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with people, in which these tests write events."""
    postgres_server.create_database("web_events", template=template_database)
    with connect(postgres_server.url("web_events")) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
    yield postgres_server.url("web_events")
    postgres_server.drop_database("web_events")


@pytest.fixture
def database(events_url: str) -> Iterator[Connection]:
    """Its owner's connection; there is no event, no cost and no line of the audit."""
    with connect(events_url) as connection:
        with connection.transaction():
            connection.execute("set local vital_tracking.audit_may_change = 'on'")
            connection.execute("truncate admin_audit, platform_events, tenant_cost_events")
            for sums in (
                "platform_events_5min",
                "platform_events_daily_sessions",
                "tenant_costs_5min",
                "tenant_costs_daily",
            ):
                connection.execute(f"truncate {sums}")
        yield connection


@pytest.fixture(scope="module")
def events_store(events_url: str) -> Iterator[PostgresStore]:
    """A store on it."""
    with closing(PostgresStore(events_url)) as store:
        yield store


@pytest.fixture
def people(database: Connection, events_store: PostgresStore, make: Make, issuer: Issuer) -> Open:
    """The browsers of those who send and read."""
    return browsers(events_store, make, issuer)


def stored(database: Connection) -> list[dict[str, Any]]:
    return database.execute("select * from platform_events order by event_name").fetchall()


def test_everybody_writes_of_himself_and_an_operator_of_all(people: Open, database: Connection) -> None:
    """If this failed, a customer's browser could write into another's books."""
    sent = {"event_name": "report_opened", "organization_id": "acme", "session_id": "s-1", "value": 1.25}
    for reader, status in (
        ("user", 200),
        ("organization admin", 200),
        ("admin of another", 403),
        ("stranger", 403),
    ):
        answer = people(reader).post("/api/v1/events", json={**sent, "event_name": reader})
        assert answer.status_code == status, answer.text
    for_another = people("user").post("/api/v1/events", json={**sent, "user_id": BOB})
    assert (for_another.status_code, for_another.json()["refused"][0]["reason"]) == (403, "another_user")
    of_operator = people("operator").post(
        "/api/v1/events", json={**sent, "event_name": "z", "user_id": BOB}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert of_operator.json()["recorded"] == 1
    assert [(row["event_name"], row["user_id"], row["organization_id"], row["value"]) for row in stored(database)] == [
        ("organization admin", ADMIN, "acme", Decimal("1.25")),
        ("user", ALICE, "acme", Decimal("1.25")),
        ("z", BOB, "acme", Decimal("1.25")),
    ]
    refused = database.execute(
        "select distinct actor, organization_id from admin_audit where operation = 'refused' and table_name = 'events'"
    ).fetchall()
    assert {(line["actor"], line["organization_id"]) for line in refused} == {
        (CAROL, "acme"),
        (STRANGER, "acme"),
        (ALICE, "acme"),
    }


def test_good_events_are_recorded_and_bad_ones_refused_with_their_reason(people: Open, database: Connection) -> None:
    """If this failed, one bad event would take a whole batch along, or go without a word."""
    good = {
        "id": call_id(1),
        "event_name": "a",
        "source": "/reports?token=secret",
        "properties": {"page": "/x?q=words"},
    }
    batch: list[Any] = [
        good,
        {"event_name": ""},
        {"event_name": "b", "properties": {"comment": "words that somebody wrote", "status": 503}},
        {"event_name": "c", "value": "much"},
        {"event_name": "c", "colour": "red"},
        "no event",
        {"event_name": "c", "ip_address": "192.0.2.1"},
        {"event_name": "c", "organization_id": "other"},
        {"event_name": "c", "occurred_at": "2020-01-01T00:00:00Z"},
        {"event_name": "c", "category": "business"},
    ]
    answer = people("user").post("/api/v1/events", json=batch).json()
    assert (answer["recorded"], answer["duplicates"], len(answer["ids"]), answer["left_out"]) == (2, 0, 2, ["comment"])
    assert [(one["place"], one["reason"]) for one in answer["refused"]] == [
        (1, "invalid"), (3, "invalid"), (4, "invalid"), (5, "invalid"), (6, "invalid"),
        (7, "no_member"), (8, "out_of_time"), (9, "not_an_admin"),
    ]  # fmt: skip
    assert "colour" in answer["refused"][2]["message"]
    first, second = stored(database)
    assert (str(first["id"]), first["source"], first["properties"]) == (call_id(1), "/reports", {"page": "/x"})
    assert (second["properties"], second["ip_hash"]) == ({"status": 503, "notes": ["properties_left_out"]}, None)
    assert (first["user_id"], first["organization_id"]) == (ALICE, "acme")  # the only one that she is in
    again = people("user").post("/api/v1/events", json=[good, good]).json()
    assert (again["recorded"], again["duplicates"], again["ids"]) == (0, 2, [call_id(1)] * 2)
    assert len(stored(database)) == 2


def test_what_is_no_event_at_all_is_a_problem(people: Open, database: Connection) -> None:
    browser = people("user")
    for body, status in (
        ("{", 422), ("[]", 422), ("7", 422), ("{}", 422), (json.dumps([{"event_name": "a"}] * 101), 422),
        (json.dumps({"event_name": "a", "source": "x" * (1 << 20)}), 413), ("[" * 5000, 422),
        ('{"event_name": "a", "value": 1e400}', 422), ('{"event_name": "a", "value": NaN}', 422),
    ):  # fmt: skip
        answer = browser.post("/api/v1/events", content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), body[:40]
    assert stored(database) == []


def test_who_may_not_send(people: Open, make: Make, events_store: PostgresStore, issuer: Issuer) -> None:
    """If this failed, another site could let a visitor's browser write, or anybody without a token."""
    app = make(over=events_store)
    event = {"event_name": "a"}
    assert client(app).post("/api/v1/events", json=event).status_code == 401
    assert client(app).post("/api/v1/events", json=event, headers=bearer(MONITORING)).status_code == 403
    assert people("operator").post("/api/v1/events", json=event).status_code == 403  # from no page of ours
    token = issuer.token(sub=ALICE)
    for site, status in (("same-origin", 200), ("cross-site", 403)):
        of_page = client(app, cookies={"vital_access": token}, headers={"Sec-Fetch-Site": site})
        assert of_page.post("/api/v1/events", json=event).status_code == status
    few = client(make(over=events_store, user_requests=2, burst_requests=1), headers=bearer(token))
    assert [few.post("/api/v1/events", json=event).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_pages_of_named_origins_may_send_with_a_token_and_nothing_else(
    make: Make, events_store: PostgresStore, issuer: Issuer, database: Connection
) -> None:
    """If this failed, an application on another address could not send events, or any site could read what they answer."""
    browser = client(make(over=events_store, event_origins=frozenset({"https://app.example.com"})))
    token = bearer(issuer.token(sub=ALICE))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, allowed in (
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com.evil.com", None),
        ("https://example.com", None),
        ("null", None),
    ):
        preflight = browser.options("/api/v1/events", headers={"Origin": origin, **asks})
        assert preflight.status_code == 204
        assert preflight.headers.get("access-control-allow-methods") == (allowed and "POST")
        sent = browser.post("/api/v1/events", json={"event_name": "a"}, headers={"Origin": origin, **token})
        refused = browser.post("/api/v1/events", json={"event_name": "a"}, headers={"Origin": origin})
        with_cookie = client(browser.app, cookies={"vital_access": issuer.token(sub=ALICE)}).post(  # type: ignore[arg-type]
            "/api/v1/events", json={"event_name": "b"}, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        )
        assert (sent.status_code, refused.status_code, with_cookie.status_code) == (200, 401, 403)
        for answer in (preflight, sent, refused, with_cookie):
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in answer.headers
            assert "Origin" in answer.headers["vary"]
        read = browser.get("/api/v1/events", headers={"Origin": origin, **token})
        assert read.status_code == 200
        assert "access-control-allow-origin" not in read.headers
    assert {row["event_name"] for row in stored(database)} == {"a"}


@pytest.mark.parametrize(
    "given", ["app.example.com", "https://app.example.com/path", "*", "https://a.com,ftp://b.com", "https://"]
)
def test_an_origin_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="VITAL_EVENT_ORIGINS"):
        WebSettings.from_env({"VITAL_EVENT_ORIGINS": given})


def test_origins_are_read_as_browsers_write_them() -> None:
    read = WebSettings.from_env(
        {"VITAL_EVENT_ORIGINS": "https://App.example.com/, http://localhost:3000,https://b.com:443"}
    )
    assert read.event_origins == {"https://app.example.com", "http://localhost:3000", "https://b.com"}


def test_of_an_address_the_keyed_hash_is_kept_where_that_is_told(
    make: Make, events_store: PostgresStore, issuer: Issuer, database: Connection
) -> None:
    """If this failed, addresses of people would be stored, or be taken where nobody asked for it."""
    headers = bearer(issuer.token(sub=ALICE))
    choices: tuple[dict[str, Any], ...] = (
        {"event_addresses": True},
        {"hash_key": SecretStr(KEY)},
        {"event_addresses": True, "hash_key": SecretStr(KEY)},
    )
    for number, settings in enumerate(choices):
        app = make(over=events_store, **settings)
        browser = client(app, headers=headers, client=("192.0.2.7", 4711))
        assert browser.post("/api/v1/events", json={"event_name": f"e-{number}"}).status_code == 200
    assert [row["ip_hash"] for row in stored(database)] == [None, None, address_hash("192.0.2.7", KEY.encode())]


@pytest.mark.parametrize("reader", READERS)
def test_events_and_costs_are_listed_once_for_those_whom_they_concern(
    people: Open, database: Connection, reader: str
) -> None:
    """If this failed, a program that reads all of them would miss some, or read another tenant's."""
    browser, now = people(reader), datetime.now(UTC)
    owners = [("acme", ALICE), ("acme", BOB), ("other", CAROL), (None, ALICE), (None, None)]
    makers: tuple[tuple[str, Callable[..., Row]], ...] = (("platform_events", an_event), ("tenant_cost_events", a_cost))
    for table, make_row in makers:
        rows = [
            make_row(
                number, organization_id=organization, user_id=user,
                occurred_at=(now - timedelta(minutes=number)).isoformat(),
                **({"cost_type": "other"} if table == "tenant_cost_events" and number % 2 else {}),
            )
            for number, (organization, user) in enumerate(owners * 5, 1)
        ]  # fmt: skip
        assert send(database, table, *rows)["inserted"] == 25
        name = {"platform_events": "events", "tenant_cost_events": "costs"}[table]
        mine = [row["id"] for row in rows if READERS[reader].sees(row)]
        found = [one for page in pages(browser, f"/api/v1/{name}?limit=7") for one in page]
        assert [one["id"] for one in found] == mine
        file = list(csv.DictReader(browser.get(f"/api/v1/{name}.csv").text.splitlines()))
        assert [one["id"] for one in file] == mine
        of_acme = get(browser, f"/api/v1/{name}?limit=1000&organization=acme&user={ALICE}&user=")
        assert {one["id"] for one in of_acme} == {
            row["id"]
            for row in rows
            if row["id"] in mine and row["organization_id"] == "acme" and row["user_id"] == ALICE
        }
    unpriced = get(browser, "/api/v1/costs?unpriced=true&cost_type=other")
    assert all(one["cost_usd"] is None and not one["priced"] for one in unpriced)
    priced = get(browser, "/api/v1/costs?cost_type=storage&unit=gb_month")
    assert all(Decimal(one["cost_usd"]) == Decimal("0.23") for one in priced)
    assert len(unpriced) + len(priced) == len(mine)


def test_a_filter_that_there_is_not_is_refused(people: Open) -> None:
    browser = people("user")
    for query in (
        "events?model=x", "events?categry=business", "events?after=x", "events?failed=perhaps", "costs?category=business",
        "costs?limit=0", "costs.csv?session=x", "events?event=%00", f"events?event={'x' * 513}",
    ):  # fmt: skip
        assert browser.get(f"/api/v1/{query}").status_code == 422, query
