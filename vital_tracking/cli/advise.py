"""`vital-tracking advise`: where money can be saved, what each saving rests on, what was decided, and what it really saved."""

from __future__ import annotations

import shlex
import sys
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import SecretStr

from vital_tracking.advice.advise import DAYS
from vital_tracking.advice.evidence import calls_command
from vital_tracking.advice.life import look_for_advice, renew_advice
from vital_tracking.advice.measured import measure_due
from vital_tracking.advice.priority import time_in_words
from vital_tracking.advice.recommendation import Level
from vital_tracking.advice.report import (
    CSV_COLUMNS,
    about,
    advised,
    flat,
    money,
    open_ones,
    optimization,
    range_text,
    saves_something,
    why_not_counted,
)
from vital_tracking.cli.render import filters
from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.known import known_organization
from vital_tracking.cli.render.options import named, one_format, words, zone
from vital_tracking.cli.render.pages import imported_pages
from vital_tracking.cli.render.session import Csv, Json, Yes, opened
from vital_tracking.cli.render.times import short_time
from vital_tracking.errors import VitalError
from vital_tracking.queries.prices import price_book
from vital_tracking.queries.recommendations import (
    MOST,
    STATUSES,
    LastAdvice,
    SavedRecommendation,
    Status,
    decide,
    saved_recommendation,
    saved_recommendations,
    total_of,
)
from vital_tracking.queries.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vital_tracking.stores import Store
    from vital_tracking.web.mail.document import Document

app = typer.Typer(rich_markup_mode=None)

_APPLIED: Final = (
    ("budgets", "set"), ("budgets", "remove"), ("plans", "set"), ("subscriptions", "set"), ("prices", "tier"),
)  # fmt: skip
"""The commands that change a setting of ours: `advise apply` runs these and no others."""

Id = Annotated[str, typer.Argument(metavar="ID", help="The recommendation's id, or how it begins.")]
Organization = Annotated[str | None, typer.Option(help="Only this organization's calls.")]
Why = Annotated[str, typer.Option(help="Why, for whoever looks later.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.", callback=one_format)]
Html = Annotated[bool, typer.Option("--html", help="Print HTML.", callback=one_format)]


@app.callback(invoke_without_command=True)
def advise(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=366, help="Of how many days the calls are repriced.")] = DAYS,
    organization: Organization = None,
    timezone: filters.Timezone = "UTC",
    save: Annotated[bool, typer.Option("--save/--no-save", help="Keep what is found, as the pages show it.")] = True,
    measure: Annotated[
        bool, typer.Option("--measure", help="Look for nothing: measure what was taken 30 days ago.")
    ] = False,
    send: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Send it to an apprise URL; may be given several times.")
    ] = None,
    markdown: Markdown = False,
    html: Html = False,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Look for what would make the bill smaller: each saving with its calls, the largest first, and all of them together.

    The calls of the last days are repriced. What is found is kept; what was taken 30 days ago is measured by the way. Savings
    are those of a month of 30 days, as a range: at least, as expected, at most.

    \b
    Examples:
      vital-tracking advise
      vital-tracking advise --days 7 --organization acme --no-save
      vital-tracking advise --markdown > advice.md
      vital-tracking advise --send "$APPRISE_URL"
      vital-tracking advise --measure
      vital-tracking advise show 5f2a0c1d2e3f4a5b
    """
    if context.invoked_subcommand is not None:
        return
    whose = None if organization is None else named(organization, "--organization")
    with opened() as store:
        known_organization(store, whose)
        if measure:
            _tell_measured(measure_due(store, store, organization=whose), json_=json_)
            return
        if save:
            found = renew_advice(store, store, days=days, organization=whose, timezone=zone(timezone))
        else:
            prices = price_book(store)
            found = look_for_advice(store, prices, days=days, organization=whose, timezone=zone(timezone))
        made = _document(store, found) if markdown or html or send else None
    if made is not None and (markdown or html):
        sys.stdout.write(f"{made.html if html else made.markdown}\n")
    elif json_:
        as_json(optimization(found))
    elif csv_:
        as_csv([flat(one) for one in open_ones(found)], CSV_COLUMNS)
    elif not send:
        _tell(found, saved=save)
    if made is not None and send:
        _sent(made, send)


@app.command("list")
def list_recommendations(
    status: Annotated[
        str | None, typer.Option(help="Only those with this status.", **words(STATUSES, "status"))
    ] = None,
    organization: Organization = None,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List what was advised and what became of it: what was promised of what was taken, and what it really saved.

    \b
    Examples:
      vital-tracking advise list --status taken
      vital-tracking advise list --organization acme --csv > advice.csv
    """
    with opened() as store:
        known_organization(store, organization)
        rows = saved_recommendations(store, organization=organization, status=_status(status), limit=MOST)
    if json_:
        as_json([advised(one) for one in rows])
    elif csv_:
        as_csv([flat(one) for one in rows], CSV_COLUMNS)
    elif rows:
        console.print(fitted("", _LISTED, rows))
        say("One with its calls: vital-tracking advise show ID")
    else:
        say("None. To look for some: vital-tracking advise")


