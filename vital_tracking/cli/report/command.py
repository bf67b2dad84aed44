"""`vital-tracking report`: what it cost, who spent it, what is slow, what caches save, where the month ends."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vital_tracking.cli.render import options
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.report import anomalies, duplicates, forecast, overview, usage
from vital_tracking.cli.report.request import MOST_ROWS, ReportRequest, time_range
from vital_tracking.queries.catalogue import GROUPINGS
from vital_tracking.queries.forecast import FORECAST_PERIODS

_OTHERS: Final = {"forecast": forecast.show, "anomalies": anomalies.show, "duplicates": duplicates.show}
REPORTS: Final = (*GROUPINGS, *_OTHERS)
if TYPE_CHECKING:
    Report = str
else:
    Report = StrEnum("Report", {name: name for name in REPORTS})  # the command line reads the choices from an enum

_UTC: Final = "UTC"  # taken as it is, without reading the list of all zones


def report(
    name: Annotated[
        Report | None,
        typer.Argument(help="Which report; without a name an overview."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Today and the days before it, 30 by default.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From this date on, such as 2026-01-31, or a span such as 7d back.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to the beginning of this date; by default until now.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only this organization's calls.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROWS, help="How many rows; by default 20, and 1,000 for --json and --csv."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Show amounts to the last decimal.")] = False,
    period: Annotated[str, typer.Option(help="forecast: to the end of this day or month.")] = "month",
    timezone: Annotated[
        str, typer.Option(help="forecast: where days begin at midnight, such as Europe/Berlin.")
    ] = _UTC,
    json_: Json = False,
    csv_: Csv = False,
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
    if name == "forecast" and (days, since, until) != (None, None, None):
        raise typer.BadParameter("forecast looks at the month that runs: leave out --days, --since and --until")
    first, last = time_range(days, since, until)
    given = (("--days", days), ("--since", since), ("--until", until))
    asked = ReportRequest(
        since=first,
        until=last,
        organization=organization,
        limit=limit,
        exact=exact,
        period=options.chosen(period, "--period", FORECAST_PERIODS),
        timezone=timezone if timezone == _UTC else options.zone(timezone),
        json=json_,
        csv=csv_,
        words=tuple(word for option, value in given if value is not None for word in (option, shlex.quote(str(value)))),
    )
    with opened() as store:
        if name is None:
            overview.show(store, asked, REPORTS)
        elif name in GROUPINGS:
            usage.show(store, asked, GROUPINGS[name])
        else:
            _OTHERS[name](store, asked)
