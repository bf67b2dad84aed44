"""The price book: usage times a dated price gives Decimal dollars, or nothing where no price is known.

Prices come from `genai-prices` and, over them, from the team's own dated entries. A rate is looked up once per provider,
model and price entry.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from vital_tracking.core.cost import ZERO, Cost
from vital_tracking.core.price import Price, aware
from vital_tracking.core.price_rules import (
    ADDED_PRICES,
    ANY_MODEL,
    CACHE_READ_SHARES,
    FEE_CHOICES,
    MULTIPLIERS,
    PRICED_APART,
    SAME_FACT,
    SAME_PRICE,
    SELF_RUN,
)
from vital_tracking.core.providers import UNTOLD, listed_names, provider_id
from vital_tracking.core.rates import Rate, Rates, is_fee, rates_of_entry
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ConditionalPrice, ModelInfo, PriceVariant, Provider

logger = logging.getLogger("vital_tracking.pricing")

# The model that prices a call of which only the provider is known.
DEFAULT_MODELS: Final[Mapping[str, str]] = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-3-haiku",
    "perplexity": "llama-3.1-sonar-small-128k-online",
    "google": "gemini-1.5-flash",
}

_MAX_CACHED: Final = 4096
_NO_FACTS: Final[Mapping[str, str]] = {}

Facts: TypeAlias = Mapping[str, str]
"""What else decides a price, by the names of PRICE_FACTS."""

_LookUp: TypeAlias = Callable[[str | None, str, datetime, Facts], Rates | None]

FREE_VERSION: Final = "not billed"
NOT_BILLED: Final = Cost.of({}, FREE_VERSION)


class PriceBook:
    """Dated prices: `genai-prices` under the team's own. Safe for many threads.

    `prices` are the team's own, `default_models` the model that prices a call of which only the provider is known, by provider.
    """

    def __init__(self, prices: Iterable[Price] = (), *, default_models: Mapping[str, str] | None = None) -> None:
        # Here and not with the module: it takes longer than all else of this package, and not every process prices.
        from importlib.metadata import version

        from genai_prices.data_snapshot import get_snapshot

        self._own = tuple(prices)
        self._overrides: Mapping[tuple[str | None, str], Sequence[Price]] = _by_model(self._own)
        self.default_models: Mapping[str, str] = {**DEFAULT_MODELS, **(default_models or {})}
        self._listed_version = version("genai-prices")
        self._current_snapshot = get_snapshot
        self._snapshot: DataSnapshot = get_snapshot()
        self._forget()
        self._warned: set[tuple[str | None, str | None]] = set()

    def _forget(self) -> None:
        self._providers: dict[str, Provider] = {provider.id: provider for provider in self._snapshot.providers}
        self._listed: dict[tuple[object, ...], Rates | None] = {}
        self._by_minute: set[tuple[str | None, str]] = set()
        self._merged: dict[tuple[int, int], tuple[Price, Rates | None, Rates]] = {}

    def set_team_prices(self, prices: Iterable[Price]) -> None:
        """Take the `prices` of the table `model_prices`; those given in code stay and win where both begin together."""
        self._overrides = _by_model([*prices, *self._own])

    def default_model(self, provider: str | None) -> str | None:
        """The model that prices a call of which only the `provider` is known, or None."""
        if provider is None:
            return None
        return self.default_models.get(provider.strip().lower()) or self.default_models.get(provider_id(provider) or "")

    def cost_of(self, record: CallRecord) -> Cost | None:
        """What the call of a `record` cost, priced as of its start; None where no price, or no usage at all, is known.

        The prices are those of the model that answered, else of the one that was sent; a call for which neither is known costs
        what its provider reports.
        """
        if not record.billed or record.status == "blocked":
            return NOT_BILLED
        cost = None
        if "usage_missing" not in record.notes:
            models = (record.model, record.sent_model)
            cost = self.cost(
                record.usage, record.provider, models, record.created_at, facts=record.price_facts, calls=record.calls
            )
        if cost is None and (reported := record.reported_cost) is not None:
            label = f"reported by {record.provider or 'the provider'}"
            cost = Cost.of({"fees": reported, "total": reported, "potential": reported}, label)
        if cost is None or not record.cache_hit:
            return cost
        return NOT_BILLED._replace(potential=cost.potential, version=cost.version)

    def cost(
        self,
        usage: TokenUsage,
        provider: str | None,
        models: Iterable[str | None],
        at: datetime,
        *,
        facts: Facts = _NO_FACTS,
        calls: int = 1,
    ) -> Cost | None:
        """What `usage` cost at the instant `at`, by the first of a `provider`'s `models` that has a price; None where none has.

        `facts` are what else decides the price, by the names of PRICE_FACTS, in the provider's words. `calls` is how many calls
        share the usage.
        """
        names = [model for model in models if model]
        for look_up, model in self._order(names):
            rates = look_up(provider, model, at, facts)
            if rates is None:
                continue
            cost = self._of_passes(usage, rates, provider, at, facts) if usage.passes else rates.cost(usage, calls)
            if cost is not None:
                return cost
        self._warn(provider, names[0] if names else None)
        return None

    def _of_passes(
        self, usage: TokenUsage, rates: Rates, provider: str | None, at: datetime, facts: Facts
    ) -> Cost | None:
        """The cost of an answer made in several passes; those of other models are fees."""
        whole = rates.cost(TokenUsage(units=usage.units))  # what the passes have in common
        for each in usage.passes:
            if each.model is None:
                cost = rates.cost(each.usage)
            elif (cost := self.cost(each.usage, provider, (each.model,), at, facts=facts)) is not None:
                cost = cost.as_fees()
            if cost is None or whole is None:
                return None
            whole = whole.plus(cost)
        return whole

    def _order(self, names: Sequence[str]) -> Iterator[tuple[_LookUp, str]]:
        """Where to look for a price, best first: the model that answered, then the one that was sent; own prices before listed.

        Where the model that answered has the sent one's name with a date, it is the same model: an own price for the sent
        name then comes before the listed one for the dated name. Where the sent name holds the answered one and says more, it
        decides: Bedrock answers `claude-sonnet-4-5` whether `us.` or `global.` was sent before it, at two prices.
        """
        answered, *sent = names or [""]
        yield self._own_rates, answered
        same = [name for name in sent if _base_name(answered).startswith(_base_name(name))]
        for name in same:
            yield self._own_rates, name
        for name in sent:
            if _says_more(name, answered):
                yield self._own_rates, name
                yield self._listed_rates, name
        yield self._listed_rates, answered
        for name in sent:
            if name not in same:
                yield self._own_rates, name
            yield self._listed_rates, name

    def rates(self, provider: str | None, model: str, at: datetime, *, facts: Facts = _NO_FACTS) -> Rates | None:
        """The rates in force for a `provider`'s `model` at the instant `at`, or None: the team's own, else listed ones.

        `facts` are as for `cost`.
        """
        return self._own_rates(provider, model, at, facts) or self._listed_rates(provider, model, at, facts)

    def first_rates(
        self, provider: str | None, models: Iterable[str], at: datetime, *, facts: Facts = _NO_FACTS
    ) -> Rates | None:
        """The rates in force at the instant `at` for the first of a `provider`'s `models` that has any, in the order of `cost`.

        `facts` are as for `cost`.
        """
        found = (look_up(provider, model, at, facts) for look_up, model in self._order(list(models)))
        return next((rates for rates in found if rates is not None), None)

    @property
    def edition(self) -> tuple[object, object]:
        """What its prices are of, the team's and the listed ones: two objects, others whenever there are other prices."""
        return self._overrides, self._current_snapshot()

    def changes_within_the_day(self, provider: str | None, model: str) -> bool:
        """Whether the listed price of a `provider`'s `model` depends on the hour."""
        found = self._look_up(provider_id(provider), model.strip().lower())
        return found is not None and _changes_within_the_day(found[1])

    def changes(self, provider: str | None, model: str, since: datetime, until: datetime) -> list[datetime]:
        """The instants after `since` and before `until` at which a price of a `provider`'s `model` may change, in order."""
        name = model.strip().lower()
        dated = [
            price for key in ((provider_id(provider), name), (None, name)) for price in self._overrides.get(key, ())
        ]
        dated += ADDED_PRICES
        found = {aware(price.valid_from) for price in dated if price.valid_from is not None}
        found |= {multiplier.since for multiplier in MULTIPLIERS}
        if (listed := self._look_up(provider_id(provider), name)) is not None:
            found |= set(_listed_changes(listed[1], since, until))
        return sorted(moment for moment in found if since < moment < until)

    def models(self) -> Iterator[tuple[str | None, str]]:
        """All models that have an entry, by provider and name: those of genai-prices, those that it lacks, and the team's own.

        An entry without a provider holds for any; it comes without one where no provider's list has the model.
        """
        found: dict[tuple[str | None, str], str] = {
            (provider.id, info.id.lower()): info.id for provider in self._snapshot.providers for info in provider.models
        }
        listed = {name for _, name in found}
        own = [price for prices in self._overrides.values() for price in prices]
        for price in (*(price for price in ADDED_PRICES if price.model != ANY_MODEL), *own):
            name = price.model.strip()
            if price.provider is not None or name.lower() not in listed:
                found.setdefault((provider_id(price.provider), name.lower()), name)
        yield from ((provider, name) for (provider, _), name in found.items())

    def context_window(self, provider: str | None, model: str) -> int | None:
        """How many tokens a `provider`'s listed `model` takes at once, prompt and answer together; None where nobody says."""
        found = self._look_up(provider_id(provider), model.strip().lower())
        return None if found is None else found[1].context_window

    # The team's own

    def _own_rates(self, provider: str | None, model: str, at: datetime, facts: Facts) -> Rates | None:
        if not self._overrides:
            return None
        model_name = model.strip().lower()
        for key in ((provider_id(provider), model_name), (None, model_name)):
            if (price := _in_force(self._overrides.get(key, ()), at)) is not None:
                return self._over(price, self._listed_rates(provider, model, at, facts))
        return None

    def _over(self, price: Price, listed: Rates | None) -> Rates:
        """A price of the team's own over the listed one, of which it keeps what it does not state."""
        key = (id(price), id(listed))
        known = self._merged.get(key)
        if known is None or known[0] is not price or known[1] is not listed:
            if len(self._merged) > _MAX_CACHED:
                self._merged = {}
            known = self._merged[key] = (price, listed, _overlaid(price, listed))
        return known[2]

    # Listed

    def _listed_rates(self, provider: str | None, model: str, at: datetime, facts: Facts) -> Rates | None:
        """The listed rates; looked up once for calls that the same entry prices."""
        moment = aware(at).astimezone(UTC)
        if self._current_snapshot() is not self._snapshot or len(self._listed) > _MAX_CACHED:
            self._snapshot = self._current_snapshot()
            self._forget()
        # List prices change with a day of UTC, a few with the minute of the day.
        key: tuple[object, ...] = (provider, model, moment.date(), *facts.items())
        if (provider, model) in self._by_minute:
            key = (*key, moment.hour, moment.minute)
        if key not in self._listed:
            self._listed[key] = self._search_listed(provider, model, moment, facts)
        return self._listed[key]

    def _search_listed(self, provider: str | None, model: str, moment: datetime, facts: Facts) -> Rates | None:
        name, own_id = model.strip().lower(), provider_id(provider)
        found = None if own_id in SELF_RUN else self._look_up(own_id, name)
        if found is None:
            return self._added_rates(own_id, name, moment)
        found_id, info = found
        if _changes_within_the_day(info):
            self._by_minute.add((provider, model))
        label = f"genai-prices {self._listed_version} {found_id}/{info.id}"
        if found_id == "openrouter" and name.endswith(":free"):
            return Rates(f"{label} free", {"input_tokens": ZERO, "output_tokens": ZERO})
        added = _added_to(found_id, info.id, name, moment)
        return self._rates_of(found_id, info, added, _context(facts), moment, label)

    def _rates_of(
        self,
        found_id: str,
        info: ModelInfo,
        added: Sequence[Price],
        context: Facts,
        moment: datetime,
        label: str,
    ) -> Rates:
        """The rates of a listed entry by the facts of a call; its label names those that change a price."""
        entry, more = info.get_prices(moment), dict[str, Rate]()
        for price in added:
            more |= price.rates()
        rates = Rates(label, {**more, **rates_of_entry(entry)})
        if (share := CACHE_READ_SHARES.get(found_id)) is not None:
            rates = rates.with_cache_reads_at(share)
        notes: list[str] = []
        for fact, value in context.items():
            varied = rates_of_entry(info.get_prices(moment, {fact: value}))
            if varied != rates_of_entry(entry):
                rates = Rates(f"{rates.version} {value}", {**rates.rates, **varied})
            elif value in PRICED_APART and (found_id, value) not in SAME_PRICE:
                notes.append(f"tier_unpriced:{value}")
        for choice in FEE_CHOICES:
            if choice.provider == found_id and info.id in choice.models:
                rates = choice.apply(rates, context.get(choice.fact))
        for multiplier in MULTIPLIERS:
            in_force = multiplier.provider == found_id and multiplier.since <= moment
            if in_force and context.get(multiplier.fact) == multiplier.value:
                rates = multiplier.apply(rates)
        return rates.noted(*notes)

    def _added_rates(self, provider: str | None, model: str, moment: datetime) -> Rates | None:
        """The rates of a price that genai-prices lacks; one without a provider holds wherever list prices do."""
        for price in ADDED_PRICES:
            holds = provider in (*UNTOLD, price.provider) or (price.provider is None and provider in self._providers)
            if price.input is not None and price.model == _base_name(model) and holds and _in_force((price,), moment):
                return Rates(price.label(), price.rates())
        return None

    def _look_up(self, provider: str | None, model: str) -> tuple[str, ModelInfo] | None:
        """Find a model under its provider; where that is a gateway or unknown, under what the model's name begins with."""
        for listed_id, name in listed_names(provider, model):
            # By the object, since genai-prices takes a part of a name for the whole: a gateway for its vendor.
            listed = self._providers.get(listed_id) if listed_id is not None else None
            if listed is None and listed_id is not None:
                continue
            try:
                found, info = self._snapshot.find_provider_model(name, listed, None, None)
            except LookupError:
                continue
            return found.id, info
        return None

    def _warn(self, provider: str | None, model: str | None) -> None:
        key = (provider, model)
        if key in self._warned or len(self._warned) > _MAX_CACHED:
            return
        self._warned.add(key)
        logger.warning(
            "No price is known for model %.80r of provider %.40r: its calls are stored unpriced (cost NULL). Set one with "
            "`vital-tracking prices set`, then run `vital-tracking reprice`.",
            model,
            provider,
        )


