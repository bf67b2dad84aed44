"""plan_optimization: subscribers who use little of their quota, and budgets whose limits fit nothing.

A subscriber: whose month, from its middle on at the pace so far, uses less than 25 % of both quotas, and who is not on the
smallest plan. He pays for more than he needs, and is one to lose: the advice is to review, with the smaller plan that would do,
if there is one, and what that costs in revenue (below 0). The dearest plans come first, at most 100 subscribers.

Budgets, of which one recommendation for each fault names all: too high, where no day or month of the period was filled above 25
% (a limit of a minute protects, and one for good is not used up in a period); too low, where more than half of the windows
reached the limit; never met, where nothing was counted for it at all. Only budgets that stood for the whole period count. A new
limit is twice the fullest window where it was too high; where it was too low, a quarter more than the fullest window and at
least half as much again as the limit, since what is blocked was never counted.

None of this saves anything of the bill (0, not counted).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from decimal import ROUND_UP, Decimal
from typing import Final

from vital_tracking.advice.plan_evidence import PACE_FROM, UNDER_PERCENT, PlanEvidence, Subscriber
from vital_tracking.advice.plan_terms import smallest_that_holds
from vital_tracking.advice.recommendation import NOTHING, Kind, Level, NotApplicable, Recommendation
from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.budgets import BudgetUse

KIND = Kind.plan_optimization

MOST: Final = 100
_NAMED: Final = 5
_OPTIONS: Final = {"minute": "--minute", "day": "--daily", "month": "--monthly", "total": "--total"}


def advise(evidence: PlanEvidence) -> list[Recommendation] | NotApplicable:
    """Recommendations for budgets by their fault, and for subscribers who use little."""
    found = [*_of_budgets(evidence), *_of_subscribers(evidence)]
    if found:
        return found
    if evidence.nobody and not evidence.budgets:
        return NotApplicable(KIND, f"{evidence.nobody}; and there is no budget (vital-tracking budgets set)")
    return NotApplicable(
        KIND,
        f"no subscriber uses less than {UNDER_PERCENT} % of their quota (known from the middle of their month on), and no "
        "budget is far from what is spent",
    )


# Subscribers


def _of_subscribers(evidence: PlanEvidence) -> list[Recommendation]:
    little = [
        subscriber
        for subscriber in evidence.subscribers
        if subscriber.elapsed >= PACE_FROM
        and subscriber.month_percent is not None
        and subscriber.month_percent < UNDER_PERCENT
        and evidence.place(subscriber.quota["plan"]) > 0
    ]

    def price(subscriber: Subscriber) -> Decimal:
        plan = evidence.plan(subscriber.quota["plan"])
        return Decimal(-1) if plan is None or plan.price_usd is None else plan.price_usd

    return [_review(subscriber, evidence) for subscriber in sorted(little, key=lambda one: -price(one))[:MOST]]


def _review(subscriber: Subscriber, evidence: PlanEvidence) -> Recommendation:
    plan, used = subscriber.quota["plan"], subscriber.month_percent
    smaller = evidence.plans[: evidence.place(plan)]
    enough = smallest_that_holds(smaller, subscriber.month_calls, subscriber.month_tokens)
    revenue = None if enough is None else evidence.difference(plan, enough.name)
    if enough is None:
        recommended, impact = "help them to use it: no smaller plan is large enough", "a customer who is kept"
    else:
        recommended = f"review whether plan {enough.name} is the right one for them, or help them to use {plan}"
        impact = (
            "what that changes is not known: the price of one of the plans is not said (vital-tracking plans set)"
            if revenue is None
            else f"${-revenue:,.2f} a month less from them, instead of losing them"
        )
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject=subscriber.subject,
        current=f"{subscriber.name} is on {plan} and uses {used:.1f} % of it: {subscriber.used_text} so far",
        recommended=recommended,
        impact=impact,
        saving=NOTHING,
        calls=int(subscriber.quota["calls_used"]),
        evidence=subscriber.month_evidence,
        confidence=Level.medium,
        effort=Level.low,
        risk="whoever pays for what they do not use leaves; and who is asked about it may find that out",
        how_to_try="ask what they meant to do with it before their next month begins",
        command=None if enough is None else subscriber.move_to(enough.name),
        assumptions=(f"their month goes on as it began: {subscriber.elapsed:.0%} of it is over",),
        counted=False,
        revenue=revenue,
    )


# Budgets


def _of_budgets(evidence: PlanEvidence) -> list[Recommendation]:
    standing = [use for use in evidence.budgets if use["created_at"] <= evidence.period.since]
    met = [use for use in standing if use["windows"]]
    calendar = [use for use in met if use["period"] in ("day", "month")]
    counted = {use["budget_id"] for use in met}
    faults = (
        ("too_high", [use for use in calendar if (use["fullest_percent"] or 0) <= UNDER_PERCENT]),
        ("too_low", [use for use in met if 2 * use["met"] > use["windows"]]),
        ("never_met", [use for use in standing if use["budget_id"] not in counted]),
    )
    return [_fault(fault, uses, evidence) for fault, uses in faults if uses]


def _fault(fault: str, uses: Sequence[BudgetUse], evidence: PlanEvidence) -> Recommendation:
    said = {
        "too_high": (
            f"never filled above {UNDER_PERCENT} %",
            "limits at twice what was spent most",
            "a budget that stops what is out of the ordinary before it is dear",
            "what is spent rarely, such as at the end of a quarter, may be stopped",
        ),
        "too_low": (
            "reached in more than half of their windows",
            "limits above what is needed in most windows, or no limit",
            "calls are stopped, slowed or told of by rule, not by exception",
            "more may be spent",
        ),
        "never_met": (
            "nothing was counted for them",
            "another entity, or none: names are those that calls carry",
            "a budget that protects nobody looks as if it did",
            "what it was made for may still come",
        ),
    }[fault]
    about, recommended, impact, risk = said
    number = len({use["budget_id"] for use in uses})
    named = "; ".join(_described(use) for use in uses[:_NAMED])
    more = f"; and {len(uses) - _NAMED} more" if len(uses) > _NAMED else ""
    commands = [_removal(use) if fault == "never_met" else _setting(use, _limit(fault, use)) for use in uses[:_NAMED]]
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject={"budgets": fault},
        current=f"{number} {'budget' if number == 1 else 'budgets'}, {about}: {named}{more}",
        recommended=recommended,
        impact=impact,
        saving=NOTHING,
        calls=0,
        confidence=Level.medium,
        effort=Level.low,
        risk=risk,
        how_to_try="see beforehand what it would have done: vital-tracking budgets preview, with the options of the command",
        command="\n".join(dict.fromkeys(commands)),
        assumptions=(f"the next {evidence.days:.0f} days are like these",),
        counted=False,
    )


def _limit(fault: str, use: BudgetUse) -> Decimal:
    limit = (
        2 * use["most_spent"]
        if fault == "too_high"
        else max(use["most_spent"] * Decimal("1.25"), use["limit_amount"] * Decimal("1.5"))
    )
    return _rounded(limit or use["limit_amount"] / 2, use["metric"])


def _rounded(amount: Decimal, metric: str) -> Decimal:
    """Up to two digits that count; calls and tokens are whole."""
    if not amount:
        return amount
    digit = max(amount.adjusted() - 1, -12 if metric == "cost_usd" else 0)
    return amount.quantize(Decimal(1).scaleb(digit), rounding=ROUND_UP) + 0


def _described(use: BudgetUse) -> str:
    whose = "each" if use["entity_id"] == "*" else use["entity_id"]
    limit = amount_text(use["limit_amount"], use["metric"])
    unit = "" if use["metric"] == "cost_usd" else f" {use['metric']}"
    fullest = use["fullest_percent"]
    filled = "" if fullest is None else f", at most {fullest:.1f} % full, {use['met']:,} of {use['windows']:,} met"
    return f"{use['entity_type']} {whose} ({use['action']}): {limit}{unit} a {use['period']}{filled}".replace(
        "a total", "in all"
    )


def _setting(use: BudgetUse, limit: Decimal) -> str:
    command = ["vital-tracking", "budgets", "set", use["entity_type"]]
    if use["entity_id"] != "*":
        command.append(use["entity_id"])
    command += [_OPTIONS[use["period"]], f"{limit:f}"]
    if use["metric"] != "cost_usd":
        command += ["--metric", use["metric"]]
    if use["action"] != "alert":
        command += ["--action", use["action"]]
    if use["organization_id"] is not None:
        command += ["--organization", use["organization_id"]]
    return shlex.join(command)


def _removal(use: BudgetUse) -> str:
    return f"vital-tracking budgets remove {use['budget_id']}"
