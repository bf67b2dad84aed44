"""What one could do otherwise, and what that makes of the calls of a group.

A change says which calls it is for and how such calls would have been made: by another model, in a batch, with a prompt that the
provider keeps. What nobody can know, how many tokens another model would have counted and answered, is a range: each
`Scenario` is one end of it or its middle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from functools import cached_property
from typing import Final

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.providers import provider_id
from vital_tracking.core.request_size import Size, size_of
from vital_tracking.core.usage import TokenUsage
from vital_tracking.queries.call_groups import RATES, CallGroup, GroupKey
from vital_tracking.queries.explore import ANY


class Scenario(StrEnum):
    """How what is not known turns out: for the least cost, as expected, for the greatest."""

    cheapest = "cheapest"
    expected = "expected"
    dearest = "dearest"


@dataclass(frozen=True, slots=True)
class Factors:
    """A factor as a range, one for each scenario; `source` says where it comes from."""

    cheapest: Decimal
    expected: Decimal
    dearest: Decimal
    source: str = "as given"

    def __post_init__(self) -> None:
        if not 0 < self.cheapest <= self.expected <= self.dearest:
            raise ValueError("factors are a range above 0: cheapest <= expected <= dearest")

    def of(self, scenario: Scenario) -> Decimal:
        """The factor in a scenario."""
        factor: Decimal = getattr(self, scenario.value)
        return factor


ONE: Final = Factors(Decimal(1), Decimal(1), Decimal(1))

OTHER_TOKENIZER: Final = Factors(Decimal("0.85"), Decimal(1), Decimal("1.25"), "an assumption")
"""How many tokens another provider's model counts for the same text, where nobody has measured it. An assumption."""

OTHER_ANSWER: Final = Factors(Decimal("0.75"), Decimal(1), Decimal("1.5"), "an assumption")
"""How long another model's answers are beside those of this one, where nobody has measured it. An assumption."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which calls: those that have all of these values. ANY lets every value pass, None those that have none.

    `size` and `unattended` None: of every size, whether or not somebody waited. `but` leaves out calls that have all of some
    values, by the names of dimensions: work about which something else is said.
    """

    provider: str | None = ANY
    model: str | None = ANY
    service: str | None = ANY
    agent: str | None = ANY
    tier: str | None = ANY
    workflow: str | None = ANY
    step: str | None = ANY
    kind: str | None = ANY
    size: Size | None = None
    unattended: bool | None = None
    but: tuple[Mapping[str, str | None], ...] = ()

    @cached_property
    def named(self) -> Mapping[str, str | None]:
        """The values that are asked for, by the names of dimensions; without size and who waited."""
        return {name: value for name in _DIMENSIONS if (value := getattr(self, name)) != ANY}

    def matches(self, key: GroupKey) -> bool:
        """Whether a group's calls are among them."""
        return (
            (self.size is None or size_of(key.size) is self.size)
            and (self.unattended is None or key.unattended is self.unattended)
            and all(getattr(key, name) == value for name, value in self.named.items())
            and not any(all(getattr(key, name) == value for name, value in left.items()) for left in self.but)
        )

    @property
    def dimensions(self) -> Set[str]:
        """What groups must be told apart by, so that each is wholly of these calls or not at all, as call_groups names it."""
        names = self.named.keys() | {name for left in self.but for name in left}
        prices = _OF_RATES & names or self.size or self.unattended is not None
        return (names - _OF_RATES) | ({RATES} if prices else set())

    @property
    def needs_calls(self) -> bool:
        """Whether only the calls themselves say which these are, since no sums do."""
        return (
            self.size is not None or self.unattended is not None or bool({"tier", "workflow", "step"} & self.dimensions)
        )


_DIMENSIONS: Final = ("provider", "model", "service", "agent", "tier", "workflow", "step", "kind")
_OF_RATES: Final = frozenset({"provider", "model", "kind"})

EVERYWHERE: Final = Where()


