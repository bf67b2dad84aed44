"""Made-up traffic of many users with days and weeks in it, seeded, and abuse planted in it: rows straight into the tables.

What is normal is meant to be hard: few users make most calls, some are programs that run at night, some change their address
with every session, requests are tried again and repeat, users join, an outage makes everything fail.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.sql.helpers import Connection

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday."""

_CALLS: Final = (
    "id, created_at, organization_id, user_id, request_hash, status, error_type, prompt_tokens, total_tokens, input_cost,"
    " output_cost, fees, total_cost, potential_cost, price_version, priced"
)
_EVENTS: Final = "id, occurred_at, organization_id, user_id, ip_hash, category, event_name, properties"


def hashed(name: str) -> str:
    """What stands for an address or a request."""
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex


@dataclass
class Person:
    """A user: how much is done on a working day, when, and from where."""

    name: str
    organization: str
    calls_a_day: float
    noon: float
    addresses: list[str]
    roams: bool = False
    nightly: int = 0
    joined: int = 0


@dataclass
class Traffic:
    """Calls and events, as rows to copy."""

    random: random.Random
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def call(
        self,
        at: datetime,
        organization: str,
        user: str,
        *,
        cost: float | None = None,
        request: str | None = None,
        error: bool = False,
    ) -> None:
        """A call; it costs about a cent unless it is said."""
        dollars = f"{cost if cost is not None else min(self.random.lognormvariate(-4.6, 1.0), 2):.6f}"
        same = hashed(request) if request else self.random.randbytes(16).hex()
        status = ("error", "BadRequestError") if error else ("ok", None)
        self.calls.append(
            (
                _id(self.random),
                at,
                organization,
                user,
                same,
                *status,
                500,
                500,
                dollars,
                0,
                0,
                dollars,
                dollars,
                "test",
                True,
            )
        )

    def event(self, at: datetime, organization: str | None, user: str | None, address: str, status: int = 200) -> None:
        """A request."""
        properties = json.dumps({"status": status})
        self.events.append(
            (_id(self.random), at, organization, user, hashed(address), "user_behavior", "http_request", properties)
        )

    def write(self, connection: Connection) -> None:
        """Copy it into the tables, in the order of time."""
        for table, columns, rows in (
            ("token_usage_logs", _CALLS, self.calls),
            ("platform_events", _EVENTS, self.events),
        ):
            rows.sort(key=lambda row: row[1])
            with connection.cursor() as cursor, cursor.copy(f"copy {table} ({columns}) from stdin") as copy:
                for row in rows:
                    copy.write_row(row)
            rows.clear()


