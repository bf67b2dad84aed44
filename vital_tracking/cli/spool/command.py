"""`vital-tracking spool`: what waits on disk until the database has it, and what the database refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, progress_bar, say, table, usd
from vital_tracking.cli.spool import resend as again
from vital_tracking.cli.spool.inspect import inspect
from vital_tracking.delivery.dead_letters import Letter
from vital_tracking.errors import VitalError
from vital_tracking.queries.spool import (
    TAIL,
    Place,
    Process,
    Survey,
    ask_who_it_is,
    count_of,
    held_by_another,
    left_by,
    letters_of,
    place_of,
    survey,
)
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store
from vital_tracking.tracker import VitalTracker

app = typer.Typer(
    help="The spool: calls on disk until the database has them, and rows that the database refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("inspect")(inspect)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = dict[str, Any]
_REPLAY: Final = "vital-tracking spool replay"


# status


@app.command("status")
def status(json_: Json = False) -> None:
    """Show what each process has in the spool.

    Of all databases, with the rows that were refused. Asks no database.

    \b
    Examples:
      vital-tracking spool status
      vital-tracking spool status --json
    """
    settings = Settings.from_env()
    found = survey(place_of(settings))
    if json_:
        as_json(
            {
                "folder": str(found.place.root),
                "database": found.place.database,
                "bytes": found.bytes,
                "limit_bytes": settings.spool_bytes,
                "on": settings.spool,
                "processes": [process.as_row() for process in found.processes],
                "rejected": [
                    {"database": group.database, "configured": group.here, "rows": len(group.letters)}
                    for group in found.letters
                ],
            }
        )
        return
    for database in dict.fromkeys(process.database for process in found.processes):
        listed = [process for process in found.processes if process.database == database]
        # What most processes have none of takes no room where none has any.
        hidden = {name for name in ("runs", "damaged") if not any(getattr(process, name) for process in listed)}
        shown = [index for index, (heading, _) in enumerate(_PROCESS_HEADINGS) if heading not in hidden]
        cells = [_process_cells(process) for process in listed]
        headings = [_PROCESS_HEADINGS[index] for index in shown]
        console.print(table(_title(listed[0]), headings, [[row[index] for index in shown] for row in cells]))
        say("")
    say(f"{size(found.bytes)} of {size(settings.spool_bytes)} in {found.place.root}")
    for line in _next(found, on=settings.spool):
        say(line)


_PROCESS_HEADINGS = (
    ("process", True),
    ("is", True),
    ("since (UTC)", True),
    ("calls", True),
    ("runs", True),
    ("begun", True),
    ("damaged", True),
    ("files", True),
    ("size", True),
    ("folder", True),
)


def _title(process: Process) -> str:
    return process.database if process.here else f"{process.database} (not what this configuration names)"


def _process_cells(process: Process) -> tuple[str, ...]:
    return (
        process.name,
        "alive" if process.alive else "dead",
        (process.since or "-")[5:19].replace("T", " ") or "-",
        f"{process.calls:,}",
        f"{process.runs:,}",
        f"{process.begun:,}",
        f"{process.damaged:,}",
        str(process.segments),
        size(process.bytes),
        process.folder.name[TAIL:],
    )


def _next(found: Survey, *, on: bool) -> Iterator[str]:
    """What all this means, and what to run."""
    if found.processes:
        yield "Calls and runs are at most so many: what the database has already is among them, and counts once."
    if not on:
        yield "VITAL_SPOOL is off here: processes with this configuration add nothing."
    if here := found.left(here=True):
        yield f"{left_by(here)}. The next process of this database delivers them, or run: {_REPLAY}"
    if others := found.left(here=False):
        yield (
            f"For other databases {left_by(others)}. Set SUPABASE_URL or VITAL_DATABASE_URL to the database in question, and "
            f"run: {_REPLAY}"
        )
    if number := found.letters_of(here=True):
        yield f"{counted(number, 'row')} refused by the database. See: vital-tracking spool rejected"
    if number := found.letters_of(here=False):
        yield f"{counted(number, 'row')} refused by other databases. Name one of them, and see: vital-tracking spool rejected"
    if not (here or others or found.letters):
        yield "Nothing was left behind." if found.processes else "The spool is empty: nothing waits."


# replay


@app.command("replay")
def replay(
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds that it may take.")] = 60.0,
    json_: Json = False,
) -> None:
    """Deliver what dead processes have left.

    For the configured database; exit code 1 where something is left. Trackers do the same by themselves, when they start and
    once a minute. Several at once double nothing.

    \b
    Examples:
      vital-tracking spool replay
      vital-tracking spool replay --timeout 600
    """
    settings = Settings.from_env()
    place = place_of(settings)
    before = survey(place)
    if before.left(here=False) and not before.left(here=True):  # perhaps for the same database, reached by another way
        with contextlib.suppress(VitalError), contextlib.closing(open_store(settings)) as store:
            ask_who_it_is(place, store)
            before = survey(place)
    left, held = before.left(here=True), _held(before)
    report: Row = dict.fromkeys(("inserted", "duplicate", "abandoned", "rejected"), 0)
    reason = None
    if left:
        report, reason = _replay(settings, left, timeout)
        after = survey(place)
        left, held = after.left(here=True), _held(after)
    if left and reason is None:
        reason = f"{timeout:g} seconds were not enough; to take longer: --timeout {10 * timeout:g}"
    if held and not left:
        reason = "another process holds the lock, to deliver it"
    damaged = sum(process.damaged for process in before.left(here=True))
    report |= {"damaged": damaged, "left": len(left) + len(held), "reason": reason}
    if json_:
        as_json(report)
    else:
        _say_replayed(report, before, left + held)
    if left or held:
        raise typer.Exit(1)


def _held(found: Survey) -> list[Process]:
    return [process for process in found.processes if process.here and held_by_another(process)]


def _replay(settings: Settings, left: list[Process], timeout: float) -> tuple[Row, str | None]:
    """Deliver, and tell what has become of it, and what stood in the way."""
    # What a process left is delivered also where the configuration has changed since.
    chosen = settings.model_copy(update={"spool": True, "background": True})
    tracker = VitalTracker(open_store(settings), settings=chosen)
    rows = sum(process.calls + process.runs + process.begun for process in left)
    complete, reason = False, None
    try:
        tracker.store.call("database_time_v1")  # whether it answers at all: nobody should wait a minute to hear of it
        with progress_bar() as progress:
            task = progress.add_task("replaying", total=rows)
            complete = tracker.replay(timeout, lambda _orphan, delivered: progress.advance(task, delivered))
        if not complete:
            tracker.store.call("database_time_v1")
    except VitalError as error:
        reason = str(error)
    finally:
        stats = tracker.stats()
        tracker.close(1.0)
    return {name: getattr(stats, name) for name in ("inserted", "duplicate", "abandoned", "rejected")}, reason


def _say_replayed(report: Row, before: Survey, left: list[Process]) -> None:
    if before.left(here=True):
        begun = f"; of them {report['abandoned']} begun and not ended (abandoned)" if report["abandoned"] else ""
        say(
            f"{counted(report['inserted'], 'call')} inserted, {report['duplicate']} already there, "
            f"{report['rejected']} rejected{begun}"
        )
        if report["damaged"]:
            say(f"{counted(report['damaged'], 'damaged place')} in the files could not be read")
        if report["rejected"]:
            say("What was rejected: vital-tracking spool rejected")
    elif not left:
        say(f"Nothing to replay for {before.place.database}.")
    alive = [process for process in before.processes if process.here and process.alive and not held_by_another(process)]
    if alive:
        say(f"{count_of(alive, 'living')} of this database: what they have recorded they deliver themselves.")
    if others := before.left(here=False):
        say(
            f"For other databases {left_by(others)}; this configuration does not reach them: vital-tracking spool status"
        )
    if left:
        typer.echo(f"error: {counted(len(left), 'folder')} left: {report['reason']}", err=True)


# What the database refused

_LETTER_COLUMNS: Final = ("at", "function", "sqlstate", "rule", "id", "model", "total_cost", "row")


@app.command("rejected")
def rejected(
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the rows that the database refused.

    The oldest first, each with the reason. Asks no database.

    \b
    Examples:
      vital-tracking spool rejected
      vital-tracking spool rejected --json > rejected.json
    """
    place = place_of(Settings.from_env())
    letters = letters_of(place.folder)
    rows = [_letter_row(letter) for letter in letters]
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, _LETTER_COLUMNS)
    elif rows:
        console.print(table("", _LETTER_HEADINGS, [_letter_cells(row) for row in rows]))
        say(f"{_worth(letters)} set aside in {place.folder}")
        say(
            "Once the cause is mended: vital-tracking spool resend   (to do without them: vital-tracking spool discard)"
        )
    else:
        say(f"No row was refused by {place.database}.")
    if not (json_ or csv_) and (others := survey(place).letters_of(here=False)):
        say(f"{counted(others, 'row')} refused by other databases: vital-tracking spool status")


