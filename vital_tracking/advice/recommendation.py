"""One piece of advice: what it changes, the calls it rests on, its saving as a range, and when a kind does not apply.

Amounts are US dollars as Decimal with all their digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import Any, Final

from vital_tracking.advice.changes import Change
from vital_tracking.core.cost import MONEY, ZERO

MONTH_DAYS: Final = 30
"""The days of the month that savings are told for, as `projected_monthly_cost` is."""

_STORED: Final = Decimal("1e-12")


class Kind(StrEnum):
    """The kinds of advice, by the names of the API."""

    model_switch = "model_switch"
    smart_routing = "smart_routing"
    caching = "caching"
    semantic_caching = "semantic_caching"
    plan_upgrade = "plan_upgrade"
    plan_optimization = "plan_optimization"
    billing_model = "billing_model"
    resource_optimization = "resource_optimization"
    model_consolidation = "model_consolidation"
    batch_processing = "batch_processing"
    job_scheduling = "job_scheduling"
    peak_shifting = "peak_shifting"
    auto_scaling = "auto_scaling"


class Level(StrEnum):
    """How much of something there is: effort, confidence, priority."""

    low = "low"
    medium = "medium"
    high = "high"


@dataclass(frozen=True, slots=True)
class Saving:
    """US dollars saved, at least, as expected and at most; below 0 where something would cost more."""

    low: Decimal
    expected: Decimal
    high: Decimal

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            raise ValueError("a saving is a range: low <= expected <= high")

    @classmethod
    def exactly(cls, amount: Decimal) -> Saving:
        """A saving about which nothing is unsure."""
        return cls(amount, amount, amount)

    def monthly(self, days: Decimal) -> Saving:
        """The same for a month of 30 days, where it is that of so many days."""
        return Saving(*(MONEY.divide(MONEY.multiply(each, MONTH_DAYS), days) for each in self.amounts))

    def rounded(self) -> Saving:
        """The same to a trillionth of a dollar, as it is stored; half to even."""
        return Saving(*(each.quantize(_STORED, rounding=ROUND_HALF_EVEN, context=MONEY) for each in self.amounts))

    def plus(self, other: Saving) -> Saving:
        """Both together."""
        return Saving(*(MONEY.add(mine, its) for mine, its in zip(self.amounts, other.amounts, strict=True)))

    @property
    def amounts(self) -> tuple[Decimal, Decimal, Decimal]:
        """Low, expected, high."""
        return self.low, self.expected, self.high


NOTHING: Final = Saving.exactly(ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One piece of advice.

    `subject` says what it is about, by the names of dimensions (`service`, `agent`, `step`, `model`, ...) and others that a kind
    needs; together with the kind and the organization it makes the `id`, so that the same advice is the same tomorrow. `evidence`
    are the filters of the calls that it rests on, by the names of dimensions and of `queries.chosen`; `calls` is how many these
    are in the window.
    `saving` is that of the window, exactly these calls repriced. `counted` is False where it is no part of the total, because
    it is an upper bound, nobody knows how good its answers would be, or it is money that comes from elsewhere than the bill.
    `changes` are what it does to the calls, for what-if. `revenue` is what it brings in beside.
    """

    kind: Kind
    organization: str | None
    subject: Mapping[str, str | None]
    current: str
    recommended: str
    impact: str
    saving: Saving
    calls: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    confidence: Level
    effort: Level
    risk: str
    how_to_try: str
    command: str | None = None
    assumptions: tuple[str, ...] = ()
    counted: bool = True
    changes: tuple[Change, ...] = ()
    revenue: Decimal | None = None

    @property
    def id(self) -> str:
        """The same for the same advice, whenever it is given: a hash of kind, organization and subject."""
        told = json.dumps([self.kind, self.organization, sorted(self.subject.items())], ensure_ascii=False)
        return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A kind that gives no advice here, and why."""

    kind: Kind
    reason: str


def sentence(text: str) -> str:
    """The text as a sentence; a name at its beginning, such as a model's, stays as it is, and so does a command at its end."""
    first = text.partition(" ")[0].rstrip(",:;")
    begun = text[:1].upper() + text[1:] if first.isalpha() else text
    return begun if begun.endswith((".", ")")) or "vital-tracking" in begun.rpartition(": ")[2] else f"{begun}."