@app.command("show")
def show(recommendation: Id, json_: Json = False) -> None:
    """Show a recommendation whole: the calls it rests on, its assumptions, what could go wrong, how to try it.

    \b
    Examples:
      vital-tracking advise show 5f2a0c1d2e3f4a5b
    """
    with opened() as store:
        one = _found(store, recommendation)
    if json_:
        as_json(advised(one))
        return
    say(printable(f"{_kind(one)} ({about(one)}): {one['recommended']}"))
    for label, text in _told(one):
        say(printable(f"  {label}: {text}"))
    for said in one["assumptions"]:
        say(printable(f"  assumed: {said}"))
    say(printable(f"\nIts calls:\n  {calls_command(one)}"))
    if one["command"]:
        say(printable(f"What does it:\n  {one['command']}"))
    if one["status"] == "open":
        say(f"Decide: vital-tracking advise take {one['id']}, or advise dismiss {one['id']} --why TEXT")


@app.command("take")
def take(recommendation: Id, why: Why = "", json_: Json = False) -> None:
    """Say that a recommendation was followed: its saving is kept as promised, and measured after 30 days.

    \b
    Examples:
      vital-tracking advise take 5f2a0c1d2e3f4a5b --why "as of release 41"
    """
    _decide(recommendation, "taken", why, json_=json_)


@app.command("dismiss")
def dismiss(recommendation: Id, why: Why = "", json_: Json = False) -> None:
    """Dismiss a recommendation: it is shown no more as open, whenever it is found again.

    \b
    Examples:
      vital-tracking advise dismiss 5f2a0c1d2e3f4a5b --why "quality counts here"
    """
    _decide(recommendation, "dismissed", why, json_=json_)


@app.command("reopen")
def reopen(recommendation: Id, json_: Json = False) -> None:
    """Take back what was decided about a recommendation, with what was promised and measured of it.

    \b
    Examples:
      vital-tracking advise reopen 5f2a0c1d2e3f4a5b
    """
    _decide(recommendation, "open", "", json_=json_)


@app.command("apply")
def apply(recommendation: Id, yes: Yes = False) -> None:
    """Do what a recommendation says, where that is a setting of ours, such as a budget or a plan; it is taken then.

    What changes your code or your provider's settings you do yourself: advise show says how.

    \b
    Examples:
      vital-tracking advise apply 5f2a0c1d2e3f4a5b
    """
    with opened() as store:
        one = _found(store, recommendation)
    try:
        given = [shlex.split(line) for line in (one["command"] or "").splitlines()]
    except ValueError:  # a quotation that goes over a line
        given = []
    if not given or any(line[:1] != ["vital-tracking"] or tuple(line[1:3]) not in _APPLIED for line in given):
        raise VitalError(f"That is no setting of ours. How to try it: {one['how_to_try']}")
    say(printable(f"{one['current']} -> {one['recommended']}\n{one['command']}"))
    if not yes:
        typer.confirm("Run it?", abort=True)
    from vital_tracking.cli.app import app as commands

    for _, *line in given:
        confirmed = ["--yes"] if line[:2] == ["budgets", "remove"] else []  # just now
        typer.main.get_command(commands).main([*line, *confirmed], prog_name="vital-tracking", standalone_mode=False)
    _decide(one["id"], "taken", "", json_=False)


