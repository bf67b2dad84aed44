"""The life of advice: it is looked for and saved, so that pages need not; measured once it was followed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from typing import Any, Final

from vital_tracking.advice.advise import DAYS, Advice, generate_recommendations
from vital_tracking.advice.change_json import change_to_json
from vital_tracking.advice.measured import measure_due
from vital_tracking.advice.priority import priority_of
from vital_tracking.advice.recommendation import NOTHING, Recommendation, Saving, sentence
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.answers import typed
from vital_tracking.queries.prices import price_book
from vital_tracking.queries.recommendations import (
    MOST,
    LastAdvice,
    check_may_renew,
    last_advice,
    save_advice,
    saved_recommendations,
)
from vital_tracking.stores import Store


def renew_advice(
    store: Store,
    writer: Store,
    *,
    days: int = DAYS,
    organization: str | None = None,
    timezone: str = "UTC",
    now: datetime | None = None,
) -> LastAdvice:
    """Look for advice with the rights of `store`, save it and what is due to be measured with those of `writer`, and give it.

    Both are the same but for a page, whose reader asks with his own rights and writes nothing. StoreRejected where he may not.
    """
    check_may_renew(store, organization=organization)
    prices = price_book(writer)
    dismissed = {one["id"] for one in saved_recommendations(store, status="dismissed", limit=MOST)}
    advice = generate_recommendations(
        store, days, organization=organization, timezone=timezone, now=now, prices=prices, dismissed=dismissed
    )
    save_advice(writer, advice_to_save(advice, organization))
    measure_due(store, writer, organization=organization, prices=prices)
    found = last_advice(store, organization=organization)
    if found is None:  # whoever may renew may see
        raise LookupError("advice that was saved is not there")
    return found


def advice_to_save(advice: Advice, organization: str | None) -> dict[str, Any]:
    """Advice as it is saved: its savings by the month, to a trillionth of a dollar, its bill that of the window.

    The total is the sum of what is saved, so that what pages add up comes to it.
    """
    days = advice.days
    bill = Saving.exactly(advice.bill).monthly(days).expected
    sequential = [one.monthly(days).rounded() for one in advice.sequential]
    return {
        "organization_id": organization,
        "since": advice.period.since,
        "until": advice.period.until,
        "bill": advice.bill,
        "total": _range(reduce(Saving.plus, sequential, NOTHING)),
        "recommendations": [
            _to_save(one, one.saving.monthly(days).rounded(), adds, bill)
            for one, adds in zip(advice.recommendations, sequential, strict=True)
        ],
        "not_applicable": [{"type": str(one.kind), "reason": sentence(one.reason)} for one in advice.not_applicable],
        "notes": list(advice.notes),
    }


def _to_save(one: Recommendation, saving: Saving, sequential: Saving, monthly_bill: Decimal) -> Mapping[str, Any]:
    amount = MONEY.add(saving.expected, one.revenue or ZERO)
    return {
        "id": one.id,
        "organization_id": one.organization,
        "type": str(one.kind),
        "subject": dict(one.subject),
        "current": sentence(one.current),
        "recommended": sentence(one.recommended),
        "impact": sentence(one.impact),
        "calls": one.calls,
        "evidence": dict(one.evidence),
        "saving": _range(saving),
        "sequential": _range(sequential),
        "counted": one.counted,
        "revenue": one.revenue,
        "confidence": str(one.confidence),
        "effort": str(one.effort),
        "priority": str(priority_of(amount, monthly_bill, confidence=one.confidence, counted=one.counted)),
        "risk": sentence(one.risk),
        "how_to_try": sentence(one.how_to_try),
        "command": one.command,
        "assumptions": [sentence(assumed) for assumed in one.assumptions],
        "changes": [change_to_json(change) for change in one.changes],
    }


def _range(saving: Saving) -> dict[str, Decimal]:
    return {"low": saving.low, "expected": saving.expected, "high": saving.high}


def look_for_advice(
    store: Store,
    prices: PriceBook,
    *,
    days: int = DAYS,
    organization: str | None = None,
    timezone: str = "UTC",
    now: datetime | None = None,
) -> LastAdvice:
    """Advice as it would be saved, without saving it: what was decided about the same is as it is known."""
    at = now or datetime.now(UTC)
    known: dict[str, Mapping[str, Any]] = {one["id"]: one for one in saved_recommendations(store, limit=MOST)}
    dismissed = [name for name, one in known.items() if one["status"] == "dismissed"]
    found = generate_recommendations(
        store, days, organization=organization, timezone=timezone, now=now, prices=prices, dismissed=dismissed
    )
    told = advice_to_save(found, organization)
    undecided: dict[str, Any] = {
        "since": told["since"],
        "until": told["until"],
        "first_seen": at,
        "last_seen": at,
        "still_given": True,
        "status": "open",
        **dict.fromkeys(_OF_DECISIONS),
    }
    return typed(
        LastAdvice,
        {
            **told,
            "found_at": at,
            "recommendations": [
                {**undecided, **{name: known[one["id"]][name] for name in _KEPT if one["id"] in known}, **one}
                for one in told["recommendations"]
            ],
        },
    )


_OF_DECISIONS: Final = (
    "decided_by", "decided_at", "reason", "promised", "measured_saving", "measured_at", "measured_note", "measured_from",
)  # fmt: skip
_KEPT: Final[tuple[Any, ...]] = ("first_seen", "last_seen", "status", *_OF_DECISIONS)
