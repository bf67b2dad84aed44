"""plan_upgrade, plan_optimization and billing_model: hand-computed cases, and every reason why they say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.advice.windows import NO_MACHINES, window
from vital_tracking.advice.advise import advice_of
from vital_tracking.advice.kinds import billing_model, plan_optimization, plan_upgrade
from vital_tracking.advice.plan_evidence import PlanEvidence, Subscriber
from vital_tracking.advice.plan_terms import PLANS, PlanTerms
from vital_tracking.advice.recommendation import NOTHING, Level, NotApplicable, Recommendation
from vital_tracking.queries.budgets import BudgetUse
from vital_tracking.queries.explore import Period
from vital_tracking.queries.plans import QuotaStatus

START = datetime(2026, 3, 1, tzinfo=UTC)
PERIOD = Period(START - timedelta(days=14), START + timedelta(days=16))
PRICED = (
    replace(PLANS[0], price_usd=Decimal(0)),
    replace(PLANS[1], price_usd=Decimal("9.50")),
    PLANS[2],
    PLANS[3],
)


def subscriber(
    plan: str = "starter", calls: int = 0, tokens: int = 0, *, day: float = 15, cost: str = "0", **changes: Any
) -> Subscriber:
    """Somebody in his month of 30 days, on a day of it."""
    terms = next(terms for terms in PLANS if terms.name == plan)
    quota: QuotaStatus = {
        "id": 1, "organization_id": "acme", "entity_type": "user", "entity_id": "u-1", "plan": plan,
        "since": PERIOD.since, "until": None, "reset_day": 1, "timezone": "UTC", "enforced": False, "source": "command",
        "starts_at": START, "ends_at": START + timedelta(days=30),
        "calls_used": Decimal(calls), "calls_limit": None if terms.calls is None else Decimal(terms.calls),
        "tokens_used": Decimal(tokens), "tokens_limit": None if terms.tokens is None else Decimal(terms.tokens),
        "calls_percent": None, "tokens_percent": None, "used_percent": None,
    }  # fmt: skip
    return Subscriber({**quota, **changes}, START + timedelta(days=day), Decimal(cost))  # type: ignore[typeddict-item]


def evidence(
    *subscribers: Subscriber, plans: Sequence[PlanTerms] = PRICED, budgets: Sequence[BudgetUse] = ()
) -> PlanEvidence:
    return PlanEvidence(PERIOD, None, plans, subscribers, budgets)


def only(found: list[Recommendation] | NotApplicable) -> Recommendation:
    assert isinstance(found, list), found
    (one,) = found
    assert (one.saving, one.counted) == (NOTHING, False), "revenue is no saving of the bill"
    return one


def reason(found: list[Recommendation] | NotApplicable) -> str:
    assert isinstance(found, NotApplicable), found
    return found.reason


# A larger plan


def test_who_is_over_a_quota_is_offered_the_plan_that_holds_his_month() -> None:
    found = only(plan_upgrade.advise(evidence(subscriber("starter", 31_000, 1_000_000, day=10))))
    assert (found.recommended, found.revenue) == ("plan professional", Decimal("39.50"))
    assert found.impact == "brings $39.50 a month more"
    assert found.command == "vital-tracking subscriptions set user u-1 professional --organization acme"
    assert (
        found.current
        == "user u-1 of acme is on starter and has used 31,000 of 30,000 calls and 1,000,000 of 5,000,000 tokens"
    )
    assert found.subject == {"user": "u-1", "organization": "acme"}
    assert found.assumptions == ("their month comes to 31,000 calls and 1,000,000 tokens",)


def test_from_the_middle_of_a_month_on_its_pace_decides() -> None:
    # On day 15 of 30 he has used 26 million tokens of 5: 52 million in the month, more than professional's 50.
    found = only(plan_upgrade.advise(evidence(subscriber("starter", 1_000, 26_000_000, day=15))))
    assert found.recommended == "plan enterprise"
    assert (found.revenue, found.impact.startswith("what it brings is not known")) == (None, True)
    early = only(plan_upgrade.advise(evidence(subscriber("starter", 1_000, 26_000_000, day=14))))
    assert early.recommended == "plan professional"


def test_an_enforced_quota_is_met_where_it_is_full() -> None:
    assert isinstance(plan_upgrade.advise(evidence(subscriber("starter", 30_000))), NotApplicable)
    assert (
        only(plan_upgrade.advise(evidence(subscriber("starter", 30_000, enforced=True)))).recommended
        == "plan professional"
    )


def test_where_no_plan_is_large_enough_one_is_to_be_made() -> None:
    found = only(plan_upgrade.advise(evidence(subscriber("professional", 300_001, day=1), plans=PRICED[:3])))
    assert found.recommended == "a plan of their own: no larger one holds 300,001 calls and 0 tokens a month"
    assert (found.command, found.revenue) == (None, None)


def test_those_that_bring_most_come_first() -> None:
    found = plan_upgrade.advise(
        evidence(
            subscriber("professional", 300_001, entity_id="unknown"),
            subscriber("trial", 701, entity_id="some"),
            subscriber("starter", 30_001, entity_id="most"),
        )
    )
    assert isinstance(found, list)
    assert [(each.subject["user"], each.revenue) for each in found] == [
        ("most", Decimal("39.50")), ("some", Decimal("9.50")), ("unknown", None),
    ]  # fmt: skip


def test_nobody_over_a_quota_is_said() -> None:
    assert reason(plan_upgrade.advise(evidence())) == (
        "nobody is on a plan: vital-tracking subscriptions set user ID PLAN"
    )
    none = plan_upgrade.advise(evidence(subscriber("enterprise", 10**9), subscriber("starter", 30_000)))
    assert reason(none) == "no subscriber has used more than their quota in the month that runs"


# A smaller plan


def test_who_uses_little_is_reviewed_with_what_it_costs() -> None:
    # 14,000 of 300,000 calls by the middle of the month: 28,000, 9.3 %; starter holds it, for $39.50 less.
    found = only(plan_optimization.advise(evidence(subscriber("professional", 14_000, 1_000_000))))
    assert found.current.startswith("user u-1 of acme is on professional and uses 9.3 % of it: 14,000 of 300,000 calls")
    assert (
        found.recommended == "review whether plan starter is the right one for them, or help them to use professional"
    )
    assert (found.revenue, found.impact) == (Decimal("-39.50"), "$39.50 a month less from them, instead of losing them")
    assert found.command == "vital-tracking subscriptions set user u-1 starter --organization acme"
    assert "leaves" in found.risk


def test_who_uses_little_of_a_plan_whose_smaller_one_is_too_small_is_helped() -> None:
    found = only(plan_optimization.advise(evidence(subscriber("starter", 1_000))))
    assert found.recommended.startswith("help them to use it")
    assert (found.command, found.revenue) == (None, None)


@pytest.mark.parametrize(
    "fine",
    [
        subscriber("professional", 14_000, day=14),  # too early in his month
        subscriber("professional", 37_500),  # 75,000 of 300,000: exactly 25 %
        subscriber("professional", 1_000, 12_500_000),  # half of his tokens
        subscriber("trial", 1),  # the smallest plan
        subscriber("enterprise", 1),  # unlimited
    ],
)
def test_who_uses_enough_or_pays_for_no_more_is_left_alone(fine: Subscriber) -> None:
    assert "no subscriber uses less than 25 %" in reason(plan_optimization.advise(evidence(fine)))


# Budgets


def budget(number: int = 1, **changes: Any) -> BudgetUse:
    """One of $10 a day for each user of acme, well used."""
    made: BudgetUse = {
        "budget_id": number, "organization_id": "acme", "entity_type": "user", "entity_id": "*", "metric": "cost_usd",
        "action": "block", "enforce": True, "created_at": PERIOD.since, "period": "day", "limit_amount": Decimal(10),
        "windows": 30, "met": 0, "most_spent": Decimal(6), "fullest_percent": Decimal(60),
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


HIGH: dict[str, Any] = {"most_spent": Decimal("2.31"), "fullest_percent": Decimal("23.1")}
LOW: dict[str, Any] = {"met": 16, "most_spent": Decimal("10.10"), "fullest_percent": Decimal(101)}
UNUSED: dict[str, Any] = {"windows": 0, "most_spent": Decimal(0), "fullest_percent": None}


def test_a_budget_that_is_too_high_is_set_to_twice_what_was_spent() -> None:
    found = only(plan_optimization.advise(evidence(budgets=[budget(**HIGH), budget(2)])))
    # Twice $2.31 is $4.62, up to two digits $4.70.
    assert found.command == "vital-tracking budgets set user --daily 4.7 --action block --organization acme"
    assert found.current == (
        "1 budget, never filled above 25 %: user each (block): $10.00 a day, at most 23.1 % full, 0 of 30 met"
    )
    assert (found.subject, found.calls, found.confidence) == ({"budgets": "too_high"}, 0, Level.medium)


def test_a_budget_that_is_met_most_of_the_time_is_too_low() -> None:
    named = {
        "organization_id": None,
        "entity_type": "agent",
        "entity_id": "it's me",
        "action": "alert",
        "metric": "tokens",
    }
    tokens = {"limit_amount": Decimal(1_000), "most_spent": Decimal(4_001), "period": "month", "windows": 1, "met": 1}
    found = only(plan_optimization.advise(evidence(budgets=[budget(**LOW), budget(2, **named, **tokens)])))
    # Blocked at $10: half as much again. 4,001 tokens and a quarter more are 5,001.25, up to two digits 5,100.
    assert found.command == (
        "vital-tracking budgets set user --daily 15 --action block --organization acme\n"
        "vital-tracking budgets set agent 'it'\"'\"'s me' --monthly 5100 --metric tokens"
    )
    assert found.subject == {"budgets": "too_low"}
    assert isinstance(plan_optimization.advise(evidence(budgets=[budget(**{**LOW, "met": 15})])), NotApplicable)


def test_a_budget_that_nothing_counted_for_protects_nobody() -> None:
    unused = [budget(7, **UNUSED), budget(7, **UNUSED, period="month"), budget(8, **UNUSED)]
    found = only(plan_optimization.advise(evidence(budgets=unused)))
    assert found.command == "vital-tracking budgets remove 7\nvital-tracking budgets remove 8"
    assert found.current.startswith("2 budgets, nothing was counted for them: user each (block): $10.00 a day; ")
    young = budget(9, **UNUSED, created_at=PERIOD.since + timedelta(seconds=1))
    assert isinstance(plan_optimization.advise(evidence(budgets=[young])), NotApplicable)


def test_each_fault_is_one_recommendation_and_limits_of_a_minute_are_meant_to_be_high() -> None:
    many = [budget(number, **HIGH) for number in range(10, 17)]
    found = plan_optimization.advise(evidence(budgets=[*many, budget(1, **LOW), budget(2, **UNUSED)]))
    assert isinstance(found, list)
    assert [each.subject["budgets"] for each in found] == ["too_high", "too_low", "never_met"]
    assert found[0].current.endswith("; and 2 more")
    assert len({each.id for each in found}) == 3
    rare = [budget(3, **HIGH, period="minute"), budget(4, **HIGH, period="total")]
    assert isinstance(plan_optimization.advise(evidence(budgets=rare)), NotApplicable)


def test_nothing_to_review_is_said() -> None:
    assert reason(plan_optimization.advise(evidence())) == (
        "nobody is on a plan: vital-tracking subscriptions set user ID PLAN; and there is no budget (vital-tracking budgets set)"
    )
    assert "no budget is far from what is spent" in reason(plan_optimization.advise(evidence(budgets=[budget()])))


# Bills by use


def test_who_costs_more_than_he_brings_is_billed_by_use() -> None:
    # $50.10 in 30 days against $49.00.
    found = only(billing_model.advise(evidence(subscriber("professional", cost="50.10"))))
    assert found.revenue == Decimal("1.10")
    assert found.current == "user u-1 of acme costs $50.10 a month and pays $49.00 for professional"
    assert found.recommended == "bill them by use, or at least $50.10 a month"
    assert found.how_to_try.endswith("vital-tracking invoice MONTH --organization acme")
    unpriced = replace(subscriber("professional", cost="50.10"), unpriced=3)
    told = only(billing_model.advise(evidence(unpriced)))
    assert told.confidence == Level.low
    assert told.assumptions[1] == "at least: 3 calls or costs have no price (vital-tracking reprice)"


def test_a_period_of_other_length_is_brought_to_a_month() -> None:
    fifteen = replace(
        evidence(subscriber("professional", cost="24.60")), period=Period(START, START + timedelta(days=15))
    )
    shorter = replace(fifteen, subscribers=[subscriber("professional", cost="24.60", since=START)])
    assert only(billing_model.advise(shorter)).revenue == Decimal("0.20")  # $49.20 in 30 days


def test_the_greatest_loss_comes_first() -> None:
    found = billing_model.advise(
        evidence(
            subscriber("professional", cost="60", entity_id="some"),
            subscriber("starter", cost="40", entity_id="most"),
            subscriber("professional", cost="49", entity_id="none"),
        )
    )
    assert isinstance(found, list)
    assert [each.subject["user"] for each in found] == ["most", "some"]


def test_nobody_who_costs_more_is_said_and_what_is_not_known() -> None:
    assert reason(billing_model.advise(evidence())).startswith("nobody is on a plan")
    unpriced = [replace(plan, price_usd=None) for plan in PLANS]
    assert reason(billing_model.advise(evidence(subscriber("professional", cost="1"), plans=unpriced))) == (
        "no plan has a price: vital-tracking plans set PLAN --price USD"
    )
    fine = [
        subscriber("professional", cost="49"),
        subscriber("enterprise", cost="1000"),  # nobody has said its price
        subscriber("professional", cost="1000", since=PERIOD.since + timedelta(days=1)),  # not for the whole period
    ]
    assert reason(billing_model.advise(evidence(*fine))) == (
        "no subscriber costs more than their plan brings, as far as prices are known"
    )


def test_more_than_can_be_kept_is_left_out_and_said() -> None:
    """If a thousand subscribers were over their quota, none of the advice could be saved."""
    over = [subscriber("starter", 30_001, entity_id=f"u-{number}") for number in range(502)]
    over.append(subscriber("professional", 300_001, entity_id="no price"))
    found = advice_of(window(), evidence(*over), NO_MACHINES)
    assert len(found.recommendations) == len(found.sequential) == 500
    assert "no price" not in {one.subject["user"] for one in found.recommendations}
    assert any("3 more" in note for note in found.notes)
