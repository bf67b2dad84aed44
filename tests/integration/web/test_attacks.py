"""Attacks on every address that the router knows: each gets nothing, and nothing of ours stands in an answer or in the log.

Tricks with tokens are in test_tokens.py, other sites and claims in test_access.py, paths and headers in test_answers.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Issuer, Make, bearer, client
from tests.integration.web.history import READERS, Row
from tests.integration.web.ways_in import OPEN, addresses
from tests.sql.helpers import ADMIN, ALICE, connect
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.asked import FILTERED

INJECTED = (
    "' or true --", "'; drop table cost_alerts; --", "') or (select true) --", "\\'; select pg_sleep(9); --", "%s %1$I %L",
    '"', "../../../etc/passwd", "\r\nSet-Cookie: a=b", "{{7*7}}${7*7}", "*' or '*", "[null]", "\U0001f600\u202e",
)  # fmt: skip


@pytest.fixture(scope="module")
def owner_url(history_url: str) -> str:
    """The database, for its owner."""
    return history_url


@pytest.fixture
def app(history_url: str, make: Make) -> Iterator[FastAPI]:
    """The application, with limits that no test reaches."""
    store = PostgresStore(history_url)
    yield make(over=store, **dict.fromkeys(("user_requests", "organization_requests", "burst_requests"), 1_000_000))
    store.close()


def of(app: FastAPI, issuer: Issuer, reader: str) -> TestClient:
    return client(app, headers=bearer(issuer.token(sub=READERS[reader].subject)), raise_server_exceptions=False)


def counted(browser: TestClient, query: str) -> int:
    answer = browser.get(f"/api/v1/explore?days=30&measure=calls&{query}")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["total"]["calls"])


def quiet(answer: Any, logged: str) -> None:
    """Nothing of our insides is in an answer or the log."""
    for told in (answer.text, str(answer.headers), logged):
        for word in ("Traceback", "psycopg", "token_usage_logs", "vital_private", ".py", "eyJ"):
            assert word not in told or answer.headers["content-type"].startswith("text/html"), (word, answer.url)
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert "a=b" not in str(answer.headers.get_list("set-cookie"))


def test_sql_in_any_filter_name_or_path_is_a_name_and_no_sql(
    app: FastAPI, issuer: Issuer, owner_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, whoever may open a page could read, or change, everything."""
    browser = of(app, issuer, "user")
    mine = counted(browser, "")
    with caplog.at_level(logging.INFO):
        for number, text in enumerate(INJECTED):
            word = quote(text, safe="")
            for name in (*FILTERED, f"metadata.{word[:60]}"):
                if number < 1 or name in ("user", "seat", "metadata"):
                    assert counted(browser, f"{name}={word}") in (0, mine if text == "*" else 0), (name, text)
            for path in (
                f"calls?q={word}", f"calls?after={word}", f"calls/{word}", f"runs/{word}", f"runs?user={word}",
                f"runs?after={word}",
                f"explore?by={word}", f"explore?by=metadata.{word[:60]}", f"explore?measure={word}", f"explore?timezone={word}",
                f"explore?grain={word}", f"calls?metadata.{word[:60]}={word}", f"calls?since={word}",
            ):  # fmt: skip
                answer = browser.get(f"/api/v1/{path}")
                assert answer.status_code in (200, 404, 422), (path, answer.text)
                if answer.status_code == 200 and isinstance(answer.json(), list):
                    assert answer.json() == [], path
                quiet(answer, "\n".join(one.getMessage() for one in caplog.records if one.name == "vital_tracking"))
    assert counted(browser, "") == mine
    with connect(owner_url) as connection:
        assert connection.execute("select to_regclass('public.cost_alerts') is not null as kept").fetchone() == {
            "kept": True
        }


@pytest.mark.parametrize(
    "days",
    [
        "until=9999-12-31",
        "since=0001-01-01&until=0001-01-02",
        "since=9999-12-31&until=9999-12-31&timezone=America/New_York",
    ],
)
def test_days_at_the_ends_of_the_calendar_are_refused_and_break_nothing(
    app: FastAPI, issuer: Issuer, days: str
) -> None:
    """If this failed, an address would be answered with an error of the server, and alarm whoever watches for them."""
    browser = of(app, issuer, "user")
    for path in ("/", "/calls", "/runs", "/forecast", "/events", "/costs", "/api/v1/calls", "/api/v1/explore"):
        answer = browser.get(f"{path}?{days}")
        assert answer.status_code == 422, (path, answer.status_code)
        assert "1970-01-01 to 2999-12-31" in answer.text


def test_naming_another_organization_or_user_shows_nothing_of_theirs(
    app: FastAPI, issuer: Issuer, calls: list[Row]
) -> None:
    """If this failed, an admin could read the books of a neighbour by writing its name into the address."""
    for reader, query in (("organization admin", "organization=other"), ("stranger", f"user={ALICE}&organization=*")):
        browser = of(app, issuer, reader)
        theirs = [row for row in calls if not READERS[reader].sees(row)]
        ids = {str(row["id"]) for row in theirs}
        for path in addresses(app)[reader == "stranger" :: 2]:  # each address is tried by one of them
            answer = browser.get(f"{path}?days=30&{query}")
            assert answer.status_code in (200, 303, 403, 404, 422), (path, answer.text)
            assert not [one for one in ids if one in answer.text], (reader, path)


def test_nobody_changes_anything_by_reading(app: FastAPI, issuer: Issuer) -> None:
    """If this failed, a link, or fields that a form does not have, would change something."""
    browser = of(app, issuer, "user")
    more = {"role": "admin", "organization_id": "acme", "user_id": ADMIN, "is_admin": True, "claims": {"sub": ADMIN}}
    for path in addresses(app):
        if path.startswith(("/sign", "/open", "/theme")):
            continue
        for method in ("PATCH", "TRACE"):
            answer = browser.request(method, path, json=more)
            assert answer.status_code in (403, 404, 405, 422), (method, path, answer.text)
            quiet(answer, "")


def test_nobody_is_shown_anything_without_a_token(app: FastAPI) -> None:
    """If this failed, a page that was added would be open to all."""
    browser = client(app)
    for path in addresses(app):
        answer = browser.get(path)
        told = path in OPEN or path.startswith("/static")
        assert told or answer.status_code in (303, 401, 403, 404), (path, answer.status_code)
