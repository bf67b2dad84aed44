"""`vital-tracking subscriptions`: who is on which plan, since when, and on which day its month begins."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vital_tracking.alerts.wording import entity, local_time
from vital_tracking.cli.plans.quotas import quotas_table
from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.options import a_name, named, words, zone
from vital_tracking.cli.render.organizations import New, check_organizations, mistyped
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.errors import VitalError
from vital_tracking.queries.organizations import organizations_named
from vital_tracking.queries.plans import (
    QUOTA_COLUMNS,
    SUBSCRIBERS,
    Subscribed,
    Subscription,
    end_subscription,
    import_subscriptions,
    quota_status,
    subscribe,
    subscriptions,
)
from vital_tracking.queries.subscriptions_csv import Line, subscription_lines
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings

app = typer.Typer(
    help="Subscriptions: who is on which plan, since when, and whether its quota is watched or enforced.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Kind = Annotated[str, typer.Argument(help="user or organization.", **words(SUBSCRIBERS, "kind of subscriber"))]
Who = Annotated[str, typer.Argument(help="The user's or organization's id.")]
Organization = Annotated[
    str | None,
    typer.Option(
        help="Of a user: count this organization's calls; by default that of VITAL_ORGANIZATION_ID, else all together."
    ),
]
_MOST_SHOWN: Final = 20


@app.command("list")
def list_subscriptions(
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization's.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only those on this plan.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only users, or only organizations.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List who is on which plan, the fullest quota first.

    \b
    Examples:
      vital-tracking subscriptions list --plan trial
      vital-tracking subscriptions list --organization acme --csv
    """
    with opened() as store:
        rows = quota_status(store, organization=organization, plan=plan, entity_type=kind, limit=limit)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, QUOTA_COLUMNS)
    elif not rows:
        say("No subscriptions. To make one: vital-tracking subscriptions set user u-1 trial")
    else:
        console.print(quotas_table(rows))


@app.command("history")
def history(kind: Kind, who: Who, json_: Json = False) -> None:
    """Show the plans that a subscriber was on, is on and will be on, the latest first.

    \b
    Examples:
      vital-tracking subscriptions history user u-1
    """
    with opened() as store:
        rows = subscriptions(store, kind, who)
    if json_:
        as_json(rows)
    elif not rows:
        say(f"{kind} {who} has never been on a plan.")
    else:
        headings = [("plan", False), ("from", False), ("until", False), ("month begins", False), ("", False)]
        headings += [("counts in", False), ("set by", False)]
        console.print(table("", headings, [_line(row) for row in rows]))


@app.command("set")
def set_one(
    kind: Kind,
    who: Who,
    plan: Annotated[
        str | None, typer.Argument(help="The plan; it may be left out where only the rest changes.")
    ] = None,
    organization: Organization = None,
    since: Annotated[str | None, typer.Option(help="When it begins: an instant or a day; by default now.")] = None,
    until: Annotated[str | None, typer.Option(help="When it ends; by default it goes on.")] = None,
    reset_day: Annotated[
        int | None, typer.Option(min=1, max=31, help="Day on which its month begins; 31 is a month's last.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone in which that day begins; by default UTC.")] = None,
    enforced: Annotated[
        bool | None,
        typer.Option("--enforced/--watched", help="Enforced: block what is over. Watched, the default: only alert."),
    ] = None,
    new: New = False,
    json_: Json = False,
) -> None:
    """Put a user or an organization on a plan, or change what is given. What was used in its month stays used.

    \b
    Examples:
      vital-tracking subscriptions set user u-1 trial
      vital-tracking subscriptions set organization acme professional --enforced --reset-day 15 --timezone Europe/Berlin
      vital-tracking subscriptions set user u-1 --enforced
    """
    columns = _key(kind, who, organization)
    in_zone = zone(timezone) if timezone is not None else "UTC"
    given = {
        "plan": plan,
        "since": moment(since, "--since", in_zone).isoformat() if since is not None else None,
        "until": moment(until, "--until", in_zone).isoformat() if until is not None else None,
        "reset_day": reset_day,
        "timezone": in_zone if timezone is not None else None,
        "enforced": enforced,
    }
    columns |= {name: value for name, value in given.items() if value is not None}
    with opened() as store:
        check_organizations(store, organizations_named(columns).values(), new=new)
        done = subscribe(store, columns)
    if json_:
        as_json(done)
        return
    for line in told(done):
        say(line)


@app.command("end")
def end(
    kind: Kind,
    who: Who,
    organization: Organization = None,
    until: Annotated[str | None, typer.Option(help="When: an instant or a day; by default now.")] = None,
    json_: Json = False,
) -> None:
    """End a subscription; its limit ends with it, and what was to follow is dropped.

    \b
    Examples:
      vital-tracking subscriptions end user u-1
      vital-tracking subscriptions end organization acme --until 2027-01-01
    """
    columns = _key(kind, who, organization)
    if until is not None:
        columns["until"] = moment(until, "--until").isoformat()
    with opened() as store:
        ended = end_subscription(store, columns)
        now = datetime.now(UTC)
        running = (
            []
            if ended
            else [one for one in subscriptions(store, kind, who) if one["until"] is None or one["until"] > now]
        )
    if json_:
        as_json({"ended": ended})
    elif ended:
        say(f"{kind} {who} is on no plan {'any more' if until is None else f'from {until} on'}: nothing limits it.")
    else:
        raise VitalError(f"{kind} {who} is on no plan{_where(organization)}.{_elsewhere(running)}")