@dataclass(frozen=True, slots=True)
class Otherwise:
    """The calls of a group as they would have been made; `calls` is 0 where nobody would have made them."""

    group: CallGroup
    calls: int
    usage: TokenUsage
    provider: str | None
    models: tuple[str | None, ...]
    facts: Mapping[str, str]
    at: datetime

    @classmethod
    def as_it_was(cls, group: CallGroup, at: datetime) -> Otherwise:
        """As they were made; `at` is the instant by whose prices."""
        key = group.key
        return cls(group, group.calls, group.usage, key.provider, (key.model, key.sent_model), dict(key.facts), at)

    def cost(self, prices: PriceBook) -> Decimal | None:
        """What they would have cost, in US dollars, or None where no price is known."""
        if not self.calls:
            return ZERO
        cost = prices.cost(self.usage, self.provider, self.models, self.at, facts=self.facts, calls=self.calls)
        return None if cost is None else cost.total


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a change says nothing about the calls of a group that it is for."""

    reason: str


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a change may ask: prices, and the instant at which each era of the window begins."""

    prices: PriceBook
    eras: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(ABC):
    """One thing done otherwise, for the calls of `where`."""

    where: Where

    @property
    def needs_calls(self) -> bool:
        """Whether sums by service, agent and model do not say enough."""
        return True

    @property
    def dimensions(self) -> Set[str]:
        """What groups must be told apart by for it, as call_groups names it."""
        return self.where.dimensions | {RATES}

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        return ()

    @abstractmethod
    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:
        """The calls as they would have been made; the same object where it changes nothing about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchModel(Change):
    """Calls made by another model; those that an earlier change has moved stay where they are, and so do embeddings unless their
    model is named.

    Where it is another provider's, its tokenizer counts otherwise, by `tokens`; its answers are longer or shorter, by `answers`.
    Both None: assumed. What the model of today read from its provider's cache is read so by a model of the same provider, too;
    in the dearest scenario from no cache, nor in the expected one where the provider changes. Batches stay batches.
    """

    model: str
    provider: str | None = None
    tokens: Factors | None = None
    answers: Factors | None = None

    @property
    def needs_calls(self) -> bool:
        """Whether sums by service, agent and model do not say enough."""
        return self.where.needs_calls

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        tokens, answers = self.tokens or OTHER_TOKENIZER, self.answers or OTHER_ANSWER
        whose = "" if self.tokens else " of another provider"
        return (
            f"Prompts{whose}: {_range(tokens)} times as many tokens, {tokens.source}.",
            f"Answers: {_range(answers)} times as long, {answers.source}.",
            "Caches of prompts: as full as now where the provider stays, at worst empty; empty where it changes.",
        )

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:
        """The calls as the other model would have made them."""
        key = calls.group.key
        if key.kind == "embeddings" and self.where.model == ANY:
            return calls
        provider = self.provider or key.provider
        same_provider = provider_id(provider) == provider_id(key.provider)
        if (
            not calls.calls
            or calls.models != (key.model, key.sent_model)
            or (same_provider and self.model in calls.models)
        ):
            return calls
        room = prospect.prices.context_window(provider, self.model)
        if room is not None and key.size >= room:
            return LeftOut(f"prompts longer than {self.model} takes ({room:,} tokens)")
        usage = calls.usage
        if key.audio:
            return LeftOut("calls with audio")
        prompts = (self.tokens or (ONE if same_provider else OTHER_TOKENIZER)).of(scenario)
        answers = (self.answers or OTHER_ANSWER).of(scenario)
        cold = scenario is Scenario.dearest or (not same_provider and scenario is Scenario.expected)
        usage = TokenUsage(
            prompt_tokens=_times(usage.prompt_tokens, prompts),
            completion_tokens=_times(usage.completion_tokens, answers),
            cache_read_tokens=0 if cold else int(usage.cache_read_tokens * prompts),
            cache_write_tokens=0 if cold else int(usage.cache_write_tokens * prompts),
            cache_write_1h_tokens=0 if cold else int(usage.cache_write_1h_tokens * prompts),
            reasoning_tokens=int(usage.reasoning_tokens * answers),
        )
        facts = calls.facts if same_provider else {"processing": "batch"} if "batch" in calls.facts.values() else {}
        return replace(calls, usage=usage, provider=provider, models=(self.model,), facts=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing(Change):
    """Calls processed in a way that has a price of its own: `batch`, `flex`, `priority`.

    The price is that of the list, genai-prices' variants; where it has none, nothing is assumed.
    """

    way: str = "batch"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        return (f"The same tokens at the listed price of {self.way} processing.",)

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:  # noqa: ARG002
        """The calls at that price."""
        if self.way in (calls.facts.get("processing"), calls.facts.get("service_tier")):
            return calls
        facts = {name: value for name, value in calls.facts.items() if name not in ("processing", "service_tier")}
        changed = replace(calls, facts=facts | {"processing" if self.way == "batch" else "service_tier": self.way})
        model = next((name for name in calls.models if name), "")
        listed = prospect.prices.rates(calls.provider, model, calls.at, facts=changed.facts)
        plain = prospect.prices.rates(calls.provider, model, calls.at, facts=facts)
        if listed is None or plain is None or listed.rates == plain.rates:
            return LeftOut(f"no price of {self.way} processing is listed for {model or 'an unknown model'}")
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactCache(Change):
    """An exact cache for each agent of a service: what it was answered within the time to live it does not ask again.

    Agents do not share it: a cache is attached to a model, and each agent has its own.
    """

    where: Where = EVERYWHERE

    @property
    def dimensions(self) -> Set[str]:
        """What groups must be told apart by for it, as call_groups names it: what is not asked has no price."""
        return self.where.dimensions

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        return (
            "Equal requests of an agent (model, messages, parameters) may have the same answer; those that were made while "
            "the first was still being answered are asked all the same.",
        )

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:  # noqa: ARG002
        """Nothing, where the cache would have answered."""
        return replace(calls, calls=0, usage=TokenUsage()) if calls.group.key.repeated else calls


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCaching(Change):
    """The beginnings of prompts kept by the provider, wherever another call used the same one within its life time.

    Some models keep only beginnings that are longer than 1,024 tokens, which nobody here knows: in the dearest scenario nothing
    is kept.

    Reads and writes are those that the window's own prompts say, at the provider's prices of both; where it has none for writes,
    they cost what the prompt costs.
    """

    where: Where = EVERYWHERE

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        return (
            "Beginnings of about 1,024, 2,048, 4,096 tokens and so on, by their bytes; the longest one that another call to the "
            "same model had within the life time is the one that is kept. Some models keep no short ones (of Claude, some none "
            "below 4,096 tokens): at least nothing is saved.",
        )

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:
        """The calls with these tokens read and written."""
        read, written = calls.group.prefix_read_tokens, calls.group.prefix_write_tokens
        usage = calls.usage
        moved = calls.models != (calls.group.key.model, calls.group.key.sent_model)
        if not calls.group.key.alike or not calls.calls or moved or scenario is Scenario.dearest:
            return calls
        model = next((name for name in calls.models if name), "")
        rates = prospect.prices.rates(calls.provider, model, calls.at, facts=calls.facts)
        if rates is None or "cache_read_tokens" not in rates.rates:
            return LeftOut(f"no price of cached prompts is listed for {model or 'an unknown model'}")
        return replace(
            calls,
            usage=usage._replace(
                cache_read_tokens=usage.cache_read_tokens + read,
                cache_write_tokens=usage.cache_write_tokens + written,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OffPeak(Change):
    """Calls made at the hour of the same day at which they cost least."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed about what nobody knows, as sentences."""
        return ("The same tokens at the cheapest hour within a day, by the price list.",)

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:  # noqa: ARG002
        """The calls at the cheapest of the eras that begin within a day of their own."""
        priced = [
            (cost, at != calls.at, at)
            for at in {calls.at, *prospect.eras}
            if abs((at - calls.at).total_seconds()) < _DAY
            and (cost := replace(calls, at=at).cost(prospect.prices)) is not None
        ]
        return replace(calls, at=min(priced)[2]) if priced and min(priced)[1] else calls

    def dear_hours(self, prospect: Prospect) -> str | None:
        """The hours of UTC at which a call costs more than at the cheapest, as `00:30-16:30`; None: several spans."""
        provider, model = (self.where.named.get(name) for name in ("provider", "model"))
        usage = TokenUsage(1_000_000, 1_000_000)
        by_clock: dict[time, Decimal] = {}
        for at in sorted({at.astimezone(UTC) for at in prospect.eras[1:]}):
            if (cost := prospect.prices.cost(usage, provider, (model,), at)) is not None:
                by_clock[at.time()] = cost.total
        clocks = sorted(by_clock)
        if not clocks:
            return None
        cheapest = min(by_clock.values())
        after = dict(zip(clocks, [*clocks[1:], clocks[0]], strict=True))
        dear = [clock for clock in clocks if by_clock[clock] > cheapest]
        begins = [clock for clock in dear if clock not in {after[other] for other in dear}]
        ends = [after[clock] for clock in dear if after[clock] not in dear]
        return f"{begins[0]:%H:%M}-{ends[0]:%H:%M}" if len(begins) == len(ends) == 1 else None


_DAY: Final = 86_400


def _times(tokens: int, factor: Decimal) -> int:
    """So many times the tokens, whole ones, rounded up."""
    return int(MONEY.multiply(factor, tokens).to_integral_value(ROUND_CEILING))


def _range(factors: Factors) -> str:
    return f"{factors.cheapest:.3g} to {factors.dearest:.3g}"
