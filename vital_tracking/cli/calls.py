"""`vital-tracking calls`: the most recent calls."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render import filters
from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.options import after_place, zone
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import between, month, short_time
from vital_tracking.queries.calls import CALL_COLUMNS, StoredCall, place_of, usage_records
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.words import usd

_UTC: Final = "UTC"


def calls(
    user: filters.User = None,
    session: filters.Session = None,
    organization: filters.Organization = None,
    agent: filters.Agent = None,
    tier: filters.Tier = None,
    model: filters.Model = None,
    provider: filters.Provider = None,
    framework: filters.Framework = None,
    message_type: filters.MessageType = None,
    service: filters.Service = None,
    workflow: filters.Workflow = None,
    step: filters.Step = None,
    panel: filters.Panel = None,
    solution: filters.Solution = None,
    run: filters.Run = None,
    status: filters.Status = None,
    blocked: filters.Blocked = False,
    unpriced: filters.Unpriced = False,
    where: filters.Where = None,
    only: filters.Only = None,
    search: filters.Search = None,
    since: filters.Since = None,
    until: filters.Until = None,
    month_: filters.Month = None,
    timezone: filters.Timezone = _UTC,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="PLACE", help="The page after this call, as the page before it says.")
    ] = None,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show recent calls, the newest first: who, what for, tokens, cost, time, outcome. Their times are those of UTC.

    Where a row stands for several calls, of which only the money was kept, a column says how many.

    \b
    Examples:
      vital-tracking calls --since yesterday --blocked
      vital-tracking calls --run 0193f2c4-1a2b-7c3d-8e4f-5a6b7c8d9e0f --step triage
      vital-tracking calls --search "cardio timeout" --month 2026-11
      vital-tracking calls --agent cardio --only prompt_below=500 --only repeated_within=24h
    """
    zoned = timezone if timezone == _UTC else zone(timezone)
    if month_ is not None and (since, until) != (None, None):
        raise typer.BadParameter("--month says all: leave --since and --until out")
    first, last = month(month_, zoned) if month_ is not None else between(since, until, zoned)
    of_dimensions, chosen = filters.only_of(only)
    begun = chosen.pop("begun_from", None), chosen.pop("begun_before", None)
    wanted = Filters(
        user=user,
        session=session,
        organization=organization,
        agent=agent,
        tier=tier,
        model=model,
        provider=provider,
        framework=framework,
        message_type=message_type,
        service=service,
        workflow=workflow,
        step=step,
        panel=panel,
        solution=solution,
        run=run,
        status=status,
        blocked=blocked,
        unpriced=unpriced,
        metadata=filters.metadata_of(where),
        search=search,
        where=of_dimensions,
        chosen=chosen,
        since=first or begun[0],
        until=last or begun[1],
    )
    after_place(after)
    with opened() as store:
        rows = usage_records(store, wanted, limit=limit, after=after)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, CALL_COLUMNS)
    elif not rows and (wanted.given or wanted.since or wanted.until or after):
        say("No calls match. All of them: vital-tracking calls")
    elif not rows:
        say("No calls yet. For some, in a database of their own: vital-tracking demo; or see: vital-tracking doctor")
    else:
        console.print(fitted("", _COLUMNS if any(row["calls"] > 1 for row in rows) else _PLAIN, rows))
        if len(rows) == limit:
            say(f"For the calls before these, the same with: --after {place_of(rows[-1])}")


def _what_for(row: StoredCall) -> str:
    step = row["workflow_step_name"] or row["workflow_step"]
    place = step or (f"seat {row['panel_position']}" if row["panel_position"] else None)
    parts = (row["service_type"], row["user_id"], row["agent_name"] or row["agent_id"], place)
    return " / ".join(str(part) for part in parts if part) or "-"


def _tokens(row: StoredCall) -> str:
    return f"{row['total_tokens']:,}{'~' if row['usage_estimated'] else ''}{' cached' if row['cache_hit'] else ''}"


def _time(row: StoredCall) -> str:
    took = row["response_time_ms"]
    return f"{took:,.0f}" if took is not None else "-"


def _status(row: StoredCall) -> str:
    return row["status"] if row["status"] == "ok" else f"{row['status']} {row['error_type'] or ''}".strip()


def _number(row: dict[str, Any]) -> str:
    return f"{row['calls']:,}"


_COLUMNS: Final = (
    Column("time (UTC)", True, lambda row: short_time(row["created_at"])),
    Column("for", False, _what_for),
    Column("model", False, lambda row: row["model"] or "-"),
    Column("calls", True, _number),
    Column("tokens", True, _tokens, 1),
    Column("cost", True, lambda row: usd(row["total_cost"])),
    Column("ms", True, _time, 2),
    Column("status", False, _status),
)
_PLAIN: Final = tuple(column for column in _COLUMNS if column.heading != "calls")
