"""What every answer is like: errors that say what to do and no more, headers, exact numbers, 304, gzip, streams."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from tests.integration.web.conftest import Issuer, Make, bearer, client
from vital_tracking.errors import StoreDenied, StoreNotReady, StoreRejected, StoreTimeout, StoreUnavailable
from vital_tracking.web.access import Asker
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import Exact, ExactJSON, exact_json
from vital_tracking.web.route import api_router, page_router

SECRET = "secret-word-7391"

ERRORS: dict[str, tuple[Exception, int, str | None]] = {
    "fault": (ZeroDivisionError(SECRET), 500, None),
    "caused": (RuntimeError(SECRET), 500, None),
    "away": (StoreUnavailable(f"The database is unavailable ({SECRET})."), 503, "5"),
    "slow": (StoreTimeout("The database stopped the statement."), 503, "30"),
    "unready": (StoreNotReady(f"PostgreSQL at {SECRET}:5432/db refuses the user."), 503, "60"),
    "refused": (StoreRejected(SECRET, sqlstate="22023"), 422, None),
    "no admin": (StoreRejected(SECRET, sqlstate="42501"), 403, None),
    "taken": (StoreRejected(SECRET, sqlstate="23505"), 409, None),
    "absent": (StoreRejected(SECRET, sqlstate="P0002"), 404, None),
    "denied": (StoreDenied(SECRET, sqlstate="42501"), 403, None),
    "token": (StoreDenied(SECRET, sqlstate="PGRST303"), 401, None),
    "ours": (Problem(409, "conflict", "Somebody was faster", hint="Look again."), 409, None),
}

routes, pages = api_router(), page_router()


class Body(BaseModel):
    """What is posted."""

    limit: Exact
    name: str


@routes.get("/api/v1/broken/{kind}")
@pages.get("/broken/{kind}")
def broken(kind: str) -> Response:
    """Raises."""
    error = ERRORS[kind][0]
    if kind == "caused":
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise error from cause
    raise error


@routes.post("/api/v1/body")
def body(given_body: Body, days: Annotated[int, Query(ge=1, le=90)] = 7) -> Response:
    """Takes a body."""
    return ExactJSON({"limit": given_body.limit, "days": days})


@routes.get("/api/v1/rows")
def rows() -> Response:
    """A large answer."""
    return ExactJSON({"rows": [{"cost": Decimal("0.1") / 3, "at": datetime(2026, 1, 2, tzinfo=UTC)}] * 200}, max_age=30)


@routes.get("/api/v1/stream")
def stream(breaks: bool = False) -> Response:
    """A long answer."""

    def lines() -> Iterator[str]:
        for number in range(1000):
            yield f"{number},0.000000000000001\r\n"
            if breaks and number == 500:
                raise RuntimeError(SECRET)

    return StreamingResponse(lines(), media_type="text/csv")


@pages.get("/named")
def named(who: Asker) -> Response:
    """A page for somebody."""
    return Response(f"<p>{who.name}</p>", media_type="text/html")


@pytest.fixture
def app(make: Make) -> FastAPI:
    return make(routes, pages)


@pytest.fixture
def browser(app: FastAPI) -> TestClient:
    return client(app)


def secured(answer: Any) -> None:
    """All headers that keep a page from being framed, sniffed and abused."""
    policy = answer.headers["content-security-policy"]
    for directive in ("default-src 'none'", "frame-ancestors 'self'", "base-uri 'none'", "form-action 'self'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "permissions-policy" in answer.headers


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_says_what_to_do_and_nothing_of_our_insides(
    browser: TestClient, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """If this failed, a fault would show a stack trace, a host or a token to whoever finds it."""
    error, status, retry = ERRORS[kind]
    with caplog.at_level(logging.DEBUG):
        answer = browser.get(f"/api/v1/broken/{kind}")
        page = browser.get(f"/broken/{kind}", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers.get("retry-after") == retry
    problem = answer.json()
    assert problem["status"] == status
    assert set(problem) - {"instance"} == {"type", "title", "status", "detail", "hint"}
    assert re.fullmatch(r"urn:vital-tracking:problem:[a-z-]+", problem["type"])
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert problem["title"] in page.text
    for said in (answer.text, page.text, str(answer.headers), str(page.headers)):
        assert SECRET not in said
        assert "Traceback" not in said
        assert ".py" not in said
        assert type(error).__name__ not in said
    for one in (answer, page):
        secured(one)
        assert one.headers["cache-control"] == "no-store"
    logged = "\n".join(
        f"{record.getMessage()} {record.exc_text or ''} {record.exc_info or ''}" for record in caplog.records
    )
    if not isinstance(error, (StoreUnavailable, StoreNotReady)):
        assert SECRET not in logged
    if status == 500:
        assert type(error).__name__ in logged
        assert "GET /api/v1/broken/{kind}" in logged
        assert problem["instance"].removeprefix("urn:uuid:") in logged


INVALID: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/api/v1/unknown", {}),
    ("GET", "/nothing", {}),
    ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}),
    ("GET", "/static/x/../../app.py", {}),
    ("GET", "/static/x/%2e%2e%2fapp.py", {}),
    ("GET", "/static/x/..%5capp.py", {}),
    ("GET", "/static/x/", {}),
    ("GET", "/static//etc/passwd", {}),
    ("DELETE", "/api/v1/rows", {}),
    ("TRACE", "/api/v1/rows", {}),
    ("POST", "/api/v1/body?days=91", {"json": {"limit": 1, "name": "x"}}),
    ("POST", "/api/v1/body?days=x", {"json": {"limit": 1, "name": "x"}}),
    ("POST", "/api/v1/body", {"json": {"limit": SECRET, "name": "x"}}),
    ("POST", "/api/v1/body", {"json": [SECRET]}),
    ("POST", "/api/v1/body", {"content": b"{" + SECRET.encode(), "headers": {"content-type": "application/json"}}),
    ("POST", "/api/v1/body", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), INVALID)
def test_whatever_is_wrong_with_a_request_is_a_problem(
    browser: TestClient, method: str, path: str, more: dict[str, Any]
) -> None:
    """If this failed, a program would have to read a page to know what it has done wrong."""
    answer = browser.request(method, path, **more)
    assert answer.status_code in (404, 405, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "hint"} <= set(problem)
    assert SECRET not in answer.text
    secured(answer)
    if answer.status_code == 405:
        assert answer.headers["allow"]
    if answer.status_code == 422:
        assert problem["errors"][0].keys() == {"in", "field", "message"}


def test_a_body_larger_than_any_of_ours_is_not_read(browser: TestClient) -> None:
    """If this failed, whoever is not even signed in could fill the server's memory."""
    large = b"x" * (1 << 21)

    def in_pieces() -> Iterator[bytes]:
        yield from (large[:65536] for _ in range(32))

    form = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    for path in ("/api/v1/body", "/sign-in"):
        for content in (large, in_pieces()):
            answer = browser.post(path, content=content, headers=form)
            assert (answer.status_code, "413" in answer.text or "large" in answer.text.lower()) == (413, True)


