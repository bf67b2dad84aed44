"""Costs that are no calls to models: by type, tenant and day, beside what the calls cost, the prices in force, and the newest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, partial
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.core.cost import ZERO
from vital_tracking.core.platform import COST_TYPES
from vital_tracking.queries.explore import Explored, Period
from vital_tracking.queries.other_costs import OF_BOTH, OtherCost, explore_costs, other_costs
from vital_tracking.queries.platform import newest_at, place_of_row
from vital_tracking.queries.resource_prices import in_force, resource_prices
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
from vital_tracking.web.platform_asked import CostsAsked, PlatformAsked, costs_as_csv
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_NAME: Final = "costs"
_TOP: Final = 100
_LINES: Final = 6
_FIELDS: Final[Labels] = {
    "cost_type": ("Type", COST_TYPES),
    "service": ("Serves", ()),
    "resource": ("Resource", ()),
    "user": ("User id", ()),
    "organization": ("Organization", ()),
}
_EMPTY: Final = "No such cost in this time. They come from tracker.track_cost, and from what is imported."


@routes.get("/costs", name="vital-costs", dependencies=[Depends(reads("costs"))])
def show(request: Request, who: Asker, store: Reader, asked: CostsAsked, after: After = None) -> Response:
    """The costs that were asked for, or all of them as CSV."""
    if (sent := sent_form(request, _NAME)) is not None:
        return sent
    if request.query_params.get("format") == "csv" and request.query_params.get("part") == "all":
        return csv_response(costs_as_csv(store, asked.filters), "costs.csv")
    return answer(request, who, store, asked.asked, lambda view: page(view, asked, after))


def page(view: View, asked: PlatformAsked, after: str | None) -> Page:
    """Figures of the costs of a time, and the newest of them; the list alone further back, and of those without a price."""
    found = other_costs(view.store, asked.filters, limit=ROWS, after=checked_place(after))
    alone = after is not None or asked.flagged
    explored = cache(partial(_explored, view, asked))
    groups = partial(_groups, view, explored)
    figures = {} if alone else {
        "time": lambda: _time(view, asked),
        "types": lambda: groups("types", "By type", "cost_type", "unit"),
        "services": lambda: groups("services", "By what it serves", "service", "resource"),
        "organizations": lambda: groups("organizations", "By organization", "organization"),
        "prices": lambda: _prices(view),
    }  # fmt: skip
    parts = [
        part
        for part in view.parts({**figures, "list": lambda: _list(view, found)})
        if part.id != "organizations" or len(part.rows) > 1 or view.part
    ]
    older = place_of_row(found[-1]) if len(found) == ROWS else None
    return Page(
        _NAME,
        "What else costs money?",
        _lead(view, asked, explored()),
        cards=[] if alone or view.part else _cards(view, asked, explored()),
        parts=parts,
        notices=[] if asked.flagged else _notices(explored()),
        template="platform.html",
        extra={**form(view, asked, _NAME, _FIELDS, ("unpriced", "only unpriced")), **pager(view, _NAME, after, older)},
        newest=("other cost", newest_at(view.store, "costs")),
    )


def _explored(view: View, asked: PlatformAsked, *by: str, period: Period | None = None) -> Explored:
    return explore_costs(view.store, period or view.asked.period, by=by, filters=asked.where, rows=_TOP)


def _spent(found: Explored) -> Decimal:
    cost: Decimal | None = found.total["cost_usd"]
    return cost or ZERO


def _lead(view: View, asked: PlatformAsked, whole: Explored) -> str:
    first = view.asked.period.first_day
    if asked.flagged:
        return f"Costs from {first.day} {first:%b} on that have no price yet, and so are in no amount."
    spent, costs = numbers.usd(_spent(whole)), counted(whole.total["costs"], "cost")
    return f"{spent} in {costs} from {first.day} {first:%b} on, for what is no call to a model: storage, machines, searches."


def _cards(view: View, asked: PlatformAsked, now: Explored) -> list[Card]:
    before = _explored(view, asked, period=view.asked.period.before())
    spent = _spent(now)
    unpriced = now.total["unpriced_costs"] or 0
    cards = [
        grown_card(
            "Other costs",
            spent,
            _spent(before),
            numbers.usd,
            exact=numbers.usd_exact(spent),
            good="down",
            link="#types",
        )
    ]
    if not set(asked.where) - set(OF_BOTH):
        calls = view.explore(measures=("calls", "total_cost")).total
        both = spent + calls["total_cost"]
        cards += [
            Card(
                "Calls to models",
                numbers.usd(calls["total_cost"]),
                numbers.usd_exact(calls["total_cost"]),
                note=f"{counted(calls['calls'], 'call')} in the same time",
                link=view.keeping("services"),
            ),
            Card(
                "Both together", numbers.usd(both), numbers.usd_exact(both), note="the one bill", link=view.keeping("")
            ),
        ]
    return [
        *cards,
        Card(
            "Unpriced",
            numbers.count(unpriced),
            note="in no amount, until they have a price" if unpriced else "every cost has its price",
            link=here(view, _NAME, unpriced=1) if unpriced else None,
        ),
    ]


def _notices(whole: Explored) -> list[str]:
    unpriced = whole.total["unpriced_costs"]
    if not unpriced:
        return []
    return [
        f"Without a known price, and in no amount: {unpriced:,} of {counted(whole.total['costs'], 'cost')}. An operator "
        "adds a price with: vital-tracking prices resource set TYPE USD, then: vital-tracking prices resource reprice"
    ]


def _time(view: View, asked: PlatformAsked) -> Part:
    grain = view.asked.grain
    found = explore_costs(view.store, view.asked.period, by=(grain, "cost_type"), filters=asked.where, rows=10_000)
    columns, rows = by_time_and(found, grain, "cost_type", "cost_usd", most=_LINES, nothing=ZERO)
    return Part(
        "time",
        f"Other costs by {grain}",
        [
            Column(grain, grain.capitalize(), "day", link=rows_link(view, _NAME, grain)),
            *(Column(name, name, "usd") for name in columns),
        ],
        rows,
        Chart("bars", grain, tuple(columns), stacked=True),
        empty=_EMPTY,
        wide=True,
    )


def _groups(view: View, explored: Callable[..., Explored], part_id: str, title: str, *dimensions: str) -> Part:
    found = explored(*dimensions)
    named = {name: name_of(found, name) for name in dimensions}
    whole = _spent(found)
    rows: list[Row] = [
        {
            **row,
            **{f"{name}_name": named[name](row) for name in dimensions},
            "share": Decimal(100) * (row["cost_usd"] or ZERO) / whole if whole else None,
            "unit": row.get("unit") or "",
        }
        for row in found.rows
    ]
    hidden = found.groups - len(rows)
    labels = {
        "cost_type": "Type",
        "service": "Serves",
        "resource": "Resource",
        "organization": "Organization",
        "unit": "Unit",
    }
    to = rows_link(view, _NAME, *dimensions)
    return Part(
        part_id,
        title,
        [
            *(Column(f"{name}_name", labels[name], link=to if name == dimensions[0] else None) for name in dimensions),
            *([Column("quantity", "Quantity", "calls")] if "unit" in dimensions else []),
            Column("cost_usd", "Cost", "usd", none="unpriced", about="US dollars of what has a price"),
            Column("costs", "Entries", "calls", link=to),
            Column("unpriced_costs", "Unpriced", "calls", about="Entries without a price", rare=True),
            Column("share", "Share", "percent"),
        ],
        rows,
        empty=_EMPTY,
        more=f"{hidden:,} more are not shown; the CSV of all costs has them." if hidden > 0 else "",
        wide=len(dimensions) > 1,
        total={f"{dimensions[0]}_name": "Total", "cost_usd": whole, "costs": found.total["costs"]}
        if len(rows) > 1
        else None,
    )


def _prices(view: View) -> Part:
    return Part(
        "prices",
        "Prices in force",
        [
            Column("cost_type", "Type"),
            Column("resource", "Resource", none="any"),
            Column("unit_price", "Price", "usd", about="US dollars a unit"),
            Column("unit", "Unit"),
            Column("valid_from", "From (UTC)", "moment"),
            Column("note", "Note"),
        ],
        [
            {**price, "valid_from": None if price["valid_from"].year == 1970 else price["valid_from"]}
            for price in in_force(resource_prices(view.store), datetime.now(UTC))
        ],
        note="A cost keeps the price that was in force when it arose; one of a resource goes before that of any.",
        empty="Prices are shown to admins and auditors.",
        wide=True,
    )


def _list(view: View, found: Sequence[OtherCost]) -> Part:
    users, rows = user_columns(view, [{**one, "by": _priced_by(one)} for one in found])
    return Part(
        "list",
        "The newest costs",
        [
            Column("occurred_at", "When (UTC)", "moment"),
            Column("cost_type", "Type"),
            Column("service", "Serves"),
            Column("resource", "Resource"),
            Column("organization_id", "Organization"),
            *users,
            Column("quantity", "Quantity", "calls"),
            Column("unit", "Unit"),
            Column("unit_price", "Unit price", "usd"),
            Column("cost_usd", "Cost", "usd", none="unpriced"),
            Column("by", "Priced by"),
        ],
        rows,
        empty=_EMPTY,
        wide=True,
        sortable=False,
    )


def _priced_by(cost: OtherCost) -> str | None:
    version = cost["price_version"] or ""
    return "price in force" if version.startswith("resource_prices:") else version or None
