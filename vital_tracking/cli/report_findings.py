"""What reports find, in words and small charts: the totals, the forecast, anomalies, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from vital_tracking.cli.output import console, counted, table
from vital_tracking.cli.report_charts import Bar, by_day, chart, sparkline
from vital_tracking.cli.report_tables import days_of, money, percent, span_of
from vital_tracking.cli.times import duration

Row = dict[str, Any]

FORECAST_COLUMNS: Final = ("day", "spent", "projected")
ANOMALY_COLUMNS: Final = (
    "subject",
    "id",
    "organization_id",
    "day",
    "metric",
    "value",
    "usual",
    "score",
    "calls",
    "query",
)
DUPLICATE_COLUMNS: Final = (
    "request_hash",
    "calls",
    "model",
    "agent_id",
    "first_at",
    "last_at",
    "cost",
    "saved_by_caching",
)


# Totals


def totals(answer: Row, when: str, *, exact: bool) -> Iterator[Text]:
    """The lines of an overview: what was spent, on how many calls, how fast, and what caches saved."""
    total = answer["total"]
    first, last = span_of(answer)
    days: dict[date, Decimal] = {}
    for row in answer["rows"]:
        for day, cost in days_of(row).items():
            days[day] = days.get(day, Decimal(0)) + cost
    line = sparkline(by_day(days, first, last)) if first != last else ""
    yield Text.assemble((money(total["total_cost"], exact=exact), "bold"), f"  {when}  ", (line, "green"))
    failed, blocked = total["failed_calls"] - total["blocked_calls"], total["blocked_calls"]
    ended = ", ".join(
        [*([f"{failed:,} failed"] if failed else []), *([f"{blocked:,} blocked by budgets"] if blocked else [])]
    )
    parts = [f"{total['calls']:,} calls" if total["calls"] != 1 else "1 call", ended or "none failed"]
    parts.append(f"{total['total_tokens']:,} tokens")
    if total["p50_latency_ms"] is not None:
        parts.append(
            f"half of them within {duration(total['p50_latency_ms'])}, 95 % within {duration(total['p95_latency_ms'])}"
        )
    yield Text(", ".join(parts[:2]) + "; " + "; ".join(parts[2:]))
    potential = Decimal(total["potential_cost"])
    saved = Decimal(total["cache_savings"])
    share = f" of {money(potential, exact=exact)}, {percent(float(saved / potential))}" if potential else ""
    rate = percent(total["hit_rate"])
    yield Text(f"Caches saved {money(saved, exact=exact)}{share}; {rate} of the calls came from LangChain's cache")


# Forecast


def forecast_rows(answer: Row) -> list[Row]:
    """The days of a forecast for programs."""
    return [
        {"day": day, "spent": _amount(spent), "projected": _amount(projected)}
        for day, spent, projected in answer["days"]
    ]


def _amount(text: str | None) -> Decimal | None:
    return Decimal(text) if text is not None else None


def forecast_line(answer: Row, *, exact: bool = False) -> str:
    """A forecast in a sentence."""
    spent = f"{money(answer['spent'], exact=exact)} spent this {answer['period']}"
    if answer["projected"] is None:
        return f"{spent}; too few days to tell where it ends."
    between = f"between {money(answer['low'], exact=exact)} and {money(answer['high'], exact=exact)}"
    return f"{spent}; it ends at about {money(answer['projected'], exact=exact)}, {between}."


def forecast(answer: Row, *, exact: bool) -> Iterator[Text | Table | str]:
    """The whole forecast."""
    starts_at = datetime.fromisoformat(answer["starts_at"])
    yield Text(f"Forecast for {starts_at:%B %Y}", "bold")
    bars = [
        Bar(str(int(day[8:10])), Decimal(spent or 0), Decimal(projected or 0))
        for day, spent, projected in answer["days"]
    ]
    largest = max((bar.spent + bar.projected for bar in bars), default=Decimal(0))
    if largest:
        yield chart(bars, money(largest), console.width)
        yield Text.assemble(("spent", "green"), "  ", ("projected", "cyan"))
    yield forecast_line(answer, exact=exact)
    yield f"In the last 7 days {money(answer['burn_rate_per_day'], exact=exact)} a day."
    yield error_sentence(answer["error"])


def error_sentence(error: Row) -> str:
    """How far such forecasts were off in the past."""
    if not error or not error["windows"] or error["mape"] is None:
        return "How good it is nobody can say yet: no past month is complete enough to try it on."
    return (
        f"Tried on {counted(error['windows'], 'past month')} that it had not seen the end of, it was off by "
        f"{percent(error['mape'])} on average."
    )


# Anomalies


def subject(row: Row) -> str:
    """Who or what an anomaly is of."""
    return f"{row['subject']} {row['id']}"


def anomaly_rows(answer: Row) -> list[Row]:
    """Anomalies for programs."""
    return [{**row, "value": _number(row["value"]), "usual": _number(row["usual"])} for row in answer["rows"]]


def _number(value: object) -> Decimal | None:
    return Decimal(str(value)) if value is not None else None


def _found(row: Row, value: object) -> str:
    """A value of a metric with its unit."""
    if value is None:
        return "-"
    if row["metric"] == "cost":
        return money(str(value))
    return duration(float(str(value))) if row["metric"] == "latency" else percent(float(str(value)))


def anomalies_table(answer: Row, title: str) -> Table:
    """What was out of the ordinary, when, and what is usual."""
    headings = [("", True), ("day (UTC)", True), ("what", False), ("organization", False), ("", False), ("found", True)]
    headings += [("usual", True), ("times", True), ("calls", True)]
    rows = [
        [
            str(number),
            row["day"],
            subject(row),
            row["organization_id"] or "",
            row["metric"].replace("_", " "),
            _found(row, row["value"]),
            _found(row, row["usual"]),
            _times(row),
            f"{row['calls']:,}",
        ]
        for number, row in enumerate(answer["rows"], 1)
    ]
    return table(title, headings, rows)


def _times(row: Row) -> str:
    value, usual = _number(row["value"]), _number(row["usual"])
    return f"{value / usual:,.1f}" if value is not None and usual else ""


# Duplicates


def duplicate_rows(answer: Row) -> list[Row]:
    """Duplicates for programs."""
    names = ("cost", "saved_by_caching")
    return [{**row, **{name: _amount(row[name]) for name in names}} for row in answer["rows"]]


def duplicates_table(answer: Row, title: str, *, exact: bool) -> Table:
    """Requests that were made more than once."""
    headings = [
        ("request", False),
        ("calls", True),
        ("model", False),
        ("agent", False),
        ("first (UTC)", True),
        ("last (UTC)", True),
    ]
    headings += [("cost", True), ("a cache would save", True)]
    rows: Sequence[Sequence[str | Text]] = [
        (
            row["request_hash"][:12],
            f"{row['calls']:,}",
            row["model"] or "-",
            row["agent_id"] or "-",
            row["first_at"][:16].replace("T", " "),
            row["last_at"][:16].replace("T", " "),
            money(row["cost"], exact=exact) if row["cost"] is not None else "unpriced",
            money(row["saved_by_caching"], exact=exact),
        )
        for row in answer["rows"]
    ]
    return table(title, headings, rows)


def duplicates_sentence(answer: Row, *, exact: bool) -> str:
    """What caching would save, and how to."""
    return (
        f"{counted(answer['requests'], 'request')} repeated {answer['repeated_calls']:,} times: a cache of answers would have "
        f"saved {money(answer['saved_by_caching'], exact=exact)}. In the code: "
        "langchain_core.globals.set_llm_cache(langchain_core.caches.InMemoryCache())"
    )
