"""Budgets and their windows as tables, and the words around them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from rich.table import Table
from rich.text import Text

from vital_tracking.alerts.wording import (
    entity,
    limit_text,
    limits,
    limits_text,
    local_time,
    over_it,
    percent,
    spent_text,
    thresholds_text,
    time_left,
)
from vital_tracking.cli.render.console import share_bar, table
from vital_tracking.core.amounts import amount_text
from vital_tracking.core.entities import ENTITIES
from vital_tracking.queries.budgets import BudgetLimit, BudgetOverride, BudgetWindow
from vital_tracking.queries.outlook import Outlook

SET_ONE: Final = "Set one: vital-tracking budgets set user --daily 5 --action block"
_EXAMPLES: Final = {entity.name: entity.example for entity in ENTITIES}
_WIDE: Final = 150
_HELD: Final = 5
_LIMITS: Final = {
    "minute": "minute_limit",
    "daily": "daily_limit",
    "monthly": "monthly_limit",
    "total": "total_limit",
}
_PERIODS: Final = {"minute": "minute", "day": "day", "month": "month", "total": "in all"}


def period_name(period: str) -> str:
    """The period of a window, short: day, in all."""
    return _PERIODS.get(period, period)


def budgets_table(budgets: Sequence[BudgetLimit], fullest: Mapping[int, BudgetWindow] | None = None) -> Table:
    """Budgets, a line each; with `fullest`, also the window of each that is nearest to its limit."""
    headings = [
        ("id", True),
        ("for", False),
        ("limit", False),
        ("over it", False),
        ("alerts at", False),
        ("zone", False),
    ]
    headings += [("also", False)] if any(map(_also, budgets)) else []
    headings += [("fullest now", True), ("", False)] if fullest is not None else []
    rows: list[list[str | Text]] = []
    for budget in budgets:
        row: list[str | Text] = [
            str(budget["id"]),
            entity(budget["entity_type"], budget["entity_id"], budget["organization_id"]),
            limits_text(budget),
            over_it(budget),
            ", ".join(thresholds_text([share]) for share in budget["alert_thresholds"]) or "-",
            budget["timezone"],
        ]
        if ("also", False) in headings:
            row.append(_also(budget))
        if fullest is not None:
            row += _fullest(fullest.get(budget["id"]))
        rows.append(row)
    return table("", headings, rows)


def _also(budget: BudgetLimit) -> str:
    """Settings that most budgets leave as they are."""
    strict = "strict" if budget["strict"] else ""
    deny = "deny when away" if budget["when_unavailable"] == "deny" else ""
    return ", ".join(filter(None, (strict, deny)))


def _fullest(row: BudgetWindow | None) -> list[str | Text]:
    if row is None:
        return ["", ""]
    spent, limit = row["spent"], row["limit_amount"]
    named = f"{percent(spent, limit)} %, {period_name(row['period'])}, {row['entity_id']}"
    return [share_bar(spent, row["granted"], limit), named]


RATE_IS: Final = "Reached: by the rate of the window so far; of a young one, by the one before."


def _reached(row: BudgetWindow, ahead: Outlook) -> str:
    """When a window's limit is reached, in a few words."""
    if ahead.rests_on in ("ended", "reached"):
        return ahead.rests_on
    if ahead.rests_on == "too little":
        return "reached: unknown yet"
    return (
        "lasts at this rate"
        if ahead.reached_at is None
        else f"reached about {local_time(ahead.reached_at, row['timezone'])}"
    )


def windows_table(
    rows: Sequence[BudgetWindow], now: datetime, width: int, ahead: Sequence[Outlook] | None = None
) -> Table:
    """Windows: a bar of what is spent and held, what is left, and when each ends. A line each, two where `width` is small.

    With `ahead` also when each is reached.
    """
    told = [_reached(row, one) for row, one in zip(rows, ahead, strict=True)] if ahead is not None else None
    if width < _WIDE:
        narrow = [("id", True), ("for", False), ("", True), ("spent", False), ("window ends", True)]
        lines = [_two_lines(_window(row, now)) for row in rows]
        for line, words in zip(lines, told or (), strict=told is not None):
            line[1] = f"{line[1]}\n{words}"
        return table("", narrow, lines)
    headings = [("id", True), ("for", False), ("", True), ("", True), ("spent", True), ("held", True), ("left", True)]
    headings += [("window ends", False), ("", False), ("over it", False)]
    cells = [_window(row, now) for row in rows]
    if not any(row[_HELD] for row in cells):
        del headings[_HELD]
        for row in cells:
            del row[_HELD]
    if told is not None:
        headings.append(("at this rate", False))
        for row, words in zip(cells, told, strict=True):
            row.append(words)
    return table("", headings, cells)


