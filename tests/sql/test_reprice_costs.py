"""Costs that are priced later, some at a time: each once, and none read twice to find the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.sql.helpers import Connection, call
from tests.sql.platform_rows import a_cost, differences, send

START = datetime(2026, 1, 5, tzinfo=UTC)
COSTS = 600


def price(db: Connection, unit_price: str, **more: Any) -> None:
    given = {"cost_type": "storage", "unit_price": unit_price, "valid_from": START.isoformat(), **more}
    db.execute("select add_resource_price_v1(%s)", [json.dumps(given)])


def rows_read(db: Connection) -> int:
    """How many rows of costs this transaction has read until now."""
    found = db.execute(
        "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint as n from pg_stat_xact_user_tables"
        " where relname like 'tenant_cost_events%%'"
    ).fetchone()
    assert found is not None
    return int(found["n"])


def in_batches(db: Connection, size: int, **asked: Any) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    place: dict[str, Any] = {}
    while True:
        answers.append(call(db, "reprice_costs_v1", max_rows=size, **asked, **place))
        if answers[-1]["next"] is None:
            return answers
        place = answers[-1]["next"]


def test_a_large_table_is_read_once_however_many_batches_there_are(db: Connection) -> None:
    """If this failed, each batch of a reprice would read all that the ones before had done: a million would take a day."""
    # Three months, and several costs of one instant, between which a batch may end.
    send(
        db,
        "tenant_cost_events",
        *(a_cost(n, occurred_at=START + timedelta(days=n // 10)) for n in range(1, COSTS)),
        a_cost(COSTS, cost_type="compute", occurred_at=START),
    )
    price(db, "0.046")
    db.execute("analyze tenant_cost_events")
    for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):  # as it is planned where a table is large
        db.execute(f"set local enable_{way} = off")
    before = rows_read(db)
    answers = in_batches(db, 7, again=True)
    read = rows_read(db) - before
    assert [answer["repriced"] for answer in answers[:-1]] == [7] * (len(answers) - 1)
    assert sum(answer["repriced"] for answer in answers) == COSTS - 1
    assert [answer["unpriced"] for answer in answers] == [None] * (len(answers) - 1) + [1]
    # Each to find it and to change it, and of one instant a few again.
    assert read < 6 * COSTS, read
    prices = db.execute("select distinct unit_price from tenant_cost_events where priced").fetchall()
    assert prices == [{"unit_price": Decimal("0.046")}]
    assert differences(db) == []
    assert [answer["repriced"] for answer in in_batches(db, 7, again=True)] == [0]


def test_an_end_of_a_batch_is_the_end_of_no_cost(db: Connection) -> None:
    """Nothing is left out where `since` and `until` cut, and what is before is as it was."""
    send(db, "tenant_cost_events", *(a_cost(n, occurred_at=START + timedelta(days=n)) for n in range(20)))
    price(db, "1")
    done = in_batches(db, 3, again=True, since=START + timedelta(days=5), until=START + timedelta(days=15))
    assert sum(answer["repriced"] for answer in done) == 10
    left = db.execute("select count(*) as n from tenant_cost_events where unit_price <> 1").fetchone()
    assert left == {"n": 10}
