"""How far budgets are spent, and which alerts there were: the pages of budgets and of alerts."""

from __future__ import annotations

from datetime import timedelta

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.alerts.wording import entity, limit_text, sentence, spent_text
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.alerts import recent_alerts
from vital_tracking.queries.outlook import outlooks
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()


@routes.get("/budgets", dependencies=[Depends(reads("budgets"))])
def show_budgets(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Budgets and their windows."""
    return answer(request, who, store, asked, budgets_page)


@routes.get("/alerts", dependencies=[Depends(reads("alerts"))])
def show_alerts(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """The alerts of the last 30 days."""
    return answer(request, who, store, asked, alerts_page)


def budgets_page(view: View) -> Page:
    """The budgets that the reader may see, and their windows that run, the fullest first."""
    state = queries.all_budgets(view.store)
    windows = queries.windows(view.store)
    rows = []
    for row, ahead in zip(windows, outlooks(view.store, windows, state["now"]), strict=True):
        share = row["spent"] * 100 / row["limit_amount"] if row["limit_amount"] else None
        level = "bad" if share is None or share > 80 else "quiet" if share > 60 else "good"
        rows.append({
            **row,
            "whose": entity(row["entity_type"], row["entity_id"], row["organization_id"]),
            "used": share,
            "state": (level, "reached" if row["spent"] >= row["limit_amount"] else "running"),
            "spent_of": spent_text(row["spent"], row["limit_amount"], row["metric"]),
            "held": limit_text(row["granted"], row["metric"]),
            "remaining": limit_text(row["left"], row["metric"]) if row["left"] >= 0 else "nothing",
            "reached_at": ahead.reached_at,
            "at_limit": row["action"] if row["enforce"] else f"{row['action']} (shadow: only noted)",
        })  # fmt: skip
    return Page(
        "budgets",
        "How far are budgets spent?",
        "The budgets that stand on you or on your organizations, with their windows that run, as they are now.",
        parts=[
            Part(
                "windows", "Windows that run",
                [
                    Column("whose", "For"), Column("period", "Period"), Column("used", "Used", "percent"),
                    Column("state", "State", "flag"),
                    Column("spent_of", "Spent"), Column("held", "Held for calls under way"),
                    Column("remaining", "Remaining"),
                    Column("reached_at", "Reached at (UTC)", "moment", none="not foreseen"),
                    Column("ends_at", "Ends (UTC)", "moment", none="never"),
                    Column("at_limit", "At the limit"),
                ],
                rows, empty="No window runs: each begins with the first call that its budget counts.", wide=True,
            ),
            Part(
                "budgets", "Budgets", [Column("id", "Budget"), Column("what", "What it does")],
                [{**row, "what": sentence(row)} for row in state["budgets"]],
                empty="No budget stands on you. An admin sets one with: vital-tracking budgets set", wide=True,
            ),
        ],
        of_time=False,
    )  # fmt: skip


def alerts_page(view: View) -> Page:
    """The alerts of the last 30 days."""
    now = queries.all_budgets(view.store)["now"]
    found = recent_alerts(view.store, since=now - timedelta(days=30), limit=200)
    rows = [
        {
            **row,
            "whose": entity(row["entity_type"], row["entity_id"], row["organization_id"]),
            "crossed": row["threshold"] * 100 if row["threshold"] else None,
            "spent_of": spent_text(row["spent"], row["limit_amount"], row["metric"]),
        }
        for row in found
    ]
    columns = [
        Column("created_at", "When (UTC)", "moment"),
        Column("whose", "For", link=lambda _: view.path("budgets")),
        Column("period", "Period"),
        Column("crossed", "Crossed", "percent", none="a call did not fit"),
        Column("spent_of", "Spent"),
        Column("action", "At the limit"),
    ]
    empty = "No alert in the last 30 days."
    return Page(
        "alerts",
        "Which budgets were crossed?",
        "Thresholds of budgets that were crossed in the last 30 days, the newest first.",
        parts=[Part("alerts", "Alerts", columns, rows, empty=empty, wide=True)],
        of_time=False,
    )
