"""Usage reports as tables: who or what, calls, tokens, cost with its share and its days, time, failures, caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from rich.text import Text

from vital_tracking.cli.render.amounts import cost_text, dollars, percent_text, share_text
from vital_tracking.cli.render.columns import Column, Fitted, Line, fitted
from vital_tracking.cli.render.console import bar
from vital_tracking.cli.render.times import duration
from vital_tracking.cli.report.charts import course, periods_between, sparkline
from vital_tracking.cli.report.request import PRICE_THEM
from vital_tracking.core.breakdowns import DIMENSIONS
from vital_tracking.queries.catalogue import FILTERS, GROUPINGS, MEASURES
from vital_tracking.queries.explored_report import METADATA
from vital_tracking.queries.usage import UsageReport, others, savings_share
from vital_tracking.queries.words import counted

_BAR: Final = 10
_SPARKLINES: Final = (31, 16, 10)
"""How wide the line of days may be, where the terminal has the room."""


def usage_table(
    report: UsageReport,
    *,
    title: str = "",
    exact: bool = False,
    organization: str | None = None,
    by: str | None = None,
) -> Fitted:
    """A usage report as a table, with a last line for all rows together. `by` is what splits its groups once more."""
    rows = report["rows"]
    lines: list[Line] = list(rows)
    if len(rows) != 1 or report["total"]["calls"] != rows[0]["calls"]:
        if rest := others(report):
            lines.append({**rest, "label": "(others)"})
        lines.append(report["total"])
    labels = _labels(report, organization)
    if by is not None:
        labels.append(Column(by, False, _split(label_of(by))))
    for cells in _SPARKLINES:
        caches = report["report"] == "cache"
        measures = _caches(report, exact=exact) if caches else _measures(report, exact=exact, cells=cells)
        made = fitted(title, labels + measures, lines, rows=len(rows), spare=cells == _SPARKLINES[-1])
        if made.fits:
            break
    return made


def label_of(by: str) -> str:
    """The name of the column by which `by` splits the groups of a report."""
    return FILTERS.get(by, by) if by in DIMENSIONS else f"{METADATA}{by}"


def _split(name: str) -> Callable[[Line], str]:
    return lambda row: str(row.get(name) or "(none)") if "days" in row else ""


def _labels(answer: UsageReport, organization: str | None) -> list[Column]:
    report, rows = answer["report"], answer["rows"]
    known = {
        "services": [Column("service", False, _named("service_type"))],
        "users": [
            Column("user", False, _named("user_id")),
            Column("services", True, _label("services"), 11),
            Column("last day", True, _label("last_day"), 8),
        ],
        "agents": [
            Column("agent", False, lambda row: _first(row, _agent(row))),
            Column("tier", False, _label("agent_tier"), 6),
        ],
        "panels": [
            Column("panel", False, _named("panel_id")),
            Column("seat", True, _label("panel_position")),
            Column("agent", False, _agent),
        ],
        "workflows": [
            Column("workflow", False, _named("workflow_id")),
            Column("step", False, lambda row: row.get("workflow_step_name") or row.get("workflow_step") or ""),
        ],
        "models": [
            Column("model", False, _named("model")),
            Column("provider", False, _label("provider"), 6),
        ],
        "cache": [
            Column("service", False, _named("service_type")),
            Column("model", False, _label("model")),
        ],
        "organizations": [Column("organization", False, _named("organization_id"))],
        "sessions": [
            Column("session", False, _named("session_id")),
            Column("user", False, _label("user_id"), 2),
            Column("first day", True, _label("first_day"), 8),
            Column("last day", True, _label("last_day"), 8),
        ],
        "solutions": [Column("solution", False, _named("solution_id"))],
        "runs": [
            Column("run", False, _named("service_run_id")),
            Column("of", False, lambda row: row.get("service_name") or row.get("service_type") or ""),
            Column("user", False, _label("user_id"), 2),
            Column("first day", True, _label("first_day"), 8),
        ],
        "time": [Column(answer.get("grain", "day"), False, lambda row: _first(row, _period_text(row, answer)))],
    }
    columns = known.get(report) or _plain_labels(GROUPINGS[report].labels)
    if organization is None and report != "organizations" and any(row.get("organization_id") for row in rows):
        columns.insert(1, Column("organization", False, _label("organization_id"), 1))
    return columns


def _plain_labels(names: Sequence[str]) -> list[Column]:
    """A column for each label, headed by its name: for groupings that have no columns of their own above."""
    first, *rest = [name for name in names if name != "organization_id"]
    others = [Column(name.replace("_", " "), False, _label(name)) for name in rest]
    return [Column(first.replace("_", " "), False, _named(first)), *others]


def _period_text(row: Line, answer: UsageReport) -> str:
    """A day, week (its Monday) or month; an hour by the clocks of the report's zone."""
    begins, grain = row.get("time"), answer.get("grain", "day")
    if isinstance(begins, datetime):
        return f"{begins.astimezone(ZoneInfo(answer.get('timezone', 'UTC'))):%Y-%m-%d %H:%M}"
    return "" if begins is None else f"{begins:%Y-%m}" if grain == "month" else f"{begins:%Y-%m-%d}"


def _first(row: Line, label: str) -> str:
    """The label of a row; those for several rows have one of their own."""
    if "share" not in row:
        return "total"
    return str(row.get("label") or label or "(none)")


def _named(name: str) -> Callable[[Line], str]:
    return lambda row: _first(row, row.get(name) or "")


def _label(name: str) -> Callable[[Line], str]:
    return lambda row: str(row.get(name) or "")


