"""Requests that were made more than once come from the copy and what it lacks as they come from PostgreSQL, whoever asks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.clickhouse.faulty_server import FaultyServer
from tests.sql.helpers import ADMIN, ALICE, Connection, Row, a_call, call, connect, record
from tests.sql.usage_questions import READERS, SINCE, UNTIL, calls_at_random
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.reading import CopiedStore, Copy
from vital_tracking.queries.usage import Duplicates, duplicates
from vital_tracking.stores import Store
from vital_tracking.stores.postgres import PostgresStore

HOUR = timedelta(hours=1)
FROM_CACHE = {
    "cache_hit": True, "priced": True, "price_version": "p", "input_cost": "0", "output_cost": "0", "total_cost": "0",
}  # fmt: skip
MERGED = {"calls": 3, "prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}


def asked_again(chance: random.Random, count: int) -> Iterator[Row]:
    """Requests that are asked again, some at one instant, with names that a line of JSON or a statement could stumble over."""
    requests = [None, "once more", "o'request \\ {since:String}", *(f"r{number}" for number in range(count // 4))]
    times = [SINCE + (UNTIL - SINCE) * chance.random() for _ in range(count // 8)]
    again = [(at, chance.choice(requests)) for at in times]
    for one in calls_at_random(chance, count):
        money = (
            {"total_cost": cost, "input_cost": cost, "potential_cost": cost}
            if "total_cost" in one and (cost := chance.choice(["0.5", "0.25", "0.000000000001", "1.100"]))
            else {}
        )
        at, request = chance.choice(again) if chance.random() < 0.5 else (chance.choice(times), chance.choice(requests))
        yield {
            **one,
            **money,
            "id": str(UUID(int=chance.getrandbits(128))),
            "created_at": at.isoformat(),
            "model": chance.choice(["gpt-4o", "o'model\n\t\\N ${lacking}", "ü"]),
            "request_hash": request,
            **(FROM_CACHE if "total_cost" in one and chance.random() < 0.05 else {}),
            **(MERGED if chance.random() < 0.1 else {}),
        }


class Counted(Copy):
    """A copy that counts how often it has answered."""

    def __init__(self, server: ClickHouse) -> None:
        super().__init__(server, least=0)
        self.answers = 0

    def answer(self, store: Store, function: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        planned = store.call(function, **arguments, copied=json.dumps({"copy": self._known_id()}))
        answer = super().answer(store, function, arguments, timeout_s)
        self.answers += "ask_copy" in planned and answer is not None
        return answer


def in_any_form(answer: Duplicates) -> Any:
    """Amounts by their digits, so that a zero more at their ends would be a difference."""
    return [
        {**answer, "saved_by_caching": str(answer["saved_by_caching"])},
        [{**row, "cost": str(row["cost"]), "saved_by_caching": str(row["saved_by_caching"])} for row in answer["rows"]],
    ]


@pytest.mark.parametrize("seed", range(2))
def test_duplicates_are_the_same(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    chance = random.Random(seed)
    calls = sorted(asked_again(chance, 400), key=lambda one: str(one["created_at"]))
    copy = Counted(clickhouse)
    joined, repeated = CopiedStore(store, copy), 0
    with connect(database_url) as db:
        db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        record(db, *calls[:250])
        Copying(store, clickhouse).bring_up_to_date()

        def answered() -> None:
            nonlocal repeated
            for claims, _ in READERS.values():
                asked = {
                    "since": SINCE + chance.choice([0, 0, 5, 50]) * HOUR,
                    "until": UNTIL - chance.choice([0, 0, 7]) * HOUR,
                    "organization": chance.choice([None, None, "acme"]),
                    "rows": chance.choice([0, 1, 3, 50, 1000]),
                }
                alone, both = (
                    duplicates(one if claims is None else one.as_user(claims, timeout_s=60), **asked)
                    for one in (store, joined)
                )
                assert in_any_form(both) == in_any_form(alone), (claims, asked)
                repeated += alone["repeated_calls"]

        answered()
        record(db, *calls[250:300])  # after all that the copy has
        answered()
        db.execute(
            "update token_usage_logs set total_cost = 7, input_cost = 7 where id = %s",
            [next(one["id"] for one in calls[180:] if "total_cost" in one and "cache_hit" not in one)],
        )
        answered()
        while not call(db, "forget_user", user_id=ALICE)["done"]:
            pass
        answered()
        record(db, *calls[300:350])
        Copying(store, clickhouse).bring_up_to_date()
        record(db, *chance.sample(calls[350:], 20))
        answered()
        Copying(store, clickhouse).bring_up_to_date()
        answered()
    assert repeated > 300
    assert copy.answers >= 20
    assert not caplog.records


def test_a_request_is_found_that_was_asked_before_and_after_what_the_copy_holds(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """Once on either side of the instant up to which the copy answers: neither of both knows of it by itself."""
    about = {"request_hash": "a", "total_cost": "0.2", "input_cost": "0.2", "output_cost": "0"}
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    with connect(database_url) as db:
        record(db, a_call(1, created_at=SINCE.isoformat(), **about, model="first"))
        Copying(store, clickhouse).bring_up_to_date()
        record(db, a_call(2, created_at=(SINCE + HOUR).isoformat(), **about, model="second"))
        [row] = duplicates(joined, since=SINCE, until=UNTIL)["rows"]
        assert (row["calls"], row["model"], row["first_at"], row["last_at"]) == (2, "first", SINCE, SINCE + HOUR)
        assert (row["cost"], row["saved_by_caching"]) == (Decimal("0.4"), Decimal("0.2"))
        assert duplicates(joined, since=SINCE + HOUR / 2, until=UNTIL)["rows"] == []


def test_the_calls_that_it_lacks_travel_in_the_body(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """An address of that length would be refused, and so would a statement that says nothing of its length."""
    with FaultyServer(clickhouse) as server, connect(database_url) as db:
        over_http = ClickHouse(address_of(server.url))
        copy = Counted(over_http)
        record(db, a_call(1, created_at=SINCE.isoformat(), request_hash="r7"))
        Copying(store, clickhouse).bring_up_to_date()
        add_many(db, 3000)
        assert duplicates(CopiedStore(store, copy), since=SINCE, until=UNTIL)["requests"] == 1
        assert copy.answers == 1
        over_http.close()
        server.shutdown()


def add_many(db: Connection, count: int) -> None:
    """So many calls with requests of their own, r1 and on."""
    db.execute(
        """
        insert into token_usage_logs (id, created_at, request_hash, call_type, status, priced)
        select gen_random_uuid(), %s, 'r' || n, 'chat', 'ok', false from generate_series(1, %s) as n
        """,
        [SINCE + HOUR, count],
    )


def test_postgresql_answers_for_amounts_that_the_copy_does_not_hold(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """A copy would round them. It is asked again once they are in no request that is repeated."""
    odd = "0.1234567890123"
    copy, asked = Counted(clickhouse), {"since": SINCE, "until": UNTIL, "organization": None, "rows": 50}

    joined = CopiedStore(store, copy)

    def again(number: int, at: datetime, cost: str, **more: Any) -> Row:
        return a_call(
            number,
            created_at=at.isoformat(),
            request_hash="a",
            input_cost=cost,
            output_cost="0",
            total_cost=cost,
            **more,
        )

    with connect(database_url) as db:
        record(db, again(1, SINCE, "1"), again(2, SINCE, odd))
        Copying(store, clickhouse).bring_up_to_date()
        assert [row["cost"] for row in duplicates(joined, **asked)["rows"]] == [Decimal(odd) + 1]
        assert copy.answers == 0
        db.execute("update token_usage_logs set request_hash = 'b' where total_cost < 1")
        Copying(store, clickhouse).bring_up_to_date()
        assert duplicates(joined, **asked)["rows"] == []
        assert copy.answers == 1
        record(db, again(3, SINCE + HOUR, odd))
        assert [row["cost"] for row in duplicates(joined, **asked)["rows"]] == [Decimal(odd) + 1]
        assert copy.answers == 1


def test_more_than_can_be_sent_along_is_left_to_postgresql(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """A statement of any size would be answered later than PostgreSQL answers."""
    copy = Counted(clickhouse)
    joined = CopiedStore(store, copy)
    with connect(database_url) as db:
        record(db, a_call(1, created_at=SINCE.isoformat(), request_hash="a"))
        Copying(store, clickhouse).bring_up_to_date()
        add_many(db, 50_000)
        assert (duplicates(joined, since=SINCE, until=UNTIL)["requests"], copy.answers) == (0, 1)
        record(db, a_call(2, created_at=(SINCE + HOUR).isoformat(), request_hash="a"))
        assert (duplicates(joined, since=SINCE, until=UNTIL)["requests"], copy.answers) == (1, 1)
