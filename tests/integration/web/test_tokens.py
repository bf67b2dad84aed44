"""Who is who: good tokens are taken, and every trick with a token gets nothing."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from tests.integration.web.conftest import (
    ISSUER,
    MONITORING,
    SECRET,
    START,
    Clock,
    Issuer,
    Make,
    bearer,
    client,
    shared,
    usual,
)

STATUS = "/api/v1/status"


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _signed_with(issuer: Issuer, secret: bytes, kid: str) -> str:
    """HS256 with something that is no secret."""
    head, body = _part({"alg": "HS256", "typ": "JWT", "kid": kid}), _part(usual())
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signed = base64.urlsafe_b64encode(signature.sign(f"{head}.{body}".encode(), secret)).decode().rstrip("=")
    return f"{head}.{body}.{signed}"


def _other_head(issuer: Issuer, **head: Any) -> str:
    token = issuer.token()
    return f"{_part({'alg': 'ES256', 'typ': 'JWT', 'kid': 'ec', **head})}.{token.partition('.')[2]}"


def _other_body(issuer: Issuer, body: object) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{_part(body)}.{signature}"


def _of_any_body(issuer: Issuer, body: bytes) -> str:
    """A good signature under a body that is no object of claims."""
    return jwt.PyJWS().encode(body, issuer.keys["ec"], algorithm="ES256", headers={"kid": "ec"})


TRICKS: dict[str, Callable[[Issuer], str]] = {
    "none": lambda i: f"{_part({'alg': 'none'})}.{_part(usual())}.",
    "None with a signature": lambda i: f"{_part({'alg': 'None'})}.{_part(usual())}.AAAA",
    "no algorithm": lambda i: f"{_part({'typ': 'JWT'})}.{_part(usual())}.AAAA",
    "HS256 with the public key as PEM": lambda i: _signed_with(i, i.pem("rsa"), "rsa"),
    "HS256 with the public key as JWK": lambda i: _signed_with(i, json.dumps(i.public("ec")).encode(), "ec"),
    "HS256 with nothing": lambda i: _signed_with(i, b"", "ec"),
    "HS256 where no secret is set": lambda i: shared(),
    "RS256 claimed for the ES256 key": lambda i: _other_head(i, alg="RS256"),
    "PS256 with the RS256 key": lambda i: i.token("rsa", algorithm="PS256"),
    "RS512 with the RS256 key": lambda i: i.token("rsa", algorithm="RS512"),
    "another project's key": lambda i: i.token("ec", signed_by="ec-2"),
    "another project's key under its own id": lambda i: i.token("ec-2"),
    "a key that the token brings": lambda i: _other_head(i, jwk=i.public("ec-2")),
    "an address that the token brings": lambda i: _other_head(i, jku="https://evil.example/jwks.json", kid="x"),
    "a critical extension": lambda i: _other_head(i, crit=["b64"], b64=False),
    "a key id that is a path": lambda i: _other_head(i, kid="../../../dev/null"),
    "a key id that is a list": lambda i: _other_head(i, kid=["ec"]),
    "an algorithm that is a list": lambda i: _other_head(i, alg=["ES256"]),
    "another audience": lambda i: i.token(aud="anon"),
    "no audience": lambda i: i.token(aud=None),
    "another issuer": lambda i: i.token(iss="https://other.example/auth/v1"),
    "an issuer that begins alike": lambda i: i.token(iss=f"{ISSUER}.evil.example"),
    "no issuer": lambda i: i.token(iss=None),
    "issuers": lambda i: _of_any_body(i, json.dumps({**usual(), "iss": [ISSUER]}).encode()),
    "expired": lambda i: i.token(exp=int(START) - 60),
    "expired at this moment": lambda i: i.token(exp=int(START) - 5),
    "no end": lambda i: i.token(exp=None),
    "an end that is a word": lambda i: _of_any_body(i, json.dumps({**usual(), "exp": "never"}).encode()),
    "an end that is a number in words": lambda i: _of_any_body(
        i, json.dumps({**usual(), "exp": "9999999999"}).encode()
    ),
    "an end that is true": lambda i: _of_any_body(i, json.dumps({**usual(), "exp": True}).encode()),
    "an end that is no number": lambda i: _of_any_body(i, json.dumps({**usual(), "exp": float("nan")}).encode()),
    "an end without end": lambda i: _of_any_body(i, json.dumps({**usual(), "exp": float("inf")}).encode()),
    "ends": lambda i: _of_any_body(i, json.dumps({**usual(), "exp": [9999999999]}).encode()),
    "not valid yet": lambda i: i.token(nbf=int(START) + 60),
    "issued tomorrow": lambda i: i.token(iat=int(START) + 86_400, exp=int(START) + 90_000),
    "nobody": lambda i: i.token(sub=None),
    "an empty subject": lambda i: i.token(sub=""),
    "a subject with a line break": lambda i: i.token(sub="u-1\r\nX-Admin: yes"),
    "a subject with a NUL": lambda i: i.token(sub="u-1\0"),
    "a subject of megabytes": lambda i: i.token(sub="u" * 5000),
    "subjects": lambda i: _of_any_body(i, json.dumps({**usual(), "sub": ["u-1"]}).encode()),
    "a subject that is a number": lambda i: _of_any_body(i, json.dumps({**usual(), "sub": 1}).encode()),
    "a subject that is an object": lambda i: _of_any_body(i, json.dumps({**usual(), "sub": {"or": "1=1"}}).encode()),
    "roles": lambda i: i.token(role=["authenticated", "service_role"]),
    "the service role": lambda i: i.token(role="service_role"),
    "the owner's role": lambda i: i.token(role="postgres"),
    "the anonymous role": lambda i: i.token(role="anon"),
    "claims in an array": lambda i: _of_any_body(i, json.dumps([usual()]).encode()),
    "no JSON": lambda i: _of_any_body(i, b"sub=u-1"),
    "other claims under the signature": lambda i: _other_body(i, {**usual(), "sub": "admin"}),
    "no signature": lambda i: i.token().rpartition(".")[0] + ".",
    "two parts": lambda i: i.token().rpartition(".")[0],
    "four parts": lambda i: f"{i.token()}.x",
    "cut off": lambda i: i.token()[:-8],
    "a word": lambda i: "x",
    "not ASCII": lambda i: "t\xf6ken",
    "longer than any token": lambda i: i.token() + "A" * 20_000,
    "another monitoring token": lambda i: MONITORING[:-1] + "!",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_with_a_token_gets_nothing(make: Make, issuer: Issuer, trick: str) -> None:
    """If this failed, anybody could be whom they like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library that is to make a bad token
        token = TRICKS[trick](issuer)
    answer = client(make()).get(STATUS, headers={"Authorization": f"Bearer {token}".encode("latin-1")})
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="vital-tracking", error="invalid_token"'
    assert set(answer.json()) == {"type", "title", "status", "detail", "hint"}
    by_cookie = client(make(), cookies={"vital_access": token} if token.isascii() else {}).get(STATUS)
    assert by_cookie.status_code == 401