def _id(chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def people(chance: random.Random, users: int, days: int) -> list[Person]:
    """Users of organizations of different sizes; one in thirty joins later."""
    organizations = max(users // 50, 2)
    weights = [1 / (number + 1) for number in range(organizations)]
    found = []
    for number in range(users):
        organization = f"tenant-{chance.choices(range(organizations), weights)[0]}"
        addresses = [f"{organization}-office", *(f"home-{number}-{n}" for n in range(chance.randint(1, 2)))]
        found.append(
            Person(
                f"user-{number}",
                organization,
                min(chance.lognormvariate(2.3, 1.0), 400),
                chance.gauss(13, 2),
                addresses,
                roams=chance.random() < 0.05,
                nightly=chance.randint(30, 300) if chance.random() < 0.02 else 0,
                joined=chance.randrange(days) if chance.random() < 0.033 else 0,
            )
        )
    return found


def a_day(traffic: Traffic, day: int, everybody: list[Person], *, outage: bool = False) -> None:
    """A normal day: sessions around each user's noon, a quarter of them at weekends, programs at night, checks by the minute."""
    chance, begins = traffic.random, START + timedelta(days=day)
    week = 0.25 if begins.weekday() >= 5 else 1.0
    for person in everybody:
        if person.joined > day:
            continue
        expected = person.calls_a_day * week * chance.lognormvariate(0, 0.4)
        sessions = _poisson(chance, expected / 6)
        for session in range(sessions):
            at = begins + timedelta(hours=min(max(chance.gauss(person.noon, 2.5), 0), 23.5))
            address = f"mobile-{person.name}-{day}-{session}" if person.roams else chance.choice(person.addresses)
            _session(traffic, person, at, address, outage=outage)
        if person.nightly and chance.random() < 0.8:
            at = begins + timedelta(hours=3, minutes=chance.random() * 10)
            for number in range(round(person.nightly * chance.uniform(0.8, 1.2))):
                traffic.call(at + timedelta(seconds=1.5 * number), person.organization, person.name)
    for minute in range(24 * 60):
        traffic.call(begins + timedelta(minutes=minute), "tenant-0", "monitor", request="ping", cost=0.0001)


def _session(traffic: Traffic, person: Person, at: datetime, address: str, *, outage: bool) -> None:
    chance = traffic.random
    for _ in range(1 + min(int(chance.expovariate(1 / 5)), 40)):
        at += timedelta(seconds=5 + chance.expovariate(1 / 40))
        down = outage and 10 <= at.hour < 11
        for _ in range(1 + min(int(chance.expovariate(1 / 2)), 20)):
            status = 404 if chance.random() < 0.02 else 503 if down and chance.random() < 0.7 else 200
            traffic.event(
                at - timedelta(seconds=chance.random() * 5), person.organization, person.name, address, status
            )
        failed = chance.random() < (0.7 if down else 0.01)
        asked = f"faq-{person.organization}-{chance.randrange(30)}" if chance.random() < 0.03 else None
        again = asked or f"again-{chance.getrandbits(64)}"
        traffic.call(at, person.organization, person.name, request=again if failed else asked, error=failed)
        for number in range(chance.randint(1, 3) if failed else 0):
            traffic.call(
                at + timedelta(seconds=2 + number), person.organization, person.name, request=again, error=number < 1
            )


def _poisson(chance: random.Random, mean: float) -> int:
    if mean > 30:
        return max(round(chance.gauss(mean, math.sqrt(mean))), 0)
    limit, count, product = math.exp(-mean), 0, chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count


LASTS: Final = timedelta(minutes=12)


def _every(at: datetime, seconds: float) -> Iterator[datetime]:
    """Instants of a plant, so many seconds apart."""
    for number in range(int(LASTS.total_seconds() / seconds)):
        yield at + timedelta(seconds=seconds * number)


def plant(traffic: Traffic, pattern: str, at: datetime, everybody: list[Person]) -> str:
    """Abuse of a pattern from a moment on; its subject."""
    chance = traffic.random
    usual = sorted((one for one in everybody if not one.nightly and not one.joined), key=lambda one: one.calls_a_day)
    person = usual[len(usual) // 2]
    organization = person.organization
    crowd = [one for one in usual if one.organization == organization]
    match pattern:
        case "user_calls":
            for moment in _every(at, 2):
                traffic.call(moment, organization, person.name, cost=0.001)
            return person.name
        case "user_cost":
            for moment in _every(at, 20):
                traffic.call(moment, organization, person.name, cost=2.5)
            return person.name
        case "user_requests":
            for moment in _every(at, 0.4):
                traffic.event(moment, organization, person.name, person.addresses[0])
            return person.name
        case "organization_calls":
            for moment in _every(at, 0.3):
                traffic.call(moment, organization, chance.choice(crowd).name, cost=0.001)
            return organization
        case "organization_cost":
            for moment in _every(at, 2):
                traffic.call(moment, organization, chance.choice(crowd).name, cost=2.0)
            return organization
        case "organization_requests":
            for moment in _every(at, 0.05):
                one = chance.choice(crowd)
                traffic.event(moment, organization, one.name, f"proxy-{chance.randrange(500)}")
            return organization
        case "address_requests":
            for moment in _every(at, 0.3):
                traffic.event(moment, organization, None, "scraper")
            return hashed("scraper")
        case "repeated_request":
            for moment in _every(at, 6):
                traffic.call(moment, organization, person.name, request="replayed", cost=0.001)
            return hashed("replayed")
        case "credential_sharing":
            for number, moment in enumerate(_every(at, 15)):
                traffic.event(moment, organization, person.name, f"sold-{number % 20}")
            return person.name
        case "first_day_bill":
            for moment in _every(at, 6):
                traffic.call(moment, organization, "newcomer", cost=1.5)
            return "newcomer"
        case "user_error_probe":
            for moment in _every(at, 5):
                traffic.event(moment, organization, person.name, person.addresses[-1], 403)
            return person.name
        case "address_error_probe":
            for moment in _every(at, 5):
                traffic.event(moment, None, None, "intruder", 401)
            return hashed("intruder")
    raise ValueError(pattern)
