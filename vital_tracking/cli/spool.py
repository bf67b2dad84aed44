"""`vital-tracking spool`: what waits on disk until the database has it, and what the database refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vital_tracking.cli import spool_letters as again
from vital_tracking.cli.output import as_csv, as_json, console, counted, say, table, usd
from vital_tracking.cli.spool_survey import (
    Place,
    Process,
    Survey,
    frames_of,
    held_by_another,
    letters_of,
    place_of,
    record_of,
    skew_of,
    survey,
)
from vital_tracking.delivery.frames import BEGINNINGS, Frame, Kind
from vital_tracking.delivery.letters import Letter
from vital_tracking.delivery.segments import is_alive, owners_in, segments_of
from vital_tracking.errors import VitalError
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store
from vital_tracking.tracker import VitalTracker
from vital_tracking.usage import CallRecord

app = typer.Typer(
    help="The spool: calls on disk until the database has them, and rows that the database refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = dict[str, Any]
_REPLAY: Final = "vital-tracking spool replay"
_UNITS: Final = ("B", "KiB", "MiB", "GiB")
_FRAMES_SHOWN: Final = 100


def size(number: float) -> str:
    """A number of bytes."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:,.0f} {_UNITS[unit]}" if unit == 0 else f"{number:,.1f} {_UNITS[unit]}"


# status


