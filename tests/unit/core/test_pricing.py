"""The price book: exact, dated, by tier, by provider, and nothing rather than a wrong amount."""

from __future__ import annotations

import decimal
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from vital_tracking.core.context import CallContext
from vital_tracking.core.price import Price
from vital_tracking.core.pricing import NOT_BILLED, PriceBook
from vital_tracking.core.rates import Rates, Tiers, per_million
from vital_tracking.core.record import CallRecord
from vital_tracking.core.sanitize import MAX_TOKENS
from vital_tracking.core.usage import TokenUsage

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
BOOK = PriceBook()

counts = st.integers(0, 10**7)
prices = st.decimals(min_value=0, max_value=1000, places=6)
maybe_prices = st.one_of(st.none(), prices)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Usages whose buckets are disjoint."""
    text, read, write, write_1h, heard = (draw(counts) for _ in range(5))
    said, thought, spoken = (draw(counts) for _ in range(3))
    units = {"web_searches": draw(counts), "output_image_tokens": draw(st.integers(0, said)), "own_unit": draw(counts)}
    return TokenUsage(
        prompt_tokens=text + read + write + write_1h + heard,
        completion_tokens=said + thought + spoken,
        cache_read_tokens=read,
        cache_write_tokens=write + write_1h,
        cache_write_1h_tokens=write_1h,
        reasoning_tokens=thought,
        audio_input_tokens=heard,
        audio_output_tokens=spoken,
        units={name: count for name, count in units.items() if count},
    )


def added(first: TokenUsage, second: TokenUsage) -> TokenUsage:
    names = (
        "prompt",
        "completion",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "reasoning",
        "audio_input",
        "audio_output",
    )
    units = {
        name: first.units.get(name, 0) + second.units.get(name, 0) for name in first.units.keys() | second.units.keys()
    }
    tokens = {f"{n}_tokens": getattr(first, f"{n}_tokens") + getattr(second, f"{n}_tokens") for n in names}
    return TokenUsage(**tokens, units=units)


flat_rates = st.builds(
    Price,
    model=st.just("m"),
    input=prices,
    output=prices,
    cache_read=maybe_prices,
    cache_write=maybe_prices,
    cache_write_1h=maybe_prices,
    reasoning=maybe_prices,
    audio_input=maybe_prices,
    audio_output=maybe_prices,
    per_request=maybe_prices,
    units=st.dictionaries(st.sampled_from(["web_searches", "output_image_tokens", "own_unit"]), prices),
).map(lambda price: Rates("v", price.rates()))


def dollars(*parts: tuple[int, str]) -> Decimal:
    return sum((tokens * Decimal(rate) for tokens, rate in parts), Decimal(0)) / 1_000_000


@given(flat_rates, usages(), usages())
def test_costs_add_up_and_never_fall(rates: Rates, first: TokenUsage, second: TokenUsage) -> None:
    """Two calls cost what their tokens together cost, and more tokens never cost less."""
    one, two, both = rates.cost(first), rates.cost(second), rates.cost(added(first, second))
    assert one is not None
    assert two is not None
    assert both is not None
    request = rates.rate("requests") or Decimal(0)  # of which both together make one
    for part in ("input", "output", "fees", "total", "potential"):
        once = request if part not in ("input", "output") else Decimal(0)
        assert getattr(both, part) + once == getattr(one, part) + getattr(two, part)
        assert 0 <= getattr(one, part) <= getattr(both, part)
    assert one.total == one.input + one.output + one.fees


@given(flat_rates, usages())
def test_a_callers_decimal_context_does_not_round_money(rates: Rates, usage: TokenUsage) -> None:
    """A program that computes with three digits must not make the bill do so."""
    exact = rates.cost(usage)
    with decimal.localcontext(decimal.Context(prec=3, traps=[])):
        assert rates.cost(usage) == exact


@given(usages())
def test_a_bucket_without_a_rate_is_unpriced(usage: TokenUsage) -> None:
    """An embedding's price says nothing of output: output that is there all the same has no price, rather than none to pay."""
    cost = Rates("v", {"input_tokens": Decimal(1)}).cost(usage)
    assert (cost is None) is (usage.completion_tokens > 0)
    assert Rates("v", {}).cost(TokenUsage()) is not None


