"""How far budgets are spent: their windows that run, and the budgets behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.alerts.wording import entity, sentence
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.alerts import recent_alerts
from vital_tracking.queries.budgets import BudgetWindow
from vital_tracking.queries.outlook import outlooks
from vital_tracking.stores import Store
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads, refreshes
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.common import administered, named, whose
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_LONGEST: Final = timedelta(days=3650)
_FULLEST: Final = 5


Acted: TypeAlias = frozenset[tuple[int | None, str, datetime]]
"""The windows of budgets that only watch which would have acted lately: the budget, the entity, and when the window began."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with budgets at a moment of the database's clock: all of them, and their windows that run."""

    now: datetime
    budgets: Sequence[Row]
    windows: Sequence[BudgetWindow]
    acted: Acted

    @property
    def version(self) -> str:
        """Another text as soon as any of it has changed."""
        return repr((self.budgets, self.windows, sorted(self.acted, key=repr)))


def standing(store: Store) -> Standing:
    """How it stands with the budgets that the reader may see."""
    state = queries.all_budgets(store)
    windows = queries.windows(store, quotas=False)
    return Standing(state["now"], state["budgets"], windows, _acted(store, state["now"]))


def _acted(store: Store, now: datetime) -> Acted:
    return frozenset(
        (row["budget_id"], row["entity_id"], row["window_starts_at"])
        for row in recent_alerts(store, since=now - timedelta(days=31), superseded=True)
        if not row["enforce"] and (not row["threshold"] or row["spent"] >= row["limit_amount"])
    )


@routes.get("/budgets", name="vital-budgets", dependencies=[Depends(refreshes), Depends(reads("budgets"))])
def show_budgets(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Budgets and their windows."""
    found = standing(store)
    return answer(
        request, who, store, asked, lambda view: budgets_page(view, who, found), of_usage=True, version=found.version
    )


def budgets_page(view: View, who: Identity, found: Standing) -> Page:
    """The budgets that the reader may see, and their windows that run, the fullest first."""
    organizations = administered(view.store, who)
    return Page(
        "budgets",
        "How far are budgets spent?",
        "The budgets that stand on you or on your organizations, with their windows that run, as they are now.",
        parts=[
            windows_part(view, found.windows, found.now),
            Part(
                "budgets", "Budgets",
                [Column("id", "Budget", link=budget_link(view, "id")), Column("what", "What it does", "prose")],
                [{**row, "what": sentence(row)} for row in found.budgets],
                empty="No budget stands on you.", wide=True,
            ),
        ],
        template="budgets.html",
        of_time=False,
        extra={"may_change": organizations is None or bool(organizations)},
    )  # fmt: skip


def budget_link(view: View, field: str) -> Callable[[Row], str | None]:
    """Where a row leads whose field holds a budget's id."""
    return lambda row: view.path(f"budgets/{row[field]}")


def windows_part(view: View, windows: Sequence[BudgetWindow], now: datetime) -> Part:
    """Windows as bars: what is spent, held and left, when that is gone, and what then happens."""
    acted = _acted(view.store, now)
    rows = [
        _row(row) | {
            "reached_at": ahead.reached_at,
            "shadow": "would have acted" if (row["budget_id"], row["entity_id"], row["starts_at"]) in acted
            else None if row["enforce"] else "nothing yet",
        }
        for row, ahead in zip(windows, outlooks(view.store, windows, now), strict=True)
    ]  # fmt: skip

    def calls(row: Row) -> str:
        return _calls_of(view, row, now)

    def blocked(row: Row) -> str:
        return _calls_of(view, row, now, status="blocked")

    return Part(
        "windows", "Windows that run",
        [
            *whose(budget_link(view, "budget_id")),
            Column("period", "Period"),
            Column("used", "Used", "meter", none="no limit"),
            Column("limit_amount", "Limit", "amount"),
            Column("spent", "Spent", "amount", link=calls),
            Column("granted", "Held", "amount", about="Set aside for calls under way", rare=True),
            Column("remaining", "Remaining", "amount"),
            Column("reached_at", "Reached at (UTC)", "minute", none="not foreseen"),
            Column("ends_at", "Ends (UTC)", "minute", none="never"),
            Column("at_limit", "At the limit", link=blocked, about="Leads to the calls that were blocked"),
            Column("shadow", "Shadow said", about="What a budget that only watches would have done", rare=True),
        ],
        rows, empty="No window runs: each begins with the first call that its budget counts.", wide=True,
    )  # fmt: skip


def fullest(view: View, *, limit: int = _FULLEST, organization: str | None = None) -> list[Row]:
    """The windows of budgets that are fullest, of all or of an organization's own. Quotas stand beside them."""
    found = queries.windows(view.store, limit=limit, organization=organization, quotas=False)
    return [_row(row) for row in found]


def fullest_card(view: View, rows: Sequence[Row]) -> list[Card]:
    """The window that is next to its limit, where one runs."""
    return [
        Card(
            "Fullest budget",
            numbers.percent(row["used"]),
            note=f"{entity(row['entity_type'], row['entity_id'], row['organization_id'])}, {row['period']}: {row['at_limit']}",
            link=view.path(f"budgets/{row['budget_id']}"),
        )
        for row in rows[:1]
    ]


def fullest_part(view: View, rows: Sequence[Row]) -> Part:
    """The windows that are fullest, as far as a glance needs them."""
    columns = [
        *whose(budget_link(view, "budget_id")),
        Column("period", "Period"),
        Column("used", "Used", "meter", none="no limit"),
        Column("spent", "Spent", "amount"),
        Column("limit_amount", "Limit", "amount"),
        Column("at_limit", "At the limit"),
    ]
    return Part(
        "budgets", "The fullest budgets now", columns, rows,
        empty="No budget is being spent. Whoever administers an organization sets one under Budgets.",
    )  # fmt: skip


def _row(row: BudgetWindow) -> dict[str, Any]:
    limit = row["limit_amount"]
    return {
        **row,
        **named(row),
        "used": row["spent"] * 100 / limit if limit else 100,
        "remaining": max(row["left"], Decimal(0)),
        "at_limit": row["action"] if row["enforce"] else f"{row['action']} (shadow)",
    }


def _calls_of(view: View, row: Row, now: datetime, **more: str) -> str:
    """The calls that a window counts, in days of UTC, in which pages tell times."""
    first = max(row["starts_at"], now - _LONGEST).astimezone(UTC).date()
    asked = {"since": str(first), row["entity_type"]: row["entity_id"], **more}
    if row["organization_id"] is not None:
        asked["organization"] = row["organization_id"]
    return f"{view.path('calls')}?{urlencode(asked)}"
