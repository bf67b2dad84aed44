"""What stands out: days of agents, users and models far from their usual, and requests that were paid for more than once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.usage import Anomalies, Anomaly, Duplicates, anomalies, duplicates, severity
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters, only_organization
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_ROWS: Final = 200
_COLOURS: Final = {"high": "bad", "medium": "warn", "low": "quiet"}
_WHAT: Final[Mapping[tuple[str, str], str]] = {
    ("cost", "sum"): "cost",
    ("cost", "newcomer"): "cost of a newcomer",
    ("error_rate", "percent"): "failed calls",
    ("latency", "median"): "median latency",
    ("latency", "p95"): "95th percentile of latency",
}


@routes.get("/anomalies", name="vital-anomalies", dependencies=[Depends(reads("anomalies"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What stands out."""
    organization = only_organization(asked)
    return answer(request, who, store, asked, lambda view: page(view, organization))


def page(view: View, organization: str | None) -> Page:
    """Anomalies and duplicates of the chosen time, of an organization or of all that the reader may see."""
    since, until = view.asked.period.since, view.asked.period.until
    found = anomalies(view.store, since=since, until=until, organization=organization, rows=_ROWS)
    twice = duplicates(view.store, since=since, until=until, organization=organization, rows=_ROWS)
    return Page(
        "anomalies",
        "What stands out?",
        _lead(view, found, twice),
        cards=_cards(found, twice),
        parts=[_anomalies(view, found), _duplicates(view, twice)],
        notices=_notices(found, twice),
    )


def _lead(view: View, found: Anomalies, twice: Duplicates) -> str:
    first = view.asked.period.first_day
    days = counted(len(found["rows"]), "day")
    again = numbers.usd(twice["saved_by_caching"])
    return (
        f"From {first.day} {first:%b} on, {days} of agents, users and models stood out from the four weeks before, and requests "
        f"made again cost {again}; all calls up to now are looked at."
    )


def _cards(found: Anomalies, twice: Duplicates) -> list[Card]:
    kinds = [severity(row) for row in found["rows"]]
    at_stake = max((row["cost_at_stake"] for row in found["rows"]), default=None)
    return [
        Card("High severity", numbers.count(kinds.count("high"))),
        Card("Medium severity", numbers.count(kinds.count("medium"))),
        Card("Low severity", numbers.count(kinds.count("low"))),
        Card("Most at stake", numbers.usd(at_stake), numbers.usd_exact(at_stake), note="beyond the usual, on one day"),
        Card(
            "Requests made again", numbers.count(twice["requests"]), note=f"{twice['repeated_calls']:,} calls too many"
        ),
        Card(
            "A cache would save", numbers.usd(twice["saved_by_caching"]), numbers.usd_exact(twice["saved_by_caching"])
        ),
    ]


def _notices(found: Anomalies, twice: Duplicates) -> list[str]:
    unpriced = sum(row["unpriced_calls"] for row in (*found["rows"], *twice["rows"]))
    if not unpriced:
        return []
    return [
        "Some of these calls have no known price and are in no amount here. "
        "Set it with: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
    ]


def _anomalies(view: View, found: Anomalies) -> Part:
    rows = [
        {
            **row,
            "severity": (_COLOURS[level := severity(row)], level),
            "what": _WHAT.get((row["metric"], row["measure"]), row["metric"]),
            "found": _in_unit(row, row["value"]),
            "normal": _in_unit(row, row["usual"]),
            "times": f"{row['value'] / row['usual']:,.1f}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}"
            if row["usual"]
            else None,
        }
        for row in found["rows"]
    ]
    more = f"The {_ROWS} with the most at stake are shown." if len(rows) == _ROWS else ""

    def calls_of(row: Row) -> str:
        return calls_link(view, row)

    return Part(
        "anomalies",
        "Days out of the ordinary",
        [
            Column(
                "severity", "Severity", "flag", about="By the dollars at stake, and by how far it is from the usual"
            ),
            Column("day", "Day (UTC)", "day", link=calls_of),
            Column("subject", "Of"),
            Column("id", "Name", link=calls_of),
            Column("organization_id", "Organization"),
            Column("what", "What"),
            Column("found", "Found"),
            Column(
                "normal", "Usual", about="The median of the four weeks before, or of the same weekday if that is more"
            ),
            Column("times", "Times"),
            Column("calls", "Calls", "calls", link=calls_of),
            Column("cost_at_stake", "At stake", "usd", about="US dollars beyond the usual"),
        ],
        rows,
        note="Each day is compared with the days of the four weeks before; names and days lead to the calls.",
        empty="Nothing out of the ordinary in this time. A day can stand out once there are days before to compare it with.",
        more=more,
        wide=True,
    )


def _in_unit(row: Anomaly, value: Decimal) -> str:
    write: Any = {"cost": numbers.usd, "latency": numbers.duration}.get(row["metric"], numbers.percent)
    return str(write(value))


def calls_link(view: View, row: Row) -> str:
    """The calls behind an anomaly: those of that day; of failures the failed ones."""
    day = str(row["day"])
    failed = {"status": "error"} if row["metric"] == "error_rate" else {}
    asked = view.asked.filtered(organization=row["organization_id"], **{row["subject"]: row["id"]}, **failed)
    return f"{view.path('calls')}?{asked.query(days=None, grain=None, timezone='UTC', since=day, until=day)}"


def _duplicates(view: View, twice: Duplicates) -> Part:
    hidden = twice["requests"] - len(twice["rows"])

    def calls_of(row: Row) -> str:
        days = {"since": _day(row["first_at"]), "until": _day(row["last_at"])}
        asked = view.asked.filtered(organization=row["organization_id"], model=row["model"], agent=row["agent_id"])
        return f"{view.path('calls')}?{asked.query(days=None, grain=None, timezone='UTC', **days)}"

    return Part(
        "duplicates",
        "Requests that were paid for more than once",
        [
            Column("request_hash", "Request", "id", about="A keyed hash: no text of a request is kept"),
            Column("organization_id", "Organization"),
            Column("agent_id", "Agent"),
            Column("model", "Model", link=calls_of),
            Column("calls", "Calls", "calls", link=calls_of),
            Column("unpriced_calls", "Unpriced", "calls", rare=True),
            Column("first_at", "First (UTC)", "moment"),
            Column("last_at", "Last (UTC)", "moment"),
            Column("cost", "Cost", "usd"),
            Column("saved_by_caching", "A cache would save", "usd", about="The cost of all answers but the first"),
        ],
        [dict(row) for row in twice["rows"]],
        note="The same messages, model and parameters, answered again. An agent that asks several times on purpose is here, too.",
        empty="No request was made twice in this time. Requests are told apart only where VITAL_HASH_KEY is set for the "
        "processes that make them.",
        more=f"{hidden:,} more are not shown." if hidden > 0 else "",
        wide=True,
    )


def _day(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()
