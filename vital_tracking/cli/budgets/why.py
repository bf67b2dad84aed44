"""`vital-tracking why`: which budget stopped a call, what was in its window at that moment, and what can be done about it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC
from decimal import ROUND_UP, Decimal
from typing import Annotated

import typer

from vital_tracking.alerts.wording import entity, local_time, period_now, spent_text, used
from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.budgets import BlockedBy, BlockedCall, blocked_calls, would_pass


def why(
    whom: Annotated[
        str | None,
        typer.Argument(
            metavar="[USER|CALL_ID]", help="Whose calls, or which one; also a session's, an agent's and the like."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How far to look back.")] = 30,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 3,
    json_: Json = False,
) -> None:
    """Say why calls were blocked: which budget, what was spent and held at that moment, and the command that mends it."""
    with opened() as store:
        found = blocked_calls(store, whom, days=days, limit=limit)
    if json_:
        as_json(found["calls"])
        return
    if not found["calls"]:
        whose = f" of {whom}" if whom is not None else ""
        say(f"No call{whose} was blocked in the last {days} days. See: vital-tracking budgets windows")
    for number, call in enumerate(found["calls"]):
        if number:
            say("")
        for line in _told(call):
            say(line)


def _told(call: BlockedCall) -> Iterator[str]:
    by: BlockedBy = call["blocked_by"] or {}
    model = f" of {call['model']}" if call["model"] else ""
    whose = f" for user {call['user_id']}" if call["user_id"] else ""
    yield f"{call['created_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, call {call['id']}{model}{whose}"
    if not by:
        yield "  Which budget stopped it was not noted."
        return
    budget = f"Budget {by['budget']}, {by['action']}, of" if "budget" in by else "Stopped for"
    yield f"  {budget} {entity(by['entity_type'], by['entity_id'], by.get('organization_id'))}"
    metric = by.get("metric", "cost_usd")
    if "limit" in by and "spent" in by:
        held = by.get("held", Decimal(0))
        aside = f", {amount_text(held, metric)} held for other calls" if held else ""
        needed = f"; this call might have taken {amount_text(by['needed'], metric)}" if "needed" in by else ""
        gone = f"{spent_text(by['spent'], by['limit'], metric)} {used(metric)} {period_now(by['period'])}"
        yield f"  At that moment {gone}{aside}{needed}."
    if "reason" in by:
        yield f"  {by['reason'][:1].upper()}{by['reason'][1:]}"
    yield from (f"  {line}" for line in _now(call, by, metric))


def _now(call: BlockedCall, by: BlockedBy, metric: str) -> Iterator[str]:
    """How it stands now, and what to do."""
    stored = call["budget"]
    if "limit" not in by:
        yield "See: vital-tracking doctor"
        return
    if stored is None:
        yield "That budget has been removed."
        return
    if would_pass(call):
        yield "A call like that would pass now."
        return
    if call["limit_amount"] is not None and call["spent"] is not None:
        ends = f"; it ends {local_time(call['ends_at'], stored['timezone'])}" if call["ends_at"] else ""
        yield f"The window that runs now: {spent_text(call['spent'], call['limit_amount'], metric)} {used(metric)}{ends}."
    more = by["needed"].quantize(Decimal("0.01") if metric == "cost_usd" else Decimal(1), rounding=ROUND_UP)
    command = ["vital-tracking", "budgets", "raise", by["entity_type"], shlex.quote(by["entity_id"]), f"+{more:f}"]
    if metric != "cost_usd":
        command += ["--metric", metric]
    if stored["organization_id"] and by["entity_type"] != "organization":
        command += ["--organization", shlex.quote(stored["organization_id"])]
    yield f"To let it pass until tomorrow: {' '.join(command)} --until tomorrow"
