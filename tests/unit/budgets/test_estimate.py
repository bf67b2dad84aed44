"""What a call may cost before it is made: never less than it can turn out, never more than the dearest way it can.

If one of these fails, holds are too small and budgets are overspent, or so large that they stop calls there is money for.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

from hypothesis import assume, example, given
from hypothesis import strategies as st

from vital_tracking.budgets.estimate import PICO, Amounts, History, UpperPrice, in_dollars, in_pico
from vital_tracking.core.rates import Rate, Rates, Tiers, ceiling_rates, per_million
from vital_tracking.core.sanitize import MAX_TOKENS
from vital_tracking.core.usage import TokenUsage

CEILING = ceiling_rates("15/75")

prices = st.decimals(0, 1000, places=8, allow_nan=False, allow_infinity=False).map(per_million)
tiers = st.builds(
    lambda base, steps: Tiers(base, tuple(sorted(steps.items()))),
    prices,
    st.dictionaries(st.integers(1, 300_000), prices, min_size=1, max_size=3),
)
rate_values = st.one_of(prices, tiers)
all_rates = st.fixed_dictionaries(
    {"input_tokens": rate_values, "output_tokens": rate_values},
    optional={"cache_write_tokens": rate_values, "output_reasoning_tokens": rate_values, "requests": prices},
).map(lambda rates: Rates("test", rates))
counts = st.integers(0, 400_000)
Pair = tuple[int, int]
sizes = st.integers(0, 200_000)
seen = st.lists(st.tuples(sizes, st.integers(1, 200_000), st.integers(0, 100_000)), min_size=1, max_size=100)


def tier_of(rate: Rate | None, prompt: int) -> Decimal:
    assert rate is not None
    return rate.at(prompt) if isinstance(rate, Tiers) else rate


def of(model: str, prompt: str, answer: str) -> Rates:
    return Rates(model, {"input_tokens": per_million(Decimal(prompt)), "output_tokens": per_million(Decimal(answer))})


@given(rates=all_rates, prompt=counts, answer=counts)
@example(rates=of("t", "0.15", "0.60"), prompt=100, answer=20)
@example(
    rates=Rates("t", {"input_tokens": Tiers(Decimal(1), ((1, Decimal(2)),)), "output_tokens": Decimal(3)}),
    prompt=0,
    answer=7,
)
def test_the_dearest_way_a_call_can_be_billed_is_its_hold(rates: Rates, prompt: int, answer: int) -> None:
    """Not a picodollar less than the price book makes of it, and at most one a token and one a request more."""

    def dearer(unit: str, plain: str) -> bool:
        return tier_of(rates.rate(unit), prompt) > tier_of(rates.rate(plain), prompt)

    written = dearer("cache_write_5m_tokens", "input_tokens")
    thought = dearer("output_reasoning_tokens", "output_tokens")
    usage = TokenUsage(
        prompt, answer, cache_write_tokens=prompt if written else 0, reasoning_tokens=answer if thought else 0
    )
    cost = rates.cost(usage)
    assert cost is not None
    held = in_dollars(UpperPrice(rates, CEILING).cost(prompt, answer))
    assert cost.total <= held
    assert held - cost.total < Decimal(prompt + answer + 1) / PICO


@given(rates=all_rates, prompt=counts, answer=counts, data=st.data())
def test_a_call_within_its_counts_costs_no_more_than_its_hold(
    rates: Rates, prompt: int, answer: int, data: st.DataObject
) -> None:
    """However its tokens fall on text, cache and reasoning, and however much shorter the answer is."""
    short = data.draw(st.integers(0, answer))
    write = data.draw(st.integers(0, prompt))
    read = data.draw(st.integers(0, prompt - write))
    usage = TokenUsage(
        prompt,
        short,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=data.draw(st.integers(0, short)),
    )
    cost = rates.cost(usage)
    assert cost is not None
    assert cost.total <= in_dollars(UpperPrice(rates, CEILING).cost(prompt, answer))


@given(rates=all_rates, prompt=counts, pico=st.integers(-PICO, 100 * PICO))
def test_an_answer_that_is_cut_to_the_money_is_the_longest_there_is_money_for(
    rates: Rates, prompt: int, pico: int
) -> None:
    """One token longer would be refused; a shorter one would waste what is left."""
    price = UpperPrice(rates, CEILING)
    answer = price.affordable_answer(pico, prompt)
    assert answer >= 0
    if answer:
        assert price.cost(prompt, answer) <= pico
    if 0 < answer < 10**9:
        assert price.cost(prompt, answer + 1) > pico


def test_a_model_without_a_price_is_held_for_at_the_ceiling() -> None:
    """Else the dearest model of all would be free to budgets, for want of a price."""
    price = UpperPrice(None, CEILING)
    assert not price.priced
    assert in_dollars(price.cost(1_000_000, 1_000_000)) == 90


def test_only_a_model_with_prices_can_be_no_dearer_than_another() -> None:
    """Both its prompts and its answers must be; an unknown price is no cheap one."""
    small = UpperPrice(of("s", "0.15", "0.60"), CEILING)
    large = UpperPrice(of("l", "2.50", "10"), CEILING)
    odd = UpperPrice(of("o", "0.10", "20"), CEILING)
    unknown = UpperPrice(None, CEILING)
    assert small.no_dearer_than(large)
    assert small.no_dearer_than(small)
    assert not large.no_dearer_than(small)
    assert not odd.no_dearer_than(large)
    assert not large.no_dearer_than(odd)
    assert not unknown.no_dearer_than(large)
    assert not small.no_dearer_than(unknown)


@given(st.integers(-(10**30), 10**30))
def test_picodollars_and_dollars_are_one_amount(pico: int) -> None:
    """Whatever precision the calling program has set for its own Decimals."""
    with localcontext(Context(prec=3)):
        dollars = in_dollars(pico)
        assert in_pico(dollars) == pico
    assert dollars * PICO == pico or abs(pico) > 10**20


@given(st.decimals(0, 10**6, places=20))
def test_dollars_finer_than_a_picodollar_are_rounded_up(dollars: Decimal) -> None:
    """A hold is an upper estimate."""
    with localcontext(Context(prec=60)):
        assert 0 <= in_dollars(in_pico(dollars)) - dollars < Decimal(1) / PICO


def test_what_a_call_needs_is_said_in_amounts_as_people_count_them() -> None:
    """What a refusal says that a call needs."""
    assert Amounts(1_500_000_000_000, 42, 1).as_decimals() == (Decimal("1.5"), Decimal(42), Decimal(1))


# History


def reported(prompt: int, answer: int) -> TokenUsage:
    return TokenUsage(prompt, answer)


@given(calls=seen)
def test_what_was_learned_is_enough_for_every_remembered_call(calls: list[tuple[int, int, int]]) -> None:
    """Of the last 64 calls none would have cost more than its hold."""
    history = History()
    for size, prompt, answer in calls:
        history.observe(size, reported(prompt, answer))
        assert history.answer >= answer
        assert history.prompt_tokens(size) >= prompt
    for size, prompt, answer in calls[-64:]:
        assert history.prompt_tokens(size) >= prompt
        assert history.answer >= answer


@given(calls=seen)
def test_estimates_are_not_learned_from_estimates(calls: list[tuple[int, int, int]]) -> None:
    """An estimate learned from estimates would drift wherever it likes."""
    history, fresh = History(), History()
    for size, prompt, answer in calls:
        history.observe(size, TokenUsage(prompt, answer, estimated=True))
        history.observe(size, TokenUsage(0, answer))
    for size in (0, 10, 100_000):
        assert history.prompt_tokens(size) == fresh.prompt_tokens(size)
    assert history.answer == fresh.answer


@given(size=st.integers(0, 10**6))
def test_before_anything_is_known_two_bytes_are_a_token(size: int) -> None:
    """More than most text takes, so that the first calls of a model are not held too small."""
    history = History()
    assert history.prompt_tokens(size) >= size // 2 + 16
    assert history.answer == 4096


def test_calls_teach_how_much_is_enough() -> None:
    """If this failed, budgets would stop calls at a fraction of what they allow."""
    history = History()
    for number in range(64):
        history.observe(4000 + number, reported(1000, 150))
    assert 1000 <= history.prompt_tokens(4000) < 1300
    assert 150 <= history.answer < 200
    assert history.prompt_tokens(40_000) >= 10_000


def test_a_few_calls_do_not_lower_the_first_guess() -> None:
    """Two short answers say little of the third."""
    history = History()
    for _ in range(7):
        history.observe(100, reported(20, 3))
    assert history.answer == 4096
    history.observe(100, reported(20, 3))
    assert history.answer < 10


def test_one_long_call_is_forgotten_again() -> None:
    """If this failed, one exceptional call would have every later one hold far too much."""
    history = History()
    for _ in range(64):
        history.observe(4000, reported(1000, 150))
    history.observe(4000, reported(3000, 9000))
    assert history.answer >= 9000
    assert history.prompt_tokens(4000) >= 3000
    for _ in range(64 + 16):
        history.observe(4000, reported(1000, 150))
    assert 150 <= history.answer < 200
    assert 1000 <= history.prompt_tokens(4000) < 1400


def test_what_calls_cost_beyond_all_estimates_is_learned_and_forgotten() -> None:
    """Fees, and limits that a model does not keep: if this failed, each call of many at once would overstep a limit."""
    history, thought = History(), Amounts(100, 20, 1)
    history.compare(thought, Amounts(350, 25, 1))
    assert history.extra == (250, 5)
    learned = Amounts(350, 25, 1, *history.extra)
    assert learned.without_extra() == thought
    history.compare(learned, Amounts(350, 25, 1))
    history.compare(thought, Amounts(340, 22, 1))  # one that was under way before
    assert history.extra == (240, 5)
    history.compare(Amounts(340, 25, 1, 240, 5), Amounts(400, 20, 1))
    assert history.extra == (300, 5)
    for _ in range(60):
        history.compare(Amounts(100 + history.extra[0], 20, 1, history.extra[0]), Amounts(90, 20, 1))
    assert history.extra[0] < 8


def test_prompts_without_text_are_learned_too() -> None:
    """Images and tools have tokens but no bytes of text."""
    history = History()
    for _ in range(10):
        history.observe(0, reported(5000, 10))
    assert history.prompt_tokens(0) >= 5000


def test_what_the_database_remembers_is_where_learning_begins() -> None:
    """A process that has just started need not guess the length of answers."""
    assert 200 <= History(200).answer < 300


@given(calls=seen, size=sizes)
def test_a_slope_never_leaves_its_bounds(calls: list[tuple[int, int, int]], size: int) -> None:
    """One odd call (a prompt of one byte billed as a thousand tokens) must not make holds absurd."""
    assume(all(prompt <= MAX_TOKENS for _, prompt, _ in calls))
    history = History()
    for one in calls:
        history.observe(one[0], reported(one[1], one[2]))
    assert 0.2 <= history.slope <= 1.0
    assert history.prompt_tokens(size) <= size + max(prompt for _, prompt, _ in calls) * 1.25 + 17
