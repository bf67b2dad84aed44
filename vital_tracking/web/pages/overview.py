"""What was spent, on what, and where the month ends: the first page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache, partial
from typing import Any, Final, Literal

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.queries.bill import BillMonth, OtherPart, bill_month, other_by, other_parts, total
from vital_tracking.queries.calls import last_call_at
from vital_tracking.queries.explore import Explored, Period
from vital_tracking.queries.forecast import Forecast
from vital_tracking.queries.plans import plans_of
from vital_tracking.queries.reports import WEEKDAYS, month_end
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.page import Card, Chart, Column, Page, Part, Row
from vital_tracking.web.pages.advice import overview_part
from vital_tracking.web.pages.budgets import fullest, fullest_card, fullest_part
from vital_tracking.web.pages.common import by_time, ranking, time_column, with_rates
from vital_tracking.web.pages.platform import grown_card
from vital_tracking.web.pages.quotas import any_quota, plans_part, tier_flag
from vital_tracking.web.view import View

TOTALS: Final = (
    "calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "cached_calls", "total_tokens", "total_cost",
    "potential_cost", "cache_savings", "hit_rate", "success_rate", "active_users",
)  # fmt: skip
"""What a whole time is told by."""


_PERCENTILES: Final = ("p50_latency_ms", "p95_latency_ms", "p99_latency_ms")
_COURSES: Final = (
    "calls", "total_cost", "total_tokens", "unpriced_calls", "cache_savings", "potential_cost", "hit_rate", *_PERCENTILES,
)  # fmt: skip
"""What the overview shows by time, asked for at once."""

Others = Mapping[str, OtherPart]

_CALLS: Final = Column("calls", "Calls", "calls")
_TOKENS: Final = Column("total_tokens", "Tokens", "tokens")
_HITS: Final = Column("hit_rate", "Hit rate", "percent", about="Calls answered from LangChain's cache")
_NOTHING: Final = Part(
    "nothing",
    "Nothing yet",
    [],
    [],
    empty="No call was recorded in this time. Choose a longer one, or other filters.",
    wide=True,
)
_START: Final = Page(
    "overview",
    "Nothing is recorded yet",
    "What is spent, by whom and on what stands here from the first call on that you may see.",
    template="start.html",
    of_time=False,
)


def page(view: View) -> Page:
    """The overview of a time."""
    full = cache(lambda: fullest(view))
    of_time = cache(lambda: others_of(view))
    if view.part in _parts(view, None, full, of_time):
        return Page("overview", "", "", parts=view.parts(_parts(view, None, full, of_time)))
    others = of_time()
    newest = last_call_at(view.store)
    if newest is None and not others:
        return _START
    now = view.explore(measures=TOTALS)
    before = view.explore(period=view.asked.period.before(), measures=TOTALS)
    ahead = month_end(view.store, view.asked.period, view.asked.filters)
    bill = None if ahead is None else bill_month(view.store, ahead, organization=view.asked.only.get("organization"))
    return Page(
        "overview",
        "What is spent, and on what?",
        lead(now, view.asked.period.first_day, ahead, others, bill),
        cards=[
            *_bill(view, now, before, others),
            *total_cards(
                view,
                now,
                before,
                [*_month_end(view, ahead, bill), *([] if view.asked.filters else fullest_card(view, full()))],
                cost="Cost of calls" if others else "Cost",
            ),
        ],
        parts=_shown(view.parts(_parts(view, ahead, full, of_time)), others)
        if now.total["calls"] or others
        else [_NOTHING],
        notices=[*notices(now.total), *_unpriced(others)],
        newest=("call", newest),
    )


def _parts(
    view: View, ahead: Forecast | None, full: Callable[[], list[Row]], others: Callable[[], Others]
) -> dict[str, Callable[[], Part]]:
    steps = cache(lambda: by_time(view, _COURSES))
    hours = cache(lambda: _hours(view))
    services = cache(lambda: view.explore("service"))
    rank = partial(partial, ranking, view)
    # A budget counts what it counts, whatever the page is filtered by.
    budgets = {} if view.asked.filters else {"budgets": lambda: fullest_part(view, full())}
    advice = {"advice": lambda: _advice(view)} if set(view.asked.filters) <= {"organization"} else {}
    quotas = {} if view.asked.filters or not any_quota(view) else {"quotas": lambda: plans_part(view)}
    # Where the bill by kind stands among them there are four, two beside each other; else three.
    span: Literal["half", "third"] = "half" if view.part is None and others() else "third"
    # What is spent and what stands in the way, on what and by whom; then how much is done, when, and how well.
    return {
        "cost": lambda: _cost_by_day(view, steps(), ahead),
        **budgets,
        "kinds": lambda: _kinds(view, others()),
        "services": lambda: ranking(
            view, "services", "Cost by service", "service", chart="doughnut", span=span, found=services()
        ),
        "models": rank("models", "Cost by model", "model", chart="bars", top=10, span=span),
        "agents": rank("agents", "Cost by agent", "agent", chart="bars", top=10, span=span),
        **advice,
        **quotas,
        "users": lambda: _users(view),
        "calls": lambda: _by_step(view, "calls", f"Calls by {view.asked.grain}", _CALLS, "bars", steps()),
        "tokens": lambda: _by_step(view, "tokens", f"Tokens by {view.asked.grain}", _TOKENS, "bars", steps()),
        "providers": rank("providers", "Cost by provider", "provider", chart="doughnut", top=7, span="third"),
        "frameworks": rank("frameworks", "Cost by framework", "framework", chart="doughnut", top=7, span="third"),
        "calls-by-service": lambda: ranking(
            view,
            "calls-by-service",
            "Calls by service",
            "service",
            chart="bars",
            order_by="calls",
            span="third",
            found=replace(services(), rows=sorted(services().rows, key=lambda row: -row["calls"])),
        ),
        "hours": lambda: hours()[0],
        "latency": lambda: _latency(view, steps()),
        "week": lambda: hours()[1],
        "caches": lambda: _caches(view, steps()),
        "hits": lambda: _by_step(view, "hits", "Calls answered from a cache", _HITS, "area", steps()),
    }


def _shown(parts: Sequence[Part], others: Others) -> list[Part]:
    """The parts that have something to tell; of advice and quotas, which stand beside each other, the only one is wide."""
    shown = [part for part in parts if (part.id != "kinds" or others) and (part.id != "advice" or part.rows)]
    pair = [part for part in shown if part.id in ("advice", "quotas")]
    return [replace(part, wide=True) if [part] == pair else part for part in shown]


def _advice(view: View) -> Part:
    """The recommendations that save most; without a row where there are none."""
    return overview_part(view, view.asked.only.get("organization"))


def _users(view: View) -> Part:
    """The ten dearest users, with the plans of those who are on one, in the colour of what they use of it."""
    part = ranking(view, "users", "The ten dearest users", "user", rows=10, wide=True)
    tiers = plans_of(view.store, (row.get("user") for row in part.rows))
    if not tiers:
        return part
    rows = [
        {
            **row,
            "plan": tier_flag(tiers.get(row["user"] or "")),
            "quota": tiers[row["user"]]["used_percent"] if row.get("user") in tiers else None,
        }
        for row in part.rows
    ]
    plan = [Column("plan", "Plan", "flag"), Column("quota", "Quota used", "meter", none="-")]
    return replace(part, columns=[*part.columns, *plan], rows=rows)


def notices(total: Any) -> list[str]:
    """What is not known of the sums."""
    unpriced, estimated = total["unpriced_calls"], total["estimated_calls"]
    said = []
    if unpriced:
        said.append(
            f"Without a known price, and in no cost: {unpriced:,} of {counted(total['calls'], 'call')}. "
            "Set it with: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
        )
    if estimated:
        said.append(
            f"Nobody reported the tokens of {counted(estimated, 'call')}: they are estimated, and so is the cost."
        )
    return said


def others_of(view: View, period: Period | None = None) -> Others:
    """Other costs of the time that is asked for, by their kind; none where filters are of calls alone."""
    return other_parts(view.store, period or view.asked.period, view.asked.filters)


def lead(
    now: Explored, first: date, ahead: Forecast | None, others: Others | None = None, bill: BillMonth | None = None
) -> str:
    """What was spent from a day on, and where the month ends: of calls, and with `others` and `bill` of all of it."""
    calls = now.total
    said = f"{numbers.usd(calls['total_cost'])} for {counted(calls['calls'], 'call')}"
    if others:
        said += f" and {numbers.usd(total(part['cost'] for part in others.values()))} of other costs"
    said += f" from {first.day} {first:%b} on."
    if ahead is None:
        return said
    month: Mapping[str, Any] = bill or ahead
    return (
        f"{said} This month stands at {numbers.usd(month['spent'])} and ends at about {numbers.usd(month['projected'])} "
        f"(between {numbers.usd(month['low'])} and {numbers.usd(month['high'])})."
    )


def _unpriced(others: Others) -> list[str]:
    unpriced = sum(part["unpriced_costs"] for part in others.values())
    if not unpriced:
        return []
    return [
        f"Without a known price, and in no cost: {counted(unpriced, 'other cost')}. The page of other costs lists them."
    ]


def _bill(view: View, now: Explored, before: Explored, others: Others) -> list[Card]:
    """The whole bill, and its part that is no call; nothing where there are no other costs."""
    if not others:
        return []
    was = total(part["cost"] for part in others_of(view, view.asked.period.before()).values())
    other, calls = total(part["cost"] for part in others.values()), now.total["total_cost"]
    whole, whole_was = MONEY.add(other, calls), MONEY.add(was, before.total["total_cost"])
    said = f"; calls {numbers.usd(calls)}, other costs {numbers.usd(other)}"
    bill = grown_card("Bill", whole, whole_was, numbers.usd, exact=numbers.usd_exact(whole), good="down")
    link = view.keeping("costs") if set(view.asked.filters) <= {"organization", "user"} else None
    return [
        replace(bill, note=bill.note + said, link="#kinds"),
        grown_card("Other costs", other, was, numbers.usd, exact=numbers.usd_exact(other), good="down", link=link),
    ]


def _kinds(view: View, others: Others) -> Part:
    """The bill by kind: calls by what they are, and everything else."""
    found = view.explore("kind", measures=("calls", "total_cost", "unpriced_calls"))
    rows: dict[str, dict[str, Any]] = {
        row["kind"]: {
            "kind": row["kind"],
            "page": "calls",
            "cost": row["total_cost"],
            "unpriced": row["unpriced_calls"],
        }
        for row in found.rows
    }
    for kind, part in others.items():
        known = kind in rows or part["unpriced_costs"] < part["costs"]
        row = rows.setdefault(kind, {"kind": kind, "page": "costs", "cost": ZERO, "unpriced": 0})
        row["cost"] = MONEY.add(row["cost"], part["cost"]) if known else None
        row["unpriced"] += part["unpriced_costs"]
    whole = total(row["cost"] for row in rows.values())

    def rows_of(row: Row) -> str | None:
        if "page" not in row:
            return None
        name = "kind" if row["page"] == "calls" else "cost_type"
        return f"{view.path(row['page'])}?{view.asked.query(**{name: row['kind']})}"

    return Part(
        "kinds",
        "The bill by kind",
        [
            Column("kind", "Kind", link=rows_of),
            Column("cost", "Cost", "usd", none="unpriced"),
            Column("share", "Share", "percent"),
            Column("unpriced", "Unpriced", "calls", rare=True, about="Without a known price: in no cost"),
        ],
        [
            {**row, "share": Decimal(100) * row["cost"] / whole if whole and row["cost"] is not None else None}
            for row in sorted(rows.values(), key=lambda row: -(row["cost"] or ZERO))
        ],
        Chart("doughnut", "kind", ("cost",)),
        note="What a provider bills beside its calls is of their kind.",
    )


def total_cards(
    view: View, now: Explored, before: Explored, beside: Sequence[Card] = (), *, cost: str = "Cost"
) -> list[Card]:
    """What a time came to, against the time before, both of the measures TOTALS.

    `beside` are cards to stand next to that of the cost, which is called `cost`.
    """
    total, was = with_rates(now.total), with_rates(before.total)
    users = total["active_users"]
    total["cost_per_user"] = now.total["total_cost"] / users if users else None
    was["cost_per_user"] = before.total["total_cost"] / was["active_users"] if was["active_users"] else None

    def card(label: str, name: str, write: Callable[[Any], str], **more: Any) -> Card:
        exact = numbers.usd_exact(total[name]) if isinstance(total[name], Decimal) else numbers.machine(total[name])
        return grown_card(label, total[name], was[name], write, exact=exact, **more)

    return [
        card(cost, "total_cost", numbers.usd, good="down", link=view.keeping("services")),
        *beside,
        card("Calls", "calls", numbers.count, link=view.keeping("calls")),
        card("Active users", "active_users", numbers.count, good="up", link=view.keeping("users")),
        card("Cost per call", "cost_per_call", numbers.usd, good="down", link=view.keeping("models")),
        card("Cost per user", "cost_per_user", numbers.usd, link=view.keeping("users")),
        card("Tokens", "total_tokens", numbers.compact, link=view.keeping("models")),
        card("Success rate", "success_rate", numbers.percent, good="up", link=view.to("calls", status="error")),
        card("Saved by caches", "cache_savings", numbers.usd, good="up", link=view.keeping("models")),
    ]


def _month_end(view: View, ahead: Forecast | None, bill: BillMonth | None) -> list[Card]:
    if ahead is None or bill is None:
        return []
    return [
        Card(
            f"End of {ahead['days'][0][0]:%B}",
            numbers.usd(bill["projected"]),
            numbers.usd_exact(bill["projected"]),
            note=f"{numbers.usd(bill['low'])} to {numbers.usd(bill['high'])}; so far {numbers.usd(bill['spent'])}",
            link=view.keeping("forecast"),
        )
    ]


def _cost_by_day(view: View, rows: list[Row], ahead: Forecast | None) -> Part:
    grain = view.asked.grain
    note = ""
    if ahead is not None:
        note = f"The month's calls are projected to end at {numbers.usd(ahead['projected'])}."
    others = other_by(view.store, view.asked.period, grain, view.asked.filters)
    beside = [Column("other_cost", "Other costs", "usd")] if others else []
    nothing = {"calls": 0, "total_cost": ZERO, "unpriced_calls": 0}
    known = {row[grain]: row for row in rows}
    both: list[Row] = [
        {**known.get(step, {grain: step, **nothing}), "other_cost": others.get(step, ZERO)}
        for step in sorted({*known, *others})
    ]
    return Part(
        "cost",
        f"Cost by {grain}",
        [
            time_column(view),
            Column("total_cost", "Calls" if others else "Cost", "usd"),
            *beside,
            Column("unpriced_calls", "Unpriced", "calls"),
        ],
        both if others else rows,
        Chart("area", grain, ("total_cost", "other_cost") if others else ("total_cost",), stacked=bool(others)),
        note=note,
        wide=bool(view.asked.filters),  # else it stands beside the budgets
    )


def _by_step(
    view: View, part_id: str, title: str, column: Column, kind: Literal["bars", "area"], rows: list[Row]
) -> Part:
    return Part(
        part_id,
        title,
        [time_column(view), column],
        _told(rows, column.name),
        Chart(kind, view.asked.grain, (column.name,)),
        empty="None in this time.",
    )


def _told(rows: list[Row], *measures: str) -> list[Row]:
    """The rows, unless none of them has anything to tell: then a sentence stands there, and no empty chart."""
    return rows if any(row[name] for row in rows for name in measures) else []


def _hours(view: View) -> list[Part]:
    found = view.explore("weekday", "hour_of_day", measures=("calls", "total_cost"), rows=200)
    cells = {(row["weekday"], row["hour_of_day"]): row for row in found.rows}
    nothing = {"calls": 0, "total_cost": Decimal(0)}
    heat = [
        {
            "day": name,
            "weekday": day,
            "hour": f"{hour:02}",
            "hour_of_day": hour,
            **{k: cells.get((day, hour), nothing)[k] for k in nothing},
        }
        for day, name in enumerate(WEEKDAYS, 1)
        for hour in range(24)
    ]
    by_hour = [
        {
            "hour": f"{hour:02}",
            "hour_of_day": hour,
            "calls": sum(row["calls"] for row in heat if row["hour"] == f"{hour:02}"),
            "total_cost": sum((row["total_cost"] for row in heat if row["hour"] == f"{hour:02}"), Decimal(0)),
        }
        for hour in range(24)
    ]
    cost = Column("total_cost", "Cost", "usd")
    zone = view.asked.period.timezone
    if not found.rows:
        heat, by_hour = [], []
    return [
        Part(
            "hours",
            f"Calls by hour of the day ({zone})",
            [Column("hour", "Hour"), Column("calls", "Calls", "calls", link=view.link("calls", "hour_of_day")), cost],
            by_hour,
            Chart("bars", "hour", ("calls",)),
        ),
        Part(
            "week",
            f"When in the week ({zone})",
            [
                Column("day", "Day"),
                Column("hour", "Hour"),
                Column("calls", "Calls", "calls", link=view.link("calls", "weekday", "hour_of_day")),
                cost,
            ],
            heat,
            Chart("heatmap", "hour", ("calls",), series="day"),
            wide=True,
        ),
    ]


def _latency(view: View, rows: list[Row]) -> Part:
    grain = view.asked.grain
    return Part(
        "latency",
        "How long calls take",
        [
            time_column(view),
            Column("p50_latency_ms", "Median", "ms"),
            Column("p95_latency_ms", "95th percentile", "ms"),
            Column("p99_latency_ms", "99th percentile", "ms"),
        ],
        _told(rows, *_PERCENTILES),
        Chart("lines", grain, _PERCENTILES),
        empty="No call of this time was timed.",
    )


def _caches(view: View, rows: list[Row]) -> Part:
    return Part(
        "caches",
        "What caches saved",
        [
            time_column(view),
            Column("cache_savings", "Saved", "usd"),
            Column("potential_cost", "Without caches", "usd"),
        ],
        _told(rows, "cache_savings"),
        Chart("area", view.asked.grain, ("cache_savings",)),
        empty="Caches saved nothing in this time.",
    )
