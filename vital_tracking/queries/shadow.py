"""What shadow runs have measured: two models beside each other, on the same prompts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store


@answer_type
class ShadowPairs(TypedDict):
    """Calls and their shadow runs of two models and an agent.

    `measured_pairs` are those of which both succeeded with tokens that their providers reported; tokens are sums over them,
    latencies medians in milliseconds. Costs are US dollars over the `priced_pairs` among them, None where there is none.
    """

    model: str | None
    shadow_model: str | None
    agent_id: str | None
    pairs: int
    succeeded: int
    shadow_succeeded: int
    measured_pairs: int
    prompt_tokens: int
    shadow_prompt_tokens: int
    completion_tokens: int
    shadow_completion_tokens: int
    priced_pairs: int
    cost: Amount | None
    shadow_cost: Amount | None
    latency_ms: float | None
    shadow_latency_ms: float | None


def shadow_pairs(
    store: Store, *, since: datetime | None = None, until: datetime | None = None, organization: str | None = None
) -> list[ShadowPairs]:
    """Pairs of calls and shadow runs that began in a time (by default the last 30 days), the most first. Raises StoreError."""
    answer = store.call("shadow_pairs_v1", since=since, until=until, organization=organization)
    return typed(list[ShadowPairs], answer)


def prompt_ratio(pairs: ShadowPairs) -> Decimal | None:
    """How many tokens the shadow's tokenizer makes of one of the model's; None where nothing was measured."""
    return _ratio(pairs["shadow_prompt_tokens"], pairs["prompt_tokens"])


def answer_ratio(pairs: ShadowPairs) -> Decimal | None:
    """How long the shadow's answers are beside the model's, in tokens of each; None where nothing was measured."""
    return _ratio(pairs["shadow_completion_tokens"], pairs["completion_tokens"])


def _ratio(tokens: int, of: int) -> Decimal | None:
    return Decimal(tokens) / Decimal(of) if of else None
