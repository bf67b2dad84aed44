"""`vital-tracking refresh`: brings the materialized views up to date, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final

import typer

from vital_tracking.alerts.wording import seconds_text
from vital_tracking.cli.render.console import say
from vital_tracking.cli.render.options import span
from vital_tracking.cli.render.session import opened
from vital_tracking.errors import StoreUnavailable
from vital_tracking.queries.maintenance import RefreshedView, keep_partitions, refresh_views
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

_SOON_S: Final = 15.0
"""How soon to try again after the database was not there."""
_BUSY: Final = "Somebody else refreshes the views just now."


def refresh(
    every: Annotated[
        str | None, typer.Option(help="Do it again and again, such as every 30s, 5m or 1h, until Ctrl-C.")
    ] = None,
) -> None:
    """Refresh the materialized views (mv_service_costs and the rest), and say how long each took; make partitions ahead.

    Where pg_cron is there, the database does that by itself; `vital-tracking doctor` shows how fresh the views are. Readers
    are never held up. With --every it goes on through an outage of the database.

    \b
    Examples:
      vital-tracking refresh
      vital-tracking refresh --every 5m
    """
    pause = float(span(every, "--every")) if every is not None else None
    with opened() as store:
        try:
            if pause is None:
                _once(store)
            else:
                _again_and_again(store, pause)
        except KeyboardInterrupt:
            say("Stopped.")


def _once(store: Store) -> None:
    views = refresh_views(store)
    if views is None:
        say(_BUSY)
        return
    width = max((len(view["name"]) for view in views), default=0)
    for view in views:
        say(f"{view['name']:<{width}}  {view['seconds']:8.2f} s")
    say(f"refreshed {counted(len(views), 'view')} in {_seconds(views):.2f} s")
    if done := _partitions(store):
        say(done)


def _again_and_again(store: Store, pause: float) -> None:
    say(f"Refreshing every {seconds_text(Decimal(str(pause)))}; Ctrl-C ends.")
    away = False
    while True:
        started = time.monotonic()
        wait = pause
        try:
            views, done = refresh_views(store), _partitions(store)
            said = _BUSY if views is None else f"refreshed in {_seconds(views):.2f} s: {_each(views)}"
        except StoreUnavailable as error:
            wait = min(pause, _SOON_S)
            if not away:
                typer.echo(f"{_now()}  {error} Trying again every {seconds_text(Decimal(str(wait)))}.", err=True)
            away = True
        else:
            say(f"{_now()}  {'there again; ' if away else ''}{said}{f'; {done}' if done else ''}")
            away = False
        time.sleep(max(0.0, wait - (time.monotonic() - started)))


def _each(views: Sequence[RefreshedView]) -> str:
    return ", ".join(f"{view['name']} {view['seconds']:.2f} s" for view in views)


def _partitions(store: Store) -> str:
    """Have partitions made ahead; what was done, which is nearly always nothing."""
    done = keep_partitions(store)
    made = counted(done["made"], "partition") + " made" if done["made"] else ""
    moved = counted(done["moved"], "call") + " moved to theirs" if done["moved"] else ""
    return ", ".join(filter(None, (made, moved)))


def _seconds(views: Sequence[RefreshedView]) -> float:
    return sum(view["seconds"] for view in views)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
