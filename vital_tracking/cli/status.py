"""`vital-tracking status`: what is configured, and where each setting comes from."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.cli.render.session import Json
from vital_tracking.queries.configuration import Configuration, configuration


def status(json_: Json = False) -> None:
    """Show which database is configured, and every setting with where it comes from; secrets are masked.

    The environment comes before .env.local, and that before .env. No database is asked and none is started: whether it
    answers, and is up to date, says doctor. Exit code 1 where the settings name no store.

    \b
    Examples:
      vital-tracking status
      vital-tracking status --json
      VITAL_STORE=embedded vital-tracking status
    """
    found = configuration()
    if json_:
        as_json(asdict(found))
    else:
        _show(found)
    if found.problem:
        raise typer.Exit(1)


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
