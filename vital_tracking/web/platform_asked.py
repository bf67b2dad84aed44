"""What is asked of events and other costs, as their URL holds it, and all of them as a file: for pages and the API alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, Query

from vital_tracking.core.platform import CATEGORIES, COST_TYPES
from vital_tracking.queries.events import EVENT_COLUMNS, every_event
from vital_tracking.queries.explore import Filters
from vital_tracking.queries.other_costs import COST_COLUMNS, every_other_cost
from vital_tracking.queries.platform import PlatformFilters
from vital_tracking.stores import Store
from vital_tracking.web.asked import Asked, CostFilters, EventFilters
from vital_tracking.web.csv import csv_lines

_MOST: Final = 100
_Text = Annotated[str, Query(max_length=512, pattern=r"^[^\x00]*$")]


def _several(about: str, choices: Sequence[str] = ()) -> Any:
    said = f"{about}: one of several where it is given several times, none where it is empty, `*` for any."
    items = {"type": "string", "enum": [*choices]} if choices else {"type": "string", "maxLength": 512}
    return Query(max_length=_MOST, description=said, json_schema_extra={"items": items})


@dataclass(frozen=True, slots=True)
class PlatformAsked:
    """The time and filters of a request: those that calls have, too, in `asked`, and `of_page` those of these pages alone."""

    asked: Asked
    of_page: Filters
    flagged: bool = False

    @property
    def where(self) -> Filters:
        """All values by dimension."""
        return {**self.asked.filters, **self.of_page}

    @property
    def filters(self) -> PlatformFilters:
        """What was asked, as rows are filtered."""
        period = self.asked.period
        return PlatformFilters(since=period.since, until=period.until, where=self.where, flagged=self.flagged)


def _asked(asked: Asked, given: Mapping[str, Sequence[str] | None], flag: str, *, flagged: bool) -> PlatformAsked:
    of_page = {name: tuple(value or None for value in values) for name, values in given.items() if values}
    own = {name: values[0] or "" for name, values in of_page.items() if len(values) == 1}
    return PlatformAsked(replace(asked, own={**own, **({flag: "1"} if flagged else {})}), of_page, flagged)


def events_asked(
    asked: EventFilters,
    category: Annotated[list[_Text] | None, _several("Only events of this category", CATEGORIES)] = None,
    event: Annotated[list[_Text] | None, _several("Only events of this name")] = None,
    source: Annotated[list[_Text] | None, _several("Only events from there")] = None,
    failed: Annotated[bool, Query(description="Only events that say that something failed.")] = False,
) -> PlatformAsked:
    """What a request asks of events."""
    return _asked(asked, {"category": category, "event": event, "source": source}, "failed", flagged=failed)


def costs_asked(
    asked: CostFilters,
    cost_type: Annotated[list[_Text] | None, _several("Only costs of this type", COST_TYPES)] = None,
    resource: Annotated[list[_Text] | None, _several("Only costs of this resource")] = None,
    unit: Annotated[list[_Text] | None, _several("Only costs that are counted in this unit")] = None,
    unpriced: Annotated[bool, Query(description="Only costs without a known price.")] = False,
) -> PlatformAsked:
    """What a request asks of other costs."""
    given = {"cost_type": cost_type, "resource": resource, "unit": unit}
    return _asked(asked, given, "unpriced", flagged=unpriced)


EventsAsked: TypeAlias = Annotated[PlatformAsked, Depends(events_asked)]
CostsAsked: TypeAlias = Annotated[PlatformAsked, Depends(costs_asked)]


def events_as_csv(store: Store, filters: PlatformFilters) -> Iterator[str]:
    """All events that the filters let pass, as CSV in pieces."""
    return csv_lines(EVENT_COLUMNS, ([row[name] for name in EVENT_COLUMNS] for row in every_event(store, filters)))  # type: ignore[literal-required]


def costs_as_csv(store: Store, filters: PlatformFilters) -> Iterator[str]:
    """All other costs that the filters let pass, as CSV in pieces."""
    return csv_lines(COST_COLUMNS, ([row[name] for name in COST_COLUMNS] for row in every_other_cost(store, filters)))  # type: ignore[literal-required]
