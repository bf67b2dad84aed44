"""`vital-tracking spool`: what waits on disk until the database has it, and what the database refused."""

from __future__ import annotations

import typer

from vital_tracking.cli.spool.inspect import inspect
from vital_tracking.cli.spool.refused import discard, rejected, resend
from vital_tracking.cli.spool.replay import replay
from vital_tracking.cli.spool.status import status

app = typer.Typer(
    help="The spool: calls on disk until the database has them, and rows that the database refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

for _command in (inspect, status, replay, rejected, resend, discard):
    app.command(_command.__name__)(_command)
