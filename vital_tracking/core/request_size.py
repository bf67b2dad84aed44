"""How large a request is, by the tokens of its prompt: simple, medium or complex. These thresholds stand nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Size(StrEnum):
    """How large a request is; the order is that of the sizes."""

    simple = "simple"
    medium = "medium"
    complex = "complex"


SIZES: Final[Mapping[Size, int | None]] = MappingProxyType({Size.simple: 500, Size.medium: 2_000, Size.complex: None})
"""The prompt tokens below which a request is of that size, the smallest first; None: it has no upper limit."""


def size_of(prompt_tokens: int) -> Size:
    """The size of a request with so many prompt tokens, those read from a provider's cache included."""
    return next(size for size, below in SIZES.items() if below is None or prompt_tokens < below)


def bounds_of(size: Size) -> tuple[int, int | None]:
    """From how many prompt tokens on, and below how many, a request is of a size; None: it has no upper limit."""
    least = 0
    for one, below in SIZES.items():
        if one is size:
            return least, below
        least = below or least
    raise ValueError(size)
