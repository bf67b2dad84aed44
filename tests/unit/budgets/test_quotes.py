"""What is set aside for a call before it is made: by its sizes, by what is known of such calls, and by what strict budgets ask.

If one of these fails, budgets are overspent by calls that hold too little, or stop calls that they could pay for.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from vital_tracking.budgets.estimate import ANSWER_TOKENS, Amounts, History, UpperPrice
from vital_tracking.budgets.policy import Budget
from vital_tracking.budgets.quotes import Terms, strict_prompt_tokens
from vital_tracking.core.admission import Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.rates import Rates, ceiling_rates, per_million
from vital_tracking.errors import BudgetExceeded

# A millionth of a dollar a token, a prompt's or an answer's: a million picodollars.
ONE = per_million(Decimal(1))
PRICE = UpperPrice(Rates("m", {"input_tokens": ONE, "output_tokens": ONE}), ceiling_rates("15/75"))


def a_budget(budget_id: int = 1, metric: str = "cost_usd", **changes: Any) -> Budget:
    row = {
        "id": budget_id,
        "organization_id": None,
        "entity_type": "user",
        "entity_id": "*",
        "metric": metric,
        "action": "block",
        "enforce": True,
        "strict": False,
        "when_unavailable": "allow",
        "downgrade_to": None,
    }
    return Budget.from_row(row | changes)


def terms_of(*budgets: Budget, may_pass: frozenset[int] = frozenset()) -> Terms:
    return Terms([(budget, "u-1") for budget in budgets], PRICE, History(), may_pass)


def request(**sizes: Any) -> Request:
    return Request(CallContext(user_id="u-1"), "openai", "m", **sizes)


def test_what_the_caller_knows_is_held_to_the_token() -> None:
    """And for each of the answers that are asked for."""
    assert terms_of(a_budget()).quote(request(prompt_tokens=100, max_tokens=20), clamp=False) == (
        Amounts(120 * 10**6, 120, 1),
        None,
    )
    amounts, _ = terms_of(a_budget()).quote(request(prompt_tokens=100, max_tokens=20, answers=3), clamp=False)
    assert amounts == Amounts(160 * 10**6, 160, 1)


def test_a_limit_that_no_answer_comes_near_is_not_held() -> None:
    """Integrations set 64,000 tokens; such a hold would use up every small budget. Strict budgets hold it all the same."""
    asked = request(prompt_tokens=0, max_tokens=64_000)
    assert terms_of(a_budget()).quote(asked, clamp=False)[0].tokens == ANSWER_TOKENS
    assert terms_of(a_budget(strict=True)).quote(asked, clamp=False)[0].tokens == 64_000


@pytest.mark.parametrize("seen", [0, 40, ANSWER_TOKENS, 10_000])
@pytest.mark.parametrize("limit", [0, 1, ANSWER_TOKENS - 1, ANSWER_TOKENS, ANSWER_TOKENS + 1, 12_501, 64_000])
def test_a_limit_is_cut_to_the_longest_answer_seen_but_never_below_the_usual_one(seen: int, limit: int) -> None:
    history = History(seen)
    terms = Terms([(a_budget(), "u-1")], PRICE, history, frozenset())
    held = terms.quote(request(prompt_tokens=0, max_tokens=limit), clamp=False)[0]
    assert held.tokens == min(limit, max(seen + seen // 4 + 1, ANSWER_TOKENS))


def test_sounds_are_held_at_their_own_price() -> None:
    """Sound costs up to sixteen times as much as text: a hold at the price of text would let every such call overrun."""
    rates = Rates("m", {"input_tokens": ONE, "output_tokens": ONE, "input_audio_tokens": ONE * 40})
    terms = Terms([(a_budget(), "u-1")], UpperPrice(rates, ceiling_rates("15/75")), History(), frozenset())
    plain, _ = terms.quote(request(prompt_bytes=10, max_tokens=20, media_tokens=100), clamp=False)
    heard, _ = terms.quote(request(prompt_bytes=10, max_tokens=20, audio_tokens=100), clamp=False)
    assert (heard.tokens, heard.cost) == (plain.tokens, plain.cost + 100 * 39 * 10**6)
    assert (
        terms_of(a_budget()).quote(request(prompt_bytes=10, max_tokens=20, audio_tokens=100), clamp=False)[0] == plain
    )


def test_a_strict_budget_refuses_what_nothing_limits_unless_it_may_be_limited() -> None:
    """A budget that only watches is strict with nobody."""
    asked = request(prompt_tokens=10)
    strict, watching = a_budget(7, strict=True), a_budget(8, strict=True, enforce=False)
    with pytest.raises(BudgetExceeded, match="max_tokens") as caught:
        terms_of(watching, strict).quote(asked, clamp=False)
    assert (caught.value.stop.budget_id, caught.value.entity_id) == (7, "u-1")
    assert terms_of(strict).quote(asked, clamp=True) == (terms_of(strict).quote(asked, clamp=True)[0], ANSWER_TOKENS)
    assert terms_of(watching).quote(asked, clamp=False)[1] is None


def test_a_strict_prompt_has_a_token_for_every_byte_and_for_what_stands_around_messages() -> None:
    assert strict_prompt_tokens(request(prompt_bytes=1000, messages=2)) == 1000 + 2 * 8
    assert (
        strict_prompt_tokens(request(prompt_bytes=1000, schema_bytes=17, media_tokens=30, audio_tokens=20))
        == 1000 + 8 + 17 + 50
    )


def over(budget: int, limit: str, spent: str = "0", granted: str = "0", **changes: Any) -> dict[str, Any]:
    return {"id": 11, "budget": budget, "over": True, "limit": limit, "spent": spent, "granted": granted} | changes


@pytest.mark.parametrize(
    ("windows", "free", "answer"),
    [
        ([], {}, 500),  # no window is in the way
        ([over(2, "400")], {}, 300),
        ([over(2, "400", spent="100", granted="50")], {}, 150),
        ([over(2, "400", spent="100", granted="50")], {11: 20}, 170),
        ([over(1, "0.0003"), over(2, "400")], {}, 200),
        ([over(1, "0.0003", over=False), over(2, "400")], {}, 300),
        ([over(2, "115")], {}, None),  # fifteen tokens are no answer
        ([over(2, "116")], {}, 16),
        ([over(3, "0")], {}, None),  # no shorter answer makes fewer calls
    ],
)
def test_an_answer_is_cut_to_what_is_left(windows: list[Any], free: dict[int, int], answer: int | None) -> None:
    """Money for half an answer buys half an answer."""
    terms = terms_of(a_budget(1), a_budget(2, "tokens"), a_budget(3, "calls"))
    asked = request(prompt_tokens=100, max_tokens=500)
    amounts, _ = terms.quote(asked, clamp=True)
    assert terms.longest_answer(asked, amounts, windows, free) == answer


def test_calls_pass_budgets_that_only_watch_and_that_let_this_model_pass() -> None:
    terms = terms_of(may_pass=frozenset({2}))
    assert terms.passes(a_budget(1, enforce=False))
    assert terms.passes(a_budget(2, action="downgrade"))
    assert not terms.passes(a_budget(3, action="downgrade"))


def test_the_row_says_the_strictest_that_was_done_or_would_have_been() -> None:
    """Throttled before all, as it was done; else what a budget that only watches would have done."""
    throttle, shadow = a_budget(1, action="throttle"), a_budget(2, enforce=False)
    assert terms_of(shadow, throttle).action_noted([over(1, "1"), over(2, "1")]) == "throttle"
    assert terms_of(shadow, throttle).action_noted([over(1, "1", over=False), over(2, "1")]) == "shadow_block"
    assert terms_of(shadow, throttle).action_noted([]) is None
