"""`vital-tracking refresh`: brings the materialized views up to date, once or again and again."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from vital_tracking.budgets.wording import seconds_text
from vital_tracking.cli import budget_form as form
from vital_tracking.cli.output import counted, say
from vital_tracking.errors import StoreUnavailable
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

_SOON_S: Final = 15.0
"""How soon to try again after the database was not there."""


def refresh(
    every: Annotated[
        str | None, typer.Option(help="Do it again and again, such as every 30s, 5m or 1h, until Ctrl-C.")
    ] = None,
) -> None:
    """Refresh the materialized views (mv_service_costs and the rest), and say how long each took.

    Where pg_cron is there it does that by itself; `vital-tracking doctor` shows how fresh the views are. Readers are never
    held up. With --every it goes on through an outage of the database.

    \b
    Examples:
      vital-tracking refresh
      vital-tracking refresh --every 5m
    """
    pause = float(form.span(every, "--every")) if every is not None else None
    store = open_store(Settings.from_env())
    try:
        if pause is None:
            _once(store)
        else:
            _again_and_again(store, pause)
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        store.close()


def _once(store: Store) -> None:
    views = _refresh(store)
    width = max((len(view["name"]) for view in views), default=0)
    for view in views:
        say(f"{view['name']:<{width}}  {view['seconds']:8.2f} s")
    say(f"refreshed {counted(len(views), 'view')} in {_seconds(views):.2f} s")


def _again_and_again(store: Store, pause: float) -> None:
    say(f"Refreshing every {seconds_text(Decimal(str(pause)))}; Ctrl-C ends.")
    away = False
    while True:
        started = time.monotonic()
        wait = pause
        try:
            views = _refresh(store)
        except StoreUnavailable as error:
            wait = min(pause, _SOON_S)
            if not away:
                typer.echo(f"{_now()}  {error} Trying again every {seconds_text(Decimal(str(wait)))}.", err=True)
            away = True
        else:
            each = ", ".join(f"{view['name']} {view['seconds']:.2f} s" for view in views)
            say(f"{_now()}  {'there again; ' if away else ''}refreshed in {_seconds(views):.2f} s: {each}")
            away = False
        time.sleep(max(0.0, wait - (time.monotonic() - started)))


def _refresh(store: Store) -> list[dict[str, Any]]:
    views: list[dict[str, Any]] = store.call("refresh_analytics")["views"]
    return views


def _seconds(views: list[dict[str, Any]]) -> float:
    return sum(float(view["seconds"]) for view in views)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
