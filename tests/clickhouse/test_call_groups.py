"""What what-if reprices comes from the copy as it comes from PostgreSQL, whoever asks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.sql.helpers import ADMIN, Row, connect, record, report
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
    ]  # fmt: skip
    for claims, _ in READERS.values():
        alone, both = ((one if claims is None else one.as_user(claims, timeout_s=60)) for one in (store, joined))
        for period, cuts, organization in asked:
            here = read_call_groups(alone, period, cuts, organization=organization)
            there = read_call_groups(both, period, cuts, organization=organization)
            assert {group.key: group for group in there} == {group.key: group for group in here}
    assert not caplog.records, "the copy did not answer"


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
