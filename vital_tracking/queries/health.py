"""The health of an installation: settings, database, migrations, prices, delivery, budgets and sums, and how to mend each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreNotReady, VitalError
from vital_tracking.queries.alerts import Alert, recent_alerts
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.budgets import (
    AuditedWindow,
    BudgetAudit,
    BudgetLimit,
    Overshoot,
    all_budgets,
    audit_budgets,
)
from vital_tracking.queries.check import Check
from vital_tracking.queries.configuration import named_by
from vital_tracking.queries.copies import check_copies
from vital_tracking.queries.exactness import check_exactness, inexact_calls
from vital_tracking.queries.health_sums import audit_sums, check_sums, check_views, views_refreshed_at
from vital_tracking.queries.installation import check_installation
from vital_tracking.queries.spool import left_by, place_of, survey
from vital_tracking.queries.words import counted, size
from vital_tracking.settings import Settings
from vital_tracking.spool.location import fault_of, spool_root
from vital_tracking.stores import Store, open_store

_NEARLY_FULL: Final = 0.75
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AUDITED: Final = 7  # days
_AUDITED_AT_ONCE: Final = 1  # while somebody waits for a page
_MOST_TOLD: Final = 10  # of windows with one thing to be said of them
_AHEAD: Final = timedelta(days=1)  # calls may be dated a little ahead of the database's clock
_REACH: Final = "Is it running, and may it be reached from here? SUPABASE_URL or VITAL_DATABASE_URL names it."


@answer_type
class TrackingStatus(TypedDict):
    """What the database tells of itself and of the last calls; partitions are there until `partitions_until` (UTC).

    `compiles_queries` says whether the server compiles long queries (jit), which costs more than it saves here.
    """

    server_version: str
    compiles_queries: bool
    database_time: datetime
    calls_last_day: int
    last_call_at: datetime | None
    unpriced_calls: int
    unpriced_models: list[str]
    calls_in_default_partition: int
    partitions_until: datetime | None
    runs_still_open: int


def tracking_status(store: Store) -> TrackingStatus:
    """What the database tells of itself. Raises StoreError where it cannot answer."""
    return typed(TrackingStatus, store.call("tracking_status_v1"))


def database_time(store: Store) -> datetime:
    """The database's clock: the quickest way to hear whether it answers. Raises StoreError where it does not."""
    return typed(datetime, store.call("database_time_v1"))


def examine(*, full: bool = False, mend: bool = False) -> Iterator[Check]:
    """Look at everything that the environment configures, from the settings to the last call; `full`: at the sums of all days.

    `mend`: days on which a copy in a ClickHouse differs are sent there again.

    What fails is a check of its own: nothing is raised.
    """
    yield _packages()
    try:
        settings = Settings.from_env()
        store = open_store(settings)
    except StoreNotReady as error:
        yield Check("fail", "the database is not ready", str(error))
        return
    except VitalError as error:
        yield Check("fail", "no store", str(error))
        return
    yield Check("ok", f"store: {store.description}{f', by {by}' if (by := named_by(settings)) else ''}")
    yield from _delivery(settings)
    try:
        yield from _stored(store, settings, None if full else _AUDITED, mend=mend)
    finally:
        store.close()


def examine_store(store: Store) -> Iterator[Check]:
    """The same of a store that is open already, with the environment's settings for what is delivered; nothing is raised.

    Somebody waits for it: the sums of the last day alone are compared with their calls.
    """
    yield _packages()
    yield Check("ok", f"store: {store.description}")
    try:
        settings = Settings.from_env()
    except VitalError as error:
        yield Check("fail", "the settings cannot be used", str(error))
        return
    yield from _delivery(settings)
    yield from _stored(store, settings, _AUDITED_AT_ONCE)