@given(st.integers(0, 300_000), st.integers(0, 300_000), st.integers(0, 1000))
def test_a_tier_is_chosen_by_the_whole_prompt(text: int, cached: int, completion: int) -> None:
    """All tokens at the tier that the prompt reaches, cache included, output too; the threshold itself is the lower tier."""

    def tiers(low: str, high: str) -> Tiers:
        return Tiers(per_million(Decimal(low)), ((200_000, per_million(Decimal(high))),))

    rates = Rates(
        "v",
        {
            "input_tokens": tiers("3", "6"),
            "output_tokens": tiers("15", "22.5"),
            "cache_read_tokens": tiers("0.3", "0.6"),
        },
    )
    cost = rates.cost(TokenUsage(text + cached, completion, cache_read_tokens=cached))
    assert cost is not None
    if text + cached > 200_000:
        assert cost.total == dollars((text, "6"), (cached, "0.6"), (completion, "22.5"))
        assert cost.potential == dollars((text + cached, "6"), (completion, "22.5"))
    else:
        assert cost.total == dollars((text, "3"), (cached, "0.3"), (completion, "15"))


def test_a_second_of_an_hours_price_is_exact() -> None:
    """A third of a cent has no end, three thirds have: what adds up to an hour costs the hour's price to the last decimal."""
    rates = BOOK.rates("mistral", "voxtral-small-2507", AT)
    assert rates is not None
    for seconds, fees in ((3600, "0.24"), (180, "0.012"), (3600 * 10_000, "2400"), (1, "0.000066666666666666666667")):
        cost = rates.cost(TokenUsage(units={"input_audio_seconds": seconds}))
        assert cost is not None
        assert cost.fees == cost.total == Decimal(fees)


@pytest.mark.parametrize(
    ("provider", "model", "cached"),
    [
        ("mistral", "mistral-large-2512", "0.05"),  # its own rate
        ("mistral", "magistral-medium-2509", "0.20"),
        ("fireworks", "accounts/fireworks/models/glm-4p7", "0.30"),
        ("fireworks", "accounts/fireworks/models/kimi-k2p6", "0.16"),  # its own rate
        ("groq", "llama-3.3-70b-versatile", "0.59"),  # no discount is known
    ],
)
def test_cached_tokens_cost_the_providers_share_where_no_rate_is_listed(provider: str, model: str, cached: str) -> None:
    """Mistral gives them for a tenth of the input's price, Fireworks for half of it."""
    cost = BOOK.cost(TokenUsage(1_000_000, 0, cache_read_tokens=1_000_000), provider, [model], AT)
    assert cost is not None
    assert cost.total == Decimal(cached)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "notes"),
    [
        ("fireworks", "accounts/fireworks/models/kimi-k2p5", "priority", ("tier_unpriced:priority",)),
        ("fireworks", "accounts/fireworks/models/kimi-k2p5", "default", ()),
        ("groq", "llama-3.3-70b-versatile", "flex", ()),  # costs the same
        ("groq", "llama-3.3-70b-versatile", "on_demand", ()),
        ("openai", "gpt-5", "priority", ()),  # has its own price
        ("openai", "gpt-3.5-turbo-instruct", "batch", ("tier_unpriced:batch",)),
    ],
)
def test_a_tier_whose_price_nobody_lists_is_noted(provider: str, model: str, tier: str, notes: tuple[str, ...]) -> None:
    """The standard price is all that is known then, and it may be too little or too much."""
    cost = BOOK.cost(TokenUsage(1000, 10), provider, [model], AT, facts={"service_tier": tier})
    assert cost is not None
    assert cost.notes == notes


MODELS = [
    ("openai", "gpt-4o-mini"), ("openai", "gpt-4o-2024-08-06"), ("openai", "gpt-5"), ("openai", "o3-mini"),
    ("openai", "gpt-3.5-turbo-instruct"), ("openai", "gpt-5.4"),
    ("anthropic", "claude-haiku-4-5"), ("anthropic", "claude-sonnet-4-5-20250929"), ("anthropic", "claude-3-haiku-20240307"),
    ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"), ("mistral", "mistral-large-2512"),
    ("groq", "llama-3.3-70b-versatile"),
    ("deepseek", "deepseek-chat"), ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"), ("azure", "gpt-4o"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "model"), MODELS)
@given(text=counts, read=counts, write=counts, completion=counts)
def test_costs_are_those_that_genai_prices_computes(
    provider: str, model: str, text: int, read: int, write: int, completion: int
) -> None:
    """Our arithmetic with its rates gives what its own slower arithmetic gives."""
    prompt = text + read + write
    usage = TokenUsage(prompt, completion, cache_read_tokens=read, cache_write_tokens=write)
    theirs = calc_price(
        Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=read, cache_write_tokens=write),
        model,
        provider_id=provider,
        genai_request_timestamp=AT,
    )
    ours = BOOK.cost(usage, provider, [model], AT)
    assert ours is not None
    with decimal.localcontext(decimal.Context(prec=60)):
        assert (ours.input, ours.output, ours.total) == (theirs.input_price, theirs.output_price, theirs.total_price)


