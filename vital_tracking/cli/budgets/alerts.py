"""`vital-tracking alerts`: the thresholds of budgets that were crossed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from vital_tracking.alerts.alert import BudgetAlert
from vital_tracking.alerts.wording import entity, percent, spent_text
from vital_tracking.cli.budgets.tables import SET_ONE, belongs, period_name
from vital_tracking.cli.render import options
from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.errors import StoreUnavailable
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

app = typer.Typer(help="Alerts: thresholds of budgets that were crossed.", no_args_is_help=True, rich_markup_mode=None)

COLUMNS: Final = (
    "id",
    "created_at",
    "budget_id",
    "organization_id",
    "entity_type",
    "entity_id",
    "metric",
    "action",
    "enforce",
    "period",
    "window_starts_at",
    "window_ends_at",
    "threshold",
    "limit_amount",
    "spent",
    "superseded",
    "delivered_at",
)
_MOST: Final = 1000  # as many as the database gives at once
# A transaction that takes longer than that to record its calls shows its alerts too late to be seen.
_OVERLAP: Final = timedelta(minutes=10)
Row = dict[str, Any]


@app.command("list")
def list_alerts(
    days: Annotated[float, typer.Option(min=0.001, max=3650, help="Of so many days back.")] = 7,
    organization: Annotated[str | None, typer.Option(help="Only this organization's own.")] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also those superseded by a higher threshold at the same moment; nobody is sent them."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="How many, the newest first.")] = 100,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the alerts, the newest first."""
    store = open_store(Settings.from_env())
    state = store.call("budgets_v1")
    since = datetime.fromisoformat(state["now"]) - timedelta(days=days)
    found: list[Row] = store.call("cost_alerts_v1", since=since, max_rows=_MOST)
    store.close()
    rows = [row for row in found if belongs(row, organization) and (every or not row["superseded"])][:limit]
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, COLUMNS)
    elif rows:
        console.print(table("", _HEADINGS, [_cells(row) for row in rows]))
        if len(rows) == limit:
            say(f"The newest {limit}; for more: --limit {min(10 * limit, _MOST)}")
    elif not state["budgets"]:
        say(f"No alerts, and no budgets. {SET_ONE}")
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


def _cells(row: Row) -> tuple[str, ...]:
    alert = BudgetAlert.from_row(row)
    return (
        row["created_at"][5:19].replace("T", " "),
        str(row["budget_id"]),
        f"{entity(alert.entity_type, alert.entity_id, alert.organization_id)}, {period_name(row)}",
        "call refused" if alert.refused else f"{(alert.threshold * 100).normalize():f} %",
        f"{spent_text(alert.spent, alert.limit, alert.metric)}, {percent(alert.spent, alert.limit)} %",
        f"{alert.action}{'' if alert.enforce else ' (shadow)'}",
        "superseded" if row["superseded"] else "yes" if row["delivered_at"] else "no",
    )


@app.command("watch")
def watch_alerts(
    every: Annotated[str, typer.Option(help="How often to look, such as 500ms, 5s or 1m.")] = "5s",
    organization: Annotated[str | None, typer.Option(help="Only this organization's own.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print each alert as a line of JSON.")] = False,
) -> None:
    """Print new alerts as they appear, until Ctrl-C."""
    pause = float(options.span(every, "--every"))
    store = open_store(Settings.from_env())
    try:
        for row in _news(store, pause):
            if not belongs(row, organization):
                continue
            if json_:
                sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            else:
                say(f"{row['created_at'][:19].replace('T', ' ')}  {BudgetAlert.from_row(row).message}")
    except KeyboardInterrupt:
        pass
    finally:
        store.close()


def _news(store: Store, pause: float) -> Iterator[Row]:
    """Alerts that were not there when this began, each once, the oldest first; the database may be away for a while."""
    # The database's clock, and a set of what was seen: alerts do not appear in the order of their ids or times.
    since = datetime.fromisoformat(store.call("budgets_v1")["now"]) - _OVERLAP
    seen = {row["id"] for row in store.call("cost_alerts_v1", since=since, max_rows=_MOST)}
    typer.echo("Watching for new alerts; Ctrl-C ends. Older ones: vital-tracking alerts list", err=True)
    away = False
    while True:
        time.sleep(pause)
        try:
            rows: list[Row] = store.call("cost_alerts_v1", since=since, max_rows=_MOST)
        except StoreUnavailable as error:
            if not away:
                typer.echo(f"{error} Trying again.", err=True)
            away = True
            continue
        away = False
        yield from (row for row in reversed(rows) if row["id"] not in seen and not row["superseded"])
        seen = {row["id"] for row in rows} if len(rows) < _MOST else seen | {row["id"] for row in rows}
        if rows:
            since = max(since, max(datetime.fromisoformat(row["created_at"]) for row in rows) - _OVERLAP)
