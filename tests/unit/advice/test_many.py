"""Advice for large teams: thousands of agents, of which none is worth advice alone, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.unit.advice.test_calls import Found, only
from tests.unit.advice.windows import group, window
from vital_tracking.advice.advise import OF_CALLS
from vital_tracking.advice.changes import SwitchModel, Where
from vital_tracking.advice.kinds import caching, model_consolidation, model_switch
from vital_tracking.advice.recommendation import NotApplicable, Recommendation
from vital_tracking.advice.window import Window
from vital_tracking.queries.call_groups import GroupKey


def test_many_small_agents_are_advised_together() -> None:
    """If work below half a percent of the bill were not looked at, a team of two thousand agents would hear nothing."""
    agents = [group(agent=f"agent-{number}") for number in range(2_000)]
    rest, dear = sorted(
        (one for one in switched(window(*agents, group(agent="dear", calls=90_000), tiers=[("big", 1), ("small", 1)]))),
        key=lambda one: one.calls,
        reverse=True,
    )
    # $13 a thousand calls at big, $1.20 at small.
    assert (rest.calls, rest.saving.expected) == (2_000_000, 2_000 * Decimal("11.8"))
    assert (dear.calls, dear.subject["agent"]) == (90_000, "dear")
    assert rest.evidence["without"] == ["agent=dear&service=workflow&step=&workflow="]
    assert "2,000 agents" in rest.current


def switched(of: Window) -> list[Recommendation]:
    """The switches that are advised."""
    found = model_switch.advise(of)
    assert isinstance(found, list), found
    return found


def test_a_cache_is_advised_for_a_service_of_many_small_agents() -> None:
    """If each agent were looked at alone, a team of hundreds would be told that nothing repeats."""
    agents = [f"agent-{number}" for number in range(300)]
    again = [group(agent=agent, repeated=True, hashed=True) for agent in agents]
    found = only(caching.advise(window(*again, *(group(agent=agent, hashed=True) for agent in agents))))
    assert found.evidence == {"service": "workflow", "repriceable": "yes", "repeated_within": "24h"}
    assert (found.calls, found.saving.expected) == (300_000, Decimal(13 * 300))


def test_a_model_with_many_kinds_of_work_stays() -> None:
    """If it went, its advice would be thousands of changes, too many to be kept."""
    hardly = [group("middle", calls=1, agent=f"agent-{number}") for number in range(41)]
    mostly = [group("small", calls=500, agent=f"agent-{number}") for number in range(41)]
    assert isinstance(model_consolidation.advise(window(*hardly, *mostly, group("big", 5_000))), NotApplicable)
    found = only(model_consolidation.advise(window(*hardly[1:], *mostly, group("big", 5_000))))
    assert len(found.changes) == 40


def test_groups_meet_only_the_changes_that_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """If each met all, a thousand agents and a thousand changes would take minutes."""
    met = []
    matches = Where.matches

    def counted(where: Where, key: GroupKey) -> bool:
        met.append(key)
        return matches(where, key)

    monkeypatch.setattr(Where, "matches", counted)
    agents = [f"agent-{number}" for number in range(100)]
    of = window(*(group(agent=agent) for agent in agents))
    done = of.what_if(*(SwitchModel(where=Where(agent=agent, model="big"), model="small") for agent in agents))
    assert [effect.calls for effect in done.effects] == [1000] * 100
    assert len(met) == 100


@pytest.mark.parametrize("advise", OF_CALLS.values(), ids=OF_CALLS)
def test_a_kind_goes_through_thousands_of_groups_a_few_times(
    advise: Callable[[Window], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a kind went through all of them for each of them, a large team would wait for minutes."""
    met = []
    matches = Where.matches

    def counted(where: Where, key: GroupKey) -> bool:
        met.append(key)
        return matches(where, key)

    monkeypatch.setattr(Where, "matches", counted)
    many = [
        group(model, 10, agent=f"agent-{number}", service=f"service-{number}", unattended=True, hashed=True)
        for number in range(200)
        for model in ("big", "middle", "small")
    ]
    advise(window(*many))
    assert len(met) < 10 * len(many)
