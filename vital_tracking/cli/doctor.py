"""`vital-tracking doctor`: what works, what does not, and how to mend it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from vital_tracking import __version__
from vital_tracking.cli.render.console import as_json, console, drawable, say
from vital_tracking.errors import StoreNotReady, StoreUnavailable, VitalError
from vital_tracking.migrate import find_migrations
from vital_tracking.queries.check import Finding, State
from vital_tracking.queries.health_sums import FRESHNESS, sums_differ, views_age
from vital_tracking.queries.spool import left_by, place_of, survey
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.spool.location import spool_root
from vital_tracking.stores import Store, open_store

_NEARLY_FULL = 0.75
_MARKS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "warn": ("!", "!", "yellow"),
    "fail": ("✗", "x", "red"),
}


_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AUDITED: Final = timedelta(days=7)
_AHEAD: Final = timedelta(days=1)  # clocks of processes differ
_REACH = "Is it running, and may it be reached from here? SUPABASE_URL or VITAL_DATABASE_URL names it."


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Compare the sums of all days with their calls, not only those of the last 7 days."
        ),
    ] = False,
) -> None:
    """Check settings, store, migrations, prices, delivery and sums; say what is wrong and how to mend it.

    Exit code 1 on a failure.

    \b
    Examples:
      vital-tracking doctor
      vital-tracking doctor --full --json
    """
    findings = list(examine(full=full))
    if json_:
        as_json([{"state": f.state, "what": f.what, "fix": f.fix} for f in findings])
    else:
        arrow = "→" if drawable("→") else "->"
        for finding in findings:
            mark, plain, colour = _MARKS[finding.state]
            console.print(
                Text.assemble((mark if drawable(mark) else plain, colour), f" {finding.what}"), soft_wrap=True
            )
            if finding.fix:
                say(f"    {arrow} {finding.fix}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(*, full: bool = False) -> Iterator[Finding]:
    """Look at everything, from the settings to the last call."""
    yield Finding("ok", f"vital-tracking {__version__}, genai-prices {version('genai-prices')}, {_langchain()}")
    try:
        settings = Settings.from_env()
        store = open_store(settings)
    except VitalError as error:
        yield Finding("fail", "no store", str(error))
        return
    yield Finding("ok", f"store: {store.description}")
    yield from _delivery(settings)
    try:
        status = store.call("tracking_status_v1")
        budgets, audit = store.call("budgets_v1")["budgets"], store.call("audit_budgets_v1")
        now = datetime.fromisoformat(status["database_time"])
        waiting = store.call("cost_alerts_v1", since=now - timedelta(days=1), max_rows=1000)
        sums = _compared(store, _BEGINNING if full else now - _AUDITED, now + _AHEAD)
        views = [row for rows in store.stream(FRESHNESS) for row in rows]
    except StoreNotReady as error:
        yield Finding("fail", "the database is not ready", str(error))
        return
    except VitalError as error:
        yield Finding("fail", f"the database does not answer: {error}", _REACH)
        return
    finally:
        store.close()
    yield from _database(status)
    yield from _calls(status)
    yield from _budgets(settings, budgets, audit, waiting)
    yield from sums_differ(sums, full=full)
    yield from views_age(views, now)


def _compared(store: Store, since: datetime, until: datetime) -> dict[str, Any] | None:
    """Where sums differ from their calls; None where there are so many that the database gives up."""
    try:
        answer: dict[str, Any] = store.call("audit_usage_v1", since=since, until=until)
    except StoreUnavailable:
        return None
    return answer


def _langchain() -> str:
    names = []
    for name in ("langchain-core", "langgraph", "langsmith"):
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"no {name}")
    return ", ".join(names)


def _delivery(settings: Settings) -> Iterator[Finding]:
    when = f"sent when {settings.batch_size} wait or after {settings.flush_interval_s:g} s"
    if not settings.background:
        when = "sent by flush() alone (VITAL_BACKGROUND=off)"
    memory = f"{settings.queue_bytes >> 20:,} MiB in memory"
    if not settings.spool:
        yield Finding(
            "ok",
            f"no spool (VITAL_SPOOL=off): calls wait in at most {memory}, {when}",
            "A process that is killed takes them along; VITAL_SPOOL=on keeps them on disk.",
        )
        return
    try:
        found = survey(place_of(settings))
    except VitalError as error:
        yield Finding("warn", str(error), "A process that is killed takes along what it has not sent.")
        return
    root = found.place.root
    if not _writable(root):
        yield Finding(
            "fail",
            f"spool: {root} cannot be written to by this user",
            "Calls wait in memory alone, and are lost with their process. Mend the folder's rights, or name another one: "
            "VITAL_SPOOL_DIR.",
        )
        return
    room = f"{size(found.bytes)} of {size(settings.spool_bytes)} in {root}, then {memory}"
    full = found.bytes > _NEARLY_FULL * settings.spool_bytes
    yield Finding(
        "warn" if full else "ok",
        f"spool: {room}; {when} (a process's own: tracker.stats())",
        "Nearly full: calls are shortened, then only their money is kept. See: vital-tracking spool status"
        if full
        else None,
    )
    if root.is_relative_to(tempfile.gettempdir()) and (settings.spool_dir is not None or root != spool_root(settings)):
        yield Finding(
            "warn",
            f"the spool is in the folder for temporary files: {root}",
            "What it holds may not last until the next process. Name a folder that does: VITAL_SPOOL_DIR.",
        )
    if left := found.left(here=True):
        yield Finding("warn", f"spool: {left_by(left)}", "Run: vital-tracking spool replay")
    if others := found.left(here=False):
        yield Finding("warn", f"spool, for other databases: {left_by(others)}", "See: vital-tracking spool status")
    if number := found.letters_of(here=True):
        yield Finding("warn", f"{counted(number, 'row')} refused by the database", "See: vital-tracking spool rejected")


def _writable(root: Path) -> bool:
    """Whether processes like this one may write to a folder, or make it."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _database(status: dict[str, Any]) -> Iterator[Finding]:
    applied, wanted = set(status["migrations"]), [migration.version for migration in find_migrations()]
    missing = [name for name in wanted if name not in applied]
    if missing and applied:
        yield Finding(
            "fail",
            f"{counted(len(missing), 'migration')} missing",
            "Run: vital-tracking migrate (or: supabase db push)",
        )
    else:
        yield Finding("ok", f"PostgreSQL {status['server_version']}, {len(wanted)} migrations")
    here, there = datetime.now(UTC), datetime.fromisoformat(status["database_time"])
    apart = abs((here - there).total_seconds())
    if apart > 60:
        yield Finding(
            "warn",
            f"this clock and the database's are {apart:.0f} s apart",
            "Calls are dated by this clock: switch on time synchronisation (NTP).",
        )
    until = status["partitions_until"]
    if until is None or datetime.fromisoformat(until).replace(tzinfo=UTC) < here.replace(day=1):
        yield Finding(
            "warn",
            "no monthly partition is left for new calls; they go to the default one",
            "Run: vital-tracking migrate",
        )
    else:
        yield Finding("ok", f"monthly partitions until {until[:10]}")
    if status["calls_in_default_partition"]:
        yield Finding(
            "warn",
            f"{counted(status['calls_in_default_partition'], 'call')} dated outside every monthly partition",
            "To make the partitions of their months and move them there: vital-tracking refresh. Those that stay are more than "
            "ten years old or a year ahead: a clock was wrong, or calls were imported. In SQL, for any month: "
            "select ensure_partitions_v1('YYYY-MM-01', 1)",
        )


