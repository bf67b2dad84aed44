"""Lists of calls and runs, for pages and the API alike: what was asked as their filters, and where a page of the list goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vital_tracking.queries.calls import CALL_COLUMNS, every_call, place
from vital_tracking.queries.chosen import chosen_of
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.runs import RunUnknown
from vital_tracking.stores import Store
from vital_tracking.web.asked import Asked
from vital_tracking.web.csv import csv_lines
from vital_tracking.web.problems import Problem

LONGEST_SEARCH: Final = 200


def calls_filters(
    asked: Asked,
    *,
    search: str = "",
    unpriced: bool = False,
    blocked: bool = False,
    hour_of_day: int | None = None,
    weekday: int | None = None,
) -> Filters:
    """What was asked, as calls are filtered: by any dimension, as figures of them are, and by times of the asked zone."""
    times = {"hour_of_day": hour_of_day, "weekday": weekday}
    local: dict[str, str | int] = {name: value for name, value in times.items() if value is not None}
    chosen = chosen_of(asked.chosen)
    since, until = chosen.pop("begun_from", asked.period.since), chosen.pop("begun_before", asked.period.until)
    return Filters(
        local={**local, "timezone": asked.period.timezone} if local else {},
        chosen=chosen,
        since=max(since, asked.period.since),
        until=min(until, asked.period.until),
        unpriced=unpriced,
        blocked=blocked,
        search=search.strip() or None,
        where=asked.filters,
    )


def runs_filters(asked: Asked) -> Filters:
    """What was asked, as runs are filtered."""
    return Filters(since=asked.period.since, until=asked.period.until, where=asked.filters)


def checked_place(after: str | None) -> str | None:
    """A place to go on from; a Problem where it is none."""
    if after is not None:
        try:
            place(after)
        except ValueError:
            raise Problem(
                422,
                "invalid-request",
                "There is no such place to go on from",
                hint="Take `after` from the page before, or leave it out.",
            ) from None
    return after


def no_such_run(unknown: RunUnknown) -> Problem:
    """That an id is no run's, or the beginning of several."""
    several = f"Several begin so: {', '.join(unknown.candidates)}." if unknown.candidates else None
    return Problem(
        404,
        "no-such-run",
        "There is no such run, or none that you may see",
        detail=several,
        hint="Write more of the id." if several else "Find it among the runs.",
    )


def calls_as_csv(store: Store, filters: Filters) -> Iterator[str]:
    """All calls that the filters let pass, as CSV in pieces."""
    return csv_lines(CALL_COLUMNS, ([row[name] for name in CALL_COLUMNS] for row in every_call(store, filters)))  # type: ignore[literal-required]
