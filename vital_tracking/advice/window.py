"""What advice looks at: the calls of some days in groups, and what is known beside them of prices and quality."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final, NamedTuple

from vital_tracking.advice.changes import Change, Prospect, SwitchModel
from vital_tracking.advice.what_if import WhatIf, from_sums, what_if
from vital_tracking.core.cost import exact_sum
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.providers import provider_id
from vital_tracking.core.request_size import SIZES
from vital_tracking.queries.call_groups import CallGroup, Cuts, read_call_groups, read_summed_calls
from vital_tracking.queries.explore import ANY, Period, explore
from vital_tracking.queries.model_tiers import ModelTier, model_tiers, tier_of
from vital_tracking.queries.outcomes import Outcome, outcomes_by_model
from vital_tracking.queries.prices import price_book
from vital_tracking.queries.shadow import ShadowPairs, shadow_pairs
from vital_tracking.stores import Store

TTL: Final = timedelta(hours=24)
"""How long an exact cache is taken to keep an answer, unless it is said."""


PREFIX_TTL: Final = timedelta(minutes=5)
"""How long providers keep the beginning of a prompt after its last use: five minutes at the least.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching, https://platform.openai.com/docs/guides/prompt-caching
"""


_WAYS: Final[Sequence[Mapping[str, str]]] = (
    {},
    {"processing": "batch"},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
)
"""The ways of processing that may have prices, and sizes of prompts at which these change, of their own."""


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

    @property
    def title(self) -> str:
        """What people call it."""
        if self.step is not None:
            return f"step {self.step}" if self.workflow is None else f"step {self.step} of workflow {self.workflow}"
        if self.agent is not None:
            return f"agent {self.agent}"
        return f"service {self.service}" if self.service is not None else "calls outside of services"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The calls of a period, in groups cut where prices of these calls and of all candidates change.

    `candidates` are models that are known to the team: used in the period, or given a tier. `tiers` and `outcomes` are what the
    team knows of their quality, `shadows` what shadow runs have measured of their tokens; `ttl` is how long the exact cache keeps
    its answers by which calls are `repeated`.
    """

    period: Period
    organization: str | None
    groups: Sequence[CallGroup]
    prospect: Prospect
    candidates: Sequence[Model] = ()
    tiers: Sequence[ModelTier] = ()
    outcomes: Sequence[Outcome] = ()
    shadows: Sequence[ShadowPairs] = ()
    ttl: timedelta = TTL

    @property
    def days(self) -> Decimal:
        """How many days it has."""
        return days_of(self.period)

    @cached_property
    def bill(self) -> Decimal:
        """What its calls cost, those with a price."""
        return exact_sum(group.cost for group in self.groups)

    @cached_property
    def by_work(self) -> Mapping[tuple[Work, Model], Sequence[CallGroup]]:
        """The groups of chat models by what they are for and by model, those that cost most first."""
        found: dict[tuple[Work, Model], list[CallGroup]] = {}
        for group in self.groups:
            key = group.key
            if key.model is not None and key.kind == "llm" and not key.shadow:
                work = Work(key.service, key.agent, key.workflow, key.step)
                found.setdefault((work, Model(key.provider, key.model)), []).append(group)
        cost = {place: exact_sum(group.cost for group in groups) for place, groups in found.items()}
        return {place: found[place] for place in sorted(found, key=lambda place: (-cost[place], str(place)))}

    @cached_property
    def reasoning_models(self) -> Collection[Model]:
        """The models that think before they answer, as their own calls show."""
        return {
            Model(group.key.provider, group.key.model or "") for group in self.groups if group.usage.reasoning_tokens
        }

    @cached_property
    def chat_models(self) -> Sequence[Model]:
        """The candidates that can do the work of a chat model, as far as can be told: those that did embeddings cannot."""
        return [model for model in self.candidates if model not in self.embedding_models]

    @cached_property
    def embedding_models(self) -> Collection[Model]:
        """The models that did embeddings."""
        return {
            Model(group.key.provider, group.key.model or "") for group in self.groups if group.key.kind == "embeddings"
        }

    @cached_property
    def tier_by_model(self) -> Mapping[Model, int]:
        """The tiers that the team gave to the models that are known here."""
        used = (Model(group.key.provider, group.key.model or "") for group in self.groups)
        found = {
            model: tier_of(self.tiers, model.provider, model.name) for model in dict.fromkeys((*self.candidates, *used))
        }
        return {model: tier for model, tier in found.items() if tier is not None}

    @cached_property
    def outcomes_by_model(self) -> Mapping[Model, Mapping[str, Sequence[Outcome]]]:
        """The outcomes of each model by agent; of several organizations there may be several."""
        found: dict[Model, dict[str, list[Outcome]]] = {}
        for outcome in self.outcomes:
            if self.organization in (None, outcome["organization_id"]):
                model = Model(provider_id(outcome["provider"]), outcome["model"])
                found.setdefault(model, {}).setdefault(outcome["agent"], []).append(outcome)
        return found

    def what_if(self, *changes: Change, groups: Iterable[CallGroup] | None = None) -> WhatIf:
        """What these calls, or some `groups` of them, would have cost otherwise."""
        return what_if(self.groups if groups is None else groups, changes, self.prospect)


