"""A usage report: what each service, user, agent, seat, step or model cost."""

from __future__ import annotations

from typing import Final

from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.times import days_text
from vital_tracking.cli.report.request import MOST_ROWS, ReportRequest, say_no_calls, whose_calls
from vital_tracking.cli.report.tables import footnotes, label_of, usage_table
from vital_tracking.core.breakdowns import DIMENSIONS
from vital_tracking.core.closest import did_you_mean
from vital_tracking.queries.calls import metadata_keys
from vital_tracking.queries.catalogue import Grouping
from vital_tracking.queries.explored_report import METADATA
from vital_tracking.queries.usage import UsageReport, others
from vital_tracking.stores import Store

_NONE_OF: Final = {
    "panels": "No call of a panel",
    "workflows": "No call of a workflow",
    "sessions": "No call of a session",
    "solutions": "No call of a solution",
    "runs": "No call of a service run",
}


def show(store: Store, asked: ReportRequest, grouping: Grouping) -> None:
    """Print the report of a grouping."""
    answer = asked.usage(store, grouping.name)
    if asked.json:
        as_json(answer)
    elif asked.csv:
        split = [label_of(asked.by)] if asked.by is not None else []
        as_csv(answer["rows"], [*split, *(name for name in grouping.columns if name not in split)])
    elif not answer["rows"]:
        _say_nothing(store, asked, grouping)
    else:
        title = f"{grouping.title}{f' and {asked.by}' if asked.by else ''}, {when(answer)}"
        console.print(usage_table(answer, title=title, exact=asked.exact, organization=asked.organization, by=asked.by))
        for line in footnotes(answer):
            say(line)
        if asked.by is not None and label_of(asked.by).startswith(METADATA):
            _say_of_key(store, asked, answer)
        if others(answer) and asked.rows < MOST_ROWS:
            more = f"{asked.command(grouping.name)} --limit {min(10 * asked.rows, MOST_ROWS)}"
            say(f"The first {asked.rows}; for more: {more}")


def when(report: UsageReport) -> str:
    """The days of a report, and whose calls it counts."""
    zone = report.get("timezone", "UTC")
    return f"{days_text(report['since'], report['until'], zone)} ({zone}){whose_calls(report['organization'])}"


def any_calls(store: Store, asked: ReportRequest) -> bool:
    """Whether there are calls at all in the time asked for."""
    return asked.usage(store, "services", rows=1)["total"]["calls"] > 0


def _say_of_key(store: Store, asked: ReportRequest, report: UsageReport) -> None:
    """Which keys there are, where no call has the one that was asked for."""
    if asked.by is None or any(row.get(label_of(asked.by)) is not None for row in report["rows"]):
        return
    known = metadata_keys(store, asked.filters)
    has = f"They have: {', '.join(known)}." if known else "They have none."
    say(
        f"No call of these days has {asked.by!r} in its metadata{did_you_mean(asked.by, [*known, *DIMENSIONS])} {has} "
        "Keys of your own are kept where VITAL_METADATA_KEYS names them."
    )


def _say_nothing(store: Store, asked: ReportRequest, grouping: Grouping) -> None:
    if grouping.name in _NONE_OF and any_calls(store, asked):
        whose = f" of organization {asked.organization}" if asked.organization is not None else ""
        say(f"{_NONE_OF[grouping.name]}{whose} in these days: {asked.days}. See: {asked.command('services')}")
    else:
        say_no_calls(store, asked)
