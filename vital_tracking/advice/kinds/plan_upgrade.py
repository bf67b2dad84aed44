"""plan_upgrade: a larger plan for a subscriber who has used more than their quota of calls or tokens.

Applies where he is over 100 % of either in the month that runs; where the quota is enforced, at 100 %, since what is more is
blocked. The plan is the smallest larger one that holds his whole month: from its middle on at the pace so far, before that what
he has used. `revenue` is the difference of both prices a month, None where one of them is not known. It is no saving of the
bill (0, not counted).
"""

from __future__ import annotations

from vital_tracking.advice.plan_evidence import PlanEvidence, Subscriber
from vital_tracking.advice.plan_terms import smallest_that_holds
from vital_tracking.advice.recommendation import NOTHING, Kind, Level, NotApplicable, Recommendation

KIND = Kind.plan_upgrade


def advise(evidence: PlanEvidence) -> list[Recommendation] | NotApplicable:
    """One recommendation for each subscriber who is over his quota, those that bring most first."""
    if evidence.nobody:
        return NotApplicable(KIND, evidence.nobody)
    found = [_recommendation(subscriber, evidence) for subscriber in evidence.subscribers if subscriber.over]
    if not found:
        return NotApplicable(KIND, "no subscriber has used more than their quota in the month that runs")
    return sorted(found, key=lambda each: (each.revenue is None, -(each.revenue or 0)))


def _recommendation(subscriber: Subscriber, evidence: PlanEvidence) -> Recommendation:
    plan = subscriber.quota["plan"]
    larger = evidence.plans[evidence.place(plan) + 1 :]
    calls, tokens = subscriber.month_calls, subscriber.month_tokens
    wanted = smallest_that_holds(larger, calls, tokens)
    revenue = None if wanted is None else evidence.difference(plan, wanted.name)
    if wanted is None:
        recommended = f"a plan of their own: no larger one holds {calls:,.0f} calls and {tokens:,.0f} tokens a month"
        impact = "what it brings depends on its price"
    else:
        recommended = f"plan {wanted.name}"
        impact = (
            "what it brings is not known: the price of one of the plans is not said (vital-tracking plans set)"
            if revenue is None
            else f"brings ${revenue:,.2f} a month more"
        )
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject=subscriber.subject,
        current=f"{subscriber.name} is on {plan} and has used {subscriber.used_text}",
        recommended=recommended,
        impact=impact,
        saving=NOTHING,
        calls=int(subscriber.quota["calls_used"]),
        evidence=subscriber.month_evidence,
        confidence=Level.high if subscriber.elapsed >= 1 else Level.medium,
        effort=Level.low,
        risk="they may rather use less, or leave, than pay more",
        how_to_try="show them what they have used, and offer the plan from their next month on",
        command=None if wanted is None else subscriber.move_to(wanted.name),
        assumptions=(f"their month comes to {calls:,.0f} calls and {tokens:,.0f} tokens",),
        counted=False,
        revenue=revenue,
    )
