"""What was taken is measured by its own calls, repriced as they were made before: hand-computed windows in a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from tests.sql.helpers import Connection, a_call, call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.advice.measured import measure_due
from vital_tracking.queries.recommendations import saved_recommendation
from vital_tracking.stores.postgres import PostgresStore

TAKEN = datetime(2025, 3, 10, 12, tzinfo=UTC)
BEFORE = datetime(2025, 3, 1, 8, tzinfo=UTC)
AFTER = datetime(2025, 3, 20, 8, tzinfo=UTC)

# 1,000 tokens in and 100 out cost 0.012 at the large model, and 0.0012 at the small one.
PRICES = {"large": ("10", "20", "0.01", "0.002"), "small": ("1", "2", "0.001", "0.0002")}
LESS = Decimal("0.0108")

SWITCH = {
    "change": "SwitchModel",
    "where": {"provider": "own", "model": "large", "agent": "triage"},
    "model": "small",
    "provider": "own",
}


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with the calls of two months, and prices of both models."""
    postgres_server.create_database("measured", template=template_database)
    address = postgres_server.url("measured")
    with connect(address) as connection:
        for model, (of_input, of_output, _, _) in PRICES.items():
            price = {
                "provider": "own",
                "model": model,
                "input_usd_per_mtok": of_input,
                "output_usd_per_mtok": of_output,
            }
            call(connection, "add_model_price_v1", price=json.dumps({**price, "valid_from": "2020-01-01Z"}))
        rows: list[Any] = []
        # Of the work before, a quarter was done by the small model already; it doubles, and 4 calls stay with the large one.
        for at, large, small in ((BEFORE, 30, 10), (AFTER, 4, 76)):
            rows += [_made(len(rows) + place, at, model, agent="triage") for place, model in _models(large, small)]
        # Another agent's calls are no evidence, and neither are those of the day on which it was taken.
        rows += [_made(len(rows) + place, AFTER, "small", agent="other") for place in range(9)]
        rows += [_made(len(rows) + place, TAKEN, "small", agent="triage") for place in range(9)]
        # 5 of 20 answers came from a cache after, 1 of 20 before.
        for at, hits in ((BEFORE, 1), (AFTER, 5)):
            rows += [_made(len(rows) + place, at, "large", agent="faq", hit=place < hits) for place in range(20)]
        assert record(connection, *rows)["inserted"] == len(rows)
    yield address
    postgres_server.drop_database("measured")


def _models(large: int, small: int) -> Iterator[tuple[int, str]]:
    yield from enumerate(["large"] * large + ["small"] * small)


def _made(number: int, at: datetime, model: str, *, agent: str, hit: bool = False) -> dict[str, Any]:
    _, _, of_input, of_output = PRICES[model]
    potential = str(Decimal(of_input) + Decimal(of_output))
    return a_call(
        number,
        created_at=(at + timedelta(minutes=number % 60)).isoformat(),
        organization_id="acme",
        provider="own",
        model=model,
        agent_id=agent,
        service_type="workflow",
        prompt_tokens=1000,
        completion_tokens=100,
        total_tokens=1100,
        cache_hit=hit,
        input_cost="0" if hit else of_input,
        output_cost="0" if hit else of_output,
        total_cost="0" if hit else potential,
        potential_cost=potential,
    )


@pytest.fixture
def database(url: str) -> Iterator[Connection]:
    """Its owner's connection, with no advice yet."""
    with connect(url) as connection:
        connection.execute("truncate recommendations, advice_runs")
        yield connection


def taken(database: Connection, **changes: Any) -> str:
    """A recommendation that was taken; its id."""
    one = a_recommendation(1, organization_id="acme", evidence={"agent": "triage", "model": "large"}, **changes)
    call(database, "save_advice_v1", advice=json.dumps(an_advice(one, organization_id="acme")))
    call(database, "decide_recommendation_v1", recommendation=an_id(1), decision="taken")
    database.execute("update recommendations set decided_at = %s", [TAKEN])
    return an_id(1)


def test_a_switch_is_measured_by_repricing_what_the_other_model_answers_since(database: Connection, url: str) -> None:
    """If this failed, an admin would take our promise for what came of it."""
    number = taken(database, changes=[SWITCH])
    with closing(PostgresStore(url)) as store:
        assert measure_due(store, store, now=datetime(2025, 4, 9, 23, tzinfo=UTC)) == []
        [done] = measure_due(store, store)
        assert done == saved_recommendation(store, number)
        assert measure_due(store, store) == []
    # 76 calls cost less now; of 80 calls 20 would have been the small model's as before.
    assert done["measured_saving"] == 76 * LESS - 20 * LESS
    assert done["measured_note"] == (
        "76 of 80 calls from 2025-03-11 to 2025-04-09, repriced as they were made before, saved $0.8208; $0.2160 of it as"
        " before."
    )


def test_a_cache_is_measured_by_what_its_answers_would_have_cost(database: Connection, url: str) -> None:
    """If this failed, a cache that hardly answers would be praised, or one that does not be blamed."""
    taken(
        database, type="caching", changes=[{"change": "ExactCache", "where": {"service": "workflow", "agent": "faq"}}]
    )
    with closing(PostgresStore(url)) as store:
        [done] = measure_due(store, store)
    assert done["measured_saving"] == 4 * Decimal("0.012")
    assert (done["measured_note"] or "").startswith("5 of 20 calls")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "plan_upgrade", "changes": []}, "subscribers pay"),
        ({"type": "job_scheduling", "changes": [{"change": "OffPeak", "where": {}}]}, "At which hour"),
        ({"changes": [{**SWITCH, "where": {"agent": "nobody", "provider": "own", "model": "large"}}]}, "Nobody called"),
        ({"changes": []}, "not known"),
    ],
)
def test_what_cannot_be_measured_is_said_and_never_guessed(
    database: Connection, url: str, changes: dict[str, Any], why: str
) -> None:
    """If this failed, a made-up figure would stand beside the promise."""
    taken(database, **changes)
    with closing(PostgresStore(url)) as store:
        [done] = measure_due(store, store)
    assert done["measured_saving"] is None
    assert why in (done["measured_note"] or "")
