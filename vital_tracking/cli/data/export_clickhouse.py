"""`vital-tracking export clickhouse`: a copy of the rows in a ClickHouse, filled once and kept up to date."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from vital_tracking.cli.render import filters
from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.options import one_format
from vital_tracking.cli.render.session import Yes, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.following import follow
from vital_tracking.errors import SettingsError, VitalError
from vital_tracking.queries.copies import copies, end_copies
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import direct_store


def export_clickhouse(
    url: Annotated[
        str | None,
        typer.Argument(help="https://user:password@host:8443/database?cluster=name; by default VITAL_CLICKHOUSE_URL."),
    ] = None,
    follow_: Annotated[
        bool, typer.Option("--follow", help="Go on: send what is new, changed or gone, until it is stopped.")
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="With --follow: seconds from one look to the next."),
    ] = 5.0,
    since: filters.Since = None,
    end: Annotated[
        bool, typer.Option("--end", help="Send nothing, and have PostgreSQL keep nothing for this copy any more.")
    ] = False,
    yes: Yes = False,
    json_: Annotated[bool, typer.Option("--json", help="Say as JSON what was sent.", callback=one_format)] = False,
) -> None:
    """Copy calls, service runs, events, costs and executions into a ClickHouse, and keep the copy up to date.

    The database and its tables are made there. All rows come first, with --since those from then on; then what was added,
    changed, repriced or forgotten since the last time. It may be stopped, killed and started again anywhere: each row is there
    once, and none is missed. Rows that retention drops here stay there. The place that is reached is kept in PostgreSQL; the lag
    is in `vital-tracking status`. Needs the extra `clickhouse`.

    With --end PostgreSQL notes no more changes for this copy, and with the last one the indexes and triggers go that were made
    for the first. The ClickHouse is not asked, so it may be gone; if it is there, its rows stay. To copy there again, drop that
    database first: nobody has noted what was deleted meanwhile. admin_audit tells who began and ended a copy.

    \b
    Examples:
      vital-tracking export clickhouse https://writer:secret@ch.example.com:8443/vital_tracking
      VITAL_CLICKHOUSE_URL=... vital-tracking export clickhouse --follow
      vital-tracking export clickhouse "http://localhost:8123/vital_tracking?cluster=main" --since 2026-01-01
      vital-tracking export clickhouse https://ch.example.com:8443/vital_tracking --end
    """
    settings = Settings.from_env()
    given = url or (settings.clickhouse_url.get_secret_value() if settings.clickhouse_url else None)
    if given is None:
        raise typer.BadParameter("which ClickHouse? Give its URL, or set VITAL_CLICKHOUSE_URL")
    address = address_of(given, setting="URL" if url else "VITAL_CLICKHOUSE_URL")
    if end:
        if follow_ or since:
            raise typer.BadParameter("--end sends nothing: it does not go with --follow and --since")
        _end(settings, address.shown, yes=yes, json_=json_)
        return
    server = ClickHouse(address)
    store = direct_store(settings, _OVER_THE_API)
    try:
        with progress_bar() as bar:
            task = bar.add_task("beginning", total=None)

            def progress(table: str, rows: int) -> None:
                bar.update(task, description=table, advance=rows)

            copying = Copying(store, server, since=moment(since, "--since") if since else None, progress=progress)
            with _stopped_by_signals(copying):
                sent = follow(copying, every_s=every) if follow_ else copying.bring_up_to_date()
    finally:
        server.close()
        store.close()
    if json_:
        as_json({"target": server.address.shown, "rows": sent})
    else:
        say(f"{server.address.shown}: {counted(sent, 'row')} sent")


def _end(settings: Settings, target: str, *, yes: bool, json_: bool) -> None:
    with opened(settings) as store:
        known = copies(store)
        if all(one["target"] != target for one in known):
            there = ", ".join(sorted({one["target"] for one in known})) or "none"
            raise VitalError(f"There is no copy in {target}. Copies there are: {there}")
        if not yes:
            seen = max(one["seen_at"] for one in known if one["target"] == target)
            say(f"{target}: last filled at {seen:%Y-%m-%d %H:%M:%S} UTC")
            typer.confirm("End the copy? To copy there again takes an empty database", abort=True)
        ended = end_copies(store, target)
    if json_:
        as_json({"target": target, "ended": [one["copy"] for one in ended]})
        return
    left = len(known) - len(ended)
    also = f"other copies: {left}" if left else "it was the last one: indexes and triggers of copies are gone"
    say(f"{target}: ended; {also}")


_OVER_THE_API = SettingsError(
    "VITAL_DATABASE_URL",
    "is not set, and a copy is filled from the database itself, not over Supabase's API",
    "Copy the connection string from Supabase: Connect. A pooler will do.",
)


@contextmanager
def _stopped_by_signals(copying: Copying) -> Iterator[None]:
    """End the current step, and then stop, at the first SIGINT or SIGTERM; the second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, _frame: object) -> None:
        copying.stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