def test_people_get_a_page_for_an_unknown_address(browser: TestClient) -> None:
    """If this failed, a mistyped address would show JSON."""
    answer = browser.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    secured(answer)
    assert browser.get("/api/nowhere", headers={"Accept": "text/html"}).headers["content-type"].endswith("problem+json")


def test_what_a_user_calls_himself_is_no_markup(browser: TestClient, app: FastAPI) -> None:
    """If this failed, a name could be a script in an operator's page."""
    answer = browser.get("/sign-in", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in answer.text
    assert "<script>" not in browser.get("/<script>alert(1)</script>", headers={"Accept": "text/html"}).text


def test_headers_cannot_be_written_from_outside(browser: TestClient, issuer: Issuer) -> None:
    """If this failed, a link could set cookies, or answer in our name."""
    for path in ("/named%0d%0aSet-Cookie:%20a=b", "/sign-in?next=/%0d%0aSet-Cookie:%20a=b", "/open?token=%0d%0aX:%20y"):
        answer = browser.get(path, headers=bearer(issuer.token()))
        assert "a=b" not in str(answer.headers.get_list("set-cookie"))
        assert "x" not in answer.headers
    answer = browser.get("/named", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    assert "evil" not in answer.headers.get("location", "") + answer.text


def test_numbers_keep_all_their_digits() -> None:
    """If this failed, an invoice and the page would differ."""
    content = {
        "exact": Decimal("123456789.123456789012345678901234567890"),
        "small": Decimal("1E-30"),
        "zero": Decimal("0E-10"),
        "large": Decimal("1E+20"),
        "none": Decimal("NaN"),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "names": frozenset({"b", "a"}),
        1: Body(limit=Decimal("0.10"), name="x"),
    }
    assert exact_json(content).decode() == (
        '{"exact":123456789.123456789012345678901234567890,"small":0.000000000000000000000000000001,'
        '"zero":0.0000000000,"large":100000000000000000000,"none":null,"at":"2026-01-02T03:04:05+00:00",'
        '"day":"2026-01-02","names":["a","b"],"1":{"limit":0.10,"name":"x"}}'
    )
    with pytest.raises(TypeError):
        exact_json({"x": object()})


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None, min_value=-(10**30), max_value=10**30))
def test_every_amount_comes_back_as_it_was(amount: Decimal) -> None:
    """If this failed, some amounts would be rounded."""
    assert json.loads(exact_json([amount]), parse_float=Decimal, parse_int=Decimal) == [amount]


