"""The price book: usage times a dated price gives Decimal dollars, or nothing where no price is known.

Prices come from `genai-prices` and, over them, from the team's own dated entries. A rate is looked up once per provider,
model and price entry; the arithmetic is exact (Decimal in a context of its own, so a caller's precision cannot round money).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from vital_tracking.core.record import CallRecord, Cost
from vital_tracking.core.usage import TokenUsage

logger = logging.getLogger("vital_tracking.pricing")

MONEY: Final = Context(prec=60)
ZERO: Final = Decimal(0)
_PER_TOKEN: Final = Decimal(1).scaleb(-6)

# LangChain's `ls_provider` and other frameworks' names -> the id in genai-prices, where that does not find it by itself.
PROVIDER_ALIASES: Final[Mapping[str, str]] = {
    "amazon": "aws",
    "amazon_bedrock": "aws",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "grok": "x-ai",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "togetherai": "together",
    "vertexai": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
}

# Where a name such as `anthropic/claude-3.5-haiku` says whose model it is. Elsewhere (Ollama, vLLM, Hugging Face) such names
# are of open models that run somewhere else, where no list price holds.
_GATEWAYS: Final = (None, "litellm", "openrouter")

# Many gateways are reached with OpenAI's client, and so are many servers of one's own: there only models that run nowhere but
# at their vendor are looked up by their name's beginning.
_VENDORS: Final = ("anthropic", "google", "openai", "perplexity", "x-ai")
_OPEN_WEIGHTS: Final = ("gemma", "gpt-oss")

# The model that prices a call of which only the provider is known.
DEFAULT_MODELS: Final[Mapping[str, str]] = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-3-haiku",
    "perplexity": "llama-3.1-sonar-small-128k-online",
    "google": "gemini-1.5-flash",
}

_MAX_CACHED: Final = 4096


@dataclass(frozen=True, slots=True)
class Price:
    """A price of the team's own, in US dollars per million tokens, from an instant on.

    `model` and `provider` name what it is for; without a provider it is for the model wherever it runs. `valid_from` is the
    instant from which it holds (a naive one is UTC; None: always), `version` what rows say of it, by default these three.

    `input` and `output` are the rates of plain tokens. `cache_read`, `cache_write`, `cache_write_1h` (kept an hour) and
    `audio_input` are by default those of `input`, `reasoning` and `audio_output` those of `output`, as providers bill them.
    `per_request` is in US dollars a call. All amounts are Decimal, int or text such as "0.15"; a float is refused with a
    ValueError, since it is not the number that was written.
    """

    model: str
    input: Decimal | int | str
    output: Decimal | int | str = 0
    provider: str | None = None
    valid_from: datetime | None = None
    cache_read: Decimal | int | str | None = None
    cache_write: Decimal | int | str | None = None
    cache_write_1h: Decimal | int | str | None = None
    reasoning: Decimal | int | str | None = None
    audio_input: Decimal | int | str | None = None
    audio_output: Decimal | int | str | None = None
    per_request: Decimal | int | str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        for name in (*BUCKETS, "per_request"):
            value = getattr(self, name)
            if value is not None or name == "input":
                object.__setattr__(self, name, amount(value, f"{name} of {self.model}"))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Price:
        """A price from a row of `model_prices` as JSON (amounts as text)."""
        start = row.get("valid_from")
        return cls(
            model=row["model"],
            provider=row.get("provider"),
            valid_from=datetime.fromisoformat(start) if start else None,
            version=f"model_prices {row['id']}",
            per_request=row.get("request_usd"),
            **{name: row[f"{name}_usd_per_mtok"] for name in BUCKETS if row.get(f"{name}_usd_per_mtok") is not None},
        )


BUCKETS: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "audio_input",
    "audio_output",
)

RateValue: TypeAlias = Decimal | TieredPrices


def amount(value: object, what: str) -> Decimal:
    """`value` as a non-negative finite Decimal; ValueError names `what` and says how to write it."""
    if isinstance(value, (Decimal, int, str)) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and number >= 0:
            return number
    raise ValueError(f'{what} must be a Decimal, an int or text such as "0.15", finite and not negative')


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model costs from one price entry: dollars per million tokens a bucket, and per request."""

    version: str
    input: RateValue | None = None
    output: RateValue | None = None
    cache_read: RateValue | None = None
    cache_write: RateValue | None = None
    cache_write_1h: RateValue | None = None
    reasoning: RateValue | None = None
    audio_input: RateValue | None = None
    audio_output: RateValue | None = None
    per_request: Decimal | None = None

    def cost(self, usage: TokenUsage, calls: int = 1) -> Cost | None:
        """The cost of `usage`, exactly; None where a bucket that holds tokens has no rate.

        A price with tiers is chosen by the whole prompt, cache included: providers bill all tokens at the tier reached. Of
        several merged `calls` it is the average prompt that chooses, since nobody knows the single ones any more.
        """
        short_writes = usage.cache_write_tokens - usage.cache_write_1h_tokens
        text = usage.prompt_tokens - usage.cache_read_tokens - usage.cache_write_tokens - usage.audio_input_tokens
        said = usage.completion_tokens - usage.reasoning_tokens - usage.audio_output_tokens
        cached = usage.cache_read_tokens + usage.cache_write_tokens
        writes = self.cache_write if self.cache_write is not None else self.input
        heard = (usage.audio_input_tokens, self.audio_input if self.audio_input is not None else self.input)
        prompt = -(-usage.prompt_tokens // calls)
        input_cost = self._sum(
            prompt,
            (text, self.input),
            (usage.cache_read_tokens, self.cache_read if self.cache_read is not None else self.input),
            (short_writes, writes),
            (usage.cache_write_1h_tokens, self.cache_write_1h if self.cache_write_1h is not None else writes),
            heard,
        )
        output_cost = self._sum(
            prompt,
            (said, self.output),
            (usage.reasoning_tokens, self.reasoning if self.reasoning is not None else self.output),
            (usage.audio_output_tokens, self.audio_output if self.audio_output is not None else self.output),
        )
        if input_cost is None or output_cost is None:
            return None
        uncached = self._sum(prompt, (text + cached, self.input), heard) if cached else input_cost
        potential_input = input_cost if uncached is None else uncached
        request = MONEY.multiply(self.per_request or ZERO, Decimal(calls))
        both = MONEY.add(output_cost, request)
        return Cost(
            input_cost, output_cost, MONEY.add(input_cost, both), MONEY.add(potential_input, both), self.version
        )

    @staticmethod
    def _sum(prompt_tokens: int, *parts: tuple[int, RateValue | None]) -> Decimal | None:
        total = ZERO
        for tokens, rate in parts:
            if not tokens:
                continue
            if rate is None:
                return None
            if isinstance(rate, TieredPrices):
                tier = next((tier.price for tier in reversed(rate.tiers) if prompt_tokens > tier.start), rate.base)
            else:
                tier = rate
            total = MONEY.add(total, MONEY.multiply(MONEY.multiply(tier, Decimal(tokens)), _PER_TOKEN))
        return total


def ceiling_rates(text: str) -> Rates:
    """The price that budgets assume where none is known, from `input/output` in dollars per million tokens, such as "15/75"."""
    prompt, slash, answer = text.partition("/")
    if not slash:
        raise ValueError('a ceiling price is two amounts, dollars per million tokens in and out, such as "15/75"')
    return Rates(
        version="ceiling", input=amount(prompt.strip(), "ceiling price"), output=amount(answer.strip(), "ceiling price")
    )


_LookUp: TypeAlias = Callable[[str | None, str, datetime, str | None], Rates | None]

FREE_VERSION: Final = "not billed"
NOT_BILLED: Final = Cost(ZERO, ZERO, ZERO, ZERO, FREE_VERSION)


class PriceBook:
    """Dated prices: `genai-prices` under the team's own. Safe for many threads.

    `prices` are the team's own, `default_models` the model that prices a call of which only the provider is known, by provider.
    """

    def __init__(self, prices: Iterable[Price] = (), *, default_models: Mapping[str, str] | None = None) -> None:
        self._own = tuple(prices)
        self._overrides: Mapping[tuple[str | None, str], Sequence[Price]] = _by_model(self._own)
        self.default_models: Mapping[str, str] = {**DEFAULT_MODELS, **(default_models or {})}
        self._snapshot: DataSnapshot = get_snapshot()
        self._found: dict[tuple[str | None, str], tuple[str, ModelInfo] | None] = {}
        self._rates: dict[tuple[str, int], tuple[ModelPrice, Rates]] = {}
        self._warned: set[tuple[str | None, str | None]] = set()

    def set_team_prices(self, prices: Iterable[Price]) -> None:
        """Take the `prices` of the table `model_prices`; those given in code stay and win where both begin together."""
        self._overrides = _by_model([*prices, *self._own])

    def default_model(self, provider: str | None) -> str | None:
        """The model that prices a call of which only the `provider` is known, or None."""
        if provider is None:
            return None
        return self.default_models.get(provider.strip().lower()) or self.default_models.get(
            _provider_id(provider) or ""
        )

    def cost_of(self, record: CallRecord) -> Cost | None:
        """What the call of a `record` cost, priced as of its start; None where no price, or no usage at all, is known."""
        if not record.billed or record.status == "blocked":
            return NOT_BILLED
        if "usage_missing" in record.notes:
            return None
        models = (record.model, record.requested_model)
        cost = self.cost(
            record.usage,
            record.provider,
            models,
            record.created_at,
            service_tier=record.service_tier,
            calls=record.calls,
        )
        if cost is None or not record.cache_hit:
            return cost
        return Cost(ZERO, ZERO, ZERO, cost.potential, cost.version)

    def cost(
        self,
        usage: TokenUsage,
        provider: str | None,
        models: Iterable[str | None],
        at: datetime,
        *,
        service_tier: str | None = None,
        calls: int = 1,
    ) -> Cost | None:
        """What `usage` cost at the instant `at`, by the first of a `provider`'s `models` that has a price; None where none has.

        `service_tier` is the provider's processing tier as it reports it (`priority`, `flex`), where that has its own price.
        `calls` is how many calls share the usage.
        """
        names = [model for model in models if model]
        for look_up, model in self._order(names):
            rates = look_up(provider, model, at, service_tier)
            if rates is not None and (cost := rates.cost(usage, calls)) is not None:
                return cost
        self._warn(provider, names[0] if names else None)
        return None

    def _order(self, names: Sequence[str]) -> Iterator[tuple[_LookUp, str]]:
        """Where to look for a price, best first: the model that answered, then the one asked for; own prices before listed.

        Where the model that answered has the asked one's name with a date, it is the same model: an own price for the asked
        name then comes before the listed one for the dated name.
        """
        answered, *asked = names or [""]
        yield self._own_rates, answered
        same = [name for name in asked if _base_name(answered).startswith(_base_name(name))]
        for name in same:
            yield self._own_rates, name
        yield self._listed_rates, answered
        for name in asked:
            if name not in same:
                yield self._own_rates, name
            yield self._listed_rates, name

    def rates(self, provider: str | None, model: str, at: datetime, service_tier: str | None = None) -> Rates | None:
        """The rates in force for a `provider`'s `model` at the instant `at`, or None: the team's own, else listed ones.

        `service_tier` is the provider's (`priority`, `flex`), where that has prices of its own.
        """
        return self._own_rates(provider, model, at, service_tier) or self._listed_rates(
            provider, model, at, service_tier
        )

    def _own_rates(self, provider: str | None, model: str, at: datetime, _service_tier: str | None) -> Rates | None:
        if not self._overrides:
            return None
        model_name = model.strip().lower()
        for key in ((_provider_id(provider), model_name), (None, model_name)):
            for price in self._overrides.get(key, ()):
                if price.valid_from is None or _aware(price.valid_from) <= _aware(at):
                    return _rates_of(price)
        return None

    def _listed_rates(self, provider: str | None, model: str, at: datetime, service_tier: str | None) -> Rates | None:
        moment = _aware(at)
        found = self._find(_provider_id(provider), model.strip().lower())
        if found is None:
            return None
        provider_id, info = found
        if provider_id == "openrouter" and model.endswith(":free"):
            return Rates(f"genai-prices {_GENAI_VERSION} {provider_id}/{info.id} free", input=ZERO, output=ZERO)
        label = f"genai-prices {_GENAI_VERSION} {provider_id}/{info.id}"
        tier = service_tier.lower() if service_tier else None
        if tier and any(
            variant.when.get("service_tier") == tier and vars(variant.prices) for variant in info.price_variants or ()
        ):
            return _rates_of_entry(info.get_prices(moment, {"service_tier": tier}), f"{label} {tier}")
        entry = info.get_prices(moment)
        entry_key = (label, id(entry))  # two providers may share an entry
        cached = self._rates.get(entry_key)
        if cached is None or cached[0] is not entry:
            cached = (entry, _rates_of_entry(entry, label))
            self._rates[entry_key] = cached
        return cached[1]

    def _find(self, provider: str | None, model: str) -> tuple[str, ModelInfo] | None:
        snapshot = get_snapshot()
        if snapshot is not self._snapshot or len(self._found) > _MAX_CACHED:
            self._snapshot, self._found, self._rates = snapshot, {}, {}
        key = (provider, model)
        if key not in self._found:
            self._found[key] = self._look_up(provider, model)
        return self._found[key]

    def _look_up(self, provider: str | None, model: str) -> tuple[str, ModelInfo] | None:
        """Find a model under its provider; where that is a gateway or unknown, under what the model's name begins with."""
        candidates: list[tuple[str | None, str]] = [(provider, model)]
        prefix, slash, rest = model.partition("/")
        if provider in ("aws", "google") and slash:  # `models/gemini-2.5-pro`, and the ARNs of Bedrock's profiles
            candidates.append((provider, model.rpartition("/")[2]))
        if provider == "openrouter" and ":" in model:  # `:online`, `:nitro` and the like route, they do not price
            candidates.append((provider, model.partition(":")[0]))
        vendors_own = provider == "openai" and prefix in _VENDORS and not rest.startswith(_OPEN_WEIGHTS)
        if slash and rest and (provider in _GATEWAYS or vendors_own):
            candidates += [("openrouter", model), (_provider_id(prefix), rest)]
        for provider_id, name in candidates:
            try:
                found, info = self._snapshot.find_provider_model(name, None, provider_id, None)
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


_GENAI_VERSION: Final = version("genai-prices")


def _base_name(model: str) -> str:
    """A model's name without the provider or path before it."""
    return model.strip().lower().rpartition("/")[2]


def _provider_id(provider: str | None) -> str | None:
    """A provider's name as `genai-prices` has it, whatever LangChain or the team calls it."""
    if not provider or not (name := provider.strip().lower()):
        return None
    return PROVIDER_ALIASES.get(name, name)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _by_model(prices: Iterable[Price]) -> dict[tuple[str | None, str], list[Price]]:
    """Prices by provider and model, the newest first; of two that begin together the later one given comes first."""
    grouped: dict[tuple[str | None, str], list[Price]] = {}
    for price in prices:
        grouped.setdefault((_provider_id(price.provider), price.model.strip().lower()), []).insert(0, price)
    beginning = datetime.min.replace(tzinfo=UTC)
    for entries in grouped.values():
        entries.sort(key=lambda price: _aware(price.valid_from) if price.valid_from else beginning, reverse=True)
    return grouped


def _rates_of(price: Price) -> Rates:
    start = f" from {_aware(price.valid_from).date().isoformat()}" if price.valid_from else ""
    rates: dict[str, Any] = {name: getattr(price, name) for name in (*BUCKETS, "per_request")}
    return Rates(version=price.version or f"own price {price.provider or '*'}/{price.model}{start}", **rates)


def _rates_of_entry(entry: ModelPrice, label: str) -> Rates:
    per_thousand = entry.requests_kcount
    return Rates(
        version=label,
        input=entry.input_mtok,
        output=entry.output_mtok,
        cache_read=entry.cache_read_mtok,
        cache_write=entry.cache_write_5m_mtok or entry.cache_write_mtok,
        cache_write_1h=entry.cache_write_1h_mtok,
        reasoning=entry.output_reasoning_mtok,
        audio_input=entry.input_audio_mtok,
        audio_output=entry.output_audio_mtok,
        per_request=MONEY.multiply(per_thousand, Decimal("0.001")) if isinstance(per_thousand, Decimal) else None,
    )
