"""Usage reports as tables: who or what, calls, tokens, cost with its share and its days, time, failures, caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from vital_tracking.alerts.wording import amount_text
from vital_tracking.cli.render.console import bar, console, table
from vital_tracking.cli.render.times import duration
from vital_tracking.cli.report.charts import by_day, days_together, sparkline
from vital_tracking.queries.words import counted

Row = dict[str, Any]

LABELS: Final[dict[str, tuple[str, ...]]] = {
    "services": ("service_type",),
    "users": ("organization_id", "user_id", "services", "last_day"),
    "agents": ("organization_id", "agent_id", "agent_name", "agent_tier"),
    "panels": ("organization_id", "panel_id", "panel_position", "agent_id", "agent_name"),
    "workflows": ("organization_id", "workflow_id", "workflow_step", "workflow_step_name"),
    "models": ("provider", "model"),
    "cache": ("service_type", "provider", "model"),
}
"""The usage reports, and the columns that tell their rows apart."""

MEASURES: Final = (
    "calls",
    "cached_calls",
    "failed_calls",
    "blocked_calls",
    "unpriced_calls",
    "estimated_calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "total_cost",
    "potential_cost",
    "cache_savings",
    "hit_rate",
    "success_rate",
    "average_latency_ms",
    "p50_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
)
_AMOUNTS: Final = ("total_cost", "potential_cost", "cache_savings")
PRICE_THEM: Final = (
    "  To price them: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
)
_BAR: Final = 10
_SPARKLINES: Final = (31, 16, 10)
"""How wide the line of days may be, where the terminal has the room."""


def csv_columns(report: str) -> tuple[str, ...]:
    """The columns of a usage report for programs."""
    return (*LABELS[report], *MEASURES, "share", *(("prompt_cache_rate",) if report == "cache" else ()))


def csv_row(row: Row) -> Row:
    """A row for programs: amounts are numbers in CSV, though they travel as text."""
    return {**row, **{name: Decimal(row[name]) for name in _AMOUNTS if row[name] is not None}}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, whether it is a number, its cells, and how soon it goes where there is no room (0: never)."""

    heading: str
    number: bool
    cell: Callable[[Row], str | Text]
    goes: int = 0


def money(value: str | Decimal | None, *, exact: bool = False) -> str:
    """An amount of US dollars, as budgets show it."""
    return "-" if value is None else amount_text(Decimal(value), "cost_usd", exact=exact)


def percent(share: float | None) -> str:
    """A share in per cent; small ones with a decimal."""
    if share is None:
        return "-"
    hundredths = share * 100
    return f"{hundredths:.1f} %" if 0 < abs(hundredths) < 9.95 else f"{hundredths:.0f} %"


def usage_table(answer: Row, *, title: str = "", exact: bool = False, organization: str | None = None) -> Table:
    """A usage report's answer as a table, with a last line for all rows together."""
    report, rows = answer["report"], list(answer["rows"])
    lines: list[Row] = list(rows)
    if len(rows) != 1 or answer["total"]["calls"] != rows[0]["calls"]:
        lines += [total for total in (others(answer), answer["total"]) if total]
    labels = _labels(report, rows, organization)
    for cells in _SPARKLINES:
        measures = _caches(answer, exact=exact) if report == "cache" else _measures(answer, exact=exact, cells=cells)
        made = _fitted(title, labels + measures, lines, len(rows), spare=cells == _SPARKLINES[-1])
        if _wide(made) <= console.width:
            break
    return made