def _decide(recommendation: str, status: Status, why: str, *, json_: bool) -> None:
    with opened() as store:
        done = decide(store, _found(store, recommendation)["id"], status, why=why)
    if json_:
        as_json(advised(done))
        return
    said = {
        "taken": f"taken; {range_text(done['saving'])} a month were promised, and are measured after 30 days",
        "dismissed": "dismissed",
        "open": "open again",
    }
    say(printable(f"{_kind(done)}, {about(done)}: {said[status]}"))
    say("Noted in the audit: vital-tracking export audit audit.csv")


def _status(given: str | None) -> Status | None:
    return next((status for status in STATUSES if status == given), None)


def _found(store: Store, begins: str) -> SavedRecommendation:
    """The recommendation of an id, or the only one whose id begins so."""
    if len(begins) >= 16:
        return saved_recommendation(store, begins)
    found = [one for one in saved_recommendations(store, limit=MOST) if begins and one["id"].startswith(begins)]
    if len(found) > 1:
        raise typer.BadParameter(f"{counted(len(found), 'recommendation')} begin so: give more of the id")
    return found[0] if found else saved_recommendation(store, begins)


def _kind(one: SavedRecommendation) -> str:
    return one["type"].replace("_", " ")


def _told(one: SavedRecommendation) -> Iterator[tuple[str, str]]:
    """What is known of a recommendation, in lines."""
    yield "now", one["current"]
    yield "what it does", one["impact"]
    yield "saves a month", f"{_range(one)}, {money(one['saving']['expected'])} as expected"
    if not one["counted"]:
        yield "in the total", f"no: {why_not_counted(one)}"
    elif one["sequential"] != one["saving"]:
        yield "in the total", f"{money(one['sequential']['expected'])}, where those before it are followed, too"
    if one["revenue"]:
        yield "brings in", f"{money(one['revenue'])} a month"
    yield "priority", f"{one['priority']}; {one['confidence']} confidence, {one['effort']} effort"
    last = one["until"] - timedelta(microseconds=1)
    yield "rests on", f"{counted(one['calls'], 'call')} from {one['since']:%Y-%m-%d} to {last:%Y-%m-%d}"
    yield "what could go wrong", one["risk"]
    yield "how to try it", one["how_to_try"]
    if not one["still_given"]:
        yield "given last", f"{short_time(one['last_seen'])} UTC"
    yield "status", _became(one)


def _range(one: SavedRecommendation) -> str:
    return range_text(one["saving"])


def _became(one: SavedRecommendation) -> str:
    if one["status"] == "open":
        return "open" if one["still_given"] else f"open, given last {one['last_seen']:%Y-%m-%d}"
    said = f"{one['status']} {one['decided_at']:%Y-%m-%d} by {one['decided_by']}"
    if one["reason"]:
        said += f": {one['reason']}"
    if one["measured_at"] is not None:
        said += f"; {_measured(one)}"
    return said


def _measured(one: SavedRecommendation) -> str:
    promised = "" if one["promised"] is None else f", promised were {range_text(one['promised'])}"
    if one["measured_saving"] is None:
        return f"not to be measured: {one['measured_note']}"
    return f"saved {money(one['measured_saving'])} a month{promised}"


