"""What is asked of a report or page, as its URL holds it: the time, the zone, the grain, and by what calls are filtered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import starmap
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote_plus
from zoneinfo import ZoneInfo

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field
from starlette.datastructures import QueryParams

from vital_tracking.core.days import known_day
from vital_tracking.queries.chosen import CHOICES, chosen_of
from vital_tracking.queries.explore import ANY, DIMENSIONS, TIMES, Filters, Period
from vital_tracking.queries.runs import RUN_FILTERS
from vital_tracking.queries.zones import exact_zone

FILTERED: Final = tuple(name for name in DIMENSIONS if name not in TIMES)
"""The parameters by which calls are filtered; each may be given several times, and an empty value means calls that have none."""

METADATA: Final = "metadata."
"""How the parameters begin that filter by a key of the metadata."""

RUNS_BY: Final = tuple(name for name in RUN_FILTERS if name in FILTERED)
"""The parameters by which runs are filtered."""

EVENTS_BY: Final = ("organization", "user", "session")
"""Those by which events are filtered, beside their own."""

COSTS_BY: Final = ("organization", "user", "service")
"""Those by which other costs are filtered, beside their own."""

DAYS: Final = 7
MOST_DAYS: Final = 90
_LONGEST: Final = 3660
_MOST_VALUES: Final = 100
_LONGEST_VALUE: Final = 512
_TIME: Final = ("days", "since", "until", "timezone", "grain")
_OWN: Final = ("measure", "by", "then", "variants", "q", "unpriced", "nested", "hour_of_day", "weekday")
PARAMETERS: Final = frozenset((*_TIME, *_OWN, *FILTERED, *CHOICES))
"""All parameters of pages, beside `metadata.KEY`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The time, the grain and the filters of a request; `given` are the parameters of the time as they were given.

    `own` are the parameters that belong to the page alone: they stay in links to itself, and go in links to others. So do
    `chosen`, by which lists of calls are narrowed further (queries.chosen).
    """

    period: Period
    grain: str
    filters: Filters
    given: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    chosen: Sequence[tuple[str, str]] = ()

    def filtered(self, **more: str | None) -> Asked:
        """The same with further filters."""
        return replace(self, filters={**self.filters, **{name: (value,) for name, value in more.items()}})

    def within(self, first: date, last: date) -> Asked:
        """The same of some days alone, as far as they are in its time."""
        first, last = max(first, self.period.first_day), min(last, self.period.last_day)
        kept = {name: value for name, value in self.given.items() if name in ("timezone", "grain")}
        period = Period.of_days(first, last, timezone=self.period.timezone)
        return replace(self, period=period, given={**kept, "since": str(first), "until": str(last)})

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of the time and the filters, as forms hand them on; a filter for calls that have none is empty."""
        filters = [(name, value or "") for name, values in self.filters.items() for value in values]
        return [*self.given.items(), *filters]

    def query(self, without: Sequence[str] = (), /, **changes: str | None) -> str:
        """The query string that asks another page for this, with changes of a parameter; None takes it away."""
        return _encoded(self.pairs, without, changes)

    def here(self, without: Sequence[str] = (), /, **changes: str | None) -> str:
        """The same for the page itself, whose own parameters stay."""
        return _encoded([*self.pairs, *self.own.items(), *self.chosen], without, changes)

    @property
    def only(self) -> dict[str, str]:
        """The filters that name one value, by which a page is about one thing."""
        return {
            name: values[0]
            for name, values in self.filters.items()
            if len(values) == 1 and values[0] not in (None, ANY)
        }


def _encoded(pairs: Sequence[tuple[str, str]], without: Sequence[str], changes: Mapping[str, str | None]) -> str:
    kept = [(name, value) for name, value in pairs if name not in changes and name not in without]
    return "&".join(starmap(_pair, [*kept, *((name, value) for name, value in changes.items() if value is not None)]))


@lru_cache(maxsize=4096)
def _pair(name: str, value: str) -> str:
    """A parameter as it stands in a query. A page has hundreds of links that say the same of time and filters."""
    return f"{quote_plus(name)}={quote_plus(value)}"


