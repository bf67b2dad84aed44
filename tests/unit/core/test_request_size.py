"""Requests are small or large by one set of thresholds."""

import pytest

from vital_tracking.core.request_size import SIZES, Size, size_of


@pytest.mark.parametrize(
    ("prompt_tokens", "size"),
    [
        (0, "simple"),
        (499, "simple"),
        (500, "medium"),
        (1_999, "medium"),
        (2_000, "complex"),
        (1_000_000, "complex"),
    ],
)
def test_a_size_begins_where_the_one_before_it_ends(prompt_tokens: int, size: str) -> None:
    assert size_of(prompt_tokens) == size


def test_every_size_has_its_place() -> None:
    assert tuple(SIZES) == tuple(Size)