def _where(organization: str | None) -> str:
    return f" in organization {organization}" if organization else " in all organizations together"


def _elsewhere(running: Sequence[Subscription]) -> str:
    """Where somebody is on a plan, and how to name that."""
    return "".join(
        f" On plan {one['plan']} with --organization {shlex.quote(one['organization_id'])}."
        for one in running
        if one["organization_id"] is not None
    )


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header.", exists=True, dir_okay=False)],
    organization: Organization = None,
    new: New = False,
    json_: Json = False,
) -> None:
    """Read who is on which plan from a CSV file.

    Columns: entity_id and plan; and where wanted entity_type, organization_id, since, until, reset_day, timezone, enforced.
    Each line stands for itself: bad ones are told by their number, the others are set. Run twice, it changes nothing more.

    \b
    Examples:
      vital-tracking subscriptions import subscribers.csv --organization acme
    """
    whose = organization or Settings.from_env().organization_id
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            lines = list(subscription_lines(text, whose))
    except (ValueError, UnicodeDecodeError) as error:
        raise VitalError(f"{file}: {error}") from None
    with opened() as store:
        wrong = mistyped(store, (one for line in lines for one in organizations_named(line.columns).values()), new=new)
        lines = [_checked(line, wrong) for line in lines]
        good = [line for line in lines if line.problem is None]
        done = import_subscriptions(store, [line.columns for line in good])
    bad = {line.number: line.problem for line in lines if line.problem is not None}
    for row in done["rejected"]:
        bad[good[row["row"]].number] = " ".join(filter(None, (row["problem"], row["hint"])))
    problems = [{"line": number, "problem": problem} for number, problem in sorted(bad.items())]
    if json_:
        counts = {name: count for name, count in done.items() if name != "rejected"}
        as_json({**counts, "rejected": problems})
    else:
        refused = f", {done['refused']:,} refused (no admin there)" if done["refused"] else ""
        wrong_lines = f", {counted(len(problems), 'bad line')}" if problems else ""
        said = f"{counted(done['set'], 'subscription')} set, {done['unchanged']:,} as before"
        say(f"{file.name}: {said}{refused}{wrong_lines}")
        for problem in problems[:_MOST_SHOWN]:
            say(f"  line {problem['line']:,}: {problem['problem']}")
        if more := len(problems[_MOST_SHOWN:]):
            say(f"  ... and {more:,} more: --json shows all")
    if problems or done["refused"]:
        raise typer.Exit(1)


def _checked(line: Line, wrong: Mapping[str, str]) -> Line:
    problem = next((wrong[one] for one in organizations_named(line.columns).values() if one in wrong), None)
    return line if problem is None else replace(line, problem=f"{problem} For a new one: --new")


def told(done: Subscribed) -> list[str]:
    """What a change of a subscription came to: who, on what, from when on, and which month that makes."""
    row, before = done["subscription"], done["before"]
    how = "enforced" if row["enforced"] else "watched"
    since = f" from {local_time(row['since'], row['timezone'])} on"
    until = f" until {local_time(row['until'], row['timezone'])}" if row["until"] else ""
    lines = [
        f"{entity(row['entity_type'], row['entity_id'], row['organization_id'])}: plan {row['plan']}, {how},{since}{until}"
    ]
    month = (
        f"Its month: {local_time(done['starts_at'], row['timezone'])} to {local_time(done['ends_at'], row['timezone'])}"
    )
    lines.append(f"{month}; used so far: {done['calls_used']:,} calls, {done['tokens_used']:,} tokens")
    if before and (before["reset_day"], before["timezone"]) != (row["reset_day"], row["timezone"]):
        lines.append(
            f"Its month began on day {before['reset_day']} ({before['timezone']}), and begins on day {row['reset_day']} "
            f"({row['timezone']}) now: what was used before {local_time(done['starts_at'], row['timezone'])} is no part of it."
        )
    if before and before["plan"] != row["plan"]:
        lines.append(f"Before: plan {before['plan']}")
    return lines


def _key(kind: str, who: str, organization: str | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"entity_type": kind, "entity_id": named(who, "WHO")}
    whose = organization if organization is not None else Settings.from_env().organization_id
    if kind == "user" and whose is not None:
        columns["organization_id"] = whose
    return columns


def _line(row: Subscription) -> list[str]:
    return [
        row["plan"],
        local_time(row["since"], row["timezone"]),
        local_time(row["until"], row["timezone"]) if row["until"] else "-",
        f"day {row['reset_day']}, {row['timezone']}",
        "enforced" if row["enforced"] else "watched",
        row["organization_id"] or "all organizations" if row["entity_type"] == "user" else "itself",
        row["source"],
    ]
