"""Evidence of advice on plans: who is on which, how much of it he uses, what he costs, and how far budgets are used."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from vital_tracking.advice.plan_terms import PlanTerms
from vital_tracking.advice.recommendation import MONTH_DAYS
from vital_tracking.advice.window import days_of
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.queries.budgets import BudgetUse, budget_use
from vital_tracking.queries.explore import Period, explore
from vital_tracking.queries.other_costs import explore_costs
from vital_tracking.queries.plans import QuotaStatus, plans, quota_status
from vital_tracking.stores import Store

UNDER_PERCENT: Final = 25
"""Who uses less of a quota than this, in percent, pays for more than he needs; so does a budget that was never fuller."""

PACE_FROM: Final = Decimal("0.5")
"""From which part of a month on what was used is taken to go on at the same pace; before that, only what was used counts."""

MOST_SUBSCRIBERS: Final = 10_000
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True)
class Subscriber:
    """Somebody on a plan: what he has used of it in his month so far, at `moment`, and what he has cost in the period.

    `cost` is US dollars of his `calls` and other costs; `unpriced` of them have no price, and are in no amount.
    """

    quota: QuotaStatus
    moment: datetime
    cost: Decimal = ZERO
    unpriced: int = 0
    calls: int = 0

    @property
    def name(self) -> str:
        """Who it is, in words."""
        organization = self.quota["organization_id"]
        return f"{self.quota['entity_type']} {self.quota['entity_id']}{f' of {organization}' if organization else ''}"

    @property
    def subject(self) -> Mapping[str, str | None]:
        """Who it is, by names of dimensions."""
        organization, kind = self.quota["organization_id"], self.quota["entity_type"]
        return {kind: self.quota["entity_id"], **({"organization": organization} if organization else {})}

    @property
    def month_evidence(self) -> Mapping[str, str | None]:
        """The filters of what his month counts so far."""
        return {
            **self.subject,
            "reached": "yes",
            "begun_from": self.quota["starts_at"].isoformat(),
            "begun_before": self.moment.isoformat(),
        }

    @property
    def elapsed(self) -> Decimal:
        """Which part of his month is over, from 0 to 1."""
        whole = self.quota["ends_at"] - self.quota["starts_at"]
        gone = min(max(self.moment - self.quota["starts_at"], timedelta()), whole)
        return Decimal(gone // timedelta(seconds=1)) / Decimal(whole // timedelta(seconds=1))

    def month(self, used: Decimal) -> Decimal:
        """What so much so far comes to in the whole month."""
        return used / self.elapsed if self.elapsed >= PACE_FROM else used

    @property
    def month_calls(self) -> Decimal:
        """Calls of the whole month."""
        return self.month(self.quota["calls_used"])

    @property
    def month_tokens(self) -> Decimal:
        """Tokens of the whole month."""
        return self.month(self.quota["tokens_used"])

    @property
    def over(self) -> bool:
        """Whether he has used more than a quota allows; where it is enforced, all of it, since what is more is blocked."""
        enforced = self.quota["enforced"]
        pairs = (
            (self.quota["calls_used"], self.quota["calls_limit"]),
            (self.quota["tokens_used"], self.quota["tokens_limit"]),
        )
        return any(limit is not None and (used > limit or (enforced and used >= limit > 0)) for used, limit in pairs)

    @property
    def month_percent(self) -> Decimal | None:
        """How much of the fuller quota the whole month uses, in percent; None where both are unlimited."""
        shares = [
            MONEY.divide(100 * used, limit)
            for used, limit in (
                (self.month_calls, self.quota["calls_limit"]),
                (self.month_tokens, self.quota["tokens_limit"]),
            )
            if limit
        ]
        return max(shares) if shares else None

    @property
    def used_text(self) -> str:
        """What he has used, in words."""
        parts = (
            (self.quota["calls_used"], self.quota["calls_limit"], "calls"),
            (self.quota["tokens_used"], self.quota["tokens_limit"], "tokens"),
        )
        return " and ".join(
            f"{used:,.0f} of {'unlimited' if limit is None else f'{limit:,.0f}'} {what}" for used, limit, what in parts
        )

    def move_to(self, plan: str) -> str:
        """The command that puts him on a plan."""
        quota = self.quota
        command = ["vital-tracking", "subscriptions", "set", quota["entity_type"], quota["entity_id"], plan]
        if quota["organization_id"] is not None:
            command += ["--organization", quota["organization_id"]]
        return shlex.join(command)


@dataclass(frozen=True)
class PlanEvidence:
    """The plans in force, the smallest first, their subscribers, and how far budgets were used in a period."""

    period: Period
    organization: str | None
    plans: Sequence[PlanTerms] = ()
    subscribers: Sequence[Subscriber] = ()
    budgets: Sequence[BudgetUse] = ()

    @property
    def days(self) -> Decimal:
        """How many days the period has."""
        return days_of(self.period)

    def plan(self, name: str) -> PlanTerms | None:
        """A plan by its name."""
        return next((plan for plan in self.plans if plan.name == name), None)

    def place(self, name: str) -> int:
        """Which plan it is, from the smallest on; -1 for one that is gone."""
        return next((place for place, plan in enumerate(self.plans) if plan.name == name), -1)

    def difference(self, before: str, after: str) -> Decimal | None:
        """US dollars a month that a plan costs more than another one; None where a price is not known."""
        old, new = self.plan(before), self.plan(after)
        if old is None or new is None or old.price_usd is None or new.price_usd is None:
            return None
        return new.price_usd - old.price_usd

    def monthly(self, amount: Decimal) -> Decimal:
        """What an amount of the period comes to in 30 days, to the cent."""
        month = MONEY.divide(MONEY.multiply(amount, MONTH_DAYS), self.days)
        return month.quantize(_CENT, rounding=ROUND_HALF_UP, context=MONEY)

    @property
    def nobody(self) -> str | None:
        """Why there is nothing to say where nobody is on a plan."""
        if self.subscribers:
            return None
        return "nobody is on a plan: vital-tracking subscriptions set user ID PLAN"


def read_plan_evidence(
    store: Store, period: Period, organization: str | None = None, *, now: datetime | None = None
) -> PlanEvidence:
    """The plans, subscribers and budgets of an organization or of all that the asker may see. Raises StoreError."""
    terms = tuple(map(PlanTerms.of, plans(store)))
    quotas = quota_status(store, organization=organization, limit=MOST_SUBSCRIBERS)
    moment = now or datetime.now(UTC)
    costs = _costs(store, period, quotas, organization) if quotas else {}
    subscribers = [Subscriber(quota, moment, *costs.get(_whose(quota), (ZERO, 0, 0))) for quota in quotas]
    return PlanEvidence(
        period, organization, terms, subscribers, budget_use(store, period.since, period.until, organization)
    )


_Key = tuple[str, str | None, str]


def _whose(quota: QuotaStatus) -> _Key:
    return quota["entity_type"], quota["organization_id"], quota["entity_id"]


def _costs(
    store: Store, period: Period, quotas: Iterable[QuotaStatus], organization: str | None
) -> dict[_Key, tuple[Decimal, int, int]]:
    """What subscribers cost in the period, how many of that have no price, and their calls, by kind, organization and id."""
    filters = {} if organization is None else {"organization": [organization]}
    found: dict[_Key, tuple[Decimal, int, int]] = {}

    def add(key: _Key, row: Mapping[str, Any]) -> None:
        cost, unpriced, calls = found.get(key, (ZERO, 0, 0))
        found[key] = MONEY.add(cost, row["cost"] or ZERO), unpriced + row["unpriced"], calls + row["made"]

    def read(by: Sequence[str]) -> list[Mapping[str, Any]]:
        measures = ("calls", "total_cost", "unpriced_calls")
        calls = explore(store, period, by=by, filters=filters, measures=measures, rows=MOST_SUBSCRIBERS).rows
        costs = explore_costs(store, period, by=by, filters=filters, rows=MOST_SUBSCRIBERS).rows
        return [
            *(
                {**row, "cost": row["total_cost"], "unpriced": row["unpriced_calls"], "made": row["calls"]}
                for row in calls
            ),
            *({**row, "cost": row["cost_usd"], "unpriced": row["unpriced_costs"] or 0, "made": 0} for row in costs),
        ]

    kinds = {quota["entity_type"] for quota in quotas}
    if "organization" in kinds:
        for row in read(["organization"]):
            if row["organization"] is not None:
                add(("organization", None, row["organization"]), row)
    if "user" in kinds:
        for row in read(["organization", "user"]):
            if row["user"] is not None:
                for whose in {
                    row["organization"],
                    None,
                }:  # a user's quota counts in one organization, or in all together
                    add(("user", whose, row["user"]), row)
    return found
