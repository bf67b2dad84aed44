"""The made-up history of `vital-tracking demo`: written into the configured store, and taken out of it."""

from __future__ import annotations

import contextlib

import typer

from vital_tracking.advice.life import renew_advice
from vital_tracking.cli.render.console import progress_bar, say
from vital_tracking.cli.render.session import opened
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.costs import Costs
from vital_tracking.demo import writing
from vital_tracking.errors import VitalError
from vital_tracking.queries.abuse import find_abuse
from vital_tracking.queries.maintenance import refresh_views
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import Store


def write_history(days: int, *, yes: bool) -> None:
    """Write the history, after asking where there are calls of the team's own."""
    settings = Settings.from_env()
    with opened(settings) as store:
        there = writing.found(store)
        history = writing.history_of(there, days)
        if there["others"] and not there["calls"] and not yes:
            say(f"{store.description} holds other calls already: made-up ones beside them would be in every sum.")
            say("Write them nevertheless with: vital-tracking demo --history --yes")
            say("Or into a database of their own: VITAL_STORE=embedded vital-tracking demo --history")
            raise typer.Exit(1)
        with progress_bar() as bar:
            task = bar.add_task("writing days", total=history.days)
            costs = Costs(PriceBook(), settings.ceiling_price)
            new = writing.write(store, history, costs, lambda done: bar.update(task, completed=done))
        _refresh(store)
        _look(store)
        if new:
            say(f"{counted(new, 'made-up call')} of {counted(history.days, 'day')} written to {store.description}")
        else:
            say(f"The history up to {history.until:%Y-%m-%d %H:%M} UTC is there already: nothing was written.")
    say("Look at it:   vital-tracking dashboard")
    say("Remove it:    vital-tracking demo --remove")


def remove_history(*, yes: bool) -> None:
    """Take the history out, after asking."""
    with opened() as store:
        there = writing.found(store)
        if not (there["calls"] or there["runs"] or there["budgets"] or there["platform_rows"]):
            say("There is no made-up history here.")
            return
        say(
            f"{store.description} holds {counted(there['calls'], 'made-up call')}, {counted(there['runs'], 'run')}, "
            f"{there['platform_rows']:,} events, other costs and executions, and {counted(there['budgets'], 'budget')} of the "
            "demonstration."
        )
        if not yes:
            typer.confirm("Remove them? Nothing else is touched", abort=True)
        with progress_bar() as bar:
            task = bar.add_task("removing", total=there["calls"])
            gone = writing.remove(store, lambda done: bar.update(task, completed=done))
        _refresh(store)
        say(
            f"removed: {counted(gone['calls'], 'call')}, {counted(gone['runs'], 'run')}, {gone['platform_rows']:,} events, other "
            f"costs and executions, and {counted(gone['budgets'], 'budget')}, and what they came to in every sum"
        )


def _look(store: Store) -> None:
    """Look for abuse and for advice, so that their pages are not empty; without it each says how to look."""
    for look in (lambda: find_abuse(store), lambda: renew_advice(store, store)):
        with contextlib.suppress(VitalError):
            look()


def _refresh(store: Store) -> None:
    try:
        fresh = refresh_views(store) is not None
    except VitalError:
        fresh = False
    if not fresh:
        say("The materialized views show the change after: vital-tracking refresh")
