"""What is asked of a report or page, as its URL holds it: the time, the zone, the grain, and by what calls are filtered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError

from vital_tracking.queries.explore import ANY, DIMENSIONS, TIMES, Filters, Period

FILTERED: Final = tuple(name for name in DIMENSIONS if name not in TIMES)
"""The parameters by which calls are filtered; each may be given several times, and an empty value means calls that have none."""

DAYS: Final = 7
MOST_DAYS: Final = 90
_LONGEST: Final = 3660


@dataclass(frozen=True, slots=True)
class Asked:
    """The time, the grain and the filters of a request; `given` are the parameters of the time as they were given."""

    period: Period
    grain: str
    filters: Filters
    given: Mapping[str, str] = field(default_factory=dict)

    def filtered(self, **more: str | None) -> Asked:
        """The same with further filters."""
        return replace(self, filters={**self.filters, **{name: (value,) for name, value in more.items()}})

    def query(self, without: Sequence[str] = (), /, **changes: str | None) -> str:
        """The query string that asks for this, with changes: a filter or a parameter of the time; None takes it away."""
        pairs = [(name, value) for name, value in self.given.items() if name not in changes and name not in without]
        pairs += [
            (name, "" if value is None else value)
            for name, values in self.filters.items()
            if name not in changes and name not in without
            for value in values
        ]
        pairs += [(name, value) for name, value in changes.items() if value is not None]
        return urlencode(pairs)

    @property
    def only(self) -> dict[str, str]:
        """The filters that name one value, by which a page is about one thing."""
        return {
            name: values[0]
            for name, values in self.filters.items()
            if len(values) == 1 and values[0] not in (None, ANY)
        }


def _wrong(parameter: str, message: str, given: object) -> RequestValidationError:
    return RequestValidationError(
        [{"type": "value_error", "loc": ("query", parameter), "msg": message, "input": given}]
    )


def asked(
    request: Request,
    days: Annotated[int | None, Query(ge=1, le=MOST_DAYS, description="The last so many days, today included.")] = None,
    since: Annotated[date | None, Query(description="The first day, instead of `days`.")] = None,
    until: Annotated[date | None, Query(description="The last day; today where none is given.")] = None,
    timezone: Annotated[str, Query(max_length=64, description="The IANA time zone of days and hours.")] = "UTC",
    grain: Annotated[Literal["hour", "day", "week", "month"], Query(description="The steps of series.")] = "day",
) -> Asked:
    """What the request asks for; RequestValidationError names the parameter that cannot be used."""
    if timezone not in available_timezones():
        raise _wrong("timezone", "is no time zone; use an IANA name such as Europe/Berlin", timezone)
    today = datetime.now(UTC).astimezone(ZoneInfo(timezone)).date()
    if since is None and until is None:
        period = Period.last_days(days or DAYS, timezone=timezone)
    else:
        if days is not None:
            raise _wrong("days", "says the same as since and until: leave one of them out", days)
        last = until or today
        first = since or last
        if first > last:
            raise _wrong("since", "is after until", str(since))
        if (last - first).days >= _LONGEST:
            raise _wrong("since", "is too long ago: at most ten years are shown at once", str(since))
        period = Period.of_days(first, last, timezone=timezone)
    given = {
        name: request.query_params[name]
        for name in ("days", "since", "until", "timezone", "grain")
        if name in request.query_params
    }
    return Asked(period, grain, _filters(request), given)


def _filters(request: Request) -> dict[str, tuple[str | None, ...]]:
    found: dict[str, tuple[str | None, ...]] = {}
    for name in request.query_params:
        if name in FILTERED or name.startswith("metadata."):
            values = request.query_params.getlist(name)
            if len(name) > 80 or len(values) > 100 or any(len(value) > 512 for value in values):
                raise _wrong(name[:80], "has too many values, or too long ones", len(values))
            if any("\x00" in value for value in (name, *values)):
                raise _wrong(name, "holds a character that no name has", "")
            found[name] = tuple(value or None for value in values)
    return found


AskedParameters = Annotated[Asked, Depends(asked)]
