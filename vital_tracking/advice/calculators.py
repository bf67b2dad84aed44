"""Calculators: what a call costs at which model, what a cache would save, which plan is large enough, how large requests are.

They ask no database: values in, values out. Amounts are US dollars as Decimal with all their digits, percentages go from 0 to
100 and are rounded to a tenth. Amounts are given as Decimal, int or text such as "0.002", since a float is not the number that
was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from vital_tracking.advice.plan_terms import PLANS, PlanTerms, smallest_that_holds
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.providers import provider_id
from vital_tracking.core.rates import amount
from vital_tracking.core.request_size import SIZES, Size, size_of
from vital_tracking.core.usage import TokenUsage

HIT_RATE: Final = 80
"""How many in a hundred of the calls that a cache could answer it does answer, by default: the others come too late."""

INFRASTRUCTURE_USD: Final = Decimal(10)
"""What running a cache costs, by default, in the time that its calls are counted for."""

ROUTE_FROM: Final = 30
"""From what share of simple requests on, in percent, routing them to a smaller model is recommended."""

_TENTH: Final = Decimal("0.1")


# What a call costs


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a call with so many tokens costs at a model, in US dollars, and the price entry that says so.

    Amounts and `price_version` are None where no price is known of what the call uses. `fees` are for each request.
    `fits` says whether the tokens have room in the model's context window; None where its size is not known.
    """

    provider: str | None
    model: str
    input_tokens: int
    output_tokens: int
    input_cost: Decimal | None = None
    output_cost: Decimal | None = None
    fees: Decimal | None = None
    total_cost: Decimal | None = None
    price_version: str | None = None
    context_window: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether prompt and answer have room in the context window; None where its size is not known."""
        return None if self.context_window is None else self.input_tokens + self.output_tokens <= self.context_window


def calculate_model_cost(
    model: str,
    input_tokens: int,
    output_tokens: int,
    *,
    provider: str | None = None,
    at: datetime | None = None,
    prices: PriceBook | None = None,
) -> ModelCost:
    """What one call costs with so many plain tokens in and out, nothing of it from a cache.

    `prices` are by default those of genai-prices; with `queries.price_book(store)` the team's own come first. `at` is when the
    call starts, by default now. Raises ValueError for a count below 0.
    """
    return _cost(prices or PriceBook(), provider, model, _usage(input_tokens, output_tokens), at or datetime.now(UTC))


def compare_models(
    input_tokens: int,
    output_tokens: int,
    *,
    provider: str | None = None,
    only: Collection[str] = (),
    limit: int | None = None,
    at: datetime | None = None,
    prices: PriceBook | None = None,
) -> list[ModelCost]:
    """What one call costs at every model that has a price for it, the cheapest first, at most `limit`.

    `provider` leaves those of one provider, `only` those of such names, as calls carry them; of a name without a price one line
    comes last, without amounts. `at` and `prices` are as for `calculate_model_cost`.
    """
    book, moment, usage = prices or PriceBook(), at or datetime.now(UTC), _usage(input_tokens, output_tokens)
    wanted = provider_id(provider)
    names = {name.strip().lower(): name for name in only}
    found = [
        _cost(book, owner, model, usage, moment)
        for owner, model in book.models()
        if (wanted is None or owner == wanted) and (not names or model.lower() in names)
    ]
    priced = [cost for cost in found if cost.total_cost is not None]
    seen = {cost.model.lower() for cost in priced}
    others = [_cost(book, provider, name, usage, moment) for folded, name in names.items() if folded not in seen]
    ordered = sorted((*priced, *others), key=_order)
    return ordered if limit is None else ordered[:limit]


def _order(cost: ModelCost) -> tuple[bool, Decimal, str, str]:
    total = cost.total_cost
    return total is None, ZERO if total is None else total, cost.model, cost.provider or ""


def _usage(input_tokens: int, output_tokens: int) -> TokenUsage:
    if input_tokens < 0 or output_tokens < 0:
        raise ValueError("counts of tokens are not negative")
    return TokenUsage(prompt_tokens=input_tokens, completion_tokens=output_tokens)


def _cost(book: PriceBook, provider: str | None, model: str, usage: TokenUsage, at: datetime) -> ModelCost:
    rates = book.rates(provider, model, at)
    cost = None if rates is None else rates.cost(usage)
    tokens, window = (usage.prompt_tokens, usage.completion_tokens), book.context_window(provider, model)
    if cost is None:
        return ModelCost(provider, model, *tokens, context_window=window)
    amounts = (cost.input, cost.output, cost.fees, cost.total)
    return ModelCost(provider, model, *tokens, *amounts, cost.version, window)


# What a cache would save


@dataclass(frozen=True, slots=True)
class CachingSavings:
    """What a cache of whole answers would save: calls, US dollars, and the net savings in percent of what it costs.

    `roi_percent` is None where the cache costs nothing.
    """

    cacheable_calls: int
    calls_saved: int
    gross_savings: Decimal
    infrastructure_cost: Decimal
    net_savings: Decimal
    roi_percent: Decimal | None


def estimate_caching_savings(
    total_calls: int,
    duplicate_rate: Decimal | float | str,
    avg_cost_per_call: Decimal | int | str,
    *,
    hit_rate: Decimal | float | str = HIT_RATE,
    infrastructure_cost: Decimal | int | str = INFRASTRUCTURE_USD,
) -> CachingSavings:
    """What a cache of whole answers would save of so many calls.

    `duplicate_rate` is how many in a hundred calls ask what was asked before. Two things are assumed, and can be said otherwise:
    of these the cache answers `hit_rate` percent, by default 80, and running it costs `infrastructure_cost`, by default 10 US
    dollars in the time that the calls are of. Calls are whole, rounded down. What really was asked twice:
    `queries.duplicates(store)`.
    """
    if total_calls < 0:
        raise ValueError("counts of calls are not negative")
    price, running = amount(avg_cost_per_call, "avg_cost_per_call"), amount(infrastructure_cost, "infrastructure_cost")
    cacheable = int(total_calls * _percentage(duplicate_rate, "duplicate_rate") / 100)
    saved = int(cacheable * _percentage(hit_rate, "hit_rate") / 100)
    gross = MONEY.multiply(price, saved)
    net = MONEY.subtract(gross, running)
    return CachingSavings(cacheable, saved, gross, running, net, _percent(net, running) if running else None)


# Which plan is large enough


@dataclass(frozen=True, slots=True)
class PlanTier:
    """The smallest plan that is large enough, its price a month, and how much of it would be used and left, in percent.

    `recommended_tier` is None where no plan is large enough, `monthly_cost` where nobody has said the plan's price. Shares are
    None of what is unlimited; what is left is by the one of both that is used more, None where both are unlimited.
    """

    recommended_tier: str | None
    monthly_cost: Decimal | None
    call_utilization_percent: Decimal | None
    token_utilization_percent: Decimal | None
    buffer_remaining_percent: Decimal | None


def recommend_plan_tier(monthly_calls: int, monthly_tokens: int, *, plans: Sequence[PlanTerms] = PLANS) -> PlanTier:
    """The smallest of the `plans`, the smallest first, within which so many calls and tokens a month are.

    By default these are the plans that a new database begins with; the team's own: `PlanTerms.of(plan)` of each of
    `queries.plans.plans(store)`.
    """
    if monthly_calls < 0 or monthly_tokens < 0:
        raise ValueError("calls and tokens are not negative")
    plan = smallest_that_holds(plans, monthly_calls, monthly_tokens)
    if plan is None:
        return PlanTier(None, None, None, None, None)
    used = [_share(monthly_calls, plan.calls), _share(monthly_tokens, plan.tokens)]
    known = [share for share in used if share is not None]
    left = _rounded(100 - max(known)) if known else None
    calls, tokens = (None if share is None else _rounded(share) for share in used)
    return PlanTier(plan.name, plan.price_usd, calls, tokens, left)


def _share(used: int, limit: int | None) -> Decimal | None:
    """A share in percent; nothing of nothing is 0."""
    if limit is None:
        return None
    return Decimal(100) * used / limit if limit else ZERO


# How large requests are


@dataclass(frozen=True, slots=True)
class QueryComplexity:
    """How many in a hundred requests are simple, medium and complex, what to do about it, and what that would save.

    The shares are None where there are no requests. `potential_savings` is US dollars for these requests, None where no models
    were named, or one of them has no price for them.
    """

    simple_queries_pct: Decimal | None
    medium_queries_pct: Decimal | None
    complex_queries_pct: Decimal | None
    recommendation: str
    potential_savings: Decimal | None


def analyze_query_complexity(
    queries: Iterable[tuple[int, int]],
    *,
    model: str | None = None,
    simple_model: str | None = None,
    medium_model: str | None = None,
    provider: str | None = None,
    simple_provider: str | None = None,
    medium_provider: str | None = None,
    route_from: Decimal | float | str = ROUTE_FROM,
    at: datetime | None = None,
    prices: PriceBook | None = None,
) -> QueryComplexity:
    """How large requests are, given the tokens in and out of each: simple below 500 tokens in, complex from 2,000 on.

    `potential_savings` is what the simple ones would save at `simple_model`, and the medium ones at `medium_model` where that is
    named, instead of `model`: the same tokens at the other price, below 0 where that is dearer. Whether the smaller model answers
    well enough, no count of tokens says. Routing is recommended from `route_from` percent of simple requests on, by default 30.
    `provider`, `simple_provider` and `medium_provider` are whose the models are, `at` and `prices` are as for
    `calculate_model_cost`.
    """
    counts = Counter[tuple[int, int]]()
    for tokens_in, tokens_out in queries:
        _usage(tokens_in, tokens_out)
        counts[tokens_in, tokens_out] += 1
    by_size = Counter[Size]()
    for (tokens_in, _), count in counts.items():
        by_size[size_of(tokens_in)] += count
    total = by_size.total()
    if not total:
        return QueryComplexity(None, None, None, "There are no requests to look at.", None)
    other = {Size.simple: (simple_provider, simple_model), Size.medium: (medium_provider, medium_model)}
    moved = {size: (owner, name) for size, (owner, name) in other.items() if name is not None}
    savings = None
    if model is not None and moved:
        book, moment = prices or PriceBook(), at or datetime.now(UTC)
        savings = _saved(counts, (provider, model), moved, book, moment)
    simple, medium, large = (_rounded(Decimal(100) * by_size[size] / total) for size in SIZES)
    routed = Decimal(100) * by_size[Size.simple] / total >= _percentage(route_from, "route_from")
    return QueryComplexity(simple, medium, large, _recommendation(simple, routed, savings, simple_model), savings)


def _saved(
    counts: Counter[tuple[int, int]],
    now: tuple[str | None, str],
    moved: dict[Size, tuple[str | None, str]],
    book: PriceBook,
    at: datetime,
) -> Decimal | None:
    def each() -> Iterator[Decimal | None]:
        for (tokens_in, tokens_out), count in counts.items():
            if (there := moved.get(size_of(tokens_in))) is not None:
                usage = _usage(tokens_in, tokens_out)
                before, after = (_cost(book, *place, usage, at).total_cost for place in (now, there))
                yield None if before is None or after is None else MONEY.multiply(MONEY.subtract(before, after), count)

    total = ZERO
    for saving in each():
        if saving is None:
            return None
        total = MONEY.add(total, saving)
    return total


def _recommendation(simple: Decimal, routed: bool, savings: Decimal | None, simple_model: str | None) -> str:
    said = f"{simple} % of the requests are simple (below {SIZES[Size.simple]} tokens in)"
    if savings is not None and savings <= 0:
        return f"{said}: keep the model, since the other one costs no less."
    if not routed:
        return f"{said}: keep one model for all of them."
    return f"{said}: try {simple_model or 'a smaller model'} for these, and see whether its answers are good enough."


def _percentage(value: Decimal | float | str, what: str) -> Decimal:
    number = amount(str(value), what)
    if number > 100:
        raise ValueError(f"{what} is in percent, from 0 to 100")
    return number


def _percent(part: Decimal, whole: Decimal) -> Decimal:
    return _rounded(MONEY.divide(MONEY.multiply(part, Decimal(100)), whole))


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_TENTH, rounding=ROUND_HALF_UP, context=MONEY)
