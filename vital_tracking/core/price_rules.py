"""What genai-prices does not say: dated prices that it lacks, and rules by which one model has several. Each with its source.

An entry here never replaces a price of genai-prices: it adds what is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from vital_tracking.core.price import Price
from vital_tracking.core.rates import Rate, Rates

ANY_MODEL: Final = "*"
"""In place of a model: all models of a provider."""


def _listed(
    model: str,
    since: date,
    input: str | None = None,  # noqa: A002 - the name in a Price
    output: str | None = None,
    *,
    provider: str | None = None,
    units: Mapping[str, str] | None = None,
) -> Price:
    """A price that its provider has published, `since` when it holds."""
    return Price(
        model,
        input,
        output,
        provider=provider,
        valid_from=datetime(since.year, since.month, since.day, tzinfo=UTC),
        units=units or {},
        version=f"listed {since.isoformat()} {provider or '*'}/{model}",
    )


ADDED_PRICES: Final = (
    # Perplexity's and the open models' prices when these were current.
    # https://docs.perplexity.ai/guides/pricing, https://www.together.ai/pricing, https://fireworks.ai/pricing
    _listed("llama-3.1-sonar-huge-128k-online", date(2024, 7, 31), "5", "5", provider="perplexity"),
    _listed("llama-3-70b", date(2024, 4, 18), "0.9", "0.9"),
    _listed("qwen2.5-32b", date(2024, 9, 19), "0.5", "0.5"),
    # Audio tokens: https://platform.openai.com/docs/pricing, section "Audio tokens"; the first version keeps its price.
    _listed(
        "gpt-4o-audio-preview",
        date(2024, 10, 17),
        provider="openai",
        units={"input_audio_tokens": "100", "output_audio_tokens": "200"},
    ),
    _listed(
        "gpt-4o-audio-preview",
        date(2024, 12, 17),
        provider="openai",
        units={"input_audio_tokens": "40", "output_audio_tokens": "80"},
    ),
    _listed(
        "gpt-4o-audio-preview-2024-10-01",
        date(2024, 10, 17),
        provider="openai",
        units={"input_audio_tokens": "100", "output_audio_tokens": "200"},
    ),
    _listed(
        "gpt-4o-mini-audio-preview",
        date(2024, 12, 17),
        provider="openai",
        units={"input_audio_tokens": "10", "output_audio_tokens": "20"},
    ),
    # Models that search the web at each request, whose searches no answer counts; a container of the code interpreter.
    # https://platform.openai.com/docs/pricing, section "Built-in tools"
    _listed("gpt-4o-search-preview", date(2025, 3, 11), provider="openai", units={"requests": "0.025"}),
    _listed("gpt-4o-mini-search-preview", date(2025, 3, 11), provider="openai", units={"requests": "0.025"}),
    _listed("gpt-5-search-api", date(2025, 8, 7), provider="openai", units={"requests": "0.010"}),
    _listed(ANY_MODEL, date(2025, 3, 11), provider="openai", units={"code_executions": "0.03"}),
    # https://docs.x.ai/developers/pricing, section "Tools pricing"; Live Search, which was billed by the source, has ended.
    _listed(
        ANY_MODEL,
        date(2025, 7, 9),
        provider="x-ai",
        units={
            "web_searches": "0.005",
            "social_searches": "0.005",
            "code_executions": "0.005",
            "storage_searches": "0.0025",
            "search_sources": "0.025",
        },
    ),
    _listed(ANY_MODEL, date(2026, 1, 12), provider="x-ai", units={"search_sources": "0"}),
)
"""Prices that genai-prices lacks: whole ones, or of units that its entry leaves out; of two for one unit the later comes last."""


class Multiplier(NamedTuple):
    """All rates of tokens are multiplied by `factor` where a `provider` reports `value` for a `fact`, from `since` on."""

    provider: str
    fact: str
    value: str
    factor: Decimal
    since: datetime

    def apply(self, rates: Rates) -> Rates:
        """The rates with it."""
        return rates.times(self.factor, f"{rates.version} {self.fact} {self.value}")


class FeeChoice(NamedTuple):
    """The rate of a `unit` depends on a `fact`: US dollars for one, by its value.

    `default` is the value where none is reported; without one the rate is then the listed one.
    """

    provider: str
    models: tuple[str, ...]
    fact: str
    unit: str
    rates: Mapping[str, Decimal]
    default: str | None = None

    def apply(self, rates: Rates, value: str | None) -> Rates:
        """The rates with it."""
        reported = value if value in self.rates else self.default
        if reported is None:
            return rates
        chosen: Rate = self.rates[reported]
        return Rates(f"{rates.version} {self.fact} {reported}", {**rates.rates, self.unit: chosen})


MULTIPLIERS: Final = (
    # US-only inference costs 1.1 times as much for all kinds of tokens; models before Claude Opus 4.6 refuse the parameter.
    # https://platform.claude.com/docs/en/build-with-claude/data-residency (February 2026)
    Multiplier("anthropic", "inference_geo", "us", Decimal("1.1"), datetime(2026, 2, 5, tzinfo=UTC)),
)

FEE_CHOICES: Final = (
    # The fee of a request by how much of the web it may read; genai-prices has the dearest alone.
    # https://docs.perplexity.ai/getting-started/pricing, "Request pricing by search context size"
    FeeChoice(
        "perplexity",
        ("sonar", "sonar-reasoning"),
        "search_context_size",
        "requests",
        {"low": Decimal("0.005"), "medium": Decimal("0.008"), "high": Decimal("0.012")},
        "low",
    ),
    FeeChoice(
        "perplexity",
        ("sonar-pro", "sonar-reasoning-pro"),
        "search_context_size",
        "requests",
        {"low": Decimal("0.006"), "medium": Decimal("0.010"), "high": Decimal("0.014")},
        "low",
    ),
    # The tool's first version, where the model does not reason. https://platform.openai.com/docs/pricing, "Built-in tools"
    FeeChoice(
        "openai",
        ("gpt-4o", "gpt-4o-2024-05-13", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"),
        "search_tool",
        "web_searches",
        {"web_search_preview": Decimal("0.025")},
    ),
)

CACHE_READ_SHARES: Final[Mapping[str, Decimal]] = {
    # https://docs.mistral.ai/inference/conversations/advanced/prompt-caching: 10% of the input price
    "mistral": Decimal("0.1"),
    # https://docs.fireworks.ai/faq-new/billing-pricing/is-prompt-caching-billed-differently: half, but for models with their own
    "fireworks": Decimal("0.5"),
}
"""What part of the input price cached tokens cost, by provider, for models whose entry has no rate of them."""

SAME_FACT: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    # Anthropic and OpenAI report batch processing as a service tier.
    ("service_tier", "batch"): ("processing", "batch"),
}
"""Facts by which providers say what genai-prices knows by another name."""

PRICED_APART: Final = frozenset({"batch", "fast", "flex", "optimized", "performance", "priority", "reserved", "scale"})
"""Ways of processing that have a price of their own: where that is not listed, a call's cost is the standard one, and says so."""

SAME_PRICE: Final = frozenset(
    {
        ("anthropic", "priority"),  # paid beforehand. https://platform.claude.com/docs/en/api/service-tiers
        ("groq", "flex"),  # https://console.groq.com/docs/flex-processing
    }
)
"""Those that cost the standard price, by provider."""

SELF_RUN: Final = frozenset({"ollama", "vllm", "llamacpp", "llama_cpp", "lmstudio", "xinference", "huggingface"})
"""Servers of one's own, where no list price holds."""
