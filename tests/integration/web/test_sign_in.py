"""The way in and out against Supabase Auth itself: real people sign up, sign in, come back, and leave."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import Depends
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.integration.stores.test_supabase_access import token
from tests.integration.web.conftest import bearer, client
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.settings import Settings
from vital_tracking.stores.supabase import SupabaseStore
from vital_tracking.web import create_app
from vital_tracking.web.access import Asker
from vital_tracking.web.route import page_router
from vital_tracking.web.settings import WebSettings

pytestmark = pytest.mark.timeout(300)

PASSWORD = "secret-word-7391"
STATUS = "/api/v1/status"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def person(lite: SupabaseLite) -> dict[str, Any]:
    """Somebody who has signed up."""
    email = f"{uuid.uuid4().hex}@example.com"
    answer = httpx.post(
        f"{lite.url}/auth/v1/signup",
        json={"email": email, "password": PASSWORD},
        headers={"apikey": lite.publishable_key},
        trust_env=False,
    )
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return {"email": email, "id": found["user"]["id"], "access": found["access_token"]}


@pytest.fixture
def settings(lite: SupabaseLite) -> WebSettings:
    """As the environment of a project that signs with its shared secret."""
    return WebSettings.from_env(
        {
            "NEXT_PUBLIC_SUPABASE_URL": lite.url,
            "NEXT_PUBLIC_SUPABASE_ANON_KEY": lite.publishable_key,
            "SUPABASE_JWT_SECRET": lite.jwt_secret,
        },
        dotenv="absent.env",
    )


@pytest.fixture
def browser(lite: SupabaseLite, settings: WebSettings) -> Iterator[TestClient]:
    """A browser that has come from a page of ours."""
    own = Settings(supabase_url=lite.url, supabase_service_key=SecretStr(lite.service_key))
    with client(create_app(settings=own, web=settings), headers=SAME_SITE) as opened:
        yield opened


def sign_in(browser: TestClient, person: dict[str, Any], **changes: str) -> httpx.Response:
    """Fill the form in and send it."""
    form = {"email": person["email"], "password": PASSWORD, **changes}
    return browser.post("/sign-in", data=form)  # type: ignore[return-value]


def test_somebody_signs_in_looks_around_and_leaves(browser: TestClient, person: dict[str, Any]) -> None:
    """If this failed, nobody could use the pages."""
    assert browser.get(STATUS).status_code == 401
    answer = sign_in(browser, person, next="/users?days=30")
    assert (answer.status_code, answer.headers["location"]) == (303, "/users?days=30")
    cookies = answer.headers.get_list("set-cookie")
    set_to = [line for line in cookies if "Max-Age=0" not in line]
    assert {line.partition("=")[0].partition(".")[0] for line in set_to} == {"vital_access", "vital_refresh"}
    assert all("; HttpOnly; SameSite=Lax" in line and "Path=/" in line and "Secure" not in line for line in set_to)
    status = browser.get(STATUS).json()
    assert (status["signed_in_as"], status["kind"], status["organizations"]) == (person["email"], "user", [])
    out = browser.post("/sign-out")
    assert (out.status_code, out.headers["location"], out.headers["clear-site-data"]) == (303, "/sign-in", '"cache"')
    assert browser.get(STATUS).status_code == 401
    assert browser.cookies == {}


def test_cookies_go_over_https_only_where_the_page_does(
    lite: SupabaseLite, settings: WebSettings, person: dict[str, Any]
) -> None:
    """If this failed, a session could be read from the line; or nobody could sign in behind a proxy."""
    store = SupabaseStore(lite.url, lite.service_key)
    behind = settings.model_copy(update={"public_url": "https://pages.example"})
    for app, base in (
        (create_app(store, web=settings), "https://pages.example"),
        (create_app(store, web=behind), "http://inner"),
    ):
        answer = sign_in(client(app, base_url=base, headers=SAME_SITE), person)
        assert answer.status_code == 303
        assert all("; Secure" in line for line in answer.headers.get_list("set-cookie"))
    store.close()


def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(
    browser: TestClient, person: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, the form would tell who has an account; or a log would hold passwords."""
    with caplog.at_level(logging.DEBUG):
        wrong = sign_in(browser, person, password="wrong-word-1")
        unknown = sign_in(browser, person, email=f"{uuid.uuid4().hex}@example.com")
        empty = sign_in(browser, person, password="")
        odd = sign_in(browser, person, email="' or true --")
    texts = {re.sub(r'value="[^"]*"', "", answer.text) for answer in (wrong, unknown, empty, odd)}
    assert len(texts) == 1
    assert {answer.status_code for answer in (wrong, unknown, empty, odd)} == {401}
    assert not [line for answer in (wrong, unknown) for line in answer.headers.get_list("set-cookie")]
    assert "do not belong together" in wrong.text
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("vital"))
    for secret in (PASSWORD, "wrong-word-1", person["email"], person["access"]):
        assert secret not in said
        assert secret not in wrong.text.replace(f'value="{person["email"]}"', "")


