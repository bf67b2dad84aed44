"""Windows of made-up calls, for tests of advice: no database, prices that one can reckon with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from vital_tracking import Price, PriceBook
from vital_tracking.advice.changes import Prospect
from vital_tracking.advice.machine_evidence import MachineEvidence
from vital_tracking.advice.plan_evidence import PlanEvidence
from vital_tracking.advice.window import Model, Window, cuts_for
from vital_tracking.core.cost import ZERO
from vital_tracking.core.usage import TokenUsage
from vital_tracking.queries.call_groups import CallGroup, GroupKey
from vital_tracking.queries.explore import Period
from vital_tracking.queries.model_tiers import ModelTier
from vital_tracking.queries.outcomes import Outcome
from vital_tracking.queries.shadow import ShadowPairs

START = datetime(2026, 11, 2, tzinfo=UTC)
PERIOD = Period(START, START + timedelta(days=30))

# US dollars a million tokens, in and out.
PRICES = {"big": ("10", "30"), "middle": ("5", "15"), "small": ("1", "2"), "tiny": ("0.1", "0.2")}
BOOK = PriceBook([Price(model, *prices) for model, prices in PRICES.items()])


def group(model: str = "big", calls: int = 1000, prompt: int = 1_000, answer: int = 100, **more: Any) -> CallGroup:
    """So many calls of such sizes, at their price; what is no field of a group is one of its key."""
    of_group = {name: more.pop(name) for name in tuple(more) if name in CallGroup.__dataclass_fields__}
    size = 0 if prompt < 500 else 500 if prompt < 2_000 else 2_000
    key = GroupKey(**{"model": model, "agent": "cardio", "service": "workflow", "size": size, **more})
    usage = TokenUsage(calls * prompt, calls * answer, of_group.pop("cache_read", 0))
    cost = BOOK.cost(usage, key.provider, (model,), START, facts=dict(key.facts), calls=calls) if key.priced else None
    return CallGroup(key, calls, usage, ZERO if cost is None else cost.total, **of_group)


def window(
    *groups: CallGroup,
    tiers: Iterable[tuple[str, int]] = (),
    outcomes: Sequence[Outcome] = (),
    shadows: Sequence[ShadowPairs] = (),
    candidates: Iterable[str] = (),
    period: Period = PERIOD,
    prices: PriceBook = BOOK,
) -> Window:
    """A window of these calls; its candidates are the models that were called, those of tiers, and those that are named."""
    tiers = list(tiers)
    models = [Model(one.key.provider, one.key.model or "") for one in groups]
    models += [Model(None, name) for name in (*(name for name, _ in tiers), *candidates)]
    cuts = cuts_for(prices, models, period)
    return Window(
        period=period,
        organization=None,
        groups=groups,
        prospect=Prospect(prices, (period.since, *cuts.eras)),
        candidates=list(dict.fromkeys(models)),
        tiers=[
            ModelTier(provider=None, model=name, tier=tier, set_by="ops", set_at=START, note=None)
            for name, tier in tiers
        ],
        outcomes=outcomes,
        shadows=shadows,
    )


def outcome(model: str, success_rate: str, executions: int = 100, **more: Any) -> Outcome:
    """How executions of `cardio` went by a model."""
    made: Outcome = {
        "organization_id": None, "agent": "cardio", "provider": None, "model": model, "executions": executions,
        "succeeded": int(executions * Decimal(success_rate) / 100), "success_rate": Decimal(success_rate), "ratings": 0,
        "rating": None, "faithfulness_scores": 0, "faithfulness": None, "answer_relevancy_scores": 0, "answer_relevancy": None,
    }  # fmt: skip
    return {**made, **more}  # type: ignore[typeddict-item]


NO_PLANS = PlanEvidence(PERIOD, None)
NO_MACHINES = MachineEvidence(PERIOD, None, ())
