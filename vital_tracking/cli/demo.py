"""`vital-tracking demo`: the four services on the embedded PostgreSQL, and what they cost."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from vital_tracking.cli.render.console import bar, console, table
from vital_tracking.cli.render.session import Yes
from vital_tracking.queries.usage import cost_breakdown, example_queries
from vital_tracking.queries.words import usd
from vital_tracking.settings import Settings
from vital_tracking.stores import Store
from vital_tracking.stores.embedded import EmbeddedStore
from vital_tracking.tracker import VitalTracker

ORGANIZATION = "demo"

_TABLES = (
    ("service", "Cost by service"),
    ("panel_seat", "Cost by panel seat"),
    ("workflow_step", "Cost by workflow step"),
    ("agent", "Cost by agent"),
)


def demo(
    offline: Annotated[
        bool, typer.Option("--offline", help="Use fake models even where providers' keys are set.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Write weeks of made-up calls into the configured database instead.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what --history has written, and nothing else.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=90, help="How many days --history writes.")] = 60,
    yes: Yes = False,
) -> None:
    """Run the four services on the embedded PostgreSQL and show what they cost.

    Fake models that report usage take the providers' place; where OPENAI_API_KEY or ANTHROPIC_API_KEY is set, real ones answer.
    A database that is configured is left alone: the demonstration's calls are made up.

    With --history, 60 days of three organizations are written into the configured database, by default the embedded one: calls
    at true prices, runs, budgets and alerts, events and other costs, each of them marked. Twice is once. Where there are calls of
    your own it wants --yes. With --remove all of that goes, and nothing else.

    \b
    Examples:
      vital-tracking demo --offline
      vital-tracking demo --history   something to see for vital-tracking dashboard
      vital-tracking demo --remove
      VITAL_STORE=embedded vital-tracking report   what the demonstration cost, also where another database is configured
    """
    if history and remove:
        raise typer.BadParameter("--history or --remove, not both")
    if history or remove:
        from vital_tracking.cli import demo_history

        demo_history.write_history(days, yes=yes) if history else demo_history.remove_history(yes=yes)
        return
    from vital_tracking.langchain.demo import fake_models, real_models, run_demo

    settings = Settings.from_env()
    keys = {} if offline else {name: key.get_secret_value() for name, key in settings.provider_keys.items()}
    real = real_models(keys)
    columns = (TextColumn("{task.description:<34}"), BarColumn(bar_width=30))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting the embedded PostgreSQL", total=6)
        store = EmbeddedStore(settings.data_dir, version=settings.postgres_version)
        started = datetime.now(UTC)
        with VitalTracker(store, settings=settings, organization_id=ORGANIZATION) as tracker:

            def advance(what: str) -> None:
                progress.update(task, advance=1, description=what)

            run_demo(tracker, fake_models() | real, advance)
            delivered = tracker.flush(30)
            progress.update(task, advance=1)
            console.print(f"vital_tracking wrote {delivered.inserted} calls to {store.description}", soft_wrap=True)
            names = sorted({type(model).__name__ for model in real.values()})
            who = ", ".join(names) if real else "fake ones that report usage; no request was made"
            console.print(f"Models: {who}\n", highlight=False)
            show_costs(store, since=started)
    console.print("[bold]See more[/bold]: the same in SQL, in the database that is now yours")
    elsewhere = "" if settings.store == "embedded" else "VITAL_STORE=embedded "
    for query in example_queries(ORGANIZATION):
        console.print(f'  {elsewhere}{command()} psql -c "{query}"', soft_wrap=True, highlight=False, markup=False)
    if elsewhere:
        console.print(
            "VITAL_STORE=embedded, because other commands go to the database that is configured.", highlight=False
        )
    console.print("\n[bold]In the browser[/bold]: what was spent, by whom and on what")
    console.print(f"  {elsewhere}{command()} dashboard", soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"  {elsewhere}{command()} demo --history   first, for 60 days of made-up calls to look at",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print("\n[bold]Next[/bold]: attach it to your own code")
    console.print("  tracker = VitalTracker.from_env()", highlight=False)
    console.print('  model.invoke(question, config={"callbacks": [tracker.handler]})', highlight=False, markup=False)


def command() -> str:
    """This command as it can be typed here: by its name, or by its path where the virtual environment is not active."""
    if shutil.which("vital-tracking"):
        return "vital-tracking"
    return os.path.relpath(sys.argv[0])


def show_costs(store: Store, since: datetime) -> None:
    """Print what was spent since an instant: by service, seat, step and agent."""
    for by, title in _TABLES:
        rows = cost_breakdown(store, by, since=since, organization=ORGANIZATION)
        largest = max((row["total_cost"] for row in rows), default=0)
        console.print(
            table(
                title,
                (
                    (by.replace("_", " "), False),
                    ("calls", True),
                    ("tokens", True),
                    ("cost", True),
                    ("", False),
                    ("", False),
                ),
                [
                    (
                        row["label"],
                        str(row["calls"]),
                        f"{row['prompt_tokens'] + row['completion_tokens']:,}",
                        usd(row["total_cost"]),
                        bar(row["total_cost"], largest),
                        f"{row['unpriced_calls']} unpriced" if row["unpriced_calls"] else "",
                    )
                    for row in rows
                ],
            )
        )
        console.print()
