"""What the tests of the web room share: a clock, keys of an issuer, applications over a small world, and people who ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from tests.integration.web.history import READERS, Open, Row, make_history
from tests.sql.access_world import World, make_world
from tests.sql.helpers import Connection, connect
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.app import application
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.parts import Outgoing, Parts
from vital_tracking.web.settings import WebSettings

ISSUER = "https://project.example/auth/v1"
JWKS_URL = f"{ISSUER}/.well-known/jwks.json"
SECRET = "a shared secret of more than thirty-two bytes"
MONITORING = "a monitoring token of more than thirty-two bytes"
START = 1_800_000_000.0


class Clock:
    """A clock that goes when it is told to; what counts requests reads it as the module `time`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    time = __call__


@dataclass
class Issuer:
    """Whoever signs: private keys by their ids, their public halves where they are fetched, and how often they were."""

    keys: dict[str, Any]
    published: list[dict[str, Any]] = field(default_factory=list)
    fetched: int = 0
    away: bool = False

    def publish(self, *kids: str, **changes: Any) -> None:
        """Publish these keys, and no others."""
        self.published = [{**self.public(kid), **changes} for kid in kids]

    def public(self, kid: str) -> dict[str, Any]:
        """The public half of a key, as JWKS has it."""
        key = self.keys[kid].public_key()
        if isinstance(key, rsa.RSAPublicKey):
            return {**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "alg": "RS256", "use": "sig"}
        return {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "alg": "ES256", "use": "sig"}

    def pem(self, kid: str) -> bytes:
        """The public half as PEM."""
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return bytes(self.keys[kid].public_key().public_bytes(*form))

    def fetch(self, url: str) -> bytes:
        """What the server fetches."""
        assert url == JWKS_URL
        self.fetched += 1
        if self.away:
            raise OSError("unreachable: secret-word")
        return json.dumps({"keys": self.published}).encode()

    def token(
        self, kid: str | None = "ec", *, signed_by: str | None = None, algorithm: str | None = None, **claims: Any
    ) -> str:
        """A token; a claim that is None is left out."""
        key = self.keys[signed_by or kid or "ec"]
        if algorithm is None:
            algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        payload = {name: value for name, value in {**usual(), **claims}.items() if value is not None}
        return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


def usual() -> dict[str, Any]:
    """The claims of a token as Supabase Auth makes them."""
    return {
        "sub": "u-1",
        "role": "authenticated",
        "aud": "authenticated",
        "iss": ISSUER,
        "iat": int(START) - 10,
        "exp": int(START) + 3600,
    }


def shared(secret: str = SECRET, **claims: Any) -> str:
    """A token under the shared secret."""
    payload = {name: value for name, value in {**usual(), **claims}.items() if value is not None}
    return jwt.encode(payload, secret, algorithm="HS256")


@pytest.fixture(scope="session")
def key_pairs() -> dict[str, Any]:
    """Private keys, which take long to make."""
    return {
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ec-2": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "weak": rsa.generate_private_key(65537, 1024),
    }


@pytest.fixture
def issuer(key_pairs: dict[str, Any]) -> Issuer:
    """An issuer with a key of each kind."""
    made = Issuer(key_pairs)
    made.publish("ec", "rsa")
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, for tokens, limits and all else of the web room."""
    made = Clock()
    monkeypatch.setattr("limits.storage.memory.time", made)
    monkeypatch.setattr("limits.strategies.time", made)
    return made


@pytest.fixture(scope="session")
def peopled(postgres_server: PostgresServer, template_database: str) -> Iterator[tuple[str, World]]:
    """A database with a few people and their calls, which no test changes but by audit lines."""
    postgres_server.create_database("web_world", template=template_database)
    url = postgres_server.url("web_world")
    with connect(url) as connection, connection.transaction():
        world = make_world(connection)
    yield url, world
    postgres_server.drop_database("web_world")


@pytest.fixture
def owner(peopled: tuple[str, World]) -> Iterator[Connection]:
    """The owner's connection to it. The audit is emptied for the test."""
    with connect(peopled[0]) as connection:
        with connection.transaction():
            connection.execute("set local vital_tracking.audit_may_change = 'on'")
            connection.execute("truncate admin_audit")
        yield connection


@pytest.fixture
def store(peopled: tuple[str, World]) -> Iterator[PostgresStore]:
    """A store on it."""
    opened = PostgresStore(peopled[0])
    yield opened
    opened.close()


Make = Callable[..., FastAPI]


@pytest.fixture
def make(store: PostgresStore, issuer: Issuer, clock: Clock) -> Make:
    """Makes applications: further routers, and settings by their names; `over` is another store, `operator` a link."""

    def made(*routers: Any, over: Any = None, operator: OperatorLink | None = None, **settings: Any) -> FastAPI:
        defaults = {"jwks_url": JWKS_URL, "jwt_issuer": ISSUER, "monitoring_token": SecretStr(MONITORING)}
        outgoing = Outgoing()
        outgoing.fetch = issuer.fetch  # type: ignore[method-assign]
        parts = Parts(over or store, WebSettings(**{**defaults, **settings}), operator, clock, outgoing)
        app = application(parts)
        for router in routers:
            app.include_router(router, dependencies=[Depends(parts.attach)])
        return app

    return made


def client(app: FastAPI, **options: Any) -> TestClient:
    """A browser that follows no redirects, as we want to see them."""
    return TestClient(app, follow_redirects=False, **options)


def bearer(token: str) -> dict[str, str]:
    """The header of a program that has a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="session")
def history_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with three weeks of calls, which no test changes but by audit lines."""
    postgres_server.create_database("web_history", template=template_database)
    url = postgres_server.url("web_history")
    with connect(url) as connection:
        make_history(connection)
    yield url
    postgres_server.drop_database("web_history")


@pytest.fixture(scope="session")
def calls(history_url: str) -> list[Row]:
    """Its calls, as its owner sees them."""
    with connect(history_url) as connection:
        return connection.execute("select * from token_usage_logs order by created_at desc, id desc").fetchall()


@pytest.fixture(scope="session")
def history_store(history_url: str) -> Iterator[PostgresStore]:
    """A store on it, whose connections have read our functions already."""
    with closing(PostgresStore(history_url)) as store:
        yield store


@pytest.fixture
def opened(history_store: PostgresStore, make: Make, issuer: Issuer) -> Open:
    """The browsers of those who look at it, as often as they like."""
    return browsers(history_store, make, issuer)


def browsers(store: PostgresStore, make: Make, issuer: Issuer) -> Open:
    """The browsers of those who look at what is in a store."""
    link = OperatorLink()
    plenty = dict.fromkeys(("user_requests", "organization_requests", "burst_requests"), 1_000_000)
    app = make(over=store, operator=link, **plenty)

    def browser(reader: str) -> TestClient:
        subject = READERS[reader].subject
        if subject is not None:
            return client(app, headers=bearer(issuer.token(sub=subject)))
        of_operator = client(app)
        assert of_operator.get(f"/open?token={link.token}").status_code < 400
        return of_operator

    return browser
