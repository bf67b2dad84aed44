"""Checks of the sums that reports are made from, against the calls, and of the age of the materialized views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreUnavailable
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.check import Check
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store
from vital_tracking.stores.relations import (
    DAILY,
    DAILY_PARTS,
    DAILY_TOTALS,
    DAILY_USERS,
    HOURLY,
    ColumnKind,
    Relation,
)

_FRESHNESS: Final = Relation(
    "analytics_freshness",
    {"name": ColumnKind.text, "refreshed_at": ColumnKind.time},
    time="refreshed_at",
    key=("name",),
)
_STALE: Final = timedelta(days=1)
_MOST_DIFFERENCES: Final = 100  # the database lists at most so many a table
_KEYS: Final = frozenset(
    name for table in (HOURLY, DAILY_TOTALS, DAILY, DAILY_USERS, DAILY_PARTS) for name in table.key
)


@answer_type
class SumDifference(TypedDict):
    """A sum that differs from its calls: its table, its hour or day, and the difference by key and measure, as text."""

    aggregation: str
    bucket: str
    difference: dict[str, str]


@answer_type
class SumsAudit(TypedDict):
    """Where sums differ from their calls, from `since` up to `until`, the newest first; and days that are not summed up yet."""

    since: datetime
    until: datetime
    differences: list[SumDifference]
    days_to_backfill: int


def audit_sums(store: Store, *, since: datetime, until: datetime) -> SumsAudit | None:
    """Compare the sums of a time with its calls; None where there are so many that the database gives up."""
    try:
        return typed(SumsAudit, store.call("audit_usage_v1", since=since, until=until))
    except StoreUnavailable:
        return None


def days_to_sum_up(store: Store) -> int:
    """How many days have calls that are in no sum yet."""
    now = datetime.now(UTC)
    return typed(SumsAudit, store.call("audit_usage_v1", since=now, until=now))["days_to_backfill"]


def views_refreshed_at(store: Store) -> dict[str, datetime]:
    """When each materialized view was last refreshed."""
    return {str(name): datetime.fromisoformat(str(at)) for rows in store.stream(_FRESHNESS) for name, at in rows}


def check_sums(audit: SumsAudit | None, days_compared: int | None) -> Iterator[Check]:
    """Check that the sums are those of the calls of so many days; None: of all."""
    if audit is None:
        yield Check(
            "warn",
            "sums not compared with the calls: that took longer than the database allows",
            "Give it more time: connect to PostgreSQL directly (VITAL_DATABASE_URL), or raise the role's statement_timeout.",
        )
        return
    if waiting := audit["days_to_backfill"]:
        yield Check(
            "warn",
            f"{counted(waiting, 'day')} of calls not summed up: reports leave them out",
            "Run: vital-tracking backfill",
        )
    wrong: dict[str, list[SumDifference]] = {}
    for row in audit["differences"]:
        wrong.setdefault(row["aggregation"], []).append(row)
    for aggregation, rows in wrong.items():
        days_wrong = sorted({date.fromisoformat(row["bucket"][:10]) for row in rows})
        since, until = f"{days_wrong[0]}", days_wrong[-1] + timedelta(days=1)
        number = counted(len(rows), "sum")
        if len(rows) >= _MOST_DIFFERENCES:  # the newest ones
            since, number = f"{audit['since']:%Y-%m-%d}", f"at least {number}"
        yield Check(
            "fail",
            f"{aggregation}: {number} not those of the calls; on {rows[0]['bucket']}: {_difference(rows[0])}",
            f"Triggers were switched off, or the tables changed by hand. Run: vital-tracking backfill --since {since} "
            f"--until {until}",
        )
    if not wrong:
        days = (
            "all days"
            if days_compared is None
            else "the last day"
            if days_compared == 1
            else f"the last {days_compared} days"
        )
        yield Check("ok", f"sums of {days}: those of the calls")


def _difference(row: SumDifference) -> str:
    """By how much a sum is wrong, and of which organization, user or model."""
    difference: dict[str, str] = row["difference"]
    whose = [f"{name} {value}" for name, value in difference.items() if name in _KEYS - {"day", "hour_start"}]
    amounts = {name: value for name, value in difference.items() if name not in _KEYS}
    # One measure is enough for people: the calls or the cost where these differ, else the first.
    name = next((name for name in ("calls", "total_cost") if name in amounts), next(iter(amounts), None))
    said = f"{name} {'' if amounts[name].startswith('-') else '+'}{amounts[name]}" if name else "latencies"
    return f"{said} ({', '.join(whose) or 'of nobody named'})"


def check_views(views: Mapping[str, datetime], now: datetime) -> Iterator[Check]:
    """Check that each materialized view was refreshed in the last day."""
    if not views:
        return
    oldest = min(views.values())
    late = now - oldest > _STALE
    names = ", ".join(sorted(name for name, moment in views.items() if now - moment > _STALE))
    yield Check(
        "warn" if late else "ok",
        f"materialized views of {oldest:%Y-%m-%d %H:%M} UTC{f': {names}' if late else ''}",
        "Run: vital-tracking refresh. To keep them fresh: vital-tracking refresh --every 5m, or with pg_cron in SQL: select "
        "schedule_refresh()"
        if late
        else None,
    )
