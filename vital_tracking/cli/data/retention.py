"""`vital-tracking retention`: how long what is kept, what would go, and deleting it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_json, console, progress_bar, say, table
from vital_tracking.errors import StoreError, StoreRejected, VitalError
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

app = typer.Typer(
    help="Retention: how long what is kept, and deleting what has had its time.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Report = dict[str, Any]

FOR_EVER: Final = "forever"
_CALLS: Final = "token_usage_logs"
_A_BATCH: Final = 20_000
_NOT_YET: Final = "55000"
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
    store = open_store(Settings.from_env())
    try:
        report: Report = store.call("apply_retention", dry_run=True)
    finally:
        store.close()
    if json_:
        as_json(report)
        return
    rows = [
        (
            row["table_name"],
            row["keep"] or "for ever",
            (row["kept_from"] or "-")[:10],
            size(row["bytes"]),
            f"{row['rows']:,}",
        )
        for row in report["tables"]
    ]
    headings = (("table", False), ("keep", False), ("kept from", False), ("size", True), ("rows to go", True))
    console.print(table("", headings, rows))
    _tell_months(report)
    if _rows(report):
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
      vital-tracking retention set usage_aggregations_daily forever
    """
    store = open_store(Settings.from_env())
    try:
        stored = store.call("set_retention_v1", table_name=table_name, keep=_span(keep))
    except StoreRejected as error:
        known = {row["table_name"] for row in store.call("apply_retention", dry_run=True)["tables"]}
        if table_name not in known:
            raise VitalError(f"{table_name} has no retention. The tables: {', '.join(sorted(known))}") from None
        if error.sqlstate == "23514":
            raise VitalError("At least 31 days: budgets are counted from the calls of the month that runs.") from None
        raise
    finally:
        store.close()
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Delete what has had its time: shows it first, and asks.

    Months of calls are dropped whole, everything else goes in batches; stopping it half-way does no harm. The sums of what is
    deleted stay, and so does what budgets have counted. To have the database do it by itself, see docs/retention.md.

    \b
    Examples:
      vital-tracking archive --to archive && vital-tracking retention run
      vital-tracking retention run --dry-run
    """
    store = open_store(Settings.from_env())
    try:
        plan: Report = store.call("apply_retention", dry_run=True)
        if dry_run or not _rows(plan):
            _tell_plan(plan, json_)
            return
        if not yes:
            _tell_plan(plan, False)
            typer.confirm("Delete them for good?", abort=True)
        deleted, waiting = _delete(store, _rows(plan))
    finally:
        store.close()
    if json_:
        as_json({"dry_run": False, "deleted": deleted, "waiting": waiting})
    else:
        for name, rows in deleted.items():
            say(f"{name}: {counted(rows, 'row')} deleted")
    if waiting:
        raise VitalError("A month is in use and was left where it is. Run it again: vital-tracking retention run")


def _delete(store: Store, expected: int) -> tuple[dict[str, int], bool]:
    """Delete batch by batch; the rows deleted by table, and whether something was in use."""
    deleted: Counter[str] = Counter()
    with progress_bar() as bar:
        task = bar.add_task("deleting", total=expected)
        while True:
            try:
                report: Report = store.call("apply_retention", dry_run=False, max_rows=_A_BATCH)
            except StoreError as error:
                if error.sqlstate != _NOT_YET:
                    raise
                raise VitalError(
                    "Days that would go are not in the sums yet. First run: vital-tracking backfill"
                ) from None
            deleted.update({row["table_name"]: row["rows"] for row in report["tables"] if row["rows"]})
            bar.update(task, completed=sum(deleted.values()))
            if not report["more"]:
                return dict(deleted), report["waiting"]


def _rows(report: Report) -> int:
    return sum(row["rows"] for row in report["tables"])


def _tell_plan(plan: Report, json_: bool) -> None:
    if json_:
        as_json(plan)
        return
    for row in plan["tables"]:
        if row["rows"]:
            say(
                f"{row['table_name']}: {counted(row['rows'], 'row')} from before {row['kept_from'][:10]} (keep {row['keep']})"
            )
    _tell_months(plan)
    if not _rows(plan):
        say("Nothing has had its time. How long what is kept: vital-tracking retention show")


def _tell_months(plan: Report) -> None:
    """The months of calls that would go, and a warning of those that are in no archive."""
    [calls] = [row for row in plan["tables"] if row["table_name"] == _CALLS]
    if months := [month for month in calls["months"] if month["rows"]]:
        say("  " + ", ".join(f"{month['month']} ({counted(month['rows'], 'row')})" for month in months))
    if missing := [month["month"] for month in months if not month["archived"]]:
        say(f"In no archive: {', '.join(missing)}. To write them to files first: vital-tracking archive --to archive")


@app.command("partitions")
def partitions(json_: Json = False) -> None:
    """Make the months' partitions ahead, move calls that are in none into theirs, and list the months.

    Every process that records calls has this done once a day, and so does `vital-tracking refresh`.
    """
    store = open_store(Settings.from_env())
    try:
        done: Report = store.call("maintain_partitions")
        listed: Report = store.call("months_v1")
    finally:
        store.close()
    if json_:
        as_json({**done, **listed})
        return
    if listed["months"]:
        headings = (("month", False), ("rows (about)", True), ("size", True), ("archived", False))
        console.print(table("", headings, [_month_cells(month) for month in listed["months"]]))
    else:
        say("No calls. See: vital-tracking doctor")
    say(f"{counted(done['made'], 'partition')} made, {counted(done['moved'], 'row')} moved")
    if done["waiting"] or done["busy"]:
        say("Others were at it, or in the way: run it again")


def _month_cells(month: Mapping[str, Any]) -> tuple[str, ...]:
    archived = month["archived"]
    note = f"{archived['at'][:10]}, {counted(archived['rows'], 'row')} in {archived['file']}" if archived else "-"
    home = "" if month["partition"] else " (came late)" if month["gone"] else " (no partition)"
    return f"{month['month']}{home}", f"{month['rows']:,}", size(month["bytes"]) if month["bytes"] else "-", note
