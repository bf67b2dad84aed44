"""`vital-tracking dashboard`: the pages and the API on this machine."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from vital_tracking.cli.render.session import opened
from vital_tracking.errors import MissingExtra
from vital_tracking.ids import new_id
from vital_tracking.queries.health import database_time
from vital_tracking.settings import Settings


def dashboard(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Listen at this port; else at 8321, or a free one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Listen at this address; beyond this machine people must sign in.")] = (
        "127.0.0.1"
    ),
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Show what was spent, by whom and on what, in the browser.

    The link that is printed works once and lets you read everything. Ctrl-C ends it. While it runs it sends the reports that are
    due, where this machine has channels: vital-tracking reports schedule --help

    \b
    Examples:
      vital-tracking dashboard
      vital-tracking dashboard --port 9000 --no-open
    """
    try:
        from vital_tracking.web.app import create_app
        from vital_tracking.web.mail.sending import Channels, Mailer
        from vital_tracking.web.operator import OperatorLink
        from vital_tracking.web.serving import DEFAULT_PORT, address, check_host, listen, serve
        from vital_tracking.web.settings import WebSettings, is_loopback
    except ImportError as error:
        if (error.name or "").startswith("vital_tracking"):
            raise
        raise MissingExtra("web", "The dashboard") from None
    web = WebSettings.from_env()
    check_host(host, web)
    settings = Settings.from_env()
    channels = Channels(settings.channels)
    with opened(settings) as store:
        database_time(store)  # what is wrong with the database is said here, and not by every page
        link = OperatorLink() if is_loopback(host) else None
        app = create_app(store, settings=settings, web=web, operator=link)
        listening = listen(host, port)
        where = address(listening, host)
        shown = f"{where}/open?token={link.token}" if link else f"{where}/"
        taken = f" Port {DEFAULT_PORT} is taken." if port is None and not where.endswith(f":{DEFAULT_PORT}") else ""

        def begun() -> None:
            typer.echo(f"The dashboard is at {shown}  (Ctrl-C ends it.){taken}")
            if not no_open:
                webbrowser.open(shown)

        mailer = Mailer(store, channels, f"dashboard {new_id()}", web.public_url) if channels.names else None
        try:
            serve(app, listening, begun)
        except KeyboardInterrupt:
            typer.echo("")
        finally:
            if mailer is not None:
                mailer.close()