_VERSION: Final = re.compile(r"([:@].*|-v\d.*)?")

_ADDED_UNITS: Final[Mapping[str | None, Sequence[Price]]] = {
    provider: [price for price in ADDED_PRICES if price.input is None and price.provider == provider]
    for provider in {price.provider for price in ADDED_PRICES}
}


def _base_name(model: str) -> str:
    """A model's name without the provider or path before it."""
    return model.strip().lower().rpartition("/")[2]


def _says_more(name: str, other: str) -> bool:
    """Whether a model's name is another with its place before it or its version after it, not another model's name."""
    before, found, after = name.strip().lower().rpartition(other.strip().lower())
    return bool(found and (before or after)) and before[-1:] in ("", ".", "/") and _VERSION.fullmatch(after) is not None


def _context(facts: Facts) -> dict[str, str]:
    """Facts as genai-prices and the rules of ours name them."""
    found = {fact: value.lower() for fact, value in facts.items()}
    return dict(SAME_FACT.get(item, item) for item in found.items())


def _in_force(prices: Sequence[Price], at: datetime) -> Price | None:
    """The first of the prices, the newest first, that holds at an instant."""
    moment = aware(at)
    return next((price for price in prices if price.valid_from is None or aware(price.valid_from) <= moment), None)


def _added_to(provider: str, model: str, name: str, at: datetime) -> tuple[Price, ...]:
    """Prices of units that the entry of a listed `model` leaves out; `name` is what the call says of it, perhaps with a date."""
    return tuple(
        price
        for price in _ADDED_UNITS.get(provider, ())
        if (price.model in (ANY_MODEL, model) or name.startswith(price.model))
        and (price.valid_from is None or aware(price.valid_from) <= at)
    )


