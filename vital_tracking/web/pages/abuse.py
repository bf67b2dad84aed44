"""What looks like abuse: findings that open to their rows, what is decided about them, and what is silenced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form, Path, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.queries import abuse as queries
from vital_tracking.queries.abuse import AbuseFinding, AbuseSettings
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters, only_organization
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.common import administered
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_MOST: Final = 200
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_COLOURS: Final = {"high": "bad", "medium": "warn", "low": "quiet"}
_OF_MONEY: Final = ("cost", "day_cost")
_OF_CALLS: Final = ("calls", *_OF_MONEY)
_DECISIONS: Final = {
    "watch": "Watch: stop nothing, and note on each call that a block would have stopped it",
    "throttle": "Throttle: let one call pass in 30 seconds",
    "block": "Block: stop every call",
    "false_alarm": "False alarm: be silent about its like up to this size",
    "open": "Open it again: end what was put up, and take its mark back",
}
_LASTS: Final = {"1": "an hour", "24": "a day", "168": "a week", "744": "31 days"}

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Decision = Literal["watch", "throttle", "block", "false_alarm", "open"]


@routes.get("/abuse", name="vital-abuse", dependencies=[Depends(reads("abuse"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What looks like abuse."""
    organization = only_organization(asked)
    return answer(request, who, store, asked, lambda view: page(view, who, organization))


@routes.get("/abuse/{finding_id}", name="vital-abuse-finding", dependencies=[Depends(reads("abuse"))])
def show_finding(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    finding_id: Id,
    decision: Annotated[Decision | None, Query()] = None,
) -> Response:
    """A finding, and where a decision is named what it would do, to be confirmed."""
    finding = queries.abuse_finding(store, finding_id)
    return answer(request, who, store, asked, lambda view: finding_page(view, who, finding, decision))


@routes.post("/abuse/{finding_id}", name="vital-decide-abuse")
def decide(
    request: Request,
    who: Asker,
    store: Reader,
    finding_id: Id,
    decision: Annotated[Decision, Form()],
    hours: Annotated[int, Form(ge=1, le=744)] = 1,
    why: Annotated[str, Form(max_length=500, pattern=r"^[^\x00]*$")] = "",
) -> Response:
    """Decide about a finding, and go back to the page."""
    del who
    if decision == "false_alarm":
        queries.mark_false_alarm(store, finding_id, why=why)
    elif decision == "open":
        queries.reopen(store, finding_id)
    else:
        queries.act_on(store, finding_id, decision, lasts=timedelta(hours=hours), why=why)
    return RedirectResponse(f"{home(request)}abuse/{finding_id}", 303)


@routes.post("/abuse/marks/{mark_id}/remove", name="vital-unmark-abuse")
def unmark(request: Request, who: Asker, store: Reader, mark_id: Id) -> Response:
    """Take a mark back, and go back to the page."""
    del who
    queries.remove_mark(store, mark_id)
    return RedirectResponse(f"{home(request)}abuse", 303)


def page(view: View, who: Identity, organization: str | None) -> Page:
    """The findings that the reader may see, those that are open first, and what is silenced or done by itself."""
    found = queries.abuse_findings(view.store, organization=organization, limit=_MOST)
    settings = queries.abuse_settings(view.store, organization=organization)
    may = administered(view.store, who)
    changeable = [row["id"] for row in found if may is None or row["organization_id"] in may]
    open_ = [row for row in found if row["state"] == "open"]
    return Page(
        "abuse",
        "What looks like abuse?",
        "What users, organizations, addresses and repeated requests came to beside their own four weeks before, and others'. "
        "Addresses and requests are keyed hashes.",
        cards=_cards(found, settings),
        parts=[_findings(view, found), _marks(settings), _rules(settings), _patterns(settings)],
        template="abuse.html",
        of_time=False,
        extra={
            "open": [(row, queries.figures(row), rows_link(view, row), row["id"] in changeable) for row in open_[:50]],
            "decisions": ("watch", "throttle", "block", "false_alarm"),
            "marks": [one for one in settings["marks"] if may is None or one["organization_id"] in may],
        },
    )


def _cards(found: Sequence[AbuseFinding], settings: AbuseSettings) -> list[Card]:
    open_ = [row for row in found if row["state"] == "open"]
    severe = sum(row["severity"] == "high" for row in open_)
    silenced = sum(one["silenced"] for one in settings["marks"])
    return [
        Card("Open", numbers.count(len(open_)), note=f"{severe} of high severity"),
        Card("Acted on now", numbers.count(sum(row["acting"] for row in found))),
        Card("False alarms", numbers.count(len(settings["marks"])), note=f"their like silenced in {silenced:,} looks"),
        Card("Rules", numbers.count(len(settings["rules"])), note="that act by themselves"),
    ]


