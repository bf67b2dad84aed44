"""What `doctor` makes of calls whose cost is not known exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from vital_tracking.core.price_list import RELEASE
from vital_tracking.queries.exactness import Exactness, InexactCalls, check_exactness

AT = datetime(2026, 1, 31, tzinfo=UTC)


def calls(model: str | None, reason: str, number: int = 1) -> InexactCalls:
    return InexactCalls(
        provider="openai",
        model=model,
        framework=None,
        call_type="chat",
        reason=reason,
        calls=number,
        cost=Decimal("0.00001"),
        newest=AT,
    )


def found(*rows: InexactCalls, complete: bool = True, release: str = RELEASE) -> Exactness:
    lists = [{"version": release, "calls": 7, "newest": AT}]
    return Exactness(since=AT, complete=complete, calls=9, rows=list(rows), price_lists=lists)  # type: ignore[typeddict-item]


def test_exact_costs_are_one_good_line_that_says_of_how_many_calls() -> None:
    """An admin would take a look at a part of the calls for one at them all."""
    [check] = check_exactness(found(calls("m", "unpriced")))  # of which another check tells
    assert (check.state, check.what) == (
        "ok",
        "the cost of every call that has a price is exact (9 calls of the last week)",
    )
    [check] = check_exactness(found(complete=False))
    assert check.what == "the cost of every call that has a price is exact (the newest 9 calls)"


def test_a_long_list_ends_with_how_many_more_there_are() -> None:
    """One model that is noted a hundred times would push everything else off the screen."""
    checks = list(check_exactness(found(*(calls(f"m-{n}", f"unit_unpriced:unit_{n}", n) for n in range(1, 14)))))
    assert len(checks) == 11
    assert checks[0].what == "1 call of openai m-1, $0.00001: no price is known for unit_1"
    assert checks[0].fix == "Set one: vital-tracking prices set m-1 --unit unit_1=USD"
    assert checks[-1].what == f"{11 + 12 + 13} more calls whose cost is not exact"


def test_a_name_in_a_command_is_quoted() -> None:
    """A model's name could run a command when an admin pastes the advice."""
    [check] = check_exactness(found(calls("m {0}; rm -r /", "unit_unpriced:x y")))
    assert check.fix == "Set one: vital-tracking prices set 'm {0}; rm -r /' --unit 'x y'=USD"


def test_a_reason_of_a_later_version_is_told_as_it_is() -> None:
    """After an update of one process, the doctor of another would fail over a word that it does not know."""
    [check] = check_exactness(found(calls(None, "modality_odd:smell {0}")))
    assert (check.what, check.fix) == ("1 call of openai (no model), $0.00001: modality odd: smell {0}", None)


def test_prices_of_another_release_are_told_with_where_to_look() -> None:
    """A process that was not updated would go on pricing by an old list."""
    *_, check = check_exactness(found(release="0.0.1"))
    assert check.what == f"7 calls of the last week priced by genai-prices 0.0.1; here is {RELEASE}"
    assert "vital-tracking prices check" in (check.fix or "")
