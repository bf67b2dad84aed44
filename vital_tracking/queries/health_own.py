"""What somebody who is signed in should know of what is recorded for them: their calls, prices, budgets and organizations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Final

from vital_tracking.queries.access import memberships
from vital_tracking.queries.budgets import BudgetWindow, windows
from vital_tracking.queries.calls import last_call_at
from vital_tracking.queries.check import Check
from vital_tracking.queries.explore import Period, explore
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

_DAYS: Final = 30
_MOST_FAILED: Final = 10
_MODELS: Final = 20


def examine_own(store: Store) -> Iterator[Check]:
    """Checks of what a store's reader may see, with what he can do himself. Raises StoreError where it does not answer."""
    yield from _organizations(store)
    yield from _calls(store)
    yield from _budgets(windows(store))


def _organizations(store: Store) -> Iterator[Check]:
    mine = memberships(store)
    if not mine:
        yield Check(
            "ok",
            "you belong to no organization, and see your own calls alone",
            "An admin of your organization adds you, by your user id.",
        )
    for one in mine:
        sees = "your own calls" if one.role == "member" else "all of its calls"
        yield Check("ok", f"you are {one.role} of {one.organization_id}, and see {sees}")


def _calls(store: Store) -> Iterator[Check]:
    last = last_call_at(store)
    if last is None:
        yield Check(
            "warn",
            "no call is recorded that you may see",
            "Calls are yours where they are made with your user id: the one that your token carries as `sub`.",
        )
        return
    yield Check("ok", f"the last call that you may see began at {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    found = explore(
        store,
        Period.last_days(_DAYS),
        by=("model",),
        measures=("calls", "failed_calls", "unpriced_calls", "total_cost"),
        order_by="unpriced_calls",
        rows=_MODELS,
    )
    if unpriced := found.total["unpriced_calls"]:
        models = ", ".join(row["model"] or "(no model)" for row in found.rows if row["unpriced_calls"])
        yield Check(
            "warn",
            f"{counted(unpriced, 'unpriced call')} in the last {_DAYS} days, which are in no cost: {models}",
            "An operator sets their prices; the page of prices has the command.",
        )
    else:
        yield Check("ok", f"every call of the last {_DAYS} days has a price")
    calls, failed = found.total["calls"], found.total["failed_calls"]
    if calls and failed * 100 > calls * _MOST_FAILED:
        yield Check(
            "warn",
            f"{failed:,} of {counted(calls, 'call')} in the last {_DAYS} days failed",
            "The list of calls shows them with the filter status=error, and what class their errors are of.",
        )


def _budgets(running: list[BudgetWindow]) -> Iterator[Check]:
    full = [window for window in running if window["left"] <= 0]
    for window in full:
        yield Check(
            "warn",
            f"the budget of {window['entity_type']} {window['entity_id']}, {window['period']}, is reached: "
            f"{window['spent']:f} spent of {window['limit_amount']:f} {window['metric']}",
            "It begins anew with its next window; an admin of the organization can raise it until then.",
        )
    if running and not full:
        yield Check("ok", f"{counted(len(running), 'budget window')}, and none at its limit")