def rows_link(view: View, row: AbuseFinding) -> str:
    """The calls or events behind a finding, from its end on back, in days of UTC."""
    asked: dict[str, str] = {
        "timezone": "UTC",
        "since": row["rows_since"].astimezone(UTC).date().isoformat(),
        "until": row["last_seen"].astimezone(UTC).date().isoformat(),
        # The list begins where the finding ends: there is no row after that place.
        "after": f"{row['last_seen'].astimezone(UTC).isoformat()}/{_LAST_ID}",
    }
    if row["organization_id"]:
        asked["organization"] = row["organization_id"]
    if row["entity_type"] == "user" and row["entity_id"]:
        asked["user"] = row["entity_id"]
    if row["measure"] in _OF_CALLS:
        return f"{view.path('calls')}?{urlencode(asked)}"
    return f"{view.path('events')}?{urlencode({**asked, 'category': 'user_behavior'})}"


def _became(row: AbuseFinding) -> str:
    return queries.became(row, numbers.moment)


def _shown(row: AbuseFinding) -> dict[str, Any]:
    return {
        **row,
        "level": (_COLOURS[row["severity"]], row["severity"]),
        "figures": queries.figures(row),
        "became": _became(row),
    }


def _findings(view: View, found: Sequence[AbuseFinding]) -> Part:
    def one(row: Row) -> str:
        return view.path(f"abuse/{row['id']}")

    return Part(
        "findings",
        "All that was found, the newest first",
        [
            Column("level", "Severity", "flag"),
            Column("about", "What", link=one),
            Column("subject", "Of", "id"),
            Column("organization_id", "Organization"),
            Column("figures", "Figures", "prose"),
            Column("first_seen", "First seen (UTC)", "moment"),
            Column("last_seen", "Last seen (UTC)", "moment"),
            Column("became", "State"),
            Column("decided_by", "By", rare=True),
            Column("reason", "Why", "prose", rare=True),
        ],
        [_shown(row) for row in found],
        empty="Nothing was found. The database looks each minute with pg_cron, else run: vital-tracking abuse scan --every 1m",
        more=f"The newest {_MOST} are shown; the API has all." if len(found) == _MOST else "",
        wide=True,
    )


def _marks(settings: AbuseSettings) -> Part:
    return Part(
        "marks",
        "False alarms, whose like is silenced",
        [
            Column("pattern", "Pattern"),
            Column("subject", "Of", "id"),
            Column("organization_id", "Organization"),
            Column(
                "up_to",
                "Up to",
                "calls",
                about="In five minutes; of addresses in an hour, of a first day in US dollars",
            ),
            Column("silenced", "Silenced", "calls", about="In how many looks since"),
            Column("last_silenced_at", "Last (UTC)", "moment"),
            Column("marked_by", "By"),
            Column("reason", "Why", "prose"),
        ],
        settings["marks"],
        empty="Nothing is marked as a false alarm.",
        wide=True,
    )


def _rules(settings: AbuseSettings) -> Part:
    return Part(
        "rules",
        "What is done by itself",
        [
            Column("pattern", "Pattern", none="any"),
            Column("severity", "From severity"),
            Column("action", "Action"),
            Column("lasts_s", "For seconds", "calls"),
            Column("organization_id", "Organization", none="all"),
        ],
        settings["rules"],
        empty="Nothing: a rule is set with vital-tracking abuse rule.",
    )


def _patterns(settings: AbuseSettings) -> Part:
    return Part(
        "patterns",
        "By what it is found",
        [
            Column("about", "Pattern", "prose"),
            Column("short_floor", "Least in 5 minutes", "of_row"),
            Column("long_floor", "Least in an hour", "of_row", about="Of a first day: in a day"),
            Column("times", "Times the usual", "calls"),
            Column("reason", "Why", "prose"),
        ],
        [{**row, "unit": "usd" if row["measure"] in _OF_MONEY else "calls"} for row in settings["patterns"]],
        note="And twice the most that it has ever been, in the four weeks before.",
        wide=True,
    )


def finding_page(view: View, who: Identity, finding: AbuseFinding, decision: str | None) -> Page:
    """A finding with its figures; where a decision is named, the form that confirms it."""
    may = administered(view.store, who)
    about = finding["about"][0].lower() + finding["about"][1:]
    known: list[tuple[str, Any]] = [
        ("severity", finding["severity"]),
        ("first seen (UTC)", numbers.moment(finding["first_seen"])),
        ("last seen (UTC)", numbers.moment(finding["last_seen"])),
        ("state", _became(finding)),
        ("decided by", finding["decided_by"]),
        ("why", finding["reason"]),
        ("its rows, in SQL", finding["query"]),
    ]
    return Page(
        "abuse",
        f"Finding {finding['id']}: {finding['subject_kind']} {finding['subject'][:60]}",
        f"It was found because {about}: {queries.figures(finding)}.",
        crumbs=[("Abuse", view.path("abuse"))],
        parts=[
            Part(
                "finding",
                "What is known",
                [Column("what", "What"), Column("is", "Is", "prose")],
                [{"what": what, "is": value} for what, value in known if value is not None],
                leads=("Its rows, the newest first", rows_link(view, finding)),
                wide=True,
                sortable=False,
            )
        ],
        template="abuse_finding.html",
        of_time=False,
        live=False,
        extra={
            "finding": finding,
            "decision": decision,
            "decisions": _DECISIONS,
            "lasts": _LASTS,
            "may_change": may is None or finding["organization_id"] in may,
        },
    )
