"""The price list of genai-prices: its release, and other lists in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final, TypeAlias

from genai_prices import data_snapshot

PriceList: TypeAlias = data_snapshot.DataSnapshot

RELEASE: Final = version("genai-prices")
"""The release that is installed, as the `price_version` of rows names it."""


@contextmanager
def listed_in(prices: PriceList | None) -> Iterator[None]:
    """Inside, the price books of this process take listed prices from `prices`, None being the list in use."""
    before = data_snapshot.get_snapshot()
    data_snapshot.set_custom_snapshot(prices or before)
    try:
        yield
    finally:
        data_snapshot.set_custom_snapshot(before)
