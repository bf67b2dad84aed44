"""A saved report as it is sent: what its owner may see of the whole days before the moment that it is sent for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from fastapi.exceptions import RequestValidationError

from vital_tracking.errors import VitalError
from vital_tracking.queries.report_schedules import OwnersStore
from vital_tracking.stores.protocol import Store
from vital_tracking.web.asked import Asked, asked_before
from vital_tracking.web.mail.document import Document, document
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
    view = View(OwnersStore(store.within(ANSWER_S), report), _asked(asked, moment), public_url or "")
    try:
        page = explorer.page(view, dict(asked))
    except Problem as problem:
        raise ReportUnusable(f"The report {name!r} cannot be answered: {problem.title}.") from None
    link = f"{view.path('explore')}?{view.asked.here()}" if public_url else None
    return document(replace(page, lead=""), name, period_text(view.asked), link)  # the title of its part says the same


def period_text(asked: Asked) -> str:
    """The days that a report is about."""
    period = asked.period
    first, last = period.first_day, period.last_day
    days = str(first) if first == last else f"{first} to {last}"
    return f"{days} ({period.timezone}), whole days"


def _asked(pairs: Sequence[tuple[str, str]], moment: datetime) -> Asked:
    try:
        return asked_before(pairs, moment)
    except (RequestValidationError, ValueError, OverflowError):
        raise ReportUnusable("The report asks for a time, zone or filter that there is not.") from None
