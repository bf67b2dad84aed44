"""Checking prices: what calls would cost by a newer list, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot

from tests.integration.helpers import dollars
from tests.sql.helpers import a_call, an_unpriced_call
from vital_tracking import PriceBook, TokenUsage, VitalTracker
from vital_tracking.errors import VitalError
from vital_tracking.queries import check_prices, fetch_price_list
from vital_tracking.stores.postgres import PostgresStore

NOW = datetime.now(UTC)
WEEK = NOW - timedelta(days=7)
CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 1000, "completion_tokens": 100}
OLD = dollars((1000, "0.15"), (100, "0.60"))
NEW = dollars((1000, "0.30"), (100, "0.60"))


@pytest.fixture
def newest() -> Iterator[DataSnapshot]:
    """The installed list, but that gpt-4o-mini costs twice as much for prompts and gpt-4o is not there."""
    before = get_snapshot()
    providers = deepcopy(before.providers)
    [openai] = [provider for provider in providers if provider.id == "openai"]
    openai.models = [model for model in openai.models if model.id != "gpt-4o"]
    [mini] = [model for model in openai.models if model.id == "gpt-4o-mini"]
    mini.prices.input_mtok *= 2  # type: ignore[union-attr,operator]
    yield DataSnapshot(providers=providers, from_auto_update=False)
    assert get_snapshot() is before


def test_a_newer_list_shows_which_calls_would_cost_something_else(
    store: PostgresStore, tracker: VitalTracker, newest: DataSnapshot
) -> None:
    """If this failed, nobody would hear that a provider has raised its prices."""
    tracker.record(**CALL, started_at=NOW)
    tracker.record(**CALL, started_at=NOW - timedelta(days=1))
    tracker.record(**CALL, started_at=NOW - timedelta(days=8))
    tracker.record(**{**CALL, "model": "gpt-4.1-nano"}, started_at=NOW)
    assert tracker.flush().complete
    seen: list[tuple[int, int]] = []
    found = check_prices(store, since=WEEK, newest=newest, progress=lambda *numbers: seen.append(numbers))
    [change] = found.changes
    assert (change.model, change.calls, change.stored, change.in_use, change.newest) == (
        "gpt-4o-mini",
        2,
        2 * OLD,
        2 * OLD,
        2 * NEW,
    )
    assert change.difference == 2 * (NEW - OLD)
    assert (found.calls, found.left_out, found.fetched, seen) == (3, 0, True, [(3, 3)])
    assert check_prices(store, since=WEEK).changes == ()
    cost = PriceBook().cost(TokenUsage(1000, 100), "openai", ["gpt-4o-mini"], NOW)
    assert cost is not None
    assert cost.total == OLD, "the list in use is in use again"


def test_calls_without_a_price_stand_apart_and_merged_ones_are_left_out(
    store: PostgresStore, newest: DataSnapshot
) -> None:
    """If this failed, a sum would mix amounts with unknown ones, or blame a model for rows that hold many calls."""
    openai = {"provider": "openai", "created_at": NOW.isoformat()}
    calls = [
        a_call(1, **openai, model="gpt-4o-mini", total_cost="9", reported_cost="9.5"),
        an_unpriced_call(2, **openai, model="gpt-4o-mini"),
        an_unpriced_call(3, **openai, model="house-llm"),
        a_call(4, **openai, model="gpt-4o-mini", calls=3),
        a_call(5, **openai, model="gpt-4o-mini", price_version="own price openai/gpt-4o-mini"),
        a_call(
            8,
            **openai,
            model="gpt-4o-mini",
            price_version="genai-prices 1 openai/gpt-4o-mini with own price */gpt-4o-mini",
        ),
        a_call(
            6,
            **openai,
            model="gpt-4o-mini",
            price_version="not billed",
            total_cost="0",
            input_cost="0",
            output_cost="0",
        ),
        a_call(7, **openai, model="house-llm", price_version="model_prices 7"),
    ]
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == 8
    found = check_prices(store, since=WEEK, newest=newest)
    mini = dollars((100, "0.15"), (20, "0.60"))
    assert {(row.model, row.stored, row.in_use) for row in found.changes} == {
        ("gpt-4o-mini", Decimal(9), mini),
        ("gpt-4o-mini", None, mini),
        ("house-llm", Decimal("0.42"), None),
    }
    assert (found.calls, found.left_out) == (5, 5)
    [reported] = found.reported
    assert (reported.model, reported.calls, reported.difference) == ("gpt-4o-mini", 1, Decimal("0.5"))


def test_searches_and_facts_of_a_stored_call_are_priced_again_as_they_were(store: PostgresStore) -> None:
    """If this failed, a check would report differences where there are none, or repricing forget what was searched."""
    book = PriceBook()
    usage = TokenUsage(1000, 100).with_units({"web_searches": 4})
    cost = book.cost(usage, "openai", ["gpt-5"], NOW, facts={"service_tier": "flex"})
    assert cost is not None
    assert cost.fees == 4 * Decimal("0.01")
    call = a_call(
        1,
        provider="openai",
        model="gpt-5",
        created_at=NOW.isoformat(),
        prompt_tokens=1000,
        completion_tokens=100,
        total_tokens=1100,
        billed_units=usage.billed_units(),
        metadata={"service_tier": "flex"},
    )
    names = ("input", "output", "total", "potential")
    amounts = {f"{name}_cost": str(getattr(cost, name)) for name in names} | {"fees": str(cost.fees)}
    unpriced = {
        **an_unpriced_call(2),
        **{name: value for name, value in call.items() if name not in (*amounts, "id", "price_version")},
    }
    rows = [{**call, **amounts}, {**unpriced, "priced": False}]
    assert store.call("record_calls_v1", calls=json.dumps(rows))["inserted"] == 2
    [change] = check_prices(store, since=WEEK).changes
    assert (change.stored, change.in_use) == (None, cost.total)


def test_a_list_that_cannot_be_fetched_is_one_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, a check without a network would end in a traceback."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(VitalError, match="cannot be fetched"):
        fetch_price_list()
