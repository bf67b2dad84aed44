"""`vital-tracking report`: what it cost, who spent it, what is slow, what caches save, where the month ends."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.budgets import options as form
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.times import days_text, moment
from vital_tracking.cli.report import texts as findings
from vital_tracking.cli.report.tables import csv_columns, csv_row, footnotes, others, usage_table
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

Row = dict[str, Any]

_SHOWN: Final = 20
_FOR_PROGRAMS: Final = 1000
_MOST: Final = 10_000
_OVERVIEW: Final = 5
_DAYS: Final = 30
_UTC: Final = "UTC"  # to be found without a look at all zones
_NO_HISTORY: Final = "no history"


class Report(StrEnum):
    """The reports."""

    services = "services"
    users = "users"
    agents = "agents"
    panels = "panels"
    workflows = "workflows"
    models = "models"
    cache = "cache"
    forecast = "forecast"
    anomalies = "anomalies"
    duplicates = "duplicates"


_TITLES: Final = {
    Report.services: "Services",
    Report.users: "Users",
    Report.agents: "Agents",
    Report.panels: "Panels, by seat",
    Report.workflows: "Workflows, by step",
    Report.models: "Models",
    Report.cache: "What caches saved",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for."""

    since: datetime
    until: datetime
    organization: str | None
    rows: int
    exact: bool
    period: str
    timezone: str
    words: tuple[str, ...]
    """The options that name the time, as they were given."""

    @property
    def range(self) -> Row:
        """The arguments that most functions take."""
        return {"since": self.since, "until": self.until, "organization": self.organization}

    def again(self, name: str) -> str:
        """The command for another report of the same time and organization."""
        words = ["vital-tracking", "report", name, *(() if name == Report.forecast else self.words)]
        if self.organization is not None:
            words += ["--organization", shlex.quote(self.organization)]
        return " ".join(words)


