"""What genai-prices does not say: dated prices that it lacks, and rules by which one model has several. Each with its source.

An entry here never replaces a price of genai-prices: it adds what is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from vital_tracking.core.price import Price
from vital_tracking.core.rates import Rate, Rates

_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _listed(model: str, input: str | None = None, output: str | None = None, **more: object) -> Price:  # noqa: A002
    return Price(model, input, output, version=f"listed {model}", **more)  # type: ignore[arg-type]


ADDED_PRICES: Final = (
    # Perplexity's and the open models' prices when these were current (2024).
    # https://docs.perplexity.ai/guides/pricing, https://www.together.ai/pricing, https://fireworks.ai/pricing
    _listed("llama-3.1-sonar-huge-128k-online", "5", "5", provider="perplexity"),
    _listed("llama-3-70b", "0.9", "0.9"),
    _listed("qwen2.5-32b", "0.5", "0.5"),
    # Audio tokens: https://platform.openai.com/docs/pricing, section "Audio tokens" (since 17 December 2024).
    _listed(
        "gpt-4o-audio-preview",
        provider="openai",
        units={"input_audio_tokens": "40", "output_audio_tokens": "80"},
    ),
)
"""Prices that genai-prices lacks: whole ones, or of units that its entry leaves out."""


@dataclass(frozen=True, slots=True)
class Multiplier:
    """All rates of tokens are multiplied by `factor` where a `provider` reports `value` for a `fact`, from `since` on."""

    provider: str
    fact: str
    value: str
    factor: Decimal
    since: datetime

    def apply(self, rates: Rates) -> Rates:
        """The rates with it."""
        return rates.times(self.factor, f"{rates.version} {self.fact} {self.value}")


@dataclass(frozen=True, slots=True)
class FeeChoice:
    """The rate of a `unit` depends on a `fact`: US dollars for one, by its value; `default` where it is not reported."""

    provider: str
    models: tuple[str, ...]
    fact: str
    unit: str
    rates: Mapping[str, Decimal]
    default: str

    def apply(self, rates: Rates, value: str | None) -> Rates:
        """The rates with it."""
        chosen: Rate = self.rates.get(value or self.default, self.rates[self.default])
        return Rates(f"{rates.version} {self.fact} {value or self.default}", {**rates.rates, self.unit: chosen})


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
