"""A saved report as it is sent: what its owner may see of the whole days before the moment that it is sent for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fastapi.exceptions import RequestValidationError

from vital_tracking.errors import VitalError
from vital_tracking.queries.cache_hits import CacheFall
from vital_tracking.queries.report_schedules import DueReport, OwnersStore
from vital_tracking.queries.saved_reports import kind_of
from vital_tracking.stores.protocol import Store
from vital_tracking.web.asked import Asked, asked_before
from vital_tracking.web.mail.document import Document, document
from vital_tracking.web.mail.summary import falls_of, falls_part, summary_document
from vital_tracking.web.page import Page
from vital_tracking.web.pages import explorer
from vital_tracking.web.problems import Problem
from vital_tracking.web.view import View

ANSWER_S: Final = 60.0
"""How long the database may take for one question of a report; where it is asked over Supabase's API, that has its own limit."""


class ReportUnusable(VitalError):
    """What the report asks cannot be answered any more."""


def saved_document(
    store: Store, report: int, name: str, asked: Sequence[tuple[str, str]], moment: datetime, public_url: str | None
) -> Document:
    """A saved report of anybody's, by the operators' store, for a moment; links lead to the pages at `public_url`.

    Raises ReportUnusable where what it asks cannot be answered, StoreError where the database does not.
    """
    owners = OwnersStore(store.within(ANSWER_S), report)
    try:
        match kind_of(asked):
            case "summary":
                return summary_document(owners, asked, moment, name, public_url)
            case "caches":
                view = _view(owners, asked, moment, public_url)
                return _of_falls(view, falls_of(view), name, public_url)
            case _:
                view = _view(owners, asked, moment, public_url)
                page = explorer.page(view, dict(asked))
                link = f"{view.path('explore')}?{view.asked.here()}" if public_url else None
                # The title of its part says the same as the lead.
                return document(replace(page, lead=""), name, period_text(view.asked), link)
    except (Problem, RequestValidationError, ValueError, OverflowError):
        raise ReportUnusable(f"What the report {name!r} asks cannot be answered.") from None


def due_document(store: Store, due: DueReport, public_url: str | None) -> Document | None:
    """A report that is due; None where it has nothing to say: no hit rate has fallen that was not known when it was sent last."""
    if kind_of(due.asked) != "caches":
        return saved_document(store, due.id, due.name, due.asked, due.due_at, public_url)
    owners = OwnersStore(store.within(ANSWER_S), due.id)
    try:
        view = _view(owners, due.asked, due.due_at, public_url)
        earlier = _view(owners, due.asked, due.sent_at or due.due_at - timedelta(days=1), public_url)
    except (RequestValidationError, ValueError, OverflowError):
        raise ReportUnusable(f"What the report {due.name!r} asks cannot be answered.") from None
    falls = falls_of(view)
    known = {(fall.organization, fall.measure) for fall in falls_of(earlier)} if falls else set()
    news = [fall for fall in falls if (fall.organization, fall.measure) not in known]
    return _of_falls(view, news, due.name, public_url) if news else None


def _of_falls(view: View, falls: Sequence[CacheFall], name: str, public_url: str | None) -> Document:
    page = Page("caches", "Caches", " ".join(f"{fall.text}." for fall in falls), parts=[falls_part(falls)])
    return document(page, name, period_text(view.asked), view.keeping("models") if public_url else None)


def _view(store: Store, asked: Sequence[tuple[str, str]], moment: datetime, public_url: str | None) -> View:
    return View(store, asked_before(asked, moment), public_url or "")


def period_text(asked: Asked) -> str:
    """The days that a report is about."""
    period = asked.period
    first, last = period.first_day, period.last_day
    days = str(first) if first == last else f"{first} to {last}"
    return f"{days} ({period.timezone}), whole days"
