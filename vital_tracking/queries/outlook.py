"""When budgets will be reached, at the rate at which their windows are being spent. Pure, but for `outlooks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from vital_tracking.queries.budgets import MOST_WINDOWS, BudgetWindow, windows
from vital_tracking.stores import Store

_ENOUGH: Final = Decimal("0.1")
"""How much of a window must have passed before its own rate says anything."""
_ENOUGH_OF_ENDLESS: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)

RestsOn = Literal["ended", "reached", "this window", "the window before", "too little"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """When a window's limit will be reached: `reached_at`, None where it lasts until the window ends, or nobody can tell.

    `rate_per_hour` is in the budget's metric. `rests_on` says what the rate was taken from: this window once a tenth of it has
    passed (of one that never ends: a day), before that the window before; `too little` where there is none, `reached` where
    the limit is reached already, and `ended` where the window is over.
    """

    reached_at: datetime | None
    rate_per_hour: Decimal | None
    rests_on: RestsOn


def outlook(window: BudgetWindow, before: BudgetWindow | None, now: datetime) -> Outlook:
    """The outlook of a window; `before` is the one before it, of the same budget, entity and period."""
    rests_on: RestsOn
    if window["ends_at"] is not None and window["ends_at"] <= now:
        return Outlook(reached_at=None, rate_per_hour=None, rests_on="ended")
    if window["spent"] >= window["limit_amount"]:
        return Outlook(reached_at=None, rate_per_hour=None, rests_on="reached")
    if _enough(window, now):
        rate, rests_on = _rate(window["spent"], now - window["starts_at"]), "this window"
    elif before is not None and before["ends_at"] is not None:
        rate, rests_on = _rate(before["spent"], before["ends_at"] - before["starts_at"]), "the window before"
    else:
        return Outlook(reached_at=None, rate_per_hour=None, rests_on="too little")
    return Outlook(reached_at=_reached(window, rate, now), rate_per_hour=rate, rests_on=rests_on)


def outlooks(store: Store, running: Sequence[BudgetWindow], now: datetime) -> list[Outlook]:
    """The outlook of each of these windows, by the database's clock. Raises StoreError."""
    young = any(not _enough(window, now) and window["spent"] < window["limit_amount"] for window in running)
    before = _newest_ended(windows(store, ended=True, limit=MOST_WINDOWS), now) if young else {}
    return [outlook(window, before.get(_key(window)), now) for window in running]


def _enough(window: BudgetWindow, now: datetime) -> bool:
    passed = now - window["starts_at"]
    if window["ends_at"] is None:
        return passed >= _ENOUGH_OF_ENDLESS
    return passed >= (window["ends_at"] - window["starts_at"]) * float(_ENOUGH)


def _rate(spent: Decimal, passed: timedelta) -> Decimal:
    return spent / Decimal(str(passed / _HOUR)) if passed > timedelta(0) else Decimal(0)


def _reached(window: BudgetWindow, rate: Decimal, now: datetime) -> datetime | None:
    if rate <= 0:
        return None
    hours = (window["limit_amount"] - window["spent"]) / rate
    if hours > 1_000_000:  # a century: as good as never
        return None
    at = now + timedelta(hours=float(hours))
    return None if window["ends_at"] is not None and at >= window["ends_at"] else at


def _key(window: BudgetWindow) -> tuple[object, ...]:
    return window["budget_id"], window["entity_id"], window["period"]


def _newest_ended(rows: Iterable[BudgetWindow], now: datetime) -> dict[tuple[object, ...], BudgetWindow]:
    newest: dict[tuple[object, ...], BudgetWindow] = {}
    for row in rows:
        if row["ends_at"] is not None and row["ends_at"] <= now:
            known = newest.get(_key(row))
            if known is None or known["starts_at"] < row["starts_at"]:
                newest[_key(row)] = row
    return newest