def test_a_key_is_used_for_its_own_algorithm_even_where_both_kinds_are_set(make: Make, issuer: Issuer) -> None:
    """If this failed, the public key, which everybody has, would sign tokens."""
    app = make(jwt_secret=SecretStr(SECRET))
    assert client(app).get(STATUS, headers=bearer(shared())).json()["signed_in_as"] == "u-1"
    assert client(app).get(STATUS, headers=bearer(issuer.token())).status_code == 200
    for forged in (
        _signed_with(issuer, issuer.pem("rsa"), "rsa"),
        shared("x" * 40),
        shared(iss="https://other.example"),
    ):
        assert client(app).get(STATUS, headers=bearer(forged)).status_code == 401


@pytest.mark.parametrize(
    "authorization", ["", "Basic dTpw", "Bearer", "Bearer ", "Token x", "bearer", "Bearer a b", "Negotiate x"]
)
def test_what_is_no_bearer_token_is_nobody(make: Make, authorization: str) -> None:
    """If this failed, a header that we do not understand would be passed over, and a cookie taken in its place."""
    answer = client(make()).get(STATUS, headers={"Authorization": authorization} if authorization else {})
    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize("kid", ["ec", "rsa"])
def test_a_good_token_says_who_it_is(make: Make, issuer: Issuer, kid: str) -> None:
    """If this failed, nobody could sign in."""
    token = issuer.token(kid, sub="user_2abc|x", email="a@example.com", aud=["authenticated", "https://api.example"])
    answer = client(make()).get(STATUS, headers=bearer(token))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["signed_in_as"], answer.json()["kind"]) == ("a@example.com", "user")
    assert issuer.fetched == 1
    assert client(make(), cookies={"vital_access": token}).get(STATUS).status_code == 200
    parts = {"vital_access": token[:40], "vital_access.1": token[40:80], "vital_access.2": token[80:]}
    assert client(make(), cookies=parts).get(STATUS).status_code == 200


