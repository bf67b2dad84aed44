"""The operator's link: works once, and opens what the store itself may read, to one browser."""

from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI

from tests.integration.web.conftest import Issuer, Make, bearer, client
from vital_tracking.web.operator import OperatorLink

STATUS = "/api/v1/status"


@pytest.fixture
def link() -> OperatorLink:
    return OperatorLink()


@pytest.fixture
def app(make: Make, link: OperatorLink) -> FastAPI:
    return make(operator=link, jwks_url=None)


def test_the_link_opens_one_session_once(app: FastAPI, link: OperatorLink, caplog: pytest.LogCaptureFixture) -> None:
    """If this failed, a link that stays in a browser's history would open the books to whoever finds it."""
    browser = client(app)
    assert browser.get(STATUS).status_code == 401
    with caplog.at_level(logging.DEBUG, logger="vital_tracking"):
        answer = browser.get(f"/open?token={link.token}")
    assert (answer.status_code, answer.headers["location"], answer.headers["cache-control"]) == (303, "/", "no-store")
    [line] = [line for line in answer.headers.get_list("set-cookie") if "Max-Age=0" not in line]
    assert line.startswith("vital_operator_http=")
    assert line.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert link.token not in line
    assert browser.get(STATUS).json()["kind"] == "operator"
    again = client(app).get(f"/open?token={link.token}")
    assert again.status_code == 403
    assert "set-cookie" not in again.headers
    assert link.token not in again.text + caplog.text
    assert browser.get(STATUS).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "%00", "a" * 129, "None"])
def test_another_link_opens_nothing(app: FastAPI, link: OperatorLink, token: str) -> None:
    """If this failed, the link could be guessed; or one wrong try would use it up."""
    assert client(app).get("/open", params={"token": token}).status_code in (403, 422)
    assert client(app).get(f"/open?token={link.token}").status_code == 303


def test_a_session_made_up_is_nobodys(app: FastAPI, link: OperatorLink) -> None:
    """If this failed, a cookie could be written by hand before the link was used."""
    for cookie in ("", "x", link.token, "None"):
        assert client(app, cookies={"vital_operator_http": cookie}).get(STATUS).status_code == 401


def test_the_operators_session_ends(app: FastAPI, link: OperatorLink) -> None:
    """If this failed, a cookie that somebody copied would go on working after the sign-out."""
    browser = client(app)
    browser.get(f"/open?token={link.token}")
    secret = browser.cookies["vital_operator_http"]
    assert browser.post("/sign-out", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.get(STATUS).status_code == 200
    assert browser.post("/sign-out", headers={"Origin": "http://testserver"}).status_code == 303
    assert client(app, cookies={"vital_operator_http": secret}).get(STATUS).status_code == 401
    assert client(app).get(f"/open?token={link.token}").status_code == 403


def test_two_dashboards_of_a_machine_keep_their_sessions(make: Make) -> None:
    """If this failed, to open one would sign the operator out of the other."""
    cookies = set()
    for port in (8321, 8322):
        link = OperatorLink()
        browser = client(make(operator=link), base_url=f"http://127.0.0.1:{port}")
        browser.get(f"/open?token={link.token}")
        cookies |= set(browser.cookies)
    assert cookies == {"vital_operator_8321", "vital_operator_8322"}


def test_a_token_counts_more_than_the_operators_cookie(make: Make, issuer: Issuer, link: OperatorLink) -> None:
    """If this failed, a program that tests what a user may see would see everything."""
    browser = client(make(operator=link))
    browser.get(f"/open?token={link.token}")
    assert browser.get(STATUS, headers=bearer(issuer.token())).json()["kind"] == "user"
    assert browser.get(STATUS, headers=bearer("x")).status_code == 401


def test_without_a_link_there_is_none(make: Make) -> None:
    """If this failed, a team's own application would have a back door."""
    app = make()
    assert client(app).get("/open", params={"token": ""}).status_code == 403
    assert client(app, cookies={"vital_operator_http": ""}).get(STATUS).status_code == 401
