"""`vital-tracking reprice`: gives unpriced calls the price that is known now, as of their start."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress

from vital_tracking.cli.render.console import console, say
from vital_tracking.cli.render.session import opened
from vital_tracking.queries import prices
from vital_tracking.queries.words import counted, usd


def reprice(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be priced and change nothing.")] = False,
) -> None:
    """Price the calls that had no known price. Calls that have one keep it, so running this again changes nothing."""
    with opened() as store, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("repricing", total=None)

        def show(so_far: prices.Repriced) -> None:
            progress.update(task, completed=so_far.calls, description=f"repricing: {so_far.calls} seen")

        done = prices.reprice(store, dry_run=dry_run, progress=show)
    say(f"{'would price' if dry_run else 'priced'} {done.priced} of {counted(done.calls, 'call')}: {usd(done.cost)}")
    for model, count in done.left.most_common():
        say(f"  {model}: {counted(count, 'call')} still without a price")
    if done.left:
        say(
            "Run: vital-tracking prices set MODEL --input USD --output USD   (per million tokens; --from DATE for older calls)"
        )