def test_the_monitoring_token_opens_no_more_than_it_must(make: Make) -> None:
    """If this failed, whoever scrapes metrics could read the books."""
    answer = client(make()).get(STATUS, headers=bearer(MONITORING))
    assert (answer.status_code, answer.json()["kind"]) == (200, "monitor")
    assert client(make(), cookies={"vital_access": MONITORING}).get(STATUS).status_code == 401


def test_an_unknown_key_is_looked_for_once_a_minute(make: Make, issuer: Issuer, clock: Clock) -> None:
    """If this failed, made-up key ids would make us flood the identity provider; or a new key would not be found."""
    browser = client(make())
    assert browser.get(STATUS, headers=bearer(issuer.token())).status_code == 200
    for _ in range(20):
        assert browser.get(STATUS, headers=bearer(issuer.token("ec-2"))).status_code == 401
    assert issuer.fetched == 1
    issuer.publish("ec", "ec-2")
    clock.now += 61
    assert browser.get(STATUS, headers=bearer(issuer.token("ec-2"))).status_code == 200
    assert issuer.fetched == 2
    issuer.publish("ec-2")  # the first one is withdrawn
    clock.now += 601
    assert browser.get(STATUS, headers=bearer(issuer.token("ec", exp=int(clock.now) + 60))).status_code == 401
    assert issuer.fetched == 3


def test_keys_that_cannot_be_had_are_no_refusal(make: Make, issuer: Issuer, clock: Clock) -> None:
    """If this failed, an outage of the identity provider would sign everybody out, or its errors would stand in a log."""
    issuer.away = True
    browser = client(make())
    answer = browser.get(STATUS, headers=bearer(issuer.token()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    issuer.away = False
    clock.now += 11
    assert browser.get(STATUS, headers=bearer(issuer.token())).status_code == 200
    issuer.away = True
    clock.now += 700
    assert browser.get(STATUS, headers=bearer(issuer.token())).status_code == 200


@pytest.mark.parametrize(
    "changes", [{"use": "enc"}, {"alg": "ES384"}, {"kty": "oct", "k": "AAAA"}, {"crv": "P-384"}, {"x": "?"}]
)
def test_keys_for_other_uses_sign_nobody_in(make: Make, issuer: Issuer, changes: dict[str, Any]) -> None:
    """If this failed, a key for encryption, or a secret that somebody published by mistake, would make tokens good."""
    issuer.publish("ec", **changes)
    assert client(make()).get(STATUS, headers=bearer(issuer.token())).status_code == 401


def test_a_weak_key_signs_nobody_in(make: Make, issuer: Issuer) -> None:
    """If this failed, a key that can be broken today would do."""
    issuer.publish("weak", "ec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert client(make()).get(STATUS, headers=bearer(issuer.token("weak"))).status_code == 401
    assert client(make()).get(STATUS, headers=bearer(issuer.token())).status_code == 200
    assert client(make()).get(STATUS, headers=bearer(issuer.token(None))).status_code == 200
