"""Caches that answer less than they did: the rule by which a fall of the hit rate is told. Rates are percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from vital_tracking.queries.explore import Filters, Period, explore
from vital_tracking.stores import Store

DAYS: Final = 7
DAYS_BEFORE: Final = 28
LEAST_CALLS: Final = 100
"""As many calls as the seven days must have, and the four weeks before on an average week."""

LEAST_POINTS: Final = 5
LEAST_SHARE: Final = 0.25

CACHES: Final[Mapping[str, str]] = {
    "hit_rate": "answers from LangChain's cache",
    "prompt_cache_rate": "prompt tokens from providers' caches",
}
"""The rates that are watched, and what each is a rate of."""


@dataclass(frozen=True, slots=True)
class CacheFall:
    """A rate that has fallen: `now` of the last seven days, `usual` of the four weeks before, both in percent."""

    organization: str | None
    measure: str
    now: float
    usual: float
    calls: int

    @property
    def text(self) -> str:
        """What has fallen, in words."""
        whose = "calls of no organization" if self.organization is None else f"organization {self.organization}"
        return f"{whose}: {CACHES[self.measure]} fell to {self.now:.1f} % from {self.usual:.1f} %"


def cache_falls(
    store: Store, last_day: date, *, timezone: str = "UTC", filters: Filters | None = None
) -> list[CacheFall]:
    """What has fallen in the seven days up to `last_day`, by organization, the deepest fall first.

    A rate has fallen where it is 5 points, and a quarter of what it was, below that of the 28 days before, if the seven days have
    100 calls or more and the 28 days 400 or more. Raises StoreError.
    """
    first = last_day - timedelta(days=DAYS - 1)
    now = _rates(store, Period.of_days(first, last_day, timezone=timezone), filters)
    before_first, before_last = first - timedelta(days=DAYS_BEFORE), first - timedelta(days=1)
    before = _rates(store, Period.of_days(before_first, before_last, timezone=timezone), filters)
    found = [
        CacheFall(organization, measure, row[measure], before[organization][measure], row["calls"])
        for organization, row in now.items()
        for measure in CACHES
        if organization in before and _has_fallen(measure, row, before[organization])
    ]
    return sorted(found, key=lambda fall: fall.now - fall.usual)


def _rates(store: Store, period: Period, filters: Filters | None) -> dict[str | None, Mapping[str, Any]]:
    measures: Sequence[str] = ("calls", *CACHES)
    found = explore(
        store, period, by=("organization",), filters=filters, measures=measures, order_by="calls", rows=10_000
    )
    return {row["organization"]: row for row in found.rows}


def _has_fallen(measure: str, row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    now, usual = row[measure], before[measure]
    if now is None or usual is None:
        return False
    enough = row["calls"] >= LEAST_CALLS and before["calls"] >= LEAST_CALLS * DAYS_BEFORE / DAYS
    return bool(enough and usual - now >= max(LEAST_POINTS, usual * LEAST_SHARE))
