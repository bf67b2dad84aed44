"""`vital-tracking meter`: sizes of databases and folders as costs of storage."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_json, console, say
from vital_tracking.cli.render.options import named, span
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import short_time
from vital_tracking.core.amounts import amount_text
from vital_tracking.errors import VitalError
from vital_tracking.imports.meters import Metered, Size, database_sizes, folder_size, record_sizes
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import Store


def meter(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders to measure.", metavar="FOLDER...")] = None,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="Measure the databases of the server that is configured.")
    ] = False,
    database: Annotated[
        list[str] | None, typer.Option(help="Of these databases only; may be given several times.")
    ] = None,
    organization: Annotated[str | None, typer.Option(help="Whose storage it is.")] = None,
    every: Annotated[
        str | None, typer.Option(help="Go on, and measure again so often, as 15m or 1h, until Ctrl-C.")
    ] = None,
    new: New = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and record nothing.")] = False,
    json_: Json = False,
) -> None:
    """Measure databases and folders, and record what their storage has cost since the last time, in gigabyte-months.

    Run it from cron, or with --every. However often it runs, a month costs what it costs; the first run of all only says where
    it begins.

    \b
    Examples:
      vital-tracking meter --postgres
      vital-tracking meter /srv/documents --organization acme --every 1h
    """
    if not folders and not postgres and not database:
        raise typer.BadParameter("name a folder, or give --postgres")
    seconds = float(span(every, "--every")) if every is not None else None
    settings = Settings.from_env()
    whose = named(organization, "--organization") if organization is not None else settings.organization_id
    stop = threading.Event()
    with opened(settings) as store:
        check_organizations(store, [organization], new=new)
        while True:
            sizes = _measured(store, folders or [], postgres=postgres or bool(database), databases=database or [])
            done = (
                [_not_recorded(size) for size in sizes] if dry_run else record_sizes(store, sizes, organization=whose)
            )
            _tell(sizes, done, dry_run=dry_run, json_=json_)
            if seconds is None or dry_run:
                return
            try:
                stop.wait(seconds)
            except KeyboardInterrupt:
                return


def _not_recorded(size: Size) -> Metered:
    return {
        "resource": size.resource,
        "bytes": size.bytes,
        "since": None,
        "gb_months": Decimal(0),
        "cost_usd": None,
        "also_of": [],
    }


def _measured(store: Store, folders: list[Path], *, postgres: bool, databases: list[str]) -> list[Size]:
    sizes = [folder_size(path) for path in folders]
    if postgres:
        found = {size.resource.partition(":")[2]: size for size in database_sizes(store)}
        if missing := [name for name in databases if name not in found]:
            raise VitalError(f"There is no database {missing[0]} on this server. Those that are: {', '.join(found)}")
        sizes += [size for name, size in found.items() if not databases or name in databases]
    return sizes


def _tell(sizes: list[Size], done: list[Metered], *, dry_run: bool, json_: bool) -> None:
    if json_:
        as_json(done)
        return
    columns = [
        Column("resource", False, lambda m: m["resource"]),
        Column("GB", True, lambda m: f"{m['bytes'] / 10**9:,.6f}"),
        Column("since (UTC)", False, lambda m: short_time(m["since"])),
        Column("GB-months", True, lambda m: amount_text(m["gb_months"], "gb_months") if m["since"] else ""),
        Column("cost", True, lambda m: amount_text(m["cost_usd"], "cost_usd") if m["cost_usd"] is not None else ""),
    ]
    if done:
        console.print(fitted("Storage", columns, done))
    if dry_run:
        say("Nothing was recorded.")
    elif any(metered["since"] is None for metered in done):
        say("The first reading costs nothing: it says from when on.")
    if any(metered["since"] is not None and metered["cost_usd"] is None and metered["gb_months"] for metered in done):
        say("Storage has no price: vital-tracking prices resource set storage USD, then prices resource reprice")
    for metered in done:
        if metered["also_of"]:
            whose = " and ".join(f"organization {one}" if one else "no organization" for one in metered["also_of"])
            say(
                f"Mind: {metered['resource']} is metered for {whose} as well: if it is the same one, it is billed twice."
            )
    for size in sizes:
        if size.unread:
            say(f"{size.resource}: {counted(size.unread, 'entry')} could not be looked at, and count for nothing")