def _stored(store: Store, settings: Settings, audited: int | None, *, mend: bool = False) -> Iterator[Check]:
    """The checks of a database and of what is in it; `audited` are the days whose sums are compared, None: all."""
    try:
        yield from check_installation(store)
        status = tracking_status(store)
        now = status["database_time"]
        known, audit = all_budgets(store)["budgets"], audit_budgets(store)
        alerts = recent_alerts(store, since=now - timedelta(days=1))
        since = _BEGINNING if audited is None else now - timedelta(days=audited)
        sums = audit_sums(store, since=since, until=now + _AHEAD)
        views = views_refreshed_at(store)
        exactness = inexact_calls(store, since=now - timedelta(days=_AUDITED))
        copied = list(check_copies(store, settings, now, since=None if audited is None else since, mend=mend))
    except StoreNotReady as error:
        yield Check("fail", "the database is not ready", str(error))
        return
    except VitalError as error:
        yield Check("fail", f"the database does not answer: {error}", _REACH)
        return
    yield from _database(status)
    yield from _calls(status)
    yield from check_exactness(exactness)
    yield from _budgets(settings, known, audit, alerts)
    yield from check_sums(sums, audited)
    yield from check_views(views, now)
    yield from copied


def _packages() -> Check:
    packages = ("vital-tracking", "genai-prices", "langchain-core", "langgraph", "langsmith")
    return Check("ok", ", ".join(_installed(name) for name in packages))


