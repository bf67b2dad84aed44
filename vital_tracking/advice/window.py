"""What advice looks at: the calls of some days in groups, and what is known beside them of prices and quality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final, NamedTuple

from vital_tracking.advice.changes import Change, Prospect, SwitchModel
from vital_tracking.advice.what_if import WhatIf, from_sums, what_if
from vital_tracking.core.cost import ZERO
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.request_size import SIZES
from vital_tracking.queries.call_groups import CallGroup, Cuts, read_call_groups, read_summed_calls
from vital_tracking.queries.explore import Period, explore
from vital_tracking.queries.prices import price_book
from vital_tracking.stores import Store

TTL: Final = timedelta(hours=24)
"""How long an exact cache is taken to keep an answer, unless it is said."""


class Model(NamedTuple):
    """A provider's model."""

    provider: str | None
    name: str


class Work(NamedTuple):
    """What calls are for: an agent's part of a service, or a step of a workflow; the work that another model may do."""

    service: str | None
    agent: str | None
    workflow: str | None
    step: str | None


@dataclass(frozen=True, kw_only=True)
class Window:
    """The calls of a period, in groups cut where prices of these calls and of all candidates change.

    `candidates` are models that are known to the team: used in the period, or given a tier. `tiers` are the team's own, 1 being
    the best; `ttl` is how long the exact cache keeps its answers by which calls are `repeated`.
    """

    period: Period
    organization: str | None
    groups: Sequence[CallGroup]
    prospect: Prospect
    candidates: Sequence[Model] = ()
    tiers: Mapping[Model, int] = field(default_factory=dict)
    ttl: timedelta = TTL

    @property
    def days(self) -> Decimal:
        """How many days it has."""
        return Decimal((self.period.until - self.period.since) // timedelta(seconds=1)) / 86_400

    @cached_property
    def bill(self) -> Decimal:
        """What its calls cost, those with a price."""
        return sum((group.cost for group in self.groups), ZERO)

    @cached_property
    def by_work(self) -> Mapping[tuple[Work, Model], Sequence[CallGroup]]:
        """The groups of chat models by what they are for and by model, those that cost most first."""
        found: dict[tuple[Work, Model], list[CallGroup]] = {}
        for group in self.groups:
            key = group.key
            if key.model is not None and key.call_type != "embedding":
                work = Work(key.service, key.agent, key.workflow, key.step)
                found.setdefault((work, Model(key.provider, key.model)), []).append(group)
        cost = {place: sum((group.cost for group in groups), ZERO) for place, groups in found.items()}
        return {place: found[place] for place in sorted(found, key=lambda place: (-cost[place], str(place)))}

    def tier_of(self, model: Model) -> int | None:
        """A model's tier, that of its provider before that of any."""
        return self.tiers.get(model) or self.tiers.get(Model(None, model.name))

    def what_if(self, *changes: Change, groups: Iterable[CallGroup] | None = None) -> WhatIf:
        """What these calls, or some `groups` of them, would have cost otherwise."""
        return what_if(self.groups if groups is None else groups, changes, self.prospect)


def used_models(store: Store, period: Period, organization: str | None = None) -> list[Model]:
    """The models that answered in a period, those that cost most first."""
    filters = {} if organization is None else {"organization": [organization]}
    found = explore(store, period, by=["provider", "model"], filters=filters, measures=["calls"])
    return [Model(row["provider"], row["model"]) for row in found.rows if row["model"] is not None and row["calls"]]


def cuts_for(prices: PriceBook, models: Iterable[Model], period: Period, *, ttl: timedelta | None = None) -> Cuts:
    """Where groups must be cut so that each of these models prices all calls of a group by the same rates."""
    sizes = {below for below in SIZES.values() if below is not None}
    eras: set[datetime] = set()
    for model in models:
        changes = prices.changes(model.provider, model.name, period.since, period.until)
        eras.update(changes)
        for at in (period.since, *changes):
            rates = prices.rates(model.provider, model.name, at)
            sizes |= rates.sizes if rates is not None else set()
    return Cuts(sizes=sorted(sizes), eras=sorted(eras), ttl=ttl)


def _targets(change: SwitchModel, used: Iterable[Model]) -> set[Model]:
    """The models that calls may come to: where no provider is named, that of each provider whose calls are switched."""
    if (provider := change.provider or change.where.provider) is not None:
        return {Model(provider, change.model)}
    return {Model(model.provider, change.model) for model in used if change.where.model in (None, model.name)}


def ask_what_if(
    store: Store,
    period: Period,
    changes: Sequence[Change],
    *,
    organization: str | None = None,
    ttl: timedelta | None = None,
    prices: PriceBook | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> WhatIf:
    """What a period's calls would have cost with these changes, in their order: from sums where they suffice, else the calls.

    `ttl` is for changes by an exact cache. Raises StoreError.
    """
    prices = prices or price_book(store)
    targets = [
        Model(change.provider or change.where.provider, change.model)
        for change in changes
        if isinstance(change, SwitchModel)
    ]
    used = used_models(store, period, organization)
    targets += [
        Model(model.provider, change.model)
        for change in changes
        if isinstance(change, SwitchModel) and change.provider is None and change.where.provider is None
        for model in used
        if change.where.model in (None, model.name)
    ]
    cuts = cuts_for(prices, [*used, *targets], period, ttl=ttl)
    prospect = Prospect(prices, (period.since, *cuts.eras))
    sized = cuts_for(prices, targets, period).sizes != cuts_for(prices, (), period).sizes
    if not sized and not any(change.needs_calls for change in changes):
        found = from_sums(read_summed_calls(store, period, organization=organization), changes, prospect)
        if found is not None:
            return found
    return what_if(
        read_call_groups(store, period, cuts, organization=organization, progress=progress), changes, prospect
    )
