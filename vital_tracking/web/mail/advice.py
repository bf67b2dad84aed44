"""Advice as it is sent: what is open, what it rests on, what was taken and what that saved, and what does not apply."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

from vital_tracking.advice.report import open_ones
from vital_tracking.queries.explore import Period
from vital_tracking.queries.recommendations import MOST, LastAdvice, saved_recommendations
from vital_tracking.stores import Store
from vital_tracking.web.asked import Asked
from vital_tracking.web.mail.document import Document, document
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages.advice_parts import (
    cards,
    lead,
    not_applicable_part,
    open_part,
    row_of,
    taken_part,
)
from vital_tracking.web.view import View


def advice_document(store: Store, found: LastAdvice, public_url: str | None) -> Document:
    """Advice that was found, as Markdown and HTML; links lead to the pages at `public_url`."""
    view = _view(store, found, public_url)
    organization = found["organization_id"]
    shown = open_ones(found)
    taken = [
        one
        for one in saved_recommendations(store, organization=organization, status="taken", limit=MOST)
        if one["organization_id"] == organization
    ]
    page = Page(
        "advice",
        "Advice",
        lead(found, shown),
        cards=cards(found, shown, taken),
        parts=[
            open_part(view, shown, found),
            Part(
                "how",
                "How to try each, and what could go wrong",
                [
                    Column("type", "Type"),
                    Column("about", "About"),
                    Column("how_to_try", "How to try it", "prose"),
                    Column("risk", "What could go wrong", "prose"),
                    Column("command", "What does it", "command", none=""),
                ],
                [row_of(one) for one in shown],
                empty="Nothing is open.",
            ),
            taken_part(taken),
            not_applicable_part(found),
        ],
        notices=found["notes"],
    )
    about = "all organizations" if organization is None else f"organization {organization}"
    last = found["until"] - timedelta(microseconds=1)
    query = f"?{urlencode({'organization': organization})}" if organization else ""
    return document(
        page,
        "Where money can be saved",
        f"{found['since']:%Y-%m-%d} to {last:%Y-%m-%d} (UTC), {about}",
        f"{view.path('advice')}{query}" if public_url else None,
    )


def _view(store: Store, found: LastAdvice, public_url: str | None) -> View:
    asked = Asked(Period(found["since"], found["until"]), "day", {})
    return View(store, asked, public_url or "")


def advised_part(view: View, organization: str | None) -> Part:
    """The open recommendations of a summary, the largest saving first, and what each adds to the total."""
    found = saved_recommendations(view.store, organization=organization, status="open")
    shown = [one for one in found if one["organization_id"] == organization and one["still_given"]]
    part = open_part(view, shown, None)
    return Part(
        "advice",
        "Where money can be saved",
        [column for column in part.columns if column.name not in ("saving_low", "saving_high", "confidence")],
        part.rows,
        note=part.note,
        total=part.total,
        empty="Nothing is advised. To look again: vital-tracking advise",
    )