_LETTER_HEADINGS = (
    ("refused (UTC)", True),
    ("by", False),
    ("sqlstate", False),
    ("rule", False),
    ("id", False),
    ("model", False),
    ("cost", True),
)


def _letter_row(letter: Letter) -> Row:
    fields = letter.fields
    return {
        "at": letter.at,
        "function": letter.function,
        "sqlstate": letter.sqlstate,
        "rule": letter.rule,
        "id": fields.get("id"),
        "model": fields.get("model") or fields.get("requested_model"),
        "total_cost": fields.get("total_cost"),
        "row": fields or letter.row,
    }


def _letter_cells(row: Row) -> tuple[str, ...]:
    cost = _amount(row["total_cost"])
    priced = row["function"] == again.CALLS
    return (
        str(row["at"])[5:19].replace("T", " "),
        str(row["function"]),
        str(row["sqlstate"] or "-"),
        str(row["rule"] or "-"),
        str(row["id"] or "-"),
        str(row["model"] or "-"),
        usd(cost) if cost is not None or priced else "-",
    )


def _amount(value: object) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None


def _worth(letters: list[Letter]) -> str:
    """How many rows, and for how much."""
    amounts = [amount for letter in letters if (amount := _amount(letter.fields.get("total_cost"))) is not None]
    return f"{counted(len(letters), 'row')}, {usd(sum(amounts, Decimal(0)))} in all,"


