"""Anomalies: days of agents, users and models that are out of the ordinary."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from rich.table import Table

from vital_tracking.cli.render.amounts import dollars, percent_text
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say, table
from vital_tracking.cli.render.times import duration
from vital_tracking.cli.report.request import ReportRequest, say_no_calls
from vital_tracking.cli.report.usage import any_calls
from vital_tracking.queries.usage import Anomalies, Anomaly, anomalies
from vital_tracking.stores import Store

_COLUMNS: Final = tuple(Anomaly.__annotations__)
_METRICS: Final = {
    ("cost", "sum"): "cost",
    ("cost", "newcomer"): "cost, newcomer",
    ("error_rate", "percent"): "failed calls",
    ("latency", "median"): "latency, median",
    ("latency", "p95"): "latency, 95 %",
}


def show(store: Store, asked: ReportRequest) -> None:
    """Print the anomalies, each with the query that shows its calls."""
    answer = anomalies(store, **asked.range, rows=asked.rows)
    if asked.json:
        as_json(answer)
    elif asked.csv:
        as_csv(answer["rows"], _COLUMNS)
    elif answer["rows"]:
        console.print(_table(answer, f"Out of the ordinary, {asked.days}"))
        say("\nThe calls behind each, as a query for psql or Supabase's SQL editor:")
        for number, row in enumerate(answer["rows"], 1):
            say(printable(f"-- {number}: {_subject(row)}, {row['day']}\n{row['query']};"))
    elif any_calls(store, asked):
        say(f"Nothing out of the ordinary: {asked.days}.")
    else:
        say_no_calls(store, asked)


def _table(answer: Anomalies, title: str) -> Table:
    """The table: what was out of the ordinary, when, and what is usual."""
    organizations = any(row["organization_id"] for row in answer["rows"])
    headings = [("", True), ("day (UTC)", True), ("what", False)]
    headings += [("organization", False)] if organizations else []
    headings += [("of", False), ("found", True), ("usual", True), ("times", True), ("calls", True), ("at stake", True)]
    rows = [
        [
            str(number),
            row["day"].isoformat(),
            _subject(row),
            *([row["organization_id"] or ""] if organizations else []),
            _METRICS.get((row["metric"], row["measure"]), row["metric"]),
            _value(row, row["value"]),
            _value(row, row["usual"]),
            f"{row['value'] / row['usual']:,.1f}" if row["usual"] else "",
            f"{row['calls']:,}",
            dollars(row["cost_at_stake"]) + ("*" if row["unpriced_calls"] else " "),
        ]
        for number, row in enumerate(answer["rows"], 1)
    ]
    return table(title, headings, rows)


def _subject(row: Anomaly) -> str:
    """Who or what an anomaly is of."""
    return f"{row['subject']} {row['id']}"


def _value(row: Anomaly, value: Decimal) -> str:
    """A value of the anomaly's metric, with its unit."""
    if row["metric"] == "cost":
        return dollars(value)
    return duration(float(value)) if row["metric"] == "latency" else percent_text(float(value))
