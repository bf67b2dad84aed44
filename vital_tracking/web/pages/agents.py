"""Agents: what each costs, and who they are: names, tiers, roles, when they were seen, and ids that stand for two things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.agents import drift_of, seen_agents
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.page import Column, Page, Part
from vital_tracking.web.pages import usage
from vital_tracking.web.pages.common import with_rates
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_MOST: Final = 200


@routes.get("/agents", name="vital-agents", dependencies=[Depends(reads("agents"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What each agent costs, and who it is."""
    return answer(request, who, store, asked, page, of_usage=True)


def page(view: View) -> Page:
    """The agents of a time, or one of them. Of whom they are is told where no more than agent and organization is filtered by."""
    told = set(view.asked.filters) == set(view.asked.only) & {"agent", "organization"}
    return usage.page(view, "agents", {"seen": partial(_seen, view)} if told else {})


def _seen(view: View) -> Part:
    only = view.asked.only
    found = seen_agents(
        view.store, view.asked.period, organization=only.get("organization"), agent=only.get("agent"), limit=_MOST
    )
    rows = [
        {
            **with_rates(agent),
            "agent": agent["agent_id"],
            "organization": agent["organization_id"],
            "names": _listed(agent["names"]),
            "tiers": _listed(agent["tiers"]),
            "roles": _listed(agent["roles"]),
            "drift": ("warn", drift) if (drift := drift_of(agent)) else None,
        }
        for agent in found
    ]
    several = len({row["organization"] for row in rows}) > 1
    return Part(
        "seen",
        "Agents seen",
        [
            Column("agent", "Agent", link=view.link("agents", "agent")),
            *([Column("organization", "Organization", link=view.link("agents", "organization"))] if several else []),
            Column("names", "Names"),
            Column("tiers", "Tiers"),
            Column("roles", "Roles", about="Those of the newest 10,000 calls"),
            Column("first_day", "First seen", "day", about="Of all days that are kept, in UTC"),
            Column("last_day", "Last seen", "day", about="Of all days that are kept, in UTC"),
            Column("calls", "Calls", "calls", link=view.link("calls", "agent")),
            Column("total_cost", "Cost", "usd"),
            Column("success_rate", "Success", "percent"),
            Column("drift", "Drift", "flag", about="One id with two names, tiers or roles"),
        ],
        rows,
        note="An id with two names or tiers is used for two things, or was changed on the way.",
        more=f"At most {_MOST:,} are shown." if len(found) == _MOST else "",
        wide=True,
    )


def _listed(values: Sequence[str]) -> str | None:
    return ", ".join(values) or None
