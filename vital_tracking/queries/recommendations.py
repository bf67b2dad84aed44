"""Advice that was saved: recommendations with their savings, what was decided about them, and what they really saved.

Savings are US dollars a month of 30 days, as Decimal; the bill is that of the window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store

Status = Literal["open", "taken", "dismissed"]

STATUSES: Final[tuple[Status, ...]] = ("open", "taken", "dismissed")
MOST: Final = 1000


@answer_type
class Range(TypedDict):
    """US dollars a month: at least, as expected, at most."""

    low: Amount
    expected: Amount
    high: Amount


NOTHING: Final[Range] = {"low": ZERO, "expected": ZERO, "high": ZERO}


@answer_type
class SavedRecommendation(TypedDict):
    """A recommendation and what became of it.

    `saving` is what it saves where it alone is taken, `sequential` what it adds where those before it are taken, too. `evidence`
    are the filters of the `calls` that it rests on, from `since` to `until`. `changes` are what it does to them.
    `promised` is its saving when it was taken; `measured_saving` what it really saved, which can be told from `measured_from` on;
    None: not yet, or it cannot be (`measured_note`).
    """

    id: str
    organization_id: str | None
    type: str
    subject: dict[str, str | None]
    current: str
    recommended: str
    impact: str
    since: datetime
    until: datetime
    calls: int
    evidence: dict[str, Any]
    saving: Range
    sequential: Range
    counted: bool
    revenue: Amount | None
    confidence: str
    effort: str
    priority: str
    risk: str
    how_to_try: str
    command: str | None
    assumptions: list[str]
    changes: list[dict[str, Any]]
    first_seen: datetime
    last_seen: datetime
    still_given: bool
    status: Status
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    promised: Range | None
    measured_saving: Amount | None
    measured_at: datetime | None
    measured_note: str | None
    measured_from: datetime | None


@answer_type
class Inapplicable(TypedDict):
    """A kind that gives no advice, and why."""

    type: str
    reason: str


@answer_type
class LastAdvice(TypedDict):
    """What was found when advice was last looked for, of an organization or of all (None), at `found_at`.

    `recommendations` stand in the order in which their savings are counted; `bill` is that of the window `since` to `until`.
    """

    organization_id: str | None
    since: datetime
    until: datetime
    found_at: datetime
    bill: Amount
    total: Range
    not_applicable: list[Inapplicable]
    notes: list[str]
    recommendations: list[SavedRecommendation]


class NoSuchRecommendation(StoreRejected):
    """There is no recommendation of that id that the caller may see."""


def saved_recommendations(
    store: Store,
    *,
    organization: str | None = None,
    status: Status | None = None,
    due: bool = False,
    limit: int = 500,
) -> list[SavedRecommendation]:
    """Those that may be seen, what is given now first, then by saving; `due`: taken 30 days ago and not measured yet."""
    found = store.call("recommendations_v1", organization=organization, status=status, due=due, max_rows=limit)
    return typed(list[SavedRecommendation], found)


def saved_recommendation(store: Store, recommendation: str) -> SavedRecommendation:
    """The one of an id; NoSuchRecommendation where there is none that may be seen."""
    found = typed(list[SavedRecommendation], store.call("recommendations_v1", id=recommendation))
    if not found:
        raise _missing(recommendation)
    return found[0]


def last_advice(store: Store, *, organization: str | None = None) -> LastAdvice | None:
    """What was found last, of an organization or of all; None where nobody has looked, or it may not be seen."""
    found = store.call("last_advice_v1", organization=organization)
    return None if found is None else typed(LastAdvice, found)


def check_may_renew(store: Store, *, organization: str | None) -> None:
    """Have it decided and noted whether the caller may have advice looked for; StoreRejected where not."""
    _accepted("", store.call("may_renew_advice_v1", organization=organization))


def save_advice(store: Store, advice: Mapping[str, Any]) -> int:
    """Save what was found, with the store's own rights, and answer how many recommendations are new.

    `advice` has the fields of LastAdvice but `found_at`, its recommendations those up to `assumptions`. Amounts are Decimal.
    """
    saved = store.call("save_advice_v1", advice=json.dumps(advice, default=_written, ensure_ascii=False))
    return int(saved["new"])


def decide(store: Store, recommendation: str, status: Status, *, why: str = "") -> SavedRecommendation:
    """Take a recommendation, dismiss it, or open it again; it as it then is.

    Raises NoSuchRecommendation; StoreRejected where the caller is no admin of that organization.
    """
    answer = store.call(
        "decide_recommendation_v1", recommendation=recommendation, decision=status, why=why.strip() or None
    )
    return typed(SavedRecommendation, _accepted(recommendation, answer))


def note_saving(store: Store, recommendation: str, saving: Decimal | None, *, note: str) -> None:
    """Write down what one that was taken really saved a month, None where that cannot be known, with the store's own rights."""
    store.call("note_saving_v1", recommendation=recommendation, note=note, saving=saving)


def total_of(recommendations: Sequence[SavedRecommendation]) -> Range:
    """What those of them that count save together: each adds what is left by those before it."""
    total = NOTHING
    for one in recommendations:
        if one["counted"]:
            mine = one["sequential"]
            total = {
                "low": MONEY.add(total["low"], mine["low"]),
                "expected": MONEY.add(total["expected"], mine["expected"]),
                "high": MONEY.add(total["high"], mine["high"]),
            }
    return total


def _accepted(recommendation: str, answer: Any) -> Any:
    """The answer, where it is no refusal."""
    if answer.get("missing"):
        raise _missing(recommendation)
    if answer.get("refused"):
        raise StoreRejected(
            "Only an admin of that organization decides about its advice, and only an operator about advice for all.",
            sqlstate="42501",
        )
    return answer


def _missing(recommendation: str) -> NoSuchRecommendation:
    return NoSuchRecommendation(f"There is no recommendation with the id {recommendation}.", sqlstate="P0002")


def _written(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no part of advice")
