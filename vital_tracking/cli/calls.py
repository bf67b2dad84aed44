"""`vital-tracking calls`: the most recent calls."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.options import either
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import moment, short_time
from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.core.record import STATUSES
from vital_tracking.queries.calls import CALL_COLUMNS, CallFilters, StoredCall, recent_calls
from vital_tracking.queries.words import usd

if TYPE_CHECKING:
    Status = str
else:
    Status = StrEnum(
        "Status", {status: status for status in STATUSES}
    )  # the command line reads the choices from an enum


def calls(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session's.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's (its id).")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    service: Annotated[str | None, typer.Option(help=f"{either(SERVICE_TYPES)}.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only calls that ended so.")] = None,
    unpriced: Annotated[bool, typer.Option("--unpriced", help="Only calls without a known price.")] = False,
    since: Annotated[str | None, typer.Option(help="A span such as 30m, 24h, 7d, or a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show recent calls, the newest first: who, what for, tokens, cost, time, outcome.

    Where a row stands for several calls, of which only the money was kept, a column says how many.
    """
    filters = CallFilters(
        user=user,
        session=session,
        organization=organization,
        agent=agent,
        model=model,
        service=service,
        status=status,
        unpriced=unpriced,
        since=moment(since, "--since") if since is not None else None,
    )
    with opened() as store:
        rows = recent_calls(store, filters, limit=limit)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, CALL_COLUMNS)
    elif not rows:
        say("No calls match. Run `vital-tracking demo` for some, or see `vital-tracking doctor`.")
    else:
        merged = any(row["calls"] > 1 for row in rows)
        headings = [heading for heading in _HEADINGS if merged or heading != _CALLS]
        console.print(table("", headings, [_cells(row, merged=merged) for row in rows]))


_CALLS = ("calls", True)
_HEADINGS = (
    ("time (UTC)", True),
    ("for", False),
    ("model", False),
    _CALLS,
    ("tokens", True),
    ("cost", True),
    ("ms", True),
    ("status", False),
)


def _cells(row: StoredCall, *, merged: bool) -> tuple[str, ...]:
    place = row["workflow_step"] or (f"seat {row['panel_position']}" if row["panel_position"] else None)
    what_for = " / ".join(str(part) for part in (row["service_type"], row["user_id"], row["agent_name"], place) if part)
    marks = "".join(("~" if row["usage_estimated"] else "", " cached" if row["cache_hit"] else ""))
    time = row["response_time_ms"]
    return (
        short_time(row["created_at"]),
        what_for or "-",
        row["model"] or "-",
        *([f"{row['calls']:,}"] if merged else []),
        f"{row['total_tokens']:,}{marks}",
        usd(row["total_cost"]),
        f"{time:,.0f}" if time is not None else "-",
        row["status"] if row["status"] == "ok" else f"{row['status']} {row['error_type'] or ''}".strip(),
    )
