"""What a call draws on its windows, in numbers and as its row says it."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from vital_tracking.core.draws import Draws, as_text, texts_of

TRIES = settings(max_examples=100, deadline=None, derandomize=True)


class AWindow(NamedTuple):
    id: int
    metric: int


WINDOWS = st.lists(st.builds(AWindow, st.integers(1, 10**9), st.integers(0, 2)), min_size=1, max_size=6).map(tuple)
AMOUNTS = st.just(0) | st.integers(0, 10**20)


@TRIES
@given(WINDOWS, AMOUNTS, AMOUNTS, st.integers(0, 3))
@example((AWindow(7, 0),), 250, 12, 1)
@example((AWindow(7, 1), AWindow(8, 0)), 250, 12, 1)
def test_a_row_says_what_was_drawn_of_each_window(
    windows: tuple[AWindow, ...], cost: int, tokens: int, calls: int
) -> None:
    """If this failed, a budget would count another amount than the call cost, or one of another window."""
    draws = Draws(windows, (cost, tokens, calls))
    amounts = [Decimal(cost).scaleb(-12), Decimal(tokens), Decimal(calls)]
    expected = [(window.id, amounts[window.metric]) for window in windows if amounts[window.metric]]
    assert [(window, Decimal(amount)) for window, amount in draws] == expected
    assert len(draws) == len(expected)
    assert all(draw in draws for draw in list(draws))
    assert (0, "1") not in draws
    for one in (draws, list(draws)):  # those of a merged row are a list
        ids, texts = texts_of(one)
        assert ids == ",".join(str(window) for window, _ in expected)
        assert [Decimal(text) for text in texts.split(",") if text] == [amount for _, amount in expected]


@TRIES
@given(st.integers(-(10**30), 10**30))
def test_an_amount_as_text_is_that_amount(whole: int) -> None:
    """If this failed, a process would tell the database of other money than it has."""
    numerator, denominator = Decimal(as_text(whole, 0)).as_integer_ratio()
    assert numerator * 10**12 == whole * denominator
    assert as_text(whole, 1) == as_text(whole, 2) == str(whole)
