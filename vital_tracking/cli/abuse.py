"""`vital-tracking abuse`: what looks like abuse, what to do about it, and what is none."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.options import a_name, span, words
from vital_tracking.cli.render.session import Csv, Json, Yes, opened
from vital_tracking.cli.render.times import short_time
from vital_tracking.errors import StoreUnavailable
from vital_tracking.queries.abuse import (
    ACTIONS,
    FINDING_COLUMNS,
    LONGEST,
    MOST_FINDINGS,
    SEVERITIES,
    STATES,
    AbuseFinding,
    AbuseRule,
    AbuseScan,
    abuse_finding,
    abuse_findings,
    abuse_settings,
    act_on,
    became,
    figures,
    find_abuse,
    mark_false_alarm,
    remove_mark,
    reopen,
    set_rule,
)
from vital_tracking.queries.words import counted

app = typer.Typer(
    help="Abuse: what looks like it, acting on it, and marking false alarms.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_TOLD_APART: Final = 8
_LAST_ID: Final = 2**63 - 1
Number = Annotated[int, typer.Argument(min=1, max=_LAST_ID, metavar="ID", help="The finding's id.")]
Why = Annotated[str, typer.Option(help="Why, for whoever looks later.")]
For = Annotated[
    str, typer.Option("--for", help="How long, such as 30m, 24h or 7d, 31 days at most; then it ends by itself.")
]
Organization = Annotated[str | None, typer.Option(help="Only this organization's.")]


@app.command("list")
def list_findings(
    organization: Organization = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state.", **words(STATES, "state"))] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_FINDINGS, help="How many, the newest first.")] = 100,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List findings, the newest first: the pattern, who, the figures that made it one, and what became of it.

    \b
    Examples:
      vital-tracking abuse list --state open
      vital-tracking abuse list --organization acme --csv > abuse.csv
    """
    with opened() as store:
        rows = abuse_findings(store, organization=organization, state=state, limit=limit)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, FINDING_COLUMNS)
    elif rows:
        console.print(fitted("", _COLUMNS, rows))
        say("One with its rows: vital-tracking abuse show ID")
    else:
        say("Nothing was found. To look now: vital-tracking abuse scan")


@app.command("show")
def show(number: Number, json_: Json = False) -> None:
    """Show a finding with its figures, and the query that shows its rows."""
    with opened() as store:
        finding = abuse_finding(store, number)
    if json_:
        as_json(finding)
        return
    say(printable(f"{finding['about']}: {_whose(finding)}"))
    say(figures(finding))
    say(f"severity {finding['severity']}, {_became(finding)}")
    say(printable(f"\nIts rows, for psql or Supabase's SQL editor:\n{finding['query']};"))


@app.command("scan")
def scan(
    every: Annotated[str | None, typer.Option(help="Do it again and again, such as every 1m, until Ctrl-C.")] = None,
    json_: Json = False,
) -> None:
    """Look for abuse in the last hour now. Where pg_cron is there, the database does that each minute by itself.

    \b
    Examples:
      vital-tracking abuse scan
      vital-tracking abuse scan --every 1m
    """
    pause = float(span(every, "--every")) if every is not None else None
    with opened() as store:
        if pause is None:
            found = find_abuse(store)
            if json_:
                as_json(found)
            else:
                say(_said(found))
            return
        try:
            while True:
                try:
                    found = find_abuse(store)
                    if found["new"]:
                        say(_said(found))
                except StoreUnavailable as error:
                    typer.echo(str(error), err=True)
                time.sleep(pause)
        except KeyboardInterrupt:
            say("Stopped.")