def _tell(found: LastAdvice, *, saved: bool) -> None:
    """The table, what all of it comes to, what does not apply, and what to do next."""
    shown = open_ones(found)
    saving = [one for one in shown if saves_something(one)]
    if saving:
        console.print(fitted("", _COLUMNS, saving))
    if any(one["counted"] for one in shown):
        total = total_of(shown)
        share = f", {_percent(found, total['expected'])} of the bill" if found["bill"] > 0 else ""
        say(
            f"Together {money(total['expected'])} a month ({range_text(total)}){share}: each call is repriced once, so this"
            " is not the sum of the savings."
        )
    elif saving:
        say(
            "None of these counts yet: what each needs first, such as knowing how good another model is, advise show says."
        )
    if shown:
        say(f"All of it takes about {time_in_words(Level(one['effort']) for one in shown)}.")
    else:
        say("Nothing is advised that is not decided already.")
    if len(saving) < len(shown):
        say(f"Worth a look, without a saving: {len(shown) - len(saving)} more. They are in: vital-tracking advise list")
    for note in found["notes"]:
        say(printable(note))
    for one in found["not_applicable"]:
        say(printable(f"No {one['type'].replace('_', ' ')}: {one['reason']}"))
    if shown and saved:
        say("One with its calls: vital-tracking advise show ID; then: advise take ID, or advise dismiss ID --why TEXT")
    elif shown:
        say("Nothing was saved. To keep it, so that it can be decided about: the same without --no-save")


def _percent(found: LastAdvice, monthly: Decimal) -> str:
    days = Decimal(int((found["until"] - found["since"]).total_seconds())) / 86_400
    share = monthly * 100 / (found["bill"] * DAYS / days)
    return f"{share:.1f} %" if share >= Decimal("0.1") or not share else "less than 0.1 %"


def _tell_measured(measured: Sequence[SavedRecommendation], *, json_: bool) -> None:
    if json_:
        as_json([advised(one) for one in measured])
        return
    for one in measured:
        say(printable(f"{_kind(one)}, {about(one)}: {_measured(one)}"))
    if not measured:
        say(
            "Nothing is due: what was taken is measured 30 days later. What was: vital-tracking advise list --status taken"
        )


def _document(store: Store, found: LastAdvice) -> Document:
    with imported_pages():
        from vital_tracking.web.mail.advice import advice_document
        from vital_tracking.web.settings import WebSettings
    return advice_document(store, found, WebSettings.from_env().public_url)


def _sent(made: Document, urls: list[str]) -> None:
    with imported_pages():
        from vital_tracking.web.mail.sending import Channels
    _, problem = Channels({"--send": [SecretStr(url) for url in urls]}).send("--send", made)
    if problem is not None:
        raise VitalError(f"It was not sent: {problem}")
    typer.echo(f"Sent to {counted(len(urls), 'address')[:-1] + 'es' if len(urls) > 1 else '1 address'}.", err=True)


def _adds(one: SavedRecommendation) -> str:
    return money(one["sequential"]["expected"]) if one["counted"] else "no part"


def _saved(one: Any) -> str:
    return "" if one["measured_saving"] is None else money(one["measured_saving"])


_COLUMNS: Final = (
    Column("id", False, lambda one: one["id"]),
    Column("priority", False, lambda one: one["priority"].upper()),
    Column("type", False, _kind),
    Column("about", False, lambda one: printable(about(one))),
    Column("what", False, lambda one: printable(one["recommended"]), 4),
    Column("least", True, lambda one: money(one["saving"]["low"]), 2),
    Column("saves a month", True, lambda one: money(one["saving"]["expected"])),
    Column("most", True, lambda one: money(one["saving"]["high"]), 2),
    Column("adds", True, _adds, 1),
    Column("confidence", False, lambda one: one["confidence"], 3),
    Column("effort", False, lambda one: one["effort"], 3),
)
_LISTED: Final = (
    Column("id", False, lambda one: one["id"]),
    Column("organization", False, lambda one: printable(one["organization_id"] or "-"), 3),
    Column("type", False, _kind),
    Column("about", False, lambda one: printable(about(one))),
    Column("what", False, lambda one: printable(one["recommended"]), 4),
    Column("saves a month", True, lambda one: money(one["saving"]["expected"])),
    Column("promised", False, lambda one: "" if one["promised"] is None else range_text(one["promised"]), 2),
    Column("saved", True, _saved),
    Column("became", False, lambda one: printable(_became(one)), 1),
)
