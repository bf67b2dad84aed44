"""The calculators are exact to hand-computed examples, and say what they do not know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from vital_tracking import Price, PriceBook
from vital_tracking.advice import (
    CachingSavings,
    PlanTerms,
    PlanTier,
    analyze_query_complexity,
    calculate_model_cost,
    compare_models,
    estimate_caching_savings,
    recommend_plan_tier,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOOK = PriceBook([
    Price("house-large", "2", "8", provider="vllm"),
    Price("house-small", "0.5", "1"),
    Price("gpt-4o", "1.5", "6", provider="openai", version="contract"),
    Price("gpt-4o-mini", units={"web_searches": "0.01"}),
])  # fmt: skip


# What a call costs


def test_a_call_costs_its_tokens_at_the_price_of_the_model() -> None:
    cost = calculate_model_cost("house-large", 1000, 500, provider="vllm", at=AT, prices=BOOK)
    # 1,000 x $2 + 500 x $8, each for a million
    assert (cost.input_cost, cost.output_cost, cost.fees, cost.total_cost) == (
        Decimal("0.002"), Decimal("0.004"), Decimal(0), Decimal("0.006"),
    )  # fmt: skip
    assert cost.price_version == "own price vllm/house-large"


def test_the_teams_own_price_comes_before_the_listed_one() -> None:
    own = calculate_model_cost("gpt-4o", 1000, 500, provider="openai", at=AT, prices=BOOK)
    listed = calculate_model_cost("gpt-4o", 1000, 500, provider="openai", at=AT)
    assert (own.total_cost, own.price_version) == (Decimal("0.0045"), "contract")
    assert listed.total_cost == Decimal("0.0075")
    assert (own.context_window, own.fits) == (128_000, True)
    assert replace(own, input_tokens=128_000).fits is False


def test_a_model_without_a_price_costs_nobody_knows_what() -> None:
    cost = calculate_model_cost("nobody-knows-it", 1000, 500, at=AT)
    assert (cost.input_cost, cost.output_cost, cost.fees, cost.total_cost) == (None,) * 4
    assert (cost.price_version, cost.fits) == (None, None)


def test_a_count_below_nothing_is_refused() -> None:
    for tokens in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="not negative"):
            calculate_model_cost("gpt-4o", *tokens)


def test_every_model_with_a_price_is_compared_the_cheapest_first() -> None:
    found = compare_models(1000, 500, at=AT, prices=BOOK)
    totals = [cost.total_cost for cost in found]
    assert None not in totals
    assert totals == sorted(total for total in totals if total is not None)
    assert len(found) > 1_500, "the list of genai-prices has more than 2,000 models"
    places = [(cost.provider, cost.model.lower()) for cost in found]
    assert len(places) == len(set(places)), "each model of a provider stands there once"
    by_name = {(cost.provider, cost.model): cost for cost in found}
    assert by_name[None, "house-small"].total_cost == Decimal("0.001")
    assert by_name["vllm", "house-large"].total_cost == Decimal("0.006")
    assert by_name["openai", "gpt-4o"].price_version == "contract"
    assert (None, "gpt-4o-mini") not in by_name, "an entry for a listed model is no other model"
    for cost in found[:: len(found) // 20]:
        assert cost == calculate_model_cost(cost.model, 1000, 500, provider=cost.provider, at=AT, prices=BOOK)


def test_a_model_that_has_no_price_for_an_answer_is_left_out() -> None:
    named = {(cost.provider, cost.model) for cost in compare_models(1000, 0, provider="openai", at=AT)}
    assert ("openai", "text-embedding-3-small") in named
    answered = {(cost.provider, cost.model) for cost in compare_models(1000, 1, provider="openai", at=AT)}
    assert answered < named
    assert {provider for provider, _ in named} == {"openai"}


def test_models_are_chosen_by_provider_and_name() -> None:
    found = compare_models(1000, 500, provider="bedrock", at=AT, prices=BOOK)
    assert {cost.provider for cost in found} == {"aws"}
    only = compare_models(1000, 500, only=["GPT-4o", "nobody-knows-it", "house-small"], at=AT, prices=BOOK)
    assert [cost.model for cost in only][:1] == ["house-small"]
    assert [(cost.model, cost.total_cost) for cost in only][-1] == ("nobody-knows-it", None)
    assert "gpt-4o" in [cost.model for cost in only]
    assert len(compare_models(1000, 500, limit=3, at=AT)) == 3


def test_a_name_with_a_date_has_the_price_that_its_calls_have() -> None:
    (dated,) = compare_models(1000, 500, only=["claude-sonnet-4-5-20250929"], at=AT)
    assert (
        dated.total_cost == calculate_model_cost("claude-sonnet-4-5", 1000, 500, provider="anthropic", at=AT).total_cost
    )


# What a cache would save


def test_a_cache_saves_what_it_answers_less_what_it_costs() -> None:
    # 35 % of 50,000 is 17,500; 80 % of these is 14,000; at $0.002 that is $28, less $10 is $18: 180 % of $10.
    assert estimate_caching_savings(50_000, 35, "0.002") == CachingSavings(
        cacheable_calls=17_500,
        calls_saved=14_000,
        gross_savings=Decimal("28.00"),
        infrastructure_cost=Decimal("10.00"),
        net_savings=Decimal("18.00"),
        roi_percent=Decimal(180),
    )


def test_what_is_assumed_of_a_cache_can_be_said_otherwise() -> None:
    found = estimate_caching_savings(999, "33.3", Decimal("0.01"), hit_rate=50, infrastructure_cost="20")
    # 332.667 and 166: calls are whole. $1.66 less $20.
    assert (found.cacheable_calls, found.calls_saved) == (332, 166)
    assert (found.net_savings, found.roi_percent) == (Decimal("-18.34"), Decimal("-91.7"))
    assert estimate_caching_savings(10, 50, 1, infrastructure_cost=0).roi_percent is None


@pytest.mark.parametrize(
    "wrong",
    [(-1, 35, "1"), (1, 101, "1"), (1, -1, "1"), (1, "x", "1"), (1, 1, "-1"), (1, 1, 0.002), (1, float("nan"), 1)],
)
def test_what_is_no_count_share_or_amount_is_refused(wrong: tuple[int, float | str, str]) -> None:
    with pytest.raises(ValueError, match=r"negative|percent|duplicate_rate|avg_cost_per_call"):
        estimate_caching_savings(*wrong)


# Which plan is large enough


def test_the_smallest_plan_that_is_large_enough_is_recommended() -> None:
    # 125,000 of 300,000 calls, 18.4 of 50 million tokens.
    assert recommend_plan_tier(125_000, 18_400_000) == PlanTier(
        recommended_tier="professional",
        monthly_cost=Decimal("49.00"),
        call_utilization_percent=Decimal("41.7"),
        token_utilization_percent=Decimal("36.8"),
        buffer_remaining_percent=Decimal("58.3"),
    )


def test_the_fuller_quota_decides_what_is_left_and_which_plan() -> None:
    assert recommend_plan_tier(700, 100_000) == PlanTier("trial", None, Decimal(100), Decimal(100), Decimal(0))
    by_tokens = recommend_plan_tier(0, 100_001)
    assert (by_tokens.recommended_tier, by_tokens.buffer_remaining_percent) == ("starter", Decimal("98.0"))
    assert recommend_plan_tier(300_001, 0) == PlanTier("enterprise", None, None, None, None)


def test_plans_may_be_the_teams_own_and_all_too_small() -> None:
    plans = [PlanTerms("tiny", 0, 10, Decimal(1)), PlanTerms("calls", None, 1_000, Decimal("9.50"))]
    assert recommend_plan_tier(0, 10, plans=plans) == PlanTier("tiny", Decimal(1), Decimal(0), Decimal(100), Decimal(0))
    assert recommend_plan_tier(10**9, 250, plans=plans) == PlanTier(
        "calls", Decimal("9.50"), None, Decimal(25), Decimal(75)
    )
    assert recommend_plan_tier(0, 1_001, plans=plans) == PlanTier(None, None, None, None, None)
    with pytest.raises(ValueError, match="not negative"):
        recommend_plan_tier(-1, 0)


# How large requests are

REQUESTS = [(100, 50)] * 6 + [(1_000, 100)] * 3 + [(2_000, 10)]


def test_requests_are_counted_by_size_and_the_small_ones_repriced() -> None:
    found = analyze_query_complexity(
        REQUESTS, model="house-large", provider="vllm", simple_model="house-small", at=AT, prices=BOOK
    )
    shares = (found.simple_queries_pct, found.medium_queries_pct, found.complex_queries_pct)
    assert shares == tuple(map(Decimal, (60, 30, 10)))
    # Each: 100 x ($2 - $0.5) + 50 x ($8 - $1) for a million; six of them.
    assert found.potential_savings == 6 * Decimal("0.0005")
    assert found.recommendation == (
        "60.0 % of the requests are simple (below 500 tokens in): try house-small for these, and see whether its answers are "
        "good enough."
    )
    both = analyze_query_complexity(
        REQUESTS,
        model="house-large",
        provider="vllm",
        simple_model="house-small",
        medium_model="house-small",
        at=AT,
        prices=BOOK,
    )
    # Three more: 1,000 x $1.5 + 100 x $7 for a million.
    assert both.potential_savings == 6 * Decimal("0.0005") + 3 * Decimal("0.0022")


def test_nothing_is_recommended_that_saves_nothing_or_is_not_known() -> None:
    dearer = analyze_query_complexity(
        REQUESTS, model="house-small", simple_model="house-large", simple_provider="vllm", at=AT, prices=BOOK
    )
    assert dearer.potential_savings == -6 * Decimal("0.0005")
    assert "keep the model" in dearer.recommendation
    few = analyze_query_complexity([*REQUESTS, *[(5_000, 10)] * 20], at=AT)
    assert few.potential_savings is None
    assert "keep one model" in few.recommendation
    unpriced = analyze_query_complexity(REQUESTS, model="house-small", simple_model="nobody", at=AT, prices=BOOK)
    assert unpriced.potential_savings is None
    none = analyze_query_complexity([])
    assert (none.simple_queries_pct, none.potential_savings) == (None, None)
    assert none.recommendation == "There are no requests to look at."