def _calls(status: dict[str, Any]) -> Iterator[Finding]:
    last = status["last_call_at"]
    if last is None:
        yield Finding("warn", "no call in the last month", "Attach the handler, or run: vital-tracking demo")
    else:
        yield Finding(
            "ok",
            f"{counted(status['calls_last_day'], 'call')} in the last day, the last at {last[:19].replace('T', ' ')} UTC",
        )
    if status["unpriced_calls"]:
        models = ", ".join(status["unpriced_models"])
        yield Finding(
            "warn",
            f"{counted(status['unpriced_calls'], 'unpriced call')}: {models}",
            "Run: vital-tracking prices set MODEL --input ... --output ... ; then: vital-tracking reprice",
        )
    else:
        yield Finding("ok", "every call has a price")
    if status["runs_still_open"]:
        yield Finding(
            "warn",
            f"{counted(status['runs_still_open'], 'service run')} open for more than a day",
            "Their processes ended without closing them; their calls are complete.",
        )


def _budgets(
    settings: Settings, budgets: list[dict[str, Any]], audit: dict[str, Any], alerts: list[dict[str, Any]]
) -> Iterator[Finding]:
    if not budgets:
        yield Finding("ok", "no budgets: nothing limits what is spent", "To set one: vital-tracking budgets set --help")
        return
    windows = counted(audit["windows"], "window")
    if audit["differences"]:
        for row in audit["differences"]:
            yield Finding(
                "fail",
                f"{_window(row)}: {row['kind']} is {row['found']}, its {'calls' if row['kind'] == 'spent' else 'grants'} "
                f"sum up to {row['expected']}",
                "Calls were deleted, or the tables changed by hand. To count anew, in SQL: select recount_budgets_v1();",
            )
    else:
        yield Finding(
            "ok", f"{counted(len(budgets), 'budget')}, {windows}: spent and granted are the sums of their rows"
        )
    for row in audit["overshoot"]:
        yield Finding(
            "warn",
            f"{_window(row)} is over its limit by {row['overshoot']} ({row['spent']} spent and {row['granted']} granted "
            f"of {row['limit_amount']})",
            "Calls that cost more than was held for them, that came late after a crash, or a limit that was lowered.",
        )
    late = [alert for alert in alerts if not alert["delivered_at"] and not alert["superseded"]]
    if late and not settings.alert_urls:
        yield Finding(
            "warn",
            f"{counted(len(late), 'alert')} of the last day went to the log only",
            "Set VITAL_ALERT_URLS, or give VitalTracker an on_alert.",
        )


def _window(row: dict[str, Any]) -> str:
    return f"budget of {row['entity_type']} {row['entity_id']}, {row['period']} from {row['starts_at'][:16]}"
