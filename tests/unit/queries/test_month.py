"""A month's end divided among services or organizations: the parts add up to the whole, to the last digit."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from vital_tracking.queries.month import divided

COSTS = st.dictionaries(
    st.one_of(st.none(), st.sampled_from("abcde")), st.decimals(0, 1000, places=9, allow_nan=False), max_size=5
)


@given(COSTS, COSTS, st.decimals(0, 10_000, places=6, allow_nan=False))
def test_parts_add_up_and_are_never_below_what_is_spent(
    spent: dict[str | None, Decimal], habit: dict[str | None, Decimal], more: Decimal
) -> None:
    """If this failed, the services of a month would come to another bill than the month."""
    total = sum(spent.values(), Decimal(0))
    parts = divided(spent, habit, total + more)
    assert {part["name"] for part in parts} >= set(spent)
    assert all(part["projected"] >= part["spent"] for part in parts)
    if total or sum(habit.values()):
        assert sum(part["projected"] for part in parts) == total + more


def test_what_is_to_come_goes_as_the_last_weeks_went() -> None:
    parts = divided({"a": Decimal(10)}, {"a": Decimal(1), "b": Decimal(3)}, Decimal(18))
    assert [(part["name"], part["spent"], part["projected"]) for part in parts] == [
        ("a", Decimal(10), Decimal(12)),
        ("b", Decimal(0), Decimal(6)),
    ]
    assert [part["share_percent"] for part in parts] == [Decimal("66.67"), Decimal("33.33")]
