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