def test_an_answer_that_has_not_changed_is_not_sent_again(browser: TestClient) -> None:
    """If this failed, a page that refreshes itself would load everything each minute."""
    first = browser.get("/api/v1/rows")
    tag = first.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{24}"', tag)
    assert first.headers["cache-control"] == "private, max-age=30"
    assert first.headers["vary"] == "Accept-Encoding, Authorization, Cookie"
    for wanted in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = browser.get("/api/v1/rows", headers={"If-None-Match": wanted})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["cache-control"] == "private, max-age=30"
        secured(again)
        assert "content-length" not in again.headers or again.headers["content-length"] == "0"
    for wanted in ('"other"', "", 'W/"other"'):
        assert browser.get("/api/v1/rows", headers={"If-None-Match": wanted}).status_code == 200


def test_gzip_is_for_who_takes_it(browser: TestClient) -> None:
    """If this failed, reports would take ten times as long on a phone, or be unreadable for a simple client."""
    plain = browser.get("/api/v1/rows", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for accepted in ("gzip", "br, GZIP;q=0.5", "gzip, deflate"):
        packed = browser.get("/api/v1/rows", headers={"Accept-Encoding": accepted})
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(plain.content) / 5
        assert packed.content == plain.content
        assert packed.headers["etag"] == plain.headers["etag"]
    assert "content-encoding" not in browser.get("/api/v1/rows", headers={"Accept-Encoding": "gzip;q=0"}).headers
    assert "content-encoding" not in browser.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers


def test_a_stream_is_compressed_and_breaks_off_without_a_word(
    browser: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, half an export would look whole, or its error would show data in the server's log."""
    whole = browser.get("/api/v1/stream", headers={"Accept-Encoding": "gzip"})
    assert whole.headers["content-encoding"] == "gzip"
    assert whole.text.count("\r\n") == 1000
    secured(whole)
    assert browser.get("/api/v1/stream", headers={"Accept-Encoding": "identity"}).text == whole.text
    with caplog.at_level(logging.DEBUG), pytest.raises(Exception) as broke:
        browser.get("/api/v1/stream?breaks=true")
    assert SECRET not in f"{broke.value!r} {broke.value.__cause__!r} {broke.value.__context__!r}"
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_static_files_are_kept_until_they_change(browser: TestClient) -> None:
    """If this failed, a browser would ask for each file again, or show an old one after an update."""
    page = browser.get("/sign-in").text
    [path] = re.findall(r'href="(/static/[^"]+\.css)"', page)
    file = browser.get(path)
    assert (file.status_code, file.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    secured(file)
    old = browser.get(re.sub(r"/static/\w+/", "/static/0000/", path))
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")
    packed = browser.get(path, headers={"Accept-Encoding": "gzip"})
    plain = browser.get(path, headers={"Accept-Encoding": "identity"})
    assert packed.content == plain.content
    assert gzip.decompress(gzip.compress(plain.content)) == packed.content


def test_the_description_of_the_api_has_an_answer_for_each_route(browser: TestClient) -> None:
    """If this failed, whoever writes a client would have to guess."""
    answer = browser.get("/api/v1/openapi.json")
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    assert {"/healthz", "/api/v1/healthz", "/api/v1/status"} <= set(described["paths"])
    status = described["paths"]["/api/v1/status"]["get"]
    assert {scheme for one in status["security"] for scheme in one} == {"token", "session"}
    for code in ("401", "403", "422", "429", "503"):
        example = status["responses"][code]["content"]["application/problem+json"]["example"]
        assert example["status"] == int(code)
        assert {"type", "title", "status", "detail", "hint"} <= set(example)
    assert not [path for path in described["paths"] if path.startswith(("/sign", "/open", "/static"))]
    secured(answer)
