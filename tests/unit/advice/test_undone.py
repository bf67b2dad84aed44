"""What is undone costs what it was: each change against the one that takes it back; and changes are kept as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from vital_tracking.advice.change_json import change_from_json, change_to_json
from vital_tracking.advice.changes import (
    ExactCache,
    OffPeak,
    Otherwise,
    Processing,
    PromptCaching,
    Prospect,
    Scenario,
    SwitchModel,
    Where,
)
from vital_tracking.advice.measured import undone
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.request_size import Size
from vital_tracking.core.usage import TokenUsage
from vital_tracking.queries.call_groups import CallGroup, GroupKey

AT = datetime(2026, 11, 15, tzinfo=UTC)
PROSPECT = Prospect(PriceBook(), (AT,))
WORK = Where(provider="openai", model="gpt-4o", agent="triage", step=None, size=Size.simple)


def a_group(**changes: Any) -> CallGroup:
    """Ten calls of some work, at what they cost by the list."""
    usage = changes.pop("usage", TokenUsage(prompt_tokens=4_000, completion_tokens=800))
    key = GroupKey(**{"provider": "openai", "model": "gpt-4o", "agent": "triage", **changes})
    group = CallGroup(key, 10, usage, Decimal(0))
    cost = Otherwise.as_it_was(group, AT).cost(PROSPECT.prices)
    assert cost is not None
    return replace(group, cost=cost)


def cost_after(change: Any, group: CallGroup) -> Decimal:
    """What these calls cost otherwise."""
    found = change.apply(Otherwise.as_it_was(group, AT), Scenario.expected, PROSPECT)
    cost = found.cost(PROSPECT.prices)
    assert cost is not None
    return Decimal(cost)


def test_a_switch_is_undone_by_the_model_of_before() -> None:
    change = SwitchModel(where=WORK, model="gpt-4o-mini", provider="openai")
    back = undone(change)
    assert isinstance(back, SwitchModel)
    assert (back.model, back.provider) == ("gpt-4o", "openai")
    assert back.where == replace(WORK, model="gpt-4o-mini")
    before, after = a_group(), a_group(model="gpt-4o-mini")
    assert cost_after(change, before) == after.cost
    assert cost_after(back, after) == before.cost
    # Calls that the other model does not make are left as they are.
    assert not back.where.matches(before.key)


def test_a_batch_is_undone_by_the_plain_price_and_a_cache_by_the_plain_prompt() -> None:
    model = {"provider": "anthropic", "model": "claude-sonnet-4-6"}
    plain, batch = a_group(**model), a_group(**model, facts=(("processing", "batch"),))
    back = undone(Processing(where=WORK, way="batch"))
    assert batch.cost < plain.cost
    assert cost_after(back, batch) == plain.cost
    assert cost_after(back, plain) == plain.cost
    plain = a_group()
    cached = a_group(usage=TokenUsage(prompt_tokens=4_000, completion_tokens=800, cache_read_tokens=2_048))
    back = undone(PromptCaching(where=WORK))
    assert cached.cost < plain.cost
    assert cost_after(back, cached) == plain.cost
    assert undone(OffPeak(where=WORK)) is None
    assert undone(ExactCache(where=WORK)) is None


@pytest.mark.parametrize(
    "change",
    [
        SwitchModel(where=WORK, model="gpt-4o-mini", provider="openai"),
        SwitchModel(where=Where(model="gpt-4o"), model="gpt-4o-mini"),
        Processing(where=replace(WORK, unattended=True), way="batch"),
        ExactCache(where=Where(service="workflow", agent=None)),
        PromptCaching(where=WORK),
    ],
)
def test_a_change_is_the_same_after_it_was_kept(change: Any) -> None:
    assert change_from_json(json.loads(json.dumps(change_to_json(change)))) == change
