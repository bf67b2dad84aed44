"""`vital-tracking import access-log`: requests of access logs, as events and costs."""

from __future__ import annotations

import contextlib
import threading
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.options import named, words
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.errors import VitalError
from vital_tracking.imports.access_log import LogFormat
from vital_tracking.imports.log_import import Imported, ImportOptions, LogImport, follow
from vital_tracking.imports.log_text import LogText
from vital_tracking.imports.request_costs import CostRule
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings

_POLL_S = 1.0
_RETRY_S = 5.0


def access_log(
    files: Annotated[
        list[str],
        typer.Argument(help="Files, the oldest first, plain or gzip; - is the standard input.", metavar="FILE..."),
    ],
    cost: Annotated[
        list[str] | None,
        typer.Option(
            help="What requests cost, as search=/api/search* (kind=path, with * and ?), or bandwidth=* for the bytes of all "
            "answers; search:brave=/api/search* names the resource that has the price. May be given several times."
        ),
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="Whose requests they are, where a line names no organization.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Which machine the log is of: tells logs apart that begin alike.")
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(
            "--format", help="By default each line says by itself.", **words(("auto", "json", "nginx"), "--format")
        ),
    ] = "auto",
    follow_: Annotated[
        bool, typer.Option("--follow", help="Go on with what is added, through rotation, until Ctrl-C.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Read from the beginning what was read before, for costs by new rules; lines stay once."
        ),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Take a last line without an end, too: nobody is writing it any more.")
    ] = False,
    new: New = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, count, and record nothing.")] = False,
    json_: Json = False,
) -> None:
    """Import access logs: JSON lines, or nginx's combined format with the request's time at the end.

    Each line becomes an event of platform_events, and a cost where a rule says so. Each is recorded once, though it is run
    again, killed, or the file was renamed or compressed meanwhile.

    \b
    Examples:
      vital-tracking import access-log /var/log/nginx/access.log.2.gz /var/log/nginx/access.log.1
      vital-tracking import access-log access.log --follow --cost search=/api/search* --cost bandwidth=*
      kubectl logs api-0 | vital-tracking import access-log - --server api-0
    """
    settings = Settings.from_env()
    options = ImportOptions(
        log_format=cast("LogFormat", log_format),
        server=named(server, "--server") if server is not None else None,
        organization=named(organization, "--organization") if organization is not None else settings.organization_id,
        rules=tuple(_rule(text) for text in cost or ()),
        hash_key=settings.hash_key_bytes,
        again=again,
        whole=whole,
        dry_run=dry_run,
    )
    stop = threading.Event()
    with opened(settings) as store, _Bar() as bar:
        check_organizations(store, [organization], new=new)
        # Whoever follows outlasts a restart of the database.
        wait = (lambda: not stop.wait(_RETRY_S)) if follow_ else None
        importer = LogImport(store, options, bar.show, wait=wait)
        cursors = []
        for path in files:
            log = LogText(path, live=follow_)
            bar.begin(log)
            cursors.append(importer.read(log))
            bar.end(log)
        if follow_:
            with contextlib.suppress(KeyboardInterrupt):
                follow(importer, cursors, lambda: not stop.wait(_POLL_S))
        for cursor in cursors:
            cursor.end()
    _tell(importer.done, dry_run=dry_run, keyed=options.hash_key is not None, json_=json_)


def _rule(text: str) -> CostRule:
    try:
        return CostRule.parse(text)
    except VitalError as error:
        raise typer.BadParameter(str(error)) from None


def _tell(done: Imported, *, dry_run: bool, keyed: bool, json_: bool) -> None:
    if json_:
        as_json(
            {
                "lines": done.lines,
                "events": done.events,
                "known": done.known,
                "costs": done.costs,
                "bad_lines": done.bad_lines,
                "reasons": dict(done.reasons),
                "bad": [{"file": name, **_fields(line)} for name, line in done.bad],
                "waiting": done.waiting,
                "faults": done.faults,
            }
        )
    else:
        would = "would record" if dry_run else "recorded"
        known = f", {done.known:,} were there" if done.known else ""
        say(
            f"{counted(done.lines, 'line')}: {would} {counted(done.events, 'event')}, {counted(done.costs, 'cost')}{known}"
        )
        if done.bad_lines:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in done.reasons.most_common())
            say(f"{counted(done.bad_lines, 'bad line')}: {reasons}")
        for name, line in done.bad:
            say(f"  {name}: line {line.number:,}, at byte {line.place:,}: {line.reason}")
        if done.bad_lines > len(done.bad):
            say(f"  and {done.bad_lines - len(done.bad):,} more: vital-tracking import list")
        for name in done.waiting:
            say(f"{name}: its last line has no end yet and waits for the next run; --whole takes it")
        if not done.lines and not dry_run:
            say("All of it was read before. To read it again, for other rules: --again")
        if not keyed and done.events:
            say("No hash of addresses was kept: set VITAL_HASH_KEY to find those of one address.")
    for fault in done.faults:
        typer.echo(f"Error: {fault}. What was read before is recorded.", err=True)
    if done.bad_lines and not done.events + done.known:
        typer.echo(
            "Error: no line could be read. Is it an access log, of JSON lines or nginx? --format names which.", err=True
        )
    if done.faults or (done.bad_lines and not done.events + done.known):
        raise typer.Exit(1)


def _fields(line: object) -> dict[str, object]:
    return {name: getattr(line, name) for name in ("number", "place", "length", "reason")}


class _Bar:
    """A bar on the standard error: bytes of the file, lines, and lines a second."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[lines]:,} lines"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._before = 0

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, log: LogText) -> None:
        """A log is being read."""
        self._task = self._progress.add_task(log.name, total=log.size, lines=0, rate="")

    def show(self, log: LogText, done: Imported) -> None:
        """So much of it was read."""
        if self._task is not None:
            task = self._progress.tasks[-1]
            lines = done.lines - self._before
            rate = f"{lines / task.elapsed:,.0f} lines/s" if task.elapsed else ""
            self._progress.update(self._task, completed=log.seen, total=log.size, lines=lines, rate=rate)

    def end(self, log: LogText) -> None:
        """It was read to its end."""
        if self._task is not None:
            task = self._progress.tasks[-1]
            self._before += task.fields["lines"]
            self._progress.update(self._task, completed=log.size or log.seen)
