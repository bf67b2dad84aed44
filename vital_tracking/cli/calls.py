"""`vital-tracking calls`: the most recent calls."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, say, table, usd
from vital_tracking.cli.render.times import moment
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store

COLUMNS = (
    "id",
    "created_at",
    "organization_id",
    "user_id",
    "session_id",
    "service_type",
    "service_id",
    "agent_id",
    "agent_name",
    "agent_tier",
    "workflow_id",
    "workflow_step",
    "panel_id",
    "panel_position",
    "solution_id",
    "framework",
    "provider",
    "model",
    "call_type",
    "message_type",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_estimated",
    "input_cost",
    "output_cost",
    "total_cost",
    "potential_cost",
    "priced",
    "response_time_ms",
    "ttft_ms",
    "cache_hit",
    "status",
    "error_type",
    "metadata",
)


class Status(StrEnum):
    """How a call ended."""

    ok = "ok"
    error = "error"
    cancelled = "cancelled"
    abandoned = "abandoned"
    blocked = "blocked"


def calls(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session's.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only this organization's.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's (its id).")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    service: Annotated[
        str | None, typer.Option(help="1:1_conversation, virtual_panel, workflow or solution_builder.")
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only calls that ended so.")] = None,
    unpriced: Annotated[bool, typer.Option("--unpriced", help="Only calls without a known price.")] = False,
    since: Annotated[str | None, typer.Option(help="A span such as 30m, 24h, 7d, or a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show recent calls, the newest first: who, what for, tokens, cost, time, outcome.

    Where a row stands for several calls, of which only the money was kept, a column says how many.
    """
    earliest = moment(since, "--since") if since is not None else None
    filters: dict[str, Any] = {
        "user_id": user,
        "session_id": session,
        "organization_id": organization,
        "agent_id": agent,
        "model": model,
        "service_type": service,
        "status": status.value if status else None,
        "priced": False if unpriced else None,
    }
    store = open_store(Settings.from_env())
    rows = store.read(
        "agent_usage_detailed",
        columns=COLUMNS,
        equals={name: value for name, value in filters.items() if value is not None},
        since=earliest,
        limit=limit,
    )
    store.close()
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, COLUMNS)
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


def _cells(row: dict[str, Any], *, merged: bool) -> tuple[str, ...]:
    place = row["workflow_step"] or (f"seat {row['panel_position']}" if row["panel_position"] else None)
    what_for = " / ".join(str(part) for part in (row["service_type"], row["user_id"], row["agent_name"], place) if part)
    marks = "".join(("~" if row["usage_estimated"] else "", " cached" if row["cache_hit"] else ""))
    time = row["response_time_ms"]
    return (
        str(row["created_at"])[5:19].replace("T", " "),
        what_for or "-",
        row["model"] or "-",
        *([f"{row['calls']:,}"] if merged else []),
        f"{row['total_tokens']:,}{marks}",
        usd(row["total_cost"]),
        f"{time:,.0f}" if time is not None else "-",
        row["status"] if row["status"] == "ok" else f"{row['status']} {row['error_type'] or ''}".strip(),
    )