def _agent(row: Line) -> str:
    """An agent by its name and id; where these are the same, or one is missing, by what there is."""
    name, number = row.get("agent_name"), row.get("agent_id")
    return f"{name} ({number})" if name and number and name != number else str(name or number or "")


def _measures(report: UsageReport, *, exact: bool, cells: int) -> list[Column]:
    largest = max((row["total_cost"] for row in report["rows"]), default=Decimal(0))
    grain = report.get("grain", "day")
    periods = periods_between(grain, report["since"], report["until"], report.get("timezone", "UTC"))
    together = -(-len(periods) // cells)
    heading = f"by {grain}" if together <= 1 else f"by {together} {grain}s"

    def days(line: Line) -> str:
        return sparkline(course(dict(line["days"]), periods, cells)) if "days" in line else ""

    def share_bar(line: Line) -> Text:
        return Text(bar(line["total_cost"], largest, _BAR) if "days" in line else "", "green")

    return [
        _calls(),
        _measure("total_tokens", _tokens(marked=report["total"]["estimated_calls"] > 0), 3),
        _cost(report, exact=exact),
        _measure("fees", _dollars("fees", exact=exact), 7),
        _measure("share", _share("share"), 1),
        Column("", False, share_bar, 9, draws=True),
        Column(
            heading, False, days if len(periods) > 1 and report["report"] != "time" else lambda _: "", 7, draws=True
        ),
        _measure("p50_latency_ms", _latency("p50_latency_ms"), 10),
        _measure("p95_latency_ms", _latency("p95_latency_ms"), 4),
        _measure("failed_calls", lambda line: _count(line["failed_calls"] - line["blocked_calls"]), 5),
        _measure("blocked_calls", lambda line: _count(line["blocked_calls"]), 6),
        _measure("cache_savings", _dollars("cache_savings", exact=exact), 6),
        _measure("hit_rate", _percent("hit_rate"), 12),
        _measure("tokens_per_dollar", _tokens_per_dollar, 14),
        _measure("reported_cost", _dollars("reported_cost", exact=exact), 13),
        _measure("reported_total_cost", _dollars("reported_total_cost", exact=exact), 13),
    ]


def _caches(report: UsageReport, *, exact: bool) -> list[Column]:
    largest = max((row["cache_savings"] for row in report["rows"]), default=Decimal(0))

    def saved_share(line: Line) -> str:
        share = savings_share(line["potential_cost"], line["cache_savings"])
        return share_text(share) if share is not None else ""

    def saved_bar(line: Line) -> Text:
        return Text(bar(max(line["cache_savings"], Decimal(0)), largest, _BAR) if "days" in line else "", "green")

    return [
        _calls(),
        _measure("potential_cost", lambda line: dollars(line["potential_cost"], exact=exact), 4),
        _cost(report, exact=exact),
        _measure("cache_savings", _dollars("cache_savings", exact=exact)),
        Column("", True, saved_share),
        Column("", False, saved_bar, 7, draws=True),
        _measure("hit_rate", _percent("hit_rate")),
        _measure("prompt_cache_rate", _percent("prompt_cache_rate")),
    ]


def _measure(name: str, cell: Callable[[Line], str], goes: int = 0) -> Column:
    """A column of a measure, with the catalogue's heading."""
    return Column(MEASURES[name].label, True, cell, goes)


def _calls() -> Column:
    return _measure("calls", lambda line: f"{line['calls']:,}")


def _cost(report: UsageReport, *, exact: bool) -> Column:
    marked = report["total"]["unpriced_calls"] > 0

    def cell(line: Line) -> str:
        unpriced = line["unpriced_calls"]
        return cost_text(line["total_cost"], line["calls"], unpriced, exact=exact) + _mark(unpriced, "*", marked)

    return _measure("total_cost", cell)


def _tokens(*, marked: bool) -> Callable[[Line], str]:
    return lambda line: f"{line['total_tokens']:,}{_mark(line['estimated_calls'], '~', marked)}"


def _tokens_per_dollar(line: Line) -> str:
    return f"{line['tokens_per_dollar']:,.0f}" if line.get("tokens_per_dollar") is not None else ""


def _share(name: str) -> Callable[[Line], str]:
    return lambda line: share_text(line[name]) if line.get(name) else ""


def _percent(name: str) -> Callable[[Line], str]:
    return lambda line: percent_text(line[name]) if line.get(name) else ""


def _latency(name: str) -> Callable[[Line], str]:
    return lambda line: duration(line[name]) if name in line else ""


def _dollars(name: str, *, exact: bool) -> Callable[[Line], str]:
    """An amount where there is one; lines that do not have the measure, and nothing, stay empty."""
    return lambda line: dollars(line[name], exact=exact) if line.get(name) else ""


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _mark(number: int, mark: str, wanted: bool) -> str:
    """A mark behind a number; as much room where only other rows have it."""
    return (mark if number else " ") if wanted else ""


def footnotes(report: UsageReport) -> list[str]:
    """What the marks in a report's table mean, and what to run."""
    total = report["total"]
    said = []
    if kept := report.get("kept_since"):
        said.append(f"Calls before {kept:%Y-%m-%d} are gone by age and not in this report, which is told from calls.")
    if total["unpriced_calls"]:
        said.append(
            f"* {_number(total['unpriced_calls'], total['calls'])} without a known price, in no amount here. Which: "
            "vital-tracking calls --unpriced"
        )
        said.append(PRICE_THEM)
    if total["estimated_calls"] and report["report"] != "cache":  # which shows no tokens
        said.append(
            f"~ tokens of {_number(total['estimated_calls'], total['calls'])} are estimates: nobody reported them."
        )
    return said


def _number(some: int, every: int) -> str:
    return f"{some:,} of {every:,} calls" if every != 1 else counted(some, "call")
