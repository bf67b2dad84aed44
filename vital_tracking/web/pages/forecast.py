"""Where the month ends: what is spent, what is to come with its range, the trend, and how good past forecasts were."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.forecast import Forecast, has_history
from vital_tracking.queries.month import Month, MonthPart, month
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters, only_organization
from vital_tracking.web.page import Card, Chart, Column, Page, Part
from vital_tracking.web.pages.common import NONE_OF
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_RESTS_ON: Final = {
    "weekday and hour": "Told from what the weekdays and hours of the last eight weeks cost.",
    "average day": "Told from the average of the few days there are; from two weeks on, weekdays are told apart.",
    "last day": "Told from the last day alone; from two weeks on, weekdays are told apart.",
    "no history": "There are no calls of the last weeks that it could be told from: only what is spent is known.",
}


@routes.get("/forecast", name="vital-forecast", dependencies=[Depends(reads("forecast"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Where the month ends."""
    organization = only_organization(asked)
    return answer(request, who, store, asked, lambda view: page(view, organization))


def page(view: View, organization: str | None) -> Page:
    """The forecast of the month, of an organization or of all that the reader may see."""
    found = month(view.store, view.asked.period, organization=organization)
    ahead = found["forecast"]
    parts = [
        _days(view, found),
        *_apart(view, found),
        _of(view, "services", "Calls by service", "service", found["by_service"]),
    ]
    if organization is None:
        parts.append(_of(view, "organizations", "Calls by organization", "organization", found["by_organization"]))
    parts += [_months(found), *_budgets(ahead)]
    return Page(
        "forecast", "Where does the month end?", _lead(found), cards=_cards(found), parts=parts, notices=_notices(found)
    )


def _lead(found: Month) -> str:
    ahead, bill = found["forecast"], found["bill"]
    month_name = f"{ahead['days'][0][0]:%B}"
    spent = numbers.usd(bill["spent"])
    until = f"up to {numbers.moment(ahead['moment'], ahead['timezone'])} ({ahead['timezone']})"
    if not has_history(ahead) and not bill["other_costs"]:
        return f"{month_name} stands at {spent} {until}; there is no history from which its end could be told."
    likely = "most likely" if ahead["error"] else "perhaps"
    low, high = numbers.usd(bill["low"]), numbers.usd(bill["high"])
    end = numbers.usd(bill["projected"])
    return f"{month_name} stands at {spent} {until} and ends at about {end}, {likely} {low} to {high}."


def _cards(found: Month) -> list[Card]:
    ahead, error, bill = found["forecast"], found["forecast"]["error"], found["bill"]
    grown = numbers.changed(found["last_week"], found["week_before"])
    off = error["mape"] if error else None
    return [
        Card(
            "This month so far",
            numbers.usd(bill["spent"]),
            numbers.usd_exact(bill["spent"]),
            note=f"calls {numbers.usd(ahead['spent'])}, other costs {numbers.usd(bill['other_spent'])}"
            if bill["other_costs"]
            else "",
        ),
        Card(
            "End of the month",
            numbers.usd(bill["projected"]),
            numbers.usd_exact(bill["projected"]),
            note=f"{numbers.usd(bill['low'])} to {numbers.usd(bill['high'])}",
        ),
        Card(
            "Chosen time, times 30",
            numbers.usd(found["projected_monthly_cost"]),
            numbers.usd_exact(found["projected_monthly_cost"]),
            note="the average day of the time that is chosen above, as a month of 30",
        ),
        Card(
            "Last seven days",
            numbers.usd(found["last_week"]),
            numbers.usd_exact(found["last_week"]),
            note=f"the seven before: {numbers.usd(found['week_before'])}",
            change="" if not found["last_week"] and not found["week_before"] else grown[0],
            trend=grown[1],
            good="down",
        ),
        Card(
            "Past forecasts were off by",
            numbers.percent(off),
            note=f"on average of {counted(error['windows'], 'earlier time')}"
            if error and off is not None
            else "too few days to try it on",
        ),
    ]


def _notices(found: Month) -> list[str]:
    calls, costs = int(found["forecast"]["unpriced_calls"] or 0), found["bill"]["unpriced_costs"]
    said = []
    if calls:
        said.append(
            f"Not in it: {counted(calls, 'call')} of this month without a known price. "
            "Set it with: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
        )
    if costs:
        said.append(f"Not in it: {counted(costs, 'other cost')} of this month without a known price.")
    return said


