"""The tools in which models were called: their names, and what those calls cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.explore import ANY
from vital_tracking.queries.words import counted
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.page import Page, Part
from vital_tracking.web.pages.common import ranking
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_TOOL: Final = "metadata.tool"
_EMPTY: Final = (
    "No model was called inside a tool in this time. A tool that calls no model costs no tokens, and is not recorded."
)


@routes.get("/tools", name="vital-tools", dependencies=[Depends(reads("tools"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """The tools in which models were called."""
    return answer(request, who, store, asked, page, of_usage=True)


def page(view: View) -> Page:
    """Tools by what the calls inside them cost, and by the agents that use them."""
    of: Mapping[str, Sequence[str | None]] = {_TOOL: view.asked.filters.get(_TOOL, (ANY,))}
    tools = ranking(view, "tools", "By tool", _TOOL, page="calls", filters=of, wide=True)
    agents = ranking(view, "agents", "By tool and agent", _TOOL, "agent", page="calls", filters=of, wide=True)
    return Page(
        "tools",
        "What do tools cost?",
        f"{counted(len(tools.rows), 'tool')} in which models were called, with what those calls cost, as of now.",
        parts=[_said(tools), agents] if tools.rows else [_said(tools)],
    )


def _said(part: Part) -> Part:
    return replace(part, empty=_EMPTY)
