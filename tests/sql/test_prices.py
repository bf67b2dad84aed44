"""The team's own prices, and putting prices on calls that had none."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import Connection, Row, a_call, an_unpriced_call, assert_waits_for_lock, call_id, connect, record

PRICE: Row = {"provider": "openai", "model": "m", "valid_from": "2026-01-01T00:00:00Z", "input_usd_per_mtok": "0.15"}


def add(db: Connection, **changes: Any) -> int:
    with db.transaction():
        row = db.execute("select add_model_price_v1(%s) as id", [json.dumps({**PRICE, **changes})]).fetchone()
    assert row is not None
    return int(row["id"])


def prices(db: Connection) -> list[Row]:
    row = db.execute("select model_prices_v1() as prices").fetchone()
    assert row is not None
    found = row["prices"]
    assert isinstance(found, list)
    return found


def test_no_prices_are_an_empty_list(db: Connection) -> None:
    """If this failed, a fresh database would stop the first batch."""
    assert prices(db) == []


def test_amounts_come_as_the_text_that_was_written(db: Connection) -> None:
    """If this failed, a client would read a price as a float and round money."""
    exact = "0.100000000000000000000000000000000001"
    add(db, input_usd_per_mtok=exact, output_usd_per_mtok="0.60", request_usd="0.005", note="our contract")
    [price] = prices(db)
    assert (price["input_usd_per_mtok"], price["output_usd_per_mtok"]) == (exact, "0.60")
    assert (price["request_usd"], price["cache_read_usd_per_mtok"], price["note"]) == ("0.005", None, "our contract")


def test_the_newest_price_comes_first(db: Connection) -> None:
    """If this failed, a call would be billed at an old price."""
    for year in (2025, 2027, 2026):
        add(db, valid_from=f"{year}-01-01T00:00:00Z", input_usd_per_mtok=str(year))
    assert [price["input_usd_per_mtok"] for price in prices(db)] == ["2027", "2026", "2025"]


def test_the_same_price_again_is_the_same_entry(db: Connection) -> None:
    """If this failed, a set-up script could not be run twice."""
    first = add(db)
    assert add(db) == first
    assert add(db, input_usd_per_mtok="0.150", provider=" OpenAI ", model=" M ") == first
    assert len(prices(db)) == 1


@pytest.mark.parametrize("change", [{"input_usd_per_mtok": "0.16"}, {"output_usd_per_mtok": "1"}, {"request_usd": "1"}])
def test_a_price_is_never_overwritten(db: Connection, change: Row) -> None:
    """If this failed, calls of the past would have been billed at a price that nobody can find."""
    add(db)
    with pytest.raises(psycopg.errors.UniqueViolation, match="Prices are never overwritten"):
        add(db, **change)
    assert [price["input_usd_per_mtok"] for price in prices(db)] == ["0.15"]


def test_a_provider_may_be_left_open(db: Connection) -> None:
    """If this failed, one price could not serve a model at every provider."""
    assert add(db, provider=None) == add(db, provider="  ")
    assert [price["provider"] for price in prices(db)] == [None]
    add(db, provider="azure", input_usd_per_mtok="9")


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("[]", "22023"),
        ("nonsense", "22P02"),
        ("null", "22023"),
        ("{}", "23502"),
        ('{"model": "m"}', "23502"),
        ('{"input_usd_per_mtok": 1}', "23502"),
        ('{"model": " ", "input_usd_per_mtok": 1}', "23514"),
        ('{"model": "m", "input_usd_per_mtok": "NaN"}', "23514"),
        ('{"model": "m", "input_usd_per_mtok": "a lot"}', "22P02"),
        ('{"model": "m", "input_usd_per_mtok": 1, "valid_from": "soon"}', "22007"),
    ],
)
def test_a_wrong_or_incomplete_price_is_refused(db: Connection, text: str, sqlstate: str) -> None:
    """If this failed, a slip would become a price."""
    with pytest.raises(psycopg.Error) as refused, db.transaction():
        db.execute("select add_model_price_v1(%s)", [text])
    assert refused.value.sqlstate == sqlstate


def test_the_same_price_from_two_connections_at_once_is_one_entry(own_db: Connection, database_url: str) -> None:
    """If this failed, two deployments that start together would see one of them fail."""
    with connect(database_url) as first, connect(database_url) as second, ThreadPoolExecutor(1) as pool:
        with first.transaction():
            made = add(first)
            waiting = pool.submit(add, second)
            assert_waits_for_lock(own_db)
        assert waiting.result(30) == made


def unpriced(db: Connection, after: Row | None = None, size: int | None = 1000) -> list[Row]:
    cursor = (after["created_at"], after["id"]) if after else (None, None)
    row = db.execute("select unpriced_calls_v1(%s::timestamptz, %s::uuid, %s) as calls", [*cursor, size]).fetchone()
    assert row is not None
    found = row["calls"]
    assert isinstance(found, list)
    return found


def reprice(db: Connection, *priced: Row) -> int:
    with db.transaction():
        row = db.execute("select reprice_calls_v1(%s) as repriced", [json.dumps(priced)]).fetchone()
    assert row is not None
    return int(row["repriced"])


def a_price_for(call: Row, **changes: Any) -> Row:
    amounts = {"input_cost": "0.000000000000000000001", "output_cost": "0.2", "price_version": "later"}
    totals = {"total_cost": "0.200000000000000000001", "potential_cost": "0.3"}
    return {"id": call["id"], "created_at": call["created_at"], **amounts, **totals, **changes}


def test_unpriced_calls_come_page_by_page_in_order_and_each_once(db: Connection) -> None:
    """If this failed, repricing would miss calls, or never end."""
    same = "2026-01-15T10:00:00+00:00"
    calls = [
        an_unpriced_call(3, created_at="2026-01-14T10:00:00+00:00"),
        an_unpriced_call(1, created_at=same),
        an_unpriced_call(2, created_at=same),
        an_unpriced_call(4, created_at="2038-01-01T00:00:00.000001+00:00"),
        a_call(5),
    ]
    record(db, *calls)
    pages: list[str] = []
    last: Row | None = None
    while page := unpriced(db, last, 2):
        pages += [row["id"] for row in page]
        last = page[-1]
    assert pages == [call_id(number) for number in (3, 1, 2, 4)]
    for size, count in ((0, 1), (-5, 1), (None, 1), (100_000, 4)):
        assert len(unpriced(db, None, size)) == count


def test_an_unpriced_call_carries_what_a_price_needs_and_no_more(db: Connection) -> None:
    """If this failed, calls would be repriced wrongly, or a user's data would leave the database for it."""
    noted = {"service_tier": "flex", "note": "secret"}
    record(db, an_unpriced_call(1, model="m", user_id="secret", metadata=noted, calls=7))
    [row] = unpriced(db)
    assert (row["model"], row["service_tier"], row["prompt_tokens"], row["completion_tokens"]) == ("m", "flex", 100, 20)
    assert row["calls"] == 7
    assert "secret" not in json.dumps(row)


