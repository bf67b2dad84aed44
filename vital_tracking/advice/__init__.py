"""Advice that rests on calls: what they would have cost otherwise, which changes save money, and what became of them."""

from vital_tracking.advice.calculators import (
    CachingSavings,
    ModelCost,
    PlanTier,
    QueryComplexity,
    analyze_query_complexity,
    calculate_model_cost,
    compare_models,
    estimate_caching_savings,
    recommend_plan_tier,
)
from vital_tracking.advice.plan_terms import PlanTerms

__all__ = [
    "CachingSavings",
    "ModelCost",
    "PlanTerms",
    "PlanTier",
    "QueryComplexity",
    "analyze_query_complexity",
    "calculate_model_cost",
    "compare_models",
    "estimate_caching_savings",
    "recommend_plan_tier",
]