def others(answer: Row) -> Row | None:
    """What the rows that are not shown come to, where there are any."""
    rest: Row = {"label": "(others)"}
    for name in ("calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "total_tokens"):
        rest[name] = answer["total"][name] - sum(row[name] for row in answer["rows"])
    for name in _AMOUNTS:
        rest[name] = Decimal(answer["total"][name]) - sum(Decimal(row[name]) for row in answer["rows"])
    total = Decimal(answer["total"]["total_cost"])
    rest["share"] = float(rest["total_cost"] / total) if total else 0.0
    return rest if rest["calls"] else None


def _fitted(title: str, columns: list[Column], lines: Sequence[Row], rows: int, *, spare: bool) -> Table:
    """A table of the columns that say something; where some may be spared, these go until it fits the terminal."""
    cells = {id(column): [column.cell(line) for line in lines] for column in columns}
    kept = [column for column in columns if any(str(cell).strip(" -*~") for cell in cells[id(column)][: max(rows, 1)])]
    while True:
        made = table(
            title,
            [(column.heading, column.number) for column in kept],
            zip(*(cells[id(column)] for column in kept), strict=True),
        )
        least = max(kept, key=lambda column: column.goes)
        if not spare or not least.goes or _wide(made) <= console.width:
            break
        kept.remove(least)
    for number in range(rows, len(lines)):
        made.rows[number].style = "bold" if number == len(lines) - 1 else "dim"
    return made


def _wide(made: Table) -> int:
    """How wide a table is where nothing of it is folded."""
    return console.measure(made, options=console.options.update_width(10_000)).maximum


def _labels(report: str, rows: Sequence[Row], organization: str | None) -> list[Column]:
    columns = {
        "services": [Column("service", False, _named("service_type"))],
        "users": [
            Column("user", False, _named("user_id")),
            Column("services", True, lambda row: str(row.get("services") or ""), 11),
            Column("last day", True, lambda row: str(row.get("last_day") or ""), 8),
        ],
        "agents": [
            Column("agent", False, lambda row: _first(row, _agent(row))),
            Column("tier", False, lambda row: row.get("agent_tier") or "", 6),
        ],
        "panels": [
            Column("panel", False, _named("panel_id")),
            Column("seat", True, lambda row: str(row.get("panel_position") or "")),
            Column("agent", False, _agent),
        ],
        "workflows": [
            Column("workflow", False, _named("workflow_id")),
            Column("step", False, lambda row: row.get("workflow_step_name") or row.get("workflow_step") or ""),
        ],
        "models": [
            Column("model", False, _named("model")),
            Column("provider", False, lambda row: row.get("provider") or "", 6),
        ],
        "cache": [
            Column("service", False, _named("service_type")),
            Column("model", False, lambda row: row.get("model") or ""),
        ],
    }[report]
    if organization is None and any(row.get("organization_id") for row in rows):
        columns.insert(1, Column("organization", False, lambda row: row.get("organization_id") or "", 1))
    return columns


def _first(row: Row, label: str) -> str:
    """The label of a row; those for several rows have one of their own."""
    if "share" not in row:
        return "total"
    return str(row.get("label") or label or "(none)")


def _named(name: str) -> Callable[[Row], str]:
    return lambda row: _first(row, row.get(name) or "")


def _agent(row: Row) -> str:
    """An agent by its name and id; where these are the same, or one is missing, by what there is."""
    name, number = row.get("agent_name"), row.get("agent_id")
    return f"{name} ({number})" if name and number and name != number else str(name or number or "")


def _measures(answer: Row, *, exact: bool, cells: int) -> list[Column]:
    rows = answer["rows"]
    largest = max((Decimal(row["total_cost"]) for row in rows), default=Decimal(0))
    first, last = span_of(answer)
    together = days_together(first, last, cells)
    estimated, unpriced = (answer["total"][name] > 0 for name in ("estimated_calls", "unpriced_calls"))

    def days(row: Row) -> str:
        return sparkline(by_day(days_of(row), first, last, cells)) if "days" in row else ""

    def share(row: Row) -> Text:
        return Text(bar(Decimal(row["total_cost"]), largest, _BAR) if "days" in row else "", "green")

    return [
        Column("calls", True, lambda row: f"{row['calls']:,}"),
        Column(
            "tokens", True, lambda row: f"{row['total_tokens']:,}{_mark(row['estimated_calls'], '~', estimated)}", 3
        ),
        Column(
            "cost",
            True,
            lambda row: cost_text(row, "total_cost", exact=exact) + _mark(row["unpriced_calls"], "*", unpriced),
        ),
        Column("share", True, lambda row: percent(row["share"]) if row.get("share") else "", 1),
        Column("", False, share, 9),
        Column("by day" if together == 1 else f"by {together} days", False, days if first != last else lambda _: "", 7),
        Column("p50", True, lambda row: duration(row["p50_latency_ms"]) if "p50_latency_ms" in row else "", 10),
        Column("p95", True, lambda row: duration(row["p95_latency_ms"]) if "p95_latency_ms" in row else "", 4),
        Column("failed", True, lambda row: _count(row["failed_calls"] - row["blocked_calls"]), 5),
        Column("blocked", True, lambda row: _count(row["blocked_calls"]), 6),
        Column("saved", True, lambda row: _saved(row, exact), 6),
        Column("hit rate", True, lambda row: percent(row["hit_rate"]) if row.get("hit_rate") else "", 12),
    ]


def _caches(answer: Row, *, exact: bool) -> list[Column]:
    largest = max((Decimal(row["cache_savings"]) for row in answer["rows"]), default=Decimal(0))

    def saved_share(row: Row) -> str:
        potential = Decimal(row["potential_cost"])
        return percent(float(Decimal(row["cache_savings"]) / potential)) if potential else ""

    def saved_bar(row: Row) -> Text:
        return Text(
            bar(max(Decimal(row["cache_savings"]), Decimal(0)), largest, _BAR) if "days" in row else "", "green"
        )

    unpriced = answer["total"]["unpriced_calls"] > 0
    return [
        Column("calls", True, lambda row: f"{row['calls']:,}"),
        Column("without caches", True, lambda row: money(row["potential_cost"], exact=exact), 4),
        Column(
            "cost",
            True,
            lambda row: cost_text(row, "total_cost", exact=exact) + _mark(row["unpriced_calls"], "*", unpriced),
        ),
        Column("saved", True, lambda row: _saved(row, exact)),
        Column("", True, saved_share),
        Column("", False, saved_bar, 7),
        Column("hit rate", True, lambda row: percent(row["hit_rate"]) if row.get("hit_rate") else ""),
        Column(
            "prompt cache",
            True,
            lambda row: percent(row["prompt_cache_rate"]) if row.get("prompt_cache_rate") else "",
        ),
    ]


def cost_text(row: Row, name: str, *, exact: bool) -> str:
    """An amount; of rows without a priced call there is none to tell."""
    if row["calls"] and row["unpriced_calls"] == row["calls"]:
        return "unpriced"
    return money(row[name], exact=exact)


def _saved(row: Row, exact: bool) -> str:
    return money(row["cache_savings"], exact=exact) if Decimal(row["cache_savings"]) else ""


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _mark(number: int, mark: str, wanted: bool) -> str:
    """A mark behind a number; as much room where only other rows have it."""
    return (mark if number else " ") if wanted else ""


def span_of(answer: Row) -> tuple[date, date]:
    """The first and the last day of a report."""
    since, until = (datetime.fromisoformat(answer[name]) for name in ("since", "until"))
    return since.date(), (until - timedelta(microseconds=1)).date()


def days_of(row: Row) -> dict[date, Decimal]:
    """The cost of the days of a row."""
    return {date.fromisoformat(day): Decimal(cost) for day, cost in row["days"]}


def footnotes(answer: Row) -> list[str]:
    """What the marks in a report's table mean, and what to run."""
    total = answer["total"]
    said = []
    if total["unpriced_calls"]:
        said.append(
            f"* {_number(total['unpriced_calls'], total['calls'])} without a known price, in no amount here. Which: "
            "vital-tracking calls --unpriced"
        )
        said.append(PRICE_THEM)
    if total["estimated_calls"] and answer["report"] != "cache":  # which tells no tokens
        said.append(
            f"~ tokens of {_number(total['estimated_calls'], total['calls'])} are estimates: nobody reported them."
        )
    return said


def _number(some: int, every: int) -> str:
    return f"{some:,} of {every:,} calls" if every != 1 else counted(some, "call")
