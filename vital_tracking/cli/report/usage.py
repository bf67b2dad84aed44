"""A usage report: what each service, user, agent, seat, step or model cost."""

from __future__ import annotations

from typing import Final

from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.times import days_text
from vital_tracking.cli.report.request import MOST_ROWS, ReportRequest, say_no_calls, whose_calls
from vital_tracking.cli.report.tables import footnotes, usage_table
from vital_tracking.queries.catalogue import Grouping
from vital_tracking.queries.usage import UsageReport, others, usage_report
from vital_tracking.stores import Store

_NONE_OF: Final = {"panels": "No call of a panel", "workflows": "No call of a workflow"}


def show(store: Store, asked: ReportRequest, grouping: Grouping) -> None:
    """Print the report of a grouping."""
    answer = usage_report(store, grouping.name, **asked.range, rows=asked.rows)
    if asked.json:
        as_json(answer)
    elif asked.csv:
        as_csv(answer["rows"], grouping.columns)
    elif not answer["rows"]:
        _say_nothing(store, asked, grouping)
    else:
        title = f"{grouping.title}, {when(answer)}"
        console.print(usage_table(answer, title=title, exact=asked.exact, organization=asked.organization))
        for line in footnotes(answer):
            say(line)
        if others(answer) and asked.rows < MOST_ROWS:
            more = f"{asked.command(grouping.name)} --limit {min(10 * asked.rows, MOST_ROWS)}"
            say(f"The first {asked.rows}; for more: {more}")


def when(report: UsageReport) -> str:
    """The days of a report, and whose calls it counts."""
    return f"{days_text(report['since'], report['until'])} (UTC){whose_calls(report['organization'])}"


def any_calls(store: Store, asked: ReportRequest) -> bool:
    """Whether there are calls at all in the time asked for."""
    return usage_report(store, "services", **asked.range, rows=1)["total"]["calls"] > 0


def _say_nothing(store: Store, asked: ReportRequest, grouping: Grouping) -> None:
    if grouping.name in _NONE_OF and any_calls(store, asked):
        whose = f" of organization {asked.organization}" if asked.organization is not None else ""
        say(f"{_NONE_OF[grouping.name]}{whose} in these days: {asked.days}. See: {asked.command('services')}")
    else:
        say_no_calls(store, asked)