def _window(row: BudgetWindow, now: datetime) -> list[str | Text]:
    spent, granted, limit = row["spent"], row["granted"], row["limit_amount"]
    metric, ends_at = row["metric"], row["ends_at"]
    return [
        str(row["budget_id"]),
        f"{entity(row['entity_type'], row['entity_id'], row['organization_id'])}, {period_name(row['period'])}",
        share_bar(spent, granted, limit),
        f"{percent(spent, limit)} %",
        spent_text(spent, limit, metric),
        amount_text(granted, metric) if granted else "",
        amount_text(max(row["left"], Decimal(0)), metric),
        local_time(ends_at, row["timezone"]),
        time_left(ends_at, now),
        row["action"] if row["enforce"] else f"{row['action']} (shadow)",
    ]


def _two_lines(cells: Sequence[str | Text]) -> list[str | Text]:
    number, whose, bar, share, spent, held, rest, ends_at, ends, over = cells
    holding = f", {held} held" if held else ""
    return [
        number,
        f"{whose}\n{over}",
        Text.assemble(bar, f"\n{share}"),
        f"{spent}\n{rest} left{holding}",
        f"{ends_at}\n{ends}" if ends_at else ends,
    ]


def exception_text(row: BudgetOverride) -> str:
    """An exception in a line: user vip: $10 a day in place of what each has; user vip: $10 more until 1 Dec 00:00 UTC."""
    whose = entity(row["entity_type"], row["entity_id"], row["organization_id"])
    acts = f" ({row['action']} budgets)" if row["action"] else ""
    ends = f" until {local_time(row['until'], 'UTC')}" if row["until"] else ""
    if row["raise_by"] is not None:
        return f"{whose}: {limit_text(row['raise_by'], row['metric'])} more{ends}{acts}."
    return f"{whose}: {limits_text(row)} in place of what each has{ends}{acts}."


def remarks(budget: BudgetLimit, others: Sequence[BudgetLimit], first: Sequence[BudgetLimit] = ()) -> list[str]:
    """What else there is to know of a budget that was just set.

    `others` are those for the same entity and metric, `first` those of each of its kind whose limit is reached before its own.
    """
    said = []
    periods = dict(limits(budget))
    if {"day", "month"} & periods.keys():
        begin = " and ".join(name for period, name in (("day", "days"), ("month", "months")) if period in periods)
        said.append(f"Its {begin} begin at midnight in {budget['timezone']}.")
    if budget["action"] != "alert" and budget["alert_thresholds"]:
        said.append(f"Alerts are raised at {thresholds_text(budget['alert_thresholds'])}.")
    if budget["action"] == "downgrade" and not budget["downgrade_to"]:
        said.append(
            "No model is named: over the limit, calls go on only where the code offers a cheaper model, with "
            "tracker.guard(model, downgrade_to=...) or VitalMiddleware. Name one with --downgrade-to MODEL, and every model no "
            "dearer than it passes."
        )
    if budget["strict"]:
        said.append("Strict: calls must limit their answers (max_tokens), and each byte of a prompt counts as a token.")
    if budget["when_unavailable"] == "deny":
        said.append("While the database is away, its calls are denied.")
    shorter: tuple[str, Decimal] | None = None
    for period, limit in periods.items():
        if shorter and shorter[1] >= limit:
            said.append(
                f"Mind: the limit for the {shorter[0]} is not below that for the {_PERIODS[period]}, so it never acts."
            )
        shorter = (period, limit)
    said += [
        f"Mind: budget {one['id']} gives {entity(one['entity_type'], '*', one['organization_id'])} {limits_text(one)}, which is "
        f"reached first: {over_it(one)}. To put this limit in its place: {_instead(budget)}"
        for one in first
    ]
    said += [
        f"Beside it: budget {other['id']}, {limits_text(other)}, {over_it(other)}. Each acts at its own limit."
        for other in others
    ]
    return said


def _instead(budget: BudgetLimit) -> str:
    command = ["vital-tracking budgets set", budget["entity_type"], shlex.quote(budget["entity_id"])]
    row = dict(budget)
    command += [f"--{option} {row[column]:f}" for option, column in _LIMITS.items() if row[column] is not None]
    if budget["metric"] != "cost_usd":
        command.append(f"--metric {budget['metric']}")
    if budget["organization_id"]:
        command.append(f"--organization {shlex.quote(budget['organization_id'])}")
    return " ".join([*command, "--instead"])


def next_commands(budget: BudgetLimit) -> list[str]:
    """Commands to copy after a budget was set."""
    known = budget["entity_id"] != "*"
    someone = shlex.quote(budget["entity_id"] if known else _EXAMPLES[budget["entity_type"]])
    check = ["vital-tracking budgets check", f"--{budget['entity_type']}", someone]
    if budget["organization_id"] and budget["entity_type"] != "organization":
        check += ["--organization", shlex.quote(budget["organization_id"])]
    return [
        f"vital-tracking budgets windows{f' --entity {someone}' if known else ''}",
        " ".join(check),
        f"vital-tracking budgets remove {budget['id']}",
    ]