def _changes_within_the_day(info: ModelInfo) -> bool:
    """Whether a model has prices by the time of day, as DeepSeek's had."""
    from genai_prices.types import TimeOfDateConstraint

    prices = info.prices if isinstance(info.prices, list) else []
    dated: list[ConditionalPrice | PriceVariant] = [*prices, *(info.price_variants or ())]
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in dated)


def _listed_changes(info: ModelInfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """The instants at which a listed model's prices change: days of UTC, and times of each day."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    prices = info.prices if isinstance(info.prices, list) else []
    dated: list[ConditionalPrice | PriceVariant] = [*prices, *(info.price_variants or ())]
    first = aware(since).astimezone(UTC).date()
    days = (aware(until).astimezone(UTC).date() - first).days
    for price in dated:
        if isinstance(price.constraint, StartDateConstraint):
            yield datetime.combine(price.constraint.start_date, time(), UTC)
        elif isinstance(price.constraint, TimeOfDateConstraint):
            for clock in (price.constraint.start_time, price.constraint.end_time):
                at = clock if clock.tzinfo else clock.replace(tzinfo=UTC)
                # A day more on either side: a time with an offset may fall on another day of UTC.
                yield from (datetime.combine(first + timedelta(days=day), at) for day in range(-1, days + 2))


def _overlaid(price: Price, listed: Rates | None) -> Rates:
    own = price.rates()
    if listed is None:
        return Rates(price.label(), own)
    if price.input is None:
        return Rates(f"{listed.version} with {price.label()}", {**listed.rates, **own}, listed.notes)
    kept = {name: rate for name, rate in listed.rates.items() if is_fee(name) and name != "requests"}
    return Rates(price.label(), {**kept, **own})


def _by_model(prices: Iterable[Price]) -> dict[tuple[str | None, str], list[Price]]:
    """Prices by provider and model, the newest first; of two that begin together the later one given comes first."""
    grouped: dict[tuple[str | None, str], list[Price]] = {}
    for price in prices:
        grouped.setdefault((provider_id(price.provider), price.model.strip().lower()), []).insert(0, price)
    beginning = datetime.min.replace(tzinfo=UTC)
    for entries in grouped.values():
        entries.sort(key=lambda price: aware(price.valid_from) if price.valid_from else beginning, reverse=True)
    return grouped
