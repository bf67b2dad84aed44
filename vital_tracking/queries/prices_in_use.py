"""The prices of the models that were called: which is in force, where it comes from, and what has none."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Literal

from typing_extensions import TypedDict

from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.rates import Rates, Tiers
from vital_tracking.core.units import UNITS
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.explore import Filters, Period, explore
from vital_tracking.queries.prices import ModelPrice
from vital_tracking.stores import Store
from vital_tracking.stores.relations import ColumnKind, Relation

_AMOUNTS: Final = tuple(name for name in ModelPrice.__annotations__ if "_usd" in name)
_PRICES: Final = Relation(
    "model_prices",
    {
        "id": ColumnKind.integer,
        **dict.fromkeys(("provider", "model"), ColumnKind.text),
        "valid_from": ColumnKind.time,
        **dict.fromkeys(_AMOUNTS, ColumnKind.decimal),
        "unit_prices": ColumnKind.json,
        "note": ColumnKind.text,
    },
    time="valid_from",
    key=("id",),
    unique=True,
)
_OWN: Final = re.compile(r"model_prices (\d+)$")
_MOST_MODELS: Final = 500

Source = Literal["list", "own", "none"]


@answer_type
class RateInForce(TypedDict):
    """What one unit costs: `usd` for `per` of them (a million tokens, one of anything else), from so many prompt tokens on."""

    unit: str
    usd: Amount
    per: int
    above_prompt_tokens: int


@answer_type
class PriceInUse(TypedDict):
    """A model that was called, and its price now: from the `list` of genai-prices, the team's `own`, or `none`.

    `version` and `rates` are None where there is no price, or where it is one of the team's own that the reader may not see.
    `mend` is the command that gives `unpriced_calls` their price; None where there are none.
    """

    provider: str | None
    model: str | None
    calls: int
    unpriced_calls: int
    total_cost: Amount | None
    source: Source
    version: str | None
    rates: list[RateInForce] | None
    mend: str | None


@answer_type
class PricesInUse(TypedDict):
    """The models in use from `since` up to `until`, the dearest first, of `models` in all; and the own prices one may see."""

    since: datetime
    until: datetime
    models: int
    unpriced_calls: int
    rows: list[PriceInUse]
    own_prices: list[ModelPrice]


def visible_prices(store: Store) -> list[ModelPrice]:
    """The team's own prices as the store's reader may see them, the newest first."""
    found = [_entry(values) for rows in store.stream(_PRICES) for values in rows]
    return sorted(typed(list[ModelPrice], found), key=lambda price: (price["valid_from"], price["id"]), reverse=True)


def _entry(values: tuple[str | None, ...]) -> dict[str, object]:
    row: dict[str, object] = dict(zip(_PRICES.columns, values, strict=True))
    units = row["unit_prices"]
    return {**row, "unit_prices": json.loads(units, parse_float=str, parse_int=str) if isinstance(units, str) else None}


def prices_in_use(store: Store, book: PriceBook, period: Period, filters: Filters | None = None) -> PricesInUse:
    """The models of the calls that a store's reader may see, with the prices of a book; own ones only if he may see them, too."""
    found = explore(
        store,
        period,
        by=("provider", "model"),
        filters=filters,
        measures=("calls", "unpriced_calls", "total_cost"),
        rows=_MOST_MODELS,
    )
    own = visible_prices(store)
    seen = {price["id"] for price in own}
    now = datetime.now(UTC)
    rows: list[PriceInUse] = []
    for row in found.rows:
        provider, model, unpriced = row["provider"], row["model"], row["unpriced_calls"]
        rates = book.rates(provider, model, now) if model else None
        entry = _OWN.search(rates.version) if rates else None
        shown = rates if entry is None or int(entry[1]) in seen else None
        rows.append({
            "provider": provider,
            "model": model,
            "calls": row["calls"],
            "unpriced_calls": unpriced,
            "total_cost": None if unpriced == row["calls"] else row["total_cost"],
            "source": "none" if rates is None else "own" if entry else "list",
            "version": shown.version if shown else None,
            "rates": list(_rates(shown)) if shown else None,
            "mend": mending(provider, model, known=rates is not None) if unpriced else None,
        })  # fmt: skip
    return {
        "since": found.since,
        "until": found.until,
        "models": found.groups,
        "unpriced_calls": found.total["unpriced_calls"],
        "rows": rows,
        "own_prices": own,
    }


def mending(provider: str | None, model: str | None, *, known: bool) -> str | None:
    """The command that prices the unpriced calls of a model, fit for a shell whatever its name; None where it has no name."""
    if known:
        return "vital-tracking reprice"
    if not model:
        return None
    by = f" --provider={shlex.quote(provider)}" if provider else ""
    name = f"-- {shlex.quote(model)}" if model.startswith("-") else shlex.quote(model)
    return f"vital-tracking prices set{by} --input=USD --output=USD {name} && vital-tracking reprice"


def _rates(rates: Rates) -> Iterator[RateInForce]:
    for name, rate in rates.rates.items():
        unit = UNITS.get(name)
        per = unit.scale if unit is not None else 1
        tiers = ((0, rate.base), *rate.tiers) if isinstance(rate, Tiers) else ((0, rate),)
        for above, usd in tiers:
            yield {"unit": name, "usd": (usd * per).normalize() + 0, "per": per, "above_prompt_tokens": above}