def _days(view: View, found: Month) -> Part:
    ahead, bill = found["forecast"], found["bill"]
    others = {day: (spent, to_come) for day, spent, to_come in bill["other_days"]}
    rows = []
    for day, spent, projected in ahead["days"]:
        other, other_to_come = others[day]
        to_come = None if projected is None else projected - (spent or Decimal(0))
        if other_to_come is not None:
            to_come = (to_come or Decimal(0)) + other_to_come
        rows.append({"day": day, "spent": spent, "other": other, "to_come": to_come})

    def calls_of(row: object) -> str | None:
        day = row["day"] if isinstance(row, dict) and row["spent"] is not None else None
        return day and f"{view.path('calls')}?{view.asked.query(days=None, since=str(day), until=str(day))}"

    has_others = bool(bill["other_costs"])
    return Part(
        "days",
        "Spent and to come, by day",
        [
            Column("day", "Day", "day", link=calls_of),
            Column("spent", "Calls" if has_others else "Spent", "usd"),
            *([Column("other", "Other costs", "usd")] if has_others else []),
            Column("to_come", "To come", "usd", about="What the day, or the rest of today, will cost"),
        ],
        rows if has_history(ahead) or bill["spent"] else [],
        Chart("bars", "day", ("spent", *(("other",) if has_others else ()), "to_come"), stacked=True, ahead="to_come"),
        note=_RESTS_ON.get(ahead["method"], ""),
        wide=True,
        total={
            "day": "Month",
            "spent": ahead["spent"],
            "other": bill["other_spent"],
            "to_come": bill["projected"] - bill["spent"],
        },
    )


def _apart(view: View, found: Month) -> list[Part]:
    """Calls and other costs apart, and together; nothing where there are no other costs."""
    ahead, bill = found["forecast"], found["bill"]
    if not bill["other_costs"]:
        return []
    month = {"days": None, "since": str(ahead["days"][0][0]), "until": str(ahead["days"][-1][0])}
    rows = [
        {"what": "Calls to models", "spent": ahead["spent"], "projected": ahead["projected"], "page": "services"},
        {"what": "Other costs", "spent": bill["other_spent"], "projected": bill["other_projected"], "page": "costs"},
    ]
    return [
        Part(
            "bill",
            "Apart and together",
            [
                Column(
                    "what",
                    "What",
                    link=lambda row: f"{view.path(row['page'])}?{view.asked.query(**month)}" if "page" in row else None,
                ),
                Column("spent", "Spent", "usd"),
                Column("projected", "End of the month", "usd"),
            ],
            rows,
            note="What is to come of other costs is their average day of the last 28.",
            total={"what": "Together", "spent": bill["spent"], "projected": bill["projected"]},
        )
    ]


def _of(view: View, part_id: str, title: str, dimension: str, found: Sequence[MonthPart]) -> Part:
    return Part(
        part_id,
        title,
        [
            Column("shown", dimension.capitalize(), link=view.link("calls", dimension)),
            Column("spent", "Spent", "usd"),
            Column("projected", "End of the month", "usd"),
            Column("share_percent", "Share", "percent", about="Of the month's end"),
        ],
        [{**part, dimension: part["name"], "shown": part["name"] or NONE_OF} for part in found],
        note="Calls to models alone, without other costs. What is to come is divided as the last 28 days were.",
        empty="No calls this month, nor in the last 28 days.",
    )


def _months(found: Month) -> Part:
    has_others = any(row["other_cost"] for row in found["months"])
    return Part(
        "months",
        "The months before",
        [
            Column("month", "Month from", "day"),
            Column("cost", "Cost of calls" if has_others else "Cost", "usd"),
            *([Column("other_cost", "Other costs", "usd")] if has_others else []),
            Column("calls", "Calls", "calls"),
        ],
        found["months"],
        Chart("bars", "month", ("cost", "other_cost") if has_others else ("cost",), stacked=has_others),
        note="The last one still runs.",
        empty="No calls in these months.",
    )


def _budgets(ahead: Forecast) -> list[Part]:
    if not ahead["budgets"]:
        return []
    rows = [
        {**budget, "action": f"{budget['action']}{'' if budget['enforce'] else ', shadow'}"}
        for budget in ahead["budgets"]
    ]
    return [
        Part(
            "budgets",
            "What it means for budgets",
            [
                Column("id", "Budget"),
                Column("action", "Action"),
                Column("limit", "Limit", "usd"),
                Column("spent", "Spent", "usd"),
                Column("projected", "End of the month", "usd"),
                Column("projected_share", "Of the limit", "percent"),
                Column("runs_out_at", "Runs out (UTC)", "moment", none="lasts"),
            ],
            rows,
            wide=True,
        )
    ]