def so_far(period: Period, now: datetime) -> Period:
    """What is over of a period, in whole seconds, at least an hour: what lies behind `now` has not happened yet."""
    over = max((min(period.until, now) - period.since) // timedelta(seconds=1), 3_600)
    return replace(period, until=min(period.until, period.since + timedelta(seconds=over)))


def days_of(period: Period) -> Decimal:
    """How many days a period has."""
    return Decimal((period.until - period.since) // timedelta(seconds=1)) / 86_400


def read_window(
    store: Store,
    period: Period,
    *,
    organization: str | None = None,
    ttl: timedelta = TTL,
    prices: PriceBook | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Window:
    """The window of advice over a period. Raises StoreError."""
    prices = prices or price_book(store)
    tiers = model_tiers(store)
    used = used_models(store, period, organization)
    named = dict.fromkeys((*used, *(Model(tier["provider"], tier["model"]) for tier in tiers)))
    cuts = cuts_for(prices, named, period, ttl=ttl, prefix_ttl=PREFIX_TTL)
    return Window(
        period=period,
        organization=organization,
        groups=read_call_groups(store, period, cuts, organization=organization, progress=progress),
        prospect=Prospect(prices, (period.since, *cuts.eras)),
        candidates=list(named),
        tiers=tiers,
        outcomes=outcomes_by_model(store, period.since, period.until, organization)["rows"],
        shadows=shadow_pairs(store, since=period.since, until=period.until, organization=organization),
        ttl=ttl,
    )


def used_models(store: Store, period: Period, organization: str | None = None) -> list[Model]:
    """The models that answered in a period, those that cost most first."""
    filters = {} if organization is None else {"organization": [organization]}
    found = explore(store, period, by=["provider", "model"], filters=filters, measures=["calls"])
    return [Model(row["provider"], row["model"]) for row in found.rows if row["model"] is not None and row["calls"]]


def cuts_for(
    prices: PriceBook,
    models: Iterable[Model],
    period: Period,
    *,
    ttl: timedelta | None = None,
    prefix_ttl: timedelta | None = None,
) -> Cuts:
    """Where groups must be cut so that each of these models prices all calls of a group by the same rates."""
    sizes = {below for below in SIZES.values() if below is not None}
    eras: set[datetime] = set()
    for model in models:
        changes = prices.changes(model.provider, model.name, period.since, period.until)
        eras.update(changes)
        for at in (period.since, *changes):
            for facts in _WAYS:
                rates = prices.rates(model.provider, model.name, at, facts=facts)
                sizes |= rates.sizes if rates is not None else set()
        if (room := prices.context_window(model.provider, model.name)) is not None:
            sizes.add(room)
    return Cuts(sizes=sorted(sizes), eras=sorted(eras), ttl=ttl, prefix_ttl=prefix_ttl)


def _targets(change: SwitchModel, used: Iterable[Model]) -> set[Model]:
    """The models that calls may come to: where no provider is named, that of each provider whose calls are switched."""
    if change.provider is not None:
        return {Model(change.provider, change.model)}
    return {
        Model(model.provider, change.model)
        for model in used
        if change.where.model in (ANY, model.name) and change.where.provider in (ANY, model.provider)
    }


def ask_what_if(
    store: Store,
    period: Period,
    changes: Sequence[Change],
    *,
    organization: str | None = None,
    ttl: timedelta | None = None,
    prefix_ttl: timedelta | None = None,
    prices: PriceBook | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> WhatIf:
    """What a period's calls would have cost with these changes, in their order: from sums where they suffice, else the calls.

    `ttl` is for an exact cache, `prefix_ttl` for caches of prompts. Raises StoreError.
    """
    prices = prices or price_book(store)
    used = used_models(store, period, organization)
    targets = {target for change in changes if isinstance(change, SwitchModel) for target in _targets(change, used)}
    cuts = replace(
        cuts_for(prices, [*used, *targets], period, ttl=ttl, prefix_ttl=prefix_ttl),
        dimensions={name for change in changes for name in change.dimensions},
    )
    prospect = Prospect(prices, (period.since, *cuts.eras))
    if not any(change.needs_calls for change in changes) and all(
        _whatever_size(prices, target, used, period) for target in targets
    ):
        found = from_sums(read_summed_calls(store, period, organization=organization), changes, prospect)
        if found is not None:
            return found
    groups = read_call_groups(store, period, cuts, organization=organization, progress=progress)
    return what_if(groups, changes, prospect)


def _whatever_size(prices: PriceBook, target: Model, used: Iterable[Model], period: Period) -> bool:
    """Whether a model takes every prompt that those in use take, at one price."""
    rates = prices.rates(target.provider, target.name, period.since)
    room = prices.context_window(target.provider, target.name)
    rooms = [prices.context_window(model.provider, model.name) for model in used]
    return not (rates and rates.sizes) and (room is None or all(one is not None and one <= room for one in rooms))
