"""`vital-tracking why`: which budget stopped a call, what was in its window at that moment, and what can be done about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Annotated

import typer

from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.queries.budgets import BlockedCall, blocked_calls
from vital_tracking.queries.why import what_mends, why_blocked


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
    model = f" of {call['model']}" if call["model"] else ""
    whose = f" for user {call['user_id']}" if call["user_id"] else ""
    yield f"{call['created_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, call {call['id']}{model}{whose}"
    yield from (f"  {line}" for line in (*why_blocked(call), *what_mends(call)))
