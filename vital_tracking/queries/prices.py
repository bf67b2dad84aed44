"""What models cost: the team's own prices, dated, over those of genai-prices; and calls that had no price."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.core.cost import Cost
from vital_tracking.core.pricing import FREE_VERSION, PriceBook
from vital_tracking.core.record import CallRecord
from vital_tracking.core.sanitize import money
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.upkeep import team_prices
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

FIRST_CALL: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""From when on a price holds that prices all calls, however old."""

BATCH: Final = 1000
"""How many calls are read at once, the most that the database gives."""


@answer_type
class ModelPrice(TypedDict):
    """A price of the team's own, in US dollars per million tokens; `request_usd` is for each request on top.

    `unit_prices` are for what is billed beside plain tokens, by the unit's name: US dollars for one, for tokens for a million.
    An entry without `input_usd_per_mtok` changes these alone. It holds from `valid_from` on, until a later entry. `provider`
    None is for any.
    """

    id: int
    provider: str | None
    model: str
    valid_from: datetime
    input_usd_per_mtok: Decimal | None
    output_usd_per_mtok: Decimal | None
    cache_read_usd_per_mtok: Decimal | None
    cache_write_usd_per_mtok: Decimal | None
    cache_write_1h_usd_per_mtok: Decimal | None
    reasoning_usd_per_mtok: Decimal | None
    audio_input_usd_per_mtok: Decimal | None
    audio_output_usd_per_mtok: Decimal | None
    request_usd: Decimal | None
    unit_prices: dict[str, Decimal] | None
    note: str | None


def model_prices(store: Store) -> list[ModelPrice]:
    """The team's own prices, the newest first. Raises StoreError where the database cannot answer."""
    return typed(list[ModelPrice], store.call("model_prices_v1"))


def price_book(store: Store) -> PriceBook:
    """All prices that are known: the team's own, over those of genai-prices."""
    return PriceBook(team_prices(store.call("model_prices_v1")))


def add_price(
    store: Store,
    model: str,
    amounts: Mapping[str, str],
    *,
    units: Mapping[str, str] | None = None,
    provider: str | None = None,
    valid_from: datetime | None = None,
    note: str | None = None,
) -> datetime | None:
    """Add a price for calls that start from `valid_from` on; amounts are text, by the columns of ModelPrice or names of units.

    Without a date it holds from now on; but the first entry of one's own for a model holds from the first call on, since calls
    that wait for a price are older than this moment. Returns that date, or None for now. Prices are never overwritten.
    """
    start = valid_from
    if start is None and not _has_own_price(store, provider, model):
        start = FIRST_CALL
    named = {"model": model, "provider": provider, "note": note, "valid_from": start.isoformat() if start else None}
    price: dict[str, object] = {**amounts, **{name: value for name, value in named.items() if value is not None}}
    if units:
        price["unit_prices"] = dict(units)
    store.call("add_model_price_v1", price=json.dumps(price))
    return start


def _has_own_price(store: Store, provider: str | None, model: str) -> bool:
    wanted = (_folded(provider), _folded(model))
    return wanted in {(_folded(price["provider"]), _folded(price["model"])) for price in model_prices(store)}


def _folded(name: str | None) -> str | None:
    return name.strip().lower() if name else None


# Calls by what their price depends on


@answer_type
class CallToPrice(TypedDict):
    """A call by what its price depends on, and what it cost; `calls` is more than 1 where several were merged into one row.

    `billed_units` is JSON as text, so that no count becomes a float; `price_facts` are by what providers choose a variant.
    """

    id: UUID
    created_at: datetime
    provider: str | None
    model: str | None
    sent_model: str | None
    requested_model: str | None
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    audio_output_tokens: int
    usage_estimated: bool
    usage_missing: bool
    billed_units: str | None
    price_facts: dict[str, str]
    cache_hit: bool
    calls: int
    reported_cost: Decimal | None
    total_cost: Decimal | None
    price_version: str | None


def record_of_row(call: CallToPrice) -> CallRecord:
    """The record of a stored call, as far as its price goes."""
    usage = TokenUsage.of_columns(call, estimated=call["usage_estimated"])
    if call["billed_units"]:
        usage = usage.with_billed_units(json.loads(call["billed_units"], parse_float=Decimal))
    return CallRecord(
        id=str(call["id"]),
        created_at=call["created_at"],
        provider=call["provider"],
        model=call["model"],
        sent_model=call["sent_model"],
        requested_model=call["requested_model"],
        usage=usage,
        billed=call["price_version"] != FREE_VERSION,
        cache_hit=call["cache_hit"],
        price_facts=call["price_facts"],
        reported_cost=call["reported_cost"],
        notes=("usage_missing",) if call["usage_missing"] else (),
        calls=call["calls"],
    )


# Calls without a price


@dataclass(slots=True)
class Repriced:
    """What repricing did: calls looked at, calls priced, US dollars they cost; by model, calls whose price is still unknown."""

    calls: int = 0
    priced: int = 0
    cost: Decimal = Decimal(0)
    left: Counter[str] = field(default_factory=Counter)


def reprice(store: Store, *, dry_run: bool = False, progress: Callable[[Repriced], None] = lambda _: None) -> Repriced:
    """Give calls without a price the one that is known now, as of their start; with `dry_run` only tell what would be done.

    Calls that have a price keep it. `progress` is told after each batch. Raises StoreError; what was done stays done.
    """
    book = price_book(store)
    done = Repriced()
    after: CallToPrice | None = None
    while calls := _unpriced_calls(store, after):
        after = calls[-1]
        updates, known = [], 0
        for call in calls:
            cost = book.cost_of(record_of_row(call))
            if cost is None:
                done.left[call["model"] or "(no model)"] += call["calls"]
                continue
            updates.append(_update(call, cost))
            known += call["calls"]
            done.cost += cost.total
        stored = len(updates)
        if updates and not dry_run:
            stored = store.call("reprice_calls_v1", prices=json.dumps(updates))
        done.priced += known if stored == len(updates) else stored  # fewer where somebody else priced them meanwhile
        done.calls += sum(call["calls"] for call in calls)
        progress(done)
    return done


def _unpriced_calls(store: Store, after: CallToPrice | None) -> list[CallToPrice]:
    created_at, number = (after["created_at"], str(after["id"])) if after else (None, None)
    found = store.call("unpriced_calls_v1", after_created_at=created_at, after_id=number, batch_size=BATCH)
    return typed(list[CallToPrice], found)


def _update(call: CallToPrice, cost: Cost) -> dict[str, str]:
    return {
        "id": str(call["id"]),
        "created_at": call["created_at"].isoformat(),
        "input_cost": money(cost.input),
        "output_cost": money(cost.output),
        "fees": money(cost.fees),
        "total_cost": money(cost.total),
        "potential_cost": money(cost.potential),
        "price_version": cost.version,
    }
