"""What plans allow and cost, and the smallest one that is large enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """A plan: calls and tokens a month, None for unlimited, and US dollars a month, None where nobody has said its price."""

    name: str
    calls: int | None
    tokens: int | None
    price_usd: Decimal | None

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> PlanTerms:
        """The terms of a plan as `queries.plans` has it."""
        return cls(plan["name"], plan["calls"], plan["tokens"], plan["price_usd"])

    def holds(self, calls: Decimal | int, tokens: Decimal | int) -> bool:
        """Whether so many calls and tokens a month are within it."""
        return (self.calls is None or calls <= self.calls) and (self.tokens is None or tokens <= self.tokens)


PLANS: Final = (
    PlanTerms("trial", 700, 100_000, None),
    PlanTerms("starter", 30_000, 5_000_000, None),
    PlanTerms("professional", 300_000, 50_000_000, Decimal("49.00")),
    PlanTerms("enterprise", None, None, None),
)
"""The plans that a new database begins with, the smallest first."""


def smallest_that_holds(plans: Iterable[PlanTerms], calls: Decimal | int, tokens: Decimal | int) -> PlanTerms | None:
    """The first of the plans, which come with the smallest first, within which so many calls and tokens are; None: no plan is."""
    return next((plan for plan in plans if plan.holds(calls, tokens)), None)
