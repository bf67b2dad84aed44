"""billing_model: subscribers whose calls and other costs exceed what their plan brings: bill them by use, or raise the price.

Applies where what a subscriber cost in the period is more than the price of his plan for as many days, for subscriptions that
stood for all of it. `revenue` is what is missing in a month of 30 days; it is no saving of the bill (0, not counted). It does
not apply where no plan has a price; subscribers of plans without one are passed over.
"""

from __future__ import annotations

from decimal import Decimal

from vital_tracking.advice.plan_evidence import PlanEvidence, Subscriber
from vital_tracking.advice.recommendation import NOTHING, Kind, Level, NotApplicable, Recommendation

KIND = Kind.billing_model


def advise(evidence: PlanEvidence) -> list[Recommendation] | NotApplicable:
    """One recommendation for each subscriber who costs more than he brings, the greatest loss first."""
    if evidence.nobody:
        return NotApplicable(KIND, evidence.nobody)
    if all(plan.price_usd is None for plan in evidence.plans):
        return NotApplicable(KIND, "no plan has a price: vital-tracking plans set PLAN --price USD")
    losses = [
        (loss, subscriber)
        for subscriber in evidence.subscribers
        if (loss := _loss(subscriber, evidence)) is not None and loss > 0
    ]
    if not losses:
        return NotApplicable(KIND, "no subscriber costs more than their plan brings, as far as prices are known")
    return [
        _recommendation(loss, subscriber, evidence) for loss, subscriber in sorted(losses, key=lambda pair: -pair[0])
    ]


def _price(subscriber: Subscriber, evidence: PlanEvidence) -> Decimal | None:
    plan = evidence.plan(subscriber.quota["plan"])
    return None if plan is None else plan.price_usd


def _loss(subscriber: Subscriber, evidence: PlanEvidence) -> Decimal | None:
    """US dollars that he costs in 30 days beyond the price of his plan; None where that is not known."""
    price = _price(subscriber, evidence)
    if price is None or subscriber.quota["since"] > evidence.period.since:
        return None
    return evidence.monthly(subscriber.cost) - price


def _recommendation(loss: Decimal, subscriber: Subscriber, evidence: PlanEvidence) -> Recommendation:
    plan, price = subscriber.quota["plan"], _price(subscriber, evidence)
    cost = evidence.monthly(subscriber.cost)
    kind = subscriber.quota["entity_type"]
    unpriced = (
        f"at least: {subscriber.unpriced:,} calls or costs have no price (vital-tracking reprice)"
        if subscriber.unpriced
        else None
    )
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject=subscriber.subject,
        current=f"{subscriber.name} costs ${cost:,.2f} a month and pays ${price:,.2f} for {plan}",
        recommended=f"bill them by use, or at least ${cost:,.2f} a month",
        impact=f"${loss:,.2f} a month that their plan does not bring",
        saving=NOTHING,
        calls=subscriber.calls,
        evidence=subscriber.subject,
        confidence=Level.medium if unpriced is None else Level.low,
        effort=Level.high,
        risk="they may leave; what they bring otherwise, such as others whom they have brought, is in none of these figures",
        how_to_try=(
            "send them a month's bill by use beside the one that they pay: vital-tracking invoice MONTH --organization "
            + (subscriber.quota["entity_id"] if kind == "organization" else subscriber.quota["organization_id"] or "ID")
        ),
        assumptions=tuple(filter(None, (f"the next month is like these {evidence.days:.0f} days", unpriced))),
        counted=False,
        revenue=loss,
    )
