"""The overview: totals, the forecast, and the dearest services, models and users, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.text import Text

from vital_tracking.cli.render.amounts import dollars, percent_text, share_text
from vital_tracking.cli.render.console import as_json, console, say
from vital_tracking.cli.render.times import duration
from vital_tracking.cli.report.charts import course, periods_between, sparkline
from vital_tracking.cli.report.forecast import forecast_sentence
from vital_tracking.cli.report.request import ReportRequest, say_no_calls
from vital_tracking.cli.report.tables import footnotes, usage_table
from vital_tracking.cli.report.usage import when
from vital_tracking.core.cost import MONEY
from vital_tracking.queries.bill import OtherPart, other_parts
from vital_tracking.queries.bill import total as total_of
from vital_tracking.queries.catalogue import GROUPINGS
from vital_tracking.queries.explore import Period
from vital_tracking.queries.forecast import cost_forecast
from vital_tracking.queries.usage import UsageReport, cost_by_day, savings_share
from vital_tracking.stores import Store

_SHOWN: Final = ("services", "models", "users")
_ROWS: Final = 5


def show(store: Store, asked: ReportRequest, reports: Sequence[str]) -> None:
    """Print the overview; `reports` are the names of all reports, for what else there is."""
    rows = max(asked.rows, _ROWS) if asked.json else _ROWS
    answers = {name: asked.usage(store, name, rows=rows) for name in _SHOWN}
    # A forecast knows organizations, and no other filter.
    ahead = None
    others: Mapping[str, OtherPart] = {}
    if not asked.beyond_organization:
        ahead = cost_forecast(store, organization=asked.organization, period=asked.period, timezone=asked.timezone)
        whose = None if asked.organization is None else {"organization": [asked.organization]}
        others = other_parts(store, Period(asked.since, asked.until, asked.timezone), whose)
    if asked.json:
        as_json({**answers, "forecast": ahead, "other_costs": others})
        return
    services = answers["services"]
    if not services["total"]["calls"]:
        say_no_calls(store, asked)
        _say_others(others, services, exact=asked.exact)
        return
    for text in totals(services, when(services), exact=asked.exact):
        console.print(text, highlight=False, soft_wrap=True)
    _say_others(others, services, exact=asked.exact)
    if ahead is not None:
        say(f"{forecast_sentence(ahead)} More: {asked.command('forecast')}")
    for name, answer in answers.items():
        say("")
        dearest = "" if len(answer["rows"]) < _ROWS else f", the dearest {_ROWS}"
        title = f"{GROUPINGS[name].title}{dearest}"
        console.print(usage_table(answer, title=title, exact=asked.exact, organization=asked.organization))
    for line in footnotes(services):
        say(line)
    say("")
    say(f"Next: {asked.command('users')}")
    say(f"More: {', '.join(name for name in reports if name not in _SHOWN)}")


def _say_others(others: Mapping[str, OtherPart], calls: UsageReport, *, exact: bool) -> None:
    """What is no call to a model, and the bill with it."""
    if not others:
        return
    other = total_of(part["cost"] for part in others.values())
    bill = MONEY.add(other, calls["total"]["total_cost"])
    kinds = ", ".join(f"{kind} {dollars(part['cost'], exact=exact)}" for kind, part in others.items())
    unpriced = sum(part["unpriced_costs"] for part in others.values())
    missing = f"; {unpriced:,} without a known price" if unpriced else ""
    say(f"Other costs {dollars(other, exact=exact)} ({kinds}{missing}); with the calls {dollars(bill, exact=exact)}")


def totals(report: UsageReport, days: str, *, exact: bool) -> Iterator[Text]:
    """What was spent, on how many calls, how fast, and what caches saved; `days` says when, in words."""
    total = report["total"]
    periods = periods_between(
        report.get("grain", "day"), report["since"], report["until"], report.get("timezone", "UTC")
    )
    line = sparkline(course(cost_by_day(report), periods)) if len(periods) > 1 else ""
    yield Text.assemble((dollars(total["total_cost"], exact=exact), "bold"), f"  {days}  ", (line, "green"))
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
    share = savings_share(total["potential_cost"], total["cache_savings"])
    whole = "" if share is None else f" of {dollars(total['potential_cost'], exact=exact)}, {share_text(share)}"
    yield Text(
        f"Caches saved {dollars(total['cache_savings'], exact=exact)}{whole}; {percent_text(total['hit_rate'])} of the calls "
        "came from LangChain's cache"
    )