def report(
    name: Annotated[Report | None, typer.Argument(help="Which report; without a name an overview.")] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Today and the days before it, 30 by default.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From this date on, such as 2026-01-31, or a span such as 7d back.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to the beginning of this date; by default until now.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only this organization's calls.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help="How many rows; by default 20, and 1,000 for --json and --csv.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Show amounts to the last decimal.")] = False,
    period: Annotated[str, typer.Option(help="forecast: to the end of this day or month.")] = "month",
    timezone: Annotated[
        str, typer.Option(help="forecast: where days begin at midnight, such as Europe/Berlin.")
    ] = _UTC,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show what calls cost: an overview, or one report of it. Days are those of UTC.

    services, users, agents, panels (by seat), workflows (by step), models: calls, tokens, cost, time and failures of each.
    cache: what LangChain's cache and the providers' saved. forecast: where the month ends. anomalies: days that are out of the
    ordinary. duplicates: requests that were made more than once.

    \b
    Examples:
      vital-tracking report
      vital-tracking report users --days 7 --organization acme
      vital-tracking report models --since 2026-01-01 --until 2026-02-01 --exact
      vital-tracking report forecast --timezone Europe/Berlin
      vital-tracking report agents --days 90 --csv > agents.csv
    """
    if csv_ and name is None:
        raise typer.BadParameter("--csv goes with one report, such as: vital-tracking report services --csv")
    if name is Report.forecast and (days, since, until) != (None, None, None):
        raise typer.BadParameter("forecast looks at the month that runs: leave out --days, --since and --until")
    first, last = _range(days, since, until)
    shown = _FOR_PROGRAMS if json_ or csv_ else _SHOWN
    chosen = form.chosen(period, "--period", ("day", "month"))
    given = (("--days", days), ("--since", since), ("--until", until))
    words = tuple(word for option, value in given if value is not None for word in (option, shlex.quote(str(value))))
    asked = Asked(
        first,
        last,
        organization,
        limit or shown,
        exact,
        chosen,
        timezone if timezone == _UTC else form.zone(timezone),
        words,
    )
    store = open_store(Settings.from_env())
    try:
        if name is None:
            _overview(store, asked, json_=json_)
        elif name in _TITLES:
            _usage(store, name, asked, json_=json_, csv_=csv_)
        else:
            _FINDINGS[name](store, asked, json_, csv_)
    finally:
        store.close()


def _range(days: int | None, since: str | None, until: str | None) -> tuple[datetime, datetime]:
    """The time that is asked about."""
    if days is not None and since is not None:
        raise typer.BadParameter("--days and --since say the same thing: leave one of them out")
    last = moment(until, "--until") if until is not None else datetime.now(UTC)
    if since is not None:
        first = moment(since, "--since")
    else:
        last_day = (last - timedelta(microseconds=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first = last_day - timedelta(days=min((days or _DAYS) - 1, (last_day - datetime(1970, 1, 1, tzinfo=UTC)).days))
    if first >= last:
        raise typer.BadParameter("--since must be earlier than --until")
    return first, last


# Usage: services, users, agents, panels, workflows, models, cache


def _ask(store: Store, name: str, asked: Asked, rows: int) -> Row:
    answer: Row = store.call("usage_report_v1", report=name, **asked.range, rows=rows)
    return answer


def _usage(store: Store, name: Report, asked: Asked, *, json_: bool, csv_: bool) -> None:
    answer = _ask(store, name, asked, asked.rows)
    if json_:
        as_json(answer)
    elif csv_:
        as_csv([csv_row(row) for row in answer["rows"]], csv_columns(name))
    elif not answer["rows"]:
        _say_nothing(store, asked, name)
    else:
        title = f"{_TITLES[name]}, {_when(answer)}"
        console.print(usage_table(answer, title=title, exact=asked.exact, organization=asked.organization))
        for line in footnotes(answer):
            say(line)
        if others(answer) and asked.rows < _MOST:
            say(f"The first {asked.rows}; for more: {asked.again(name)} --limit {min(10 * asked.rows, _MOST)}")


def _when(answer: Row) -> str:
    """The days of a report, and whose calls it counts."""
    since, until = (datetime.fromisoformat(answer[name]) for name in ("since", "until"))
    whose = f", organization {answer['organization']}" if answer["organization"] is not None else ""
    return f"{days_text(since, until)} (UTC){whose}"


_NONE_OF: Final = {
    Report.panels: "No call of a panel",
    Report.workflows: "No call of a workflow",
}


def _say_nothing(store: Store, asked: Asked, name: Report | None = None) -> None:
    """Why there is nothing to show, and what to do next."""
    days = days_text(asked.since, asked.until)
    whose = f" of organization {asked.organization}" if asked.organization is not None else ""
    if name in _NONE_OF and _ask(store, Report.services, asked, 1)["total"]["calls"]:
        say(f"{_NONE_OF[name]}{whose} in these days: {days}. See: {asked.again('services')}")
        return
    waiting = store.call("audit_usage_v1", since=asked.until, until=asked.until)["days_to_backfill"]
    if waiting:
        say(
            f"No calls{whose} in these days: {days}. But {waiting} days are still to be summed up: vital-tracking backfill"
        )
        return
    calls = store.read("agent_usage_detailed", columns=("created_at",), limit=1, **_only(asked))
    if calls:
        last = f"{calls[0]['created_at']:%Y-%m-%d}"
        say(f"No calls{whose} in these days: {days}. The last was on {last}: vital-tracking report --since {last}")
    elif asked.organization is not None:
        say(f"No calls{whose}. All organizations: vital-tracking report")
    else:
        say("No calls yet. For some: vital-tracking demo")
        say('To record your own: model.invoke(question, config={"callbacks": [VitalTracker.from_env().handler]})')


def _only(asked: Asked) -> dict[str, Any]:
    return {"equals": {"organization_id": asked.organization}} if asked.organization is not None else {}


# Overview


def _overview(store: Store, asked: Asked, *, json_: bool) -> None:
    names = (Report.services, Report.models, Report.users)
    rows = max(asked.rows, _OVERVIEW) if json_ else _OVERVIEW
    answers = {name: _ask(store, name, asked, rows) for name in names}
    ahead = store.call("forecast_v1", organization=asked.organization, period=asked.period, timezone=asked.timezone)
    if json_:
        as_json({**{str(name): answer for name, answer in answers.items()}, str(Report.forecast): ahead})
        return
    services = answers[Report.services]
    if not services["total"]["calls"]:
        _say_nothing(store, asked)
        return
    for text in findings.totals(services, _when(services), exact=asked.exact):
        console.print(text, highlight=False, soft_wrap=True)
    say(f"{findings.forecast_line(ahead)} More: {asked.again(Report.forecast)}")
    for name, answer in answers.items():
        say("")
        title = _TITLES[name] if len(answer["rows"]) < _OVERVIEW else f"{_TITLES[name]}, the dearest {_OVERVIEW}"
        console.print(usage_table(answer, title=title, exact=asked.exact, organization=asked.organization))
    for line in footnotes(services):
        say(line)
    say("")
    say(f"Next: {asked.again(Report.users)}")
    say(f"More: {', '.join(name for name in Report if name not in names)}")


# Forecast, anomalies, duplicates


def _forecast(store: Store, asked: Asked, json_: bool, csv_: bool) -> None:
    answer = store.call("forecast_v1", organization=asked.organization, period=asked.period, timezone=asked.timezone)
    if json_:
        as_json(answer)
    elif csv_:
        as_csv(findings.forecast_rows(answer), findings.FORECAST_COLUMNS)
    elif answer["method"] == _NO_HISTORY:
        _say_nothing(store, asked)
    else:
        for part in findings.forecast(answer, exact=asked.exact):
            console.print(part, highlight=False, soft_wrap=True)


def _anomalies(store: Store, asked: Asked, json_: bool, csv_: bool) -> None:
    answer = store.call("anomalies_v1", **asked.range, rows=asked.rows)
    if json_:
        as_json(answer)
    elif csv_:
        as_csv(findings.anomaly_rows(answer), findings.ANOMALY_COLUMNS)
    elif answer["rows"]:
        console.print(findings.anomalies_table(answer, f"Out of the ordinary, {days_text(asked.since, asked.until)}"))
        say("\nThe calls behind each, as a query for psql or Supabase's SQL editor:")
        for number, row in enumerate(answer["rows"], 1):
            say(printable(f"-- {number}: {findings.subject(row)}, {row['day']}\n{row['query']};"))
    elif _ask(store, Report.services, asked, 1)["total"]["calls"]:
        say(f"Nothing out of the ordinary: {days_text(asked.since, asked.until)}.")
    else:
        _say_nothing(store, asked)


def _duplicates(store: Store, asked: Asked, json_: bool, csv_: bool) -> None:
    answer = store.call("duplicates_v1", **asked.range, rows=asked.rows)
    if json_:
        as_json(answer)
    elif csv_:
        as_csv(findings.duplicate_rows(answer), findings.DUPLICATE_COLUMNS)
    elif answer["rows"]:
        title = f"Requests made more than once, {days_text(asked.since, asked.until)}"
        console.print(findings.duplicates_table(answer, title, exact=asked.exact))
        for line in findings.duplicates_said(answer, exact=asked.exact):
            say(line)
    elif _ask(store, Report.services, asked, 1)["total"]["calls"]:
        say(
            f"No request was made twice: {days_text(asked.since, asked.until)}. Requests are told apart only where "
            "VITAL_HASH_KEY is set for the processes that make them."
        )
    else:
        _say_nothing(store, asked)


_FINDINGS: Final[dict[Report, Callable[[Store, Asked, bool, bool], None]]] = {
    Report.forecast: _forecast,
    Report.anomalies: _anomalies,
    Report.duplicates: _duplicates,
}
