"""What budgets hold for calls of which there is never a row: nothing of it stays out of everybody's reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Any

from vital_tracking.core.draws import Draw
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord, Used
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.encoding import EndedCall, as_log_record
from vital_tracking.delivery.settlement import Settlement
from vital_tracking.delivery.stats import Counts
from vital_tracking.ids import new_id

KEY = bytes(16)


@dataclass
class AHold:
    holder: str = "h-1"
    settled: list[Draw] | None = None


class Budgets:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def settle(self, hold: AHold, used: Used, cost: Decimal | None) -> list[Draw]:
        hold.settled = [(1, "0.5")]
        return hold.settled

    def ended(self, hold: AHold, call: EndedCall, settle: Callable[[], object]) -> None:
        pass

    def posted(self, holder: str, draws: Iterable[Collection[Draw]]) -> None:
        self.told.append((holder, list(chain.from_iterable(draws))))

    def give_back(self, hold: AHold) -> None:
        self.told.append(hold)

    def prices_changed(self) -> None:
        pass


def a_call(hold: AHold) -> CallRecord:
    return CallRecord(new_id(), datetime(2026, 5, 4, tzinfo=UTC), hold=hold)


def has_ended(settlement: Settlement, key: bytes, hold: AHold) -> None:
    """A call was recorded for which so much is held."""
    call = a_call(hold)
    settlement.register(key, hold)
    settlement.ended(key, call, as_log_record(call, None)[0])


def a_settlement() -> tuple[Settlement, Budgets]:
    budgets = Budgets()
    return Settlement(Costs(PriceBook(), "15/75"), Counts(), budgets), budgets


def test_of_a_waiting_call_no_more_is_kept_than_what_it_drew() -> None:
    """If this failed, memory would grow with the calls that wait, however large the disk that they wait on is."""
    settlement, _ = a_settlement()
    keys = [number.to_bytes(16, "big") for number in range(2001)]
    for number, key in enumerate(keys):
        has_ended(settlement, key, AHold("h-1" if number else "h-0"))
    assert settlement.settle_pending()
    assert {type(hold).__name__ for hold in settlement._held.values()} == {"AHold", "_Settled"}
    for key in keys:
        settlement.settle(key, Used.by(a_call(AHold())), None)
    assert {type(hold).__name__ for hold in settlement._held.values()} == {"_Settled"}
    settlement.forget_lapsed()
    assert settlement._held.keys() == set(keys[1:])
    has_ended(settlement, keys[0], AHold("h-2"))
    settlement.forget_lapsed()
    assert settlement._held.keys() == {keys[0]}


def test_a_hold_that_is_not_settled_is_free_again() -> None:
    settlement, budgets = a_settlement()
    hold = AHold()
    has_ended(settlement, KEY, hold)
    settlement.give_back(KEY)
    settlement.give_back(KEY)
    assert budgets.told == [hold]


def test_draws_of_a_row_that_will_never_be_are_taken_out_of_the_grant() -> None:
    """If this failed, a part of a window's money would be kept by this process as long as it lives, for nothing."""
    settlement, budgets = a_settlement()
    has_ended(settlement, KEY, AHold())
    assert settlement.settle_pending()
    settlement.give_back(KEY)
    settlement.register_merged(KEY, "h-2", [(2, "0.25")])
    settlement.give_back(KEY)
    settlement.give_back(KEY)
    assert budgets.told == [("h-1", [(1, "0.5")]), ("h-2", [(2, "0.25")])]
