"""What what-if reprices comes from the copy as it comes from PostgreSQL, whoever asks."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from tests.sql.helpers import ADMIN, Row, a_call, connect, record, report
from tests.sql.usage_questions import READERS, SINCE, UNTIL, calls_at_random
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.reading import CopiedStore, Copy
from vital_tracking.queries.call_groups import Cuts, read_call_groups
from vital_tracking.queries.explore import Period
from vital_tracking.stores.postgres import PostgresStore

DAY = timedelta(days=1)
FROM_CACHE = {
    "cache_hit": True, "priced": True, "price_version": "p", "input_cost": "0", "output_cost": "0", "total_cost": "0",
}  # fmt: skip


def varied(chance: random.Random) -> Iterator[Row]:
    """Calls with facts that decide about prices, sizes on both sides of a limit, streamed, shadow, unbilled and merged ones."""
    for call in calls_at_random(chance, 200):
        facts = {"service_tier": chance.choice(["flex", None]), "speed": chance.choice([2, True, "fast"])}
        yield {
            **call,
            "metadata": {**call["metadata"], **chance.choice([{}, {}, facts, {"shadow_of": "x"}, {"speed": None}])},
            "ttft_ms": chance.choice([None, None, 12.5]),
            "request_hash": chance.choice([None, "a"]),
            "price_version": chance.choice(["p", "p", "reported by x", "not billed"]) if "total_cost" in call else None,
            **(FROM_CACHE if "total_cost" in call and chance.random() < 0.05 else {}),
            **(
                {"calls": 3, "prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}
                if chance.random() < 0.2
                else {}
            ),
        }


def test_groups_are_the_same(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(database_url) as db:
        answer = report(db, "record_calls_v1", json.dumps(list(varied(random.Random(5)))))
        assert answer["inserted"] == 200, {one["rule"] for one in answer["rejected"]}
        db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    Copying(store, clickhouse).bring_up_to_date()
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    asked = [
        (Period(SINCE, UNTIL, "Asia/Kolkata"), Cuts(), None),
        (Period(SINCE, UNTIL, "America/New_York"), Cuts(sizes=[33, 34, 100], eras=[SINCE + DAY, SINCE + 5 * DAY]), None),
        (Period(SINCE, UNTIL), Cuts(sizes=[50], dimensions=["agent", "rates"]), "acme"),
        (Period(SINCE, UNTIL), Cuts(dimensions=["service"]), None),
        (Period(SINCE, UNTIL), Cuts(dimensions=[]), None),
    ]  # fmt: skip
    for claims, _ in READERS.values():
        alone, both = ((one if claims is None else one.as_user(claims, timeout_s=60)) for one in (store, joined))
        for period, cuts, organization in asked:
            here = read_call_groups(alone, period, cuts, organization=organization)
            there = read_call_groups(both, period, cuts, organization=organization)
            assert {group.key: group for group in there} == {group.key: group for group in here}
    assert not caplog.records, "the copy did not answer"


def prompts_again(chance: random.Random) -> Iterator[Row]:
    """Requests and beginnings of prompts that come again at once, within seconds, and days apart."""
    times = [SINCE + (UNTIL - SINCE) * chance.random() for _ in range(8)]
    for call in calls_at_random(chance, 400):
        at = chance.choice(times) + timedelta(
            seconds=chance.choice([0, 0, 1, 5, 59, 60, 61, 600, 3599, 3600, 3601, 86400])
        )
        prompt = [f"{chance.choice('ab')}{place}" for place in range(chance.randint(0, 3))]
        yield {
            **call,
            "id": str(UUID(int=chance.getrandbits(128))),
            "created_at": at.isoformat(),
            "service_type": "workflow",
            "agent_id": chance.choice(["cardio", "cardio", None]),
            "agent_name": None,
            "model": "claude",
            "latency_ms": chance.choice([None, 0, 0.0005, 999.9995, 1000, 61_000.123]),
            "request_hash": chance.choice([None, "a", "a", "b"]),
            **({"prefix_hashes": prompt, "prompt_bytes": 16384 + chance.randint(0, 9999)} if prompt else {}),
            **({"prompt_tokens": 5_000, "completion_tokens": 0, "total_tokens": 5_000,
                "cache_read_tokens": chance.choice([0, 900, 4_000]),
                "cache_write_tokens": chance.choice([0, 700])} if chance.random() < 0.7 else {}),
            **(FROM_CACHE if "total_cost" in call and chance.random() < 0.05 else {}),
        }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_repeated_and_alike_calls_are_the_same(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    chance = random.Random(seed)
    with connect(database_url) as db:
        calls = list(prompts_again(chance))
        answer = report(db, "record_calls_v1", json.dumps(calls[:300]))
        assert answer["inserted"] == 300, {one["rule"] for one in answer["rejected"]}
        db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        Copying(store, clickhouse).bring_up_to_date()
        joined = CopiedStore(store, Copy(clickhouse, least=0))
        ttls = [None, *(timedelta(seconds=span) for span in (1, 5, 60, 3600, 86400, 2 * 86400))]
        found: Counter[str] = Counter()
        for turn in range(9):
            if turn == 4:  # calls that the copy has not, before and after those that it has, and one that was changed
                record(db, *calls[300:350])
                db.execute("update token_usage_logs set latency_ms = 2 where id = %s", [calls[7]["id"]])
            if turn == 7:
                Copying(store, clickhouse).bring_up_to_date()
            since = chance.choice([SINCE, SINCE + timedelta(days=4, microseconds=7)])
            period = Period(
                since, UNTIL - timedelta(hours=chance.randint(0, 40)), chance.choice(["UTC", "Asia/Kolkata"])
            )
            cuts = Cuts(sizes=[50], ttl=chance.choice(ttls), prefix_ttl=chance.choice(ttls))
            organization = chance.choice([None, "acme"])
            for claims, _ in READERS.values():
                alone, both = (
                    (one if claims is None else one.as_user(claims, timeout_s=60)) for one in (store, joined)
                )
                here = read_call_groups(alone, period, cuts, organization=organization)
                there = read_call_groups(both, period, cuts, organization=organization)
                assert {group.key: group for group in there} == {group.key: group for group in here}, (period, cuts)
                for group in here:
                    found["repeated"] += group.calls * group.key.repeated
                    found["alike"] += group.calls * group.key.alike
                    found["read"] += group.prefix_read_tokens
                    found["written"] += group.prefix_write_tokens
        # What only the copy has by now shows who has answered.
        asked = Period(SINCE + DAY, UNTIL), Cuts(ttl=DAY, prefix_ttl=DAY / 2)
        here = {group.key: group for group in read_call_groups(store, *asked)}
        with db.transaction():
            db.execute("set local vital_tracking.keep_sums = 'on'")
            db.execute("delete from token_usage_logs")
        assert {group.key: group for group in read_call_groups(joined, *asked)} == here
    assert min(found[what] for what in ("repeated", "alike", "read", "written")) > 50, found
    assert not caplog.records, "the copy did not answer"


def test_what_goes_before_has_to_be_copied_too(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    """A copy that begins later than what a cache would still hold knows less of repeats than PostgreSQL."""
    with connect(database_url) as db:
        about = {"request_hash": "a", "organization_id": "acme", "user_id": None}
        record(db, *(a_call(number, created_at=(SINCE + number * DAY).isoformat(), **about) for number in (0, 1, 2)))
    Copying(store, clickhouse, since=SINCE + DAY / 2).bring_up_to_date()
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    for hours, repeated in ((6, []), (30, [0])):
        cuts = Cuts(ttl=timedelta(hours=hours), eras=[SINCE + 2 * DAY])
        for one in (store, joined):
            groups = read_call_groups(one, Period(SINCE + DAY, UNTIL), cuts)
            assert [group.key.era for group in groups if group.key.repeated] == repeated


def test_calls_of_one_instant_are_in_the_order_of_their_ids(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """The first writes into the cache, after a minute or a second. ClickHouse compares the second half of a UUID first."""
    about = {
        "request_hash": "a",
        "organization_id": "acme",
        "user_id": None,
        "prefix_hashes": ["p"],
        "prompt_bytes": 8192,
    }
    names = "00000000-0000-7000-8000-ffffffffffff", "ffffffff-0000-7000-8000-000000000000"
    with connect(database_url) as db:
        for day, latencies in ((0, (60_000, 1_000)), (1, (1_000, 60_000))):
            at = SINCE + day * DAY
            for place, (name, latency) in enumerate(zip(names, latencies, strict=True)):
                record(
                    db,
                    a_call(
                        10 * day + place,
                        **about,
                        id=name[:-1] + str(day),
                        created_at=at.isoformat(),
                        latency_ms=latency,
                    ),
                )
            record(db, a_call(10 * day + 5, **about, created_at=(at + timedelta(seconds=5)).isoformat()))
    Copying(store, clickhouse).bring_up_to_date()
    with connect(database_url) as db, db.transaction():
        db.execute("set local vital_tracking.keep_sums = 'on'")
        db.execute("delete from token_usage_logs")
    cuts = Cuts(ttl=DAY / 2, eras=[SINCE + DAY])
    groups = read_call_groups(CopiedStore(store, Copy(clickhouse, least=0)), Period(SINCE, UNTIL), cuts)
    assert [(group.key.era, group.calls) for group in groups if group.key.repeated] == [(1, 1)]


def test_they_come_from_the_copy_where_it_holds_all_of_the_time(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """A call that only the copy has shows who has answered."""
    with connect(database_url) as db:
        record(db, *varied(random.Random(5)))
        Copying(store, clickhouse).bring_up_to_date()
        joined = CopiedStore(store, Copy(clickhouse, least=0))
        before = sum(group.calls for group in read_call_groups(joined, Period(SINCE, UNTIL)))
        with db.transaction():
            db.execute("set local vital_tracking.keep_sums = 'on'")
            db.execute("delete from token_usage_logs")
        assert sum(group.calls for group in read_call_groups(joined, Period(SINCE, UNTIL))) == before > 100
