"""What a page works with: the store as its reader may see it, what was asked, and links that keep what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from vital_tracking.queries.explore import TIMES, Explored, Filters, Period, explore
from vital_tracking.queries.names import with_names
from vital_tracking.stores import Store
from vital_tracking.web.asked import Asked
from vital_tracking.web.page import Part, Row

MEASURES = (
    "calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "total_tokens", "total_cost", "success_rate",
    "average_latency_ms",
)  # fmt: skip
"""What most tables show of a group of calls."""


_NO_DAYS: Final = ("hour", "weekday", "hour_of_day")
"""The times that pages are not about, but for the list of calls."""

DAYS_OF: Final[Mapping[str, Callable[[date], date]]] = {
    "day": lambda day: day,
    "week": lambda day: day + timedelta(days=6),
    "month": lambda day: (day + timedelta(days=31)).replace(day=1) - timedelta(days=1),
}
"""The last day of what a row of such a time is about."""


@dataclass(frozen=True, slots=True)
class View:
    """A reader's view: `root` is the path under which the application is mounted, `part` the only part that is wanted."""

    store: Store
    asked: Asked
    root: str = ""
    part: str | None = None

    def parts(self, builders: Mapping[str, Callable[[], Part]]) -> list[Part]:
        """The parts of a page by their ids, or the wanted one alone: then nothing is asked for the others."""
        wanted = {self.part} & builders.keys() or builders.keys()
        return [build() for name, build in builders.items() if name in wanted]

    def explore(
        self,
        *by: str,
        period: Period | None = None,
        measures: Sequence[str] | None = MEASURES,
        filters: Filters | None = None,
        order_by: str = "total_cost",
        top: int | None = None,
        rows: int = 1000,
    ) -> Explored:
        """What was asked, by some dimensions, with the names of users and organizations; `filters` add to those asked for."""
        found = explore(
            self.store,
            period or self.asked.period,
            by=by,
            filters={**self.asked.filters, **(filters or {})},
            measures=measures,
            order_by=order_by,
            top=top,
            rows=rows,
        )
        return with_names(self.store, found)

    def path(self, page: str) -> str:
        """The path of a page or of anything else of the application."""
        return f"{self.root}/{page.removeprefix('/')}"

    def to(self, page: str, **filters: str | None) -> str:
        """A page about the same time, with further filters."""
        return f"{self.path(page)}?{self.asked.filtered(**filters).query()}" if filters else self.keeping(page)

    def keeping(self, page: str) -> str:
        """A page about the same time and filters."""
        query = self.asked.query()
        return f"{self.path(page)}?{query}" if query else self.path(page)

    def link(self, page: str, *dimensions: str) -> Callable[[Row], str | None]:
        """Where a row leads: to a page about what its dimensions say, of the days that it is about.

        Nowhere from a row of all others, nor from one of an hour or weekday to a page that is about days.
        """

        def of(row: Row) -> str | None:
            if row.get("others") or (page != "calls" and any(name in _NO_DAYS for name in dimensions)):
                return None
            if page != "calls" and not all(name in row for name in dimensions):
                return None  # a total is about no single thing, but there are calls behind it
            filters = {name: row[name] for name in dimensions if name in row and name not in TIMES}
            asked = self.asked.filtered(**{name: None if one is None else str(one) for name, one in filters.items()})
            for name in dimensions:
                if name in DAYS_OF and name in row:
                    asked = asked.within(row[name], DAYS_OF[name](row[name]))
            own = {name: str(row[name]) for name in ("weekday", "hour_of_day") if name in dimensions and name in row}
            if "hour" in dimensions and "hour" in row:
                local = row["hour"].astimezone(ZoneInfo(asked.period.timezone))
                asked, own["hour_of_day"] = asked.within(local.date(), local.date()), str(local.hour)
            return f"{self.path(page)}?{asked.query(**own)}"

        return of

    def run(self, run_id: Any) -> str:
        """The page of a service run."""
        return self.path(f"runs/{quote(str(run_id), safe='')}")