@app.command("status")
def status(json_: Json = False) -> None:
    """Show what is in the spool: each process's part, of all databases, and the rows that were refused. Asks no database.

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
        console.print(table(_title(listed[0]), _PROCESS_HEADINGS, [_process_cells(process) for process in listed]))
        say("")
    say(f"{size(found.bytes)} of {size(settings.spool_bytes)} in {found.place.root}")
    for line in _next(found, on=settings.spool):
        say(line)


_PROCESS_HEADINGS = (
    ("process", False),
    ("is", False),
    ("since (UTC)", True),
    ("calls", True),
    ("runs", True),
    ("begun", True),
    ("damaged", True),
    ("segments", True),
    ("size", True),
    ("folder", False),
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
        process.folder.name,
    )


def _next(found: Survey, *, on: bool) -> Iterator[str]:
    """What all this means, and what to run."""
    if found.processes:
        yield "Calls and runs are at most so many: what the database has already is among them, and counts once."
    if not on:
        yield "VITAL_SPOOL is off here: processes with this configuration add nothing."
    if here := found.left(here=True):
        yield f"{waiting(here)}. The next process of this database delivers them, or run: {_REPLAY}"
    if others := found.left(here=False):
        yield (
            f"For other databases {waiting(others)}. Set SUPABASE_URL or VITAL_DATABASE_URL to the database in question, and "
            f"run: {_REPLAY}"
        )
    if number := found.letters_of(here=True):
        yield f"{counted(number, 'row')} refused by the database. See: vital-tracking spool rejected"
    if number := found.letters_of(here=False):
        yield f"{counted(number, 'row')} refused by other databases. Name one of them, and see: vital-tracking spool rejected"
    if not (here or others or found.letters):
        yield "Nothing was left behind." if found.processes else "The spool is empty: nothing waits."


def waiting(processes: list[Process]) -> str:
    """What dead processes have left, in words."""
    calls = sum(process.calls for process in processes)
    begun = sum(process.begun for process in processes)
    dead = counted(len(processes), "dead process").replace("processs", "processes")
    verb = "wait" if len(processes) > 1 else "waits"
    return f"the spool of {dead} {verb}, with at most {counted(calls, 'call')} and {begun} begun and not ended"


# inspect


@app.command("inspect")
def inspect(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[FOLDER or SEGMENT]", help="A process's folder or one file, as a path or by its name."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many frames; a table shows the first 100.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each frame.")] = False,
) -> None:
    """Show the frames in the spool, or in one folder or segment of it; damaged stretches too. Asks no database.

    A frame holds what the row of a call will: no text of a prompt or an answer is in there.

    \b
    Examples:
      vital-tracking spool inspect
      vital-tracking spool inspect 0198c9a2-7d1e-7c6f-8a51-2b9f6a1f0c3d
      vital-tracking spool inspect 0198c9a2-7d1e-7c6f-8a51-2b9f6a1f0c3d/00000001.segment --json
    """
    shown = limit or (None if json_ else _FRAMES_SHOWN)
    rows: list[Row] = []
    more = 0
    for row in _frame_rows(_segments(what)):
        if shown is not None and len(rows) + more >= shown:
            more += 1
        elif json_:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
            more -= 1 if shown is None else 0
            rows.append(row) if shown is not None else None
        else:
            rows.append(row)
    if json_:
        return
    if not rows:
        say("There is no frame. What there is: vital-tracking spool status")
        return
    console.print(table("", _FRAME_HEADINGS, [_frame_cells(row) for row in rows]))
    if more:
        say(f"and {more:,} more; for all of them: --limit {len(rows) + more}")


def _segments(what: str | None) -> list[Path]:
    """The segments that somebody means."""
    given = Path(what).expanduser() if what is not None else None
    if given is not None and given.is_file():
        return [given]
    if given is not None and given.is_dir():
        folders = [given, *owners_in(given), *(owner for database in _below(given) for owner in owners_in(database))]
        return [path for folder in folders for _, path in segments_of(folder)]
    root = place_of(Settings.from_env()).root
    if given is not None and given.is_absolute():
        raise VitalError(f"There is no {given}. What there is: vital-tracking spool status")
    owners = [owner for database in _below(root) for owner in owners_in(database)]
    if what is None:
        return [path for owner in owners for _, path in segments_of(owner)]
    name, _, segment = what.partition("/")
    for owner in owners:
        if owner.name == name:
            found = [path for _, path in segments_of(owner) if segment in ("", path.name)]
            if found or not segment:
                return found
    raise VitalError(f"There is no {what} in {root}. What there is: vital-tracking spool status")


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _frame_rows(segments: list[Path]) -> Iterator[Row]:
    folder, alive, skew_s = None, False, 0.0
    for path in segments:
        if path.parent != folder:
            folder, alive, skew_s = path.parent, is_alive(path.parent), 0.0
        for frame, start, end in frames_of(path, alive=alive):
            if frame is not None and frame.kind == Kind.CLOCK:
                skew_s = skew_s or skew_of(frame)
            yield _frame_row(frame, skew_s) | {"bytes": end - start, "offset": start, "segment": f"{folder}/{path.name}"}


def _frame_row(frame: Frame | None, skew_s: float) -> Row:
    row: Row = dict.fromkeys(("kind", "id", "time", "model", "status", "prompt_tokens", "completion_tokens", "calls"))
    if frame is None:
        return row | {"kind": "damaged"}
    known = frame.kind in set(Kind)
    row["kind"] = Kind(frame.kind).name.lower() if known else f"unknown ({frame.kind})"
    record = record_of(frame, skew_s)
    if isinstance(record, CallRecord):
        usage = record.usage
        row |= {
            "id": str(UUID(bytes=frame.id)),
            "time": record.created_at.isoformat(),
            "model": record.model or record.requested_model,
            "status": None if frame.kind in BEGINNINGS else record.status,
            "calls": record.calls,
        }
        if frame.kind not in BEGINNINGS:
            row |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    elif record is not None:
        row |= {
            "id": record.id,
            "time": (record.ended_at or record.started_at).isoformat(),
            "status": record.status,
        }
    elif frame.kind == Kind.CLOCK:
        row["status"] = f"{skew_of(frame):+.3f} s"
    else:
        row["id"] = str(UUID(bytes=frame.id))
        row["status"] = None if frame.kind == Kind.VOID else "cannot be read"
    return row


_FRAME_HEADINGS = (
    ("segment", False),
    ("at", True),
    ("kind", False),
    ("id", False),
    ("time (UTC)", True),
    ("model", False),
    ("status", False),
    ("tokens", True),
)


def _frame_cells(row: Row) -> tuple[str, ...]:
    folder, _, name = str(row["segment"]).rpartition("/")
    damaged = row["kind"] == "damaged"
    tokens = None if row["prompt_tokens"] is None else row["prompt_tokens"] + row["completion_tokens"]
    merged = f" x {row['calls']}" if (row["calls"] or 1) > 1 else ""
    return (
        f"{Path(folder).name[-12:]}/{name.removesuffix('.segment')}",
        f"{row['offset']:,}",
        row["kind"] + merged,
        f"{size(row['bytes'])} that cannot be read" if damaged else row["id"] or "-",
        (row["time"] or "-")[5:19].replace("T", " ") or "-",
        row["model"] or "-",
        row["status"] or "-",
        "-" if tokens is None else f"{tokens:,}",
    )


# replay


@app.command("replay")
def replay(
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds that it may take.")] = 60.0,
    json_: Json = False,
) -> None:
    """Deliver now what dead processes have left for this database. Exit code 1 where something is left.

    Trackers do the same by themselves, when they start and once a minute. Several at once double nothing.

    \b
    Examples:
      vital-tracking spool replay
      vital-tracking spool replay --timeout 600
    """
    settings = Settings.from_env()
    place = place_of(settings)
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
    report |= {"left": len(left) + len(held), "reason": reason}
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
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as progress:
            task = progress.add_task("replaying", total=rows)
            complete = tracker._recorder.replay(  # noqa: SLF001 - the tracker's own way, made public when somebody else needs it
                timeout, lambda _estate, delivered: progress.advance(task, delivered)
            )
        if not complete:
            tracker.store.call("database_time_v1")
    except VitalError as error:
        reason = str(error)
    stats = tracker.stats()
    tracker.close(1.0)
    return {name: getattr(stats, name) for name in ("inserted", "duplicate", "abandoned", "rejected")}, reason


def _say_replayed(report: Row, before: Survey, left: list[Process]) -> None:
    if before.left(here=True):
        say(
            f"{counted(report['inserted'], 'call')} inserted, {report['duplicate']} already there, {report['rejected']} rejected; "
            f"{report['abandoned']} of them were begun and not ended, and are recorded as abandoned"
        )
        if report["rejected"]:
            say("What was rejected: vital-tracking spool rejected")
    elif not left:
        say(f"Nothing to replay for {before.place.database}.")
    alive = sum(process.here and process.alive and not held_by_another(process) for process in before.processes)
    if alive:
        say(f"{counted(alive, 'process').replace('processs', 'processes')} alive: what they have recorded they deliver themselves.")
    if others := before.left(here=False):
        say(f"For other databases {waiting(others)}; this configuration does not reach them: vital-tracking spool status")
    if left:
        typer.echo(f"error: {counted(len(left), 'folder')} left: {report['reason']}", err=True)


# What the database refused

_LETTER_COLUMNS: Final = ("at", "function", "sqlstate", "rule", "id", "model", "total_cost", "row")


@app.command("rejected")
def rejected(
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the rows that this database refused, the oldest first, and why. Asks no database.

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
        say("Once the cause is mended: vital-tracking spool resend   (to do without them: vital-tracking spool discard)")
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
    """Send the refused rows again, for when the cause is mended. Exit code 1 where some are refused once more.

    What was refused as a frame, which no version has understood, cannot be sent, and is kept.

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
    """Delete the rows that this database refused, for good. Asks first; nothing else is touched.

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
