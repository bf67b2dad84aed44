"""`vital-tracking import`: what others saw of requests and calls."""

from __future__ import annotations

import typer

from vital_tracking.cli.imports.access_log import access_log
from vital_tracking.cli.imports.files import list_files
from vital_tracking.cli.imports.litellm import litellm

app = typer.Typer(
    help="What others saw: access logs, and calls through LiteLLM. Each line, each call once, however often it is imported.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("access-log")(access_log)
app.command("litellm")(litellm)
app.command("list")(list_files)