@app.command("act")
def act(
    number: Number,
    action: Annotated[str, typer.Argument(help="What to do.", **words(ACTIONS, "action"))],
    lasts: For = "1h",
    why: Why = "",
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Watch, throttle or block whoever is behind a finding, by a budget that ends by itself; what else is open is closed with it.

    watch stops nothing, and notes on each call that a block would have stopped it; throttle lets one call pass in 30 seconds;
    block stops every call.

    \b
    Examples:
      vital-tracking abuse act 12 block --for 24h --why "stolen key" --yes
    """
    length = timedelta(seconds=float(span(lasts, "--for", longest=LONGEST)))
    with opened() as store:
        finding = abuse_finding(store, number)
        if not yes:
            typer.confirm(f"{action} {finding['entity_id'] or finding['subject']} for {lasts}?", abort=True)
        done = act_on(store, number, action, lasts=length, why=why)
    _tell(done, json_=json_)


@app.command("mark")
def mark(number: Number, why: Why = "", json_: Json = False) -> None:
    """Mark a finding as a false alarm: its like is silent up to its size. What is silenced: vital-tracking abuse settings

    \b
    Examples:
      vital-tracking abuse mark 12 --why "the nightly import"
    """
    with opened() as store:
        done = mark_false_alarm(store, number, why=why)
    _tell(done, json_=json_)


@app.command("reopen")
def open_again(number: Number, json_: Json = False) -> None:
    """Take back what was decided about a finding: what was put up, and its mark.

    \b
    Examples:
      vital-tracking abuse reopen 12
    """
    with opened() as store:
        done = reopen(store, number)
    _tell(done, json_=json_)


@app.command("unmark")
def unmark(number: Annotated[int, typer.Argument(min=1, max=_LAST_ID, metavar="ID", help="The mark's id.")]) -> None:
    """Take a mark back: its like is told of again.

    \b
    Examples:
      vital-tracking abuse unmark 3
    """
    with opened() as store:
        remove_mark(store, number)
    say(f"Mark {number} is gone: its like is told of again")


@app.command("rule")
def rule(
    action: Annotated[
        str | None,
        typer.Argument(
            help="What to do; none removes the rule. Without it the rules are shown.",
            **words((*ACTIONS, "none"), "action"),
        ),
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Of this pattern alone.")] = None,
    severity: Annotated[str, typer.Option(help="From this severity on.", **words(SEVERITIES, "severity"))] = "high",
    lasts: For = "1h",
    organization: Annotated[str | None, typer.Option(callback=a_name, help="In this organization alone.")] = None,
) -> None:
    """Have findings acted on by themselves, from a severity on, or show what is done so.

    \b
    Examples:
      vital-tracking abuse rule throttle --severity medium --for 30m
      vital-tracking abuse rule block --pattern repeated_request --organization acme
      vital-tracking abuse rule none
      vital-tracking abuse rule
    """
    length = timedelta(seconds=float(span(lasts, "--for", longest=LONGEST)))
    with opened() as store:
        if action is not None:
            wanted = None if action == "none" else action
            set_rule(store, organization=organization, pattern=pattern, action=wanted, severity=severity, lasts=length)
        rules = abuse_settings(store, organization=organization)["rules"]
    for one in rules:
        say(_rule_text(one))
    if not rules:
        say("Nothing is done by itself. Have it done: vital-tracking abuse rule throttle --severity high --for 1h")


@app.command("settings")
def settings(organization: Organization = None, json_: Json = False, csv_: Csv = False) -> None:
    """Show patterns with their thresholds and why they are so, marks of false alarms, and rules."""
    with opened() as store:
        found = abuse_settings(store, organization=organization)
    if json_:
        as_json(found)
        return
    if csv_:
        as_csv(found["patterns"], tuple(found["patterns"][0]))
        return
    for one in found["patterns"]:
        least = f"{one['short_floor']} in 5 minutes or " if one["short_floor"] is not None else ""
        say(f"{one['pattern']}: {least}{one['long_floor']}, and {one['times']} times the usual. {one['reason']}")
    for mark_ in found["marks"]:
        said = f"mark {mark_['id']}: {mark_['pattern']} of {mark_['subject']} up to {mark_['up_to']}"
        say(printable(f"{said}, silenced {counted(mark_['silenced'], 'time')}"))
    for one_rule in found["rules"]:
        say(_rule_text(one_rule))


def _rule_text(rule: AbuseRule) -> str:
    where, of = rule["organization_id"] or "all organizations", rule["pattern"] or "any pattern"
    lasts = timedelta(seconds=float(rule["lasts_s"]))
    return printable(f"rule: {rule['action']} for {lasts}, {of} from {rule['severity']} on, {where}")


def _tell(done: AbuseFinding, *, json_: bool) -> None:
    if json_:
        as_json(done)
        return
    say(printable(f"{done['about']}: {_whose(done)}: {_became(done)}"))
    say("Noted in the audit: vital-tracking export audit audit.csv")


def _said(found: AbuseScan) -> str:
    if found["busy"]:
        return "Somebody else is looking just now."
    if found["learning"]:
        return "The past is still being counted: what is usual is not known yet. Look again."
    silenced = f", {found['silenced']} silenced by marks" if found["silenced"] else ""
    return (
        f"{found['new']} new or worse, {found['going_on']} going on{silenced}. To see them: vital-tracking abuse list"
    )


def _whose(finding: AbuseFinding) -> str:
    where = finding["organization_id"]
    of = f" of organization {where}" if where and finding["subject_kind"] != "organization" else ""
    return f"{finding['subject_kind']} {finding['subject']}{of}"


def _whose_shortly(finding: AbuseFinding) -> str:
    """The same with no more of a hash than tells it from others."""
    subject = finding["subject"]
    if finding["subject_kind"] in ("address", "request") and len(subject) > _TOLD_APART:
        return _whose({**finding, "subject": subject[:_TOLD_APART]})
    return _whose(finding)


def _became(finding: AbuseFinding) -> str:
    return became(finding, short_time)


_COLUMNS: Final = (
    Column("id", True, lambda row: str(row["id"])),
    Column("last seen (UTC)", True, lambda row: short_time(row["last_seen"])),
    Column("severity", False, lambda row: row["severity"]),
    Column("pattern", False, lambda row: row["pattern"]),
    Column("whose", False, lambda row: printable(_whose_shortly(row))),
    Column("figures", False, figures, 1),
    Column("state", False, _became),
)
