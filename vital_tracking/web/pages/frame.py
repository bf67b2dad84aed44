"""What is around every page: navigation, the range, filters as chips, who is signed in; and a part of a page as CSV."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from importlib.metadata import version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.calls import last_call_at
from vital_tracking.queries.explore import DIMENSIONS, usage_version
from vital_tracking.queries.reports import WEEKDAYS
from vital_tracking.stores.protocol import Store
from vital_tracking.web import numbers
from vital_tracking.web.access import made
from vital_tracking.web.asked import DAYS, Asked
from vital_tracking.web.cookies import read_cookie
from vital_tracking.web.csv import csv_response
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Page
from vital_tracking.web.pages.unseen import newest_seen, unseen
from vital_tracking.web.parts import parts
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.responses import matches
from vital_tracking.web.view import View

THEME: Final = "vital_theme"
THEMES: Final = ("light", "dark")
RANGES: Final = (7, 30, 90)
"""The times that are one click away, in days."""

_ANEW_S: Final = 600
_VERSION: Final = version("vital-tracking")

NAVIGATION: Final = (
    (
        "At a glance",
        (
            ("overview", "Overview", ""),
            ("advice", "Advice", "advice"),
            ("forecast", "Forecast", "forecast"),
            ("anomalies", "Anomalies", "anomalies"),
            ("abuse", "Abuse", "abuse"),
            ("health", "Health", "health"),
        ),
    ),
    (
        "Spend by",
        (
            ("organizations", "Organizations", "organizations"),
            ("users", "Users", "users"),
            ("services", "Services", "services"),
            ("agents", "Agents", "agents"),
            ("models", "Models", "models"),
            ("frameworks", "Frameworks", "frameworks"),
            ("tools", "Tools", "tools"),
            ("costs", "Other costs", "costs"),
        ),
    ),
    (
        "Work",
        (
            ("runs", "Runs", "runs"),
            ("workflows", "Workflows", "workflows"),
            ("panels", "Panels", "panels"),
            ("calls", "Calls", "calls"),
            ("events", "Events", "events"),
            ("explore", "Explore", "explore"),
        ),
    ),
    (
        "Control",
        (
            ("budgets", "Budgets", "budgets"),
            ("quotas", "Quotas", "quotas"),
            ("alerts", "Alerts", "alerts"),
            ("prices", "Prices", "prices"),
        ),
    ),
    (
        "House",
        (("organization", "Members", "organization"), ("audit", "Audit", "audit"), ("status", "Status", "status")),
    ),
)
"""The pages: under which heading, by which name, at which path. First what people come for, last what keeps the house."""


def answer(
    request: Request,
    who: Identity,
    store: Store,
    asked: Asked,
    build: Callable[[View], Page],
    *,
    of_usage: bool = False,
    version: str = "",
) -> Response:
    """A page as HTML, or one of its parts as CSV where the URL asks for that.

    One that is `of_usage` shows usage, members and budgets alone, and what has this `version`: where the browser has it and none
    of these has changed, it is told so, and the page is not made.
    """
    root = home(request).rstrip("/")
    if request.query_params.get("format") == "csv":
        made(request)
        part = request.query_params.get("part")
        return _csv(build(View(store, asked, root, part or "")), part)
    headers = {}
    if of_usage:  # before the page: what changes meanwhile is then seen the next time
        headers["ETag"] = tag = _tag(request, who, asked, usage_version(store, asked.period.before().since), version)
        if matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
    made(request)
    page = build(View(store, asked, root))
    theme = read_cookie(request, THEME)
    response = parts(request).rendering.page(
        request,
        page.template,
        page=page,
        tab=_tab(page),
        asked=asked,
        root=root,
        numbers=numbers,
        theme=theme if theme in THEMES else "",
        navigation=_navigation(asked, root),
        chips=list(_chips(request, asked, page.name)),
        counts={"alerts": "" if page.name == "alerts" else unseen(request, store)},
        fresh=_fresh(store, page),
        **_range(asked),
        **_who(who),
    )
    response.headers.update(headers)
    return response


def _tag(request: Request, who: Identity, asked: Asked, *versions: str) -> str:
    """What a page is made of: usage and what else has a version, who looks at what, how it is shown, and the time.

    What changes with time alone, such as a forecast, is made anew every ten minutes; when these begin differs, so that not all
    pages are made in the same one.
    """
    of_reader = (who.kind, str(who.subject), who.name, str(who.by_cookie), str(request.url))
    shown = (read_cookie(request, THEME), str(newest_seen(request)), parts(request).rendering.digest, _VERSION)
    begins = int.from_bytes(hashlib.blake2b("\0".join(of_reader).encode(), digest_size=4).digest()) % _ANEW_S
    time = (str(asked.period), str(int(parts(request).clock() + begins) // _ANEW_S))
    digest = hashlib.blake2b("\0".join((*of_reader, *shown, *time, *versions)).encode(), digest_size=12)
    return f'W/"{digest.hexdigest()}"'


def _csv(page: Page, part_id: str | None) -> Response:
    for part in page.parts:
        if part.id == part_id:
            return csv_response(part.csv(), f"{page.name}-{part.id}.csv")
    offered = ", ".join(part.id for part in page.parts)
    raise Problem(404, "no-such-part", "There is no such part", hint=f"This page has the parts {offered}.")


def _tab(page: Page) -> str:
    """How a tab of the browser is called: as the navigation calls the page, after the one thing that it is about."""
    label = next((label for _, links in NAVIGATION for name, label, _ in links if name == page.name), page.title)
    return f"{page.title} \N{MIDDLE DOT} {label}" if page.crumbs else label


def _navigation(asked: Asked, root: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    kept = asked.query(tuple(asked.filters))
    query = f"?{kept}" if kept else ""
    return [
        (heading, [(name, label, f"{root}/{path}{query}") for name, label, path in links])
        for heading, links in NAVIGATION
    ]


_OWN: Final[Mapping[str, Mapping[str, str]]] = {
    "calls": {"q": "Search", "unpriced": "Unpriced", "hour_of_day": "Hour of the day", "weekday": "Weekday"},
    "events": {"category": "Category", "event": "Name", "source": "From", "failed": "Failed"},
    "costs": {"cost_type": "Type", "resource": "Resource", "unit": "Unit", "unpriced": "Unpriced"},
}
"""What pages filter by beside what calls are filtered by."""


_WEEKDAYS: Final = dict(zip("1234567", WEEKDAYS, strict=True))


def _chips(request: Request, asked: Asked, page: str) -> Iterator[tuple[str, str, str]]:
    for name, values in asked.filters.items():
        if values == ("*",):
            continue
        label = DIMENSIONS.get(name, name.removeprefix("metadata.")).capitalize()
        shown = ", ".join("none" if value is None else value for value in values)
        yield label, shown, f"{request.url.path}?{asked.here((name,))}"
    for name, label in _OWN.get(page, {}).items():
        value = asked.own.get(name)
        if value or (value is not None and page != "calls"):  # among calls an empty one filters nothing
            said = {"unpriced": "only", "failed": "only", "weekday": _WEEKDAYS.get(value, value)}.get(name, value)
            yield label, said or "none", f"{request.url.path}?{asked.here((name,))}"


def _range(asked: Asked) -> dict[str, Any]:
    first, last = asked.period.first_day, asked.period.last_day
    days = int(asked.given.get("days", "0" if {"since", "until"} & set(asked.given) else DAYS))
    chosen = ("days", "since", "until", "timezone")  # what the form of the range has fields for
    kept = [(name, value) for name, value in (*asked.pairs, *asked.own.items()) if name not in chosen]
    return {
        "shown_days": days if days in RANGES else 0,
        "ranges": RANGES,
        "range_text": _days_text(first, last),
        "kept_parameters": kept,
    }


def _days_text(first: date, last: date) -> str:
    if first == last:
        return f"{first.day} {first:%b %Y}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day} {first:%b}{year} \N{EN DASH} {last.day} {last:%b %Y}"


def _fresh(store: Store, page: Page) -> str:
    what, newest = page.newest or ("call", last_call_at(store))
    if newest is None:
        return f"No {what} is recorded yet; the first one is counted at once."
    at = f"{numbers.moment(newest)} UTC" if isinstance(newest, datetime) else newest.isoformat()
    return f"Newest {what}: {at}. All that is recorded is counted."


def _who(who: Identity) -> dict[str, Any]:
    if who.is_operator:
        return {
            "who": "Operator",
            "who_about": "You opened this from the console and see everything.",
            "can_sign_out": True,
        }
    name = str(who.claims.get("email") or who.subject)
    return {
        "who": name,
        "who_about": "You see what is yours, and what your organizations let you see.",
        "can_sign_out": who.by_cookie,
    }
