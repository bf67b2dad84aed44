"""Puts the commands together."""

from __future__ import annotations

import io
import logging
import sys
from typing import Annotated

import typer

from vital_tracking import __version__
from vital_tracking.cli import calls, dashboard, demo, doctor, embedded, invoice, members, migrate, psql, runs, status
from vital_tracking.cli.budgets import alerts, why
from vital_tracking.cli.budgets import command as budgets
from vital_tracking.cli.data import archive, backfill, backup, export, forget, refresh, reprice, retention
from vital_tracking.cli.prices import command as prices
from vital_tracking.cli.report import command as report
from vital_tracking.cli.spool import command as spool

app = typer.Typer(
    name="vital-tracking",
    help="What every LangChain and LangGraph call costs, in a database that you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("dashboard")(dashboard.dashboard)
app.command("demo")(demo.demo)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.command("calls")(calls.calls)
app.command("runs")(runs.runs)
app.command("run")(runs.run)
app.command("why")(why.why)
app.command("report")(report.report)
app.command("invoice")(invoice.invoice_command)
app.command("reprice")(reprice.reprice)
app.command("refresh")(refresh.refresh)
app.command("backfill")(backfill.backfill)
app.command("export")(export.export)
app.command("archive")(archive.archive)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("forget-user")(forget.forget_user)
app.add_typer(retention.app, name="retention")
app.add_typer(prices.app, name="prices")
app.add_typer(budgets.app, name="budgets")
app.add_typer(members.app, name="members")
app.add_typer(alerts.app, name="alerts")
app.add_typer(spool.app, name="spool")
app.command("psql", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql.psql)
app.command("stop")(embedded.stop)


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
