"""Whether stored calls cost what they would by the prices of today, and what their providers say that they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from genai_prices.update_prices import UpdatePrices

from vital_tracking.core.cost import MONEY
from vital_tracking.core.price_list import RELEASE, PriceList, listed_in
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord
from vital_tracking.errors import VitalError
from vital_tracking.queries.answers import typed
from vital_tracking.queries.export import row_totals
from vital_tracking.queries.prices import BATCH, CallToPrice, model_prices, price_book, record_of_row
from vital_tracking.stores import Store

CHECKED: Final = timedelta(days=7)
"""How far back calls are checked by default."""

_IN_CODE: Final = "own price "
"""In the version of a price that was given to a tracker in code, which is not known here."""


@dataclass(slots=True)
class PriceChange:
    """Calls of a model that would cost something else today, in US dollars; None where they have no price.

    `stored`: by the prices of `versions`, when they were recorded; `in_use`: by those in use now; `newest`: by the newest list.
    """

    provider: str | None
    model: str | None
    calls: int = 0
    stored: Decimal | None = None
    in_use: Decimal | None = None
    newest: Decimal | None = None
    versions: list[str] = field(default_factory=list)

    @property
    def difference(self) -> Decimal:
        """What the newest prices add to the stored cost."""
        return MONEY.subtract(self.newest or Decimal(0), self.stored or Decimal(0))


@dataclass(slots=True)
class ReportedCost:
    """Calls of a model of which the provider reports another cost than ours, in US dollars."""

    provider: str | None
    model: str | None
    calls: int = 0
    reported: Decimal = Decimal(0)
    ours: Decimal = Decimal(0)

    @property
    def difference(self) -> Decimal:
        """What the provider's figure adds to ours."""
        return MONEY.subtract(self.reported, self.ours)


@dataclass(frozen=True, slots=True)
class PriceCheck:
    """What a check found of the calls from `since` on; the largest differences come first.

    `release` is that of genai-prices in use, beside `own_prices` entries of the team's own; `fetched` says whether a newer list
    was at hand. `left_out` are calls that cannot be compared: merged into one row, or priced by what was given to a tracker in
    code.
    """

    since: datetime
    release: str
    own_prices: int
    fetched: bool
    calls: int
    left_out: int
    changes: tuple[PriceChange, ...]
    reported: tuple[ReportedCost, ...]


def fetch_price_list() -> PriceList:
    """The newest price list of genai-prices, over the network. Raises VitalError where it cannot be had."""
    try:
        found = UpdatePrices().fetch()
    except Exception as error:  # noqa: BLE001 - whatever the network or the answer is like, the installed list is there
        raise VitalError(f"The newest prices of genai-prices cannot be fetched ({type(error).__name__}).") from None
    if found is None:
        raise VitalError("The newest prices of genai-prices cannot be fetched (there are none).")
    return found


def check_prices(
    store: Store,
    *,
    since: datetime,
    newest: PriceList | None = None,
    progress: Callable[[int, int], None] = lambda _seen, _total: None,
) -> PriceCheck:
    """Price the calls from `since` on anew, by the prices in use and by `newest`, and compare; calls keep what they cost.

    `progress` is told how many rows of how many were seen. Raises StoreError. Meanwhile this process should price nothing else:
    the list that is not in use is put in its place for moments.
    """
    in_use, ahead = price_book(store), price_book(store)
    changes: dict[object, PriceChange] = {}
    reported: dict[object, ReportedCost] = {}
    total = row_totals(store, since=since)["rows"]
    seen = compared = left_out = 0
    after: UUID | None = None
    while batch := _calls(store, since, after):
        after = batch[-1]["id"]
        calls = [call for call in batch if call["calls"] == 1 and _IN_CODE not in (call["price_version"] or "")]
        records = [record_of_row(call) for call in calls]
        now = _costs(in_use, records, None)
        later = now if newest is None else _costs(ahead, records, newest)
        for call, by_use, by_newest in zip(calls, now, later, strict=True):
            _add_change(changes, call, by_use, by_newest)
            _add_reported(reported, call)
        compared += len(calls)
        left_out += sum(call["calls"] for call in batch) - len(calls)
        seen += len(batch)
        progress(seen, max(total, seen))
    return PriceCheck(
        since=since,
        release=RELEASE,
        own_prices=len(model_prices(store)),
        fetched=newest is not None,
        calls=compared,
        left_out=left_out,
        changes=tuple(sorted(changes.values(), key=lambda row: abs(row.difference), reverse=True)),
        reported=tuple(sorted(reported.values(), key=lambda row: abs(row.difference), reverse=True)),
    )


def _calls(store: Store, since: datetime, after: UUID | None) -> list[CallToPrice]:
    found = store.call("calls_to_price_v1", since=since, after_id=str(after) if after else None, batch_size=BATCH)
    return typed(list[CallToPrice], found)


def _costs(book: PriceBook, records: Sequence[CallRecord], prices: PriceList | None) -> list[Decimal | None]:
    with listed_in(prices):
        costs = [book.cost_of(record) for record in records]
    return [cost.total if cost is not None else None for cost in costs]


def _add_change(
    changes: dict[object, PriceChange], call: CallToPrice, in_use: Decimal | None, newest: Decimal | None
) -> None:
    """Add a call to the others of its model, unless it costs the same. Those without a price stand apart: sums are whole."""
    stored = call["total_cost"]
    if stored == in_use == newest:
        return
    key = (call["provider"], call["model"], stored is None, in_use is None, newest is None)
    change = changes.setdefault(key, PriceChange(call["provider"], call["model"]))
    change.calls += 1
    change.stored, change.in_use = _sum(change.stored, stored), _sum(change.in_use, in_use)
    change.newest = _sum(change.newest, newest)
    version = call["price_version"]
    if version is not None and version not in change.versions:
        change.versions.append(version)


def _add_reported(reported: dict[object, ReportedCost], call: CallToPrice) -> None:
    theirs, ours = call["reported_cost"], call["total_cost"]
    if theirs is None or ours is None or theirs == ours:
        return
    row = reported.setdefault((call["provider"], call["model"]), ReportedCost(call["provider"], call["model"]))
    row.calls += 1
    row.reported, row.ours = MONEY.add(row.reported, theirs), MONEY.add(row.ours, ours)


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return one if other is None else MONEY.add(one or Decimal(0), other)
