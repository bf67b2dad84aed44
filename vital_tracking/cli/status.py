"""`vital-tracking status`: what is configured, and where each setting comes from."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.queries.configuration import Configuration, configuration
from vital_tracking.queries.copies import Copy, copies, holder_text, lag_of
from vital_tracking.queries.words import counted


def status(json_: Json = False) -> None:
    """Show which database is configured, and every setting with where it comes from; secrets are masked.

    The environment comes before .env.local, and that before .env. No database is asked and none is started: whether it
    answers, and is up to date, says doctor. But where VITAL_CLICKHOUSE_URL names a copy, the database is asked how far each
    copy is behind. Exit code 1 where the settings name no store.

    \b
    Examples:
      vital-tracking status
      vital-tracking status --json
      VITAL_STORE=embedded vital-tracking status
    """
    found = configuration()
    behind = (
        _copies() if any(one.name == "VITAL_CLICKHOUSE_URL" for one in found.settings) and not found.problem else None
    )
    if json_:
        as_json(asdict(found) | ({"copies": behind} if behind is not None else {}))
    else:
        _show(found)
        for copy in behind or ():
            _show_copy(copy)
    if found.problem:
        raise typer.Exit(1)


def _copies() -> list[Copy]:
    with opened() as store:
        return copies(store)


def _show_copy(copy: Copy) -> None:
    waiting = sum(one["waiting_rows"] for one in copy["tables"])
    console.print()
    say(f"copy: {copy['target']}, {lag_of(copy):.0f} s behind, {counted(waiting, 'row')} on the way")
    for one in copy["tables"]:
        if not one["loaded"]:
            upto = f"up to {one['loading']:%Y-%m-%d %H:%M}" if one["loading"] else "not begun"
            say(f"  {one['table_name']} is being filled: {upto}")
        if one["to_clean"]:
            say(f"  {one['table_name']}: forgotten rows are being taken out of {', '.join(one['to_clean'])}")
    if copy["held_by"] is not None:
        say(f"  It waits for the transaction of {holder_text(copy['held_by'])}.")


def _show(found: Configuration) -> None:
    if found.problem:
        say("store: none")
    else:
        by = found.named_by or "no setting names another"
        say(f"store: {found.description} ({by})")
    if found.settings:
        rows = [(one.name, one.shown, one.source, one.note or "") for one in found.settings]
        headings = (("setting", False), ("value", False), ("from", False), ("", False))
        console.print()
        console.print(table("", headings, rows))
    for name in found.unknown:
        say(f"{name} is no setting of vital-tracking; another program's?")
    console.print()
    if found.problem:
        typer.echo(f"error: {found.problem}", err=True)
    else:
        say("To see whether it answers and is up to date: vital-tracking doctor")
