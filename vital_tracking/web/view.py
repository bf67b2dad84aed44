"""What a page works with: the store as its reader may see it, what was asked, and links that keep what was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from vital_tracking.queries.explore import Explored, Filters, Period, explore
from vital_tracking.stores import Store
from vital_tracking.web.asked import Asked
from vital_tracking.web.page import Row

MEASURES = (
    "calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "total_tokens", "total_cost", "success_rate",
    "average_latency_ms",
)  # fmt: skip
"""What most tables show of a group of calls."""


LISTED_BY: Final = (
    "organization", "user", "session", "service", "agent", "tier", "workflow", "step", "panel", "solution", "run", "framework",
    "provider", "model", "message_type", "status", "error",
)  # fmt: skip
"""The dimensions by which the list of calls can be filtered, beside keys of the metadata."""


def _lists(dimension: str, value: object) -> bool:
    return value is not None and (dimension in LISTED_BY or dimension.startswith("metadata."))


@dataclass(frozen=True, slots=True)
class View:
    """A reader's view: `root` is the path under which the application is mounted."""

    store: Store
    asked: Asked
    root: str = ""

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
        """What was asked, by some dimensions; `filters` add to those asked for."""
        return explore(
            self.store,
            period or self.asked.period,
            by=by,
            filters={**self.asked.filters, **(filters or {})},
            measures=measures,
            order_by=order_by,
            top=top,
            rows=rows,
        )

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
        """Where a row leads: to a page about what its dimensions say.

        Nowhere from a row of all others, and to the list of calls only where that can be filtered so.
        """

        def of(row: Row) -> str | None:
            if row.get("others") or (page == "calls" and not all(_lists(name, row.get(name)) for name in dimensions)):
                return None
            return self.to(page, **{name: None if row.get(name) is None else str(row[name]) for name in dimensions})

        return of

    def run(self, run_id: Any) -> str:
        """The page of a service run."""
        return self.path(f"runs/{quote(str(run_id), safe='')}")
