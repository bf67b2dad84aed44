"""`vital-tracking spool replay`: delivers what dead processes have left."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.spool.options import Json
from vital_tracking.errors import VitalError
from vital_tracking.queries.health import database_time
from vital_tracking.queries.spool import (
    Process,
    Survey,
    ask_who_it_is,
    count_of,
    held_by_another,
    left_by,
    place_of,
    survey,
)
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store
from vital_tracking.tracker import VitalTracker


def replay(
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds that it may take.")] = 60.0,
    json_: Json = False,
) -> None:
    """Deliver what dead processes have left.

    For the configured database; exit code 1 where something is left. Trackers do the same by themselves, when they start and
    once a minute. Several at once double nothing.

    \b
    Examples:
      vital-tracking spool replay
      vital-tracking spool replay --timeout 600
    """
    settings = Settings.from_env()
    place = place_of(settings)
    before = survey(place)
    if before.left(here=False) and not before.left(here=True):  # perhaps for the same database, reached by another way
        with contextlib.suppress(VitalError), contextlib.closing(open_store(settings)) as store:
            ask_who_it_is(place, store)
            before = survey(place)
    left, held = before.left(here=True), _held(before)
    report: dict[str, Any] = dict.fromkeys(("inserted", "duplicate", "abandoned", "rejected"), 0)
    reason = None
    if left:
        report, reason = _replay(settings, left, timeout)
        after = survey(place)
        left, held = after.left(here=True), _held(after)
    if left and reason is None:
        reason = f"{timeout:g} seconds were not enough; to take longer: --timeout {10 * timeout:g}"
    if held and not left:
        reason = "another process holds the lock, to deliver it"
    damaged = sum(process.damaged for process in before.left(here=True))
    report |= {"damaged": damaged, "left": len(left) + len(held), "reason": reason}
    if json_:
        as_json(report)
    else:
        _say_replayed(report, before, left + held)
    if left or held:
        raise typer.Exit(1)


def _held(found: Survey) -> list[Process]:
    return [process for process in found.processes if process.here and held_by_another(process)]


def _replay(settings: Settings, left: list[Process], timeout: float) -> tuple[dict[str, Any], str | None]:
    """Deliver what they left. Returns counts of what became of it, and the database's reason if something is left."""
    # What dead processes left is delivered even where the spool has been switched off since.
    chosen = settings.model_copy(update={"spool": True, "background": True})
    tracker = VitalTracker(open_store(settings), settings=chosen)
    rows = sum(process.calls + process.runs + process.begun for process in left)
    complete, reason = False, None
    try:
        database_time(tracker.store)  # fails at once where the database is away, not after the whole time-out
        with progress_bar() as progress:
            task = progress.add_task("replaying", total=rows)
            complete = tracker.replay(timeout, lambda _orphan, delivered: progress.advance(task, delivered))
        if not complete:
            database_time(tracker.store)
    except VitalError as error:
        reason = str(error)
    finally:
        stats = tracker.stats()
        tracker.close(1.0)
    return {name: getattr(stats, name) for name in ("inserted", "duplicate", "abandoned", "rejected")}, reason


def _say_replayed(report: Mapping[str, Any], before: Survey, left: list[Process]) -> None:
    if before.left(here=True):
        begun = f"; of them {report['abandoned']} begun and not ended (abandoned)" if report["abandoned"] else ""
        say(
            f"{counted(report['inserted'], 'call')} inserted, {report['duplicate']} already there, "
            f"{report['rejected']} rejected{begun}"
        )
        if report["damaged"]:
            say(f"{counted(report['damaged'], 'damaged place')} in the files could not be read")
        if report["rejected"]:
            say("What was rejected: vital-tracking spool rejected")
    elif not left:
        say(f"Nothing to replay for {before.place.database}.")
    alive = [process for process in before.processes if process.here and process.alive and not held_by_another(process)]
    if alive:
        say(f"{count_of(alive, 'living')} of this database: what they have recorded they deliver themselves.")
    if others := before.left(here=False):
        say(
            f"For other databases {left_by(others)}; this configuration does not reach them: vital-tracking spool status"
        )
    if left:
        typer.echo(f"error: {counted(len(left), 'folder')} left: {report['reason']}", err=True)
