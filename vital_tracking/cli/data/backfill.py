"""`vital-tracking backfill`: fills the sums of days whose calls were there before the sums, or that are to be counted anew."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.progress import TextColumn

from vital_tracking.cli.render.console import progress_bar, say
from vital_tracking.cli.render.session import opened
from vital_tracking.cli.render.times import between
from vital_tracking.queries.maintenance import queue_days, sum_up_days
from vital_tracking.queries.words import counted

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 1, 1, tzinfo=UTC)
_INTERRUPTED: Final = 130  # what a shell says of a command that Ctrl-C ended


def backfill(
    since: Annotated[
        str | None, typer.Option(help="Count the days from this date on anew, or from a span such as 7d back.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to the beginning of this date; by default all.")] = None,
) -> None:
    """Fill the sums that reports are made of from the calls, day by day, the newest day first.

    Calls sum up by themselves; days wait here only where they were recorded before there were sums, or where --since or
    --until asks for it. A day is done or not: interrupt it at any time, and the next run goes on. Several at once take
    different days. Days whose calls were deleted by retention keep the sums they have.

    \b
    Examples:
      vital-tracking backfill
      vital-tracking backfill --since 2026-01-01 --until 2026-02-01
    """
    days, calls, left, elsewhere, interrupted = 0, 0, None, False, False
    first, last = between(since, until)
    with opened() as store:
        try:
            if first is not None or last is not None:
                left = queue_days(store, since=first or _BEGINNING, until=last or _END)
            with progress_bar(TextColumn("days")) as progress:
                task = progress.add_task("counting", total=left)
                for done in sum_up_days(store) if left != 0 else ():
                    left = done["left"]
                    if done["day"] is None:
                        elsewhere = left > 0  # others have taken the days that are left
                        break
                    days, calls = days + 1, calls + done["calls"]
                    progress.update(task, completed=days, total=days + left, description=f"{done['day']}")
        except KeyboardInterrupt:
            interrupted = True
    if days or left:
        say(f"counted {counted(days, 'day')} anew: {counted(calls, 'call')}")
    elif not interrupted:
        say("Nothing to do: no day waits. To count days anew all the same: vital-tracking backfill --since 7d")
    if elsewhere:
        say(f"{counted(left or 0, 'day')} left, which another backfill counts just now")
    if interrupted:
        waits = f"{counted(left, 'day')} left. " if left else ""
        say(f"Interrupted. {waits}To go on: vital-tracking backfill")
        raise typer.Exit(_INTERRUPTED)
