"""Abuse in traffic of many users: normal traffic raises at most one false alarm a day, what is planted is found in time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest

from tests.sql.abuse_traffic import START, Traffic, a_day, people, plant
from tests.sql.helpers import Connection, connect
from tests.support.effort import LONG
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.timeout(7200 if LONG else 120)

LEARNT: Final = 14 if LONG else 4
DAYS: Final = 30 if LONG else 2
USERS: Final = 1000 if LONG else 40
EVERY: Final = timedelta(minutes=5 if LONG else 30)
PATTERNS: Final = (
    *("user_calls", "user_cost", "user_requests", "organization_calls", "organization_cost", "organization_requests"),
    *("address_requests", "repeated_request", "credential_sharing", "first_day_bill", "user_error_probe"),
    "address_error_probe",
)


@pytest.fixture(scope="module")
def world(postgres_server: PostgresServer, template_database: str) -> Iterator[tuple[Connection, Traffic]]:
    """A database with weeks of normal traffic, of which the first days are learnt; one of the later days has an outage."""
    postgres_server.create_database("abuse_traffic", template=template_database)
    with connect(postgres_server.url("abuse_traffic")) as connection:
        traffic = Traffic(random.Random(16))
        everybody = people(traffic.random, USERS, LEARNT + DAYS)
        for day in range(LEARNT + DAYS):
            a_day(traffic, day, everybody, outage=day == LEARNT + 1)
            traffic.write(connection)
        connection.execute("analyze")
        yield connection, traffic
    postgres_server.drop_database("abuse_traffic")


def scan(connection: Connection, moment: object) -> None:
    """Look at a moment, as often as the past takes to be learnt."""
    while True:
        found = connection.execute("select find_abuse_v1(%s) as told", [moment]).fetchone()
        assert found is not None
        assert not found["told"]["busy"]
        if not found["told"]["learning"]:
            return


def test_normal_traffic_raises_at_most_one_false_alarm_a_day(world: tuple[Connection, Traffic]) -> None:
    """If this failed, admins would learn to look away."""
    connection, _ = world
    alarms: Counter[int] = Counter()
    said = []
    for day in range(LEARNT, LEARNT + DAYS):
        moment = START + timedelta(days=day)
        while moment < START + timedelta(days=day + 1):
            moment += EVERY
            scan(connection, moment)
        # Each day begins without findings, so that what is found again counts again.
        found = connection.execute("delete from abuse_findings returning *").fetchall()
        alarms[day] = len(found)
        said += [(day, row["pattern"], row["subject"], row["value"], row["threshold"]) for row in found]
    print(sorted(said))
    assert sum(alarms.values()) <= DAYS, said
    assert max(alarms.values(), default=0) <= 3, said


def test_each_planted_abuse_is_found_within_five_minutes_of_its_start(world: tuple[Connection, Traffic]) -> None:
    """If this failed, a stolen key would be emptied before anybody knew."""
    connection, traffic = world
    everybody = people(random.Random(16), USERS, LEARNT + DAYS)
    late = []
    for number, pattern in enumerate(PATTERNS):
        begins = START + timedelta(days=LEARNT + DAYS - 1, hours=9 + number, minutes=7, seconds=13)
        with connection.transaction(force_rollback=True):
            subject = plant(traffic, pattern, begins, everybody)
            traffic.write(connection)
            for minutes in range(1, 6):
                scan(connection, begins + timedelta(minutes=minutes))
                found = connection.execute(
                    "select * from abuse_findings where pattern = %s and subject = %s", [pattern, subject]
                ).fetchall()
                if found:
                    break
            if not found:
                late.append(pattern)
                continue
            [row] = found
            print(pattern, minutes, row["value"], row["usual"], row["threshold"], row["severity"])
            assert row["state"] == "open"
            alert = connection.execute("select * from cost_alerts where pattern = %s", [pattern]).fetchall()
            assert [one["entity_id"] for one in alert if one["entity_id"] == subject]
    assert late == []
