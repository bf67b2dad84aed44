"""The summary of a day, week or month: what was spent against the time before, by what, and what needs a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from vital_tracking.queries.alerts import budget_alert, recent_alerts
from vital_tracking.queries.cache_hits import CACHES, CacheFall, cache_falls
from vital_tracking.queries.explore import Period
from vital_tracking.queries.reports import month_end
from vital_tracking.stores.protocol import Store
from vital_tracking.web.asked import asked_before, only_organization
from vital_tracking.web.mail.advice import advised_part
from vital_tracking.web.mail.document import Document, document
from vital_tracking.web.numbers import change
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages.budgets import fullest, fullest_part
from vital_tracking.web.pages.common import NONE_OF, name_of
from vital_tracking.web.pages.overview import TOTALS, lead, notices, total_cards
from vital_tracking.web.view import View

SPANS: Final = ("day", "week", "month")
_TOP: Final = 10
_NEAR_PERCENT: Final = 80
_BUDGETS: Final = 50
_ALERTS: Final = 50


@dataclass(frozen=True, slots=True)
class _Time:
    """The time that is told of, and the one before it."""

    period: Period
    before: Period


def summary_document(
    store: Store, asked: Sequence[tuple[str, str]], moment: datetime, title: str, public_url: str | None
) -> Document:
    """The summary as it is sent at a moment: of the whole day, seven days or calendar month before it (`period`).

    `asked` may name an `organization` and a `timezone`. ValueError or RequestValidationError where it asks for what there is not.
    """
    wanted = asked_before([pair for pair in asked if pair[0] in ("organization", "timezone")], moment)
    time = _time(dict(asked).get("period", "week"), moment, wanted.period.timezone)
    given = {"since": str(time.period.first_day), "until": str(time.period.last_day), "timezone": time.period.timezone}
    view = View(store, replace(wanted, period=time.period, given=given), public_url or "")
    first, last = time.period.first_day, time.period.last_day
    days = f"{first}" if first == last else f"{first} to {last}"
    about = only_organization(view.asked)
    whose = f", organization {about}" if about is not None else ""
    text = f"{days} ({time.period.timezone}){whose}, against {time.before.first_day} to {time.before.last_day}"
    return document(_page(view, time, about), title, text, view.keeping("") if public_url else None)


def _time(span: str, moment: datetime, timezone: str) -> _Time:
    if span not in SPANS:
        raise ValueError(f"There is no span {span!r}.")
    today = moment.astimezone(ZoneInfo(timezone)).date()
    if span != "month":
        period = Period.of_days(
            today - timedelta(days=7 if span == "week" else 1), today - timedelta(days=1), timezone=timezone
        )
        return _Time(period, period.before())
    last = today.replace(day=1) - timedelta(days=1)
    last_before = last.replace(day=1) - timedelta(days=1)
    return _Time(_month(last, timezone), _month(last_before, timezone))


def _month(last: date, timezone: str) -> Period:
    return Period.of_days(last.replace(day=1), last, timezone=timezone)


def _page(view: View, time: _Time, organization: str | None) -> Page:
    now = view.explore(measures=TOTALS)
    before = view.explore(period=time.before, measures=TOTALS)
    ahead = month_end(view.store, time.period, view.asked.filters)
    return Page(
        "summary",
        "Summary",
        lead(now, time.period.first_day, ahead),
        cards=total_cards(view, now, before),
        parts=[
            *(_spent(view, time, dimension, label) for dimension, label in _SPENT),
            _caches(view, time),
            falls_part(falls_of(view)),
            advised_part(view, organization),
            _budgets(view, organization),
            _alerts(view, organization),
            _counted(view, "blocked_calls", "user", "Users whose calls a budget blocked", "No call was blocked."),
            _counted(view, "unpriced_calls", "model", "Models without a known price", "Every call has a price."),
        ],
        notices=notices(now.total),
    )


_SPENT: Final = (("service", "service"), ("model", "model"), ("user", "user"))


def _spent(view: View, time: _Time, dimension: str, label: str) -> Part:
    """The dearest values of a dimension, with what they cost in the time before."""
    measures = ("calls", "unpriced_calls", "total_cost")
    found = view.explore(dimension, measures=measures, rows=_TOP)
    values = [row[dimension] for row in found.rows]
    cost_before: dict[Any, Decimal] = {}
    if values:
        then = view.explore(dimension, period=time.before, measures=measures, filters={dimension: values}, rows=_TOP)
        cost_before = {row[dimension]: row["total_cost"] for row in then.rows}
    name = name_of(found, dimension)
    rows = [
        {
            **row,
            "name": name(row),
            "cost": cost_before.get(row[dimension], Decimal(0)),
            "change": change(row["total_cost"], cost_before.get(row[dimension])),
        }
        for row in found.rows
    ]
    hidden = found.groups - len(rows)
    return Part(
        f"{dimension}s",
        f"Cost by {label}",
        [
            Column("name", label.capitalize(), link=view.link("calls", dimension)),
            Column("total_cost", "Cost", "usd"),
            Column("cost", "Before", "usd"),
            Column("change", "Change", "change", none="new"),
            Column("calls", "Calls", "calls"),
            Column("unpriced_calls", "Unpriced", "calls"),
        ],
        rows,
        more=f"{hidden:,} more cost less." if hidden > 0 else "",
    )


def _caches(view: View, time: _Time) -> Part:
    measures = ("calls", "cache_savings", *CACHES)
    now = view.explore(measures=measures).total
    before = view.explore(period=time.before, measures=measures).total
    told = (("cache_savings", "Saved", "usd"), *((name, text.capitalize(), "percent") for name, text in CACHES.items()))
    rows = [
        {
            "what": label,
            "unit": unit,
            "now": now[name],
            "before": before[name],
            "change": change(now[name], before[name]),
        }
        for name, label, unit in told
    ]
    return Part(
        "caches",
        "What caches did",
        [
            Column("what", "What"),
            Column("now", "Now", "of_row"),
            Column("before", "Before", "of_row"),
            Column("change", "Change", "change"),
        ],
        rows if now["calls"] or before["calls"] else [],
    )


def falls_part(falls: Sequence[CacheFall]) -> Part:
    """Caches that answer less than in the four weeks before."""
    return Part(
        "cache-falls",
        "Caches that answer less",
        [
            Column("organization", "Organization", none=NONE_OF),
            Column("what", "What fell"),
            Column("now", "Last seven days", "percent"),
            Column("usual", "Four weeks before", "percent"),
            Column("calls", "Calls", "calls"),
        ],
        [
            {
                "organization": fall.organization,
                "what": CACHES[fall.measure].capitalize(),
                "now": fall.now,
                "usual": fall.usual,
                "calls": fall.calls,
            }
            for fall in falls
        ],
        empty="No hit rate fell by five points and a quarter of what it was in the four weeks before.",
    )


def falls_of(view: View) -> list[CacheFall]:
    """What has fallen in the seven days up to the last day that is asked about."""
    period = view.asked.period
    return cache_falls(view.store, period.last_day, timezone=period.timezone, filters=view.asked.filters)


def _budgets(view: View, organization: str | None) -> Part:
    rows = fullest(view, limit=_BUDGETS, organization=organization)
    return replace(
        fullest_part(view, [row for row in rows if row["used"] >= _NEAR_PERCENT]),
        title="Budgets near their limits, as they are now",
        empty=f"No budget has {_NEAR_PERCENT} % spent.",
    )


def _alerts(view: View, organization: str | None) -> Part:
    period = view.asked.period
    found = recent_alerts(view.store, since=period.since, until=period.until, organization=organization, limit=_ALERTS)
    return Part(
        "alerts",
        "Alerts",
        [Column("created_at", "When (UTC)", "moment"), Column("message", "What", "prose")],
        [{"created_at": row["created_at"], "message": budget_alert(row).message} for row in found],
        empty="No budget crossed a threshold.",
        more=f"The newest {_ALERTS}." if len(found) == _ALERTS else "",
    )


def _counted(view: View, measure: str, dimension: str, title: str, empty: str) -> Part:
    """The values of a dimension with the most calls of a kind."""
    found = view.explore(dimension, measures=("calls", measure), order_by=measure, rows=_TOP)
    name = name_of(found, dimension)
    return Part(
        measure,
        title,
        [
            Column("name", dimension.capitalize(), link=view.link("calls", dimension)),
            Column(measure, "Such calls", "calls"),
            Column("calls", "All calls", "calls"),
        ],
        [{**row, "name": name(row)} for row in found.rows if row[measure]],
        empty=empty,
    )
