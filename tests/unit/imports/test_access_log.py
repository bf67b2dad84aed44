"""What is read of a line of an access log, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vital_tracking.imports.access_log import BadLine, Request, parser

read = parser("auto")

NGINX = (
    '192.0.2.7 - u-1 [30/Nov/2026:13:37:05 +0100] "GET /api/search?q=secret#part HTTP/1.1" 200 512 "https://x/?token=1" '
    '"Mozilla/5.0 (\\"X\\")" 0.123'
)
FULL = {
    "timestamp": "2026-11-30T12:37:05.250Z",
    "user_id": "u-1",
    "method": "get",
    "path": "/api/search?q=secret",
    "status": 200,
    "duration_ms": 12.5,
    "size": 512,
    "ip_address": "2001:db8::1",
    "user_agent": "curl/8",
    "organization_id": "acme",
    "session_id": 7,
    "referrer": "https://x/?token=1",
}


def nginx(**changes: Any) -> Request:
    facts = {
        "address": "192.0.2.7", "user": "-", "request": "GET /a HTTP/1.1", "status": 200, "size": 1, "rest": ' "-" "curl" 0.001',
        **changes,
    }  # fmt: skip
    line = '{address} - {user} [30/Nov/2026:13:37:05 +0000] "{request}" {status} {size}{rest}'.format(**facts)
    return read(line.encode())


def as_json(**changes: Any) -> Request:
    return read(json.dumps({**FULL, **changes}).encode())


def test_a_line_of_nginx_is_a_request() -> None:
    assert read(NGINX.encode()) == Request(
        datetime(2026, 11, 30, 13, 37, 5, tzinfo=timezone(timedelta(hours=1))),
        *("/api/search", "GET", 200, 123.0, 512, "u-1", None, None, "192.0.2.7", 'Mozilla/5.0 (\\"X\\")'),
    )


def test_a_line_of_json_is_a_request() -> None:
    assert as_json() == Request(
        datetime(2026, 11, 30, 12, 37, 5, 250_000, tzinfo=UTC),
        *("/api/search", "GET", 200, 12.5, 512, "u-1", "7", "acme", "2001:db8::1", "curl/8"),
    )


@pytest.mark.parametrize(
    ("rest", "duration"),
    [
        ("", None),
        (' "-" "curl"', None),
        (' "-" "curl" 1.5', 1500.0),
        (' "-" "curl" "0.25"', 250.0),
        (' "-" "curl" 0.001 0.002 upstream', 1.0),
        (' "-" "curl" -', None),
        (' "-" "curl" rt=0.5', None),
        (" 0.04", 40.0),
    ],
)
def test_the_time_of_a_request_stands_at_the_end_where_it_does(rest: str, duration: float | None) -> None:
    assert nginx(rest=rest).duration_ms == duration


@pytest.mark.parametrize(
    ("request_", "method", "path"),
    [
        ("POST /a%20b?c=d HTTP/2.0", "POST", "/a%20b"),
        ("GET http://elsewhere.example/a?b HTTP/1.1", "GET", "/a"),
        ("GET /", "GET", "/"),
        ("GET ?q=1 HTTP/1.1", "GET", None),
        ("GET /users/ann@example.com/reset/f3Xq9_aZ81kLmN0p HTTP/1.1", "GET", "/users/{id}/reset/{id}"),
        ("-", None, None),
        ("", None, None),
        (r"\x16\x03\x01", None, None),
        (r"\x16 \x03\x01", None, None),
        (r"GET /\"quoted\" HTTP/1.1", "GET", '/\\"quoted\\"'),
    ],
)
def test_a_path_has_no_query_and_what_is_no_http_has_no_path(
    request_: str, method: str | None, path: str | None
) -> None:
    """If this failed, what somebody searched for, or a token of a link, would be stored."""
    found = nginx(request=request_)
    assert (found.method, found.path) == (method, path)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("2026-11-30T13:37:05+01:00", 1796042225.0),
        ("2026-11-30 12:37:05", 1796042225.0),
        (1796042225, 1796042225.0),
        (1796042225.5, 1796042225.5),
        (1796042225500, 1796042225.5),
    ],
)
def test_times_of_json_are_iso_or_since_1970(given: object, seconds: float) -> None:
    assert as_json(timestamp=given).time == datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "neither json nor nginx"),
        (b"{", "no json"),
        (b"{}", "timestamp"),
        (b'{"timestamp": "yesterday"}', "timestamp"),
        (b'{"timestamp": true}', "timestamp"),
        (b'{"timestamp": 1e300}', "timestamp"),
        (b'{"timestamp": "1969-12-31T23:59:59Z"}', "timestamp"),
        (b'{"timestamp": "0001-01-01T00:00:00+14:00"}', "timestamp"),
        (NGINX.replace("Nov", "Nev").encode(), "timestamp"),
        (NGINX.replace("30/Nov", "31/Nov").encode(), "timestamp"),
        (b"\xff\xfe\x00", "neither json nor nginx"),
        *(
            (json.dumps({**FULL, name: value}).encode(), name)
            for name, value in (
                ("path", 7),
                ("status", "ok"),
                ("status", 2000),
                ("status", 200.5),
                ("size", -1),
                ("size", 1.5),
                ("duration_ms", "12"),
                ("duration_ms", -1),
                ("method", "GET /secret"),
            )
        ),
        (json.dumps({**FULL, "user_id": {"name": "Ann"}}).encode(), "no text where a name belongs"),
    ],
)
def test_a_bad_line_says_why_and_nothing_of_what_it_holds(line: bytes, reason: str) -> None:
    with pytest.raises(BadLine) as caught:
        read(line)
    assert caught.value.reason == reason
    assert caught.value.__cause__ is None


def test_a_format_that_is_named_is_the_only_one() -> None:
    with pytest.raises(BadLine):
        parser("json")(NGINX.encode())
    with pytest.raises(BadLine):
        parser("nginx")(json.dumps(FULL).encode())


@given(st.binary(max_size=300) | st.sampled_from([NGINX.encode(), json.dumps(FULL).encode()]))
def test_any_bytes_are_a_request_or_a_bad_line(line: bytes) -> None:
    """If this failed, one line that nobody thought of would end an import."""
    for piece in (line, line[: len(line) // 2], line.replace(b"0", b"\x00")):
        try:
            found = read(piece)
        except BadLine:
            continue
        assert "\0" not in "".join(
            part for part in found if isinstance(part, str) and part in (found.path, found.user_id)
        )
