"""`vital-tracking report`: what it cost, who spent it, what is slow, what caches save, where the month ends."""

from __future__ import annotations

import shlex
from typing import Annotated, Final

import typer

from vital_tracking.cli.render import filters, options
from vital_tracking.cli.render.options import words
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import MOST_DAYS
from vital_tracking.cli.report import anomalies, duplicates, forecast, overview, usage
from vital_tracking.cli.report.request import MOST_ROWS, ReportRequest, time_range
from vital_tracking.core.breakdowns import DIMENSIONS
from vital_tracking.queries.catalogue import GRAINS, GROUPINGS, MEASURES
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.forecast import FORECAST_PERIODS

_OTHERS: Final = {"forecast": forecast.show, "anomalies": anomalies.show, "duplicates": duplicates.show}
REPORTS: Final = (*GROUPINGS, *_OTHERS)

_UTC: Final = "UTC"  # taken as it is, without reading the list of all zones
_SORTS: Final = tuple(name for name, measure in MEASURES.items() if name != "share" and not name.startswith("reported"))


def report(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"Which report: {options.either(REPORTS)}; without a name an overview.",
            **words(REPORTS, "report", metavar="REPORT"),
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=MOST_DAYS, help="Today and the days before it, 30 by default.")
    ] = None,
    since: filters.Since = None,
    until: filters.Until = None,
    month: filters.Month = None,
    timezone: filters.Timezone = _UTC,
    organization: filters.Organization = None,
    user: filters.User = None,
    session: filters.Session = None,
    service: filters.Service = None,
    agent: filters.Agent = None,
    tier: filters.Tier = None,
    workflow: filters.Workflow = None,
    step: filters.Step = None,
    panel: filters.Panel = None,
    solution: filters.Solution = None,
    run: filters.Run = None,
    framework: filters.Framework = None,
    provider: filters.Provider = None,
    model: filters.Model = None,
    message_type: filters.MessageType = None,
    status: filters.Status = None,
    where: filters.Where = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help=f"Split the rows once more: {', '.join(DIMENSIONS)}, or a key of the calls' metadata."
        ),
    ] = None,
    grain: Annotated[
        str, typer.Option(help="How finely the cost's course is told.", **words(GRAINS, "--grain"))
    ] = "day",
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE",
            help="The largest first, such as calls or p95_latency_ms; the smallest with :asc behind it. By default the cost.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROWS, help="How many rows; by default 20, and 1,000 for --json and --csv."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Show amounts to the last decimal.")] = False,
    period: Annotated[str, typer.Option(help="forecast: to the end of this day or month.")] = "month",
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show what calls cost: an overview, or one report of it. Days are those of UTC, or of --timezone.

    services, users, agents, panels (by seat), workflows (by step), models, organizations, sessions, solutions, runs: calls,
    tokens, cost, time and failures of each. time: the same by --grain. cache: what LangChain's cache and the providers' saved.
    forecast: where the month ends. anomalies: days that are out of the ordinary. duplicates: requests that were made more
    than once.

    Whole days of UTC, of all calls or an organization's, come from sums that are kept; anything else from the calls themselves,
    which takes longer, and knows only the days whose calls are still there.

    \b
    Examples:
      vital-tracking report
      vital-tracking report users --days 7 --organization acme
      vital-tracking report models --month 2026-01 --timezone Europe/Berlin --exact
      vital-tracking report workflows --since yesterday --sort p95_latency_ms
      vital-tracking report models --by prompt_version
      vital-tracking report time --grain week --since 2026-01
      vital-tracking report forecast --timezone Europe/Berlin
      vital-tracking report agents --days 90 --csv > agents.csv
    """
    if csv_ and name is None:
        raise typer.BadParameter("--csv goes with one report, such as: vital-tracking report services --csv")
    if name == "forecast" and (days, since, until, month) != (None, None, None, None):
        raise typer.BadParameter(
            "forecast looks at the month that runs: leave out --days, --since, --until and --month"
        )
    zone = timezone if timezone == _UTC else options.zone(timezone)
    first, last = time_range(days, since, until, month, zone)
    chosen = Filters(
        since=first,
        until=last,
        organization=organization,
        user=user,
        session=session,
        service=service,
        agent=agent,
        tier=tier,
        workflow=workflow,
        step=step,
        panel=panel,
        solution=solution,
        run=run,
        framework=framework,
        provider=provider,
        model=model,
        message_type=message_type,
        status=status,
        metadata=filters.metadata_of(where),
    )
    sorting, _, order = (sort or "").partition(":")
    given = [("--days", days), ("--since", since), ("--until", until), ("--month", month)]
    given += [("--timezone", None if zone == _UTC else zone)]
    given += [
        (f"--{name.replace('_', '-')}", value)
        for name, value in chosen.given.items()
        if name not in ("metadata", "organization")
    ]
    given += [("--where", word) for word in where or ()]
    asked = ReportRequest(
        since=first,
        until=last,
        filters=chosen,
        limit=limit,
        exact=exact,
        period=options.chosen(period, "--period", FORECAST_PERIODS),
        timezone=zone,
        json=json_,
        csv=csv_,
        words=tuple(word for option, value in given if value is not None for word in (option, shlex.quote(str(value)))),
        by=by,
        grain=grain,
        sort=options.chosen(sorting, "--sort", _SORTS) if sort is not None else None,
        ascending=options.chosen(order, "--sort MEASURE:", ("asc", "desc")) == "asc" if order else False,
    )
    if name is None and (by, sort, grain) != (None, None, "day"):
        raise typer.BadParameter(
            "--by, --sort and --grain go with one report, such as: vital-tracking report models --by tier"
        )
    if by in GRAINS:
        raise typer.BadParameter(f"--by {by} is how finely time goes: vital-tracking report time --grain {by}")
    if name in _OTHERS:
        _refuse_filters(name, asked)
    with opened() as store:
        if name is None:
            overview.show(store, asked, REPORTS)
        elif name in GROUPINGS:
            usage.show(store, asked, GROUPINGS[name])
        else:
            _OTHERS[name](store, asked)


def _refuse_filters(name: str, asked: ReportRequest) -> None:
    """Say which of the options this report does not know, where it would pass them over."""
    unknown = [f"--{one.replace('_', '-')}" if one != "metadata" else "--where" for one in asked.beyond_organization]
    unknown += [option for option, value in (("--by", asked.by), ("--sort", asked.sort)) if value is not None]
    unknown += ["--grain"] if asked.grain != "day" else []
    unknown += ["--timezone"] if name != "forecast" and asked.timezone != _UTC else []
    if unknown:
        raise typer.BadParameter(f"{name} does not go with {', '.join(unknown)}: leave that out")
