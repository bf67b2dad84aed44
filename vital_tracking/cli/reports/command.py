"""`vital-tracking reports`: saved reports, what they say, and when they are sent where."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Final, cast

import typer

from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.cli.render.options import a_name, either, named, words, zone
from vital_tracking.cli.render.pages import imported_pages
from vital_tracking.cli.render.session import Json, Yes, opened
from vital_tracking.core.closest import did_you_mean
from vital_tracking.errors import VitalError
from vital_tracking.ids import new_id
from vital_tracking.queries.report_schedules import schedule_report, unschedule_report
from vital_tracking.queries.reports import WEEKDAYS
from vital_tracking.queries.saved_reports import KINDS, Every, SavedReport, remove_report, save_report, saved_reports
from vital_tracking.settings import Settings
from vital_tracking.stores import Store

app = typer.Typer(
    help="Saved reports: what they say, and sending them by mail or chat on a schedule.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAYS: Final = tuple(day.lower() for day in WEEKDAYS)
FORMATS: Final = ("markdown", "html")

Name = Annotated[str, typer.Argument(help="The report's name, as it was saved on the page explore.")]
Owner = Annotated[str | None, typer.Option(help="The user whose report it is; without it, one of the operators'.")]
Format = Annotated[str, typer.Option("--format", help="Markdown or HTML.", **words(FORMATS, "format"))]


@app.command("list")
def list_reports(json_: Json = False) -> None:
    """List the saved reports of everybody, with when they are sent and where.

    \b
    Examples:
      vital-tracking reports list
      vital-tracking reports list --json
    """
    with opened() as store:
        rows = saved_reports(store, everybody=True)
    if json_:
        as_json(rows)
    elif not rows:
        say("No reports are saved. Save one on the page explore: vital-tracking dashboard")
    else:
        headings = [(name, False) for name in ("report", "of", "sent", "to", "next (UTC)", "last (UTC)", "problem")]
        console.print(table("", headings, [_cells(row) for row in rows]))
        here = Settings.from_env().channels
        lost = sorted({row.schedule.channel for row in rows if row.schedule} - set(here))
        if lost:
            say(
                f"No channel of this machine: {', '.join(lost)}. Whichever machine has it in VITAL_REPORT_CHANNELS sends there."
            )


@app.command("show")
def show(name: Name, owner: Owner = None, format_: Format = "markdown", json_: Json = False) -> None:
    """Print a report as it would be sent now: of the whole days before today, as its owner may see them.

    With --json: what it asks, and when it is sent.

    \b
    Examples:
      vital-tracking reports show "cost by model"
      vital-tracking reports show "cost by model" --owner 8f14e45f-ceea-4672-9d5a-1f0d8a0f5c11 --format html
    """
    with opened() as store:
        report = _found(store, name, owner)
        if json_:
            as_json(report)
            return
        with imported_pages():
            from vital_tracking.web.mail.reports import saved_document
        made = saved_document(store, report.id, report.name, report.asked, datetime.now(UTC), _public_url())
    sys.stdout.write(f"{made.html if format_ == 'html' else made.markdown}\n")


@app.command("summary")
def summary(
    week: Annotated[bool, typer.Option("--week", help="The seven whole days before today. The default.")] = False,
    month: Annotated[bool, typer.Option("--month", help="The last calendar month.")] = False,
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization.")] = None,
    timezone: Annotated[str, typer.Option(help="Whose days: an IANA time zone.")] = "UTC",
    format_: Format = "markdown",
    save: Annotated[str | None, typer.Option(help="Keep it under this name, to schedule it.")] = None,
) -> None:
    """Print what was spent in a week or month against the time before, and what needs a look.

    By service, model and user; caches, the forecast, budgets near their limits, alerts, blocked calls, and what has no price.

    \b
    Examples:
      vital-tracking reports summary
      vital-tracking reports summary --month --organization acme --format html
      vital-tracking reports summary --month --organization acme --save "acme, monthly"
    """
    if week and month:
        raise typer.BadParameter("--week and --month are two times: leave one of them out")
    asked = {"report": "summary", "period": "month" if month else "week", "timezone": zone(timezone)}
    if organization is not None:
        asked["organization"] = named(organization, "--organization")
    with imported_pages():
        from vital_tracking.web.mail.summary import summary_document
    with opened() as store:
        if save is not None:
            save_report(store, save, asked.items())
        made = summary_document(store, [*asked.items()], datetime.now(UTC), save or "summary", _public_url())
    sys.stdout.write(f"{made.html if format_ == 'html' else made.markdown}\n")


@app.command("schedule")
def schedule(
    name: Name,
    channel: Annotated[
        str, typer.Option("--to", help="A channel by its name: one of VITAL_REPORT_CHANNELS, or alerts.")
    ] = "alerts",
    every: Annotated[str, typer.Option(help="How often.", **words(("day", "week", "month"), "span"))] = "week",
    weekday: Annotated[str, typer.Option(help="Of weekly ones.", **words(_DAYS, "weekday"))] = "monday",
    day: Annotated[int, typer.Option(min=1, max=31, help="Of monthly ones; in a shorter month its last day.")] = 1,
    hour: Annotated[int, typer.Option(min=0, max=23, help="The hour of the day.")] = 8,
    timezone: Annotated[str, typer.Option(help="Whose hours: an IANA time zone.")] = "UTC",
    owner: Owner = None,
    json_: Json = False,
) -> None:
    """Send a report from now on, every day, week or month.

    Channels are this machine's: VITAL_REPORT_CHANNELS names them with apprise's URLs, and those of VITAL_ALERT_URLS are the
    channel alerts. The database knows their names alone. What is due is sent by a dashboard that runs, or by:
    vital-tracking reports send --due

    \b
    Examples:
      vital-tracking reports schedule "cost by model" --to finance --every week --weekday monday --timezone Europe/Berlin
      vital-tracking reports schedule "cost by model" --every month --day 1 --hour 7
      vital-tracking reports schedule summary --every week
      vital-tracking reports schedule caches --every day

    The last two need not be saved before. `summary` is what reports summary prints; `caches` says when the hit rate of a cache
    has fallen by five points and a quarter against the four weeks before, and nothing while none has.
    """
    given = Settings.from_env().channels
    if channel not in given:
        offered = f" This machine has {either(sorted(given))}." if len(given) > 1 else ""
        raise typer.BadParameter(
            f"--to {channel!r} is no channel of this machine{did_you_mean(channel, sorted(given))}{offered} Name it: "
            "VITAL_REPORT_CHANNELS=finance=mailto://user:password@example.com; the channel alerts is VITAL_ALERT_URLS"
        )
    with opened() as store:
        if owner is None and name in KINDS:
            _keep(store, name, {"report": name, "period": every, "timezone": zone(timezone)})
        report = _found(store, name, owner)
        due_at = schedule_report(
            store,
            report.id,
            channel,
            every=cast("Every", every),
            weekday=_DAYS.index(weekday) + 1,
            day=day,
            hour=hour,
            timezone=zone(timezone),
        )
    if json_:
        as_json({"name": report.name, "owner": report.owner, "channel": channel, "due_at": due_at})
    else:
        say(f"{report.name} goes to {channel}, first on {due_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.")


@app.command("unschedule")
def unschedule(name: Name, owner: Owner = None, json_: Json = False) -> None:
    """Send a report no more. It stays saved.

    \b
    Examples:
      vital-tracking reports unschedule "cost by model"
    """
    with opened() as store:
        report = _found(store, name, owner)
        was = unschedule_report(store, report.id)
    if json_:
        as_json({"name": report.name, "owner": report.owner, "unscheduled": was})
    else:
        say(f"{report.name} is sent no more." if was else f"{report.name} was not sent.")


@app.command("remove")
def remove(name: Name, yes: Yes = False, json_: Json = False) -> None:
    """Remove a report of the operators', with its schedule. Users remove theirs on the page explore.

    \b
    Examples:
      vital-tracking reports remove "cost by model"
    """
    with opened() as store:
        report = _found(store, name, None)
        if not yes:
            typer.confirm(f"Remove the report {report.name}?", abort=True)
        removed = remove_report(store, report.name)
    if json_:
        as_json({"name": report.name, "removed": removed})
    else:
        say(f"{report.name} is removed.")


@app.command("send")
def send(
    name: Annotated[str | None, typer.Argument(help="Only this report.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only what is due, and then not before it is due again.")] = False,
    owner: Owner = None,
    json_: Json = False,
) -> None:
    """Send what is due, each report once, however many processes do it; or one report now, beside its schedule.

    Where the channel does not take it, it is due again after a pause, and the command ends with 1. For cron:

    \b
      */10 * * * * vital-tracking reports send --due
      vital-tracking reports send "cost by model"
    """
    if name is None and not due:
        raise typer.BadParameter("send what? --due, or the name of a report")
    with imported_pages():
        from vital_tracking.web.mail.reports import saved_document
        from vital_tracking.web.mail.sending import Channels, Sent, send_due
    channels = Channels(Settings.from_env().channels)
    with opened() as store:
        report = None if name is None else _found(store, name, owner)
        if due:
            holder = f"{socket.gethostname()} {new_id()}"
            only = None if report is None else report.id
            rows = list(send_due(store, channels, holder, public_url=_public_url(), report=only))
        else:
            report = cast("SavedReport", report)
            if report.schedule is None or report.schedule.channel not in channels.names:
                raise VitalError(
                    f"{report.name} goes to no channel of this machine. First: vital-tracking reports schedule {report.name!r}"
                )
            now = datetime.now(UTC)
            made = saved_document(store, report.id, report.name, report.asked, now, _public_url())
            _, problem = channels.send(report.schedule.channel, made)
            rows = [Sent(report.name, report.owner, report.schedule.channel, now, problem is None, problem)]
    if json_:
        as_json(rows)
    else:
        for row in rows:
            say(
                f"{row.name}: {f'sent to {row.channel}' if row.delivered else f'not sent to {row.channel} ({row.problem})'}"
            )
        if not rows:
            say("Nothing is due. When what is due: vital-tracking reports list")
    if not all(row.delivered for row in rows):
        raise typer.Exit(1)


def _keep(store: Store, name: str, asked: dict[str, str]) -> None:
    """Keep one of KINDS under its own name; what else it asks already, such as an organization, it goes on asking."""
    before = next((one for one in saved_reports(store) if one.name == name), None)
    save_report(store, name, {**(dict(before.asked) if before else {}), **asked}.items())


def _found(store: Store, name: str, owner: str | None) -> SavedReport:
    """The report of that name of its owner."""
    reports = [report for report in saved_reports(store, everybody=True) if report.owner == owner]
    for report in reports:
        if report.name == name:
            return report
    whose = "the operators" if owner is None else owner
    raise VitalError(
        f"There is no report {name!r} of {whose}{did_you_mean(name, [report.name for report in reports])} "
        "Which there are: vital-tracking reports list"
    )


def _public_url() -> str | None:
    with imported_pages():
        from vital_tracking.web.settings import WebSettings
    return WebSettings.from_env().public_url


def _cells(row: SavedReport) -> tuple[str, ...]:
    when = row.schedule
    whose = row.owner or "(operators)"
    if when is None:
        return (row.name, whose, "-", "-", "-", "-", "")
    problem = f"{when.problem} ({when.failures})" if when.failures else ""
    return (row.name, whose, when.text, when.channel, _minute(when.due_at), _minute(when.sent_at), problem)


def _minute(moment: Any) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
