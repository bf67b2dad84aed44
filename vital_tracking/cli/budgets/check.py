"""`vital-tracking budgets check`: which budgets a call would meet, what is left in each, and whether it would go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import typer

from vital_tracking.alerts.wording import (
    entity,
    limit_text,
    local_time,
    period_now,
    seconds_text,
    spent_text,
    time_left,
)
from vital_tracking.cli.budgets.options import entity_options, limit_of
from vital_tracking.cli.budgets.tables import SET_ONE, windows_table
from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.options import chosen, named
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.queries.budgets import WINDOW_COLUMNS, BudgetLimit, CallCheck, CheckedWindow, check_call
from vital_tracking.settings import Settings


@entity_options
def check(
    *,
    entities: dict[str, str],
    cost: Annotated[str | None, typer.Option(help="What the call may cost, in US dollars.")] = None,
    tokens: Annotated[str | None, typer.Option(help="How many tokens it may take.")] = None,
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print the windows as CSV.")] = False,
) -> None:
    """Show every window that a call would meet, what is left, and what would happen. Exit code 1 if it would be blocked."""
    settings = Settings.from_env()
    if settings.organization_id is not None:
        entities = {"organization": settings.organization_id, **entities}
    if not entities:
        raise typer.BadParameter("say whose call it is, such as --user u-1 --service workflow")
    if "service" in entities:
        chosen(entities["service"], "--service", SERVICE_TYPES)
    for kind, name in entities.items():
        named(name, f"--{kind}")
    needed = {"cost_usd": _need(cost, "--cost", "cost_usd"), "tokens": _need(tokens, "--tokens", "tokens")}
    with opened(settings) as store:
        found = check_call(store, entities, cost=needed["cost_usd"], tokens=needed["tokens"])
    blocked = found.verdict.action == "block"
    if json_:
        as_json({"action": found.verdict.action, "blocked": blocked, "windows": found.windows})
    elif csv_:
        as_csv(found.windows, WINDOW_COLUMNS)
    else:
        if found.windows:
            console.print(windows_table(found.windows, found.now, console.width))
            say("")
        for line in _verdict_text(
            found, [limit_text(size, metric) for metric, size in needed.items() if size is not None]
        ):
            say(line)
    if blocked:
        raise typer.Exit(1)


def _need(text: str | None, option: str, metric: str) -> Decimal | None:
    given = limit_of(text, option, metric) if text is not None else None
    return Decimal(given) if given is not None else None


def _verdict_text(found: CallCheck, sizes: list[str]) -> Iterator[str]:
    """Whether the call passes, and why not; `sizes` is how large it is, in words, as far as that is known."""
    call = f"A call of {' and '.join(sizes)}" if sizes else "A call"
    if not found.windows:
        yield f"No budget counts such a call. {SET_ONE}"
        return
    if found.verdict.action is None:
        yield f"{call} passes{'' if sizes else _room(found.windows)}."
    for row in found.verdict.over[:1]:
        yield f"{call} {_effect(row, found.budgets)} {_why(row, found.now)}"
    for row in found.verdict.watched:
        if row["action"] != "alert":
            yield f"Were budget {row['budget_id']} enforced, it {_effect(row, found.budgets)} {_why(row, found.now)}"


def _room(rows: Sequence[CheckedWindow]) -> str:
    """How large a call may be that passes: the least that is left in each metric of the budgets that stop something."""
    least: dict[str, Decimal] = {}
    for row in rows:
        if row["enforce"] and row["action"] != "alert" and row["metric"] != "calls":
            least[row["metric"]] = min(row["left"], least.get(row["metric"], row["left"]))
    return ", up to " + " and ".join(limit_text(room, metric) for metric, room in least.items()) if least else ""


def _effect(row: CheckedWindow, budgets: Mapping[int, BudgetLimit]) -> str:
    """What a window that is full does to the call."""
    if row["action"] == "throttle":
        interval = budgets[row["budget_id"]]["throttle_interval_s"]
        return f"may have to wait: calls pass one every {seconds_text(interval)}."
    if row["action"] == "downgrade":
        if row["downgrade_to"]:
            return f"passes only with a model no dearer than {row['downgrade_to']}."
        return "passes only with a cheaper model that the code offers (tracker.guard, VitalMiddleware)."
    return "would be blocked." if row["action"] == "block" else "passes; an alert is raised."


def _why(row: CheckedWindow, now: datetime) -> str:
    rest = spent_text(max(row["left"], Decimal(0)), row["limit_amount"], row["metric"])
    whose = entity(row["entity_type"], row["entity_id"], row["organization_id"])
    ends_at = row["ends_at"]
    until = f" The window ends {time_left(ends_at, now)}, at {local_time(ends_at, row['timezone'])}." if ends_at else ""
    return f"Budget {row['budget_id']}, {whose}: {rest} left {period_now(row['period'])}.{until}"
