"""`vital-tracking spool rejected`, `resend` and `discard`: rows that the database refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.session import Csv, Yes, opened
from vital_tracking.cli.spool.options import Json
from vital_tracking.core.cost import exact_sum
from vital_tracking.queries import dead_letters
from vital_tracking.queries.dead_letters import (
    DEAD_LETTER_COLUMNS,
    DeadLetterRow,
    Resent,
    cost_of,
    dead_letter_row,
    dead_letters_of,
    is_call,
)
from vital_tracking.queries.spool import Place, place_of, survey
from vital_tracking.queries.words import counted, usd
from vital_tracking.settings import Settings


def rejected(
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List the rows that the database refused.

    The oldest first, each with the reason. Asks no database.

    \b
    Examples:
      vital-tracking spool rejected
      vital-tracking spool rejected --json > rejected.json
    """
    place = place_of(Settings.from_env())
    rows = _rows(place)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, DEAD_LETTER_COLUMNS)
    elif rows:
        console.print(table("", _HEADINGS, [_cells(row) for row in rows]))
        say(f"{_worth(rows)} set aside in {place.folder}")
        say(
            "Once the cause is mended: vital-tracking spool resend   (to do without them: vital-tracking spool discard)"
        )
    else:
        say(f"No row was refused by {place.database}.")
    if not (json_ or csv_) and (others := survey(place).refused_by(here=False)):
        say(f"{counted(others, 'row')} refused by other databases: vital-tracking spool status")


_HEADINGS = (
    ("refused (UTC)", True),
    ("by", False),
    ("sqlstate", False),
    ("rule", False),
    ("id", False),
    ("model", False),
    ("cost", True),
)


def _rows(place: Place) -> list[DeadLetterRow]:
    return [dead_letter_row(letter) for letter in dead_letters_of(place.folder)]


def _cells(row: DeadLetterRow) -> tuple[str, ...]:
    cost = cost_of(row)
    return (
        str(row["at"])[5:19].replace("T", " "),
        str(row["function"]),
        str(row["sqlstate"] or "-"),
        str(row["rule"] or "-"),
        str(row["id"] or "-"),
        str(row["model"] or "-"),
        usd(cost) if cost is not None or is_call(row) else "-",
    )


def _worth(rows: Sequence[DeadLetterRow]) -> str:
    """How many rows, and for how much."""
    total = exact_sum(cost for row in rows if (cost := cost_of(row)) is not None)
    return f"{counted(len(rows), 'row')}, {usd(total)} in all,"


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
    report = Resent(sent=0, inserted=0, duplicate=0, rejected=0, kept=0)
    if dead_letters_of(place.folder):
        with opened(settings) as store:
            report = dead_letters.resend(store, place.folder)
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


def discard(yes: Yes = False) -> None:
    """Delete the rows that the database refused.

    For good. Asks first; nothing else is touched.

    \b
    Examples:
      vital-tracking spool rejected --json > rejected.json
      vital-tracking spool discard --yes
    """
    place = place_of(Settings.from_env())
    rows = _rows(place)
    if not rows:
        say(f"Nothing to discard: no row was refused by {place.database}.")
        return
    say(f"{_worth(rows)} refused since {_day(rows[0]['at'])} by {place.database}")
    if not yes:
        typer.confirm("Delete them? They are in no database, and nothing keeps a copy", abort=True)
    say(f"discarded {counted(dead_letters.discard(place.folder), 'row')}")


def _day(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).date().isoformat()
    except ValueError:
        return moment