def _wrong(parameter: str, message: str, given: object) -> RequestValidationError:
    return RequestValidationError(
        [{"type": "value_error", "loc": ("query", parameter), "msg": message, "input": given}]
    )


def asked(
    request: Request,
    days: Annotated[int | None, Query(ge=1, le=MOST_DAYS, description="The last so many days, today included.")] = None,
    since: Annotated[date | None, Query(description="The first day, instead of `days`.")] = None,
    until: Annotated[date | None, Query(description="The last day; today where none is given.")] = None,
    timezone: Annotated[
        str,
        Query(
            max_length=64,
            description="The IANA time zone of days and hours.",
            json_schema_extra={"format": "iana-time-zone"},
        ),
    ] = "UTC",
    grain: Annotated[Literal["hour", "day", "week", "month"], Query(description="The steps of series.")] = "day",
) -> Asked:
    """What the request asks for; RequestValidationError names the parameter that cannot be used."""
    checked_zone(timezone)
    today = datetime.now(UTC).astimezone(ZoneInfo(timezone)).date()
    if since is None and until is None:
        period = Period.last_days(days or DAYS, timezone=timezone)
    else:
        if days is not None:
            raise _wrong("days", "says the same as since and until: leave one of them out", days)
        last = until or today
        first = since or last
        _check_days(since=since, until=until)
        if first > last:
            raise _wrong("since", "is after until", str(since))
        if (last - first).days >= _LONGEST:
            raise _wrong("since", "is too long ago: at most ten years are shown at once", str(since))
        period = Period.of_days(first, last, timezone=timezone)
    given, own = (
        {name: request.query_params[name] for name in names if name in request.query_params} for names in (_TIME, _OWN)
    )
    return Asked(period, grain, _filters(request.query_params), given, own, _chosen(request.query_params))


def _check_days(**days: date | None) -> None:
    """No day near an end of the calendar: beside a period stands the time before it, and zones are ahead or behind."""
    for name, day in days.items():
        try:
            if day is not None:
                known_day(day)
        except ValueError as wrong:
            raise _wrong(name, f"is no day of calls: {wrong}", str(day)) from None


def _chosen(query: QueryParams) -> list[tuple[str, str]]:
    found = [(name, text) for name, text in query.multi_items() if name in CHOICES and text]
    try:
        chosen_of(found)
    except ValueError as error:
        name, _, message = str(error).partition(": ")
        raise _wrong(name, message, "") from None
    return found


def asked_before(pairs: Sequence[tuple[str, str]], moment: datetime) -> Asked:
    """What a saved report asks at a moment: its days are whole ones, and the last of them is the one before the moment.

    RequestValidationError or ValueError where a parameter of it cannot be used.
    """
    query = QueryParams([*pairs])
    timezone = query.get("timezone", "UTC")
    checked_zone(timezone)
    yesterday = moment.astimezone(ZoneInfo(timezone)).date() - timedelta(days=1)
    last = date.fromisoformat(query["until"]) if "until" in query else yesterday
    days = min(max(int(query.get("days", DAYS)), 1), MOST_DAYS)
    first = date.fromisoformat(query["since"]) if "since" in query else last - timedelta(days=days - 1)
    _check_days(since=first, until=last)
    first = max(min(first, last), last - timedelta(days=_LONGEST - 1))
    given = {"since": str(first), "until": str(last), "timezone": timezone}
    own = {name: query[name] for name in _OWN if name in query}
    return Asked(Period.of_days(first, last, timezone=timezone), "day", _filters(query), given, own)


def checked_zone(timezone: str) -> str:
    """The name of a time zone; RequestValidationError where it is none."""
    try:
        return exact_zone(timezone)
    except ValueError as wrong:
        raise _wrong("timezone", str(wrong), timezone) from None


Instant: TypeAlias = Annotated[datetime, AfterValidator(known_day)]
"""An instant in a body."""

ZoneName: TypeAlias = Annotated[
    str, Field(max_length=64, json_schema_extra={"format": "iana-time-zone"}), AfterValidator(exact_zone)
]
"""A time zone in a body or a form."""


