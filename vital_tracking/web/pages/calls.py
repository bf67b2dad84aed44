"""The calls themselves: a list that can be filtered and searched, and one of them with all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.core.record import STATUSES
from vital_tracking.queries.budgets import blocked_calls
from vital_tracking.queries.calls import StoredCall, place_of, usage_records
from vital_tracking.queries.chosen import TIMES, in_words
from vital_tracking.queries.explore import DIMENSIONS
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.names import names_of
from vital_tracking.queries.why import what_mends, why_blocked
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.asked import METADATA
from vital_tracking.web.listed import LONGEST_SEARCH, calls_as_csv, calls_filters, checked_place
from vital_tracking.web.page import Column, Page, Part, Row
from vital_tracking.web.pages.common import user_columns
from vital_tracking.web.problems import Problem
from vital_tracking.web.rendering import home
from vital_tracking.web.view import View

ROWS: Final = 100
STATUS: Final[Mapping[str, str]] = {
    "ok": "ok",
    "error": "bad",
    "cancelled": "quiet",
    "abandoned": "warn",
    "blocked": "warn",
    "running": "quiet",
}
"""How the ways a call or a run can end are coloured."""


def page(view: View, parameters: Mapping[str, str]) -> Page:
    """The newest calls that were asked for, a page at a time."""
    after, filters = parameters.get("after"), _filters(view, parameters)
    found = usage_records(view.store, filters, limit=ROWS, after=checked_place(after))
    older = None
    if len(found) == ROWS:
        older = f"{view.path('calls')}?{view.asked.here(after=place_of(found[-1]))}"
    return Page(
        "calls",
        "Which calls were made?",
        "Every call of this time, the newest first: who made it, for what, with which model, what it cost and how it ended.",
        parts=[calls_part(view, found)],
        template="calls.html",
        notices=_chosen(view),
        extra={
            "search": filters.search or "",
            "unpriced": filters.unpriced,
            **_form(view),
            "older": older,
            "newest": f"{view.path('calls')}?{view.asked.here()}" if after else None,
            "csv": f"{view.path('calls')}?{view.asked.here(format='csv', part='all')}",
        },
    )


def _chosen(view: View) -> list[str]:
    """What narrows the list beyond the fields of its form, as a link to evidence does."""
    said = in_words([pair for pair in view.asked.chosen if pair[0] not in TIMES])
    return [f"Only calls {said}."] if said else []


def calls_part(view: View, found: Sequence[StoredCall]) -> Part:
    """Calls as a table."""
    users, rows = user_columns(view, [shown(call) for call in found])
    return Part(
        "calls",
        "Calls",
        _columns(view, users),
        rows,
        empty="No call matches.",
        wide=True,
        sortable=False,
    )


def all_as_csv(view: View, parameters: Mapping[str, str]) -> Iterator[str]:
    """All calls that were asked for, in as much memory as a page of them takes."""
    return calls_as_csv(view.store, _filters(view, parameters))


def _filters(view: View, parameters: Mapping[str, str]) -> Filters:
    return calls_filters(
        view.asked,
        search=parameters.get("q", "").strip()[:LONGEST_SEARCH],
        unpriced=parameters.get("unpriced") == "1",
        hour_of_day=_whole(parameters, "hour_of_day", 0, 23),
        weekday=_whole(parameters, "weekday", 1, 7),
    )


def _whole(parameters: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise Problem(422, "invalid-request", f"{name} is none", hint=f"Give a number from {least} to {most}.")
    return int(text)


# The form

FIELD: Final = "only."
"""How the form's fields begin: what is empty there filters nothing, while an empty filter means calls that have none."""

_FIELDS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "user": ("User id", ()),
    "session": ("Session", ()),
    "service": ("Service", SERVICE_TYPES),
    "agent": ("Agent id", ()),
    "step": ("Step", ()),
    "framework": ("Framework", ()),
    "provider": ("Provider", ()),
    "model": ("Model", ()),
    "message_type": ("Message type", ()),
    "status": ("Status", STATUSES),
}


def _form(view: View) -> dict[str, Any]:
    """The fields of the form, as what was asked fills them; `kept` is what it hands on without a field."""
    filled = {name: view.asked.only.get(name, "") for name in _FIELDS}
    fields = [
        (f"{FIELD}{name}", label, filled[name], choices)
        for name, (label, choices) in _FIELDS.items()
        if filled[name] or name not in view.asked.filters  # what no field can hold stays as it is
    ]
    own = view.asked.own.items()
    return {
        "fields": fields,
        "filled": any(filled.values()),
        "kept": [
            *((name, value) for name, value in view.asked.pairs if not filled.get(name)),
            *((name, value) for name, value in own if name not in ("q", "unpriced")),
            *view.asked.chosen,
        ],
    }


def sent_form(request: Request, page: str) -> Response | None:
    """To the page by the query that its sent form asks for; None where none was sent."""
    pairs = request.query_params.multi_items()
    if not any(name.startswith(FIELD) for name, _ in pairs):
        return None
    wanted = [
        (name.removeprefix(FIELD), value)
        for name, value in pairs
        if value or name in DIMENSIONS or name.startswith(METADATA)
    ]
    return RedirectResponse(f"{home(request)}{page}?{urlencode(wanted)}", 303, headers={"Cache-Control": "no-store"})


