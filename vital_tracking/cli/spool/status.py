"""`vital-tracking spool status`: what each process has in the spool."""

from __future__ import annotations

from collections.abc import Iterator

from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.cli.spool.options import Json
from vital_tracking.queries.spool import Process, Survey, left_by, place_of, survey
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings


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
                    {"database": group.database, "configured": group.here, "rows": group.rows}
                    for group in found.refused
                ],
            }
        )
        return
    for database in dict.fromkeys(process.database for process in found.processes):
        listed = [process for process in found.processes if process.database == database]
        # Columns that are zero for all processes of the table are left out.
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
        process.short_name,
    )


def _next(found: Survey, *, on: bool) -> Iterator[str]:
    """What all this means, and what to run."""
    if found.processes:
        yield "Calls and runs are at most so many: what the database has already is among them, and counts once."
    if not on:
        yield "VITAL_SPOOL is off here: processes with this configuration add nothing."
    if here := found.left(here=True):
        yield f"{left_by(here)}. The next process of this database delivers them, or run: vital-tracking spool replay"
    if others := found.left(here=False):
        yield (
            f"For other databases {left_by(others)}. Set SUPABASE_URL or VITAL_DATABASE_URL to the database in question, and "
            f"run: vital-tracking spool replay"
        )
    if number := found.refused_by(here=True):
        yield f"{counted(number, 'row')} refused by the database. See: vital-tracking spool rejected"
    if number := found.refused_by(here=False):
        yield f"{counted(number, 'row')} refused by other databases. Name one of them, and see: vital-tracking spool rejected"
    if not (here or others or found.refused):
        yield "Nothing was left behind." if found.processes else "The spool is empty: nothing waits."
