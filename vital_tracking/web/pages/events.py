"""What happens on the platform: events by name and category, who, when, and the newest of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, partial
from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.core.platform import CATEGORIES
from vital_tracking.queries.events import Event, events, explore_events
from vital_tracking.queries.explore import Explored, Period
from vital_tracking.queries.platform import newest_at, place_of_row
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.api.pages import After
from vital_tracking.web.csv import csv_response
from vital_tracking.web.listed import checked_place
from vital_tracking.web.page import Card, Chart, Column, Page, Part, Row
from vital_tracking.web.pages.calls import sent_form
from vital_tracking.web.pages.common import name_of, user_columns
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.pages.platform import ROWS, Labels, by_time_and, form, grown_card, here, pager, rows_link
from vital_tracking.web.platform_asked import EventsAsked, PlatformAsked, events_as_csv
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_NAME: Final = "events"
_TOP: Final = 50
_UNSAID: Final = ("notes", "demo_history")
"""Properties that are marks of ours: they stand in the CSV."""

_COLOURS: Final = {"user_behavior": "quiet", "system_health": "info", "business": "ok"}
_FIELDS: Final[Labels] = {
    "category": ("Category", CATEGORIES),
    "event": ("Name", ()),
    "source": ("From", ()),
    "user": ("User id", ()),
    "session": ("Session", ()),
    "organization": ("Organization", ()),
}
_EMPTY: Final = (
    "No event in this time. They come from tracker.track_event, from requests of an API by its middleware, "
    "and from browsers by POST /api/v1/events."
)


@routes.get("/events", name="vital-events", dependencies=[Depends(reads("events"))])
def show(request: Request, who: Asker, store: Reader, asked: EventsAsked, after: After = None) -> Response:
    """The events that were asked for, or all of them as CSV."""
    if (sent := sent_form(request, _NAME)) is not None:
        return sent
    if request.query_params.get("format") == "csv" and request.query_params.get("part") == "all":
        return csv_response(events_as_csv(store, asked.filters), "events.csv")
    return answer(request, who, store, asked.asked, lambda view: page(view, asked, after))


def page(view: View, asked: PlatformAsked, after: str | None) -> Page:
    """Figures of the events of a time, and the newest of them; the list alone further back, and of those that failed."""
    found = events(view.store, asked.filters, limit=ROWS, after=checked_place(after))
    of_list = {"list": lambda: _list(view, found)}
    alone = after is not None or asked.flagged
    explored = cache(partial(_explored, view, asked))
    figures = {} if alone else {
        "time": lambda: _time(view, asked),
        "names": lambda: _names(view, asked),
        "users": lambda: _who(view, explored("user")),
        "organizations": lambda: _who(view, explored("organization"), "organization"),
    }  # fmt: skip
    parts = [
        part
        for part in view.parts({**figures, **of_list})
        if part.id != "organizations" or len(part.rows) > 1 or view.part
    ]
    older = place_of_row(found[-1]) if len(found) == ROWS else None
    return Page(
        _NAME,
        "What happens on the platform?",
        _lead(view, asked, explored()),
        cards=[] if alone or view.part else _cards(view, asked, explored(), explored("user")),
        parts=parts,
        template="platform.html",
        extra={**form(view, asked, _NAME, _FIELDS, ("failed", "only failed")), **pager(view, _NAME, after, older)},
        newest=("event", newest_at(view.store, "events")),
    )


def _explored(view: View, asked: PlatformAsked, *by: str, period: Period | None = None) -> Explored:
    return explore_events(view.store, period or view.asked.period, by=by, filters=asked.where)


def _lead(view: View, asked: PlatformAsked, whole: Explored) -> str:
    first = view.asked.period.first_day
    said = f"{counted(whole.total['events'], 'event')} from {first.day} {first:%b} on, as of now."
    return f"{said} The list is of those that say that something failed." if asked.flagged else said


def _cards(view: View, asked: PlatformAsked, now: Explored, users: Explored) -> list[Card]:
    before = _explored(view, asked, period=view.asked.period.before())
    of_users = _explored(view, asked, "user", period=view.asked.period.before())
    failed = _share(now.total["failed_events"], now.total["events"])
    return [
        grown_card("Events", now.total["events"], before.total["events"], numbers.count, link="#list"),
        grown_card("Users", _people(users), _people(of_users), numbers.count, link="#users"),
        Card(
            "Failed",
            numbers.percent(failed),
            note=f"{numbers.count(now.total['failed_events'] or 0)} say that something failed",
            link=here(view, _NAME, failed=1),
        ),
        Card("An hour", numbers.count(_an_hour(view, now.total["events"])), note="on average of the time so far"),
    ]


def _people(found: Explored) -> int:
    return found.groups - sum(row["user"] is None for row in found.rows)


def _share(part: int | None, whole: int) -> Decimal | None:
    return Decimal(100) * part / whole if whole and part is not None else None


def _an_hour(view: View, number: int) -> Decimal:
    period = view.asked.period
    hours = (min(period.until, max(datetime.now(UTC), period.since)) - period.since).total_seconds() / 3600
    return (Decimal(number) / Decimal(max(hours, 1))).quantize(Decimal("0.01"))


def _time(view: View, asked: PlatformAsked) -> Part:
    grain = view.asked.grain
    found = explore_events(view.store, view.asked.period, by=(grain, "category"), filters=asked.where, rows=10_000)
    columns, rows = by_time_and(found, grain, "category", "events", most=len(CATEGORIES))
    return Part(
        "time",
        f"Events by {grain}",
        [
            Column(grain, grain.capitalize(), "day", link=rows_link(view, _NAME, grain)),
            *(Column(name, name.replace("_", " ").capitalize(), "calls") for name in columns),
        ],
        rows,
        Chart("bars", grain, tuple(columns), stacked=True),
        empty=_EMPTY,
        wide=True,
    )


def _names(view: View, asked: PlatformAsked) -> Part:
    found = explore_events(view.store, view.asked.period, by=("event", "category"), filters=asked.where, rows=_TOP)
    rows: list[Row] = [
        {
            **row,
            "kind": (_COLOURS[row["category"]], row["category"].replace("_", " ")),
            "an_hour": _an_hour(view, row["events"]),
            "failed_rate": _share(row["failed_events"], row["events"]),
            "value": row["value"] or None,
        }
        for row in found.rows
    ]
    hidden = found.groups - len(rows)
    return Part(
        "names",
        "By name and category",
        [
            Column("event", "Name", link=rows_link(view, _NAME, "event", "category")),
            Column("kind", "Category", "flag"),
            Column("events", "Events", "calls", link=rows_link(view, _NAME, "event", "category")),
            Column("an_hour", "An hour", "calls", about="On average of the time so far"),
            Column("failed_rate", "Failed", "percent", about="Events that say that something failed"),
            Column("value", "Values", "calls", about="The sum of their values", rare=True),
        ],
        rows,
        empty=_EMPTY,
        more=f"{hidden:,} more are not shown; the CSV of all events has them." if hidden > 0 else "",
        wide=True,
    )


def _who(view: View, found: Explored, what: str = "user") -> Part:
    named = name_of(found, what)
    top = found.rows[:_TOP]
    rows: list[Row] = [
        {**row, "name": named(row), "share": _share(row["events"], found.total["events"])} for row in top
    ]
    hidden = found.groups - len(rows)
    known = bool(found.names.get(what))
    return Part(
        f"{what}s",
        {"user": "Who", "organization": "By organization"}[what],
        [
            Column("name", what.capitalize(), link=rows_link(view, _NAME, what)),
            *([Column(what, f"{what.capitalize()} id")] if known else []),
            Column("events", "Events", "calls", link=rows_link(view, _NAME, what)),
            Column("share", "Share", "percent"),
        ],
        rows,
        empty=_EMPTY,
        more=f"{hidden:,} more are not shown." if hidden > 0 else "",
    )


def _list(view: View, found: Sequence[Event]) -> Part:
    users, rows = user_columns(view, [_shown(one) for one in found])
    return Part(
        "list",
        "The newest events",
        [
            Column("occurred_at", "When (UTC)", "moment"),
            Column("event_name", "Name"),
            Column("kind", "Category", "flag"),
            *users,
            Column("organization_id", "Organization"),
            Column("source", "From"),
            Column("said", "Properties", "prose"),
            Column("value", "Value", "calls", rare=True),
            Column("session_id", "Session", "id"),
            Column("ip_hash", "Address", "id", about="A keyed hash: no address is kept", rare=True),
            Column("outcome", "Outcome", "flag", rare=True),
        ],
        rows,
        empty=_EMPTY,
        wide=True,
        sortable=False,
    )


def _shown(event: Event) -> dict[str, Any]:
    said = (f"{name}: {numbers.machine(value)}" for name, value in event["properties"].items() if name not in _UNSAID)
    return {
        **event,
        "kind": (_COLOURS.get(event["category"], "quiet"), event["category"].replace("_", " ")),
        "said": ", ".join(said) or None,
        "outcome": ("bad", "failed") if event["failed"] else None,
    }