def shown(call: StoredCall) -> dict[str, Any]:
    """A call as the list shows it: what it was for in one cell, and what is special about it."""
    part = (
        call["workflow_step_name"]
        or call["workflow_step"]
        or (f"seat {call['panel_position']}" if call["panel_position"] else None)
    )
    whole = call["workflow_id"] or call["panel_id"] or call["service_name"] or call["service_type"]
    marks = []
    if not call["priced"]:
        marks.append("unpriced")
    if call["usage_estimated"]:
        marks.append("estimated")
    if call["cache_hit"]:
        marks.append("from cache")
    if call["budget_action"]:
        marks.append(call["budget_action"].replace("_", " "))
    return {
        **call,
        "what": " / ".join(text for text in (whole, part) if text) or None,
        "agent": call["agent_name"] or call["agent_id"],
        "ended": (STATUS.get(call["status"], "quiet"), call["error_type"] or call["status"]),
        "marks": ("quiet", ", ".join(marks)) if marks else None,
    }


def _columns(view: View, users: Sequence[Column]) -> list[Column]:
    def call_page(row: Row) -> str:
        return view.path(f"calls/{row['id']}")

    def run(row: Row) -> str | None:
        return None if row["service_run_id"] is None else view.run(row["service_run_id"])

    return [
        Column("created_at", "Began (UTC)", "moment", link=call_page),
        *users,
        Column("what", "For", "brief", link=run),
        Column("agent", "Agent", "brief"),
        Column("model", "Model"),
        Column("total_tokens", "Tokens", "tokens"),
        Column("total_cost", "Cost", "usd", none="unpriced"),
        Column("response_time_ms", "Took", "ms"),
        Column("ended", "Ended", "flag"),
        Column("marks", "Notes", "flag"),
    ]


# One call

_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Whom and what for": (
        "organization", "organization_id", "user", "user_id", "session_id", "service_type", "service_name", "service_run_id",
        "agent_id", "agent_name",
        "agent_tier", "agent_role", "workflow_id", "workflow_step", "workflow_step_name", "panel_id", "panel_position",
        "solution_id", "framework", "message_type",
    ),
    "Model": ("provider", "model", "sent_model", "requested_model", "call_type"),
    "Tokens": (
        "prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
        "billed_units", "usage_estimated",
    ),
    "Cost in US dollars": ("input_cost", "output_cost", "fees", "total_cost", "potential_cost", "reported_cost", "price_version"),
    "Time": ("created_at", "response_time_ms", "ttft_ms", "first_word_ms", "throttled_ms"),
    "How it ended": ("status", "error_type", "cache_hit", "budget_action", "blocked_by"),
    "Traces": ("id", "run_id", "trace_id", "tags", "metadata"),
}  # fmt: skip


def one(view: View, call_id: UUID, found: StoredCall) -> Page:
    """A call with all that is known of it."""
    user, organization = found["user_id"] or "", found["organization_id"] or ""
    known = names_of(view.store, [user], [organization])
    facts: dict[str, Any] = {
        **found,
        "user": known.user(user) if user in known.users else None,
        "organization": known.organizations.get(organization),
    }
    parts = [
        Part(
            heading.lower().replace(" ", "-"),
            heading,
            [Column("name", "What"), Column("value", "Value")],
            [
                {"name": name.removesuffix("_ms").replace("_", " "), "value": _fact(name, facts[name])}
                for name in names
                if facts[name] not in (None, [], {})
            ],
            sortable=False,
        )
        for heading, names in _GROUPS.items()
    ]
    cost = "unpriced" if found["total_cost"] is None else numbers.usd_exact(found["total_cost"])
    crumbs = [("Calls", view.path("calls"))]
    if found["service_run_id"] is not None:
        crumbs.append(("Its run", view.run(found["service_run_id"])))
    if budget := (found["blocked_by"] or {}).get("budget"):
        crumbs.append(("The budget that stopped it", view.path(f"budgets/{budget}")))
    return Page(
        "calls",
        f"Call {call_id}",
        f"{cost} for {found['total_tokens']:,} tokens of {found['model'] or 'an unknown model'}, {found['status']}.",
        parts=[part for part in parts if part.rows],
        notices=list(_why(view, found)),
        crumbs=crumbs,
        of_time=False,
    )


def _why(view: View, call: StoredCall) -> Iterator[str]:
    """Why a call was blocked, and what mends it; nothing of any other call."""
    if call["status"] != "blocked":
        return
    for blocked in blocked_calls(view.store, str(call["id"]), days=3660, limit=1)["calls"]:
        yield from why_blocked(blocked)
        yield from what_mends(blocked)


def _fact(name: str, value: Any) -> str:
    """What is known of a call, in its unit."""
    if name.endswith("_tokens"):
        return counted(value, "token")
    if name.endswith("_ms"):
        return numbers.duration(value)
    if isinstance(value, Decimal):
        return numbers.usd_exact(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, datetime):
        return f"{numbers.moment(value)} UTC"
    return numbers.machine(value)
