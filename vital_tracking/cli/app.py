"""Puts the commands together."""

from __future__ import annotations

import io
import logging
import sys
from typing import Annotated, Final

import typer

from vital_tracking import __version__
from vital_tracking.cli.lazy import commands_of

COMMANDS: Final = {
    "dashboard": ("dashboard:dashboard", "Show what was spent, by whom and on what, in the browser."),
    "demo": ("demo:demo", "Run the four services on the embedded PostgreSQL and show what they cost."),
    "status": (
        "status:status",
        "Show which database is configured, and every setting with where it comes from; secrets are masked.",
    ),
    "doctor": (
        "doctor:doctor",
        "Check settings, store, migrations, prices, delivery and sums; say what is wrong and how to mend it.",
    ),
    "migrate": ("migrate:migrate", "Apply the migrations that the database has not seen."),
    "calls": ("calls:calls", "Show recent calls, the newest first: who, what for, tokens, cost, time, outcome."),
    "runs": (
        "runs:runs",
        "Show service runs, the newest first: turns, panels, workflows and solutions, with calls, cost, time and outcome.",
    ),
    "run": (
        "runs:run",
        "Show a service run as it was: the runs in it, their steps, nodes and attempts, seats of panels, and every call.",
    ),
    "health": (
        "health:health",
        "Show how tenants fare, from 0 to 100, with trend and reasons.",
    ),
    "why": (
        "budgets.why:why",
        "Say why calls were blocked: which budget, what was spent and held at that moment, and the command that mends it.",
    ),
    "report": ("report.command:report", "Show what calls cost: an overview, or one report of it."),
    "invoice": (
        "invoice:invoice_command",
        "Show what an organization used in a month: every service and model, fees and other costs apart, and what has no price.",
    ),
    "advise": (
        "advise:app",
        "Look for what would make the bill smaller: each saving with its calls, the largest first, and all of them together.",
    ),
    "reprice": ("data.reprice:reprice", "Price the calls that had no known price."),
    "refresh": (
        "data.refresh:refresh",
        "Refresh the materialized views (mv_service_costs and the rest), and say how long each took; make partitions ahead.",
    ),
    "backfill": (
        "data.backfill:backfill",
        "Fill the sums that reports are made of from the calls, day by day, the newest day first.",
    ),
    "export": ("data.export:export", "Write calls, events, costs, or sums of them, to a CSV or Parquet file."),
    "export clickhouse": (
        "data.export_clickhouse:export_clickhouse",
        "Copy calls, service runs, events, costs and executions into a ClickHouse, and keep the copy up to date.",
    ),
    "allocate": (
        "imports.allocate:allocate_command",
        "Allocate a month's invoice to organizations, to the last digit.",
    ),
    "meter": (
        "imports.meter:meter",
        "Measure databases and folders, and record what their storage has cost since the last time, in gigabyte-months.",
    ),
    "import": (
        "imports.command:app",
        "What others saw: access logs, and calls through LiteLLM.",
    ),
    "archive": (
        "data.archive:archive",
        "Write old months of calls, events, costs or executions to Parquet files, one a month: token_usage_logs_2026_07.parquet.",
    ),
    "backup": ("data.backup:backup", "Write the configured database, the embedded one or a PostgreSQL, to one file."),
    "restore": (
        "data.backup:restore",
        "Fill an empty database from a backup: all of it or, where something goes wrong, nothing.",
    ),
    "forget-user": (
        "data.forget:forget_user",
        "Forget a user: calls are merged by the minute without the person, and what was the person's own is removed.",
    ),
    "psql": ("psql:psql", "Open the configured database in psql: the PostgreSQL that is set, else the embedded one."),
    "stop": ("embedded:stop", "Stop the embedded PostgreSQL, which otherwise goes on running for the next process."),
    "retention": ("data.retention:app", "Retention: how long what is kept, and deleting what has had its time."),
    "prices": ("prices.command:app", "The team's own prices, over those of genai-prices."),
    "what-if": (
        "what_if:what_if",
        "Show what the calls of the last days would have cost otherwise, each repriced once through all changes together.",
    ),
    "compare-models": (
        "compare_models:compare",
        "Show what one call would cost at every model that has a price, the cheapest first.",
    ),
    "calculate": (
        "calculate:app",
        "Calculators: what a cache would save, which plan is large enough, how large requests are.",
    ),
    "budgets": ("budgets.command:app", "Budgets: what may be spent, by whom, and what happens at the limit."),
    "plans": (
        "plans.command:app",
        "Plans: how many calls and tokens a month a subscriber may use, and what that costs.",
    ),
    "subscriptions": (
        "plans.subscriptions:app",
        "Subscriptions: who is on which plan, since when, and whether its quota is watched or enforced.",
    ),
    "quotas": (
        "plans.quotas:quotas",
        "Show how much of their quotas the subscribers of each plan have used in their month, or each subscriber.",
    ),
    "rate-limits": (
        "plans.rate_limits:rate_limits",
        "Show how far limits of a minute were used, by whom, and in how many minutes a call did not fit.",
    ),
    "members": ("members:app", "Members of organizations: who sees what of it, and who may change that."),
    "abuse": ("abuse:app", "Abuse: what looks like it, acting on it, and marking false alarms."),
    "alerts": ("budgets.alerts:app", "Alerts: thresholds of budgets that were crossed."),
    "reports": (
        "reports.command:app",
        "Saved reports: what they say, and sending them by mail or chat on a schedule.",
    ),
    "spool": (
        "spool.command:app",
        "The spool: calls on disk until the database has them, and rows that the database refused.",
    ),
}
"""Where each command stands in this package, and the first sentence of its help."""

app = typer.Typer(
    cls=commands_of(COMMANDS),
    name="vital-tracking",
    help="What every LangChain and LangGraph call costs, in a database that you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"vital-tracking {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is logged at level INFO.")] = False,
) -> None:
    """What every LangChain and LangGraph call costs, in a database that you own.

    The database is found by the environment, .env.local or .env: SUPABASE_URL with SUPABASE_SERVICE_KEY, else VITAL_DATABASE_URL
    or libpq's PGHOST and the like, else the embedded PostgreSQL. Which one it is, and why: vital-tracking status

    \b
    First steps:
      vital-tracking demo --offline   something to look at, on a database of its own
      vital-tracking status           what is configured
      vital-tracking migrate          brings that database its tables
      vital-tracking doctor           what works, and what does not
      vital-tracking report           what was spent
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal cannot show must not raise
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.CRITICAL)
