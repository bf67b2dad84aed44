"""`vital-tracking budgets check`: which budgets a call would meet, what is left in each, and whether it would go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from vital_tracking.alerts.wording import (
    ACTIONS,
    entity,
    limit_text,
    local_time,
    period_now,
    seconds_text,
    spent_text,
    time_left,
)
from vital_tracking.cli.budgets import options as form
from vital_tracking.cli.budgets.tables import SET_ONE, WINDOW_COLUMNS, Row, left, moment, windows_table, with_left
from vital_tracking.cli.render import options
from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call would meet: the strictest action of the budgets that it does not fit under, or None where it fits under all.

    `over` are the windows of enforced budgets that it does not fit under, the strictest first; `watched` those of budgets
    that only watch.
    """

    action: str | None
    over: list[dict[str, Any]]
    watched: list[dict[str, Any]]


def verdict(rows: Sequence[dict[str, Any]], cost: Decimal | None, tokens: Decimal | None, model: str | None) -> Verdict:
    """Judge a call of this cost and so many tokens by the windows it meets; what is None is not known, and fits into any rest."""
    needs = {"cost_usd": cost, "tokens": tokens, "calls": Decimal(1)}
    full = [row for row in rows if not _fits(left(row), needs[row["metric"]])]
    # A downgrading budget lets the very model pass that it names.
    full = [row for row in full if row["action"] != "downgrade" or model is None or row.get("downgrade_to") != model]
    strictest = sorted(full, key=lambda row: ACTIONS.index(row["action"]), reverse=True)
    over = [row for row in strictest if row["enforce"]]
    return Verdict(over[0]["action"] if over else None, over, [row for row in strictest if not row["enforce"]])


def _fits(room: Decimal, need: Decimal | None) -> bool:
    return room > 0 if need is None else need == 0 or need <= room


def check(
    user: Annotated[str | None, typer.Option(help="Whose call it is.")] = None,
    service: Annotated[str | None, typer.Option(help=f"{', '.join(SERVICE_TYPES)}.")] = None,
    organization: Annotated[
        str | None, typer.Option(help="The organization; by default that of VITAL_ORGANIZATION_ID.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="The agent's tier.")] = None,
    session: Annotated[str | None, typer.Option(help="The session.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent (its id).")] = None,
    workflow: Annotated[str | None, typer.Option(help="The workflow.")] = None,
    panel: Annotated[str | None, typer.Option(help="The panel.")] = None,
    solution: Annotated[str | None, typer.Option(help="The solution.")] = None,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    cost: Annotated[str | None, typer.Option(help="What the call may cost, in US dollars.")] = None,
    tokens: Annotated[str | None, typer.Option(help="How many tokens it may take.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print the windows as CSV.")] = False,
) -> None:
    """Show every window that a call would meet, what is left, and what would happen. Exit code 1 if it would be blocked."""
    settings = Settings.from_env()
    named = {
        "organization": organization if organization is not None else settings.organization_id,
        "service": options.chosen(service, "--service", SERVICE_TYPES) if service is not None else None,
        "tier": tier,
        "user": user,
        "session": session,
        "agent": agent,
        "workflow": workflow,
        "panel": panel,
        "solution": solution,
        "model": model,
    }
    entities = {kind: name for kind, name in named.items() if name is not None}
    if not entities:
        raise typer.BadParameter("say whose call it is, such as --user u-1 --service workflow")
    for kind, name in entities.items():
        options.named(name, f"--{kind}")
    needed = {"cost": _need(cost, "--cost", "cost_usd"), "tokens": _need(tokens, "--tokens", "tokens")}
    store = open_store(settings)
    state = store.call("budgets_v1")
    found = store.call("check_budget_v1", entities=json.dumps(entities))
    store.close()
    budgets = {budget["id"]: budget for budget in state["budgets"]}
    rows = [with_left(row) for row in found]
    for row in rows:
        row["downgrade_to"] = budgets.get(row["budget_id"], {}).get("downgrade_to")
    said = verdict(rows, needed["cost"], needed["tokens"], model)
    if json_:
        as_json({"action": said.action, "blocked": said.action == "block", "windows": rows})
    elif csv_:
        as_csv(rows, WINDOW_COLUMNS)
    else:
        now = datetime.fromisoformat(state["now"])
        if rows:
            console.print(windows_table(rows, now, console.width))
            say("")
        _tell(said, rows, needed, now, budgets)
    if said.action == "block":
        raise typer.Exit(1)


def _need(text: str | None, option: str, metric: str) -> Decimal | None:
    given = form.limit(text, option, metric) if text is not None else None
    return Decimal(given) if given is not None else None


def _tell(said: Verdict, rows: Sequence[Row], needed: dict[str, Decimal | None], now: datetime, budgets: Any) -> None:
    sizes = [
        limit_text(size, metric)
        for metric, size in (("cost_usd", needed["cost"]), ("tokens", needed["tokens"]))
        if size is not None
    ]
    call = f"A call of {' and '.join(sizes)}" if sizes else "A call"
    if not rows:
        say(f"No budget counts such a call. {SET_ONE}")
        return
    if said.action is None:
        rest = "" if sizes else _room(rows)
        say(f"{call} passes{rest}.")
    for row in said.over[:1]:
        say(f"{call} {_meets(row, budgets)} {_why(row, now)}")
    for row in said.watched:
        if row["action"] != "alert":
            say(f"Were budget {row['budget_id']} enforced, it {_meets(row, budgets)} {_why(row, now)}")


def _room(rows: Sequence[Row]) -> str:
    """How large a call may be that passes: the least that is left in each metric of the budgets that stop something."""
    least: dict[str, Decimal] = {}
    for row in rows:
        if row["enforce"] and row["action"] != "alert" and row["metric"] != "calls":
            least[row["metric"]] = min(left(row), least.get(row["metric"], left(row)))
    return ", up to " + " and ".join(limit_text(room, metric) for metric, room in least.items()) if least else ""


def _meets(row: Row, budgets: Any) -> str:
    budget = budgets[row["budget_id"]]
    if row["action"] == "throttle":
        return f"may have to wait: calls pass one every {seconds_text(Decimal(budget['throttle_interval_s']))}."
    if row["action"] == "downgrade":
        if row["downgrade_to"]:
            return f"passes only with a model no dearer than {row['downgrade_to']}."
        return "passes only with a cheaper model that the code offers (tracker.guard, VitalMiddleware)."
    return "would be blocked." if row["action"] == "block" else "passes; an alert is raised."


def _why(row: Row, now: datetime) -> str:
    rest = spent_text(max(left(row), Decimal(0)), Decimal(row["limit_amount"]), row["metric"])
    whose = entity(row["entity_type"], row["entity_id"], row["organization_id"])
    ends_at = moment(row["ends_at"])
    until = f" The window ends {time_left(ends_at, now)}, at {local_time(ends_at, row['timezone'])}." if ends_at else ""
    return f"Budget {row['budget_id']}, {whose}: {rest} left {period_now(row['period'])}.{until}"