def test_repricing_puts_the_exact_price_on_a_call_once(db: Connection) -> None:
    """If this failed, running `reprice` twice would change the books."""
    record(db, an_unpriced_call(1), an_unpriced_call(2))
    [first, _] = unpriced(db)
    assert reprice(db, a_price_for(first)) == 1
    assert reprice(db, a_price_for(first, total_cost="99")) == 0
    row = db.execute("select * from token_usage_logs where id = %s", [first["id"]]).fetchone()
    assert row is not None
    assert (row["priced"], str(row["total_cost"]), row["price_version"]) == (True, "0.200000000000000000001", "later")
    assert [call["id"] for call in unpriced(db)] == [call_id(2)]


def test_repricing_leaves_priced_and_unknown_calls_alone(db: Connection) -> None:
    """If this failed, history would be billed again at today's price."""
    record(db, a_call(1))
    unknown = {"id": call_id(9), "created_at": a_call(1)["created_at"]}
    assert reprice(db, a_price_for(a_call(1)), a_price_for(unknown)) == 0
    assert reprice(db) == 0


def test_a_cached_call_cannot_be_repriced_to_cost_something(db: Connection) -> None:
    """If this failed, an answer from the cache would be billed afterwards."""
    record(db, an_unpriced_call(1, cache_hit=True))
    with pytest.raises(psycopg.errors.CheckViolation):
        reprice(db, a_price_for(an_unpriced_call(1)))
    free = {"input_cost": "0", "output_cost": "0", "total_cost": "0"}
    assert reprice(db, a_price_for(an_unpriced_call(1), **free)) == 1


def test_an_incomplete_price_is_refused(db: Connection) -> None:
    """If this failed, a call could count as priced with no amount."""
    record(db, an_unpriced_call(1))
    with pytest.raises(psycopg.errors.CheckViolation):
        reprice(db, a_price_for(an_unpriced_call(1), total_cost=None))
