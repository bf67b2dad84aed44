"""What the team itself knows about how good models are: outcomes of its agents, and the tiers that it gave. Nothing is made up.

Outcomes decide where there are enough of both models by the same agent: at least `ENOUGH` executions each. Else tiers do, where
both models have one. Else nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal

from vital_tracking.advice.recommendation import Level
from vital_tracking.advice.window import Model, Window
from vital_tracking.core.cost import MONEY, ZERO, exact_sum
from vital_tracking.core.providers import provider_id
from vital_tracking.queries.outcomes import Outcome

ENOUGH: Final = 30
"""So many executions of a model, and so many ratings, say something about it."""

SUCCESS_MARGIN: Final = 2
"""As good as another one is a model that succeeds in at most so many percent fewer of its executions, ..."""

RATING_MARGIN: Final = Decimal("0.2")
"""... is rated at most so much lower (of 1 to 5), ..."""

SCORE_MARGIN: Final = Decimal("0.05")
"""... and whose answers are scored at most so much lower (of 0 to 1)."""


class Quality(StrEnum):
    """How another model does the same work."""

    as_good = "as good"
    one_tier_lower = "one tier lower"
    worse = "worse"
    unknown = "unknown quality"


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good another model is, how sure that is, and a sentence that says why."""

    quality: Quality
    confidence: Level
    reason: str


def judge(window: Window, agents: Collection[str | None], model: Model, other: Model) -> Judgement:
    """How the `other` model would do some agents' work beside its `model`, by what the team has recorded and said.

    Of several agents those outcomes count together that belong to an agent with outcomes of both models.
    """
    mine, its = _outcomes(window, agents, model, other)
    if mine is not None and its is not None and min(mine["executions"], its["executions"]) >= ENOUGH:
        return _by_outcomes(mine, its)
    tier, other_tier = window.tier_by_model.get(model), window.tier_by_model.get(other)
    if tier is None or other_tier is None:
        return Judgement(
            Quality.unknown,
            Level.low,
            f"Unknown quality: nobody has said or recorded how good {other.name} is at this.",
        )
    told = f"The team gave {model.name} tier {tier} and {other.name} tier {other_tier}."
    if other_tier <= tier:
        return Judgement(Quality.as_good, Level.medium, told)
    return Judgement(Quality.one_tier_lower if other_tier == tier + 1 else Quality.worse, Level.medium, told)


def _outcomes(
    window: Window, agents: Collection[str | None], model: Model, other: Model
) -> tuple[Outcome | None, Outcome | None]:
    of_mine, of_its = (
        window.outcomes_by_model.get(Model(provider_id(each.provider), each.name), {}) for each in (model, other)
    )
    both = [agent for agent in of_mine if agent in of_its and agent in agents]
    return _together([one for agent in both for one in of_mine[agent]]), _together(
        [one for agent in both for one in of_its[agent]]
    )


def _together(found: Sequence[Outcome]) -> Outcome | None:
    """Several outcomes as one: means are those of all that were recorded."""
    if len(found) < 2:
        return found[0] if found else None
    executions, succeeded = (sum(one[name] for one in found) for name in ("executions", "succeeded"))

    def mean(name: _Score, count: _Scores) -> tuple[int, Decimal | None]:
        counts = sum(one[count] for one in found)
        total = exact_sum(MONEY.multiply(one[name] or ZERO, one[count]) for one in found)
        return counts, MONEY.divide(total, counts) if counts else None

    ratings, rating = mean("rating", "ratings")
    faithful, faithfulness = mean("faithfulness", "faithfulness_scores")
    relevant, relevancy = mean("answer_relevancy", "answer_relevancy_scores")
    return {
        **found[0],
        "executions": executions,
        "succeeded": succeeded,
        "success_rate": MONEY.divide(Decimal(100 * succeeded), executions),
        "ratings": ratings,
        "rating": rating,
        "faithfulness_scores": faithful,
        "faithfulness": faithfulness,
        "answer_relevancy_scores": relevant,
        "answer_relevancy": relevancy,
    }


_Score = Literal["rating", "faithfulness", "answer_relevancy"]
_Scores = Literal["ratings", "faithfulness_scores", "answer_relevancy_scores"]


def _by_outcomes(mine: Outcome, its: Outcome) -> Judgement:
    told = [
        f"{its['success_rate']:.1f} % of {its['executions']:,} executions succeeded, {mine['success_rate']:.1f} % before"
    ]
    good = its["success_rate"] >= mine["success_rate"] - SUCCESS_MARGIN
    scales = (
        ("rating", its["rating"], mine["rating"], its["ratings"], mine["ratings"], RATING_MARGIN),
        (
            "faithfulness",
            its["faithfulness"],
            mine["faithfulness"],
            its["faithfulness_scores"],
            mine["faithfulness_scores"],
            SCORE_MARGIN,
        ),
        (
            "answer relevancy",
            its["answer_relevancy"],
            mine["answer_relevancy"],
            its["answer_relevancy_scores"],
            mine["answer_relevancy_scores"],
            SCORE_MARGIN,
        ),
    )
    for name, its_mean, my_mean, its_count, my_count, margin in scales:
        if its_mean is not None and my_mean is not None and min(its_count, my_count) >= ENOUGH:
            good = good and its_mean >= my_mean - margin
            told.append(f"{name} {its_mean:.2f}, {my_mean:.2f} before")
    return Judgement(
        Quality.as_good if good else Quality.worse, Level.high, "Recorded outcomes: " + "; ".join(told) + "."
    )