def _filters(query: QueryParams) -> dict[str, tuple[str | None, ...]]:
    found: dict[str, tuple[str | None, ...]] = {}
    for name in query:
        if name in FILTERED or name.startswith(METADATA):
            values = query.getlist(name)
            if len(name) > 80 or len(values) > _MOST_VALUES or any(len(value) > _LONGEST_VALUE for value in values):
                raise _wrong(name[:80], "has too many values, or too long ones", len(values))
            if any("\x00" in value for value in (name, *values)):
                raise _wrong(name, "holds a character that no name has", "")
            found[name] = tuple(value or None for value in values)
    return found


AskedParameters = Annotated[Asked, Depends(asked)]


def only_organization(asked: Asked) -> str | None:
    """The organization that is asked about, None for all; RequestValidationError where something else is filtered by."""
    for name in asked.filters:
        if name != "organization":
            raise _wrong(name, "cannot be asked for here: only organization can", "")
    values = asked.filters.get("organization", (ANY,))
    if len(values) != 1 or values[0] is None:
        raise _wrong("organization", "needs one organization, or to be left out", "")
    return None if values[0] == ANY else values[0]


def _asked_of(what: Asked, things: str, names: Sequence[str]) -> Asked:
    for name in what.filters:
        if name not in names:
            raise _wrong(name, f"is nothing that {things} are filtered by; they are by {', '.join(names)}", "")
    return what


def asked_of_runs(what: AskedParameters) -> Asked:
    """What the request asks of runs, which have fewer filters; RequestValidationError names one that they do not have."""
    return _asked_of(what, "runs", RUNS_BY)


def asked_of_events(what: AskedParameters) -> Asked:
    """What the request asks of events by what calls are filtered by, too; RequestValidationError names what they are not."""
    return _asked_of(what, "events", EVENTS_BY)


def asked_of_costs(what: AskedParameters) -> Asked:
    """What the request asks of other costs by what calls are filtered by, too; RequestValidationError names what they are not."""
    return _asked_of(what, "other costs", COSTS_BY)


def asked_of_organization(what: AskedParameters) -> Asked:
    """What the request asks of one organization or of all; RequestValidationError where something else is filtered by."""
    only_organization(what)
    return what


OrganizationAsked = Annotated[Asked, Depends(asked_of_organization)]
RunsAsked = Annotated[Asked, Depends(asked_of_runs)]
EventFilters = Annotated[Asked, Depends(asked_of_events)]
CostFilters = Annotated[Asked, Depends(asked_of_costs)]


# What OpenAPI says of filters, which FastAPI cannot see: there is one for every dimension and for every key of the metadata.

TAKES: Final[Mapping[Callable[..., Asked], Sequence[str]]] = {
    asked_of_runs: RUNS_BY,
    asked_of_events: EVENTS_BY,
    asked_of_costs: COSTS_BY,
    asked_of_organization: ("organization",),
    asked: (*FILTERED, f"{METADATA}KEY"),
}
"""The filters that a route takes by what it depends on."""


def described_filters(names: Sequence[str]) -> list[dict[str, Any]]:
    """Filters as parameters of OpenAPI. Where there is one alone it takes one value."""
    return [_described_filter(name, alone=len(names) == 1) for name in names]


def _described_filter(name: str, *, alone: bool) -> dict[str, Any]:
    said = f"Only what is of this {DIMENSIONS.get(name, 'value of the key KEY of the metadata')}"
    several = "one of several where it is given several times, none where it is empty, `*` for any"
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"{said}." if alone else f"{said}: {several}.",
        "schema": {
            "type": "array",
            "maxItems": 1 if alone else _MOST_VALUES,
            "items": {
                "type": "string",
                "minLength": int(alone),
                "maxLength": _LONGEST_VALUE,
                "pattern": r"^[^\x00]*$",
            },
        },
    }


def described_choices() -> list[dict[str, Any]]:
    """What lists of calls are narrowed by, as parameters of OpenAPI."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"Only calls {choice.leaves}.",
            "example": [choice.example] if name == "without" else choice.example,
            "schema": {"type": "array", "items": {"type": "string", **choice.form}}
            if name == "without"
            else {"type": "string", **choice.form},
        }
        for name, choice in CHOICES.items()
    ]
