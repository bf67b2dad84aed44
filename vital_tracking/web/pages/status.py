"""Whether all is well: what `vital-tracking doctor` checks, for operators; for whoever is signed in what concerns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.check import Check, State
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.status import checks_for
from vital_tracking.web.view import View

routes = page_router()

_FLAGS: Final[dict[State, tuple[str, str]]] = {"fail": ("bad", "fails"), "warn": ("warn", "look"), "ok": ("ok", "fine")}


@routes.get("/status", name="vital-status-page", dependencies=[Depends(reads("status"))])
@routes.get("/admin/usage-analytics/test", dependencies=[Depends(reads("status"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Whether all is well."""
    return answer(request, who, store, asked, lambda view: page(view, who))


def page(view: View, who: Identity) -> Page:
    """The checks, those that ask for something first."""
    found = checks_for(who, view.store)
    states = [check.state for check in found]
    return Page(
        "status",
        "Is all well?",
        _lead(states, who),
        cards=[
            Card("Fail", numbers.count(states.count("fail"))),
            Card("Look at", numbers.count(states.count("warn"))),
            Card("Fine", numbers.count(states.count("ok"))),
        ],
        parts=[_checks(found)],
        of_time=False,
        live=False,
    )


def _lead(states: Sequence[State], who: Identity) -> str:
    of = "of the installation, as it is at this moment" if who.is_operator else "of what concerns you, at this moment"
    wrong = len(states) - states.count("ok")
    verdict = f"{counted(wrong, 'check')} of {len(states)} found something to do" if wrong else "Nothing is to be done"
    return f"{verdict}; these are the checks {of}."


def _checks(found: Sequence[Check]) -> Part:
    rows = [{"state": _FLAGS[check.state], "what": check.what, "fix": check.fix} for check in found]
    return Part(
        "checks",
        "Checks",
        [
            Column("state", "Result", "flag"),
            Column("what", "What was found", "prose"),
            Column("fix", "What to do", "prose", none=""),
        ],
        rows,
        empty="There is nothing to check.",
        wide=True,
    )