def _installed(package: str) -> str:
    """A package and its version, or that it is not there."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _delivery(settings: Settings) -> Iterator[Check]:
    when = f"sent when {settings.batch_size} wait or after {settings.flush_interval_s:g} s"
    if not settings.background:
        when = "sent by flush() alone (VITAL_BACKGROUND=off)"
    memory = f"{settings.queue_bytes >> 20:,} MiB in memory"
    if not settings.spool:
        yield Check(
            "ok",
            f"no spool (VITAL_SPOOL=off): calls wait in at most {memory}, {when}",
            "A process that is killed takes them along; VITAL_SPOOL=on keeps them on disk.",
        )
        return
    chosen = spool_root(settings)
    if settings.spool_dir is not None and (fault := fault_of(chosen, to_write=True)):
        yield Check(
            "fail",
            f"spool: {chosen} cannot be used: {fault}",
            "Calls wait in memory alone, and are lost with their process. Mend the folder or its rights, or name another one: "
            "VITAL_SPOOL_DIR.",
        )
        return
    try:
        found = survey(place_of(settings))
    except VitalError as error:
        yield Check("warn", str(error), "A process that is killed takes along what it has not sent.")
        return
    root = found.place.root
    room = f"{size(found.bytes)} of {size(settings.spool_bytes)} in {root}, then {memory}"
    full = found.bytes > _NEARLY_FULL * settings.spool_bytes
    yield Check(
        "warn" if full else "ok",
        f"spool: {room}; {when} (a process's own: tracker.stats())",
        "Nearly full: calls are shortened, then only their money is kept. See: vital-tracking spool status"
        if full
        else None,
    )
    if root.is_relative_to(tempfile.gettempdir()) and (settings.spool_dir is not None or root != spool_root(settings)):
        yield Check(
            "warn",
            f"the spool is in the folder for temporary files: {root}",
            "What it holds may not last until the next process. Name a folder that does: VITAL_SPOOL_DIR.",
        )
    if left := found.left(here=True):
        yield Check("warn", f"spool: {left_by(left)}", "Run: vital-tracking spool replay")
    if others := found.left(here=False):
        yield Check("warn", f"spool, for other databases: {left_by(others)}", "See: vital-tracking spool status")
    if number := found.refused_by(here=True):
        yield Check("warn", f"{counted(number, 'row')} refused by the database", "See: vital-tracking spool rejected")


def _database(status: TrackingStatus) -> Iterator[Check]:
    here = datetime.now(UTC)
    apart = abs((here - status["database_time"]).total_seconds())
    if apart > 60:
        yield Check(
            "warn",
            f"this clock and the database's are {apart:.0f} s apart",
            "Calls are dated by this clock: switch on time synchronisation (NTP).",
        )
    if status["compiles_queries"]:
        yield Check(
            "warn",
            "the server compiles long queries (jit), which makes views of reports slower, up to hundreds of times",
            "Switch it off: alter database NAME set jit = off; our functions do so for themselves.",
        )
    until = status["partitions_until"]
    if until is None or until.replace(tzinfo=UTC) < here.replace(day=1):
        yield Check(
            "warn",
            "no monthly partition is left for new calls; they go to the default one",
            "Run: vital-tracking migrate",
        )
    else:
        yield Check("ok", f"monthly partitions until {until:%Y-%m-%d}")
    if status["calls_in_default_partition"]:
        yield Check(
            "warn",
            f"{counted(status['calls_in_default_partition'], 'call')} dated outside every monthly partition",
            "To make the partitions of their months and move them there: vital-tracking refresh. Those that stay are more than "
            "ten years old or a year ahead: a clock was wrong, or calls were imported. In SQL, for any month: "
            "select ensure_partitions_v1('YYYY-MM-01', 1)",
        )


def _calls(status: TrackingStatus) -> Iterator[Check]:
    last = status["last_call_at"]
    if last is None:
        yield Check(
            "warn",
            "no call in the last month",
            "Attach the handler. For an example, in a database of its own: vital-tracking demo",
        )
    else:
        yield Check(
            "ok",
            f"{counted(status['calls_last_day'], 'call')} in the last day, "
            f"the last at {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        )
    if status["unpriced_calls"]:
        models = ", ".join(status["unpriced_models"])
        yield Check(
            "warn",
            f"{counted(status['unpriced_calls'], 'unpriced call')}: {models}",
            "Run: vital-tracking prices set MODEL --input ... --output ... ; then: vital-tracking reprice",
        )
    else:
        yield Check("ok", "every call has a price")
    if status["runs_still_open"]:
        yield Check(
            "warn",
            f"{counted(status['runs_still_open'], 'service run')} open for more than a day",
            "Their processes ended without closing them; their calls are complete.",
        )


def _budgets(
    settings: Settings, known: Sequence[BudgetLimit], audit: BudgetAudit, alerts: Sequence[Alert]
) -> Iterator[Check]:
    if not known:
        yield Check("ok", "no budgets: nothing limits what is spent", "To set one: vital-tracking budgets set --help")
        return
    windows = counted(audit["windows"], "window")
    if audit["differences"]:
        for row in audit["differences"][:_MOST_TOLD]:
            yield Check(
                "fail",
                f"{_window(row)}: {row['kind']} is {row['found']:f}, its {'calls' if row['kind'] == 'spent' else 'grants'} "
                f"sum up to {row['expected']:f}",
                "Calls were deleted, or the tables changed by hand. To count anew, in SQL: select recount_budgets_v1();",
            )
        if (more := len(audit["differences"]) - _MOST_TOLD) > 0:
            yield Check(
                "fail",
                f"{counted(more, 'more window')} with such differences",
                "All of them, in SQL: select audit_budgets_v1();",
            )
    else:
        yield Check("ok", f"{counted(len(known), 'budget')}, {windows}: spent and granted are the sums of their rows")
    for over in audit["overshoot"][:_MOST_TOLD]:
        yield Check(
            "warn",
            f"{_window(over)} is over its limit by {over['overshoot']:f} ({over['spent']:f} spent and {over['granted']:f} "
            f"granted of {over['limit_amount']:f})",
            f"Past what had been set aside: {_causes(over)}.",
        )
    if (more := len(audit["overshoot"]) - _MOST_TOLD) > 0:
        yield Check(
            "warn", f"{counted(more, 'more window')} over the limit", "The fullest: vital-tracking budgets windows"
        )
    late = [alert for alert in alerts if not alert["delivered_at"]]
    if late and not settings.alert_urls:
        yield Check(
            "warn",
            f"{counted(len(late), 'alert')} of the last day went to the log only",
            "Set VITAL_ALERT_URLS, or give VitalTracker an on_alert.",
        )


def _causes(over: Overshoot) -> str:
    """What was spent past all grants, by cause, the largest first."""
    causes = [
        (over["beyond_hold"], "by calls that cost more than was held for them"),
        (over["unasked"], "by calls that nobody asked for, or that could not be checked"),
        (over["late"], "by calls that came late after a crash or an outage"),
        (over["before"], "spent or granted before the limit was what it is"),
    ]
    told = sorted((cause for cause in causes if cause[0] > 0), key=lambda cause: cause[0], reverse=True)
    return ", ".join(f"{amount:f} {cause}" for amount, cause in told)


def _window(row: AuditedWindow) -> str:
    return f"budget of {row['entity_type']} {row['entity_id']}, {row['period']} from {row['starts_at']:%Y-%m-%dT%H:%M}"
