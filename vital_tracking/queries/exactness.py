"""Calls whose cost is not known exactly, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.doubts import Doubt, doubt_about
from vital_tracking.core.price_list import RELEASE
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.check import Check
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores import Store

_SHOWN: Final = 10


@answer_type
class InexactCalls(TypedDict):
    """Calls of a model that share a reason why their cost is no exact one; `cost` is that of those with a price, in US dollars.

    `reason` is `usage_estimated`, `ended_early` (estimated, too, since the call did not succeed), `usage_missing`, `unpriced`,
    or a note of the row on a modality, a unit, a total, a tier, passes, or what an integration hides (`cache_hidden`).
    """

    provider: str | None
    model: str | None
    framework: str | None
    call_type: str
    reason: str
    calls: int
    cost: Decimal | None
    newest: datetime


@answer_type
class UsedPriceList(TypedDict):
    """A release of genai-prices by which calls were priced."""

    version: str
    calls: int
    newest: datetime


@answer_type
class Exactness(TypedDict):
    """Which of the calls from `since` on are not known exactly. `complete` is False where there were too many to read them all.

    `calls` is how many were read, the newest ones; of `rows` there are at most 200, those with most calls first.
    """

    since: datetime
    complete: bool
    calls: int
    rows: list[InexactCalls]
    price_lists: list[UsedPriceList]


def inexact_calls(store: Store, *, since: datetime) -> Exactness:
    """Which calls from `since` on have a cost that is not known exactly, and why. Raises StoreError."""
    return typed(Exactness, store.call("inexact_calls_v1", since=since))


def check_exactness(found: Exactness) -> Iterator[Check]:
    """The checks of `doctor` on this: one a reason and model, with what to do. Unpriced calls have a check of their own."""
    rows = [row for row in found["rows"] if row["reason"] != "unpriced"]
    if not rows:
        yield Check("ok", f"the cost of every call that has a price is exact ({_of(found)})")
    for row in rows[:_SHOWN]:
        doubt = doubt_about(row["reason"], row["model"])
        calls = f"{counted(row['calls'], 'call')} of {_model(row)}, {_cost(row)}"
        yield Check("warn", f"{calls}: {_why(row, doubt)}", _fix(row, doubt))
    if more := rows[_SHOWN:]:
        yield Check(
            "warn", f"{sum(row['calls'] for row in more)} more calls whose cost is not exact", "See: doctor --json"
        )
    if stale := [used for used in found["price_lists"] if used["version"] != RELEASE]:
        versions = ", ".join(used["version"] for used in stale)
        yield Check(
            "warn",
            f"{counted(sum(used['calls'] for used in stale), 'call')} of the last week priced by genai-prices {versions}; "
            f"here is {RELEASE}",
            "Install the same release wherever calls are made. What it changes: vital-tracking prices check",
        )


def _cost(row: InexactCalls) -> str:
    return "without a known price" if row["cost"] is None else usd(row["cost"])


def _why(row: InexactCalls, doubt: Doubt | None) -> str:
    return doubt.why if doubt is not None else row["reason"].replace("_", " ").replace(":", ": ")


def _fix(row: InexactCalls, doubt: Doubt | None) -> str | None:
    if row["reason"] == "usage_estimated" and row["call_type"] == "embedding":
        return "The client of these embeddings reports no tokens."
    return None if doubt is None else doubt.fix


def _model(row: InexactCalls) -> str:
    return " ".join(part for part in (row["provider"], row["model"] or "(no model)") if part)


def _of(found: Exactness) -> str:
    calls = counted(found["calls"], "call")
    return f"{calls} of the last week" if found["complete"] else f"the newest {calls}"