@app.command("resend")
def resend(json_: Json = False) -> None:
    """Send the refused rows again.

    For when the cause is mended; exit code 1 where some are refused once more. What was set aside as a frame, of which no row
    could be made, cannot be sent, and is kept.

    \b
    Examples:
      vital-tracking spool resend
    """
    settings = Settings.from_env()
    place = place_of(settings)
    if not letters_of(place.folder):
        report: Row = dict.fromkeys(("sent", "inserted", "duplicate", "rejected", "kept"), 0)
    else:
        store = open_store(settings)
        try:
            report = again.resend(store, place.folder)
        finally:
            store.close()
    if json_:
        as_json(report)
    elif not report["sent"] and not report["kept"]:
        say(f"Nothing to send: no row was refused by {place.database}.")
    else:
        say(
            f"{counted(report['sent'], 'row')} sent: {report['inserted']} inserted, {report['duplicate']} already there, "
            f"{report['rejected']} refused once more"
        )
        if report["kept"]:
            say(f"{counted(report['kept'], 'row')} kept, which this version cannot make a row of")
        if report["rejected"]:
            say("Why: vital-tracking spool rejected")
    if report["rejected"]:
        raise typer.Exit(1)


@app.command("discard")
def discard(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete the rows that the database refused.

    For good. Asks first; nothing else is touched.

    \b
    Examples:
      vital-tracking spool rejected --json > rejected.json
      vital-tracking spool discard --yes
    """
    place: Place = place_of(Settings.from_env())
    letters = letters_of(place.folder)
    if not letters:
        say(f"Nothing to discard: no row was refused by {place.database}.")
        return
    say(f"{_worth(letters)} refused since {_day(letters[0].at)} by {place.database}")
    if not yes:
        typer.confirm("Delete them? They are in no database, and nothing keeps a copy", abort=True)
    say(f"discarded {counted(again.discard(place.folder), 'row')}")


def _day(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).date().isoformat()
    except ValueError:
        return moment
