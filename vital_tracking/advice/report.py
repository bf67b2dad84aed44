"""Advice as the API and `vital-tracking advise --json` give it: the shape of `/optimization`, with links to the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, Literal
from urllib.parse import urlencode

from typing_extensions import TypedDict

from vital_tracking.advice.evidence import calls_asked, calls_command
from vital_tracking.advice.priority import time_in_words
from vital_tracking.advice.recommendation import Kind, Level
from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.answers import Amount, answer_type
from vital_tracking.queries.recommendations import (
    Inapplicable,
    LastAdvice,
    Range,
    SavedRecommendation,
    Status,
    total_of,
)


@answer_type
class Evidence(TypedDict):
    """The calls that a recommendation rests on: their filters, and where they are shown."""

    filters: dict[str, Any]
    since: datetime
    until: datetime
    page: str
    api: str
    command: str


@answer_type
class Advised(TypedDict):
    """A recommendation. `potential_savings` is what it saves a month where it alone is taken, in words;
    `sequential_savings_usd` what it adds where those before it are taken, too.
    """

    id: str
    type: str
    priority: str
    current: str
    recommended: str
    potential_savings: str
    potential_savings_usd: Range
    impact: str
    implementation_effort: str
    sequential_savings_usd: Range
    counted: bool
    revenue: Amount | None
    organization: str | None
    subject: dict[str, str | None]
    calls: int
    evidence: Evidence
    confidence: str
    risk: str
    how_to_try: str
    command: str | None
    assumptions: list[str]
    first_seen: datetime
    last_seen: datetime
    still_given: bool
    status: Status
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    promised_savings_usd: Range | None
    measured_saving_usd: Amount | None
    measured_at: datetime | None
    measured_note: str | None
    measured_from: datetime | None


@answer_type
class Optimization(TypedDict):
    """What is advised and not decided, the largest saving first, and what all that counts saves together a month.

    `bill` is what the calls from `period_start` to `period_end` cost. `found_at` None: nobody has looked yet.
    """

    recommendations: list[Advised]
    total_potential_savings: str
    total_potential_savings_usd: Range
    estimated_implementation_time: str
    not_applicable: list[Inapplicable]
    notes: list[str]
    bill: Amount | None
    organization: str | None
    period_start: datetime | None
    period_end: datetime | None
    found_at: datetime | None


def open_ones(advice: LastAdvice) -> list[SavedRecommendation]:
    """Those that nobody has decided about, as they were given."""
    return [one for one in advice["recommendations"] if one["status"] == "open"]


def optimization(advice: LastAdvice | None, *, root: str = "", notes: Sequence[str] = ()) -> Optimization:
    """Advice as `/optimization` answers; `root` is the path under which the pages are."""
    found = [] if advice is None else open_ones(advice)
    total = total_of(found)
    return {
        "recommendations": [advised(one, root=root) for one in found],
        "total_potential_savings": a_month(total["expected"]),
        "total_potential_savings_usd": total,
        "estimated_implementation_time": time_in_words(Level(one["effort"]) for one in found),
        "not_applicable": [] if advice is None else advice["not_applicable"],
        "notes": [*notes, *([] if advice is None else advice["notes"])],
        "bill": None if advice is None else advice["bill"],
        "organization": None if advice is None else advice["organization_id"],
        "period_start": None if advice is None else advice["since"],
        "period_end": None if advice is None else advice["until"],
        "found_at": None if advice is None else advice["found_at"],
    }


def advised(one: SavedRecommendation, *, root: str = "") -> Advised:
    """A recommendation as the API gives it."""
    asked = urlencode(calls_asked(one))
    of_budgets = not one["calls"] and not one["evidence"]  # it rests on what was counted for them, and on no calls
    return {
        "id": one["id"],
        "type": one["type"],
        "priority": one["priority"].upper(),
        "current": one["current"],
        "recommended": one["recommended"],
        "potential_savings": a_month(one["saving"]["expected"]),
        "potential_savings_usd": one["saving"],
        "impact": one["impact"],
        "implementation_effort": one["effort"],
        "sequential_savings_usd": one["sequential"],
        "counted": one["counted"],
        "revenue": one["revenue"],
        "organization": one["organization_id"],
        "subject": one["subject"],
        "calls": one["calls"],
        "evidence": {
            "filters": one["evidence"],
            "since": one["since"],
            "until": one["until"],
            "page": f"{root}/budgets" if of_budgets else f"{root}/calls?{asked}",
            "api": f"{root}/api/v1/budgets" if of_budgets else f"{root}/api/v1/calls?{asked}",
            "command": "vital-tracking budgets list" if of_budgets else calls_command(one),
        },
        "confidence": one["confidence"],
        "risk": one["risk"],
        "how_to_try": one["how_to_try"],
        "command": one["command"],
        "assumptions": one["assumptions"],
        "first_seen": one["first_seen"],
        "last_seen": one["last_seen"],
        "still_given": one["still_given"],
        "status": one["status"],
        "decided_by": one["decided_by"],
        "decided_at": one["decided_at"],
        "reason": one["reason"],
        "promised_savings_usd": one["promised"],
        "measured_saving_usd": one["measured_saving"],
        "measured_at": one["measured_at"],
        "measured_note": one["measured_note"],
        "measured_from": one["measured_from"],
    }


CSV_COLUMNS: Final = (
    "id", "organization_id", "type", "status", "priority", "current", "recommended", "saving_low", "saving_expected",
    "saving_high", "sequential_low", "sequential_expected", "sequential_high", "counted", "revenue", "calls", "confidence",
    "effort", "first_seen", "last_seen", "still_given", "decided_by", "decided_at", "reason", "promised_low",
    "promised_expected", "promised_high", "measured_saving", "measured_at", "measured_note", "command",
)  # fmt: skip
"""The columns of a CSV of recommendations."""


def flat(one: SavedRecommendation) -> dict[str, Any]:
    """A recommendation as a row of a table, with CSV_COLUMNS."""
    ranges = {"saving": one["saving"], "sequential": one["sequential"], "promised": one["promised"]}
    ends: dict[str, Any] = {
        f"{name}_{end}": None if found is None else found[end] for name, found in ranges.items() for end in _ENDS
    }
    return {**one, **ends}


_ENDS: Final[tuple[Literal["low", "expected", "high"], ...]] = ("low", "expected", "high")


def about(one: SavedRecommendation) -> str:
    """What it is about, in a few words: gpt-4o -> gpt-4o-mini, step triage."""
    subject = dict(one["subject"])
    model, other = subject.pop("model", None), subject.pop("to", None)
    models = " -> ".join(name for name in (model, other) if name)
    subject.pop("provider", None)
    rest = [f"{name.replace('_', ' ')} {value}" for name, value in subject.items() if value]
    return ", ".join(([models] if models else []) + rest) or one["recommended"]


def saves_something(one: SavedRecommendation) -> bool:
    """Whether there is money in it: else it is worth a look all the same."""
    return one["saving"]["high"] > 0 or bool(one["revenue"])


def why_not_counted(one: SavedRecommendation) -> str:
    """Why one that is not counted is no part of the total."""
    if one["type"] in (Kind.model_switch, Kind.smart_routing, Kind.model_consolidation):
        return "nobody knows yet how good the other model is at it"
    if one["type"] == Kind.semantic_caching:
        return "it is an upper bound"
    if one["type"] == Kind.peak_shifting:
        return "nobody knows whether these calls can wait"
    if one["type"] in (Kind.resource_optimization, Kind.auto_scaling):
        return "other advice saves more of the same hours"
    return "it is no part of the bill of models"


def money(amount: Decimal) -> str:
    """US dollars in cents, below ten cents in two digits; nothing but 0 reads as 0."""
    return amount_text(amount, "cost_usd", rounding=ROUND_HALF_EVEN)


def a_month(amount: Decimal) -> str:
    """An amount a month: $45.00/month."""
    return f"{money(amount)}/month"


def range_text(saving: Range) -> str:
    """A range in words: $10.00 to $20.00, or the one amount where nothing is unsure."""
    low, high = money(saving["low"]), money(saving["high"])
    return low if low == high else f"{low} to {high}"
