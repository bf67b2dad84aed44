"""`vital-tracking alerts`: the thresholds of budgets that were crossed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Annotated

import typer

from vital_tracking.alerts.wording import entity, percent, spent_text
from vital_tracking.cli.budgets.tables import SET_ONE, period_name
from vital_tracking.cli.render import filters
from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.options import a_name, span
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import between, short_time
from vital_tracking.errors import StoreUnavailable
from vital_tracking.queries.alerts import ALERT_COLUMNS, MOST_ALERTS, Alert, AlertFeed, budget_alert, recent_alerts
from vital_tracking.queries.budgets import all_budgets, belongs
from vital_tracking.queries.csv import plain
from vital_tracking.stores import Store

app = typer.Typer(help="Alerts: thresholds of budgets that were crossed.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_alerts(
    days: Annotated[float, typer.Option(min=0.001, max=3650, help="Of so many days back.")] = 7,
    since: Annotated[str | None, typer.Option(help=f"From then on, instead of --days: {filters.WHEN_HELP}")] = None,
    until: filters.Until = None,
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization's own.")] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also those superseded by a higher threshold at the same moment; nobody is sent them."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ALERTS, help="How many, the newest first.")] = 100,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List the alerts, the newest first."""
    begin, end = between(since, until)
    with opened() as store:
        state = all_budgets(store)
        first = begin or state["now"] - timedelta(days=days)
        if end is not None and end < first:
            raise typer.BadParameter("--until is before what --since or --days begin with")
        rows = recent_alerts(store, since=first, until=end, organization=organization, superseded=every, limit=limit)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, ALERT_COLUMNS)
    elif rows:
        console.print(table("", _HEADINGS, [_cells(row) for row in rows]))
        if len(rows) == limit:
            say(f"The newest {limit}; for more: --limit {min(10 * limit, MOST_ALERTS)}")
    elif not state["budgets"]:
        say(f"No alerts, and no budgets. {SET_ONE}")
    elif since or until:
        say("No alerts in that time. How far budgets are spent: vital-tracking budgets windows")
    else:
        say(f"No alerts in the last {days:g} days. How far budgets are spent: vital-tracking budgets windows")


_HEADINGS = (
    ("time (UTC)", True),
    ("budget", True),
    ("for", False),
    ("crossed", True),
    ("spent", False),
    ("at the limit", False),
    ("sent", False),
)


def _cells(row: Alert) -> tuple[str, ...]:
    spent, limit = row["spent"], row["limit_amount"]
    if pattern := row.get("pattern"):
        whose = entity(row["entity_type"], row["entity_id"], row["organization_id"])
        sent = "yes" if row["delivered_at"] else "no"
        seen = spent_text(spent, limit, row["metric"])
        return short_time(row["created_at"]), "abuse", f"{whose}, {row['period']}", pattern, seen, row["action"], sent
    return (
        short_time(row["created_at"]),
        str(row["budget_id"]),
        f"{entity(row['entity_type'], row['entity_id'], row['organization_id'])}, {period_name(row['period'])}",
        "call refused" if budget_alert(row).refused else f"{(row['threshold'] * 100).normalize():f} %",
        f"{spent_text(spent, limit, row['metric'])}, {percent(spent, limit)} %",
        f"{row['action']}{'' if row['enforce'] else ' (shadow)'}",
        "superseded" if row["superseded"] else "yes" if row["delivered_at"] else "no",
    )


@app.command("watch")
def watch_alerts(
    every: Annotated[str, typer.Option(help="How often to look, such as 500ms, 5s or 1m.")] = "5s",
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization's own.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print each alert as a line of JSON.")] = False,
) -> None:
    """Print new alerts as they appear, until Ctrl-C."""
    pause = float(span(every, "--every"))
    with opened() as store:
        try:
            for row in new_alerts(store, pause):
                if not belongs(row, organization):
                    continue
                if json_:
                    sys.stdout.write(json.dumps(row, default=plain, ensure_ascii=False) + "\n")
                    sys.stdout.flush()
                else:
                    say(f"{row['created_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}  {budget_alert(row).message}")
        except KeyboardInterrupt:
            pass


def new_alerts(store: Store, pause: float) -> Iterator[Alert]:
    """Alerts that were not there when this began, looked for every `pause` seconds; the database may be away for a while."""
    feed = AlertFeed(store)
    typer.echo("Watching for new alerts; Ctrl-C ends. Older ones: vital-tracking alerts list", err=True)
    away = False
    while True:
        time.sleep(pause)
        try:
            rows = feed.poll()
        except StoreUnavailable as error:
            if not away:
                typer.echo(f"{error} Trying again.", err=True)
            away = True
            continue
        away = False
        yield from rows
