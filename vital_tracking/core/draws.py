"""What an ended call has drawn on the grants of its process, as its row tells the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Protocol, TypeAlias

PICO: Final = 10**12
"""Picodollars in a US dollar."""

Draw: TypeAlias = tuple[int, str]
"""Window id and amount, in the budget's metric as text: how much a call has used; its process's grant pays, as far as it goes."""


class DrawnOn(Protocol):
    """A window as draws see it: its id, and the number of its budget's metric."""

    @property
    def id(self) -> int:
        """The id that the database gave it."""

    @property
    def metric(self) -> int:
        """0 for US dollars, 1 for tokens, 2 for calls."""


class Draws(Collection[Draw]):
    """The draws of one call: of each of its `windows`, by its metric, what of `used` picodollars, tokens and calls it took.

    Where nothing was used of a window, there is no draw.
    """

    __slots__ = ("used", "windows")

    def __init__(self, windows: tuple[DrawnOn, ...], used: tuple[int, int, int]) -> None:
        self.windows = windows
        self.used = used

    def __iter__(self) -> Iterator[Draw]:
        used = self.used
        return iter([(one.id, as_text(used[one.metric], one.metric)) for one in self.windows if used[one.metric]])

    def __len__(self) -> int:
        return len(list(iter(self)))  # of the draws themselves, `list` would ask for this length first

    def __contains__(self, draw: object) -> bool:
        return draw in list(iter(self))


def texts_of(draws: Collection[Draw]) -> tuple[str, str]:
    """The ids of the windows of some draws, and their amounts, each with commas between."""
    if type(draws) is Draws:
        cost, tokens, calls = draws.used
        if cost and tokens and calls:
            ids, amounts = _layout(draws.windows)
            return ids, ",".join(amounts((as_text(cost, 0), str(tokens), str(calls))))
    pairs = list(draws)
    return ",".join([str(window) for window, _ in pairs]), ",".join([amount for _, amount in pairs])


@lru_cache(maxsize=256)
def _layout(windows: tuple[DrawnOn, ...]) -> tuple[str, Callable[[Any], tuple[str, ...]]]:
    """The ids of some windows, and what picks the amounts of all of them from those by metric."""
    places = [window.metric for window in windows]
    # Of a single place, `itemgetter` would give no tuple.
    pick = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
    return ",".join([str(window.id) for window in windows]), pick


def as_text(whole: int, metric: int) -> str:
    """An amount in whole units, picodollars, tokens or calls, as the database takes it: US dollars, tokens or calls."""
    if metric:
        return str(whole)
    dollars, pico = divmod(abs(whole), PICO)
    return f"{'-' if whole < 0 else ''}{dollars}.{pico:012d}"
