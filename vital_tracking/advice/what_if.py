"""What-if: what the calls of a window would have cost otherwise, each repriced once through all changes together.

Nothing here is added up from single savings: a change that comes after another is asked about what the one before has left.
So the savings of the changes in their order add up to the bill before minus the bill of the repriced calls, to the last digit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from vital_tracking.advice.changes import Change, LeftOut, Otherwise, Prospect, Scenario
from vital_tracking.advice.recommendation import Saving
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.call_groups import CallGroup, GroupKey, SummedCalls

FIXED: Final = "billed by more than tokens (searches, passes, or the provider's own figure)"
SHADOW: Final = "shadow runs, whose answers nobody sees"
UNPRICED: Final = "no price is known for what they cost today"


@dataclass(frozen=True, slots=True)
class Effect:
    """What one change does, after those before it.

    `calls` would have been made otherwise, or not at all; they cost `cost` as they were made, before any change. `left_out` are
    those that it is for and says nothing about, by the reason.
    """

    change: Change
    calls: int
    cost: Decimal
    saving: Saving
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The window's calls as they were and as they would have been.

    `bill` is what its priced calls cost, `after` what they would have cost in each scenario; `unpriced_calls` are those that
    changes are for and that have no known price. `source` is where this comes from:
    `calls`, or `sums` where these say all of it.
    """

    source: str
    calls: int
    unpriced_calls: int
    bill: Decimal
    after: Mapping[Scenario, Decimal]
    effects: Sequence[Effect]

    @property
    def saving(self) -> Saving:
        """What all changes save together."""
        return _as_saving({scenario: MONEY.subtract(self.bill, cost) for scenario, cost in self.after.items()})


@dataclass(slots=True)
class _Tally:
    """An effect while groups are gone through."""

    calls: int = 0
    cost: Decimal = ZERO
    saved: dict[Scenario, Decimal] = field(default_factory=lambda: dict.fromkeys(Scenario, ZERO))
    left_out: Counter[str] = field(default_factory=Counter)


def what_if(
    groups: Iterable[CallGroup], changes: Sequence[Change], prospect: Prospect, *, source: str = "calls"
) -> WhatIf:
    """The bill of the calls in these groups, and what it would have been with all changes, in this order."""
    tallies = [_Tally() for _ in changes]
    places = _places(changes)
    calls, unpriced, bill, unchanged = 0, 0, ZERO, ZERO
    alike: dict[tuple[GroupKey, tuple[int, ...]], CallGroup] = {}
    for group in groups:
        calls += group.calls
        wanted = places(group.key)
        if not group.key.priced:
            unpriced += group.calls if wanted else 0
            reason = UNPRICED
        else:
            bill = MONEY.add(bill, group.cost)
            if wanted and not group.key.fixed and not group.key.shadow:
                # Groups to which the same is done are put together.
                key = _of_no_work(group.key)
                known = alike.get((key, tuple(wanted)))
                alike[key, tuple(wanted)] = replace(group, key=key) if known is None else known.plus(group)
                continue
            unchanged = MONEY.add(unchanged, group.cost)
            reason = FIXED if group.key.fixed else SHADOW
        for place in wanted:
            tallies[place].left_out[reason] += group.calls
    after = dict.fromkeys(Scenario, unchanged)
    for (_, meant), group in alike.items():
        of_group = [(changes[place], tallies[place]) for place in meant]
        for scenario, cost in _otherwise(group, of_group, prospect).items():
            after[scenario] = MONEY.add(after[scenario], cost)
    effects = [
        Effect(change, tally.calls, tally.cost, _as_saving(tally.saved), dict(tally.left_out))
        for change, tally in zip(changes, tallies, strict=True)
    ]
    return WhatIf(source, calls, unpriced, bill, after, effects)


def _of_no_work(key: GroupKey) -> GroupKey:
    """A key without whose calls they are, which decides no price."""
    return key._replace(service=None, agent=None, tier=None, workflow=None, step=None)


def merged(groups: Iterable[CallGroup]) -> list[CallGroup]:
    """The groups put together, whosever calls they are: what is asked of each many times is faster asked of fewer."""
    found: dict[GroupKey, CallGroup] = {}
    for group in groups:
        key = _of_no_work(group.key)
        known = found.get(key)
        found[key] = replace(group, key=key) if known is None else known.plus(group)
    return list(found.values())


def _otherwise(
    group: CallGroup, wanted: Sequence[tuple[Change, _Tally]], prospect: Prospect
) -> dict[Scenario, Decimal]:
    """What the calls of a group would have cost in each scenario; what each change does is added to its tally."""
    after: dict[Scenario, Decimal] = {}
    changed = set[int]()
    for scenario in Scenario:
        cost = group.cost
        calls = Otherwise.as_it_was(group, prospect.eras[group.key.era])
        for place, (change, tally) in enumerate(wanted):
            changed_calls = change.apply(calls, scenario, prospect)
            if changed_calls is calls:
                continue
            found = _priced(changed_calls, prospect.prices)
            if isinstance(found, LeftOut):
                if scenario is Scenario.expected:
                    tally.left_out[found.reason] += group.calls
                continue
            calls, left = found
            tally.saved[scenario] = MONEY.add(tally.saved[scenario], MONEY.subtract(cost, left))
            cost = left
            if place not in changed:
                changed.add(place)
                tally.calls += group.calls
                tally.cost = MONEY.add(tally.cost, group.cost)
        after[scenario] = cost
    return after


def _places(changes: Sequence[Change]) -> Callable[[GroupKey], list[int]]:
    """Which of the changes a group's calls are for, in order: looked up by their names, since both may be thousands."""
    found: dict[tuple[str, ...], dict[tuple[str | None, ...], list[int]]] = {}
    for place, change in enumerate(changes):
        named = change.where.named
        found.setdefault(tuple(named), {}).setdefault(tuple(named.values()), []).append(place)

    def of(key: GroupKey) -> list[int]:
        near = (by.get(tuple(getattr(key, name) for name in names), ()) for names, by in found.items())
        return sorted(place for some in near for place in some if changes[place].where.matches(key))

    return of


def _priced(otherwise: Otherwise | LeftOut, prices: PriceBook) -> tuple[Otherwise, Decimal] | LeftOut:
    if isinstance(otherwise, LeftOut):
        return otherwise
    cost = otherwise.cost(prices)
    if cost is None:
        return LeftOut(f"no price is known for {next((name for name in otherwise.models if name), 'an unknown model')}")
    return otherwise, cost


def _as_saving(by_scenario: Mapping[Scenario, Decimal]) -> Saving:
    """A saving as a range: which scenario is the dearest depends on what a cache would have cost, so both ends are looked for."""
    return Saving(min(by_scenario.values()), by_scenario[Scenario.expected], max(by_scenario.values()))


def from_sums(summed: SummedCalls, changes: Sequence[Change], prospect: Prospect) -> WhatIf | None:
    """The same from sums by service, agent and model, where these say all of it; else None, and the calls must be read.

    They do where no change asks for more, no price depends on the size of a prompt or on the day, and the sums of every group
    that is changed, repriced as they were made, come to its cost to the last digit.
    """
    if len(prospect.eras) > 1 or any(change.needs_calls for change in changes):
        return None
    at = prospect.eras[0]
    for group in summed.groups:
        if not any(change.where.matches(group.key) for change in changes):
            continue
        if group.key in summed.unclear or Otherwise.as_it_was(group, at).cost(prospect.prices) != group.cost:
            return None
    return what_if(summed.groups, changes, prospect, source="sums")
