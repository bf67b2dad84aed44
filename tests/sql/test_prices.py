"""The team's own prices, and putting prices on calls that had none."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import Connection, Row, a_call, an_unpriced_call, assert_waits_for_lock, call_id, connect, record
from vital_tracking.core.record import PRICE_FACTS

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


def test_prices_of_units_come_as_the_text_that_was_written(db: Connection) -> None:
    """If this failed, the price of a search would be rounded, or a slip in one be taken for an amount."""
    exact = "0.010000000000000000000000000000000001"
    first = add(db, unit_prices={"web_searches": exact, "output_image_tokens": 30})
    assert add(db, unit_prices={"output_image_tokens": "30.00", "web_searches": exact}) == first
    alone = {"model": "n", "input_usd_per_mtok": None, "unit_prices": {"web_searches": "0.01"}}
    add(db, **alone)
    found = {price["model"]: price for price in prices(db)}
    assert found["m"]["unit_prices"] == {"web_searches": exact, "output_image_tokens": "30"}
    assert found["n"]["unit_prices"] == {"web_searches": "0.01"}
    assert (found["n"]["input_usd_per_mtok"], found["n"]["output_usd_per_mtok"]) == (None, None)
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(db, unit_prices={"web_searches": exact})
    for wrong, error in (
        ({"web_searches": "NaN"}, psycopg.errors.CheckViolation),
        ({"web_searches": "-1"}, psycopg.errors.CheckViolation),
        ({"web_searches": None}, psycopg.errors.CheckViolation),
        ({"web_searches": "a cent"}, psycopg.errors.InvalidTextRepresentation),
        ([1], psycopg.errors.InvalidParameterValue),
    ):
        with pytest.raises(error):
            add(db, model="wrong", unit_prices=wrong)


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
        ('{"model": "m", "unit_prices": {}}', "23502"),
        ('{"model": "m", "output_usd_per_mtok": 1, "unit_prices": {"web_searches": 1}}', "23514"),
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
    amounts = {"input_cost": "0.000000000000000000001", "output_cost": "0.2", "fees": "0.04", "price_version": "later"}
    totals = {"total_cost": "0.240000000000000000001", "potential_cost": "0.3"}
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
    for size, count in ((0, 1), (-5, 1), (None, 4), (100_000, 4)):
        assert len(unpriced(db, None, size)) == count


def test_an_unpriced_call_carries_what_a_price_needs_and_no_more(db: Connection) -> None:
    """If this failed, calls would be repriced wrongly, or a user's data would leave the database for it."""
    facts = {fact: f"some {fact}" for fact in PRICE_FACTS}
    units = {"web_searches": 4, "audio_seconds": 12.5, "passes": [{"model": "n", "input_tokens": 5}]}
    names = {"model": "m", "sent_model": "m-alias", "requested_model": "dear"}
    noted = {"user_id": "secret", "metadata": {**facts, "note": "secret"}}
    record(db, an_unpriced_call(1, **names, **noted, billed_units=units, reported_cost="0.010", calls=7))
    [row] = unpriced(db)
    assert {name: row[name] for name in names} == names
    assert row["price_facts"] == facts
    assert (row["prompt_tokens"], row["completion_tokens"], row["calls"]) == (100, 20, 7)
    assert (json.loads(row["billed_units"]), row["reported_cost"]) == (units, "0.010")
    assert "secret" not in json.dumps(row)


def test_calls_come_with_what_they_cost_page_by_page_and_each_once(db: Connection) -> None:
    """If this failed, a check of prices would miss calls, or never end."""
    since = "2026-01-15T10:00:00+00:00"
    record(
        db,
        a_call(3, created_at="2026-01-15T09:59:59.999999+00:00"),
        a_call(2, created_at="2038-01-01T00:00:00+00:00", total_cost="0.46", reported_cost="0.450"),
        an_unpriced_call(5, usage_estimated=True, metadata={"notes": ["usage_missing"]}),
        a_call(1, status="blocked", input_cost="0", output_cost="0", total_cost="0"),
        a_call(4, price_version="not billed", billed_units={"web_searches": 4}),
    )

    def page(after: str | None, size: int) -> list[Row]:
        row = db.execute("select calls_to_price_v1(%s, %s, %s) as calls", [since, after, size]).fetchone()
        assert row is not None
        return list(row["calls"])

    found: list[Row] = []
    while more := page(found[-1]["id"] if found else None, 2):
        found += more
    assert [call["id"] for call in found] == [call_id(number) for number in (2, 4, 5)]
    assert [(call["total_cost"], call["reported_cost"], call["price_version"]) for call in found] == [
        ("0.46", "0.450", "test"),
        ("0.42", None, "not billed"),
        (None, None, None),
    ]
    assert [call["usage_missing"] for call in found] == [False, False, True]
    assert len(page(None, 100_000)) == 3


def test_repricing_puts_the_exact_price_on_a_call_once(db: Connection) -> None:
    """If this failed, running `reprice` twice would change the books."""
    record(db, an_unpriced_call(1), an_unpriced_call(2))
    [first, _] = unpriced(db)
    assert reprice(db, a_price_for(first)) == 1
    assert reprice(db, a_price_for(first, total_cost="99")) == 0
    row = db.execute("select * from token_usage_logs where id = %s", [first["id"]]).fetchone()
    assert row is not None
    assert (row["priced"], str(row["total_cost"]), row["price_version"]) == (True, "0.240000000000000000001", "later")
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
    free = {"input_cost": "0", "output_cost": "0", "fees": "0", "total_cost": "0"}
    assert reprice(db, a_price_for(an_unpriced_call(1), **free)) == 1


def test_an_incomplete_price_is_refused(db: Connection) -> None:
    """If this failed, a call could count as priced with no amount."""
    record(db, an_unpriced_call(1))
    with pytest.raises(psycopg.errors.CheckViolation):
        reprice(db, a_price_for(an_unpriced_call(1), total_cost=None))