def test_failed_sign_ins_are_counted(browser: TestClient, person: dict[str, Any]) -> None:
    """If this failed, somebody could try passwords all night."""
    for _ in range(10):
        assert sign_in(browser, person, password="wrong-word").status_code == 401
    answer = sign_in(browser, person)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert sign_in(browser, person, email=person["email"].upper(), password="x").status_code == 429


def test_an_expired_session_is_renewed_unseen(lite: SupabaseLite, browser: TestClient, person: dict[str, Any]) -> None:
    """If this failed, people would sign in every hour, or requests sent together would sign them out."""
    sign_in(browser, person)
    refresh = browser.cookies["vital_refresh"]
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    old = token(lite, sub=person["id"], exp=long_ago, iat=long_ago, iss=f"{lite.url}/auth/v1")
    browser.cookies.clear()
    together = {"Cookie": f"vital_access={old}; vital_refresh={refresh}", **SAME_SITE}
    answers = [browser.get(STATUS, headers=together) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    renewed = {line.partition(";")[0] for line in answers[0].headers.get_list("set-cookie") if "Max-Age=0" not in line}
    assert len(renewed) >= 2
    assert f"vital_refresh={refresh}" not in renewed
    assert answers[1].headers.get_list("set-cookie") == answers[0].headers.get_list("set-cookie")


def test_a_session_that_cannot_be_renewed_leads_to_the_sign_in(
    lite: SupabaseLite, browser: TestClient, person: dict[str, Any]
) -> None:
    """If this failed, an expired session would look like an empty page."""
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    old = token(lite, sub=person["id"], exp=long_ago, iat=long_ago, iss=f"{lite.url}/auth/v1")
    for cookie in (f"vital_access={old}; vital_refresh=made-up", f"vital_access={old}", "vital_refresh=made-up"):
        answer = browser.get(STATUS, headers={"Cookie": cookie})
        assert answer.status_code == 401
        assert "WWW-Authenticate" in answer.headers
    gone = browser.get(STATUS, headers={"Cookie": f"vital_access={old}; vital_refresh=made-up"})
    assert all("Max-Age=0" in line for line in gone.headers.get_list("set-cookie"))
    assert len(gone.headers.get_list("set-cookie")) >= 2
    form = browser.get("/sign-in?next=/users")
    assert 'value="/users"' in form.text
    assert form.headers["cache-control"] == "no-store"


def test_a_token_is_taken_by_the_database_as_by_us(
    lite: SupabaseLite, browser: TestClient, person: dict[str, Any]
) -> None:
    """If this failed, a program with a good token would be told that it has none."""
    answer = browser.get(STATUS, headers=bearer(person["access"]))
    assert (answer.status_code, answer.json()["signed_in_as"]) == (200, person["email"])
    elsewhere = token(lite, sub=person["id"], iss="https://other.example/auth/v1")
    assert browser.get(STATUS, headers=bearer(elsewhere)).status_code == 401
    forged = token(lite, "another secret of more than thirty-two bytes", sub=person["id"], iss=f"{lite.url}/auth/v1")
    assert browser.get(STATUS, headers=bearer(forged)).status_code == 401
    assert browser.get(STATUS, headers=bearer(lite.publishable_key)).status_code == 401
    assert browser.get(STATUS, headers=bearer(lite.service_key)).status_code == 401


OTHER_SITES = [
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/%09/evil.example/..//evil",
    "/\n/evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "/..//evil.example",
    "http:///evil.example",
    "/x\r\nSet-Cookie: a=b",
    "@evil.example",
    ".evil.example",
    "",
    "users",
    "/sign-in?next=/sign-in",
    "/sign-in",
]


@pytest.mark.parametrize("target", OTHER_SITES)
def test_nobody_is_sent_to_another_site(browser: TestClient, person: dict[str, Any], target: str) -> None:
    """If this failed, a link to our sign-in would end on a page that looks like it."""
    answer = sign_in(browser, person, next=target)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "evil" not in str(answer.headers)


def test_a_place_of_ours_is_kept(browser: TestClient, person: dict[str, Any]) -> None:
    """If this failed, everybody would land on the first page, whatever link they came by."""
    for target in ("/", "/users/u%2F1?days=30&q=a+b", "/calls?search=%2F%2Fx"):
        assert sign_in(browser, person, next=target).headers["location"] == target


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "http://testserver:81"},
        {"Origin": "https://testserver"},
        {},
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_no_other_site_signs_anybody_in_or_out(
    browser: TestClient, person: dict[str, Any], path: str, headers: dict[str, str]
) -> None:
    """If this failed, a page could sign its visitors in as somebody else, who then reads what they do."""
    del browser.headers["Sec-Fetch-Site"]
    answer = browser.post(path, data={"email": person["email"], "password": PASSWORD}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_an_older_browser_says_where_it_comes_from(browser: TestClient, person: dict[str, Any]) -> None:
    """If this failed, browsers without Sec-Fetch-Site could not sign in."""
    del browser.headers["Sec-Fetch-Site"]
    form = {"email": person["email"], "password": PASSWORD}
    assert browser.post("/sign-in", data=form, headers={"Origin": "http://testserver"}).status_code == 303


def test_an_auth_server_that_does_not_answer_is_no_wrong_password(lite: SupabaseLite, settings: WebSettings) -> None:
    """If this failed, an outage would count as failed sign-ins, and lock people out."""
    away = settings.model_copy(update={"supabase_url": "http://127.0.0.1:9"})
    store = SupabaseStore(lite.url, lite.service_key)
    browser = client(create_app(store, web=away), headers=SAME_SITE)
    for _ in range(12):
        answer = browser.post("/sign-in", data={"email": "a@example.com", "password": "secret-word"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "secret-word" not in answer.text
    store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_secret": SecretStr("another secret of more than thirty-two bytes")},
        {"jwt_secret": None},
        {"jwt_audience": "us"},
    ],
)
def test_settings_that_do_not_fit_the_project_are_no_wrong_password(
    lite: SupabaseLite,
    settings: WebSettings,
    person: dict[str, Any],
    changes: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If this failed, everybody would look for the fault in their passwords."""
    store = SupabaseStore(lite.url, lite.service_key)
    browser = client(create_app(store, web=settings.model_copy(update=changes)), headers=SAME_SITE)
    with caplog.at_level(logging.ERROR):
        answer = sign_in(browser, person)
    assert answer.status_code == 502
    assert "set-cookie" not in answer.headers
    assert "SUPABASE_JWT_SECRET" in caplog.text
    assert PASSWORD not in caplog.text + answer.text
    store.close()


def test_the_way_back_is_kept_over_the_sign_in(browser: TestClient) -> None:
    """If this failed, whoever follows a link from a mail would have to look for the page again."""
    pages = page_router()

    @pages.get("/users/{user:path}")
    def page(user: str, who: Asker) -> str:
        return f"{user} for {who.name}"

    app: Any = browser.app
    app.include_router(pages, dependencies=[Depends(app.state.vital.attach)])
    answer = browser.get("/users/a b%2Fc?days=30&next=https://evil.example")
    assert answer.status_code == 303
    place = urlsplit(answer.headers["location"])
    assert (place.netloc, place.path) == ("", "/sign-in")
    assert parse_qs(place.query) == {"next": ["/users/a%20b%2Fc?days=30&next=https://evil.example"]}
