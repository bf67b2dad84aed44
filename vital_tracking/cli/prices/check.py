"""`vital-tracking prices check`: what stored calls would cost by today's prices, and what providers say that they cost."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Annotated

import typer

from vital_tracking.cli.render.console import as_json, console, progress_bar, say, table
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.errors import VitalError
from vital_tracking.queries.price_check import PriceCheck, check_prices, fetch_price_list
from vital_tracking.queries.words import counted, usd


def check(
    since: Annotated[str, typer.Option(help="How far back: a span such as 24h or 30d, or a date.")] = "7d",
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not look for newer prices than the installed ones.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check what calls of the last week would cost by today's prices, and what providers say that they cost.

    The prices in use are your own over those of the installed genai-prices; beside them stands the newest list, where the network
    allows. Nothing is changed: a call keeps the price that was in force when it was recorded.

    \b
    Examples:
      vital-tracking prices check
      vital-tracking prices check --since 30d --offline --json
    """
    start = moment(since, "--since")
    newest, unreached = None, None
    if not offline:
        try:
            newest = fetch_price_list()
        except VitalError as error:
            unreached = str(error)
    with opened() as store, progress_bar() as progress:
        task = progress.add_task("pricing", total=None)
        found = check_prices(
            store,
            since=start,
            newest=newest,
            progress=lambda seen, total: progress.update(task, completed=seen, total=total),
        )
    if json_:
        lists = {
            name: [{**asdict(row), "difference": row.difference} for row in rows]
            for name, rows in (("changes", found.changes), ("reported", found.reported))
        }
        as_json({**asdict(found), **lists, "unreached": unreached})
        return
    say(f"Prices in use: genai-prices {found.release}, {counted(found.own_prices, 'price')} of your own")
    if unreached:
        say(f"{unreached} Compared with the installed ones.")
    _show_changes(found)
    _show_reported(found)
    if found.left_out:
        say(f"{counted(found.left_out, 'call')} not compared: merged into one row, or priced by prices given in code")


def _show_changes(found: PriceCheck) -> None:
    if not found.changes:
        say(f"{counted(found.calls, 'call')}: all cost what they would by these prices")
        return
    headings = [("provider", False), ("model", False), ("calls", True), ("cost", True), ("in use", True)]
    headings += [("newest", True)] if found.fetched else []
    headings += [("difference", True), ("priced by", False)]
    rows = [
        (
            change.provider or "-",
            change.model or "-",
            f"{change.calls:,}",
            usd(change.stored),
            usd(change.in_use),
            *([usd(change.newest)] if found.fetched else []),
            _difference(change.difference),
            ", ".join(change.versions),
        )
        for change in found.changes
    ]
    calls = sum(change.calls for change in found.changes)
    console.print(table(f"{calls:,} of {counted(found.calls, 'call')} would cost something else", headings, rows))
    if any(change.stored is None and change.in_use is not None for change in found.changes):
        say("To price those without a price: vital-tracking reprice")
    if any(change.in_use != change.newest for change in found.changes):
        say("To take the newest prices: pip install --upgrade genai-prices, wherever calls are made")


def _show_reported(found: PriceCheck) -> None:
    if not found.reported:
        return
    headings = [
        ("provider", False),
        ("model", False),
        ("calls", True),
        ("reported", True),
        ("cost", True),
        ("difference", True),
    ]
    rows = [
        (
            row.provider or "-",
            row.model or "-",
            f"{row.calls:,}",
            usd(row.reported),
            usd(row.ours),
            _difference(row.difference),
        )
        for row in found.reported
    ]
    console.print(table("Calls of which the provider reports another cost", headings, rows))


def _difference(value: Decimal) -> str:
    return f"{'-' if value < 0 else '+'}{usd(abs(value))}"
