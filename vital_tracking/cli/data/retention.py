"""`vital-tracking retention`: how long rows are kept, which ones have expired, and deleting those."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.console import as_json, console, progress_bar, say, table
from vital_tracking.cli.render.session import Yes, opened
from vital_tracking.core.closest import did_you_mean
from vital_tracking.errors import VitalError
from vital_tracking.queries import retention as queries
from vital_tracking.queries.maintenance import keep_partitions
from vital_tracking.queries.retention import (
    Deleted,
    Month,
    Retention,
    delete_expired,
    expired_months,
    expired_rows,
    months,
    retention_plan,
)
from vital_tracking.queries.words import counted, size
from vital_tracking.stores import Store
from vital_tracking.stores.relations import MONTHLY

app = typer.Typer(
    help="Retention: how long what is kept, and deleting what has had its time.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

FOR_EVER: Final = "forever"
_SPAN: Final = re.compile(r"(\d+)\s*(d|days?|w|weeks?|months?|y|years?)")
_UNITS: Final = {"d": "days", "w": "weeks", "m": "months", "y": "years"}


@app.command("show")
def show(json_: Json = False) -> None:
    """Show how long each table keeps its rows, and what has had its time.

    Whole months (UTC) go, so rows are kept at least as long as it says. Nothing is deleted.

    \b
    Examples:
      vital-tracking retention show
    """
    with opened() as store:
        report = retention_plan(store)
    if json_:
        as_json(report)
        return
    rows = [
        (
            row["table_name"],
            row["keep"] or "for ever",
            f"{row['kept_from']:%Y-%m-%d}" if row["kept_from"] else "-",
            size(row["bytes"]),
            f"{row['rows']:,}",
        )
        for row in report["tables"]
    ]
    headings = (("table", False), ("keep", False), ("kept from", False), ("size", True), ("rows to go", True))
    console.print(table("", headings, rows))
    _tell_months(report)
    if expired_rows(report):
        say(
            "To delete them: vital-tracking retention run    To keep them longer: vital-tracking retention set TABLE 180d"
        )
    else:
        say("Nothing has had its time.")


@app.command("set")
def set_retention(
    table_name: Annotated[str, typer.Argument(metavar="TABLE", help="One of the tables of `retention show`.")],
    keep: Annotated[str, typer.Argument(help="How long: 90d, 26w, '18 months', 7y; at least 31d. forever: for ever.")],
    json_: Json = False,
) -> None:
    """Keep a table's rows so long. Deletes nothing.

    \b
    Examples:
      vital-tracking retention set token_usage_logs 180d
      vital-tracking retention set usage_aggregations_daily_agents forever
    """
    with opened() as store:
        stored = queries.set_retention(store, table_name, _span(keep))
    if json_:
        as_json(stored)
    else:
        say(
            f"{stored['table_name']}: kept {stored['keep'] or 'for ever'}. Nothing is deleted yet: vital-tracking retention show"
        )


def _span(text: str) -> str | None:
    if text.strip().lower() == FOR_EVER:
        return None
    if not (match := _SPAN.fullmatch(text.strip().lower())):
        raise typer.BadParameter("KEEP takes a span such as 90d, 26w, '18 months' or 7y, or forever")
    return f"{match[1]} {_UNITS[match[2][0]]}"


@app.command("run")
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Delete what has had its time: shows it first, and asks.

    Months of calls, events, costs and executions are dropped whole, everything else goes in batches; stopping it half-way does
    no harm. The sums of what is deleted stay, and so does what budgets have counted. To have the database do it by itself, see
    docs/retention.md.

    \b
    Examples:
      vital-tracking archive --to archive && vital-tracking retention run
      vital-tracking retention run --dry-run
    """
    with opened() as store:
        plan = retention_plan(store)
        if dry_run or not expired_rows(plan):
            if json_:
                as_json(plan)
            else:
                _tell_plan(plan)
            return
        if not yes:
            _tell_plan(plan)
            typer.confirm("Delete them for good?", abort=True)
        done = _delete(store, expired_rows(plan))
    if json_:
        as_json({"dry_run": False, "deleted": done.rows, "waiting": done.waiting})
    else:
        for name, rows in done.rows.items():
            say(f"{name}: {counted(rows, 'row')} deleted")
    if done.waiting:
        raise VitalError("A month is in use and was left where it is. Run it again: vital-tracking retention run")


def _delete(store: Store, expected: int) -> Deleted:
    with progress_bar() as bar:
        task = bar.add_task("deleting", total=expected)
        return delete_expired(store, lambda rows: bar.update(task, completed=rows))


def _tell_plan(plan: Retention) -> None:
    for row in plan["tables"]:
        if row["rows"] and row["kept_from"]:
            since = f"{row['kept_from']:%Y-%m-%d}"
            say(f"{row['table_name']}: {counted(row['rows'], 'row')} from before {since} (keep {row['keep']})")
    _tell_months(plan)
    if not expired_rows(plan):
        say("Nothing has had its time. How long what is kept: vital-tracking retention show")


def _tell_months(plan: Retention) -> None:
    """Say which months would be deleted, and warn of those that are in no archive as they are now."""
    for what, expired in expired_months(plan).items():
        say(f"  {what}: " + ", ".join(f"{month['month']} ({counted(month['rows'], 'row')})" for month in expired))
        if missing := [month["month"] for month in expired if not month["archived"]]:
            command = "vital-tracking archive --to archive" + ("" if what == "calls" else f" --of {what}")
            say(f"In no archive: {', '.join(missing)}. To write them to files first: {command}")


@app.command("partitions")
def partitions(
    of: Annotated[str, typer.Option(metavar="WHAT", help=f"List months of: {', '.join(MONTHLY)}.")] = "calls",
    json_: Json = False,
) -> None:
    """Make the months' partitions ahead, move rows that are in none into theirs, and list the months.

    Every process that records calls has this done once a day, and so does `vital-tracking refresh`.
    """
    if of not in MONTHLY:
        raise typer.BadParameter(
            f"there are no months of {of}{did_you_mean(of, list(MONTHLY))} There are: {', '.join(MONTHLY)}"
        )
    with opened() as store:
        done = keep_partitions(store, thorough=True)
        listed = months(store, MONTHLY[of])
    if json_:
        as_json({**done, **listed})
        return
    if listed["months"]:
        headings = (("month", False), ("rows (about)", True), ("size", True), ("archived", False))
        console.print(table("", headings, [_month_cells(month) for month in listed["months"]]))
    else:
        say(f"No {of}. See: vital-tracking doctor")
    say(f"{counted(done['made'], 'partition')} made, {counted(done['moved'], 'row')} moved")
    if done["waiting"] or done["busy"]:
        say("Others were at it, or in the way: run it again")


def _month_cells(month: Month) -> tuple[str, ...]:
    archived = month["archived"]
    note = f"{archived['at']:%Y-%m-%d}, {counted(archived['rows'], 'row')} in {archived['file']}" if archived else "-"
    home = "" if month["partition"] else " (came late)" if month["gone"] else " (no partition)"
    return f"{month['month']}{home}", f"{month['rows']:,}", size(month["bytes"]) if month["bytes"] else "-", note