@pytest.mark.parametrize(
    ("provider", "model", "same_as"),
    [
        ("azure", "gpt-4o", ("openai", "gpt-4o")),
        ("azure_openai", "gpt-4o", ("openai", "gpt-4o")),
        ("azure_ai", "gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", ("anthropic", "claude-3-haiku-20240307")),
        ("amazon_bedrock", "us.anthropic.claude-3-haiku-20240307-v1:0", ("anthropic", "claude-3-haiku-20240307")),
        ("bedrock_converse", "anthropic.claude-3-haiku-20240307-v1:0", ("anthropic", "claude-3-haiku-20240307")),
        ("google_vertexai", "gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("google_genai", "models/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        (
            "bedrock_converse",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0",
            ("anthropic", "claude-3-haiku-20240307"),
        ),
        ("google_anthropic_vertex", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("openrouter", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("openrouter", "anthropic/claude-sonnet-4.5", ("anthropic", "claude-sonnet-4-5")),
        ("openai", "anthropic/claude-sonnet-4.5", ("anthropic", "claude-sonnet-4-5")),  # OpenRouter behind ChatOpenAI
        ("mistralai", "mistral-large-latest", ("mistral", "mistral-large-latest")),
        ("openai", "grok-4-0709", ("xai", "grok-4")),  # xAI behind ChatOpenAI, as its documentation says
        ("openai", "sonar-pro", ("perplexity", "sonar-pro")),  # and Perplexity
        ("perplexity", "anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),  # its Agent API
        ("OpenAI ", " GPT-4o", ("openai", "gpt-4o")),
        (None, "gpt-4o", ("openai", "gpt-4o")),
        (None, "anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("litellm", "openai/gpt-4o", ("openai", "gpt-4o")),
    ],
)
def test_a_model_has_its_price_through_every_gateway(
    provider: str | None, model: str, same_as: tuple[str, str]
) -> None:
    """Azure, Bedrock, Vertex, OpenRouter and gateways: the names that LangChain gives find the price."""
    usage = TokenUsage(1000, 100)
    found, expected = BOOK.cost(usage, provider, [model], AT), BOOK.cost(usage, same_as[0], [same_as[1]], AT)
    assert found is not None
    assert expected is not None
    assert found.total == expected.total > 0


def test_the_version_names_the_provider_it_was_priced_by() -> None:
    """Azure and OpenAI share entries; a row of one must not name the other, whichever came first."""
    book = PriceBook()
    for provider in ("openai", "azure", "openai", "azure"):
        rates = book.rates(provider, "gpt-4o", AT)
        assert rates is not None
        assert rates.version.endswith(f" {provider}/gpt-4o")
        assert book.rates(provider, "gpt-4o", AT) is rates


@pytest.mark.parametrize("provider", ["openai", None, "nobody"])
def test_an_unknown_model_has_no_price(provider: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """None, never zero, and one warning a model."""
    book = PriceBook()
    for _ in range(3):
        assert book.cost(TokenUsage(10, 10), provider, ["in-house-7b", None], AT) is None
    assert book.cost(TokenUsage(10, 10), provider, [None, ""], AT) is None
    assert sum("in-house-7b" in record.getMessage() for record in caplog.records) == 1


def test_the_first_model_with_a_price_is_taken() -> None:
    """A provider's private name for a model that was asked for by its public one."""
    cost = BOOK.cost(TokenUsage(1_000_000, 0), "openai", ["deployment-7", "gpt-4o"], AT)
    assert cost is not None
    assert cost.total == Decimal("2.50")


@pytest.mark.parametrize(
    ("tier", "total"),
    [
        (None, "11.25"),
        ("default", "11.25"),
        ("standard", "11.25"),
        ("flex", "5.625"),
        ("Priority", "22.5"),
        ("x", "11.25"),
    ],
)
def test_flex_and_priority_have_their_own_prices(tier: str | None, total: str) -> None:
    """Flex halves gpt-5's price, priority doubles it; a tier nobody knows is billed as usual."""
    cost = BOOK.cost(
        TokenUsage(1_000_000, 1_000_000), "openai", ["gpt-5"], AT, facts={"service_tier": tier} if tier else {}
    )
    assert cost is not None
    assert cost.total == Decimal(total)


# The team's own prices


def total(book: PriceBook, provider: str | None = "openai", model: str = "gpt-4o", at: datetime = AT) -> Decimal:
    cost = book.cost(TokenUsage(1_000_000, 0), provider, [model], at)
    assert cost is not None
    return cost.total


def test_an_own_price_counts_from_its_date_on() -> None:
    """A call is priced by what was in force when it started; before the first, by the public price."""
    day = timedelta(days=1)
    book = PriceBook(
        [
            Price("gpt-4o", input=7, provider="openai", valid_from=AT),
            Price("gpt-4o", input=9, provider="openai", valid_from=AT + 2 * day),
            Price("gpt-4o", input=8, provider="openai", valid_from=AT + day),
        ]
    )
    second = timedelta(seconds=1)
    expected = [(AT - second, "2.50"), (AT, "7"), (AT + day - second, "7"), (AT + day, "8"), (AT + 3 * day, "9")]
    assert [total(book, at=at) for at, _ in expected] == [Decimal(amount) for _, amount in expected]
    assert total(book, at=datetime(2026, 11, 1, 12)) == 7  # noqa: DTZ001 - a naive time is UTC
    assert total(book, provider="azure") == Decimal("2.50")


def test_of_several_own_prices_the_most_specific_and_latest_wins() -> None:
    """The provider's own before anybody's, code before table where both begin together, the later given of two alike."""
    anybody, own = Price("gpt-4o", input=5), Price("GPT-4o ", input=6, provider=" OpenAI")
    assert total(PriceBook([anybody])) == 5
    assert total(PriceBook([anybody, own])) == total(PriceBook([own, anybody])) == 6
    assert total(PriceBook([Price("gpt-4o", input=1), Price("gpt-4o", input=2)])) == 2
    book = PriceBook([own])
    book.set_team_prices([Price("gpt-4o", input=9, provider="openai"), Price("in-house", input=3)])
    assert (total(book), total(book, model="in-house"), total(book, None, "in-house")) == (6, 3, 3)
    book.set_team_prices([])
    assert book.cost(TokenUsage(1, 0), "openai", ["in-house"], AT) is None


def test_an_own_price_bills_cache_audio_reasoning_and_requests() -> None:
    """Cache, audio, reasoning and requests; what is not given falls back as providers bill it."""
    full = Price(
        "m", input="1", output="2", cache_read="0.1", cache_write="1.25", cache_write_1h="2", reasoning="3",
        audio_input="10", audio_output="20", per_request="0.005",
    )  # fmt: skip
    usage = TokenUsage(
        1000, 500, cache_read_tokens=100, cache_write_tokens=300, cache_write_1h_tokens=200, reasoning_tokens=50,
        audio_input_tokens=40, audio_output_tokens=30,
    )  # fmt: skip
    cost = PriceBook([full]).cost(usage, None, ["m"], AT)
    assert cost is not None
    assert cost.input == dollars((560, "1"), (100, "0.1"), (100, "1.25"), (200, "2"), (40, "10"))
    assert cost.output == dollars((420, "2"), (50, "3"), (30, "20"))
    assert cost.total == cost.input + cost.output + Decimal("0.005")
    assert cost.potential == dollars((960, "1"), (40, "10")) + cost.output + Decimal("0.005")
    plain = PriceBook([Price("m", input=1, output=2)]).cost(usage, None, ["m"], AT)
    assert plain is not None
    assert (plain.input, plain.output) == (dollars((1000, "1")), dollars((500, "2")))


@pytest.mark.parametrize(
    "bad", [0.15, True, "NaN", "Infinity", -1, "-0.5", "abc", "", [1], Decimal("sNaN"), "1e16", "1e-31", "1e400"]
)
def test_a_price_that_is_no_amount_is_refused(bad: Any) -> None:
    """A float is not the number that was written; NaN would poison every sum."""
    with pytest.raises(ValueError, match="of m must be"):
        Price("m", input=bad)
    with pytest.raises(ValueError, match="of m must be"):
        Price("m", units={"web_searches": bad})


def test_the_largest_and_the_finest_price_are_exact_for_the_most_tokens() -> None:
    """If this failed, the parts of a cost would not be its total, and the database would refuse the row."""
    book = PriceBook([Price("m", input="1e15", output="1e-30", per_request="1e-30")])
    cost = book.cost(TokenUsage(MAX_TOKENS, MAX_TOKENS - 1), None, ["m"], AT)
    assert cost is not None
    with decimal.localcontext(prec=200):
        assert cost.total == cost.input + cost.output + cost.fees
        assert cost.total == Decimal("1e21") + (MAX_TOKENS - 1) * Decimal("1e-36") + Decimal("1e-30")


def test_a_price_of_nothing_is_refused() -> None:
    """An entry without a price would hide the listed one."""
    for price in ({}, {"output": 1}, {"units": {}}, {"cache_read": 1, "units": {"web_searches": 1}}):
        with pytest.raises(ValueError, match="needs `input`"):
            Price("m", **price)


def test_a_price_comes_from_a_row() -> None:
    """As `model_prices` gives it: amounts as text."""
    price = Price.from_row(
        {
            "id": "p-1", "model": "m", "provider": None, "valid_from": "2026-11-01T00:00:00+00:00",
            "input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60", "cache_read_usd_per_mtok": None, "request_usd": "0.01",
        }
    )  # fmt: skip
    assert (price.input, price.output, price.cache_read, price.per_request) == (
        Decimal("0.15"), Decimal("0.60"), None, Decimal("0.01"),
    )  # fmt: skip
    assert (price.version, price.valid_from) == ("model_prices p-1", datetime(2026, 11, 1, tzinfo=UTC))


def test_a_provider_alone_has_a_default_model_with_a_price() -> None:
    """Where only the provider is known, a model of it stands in; the team may name another."""
    expected = {
        "openai": "gpt-4o-mini", "anthropic": "claude-3-haiku", "perplexity": "llama-3.1-sonar-small-128k-online",
        "google": "gemini-1.5-flash", "google_genai": "gemini-1.5-flash", " OpenAI ": "gpt-4o-mini", "nobody": None, None: None,
    }  # fmt: skip
    assert {provider: BOOK.default_model(provider) for provider in expected} == expected
    assert PriceBook(default_models={"openai": "gpt-4o"}).default_model("openai") == "gpt-4o"
    for provider, model in ((name, model) for name, model in expected.items() if name and model):
        assert BOOK.cost(TokenUsage(10, 10), provider, [model], AT) is not None, provider


def test_what_was_not_billed_costs_nothing_and_a_cache_hit_keeps_its_potential() -> None:
    """A refused request and a blocked call cost 0; LangChain's cache costs 0 and shows what it saved."""

    def record(**more: Any) -> CallRecord:
        usage = more.pop("usage", TokenUsage(1_000_000, 0))
        return CallRecord("id", AT, CallContext(), provider="openai", model="gpt-4o", usage=usage, **more)

    assert BOOK.cost_of(record(billed=False)) == BOOK.cost_of(record(status="blocked")) == NOT_BILLED
    hit, miss = BOOK.cost_of(record(cache_hit=True)), BOOK.cost_of(record())
    assert hit is not None
    assert miss is not None
    assert (hit.input, hit.output, hit.total, hit.potential) == (0, 0, 0, Decimal("2.50"))
    assert miss.total == miss.potential == Decimal("2.50")


@pytest.mark.parametrize(
    ("provider", "answered", "asked", "cost"),
    [
        # dollars for a million tokens in and a million out
        ("openai", "gpt-4o-2024-08-06", "gpt-4o", Decimal(2)),  # the team's own price, 1 + 1
        ("openrouter", "anthropic/claude-3.7-sonnet", "openai/gpt-4o", Decimal(18)),  # another model answered: listed
        ("openrouter", "nobody/knows-it", "openai/gpt-4o", Decimal(2)),  # nothing is known of the one that answered
        ("openai", "meta-llama/Llama-3.1-8B-Instruct", None, None),  # a server of one's own
        ("openai", "openai/gpt-oss-20b", None, None),
        ("ollama", "openai/gpt-oss-20b", None, None),
        ("openai", "anthropic/claude-3.5-haiku", None, Decimal("4.8")),  # a gateway behind OpenAI's client
        ("google_genai", "models/gemini-2.5-flash", None, Decimal("2.8")),
    ],
)
def test_the_price_of_the_model_that_answered_counts(
    provider: str, answered: str, asked: str | None, cost: Decimal | None
) -> None:
    own = [Price("gpt-4o", input=1, output=1, provider="openai"), Price("openai/gpt-4o", input=1, output=1)]
    usage = TokenUsage(prompt_tokens=10**6, completion_tokens=10**6)
    found = PriceBook(own).cost(usage, provider, (answered, asked), AT)
    assert (found.total if found else None) == cost


def test_the_teams_price_is_found_by_any_name_of_its_provider() -> None:
    book = PriceBook([Price("gemini-2.5-pro", input=1, output=1, provider="google")])
    usage = TokenUsage(prompt_tokens=10**6)
    for provider in ("google", "google_genai", "google_vertexai", "Gemini"):
        found = book.cost(usage, provider, ("gemini-2.5-pro",), AT)
        assert found is not None
        assert found.total == 1


@pytest.mark.parametrize(
    ("provider", "model", "amount"),
    [
        ("perplexity", "llama-3.1-sonar-huge-128k-online", "10"),
        ("together", "llama-3-70b", "1.8"),
        ("fireworks", "accounts/fireworks/models/qwen2.5-32b", "1.0"),
        (None, "llama-3-70b", "1.8"),
        ("litellm", "qwen2.5-32b", "1.0"),
    ],
)
def test_prices_that_genai_prices_lacks_are_added(provider: str | None, model: str, amount: str) -> None:
    """From their date on, and named on the row with it; not on a server of one's own."""
    usage = TokenUsage(1_000_000, 1_000_000)
    cost = BOOK.cost(usage, provider, [model], AT)
    assert cost is not None
    assert cost.total == Decimal(amount)
    assert cost.version.startswith("listed 2024-")
    assert BOOK.cost(usage, provider, [model], datetime(2024, 1, 1, tzinfo=UTC)) is None
    assert BOOK.cost(usage, "ollama", [model], AT) is None


@pytest.mark.parametrize(
    ("model", "at", "amount"),
    [
        ("gpt-4o-audio-preview", datetime(2024, 11, 1, tzinfo=UTC), "300"),
        ("gpt-4o-audio-preview", AT, "120"),
        ("gpt-4o-audio-preview-2025-06-03", AT, "120"),
        ("gpt-4o-audio-preview-2024-10-01", AT, "300"),
    ],
)
def test_added_prices_of_units_go_by_their_date_and_version(model: str, at: datetime, amount: str) -> None:
    """A snapshot of a model keeps the price of its time."""
    million = 1_000_000
    usage = TokenUsage(million, million, audio_input_tokens=million, audio_output_tokens=million)
    cost = BOOK.cost(usage, "openai", [model], at)
    assert cost is not None
    assert (cost.total, cost.notes) == (Decimal(amount), ())


def test_a_model_that_was_not_called_prices_nothing() -> None:
    """A gateway may answer under a name of its own: after a downgrade the model that was sent prices it, not the dear one."""
    usage = TokenUsage(1000, 1000)
    names = {"requested_model": "gpt-4o", "sent_model": "gpt-4o-mini", "model": "router-alias"}
    cost = BOOK.cost_of(CallRecord("c", AT, provider="openai", usage=usage, **names))
    assert cost is not None
    assert cost.total == dollars((1000, "0.15"), (1000, "0.60"))
    assert BOOK.cost_of(CallRecord("c", AT, provider="openai", usage=usage, **{**names, "sent_model": None})) is None


def test_the_providers_own_figure_prices_what_nothing_else_does() -> None:
    """And says so; where a price is known it stays beside it, and decides nothing."""
    usage = TokenUsage(1000, 1000)
    unknown = CallRecord("c", AT, provider="openrouter", model="nobody/x", usage=usage, reported_cost=Decimal("0.0123"))
    cost = BOOK.cost_of(unknown)
    assert cost is not None
    assert (cost.total, cost.fees, cost.version) == (Decimal("0.0123"), Decimal("0.0123"), "reported by openrouter")
    known = CallRecord("c", AT, provider="openai", model="gpt-4o-mini", usage=usage, reported_cost=Decimal("0.5"))
    listed = BOOK.cost_of(known)
    assert listed is not None
    assert listed.total == dollars((1000, "0.15"), (1000, "0.60"))
