"""What reports find, in words and small charts: the totals, the forecast, anomalies, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from vital_tracking.alerts.wording import limit_text, local_time
from vital_tracking.cli.render.console import console, printable, table
from vital_tracking.cli.render.times import duration
from vital_tracking.cli.report.charts import Bar, by_day, chart, sparkline
from vital_tracking.cli.report.tables import PRICE_THEM, cost_text, days_of, money, percent, span_of
from vital_tracking.queries.words import counted

Row = dict[str, Any]

FORECAST_COLUMNS: Final = ("day", "spent", "projected")
ANOMALY_COLUMNS: Final = (
    "subject",
    "id",
    "organization_id",
    "day",
    "metric",
    "measure",
    "value",
    "usual",
    "score",
    "cost_at_stake",
    "calls",
    "unpriced_calls",
    "query",
)
DUPLICATE_COLUMNS: Final = (
    "request_hash",
    "organization_id",
    "calls",
    "unpriced_calls",
    "model",
    "agent_id",
    "first_at",
    "last_at",
    "cost",
    "saved_by_caching",
)
_METRICS: Final = {
    ("cost", "sum"): "cost",
    ("error_rate", "share"): "failed calls",
    ("latency", "median"): "latency, median",
    ("latency", "p95"): "latency, 95 %",
}
_METHODS: Final = {
    "weekday and hour": "Told from what the weekdays and hours of the last eight weeks cost.",
    "average day": "Told from the average of the few days there are; from two weeks on, weekdays are told apart.",
    "last day": "Told from the last day alone; from two weeks on, weekdays are told apart.",
}


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
    period = "today" if answer["period"] == "day" else f"in {_first_day(answer):%B}"
    spent, projected, low, high = (money(answer[name], exact=exact) for name in ("spent", "projected", "low", "high"))
    # Without earlier times to try it on, the range is a guess.
    likely = "most likely" if answer["error"] else "perhaps"
    return f"Spent {period}: {spent}, and by the end about {projected}, {likely} {low} to {high}."


def _first_day(answer: Row) -> date:
    return date.fromisoformat(answer["days"][0][0])


def forecast(answer: Row, *, exact: bool) -> Iterator[Text]:
    """The whole forecast: its days as a chart, and what they mean in words."""
    first = _first_day(answer)
    when = f"{first:%B %Y}" if answer["period"] == "month" else f"{first.day} {first:%B %Y}"
    whose = f", organization {answer['organization']}" if answer["organization"] is not None else ""
    yield Text(f"Forecast for {when} ({answer['timezone']}){whose}", "bold")
    bars = [
        Bar(str(int(day[8:10])), Decimal(spent or 0), Decimal(projected or 0))
        for day, spent, projected in answer["days"]
    ]
    largest = max(bar.height for bar in bars)
    if largest and len(bars) > 1:
        yield chart(bars, money(largest), console.width)
        yield Text.assemble(("spent", "green"), "  ", ("projected", "cyan"), " by day\n")
    yield Text(forecast_line(answer, exact=exact))
    yield Text(f"The last 7 days cost {money(answer['burn_rate_per_day'], exact=exact)} a day.")
    yield Text(f"{_METHODS.get(answer['method'], '')} {error_sentence(answer['error'])}".strip())
    if answer["unpriced_calls"]:
        yield Text(f"Not in it: {counted(int(answer['unpriced_calls']), 'call')} without a known price.")
        yield Text(PRICE_THEM)
    for budget in answer["budgets"]:
        yield Text(_budget_sentence(budget, answer))
    if answer["organization"] is None:
        yield Text("With --organization ID also: which of its budgets run out, and when.")


def error_sentence(error: Row | None) -> str:
    """How far such forecasts were off in the past."""
    if not error or error["mape"] is None:
        return "How right it is cannot be told yet: there are too few days to try it on."
    return (
        f"Made in the same way {counted(error['windows'], 'time')} for earlier days, knowing only what was known then, it was "
        f"off by {percent(error['mape'])} on average."
    )


def _budget_sentence(budget: Row, answer: Row) -> str:
    """What becomes of a budget until its window ends."""
    limit = Decimal(budget["limit"])
    each = "a day" if answer["period"] == "day" else "a month"
    named = f"Budget {budget['id']}, {limit_text(limit, 'cost_usd')} {each} ({_at_limit(budget)})"
    if budget["runs_out_at"] is None:
        return f"{named}: lasts, {percent(budget['projected_share'])} of it by the end."
    when = datetime.fromisoformat(budget["runs_out_at"])
    verb = "ran" if when <= datetime.fromisoformat(answer["moment"]) else "runs"
    return f"{named}: {verb} out about {local_time(when, budget['timezone'])}. See: vital-tracking budgets windows"


def _at_limit(budget: Row) -> str:
    return f"{budget['action']}{'' if budget['enforce'] else ', shadow'}"


# Anomalies


def subject(row: Row) -> str:
    """Who or what an anomaly is of."""
    return f"{row['subject']} {row['id']}"


def anomaly_rows(answer: Row) -> list[Row]:
    """Anomalies for programs."""
    return _in_numbers(answer, "value", "usual", "cost_at_stake")


def _in_numbers(answer: Row, *names: str) -> list[Row]:
    return [{**row, **{name: _amount(row[name]) for name in names}} for row in answer["rows"]]


def _found(row: Row, value: str) -> str:
    """A value of a metric with its unit."""
    if row["metric"] == "cost":
        return money(value)
    return duration(float(value)) if row["metric"] == "latency" else percent(float(value))


def anomalies_table(answer: Row, title: str) -> Table:
    """What was out of the ordinary, when, and what is usual."""
    organizations = any(row["organization_id"] for row in answer["rows"])
    headings = [("", True), ("day (UTC)", True), ("what", False)]
    headings += [("organization", False)] if organizations else []
    headings += [("of", False), ("found", True), ("usual", True), ("times", True), ("calls", True), ("at stake", True)]
    rows = [
        [
            str(number),
            row["day"],
            subject(row),
            *([row["organization_id"] or ""] if organizations else []),
            _METRICS.get((row["metric"], row["measure"]), row["metric"]),
            _found(row, row["value"]),
            _found(row, row["usual"]),
            _times(row),
            f"{row['calls']:,}",
            money(row["cost_at_stake"]) + ("*" if row["unpriced_calls"] else " "),
        ]
        for number, row in enumerate(answer["rows"], 1)
    ]
    return table(title, headings, rows)


def _times(row: Row) -> str:
    usual = Decimal(row["usual"])
    return f"{Decimal(row['value']) / usual:,.1f}" if usual else ""


# Duplicates


def duplicate_rows(answer: Row) -> list[Row]:
    """Duplicates for programs."""
    return _in_numbers(answer, "cost", "saved_by_caching")


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
            cost_text(row, "cost", exact=exact) + ("*" if row["unpriced_calls"] else " "),
            money(row["saved_by_caching"], exact=exact),
        )
        for row in answer["rows"]
    ]
    return table(title, headings, rows)


def duplicates_said(answer: Row, *, exact: bool) -> list[str]:
    """What caching would save, how to, and how to see the calls."""
    first = answer["rows"][0]
    said = [
        f"{counted(answer['requests'], 'request')} made again, {counted(answer['repeated_calls'], 'time')} in all: a cache of "
        f"answers would have saved {money(answer['saved_by_caching'], exact=exact)}. In Python: "
        "langchain_core.globals.set_llm_cache(langchain_core.caches.InMemoryCache())",
        "The calls of the first, in SQL: select * from token_usage_logs where request_hash = "  # noqa: S608 - shown, not run
        f"{_literal(first['request_hash'])} order by created_at;",
    ]
    if any(row["unpriced_calls"] for row in answer["rows"]):
        said.insert(0, f"* with calls without a known price, in no amount here.\n{PRICE_THEM}")
    return said


def _literal(text: str) -> str:
    """Text as SQL writes it: for people to copy."""
    return "'" + printable(text).replace("'", "''") + "'"
