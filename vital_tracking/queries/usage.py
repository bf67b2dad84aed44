"""What calls cost: sums by a grouping, totals, what is out of the ordinary, and requests that were made twice.

Amounts are US dollars as Decimal with all their digits, rates are in percent, shares go from 0 to 1, latencies are in
milliseconds, days are those of UTC. All functions raise StoreError where the database cannot answer.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal, NotRequired, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from vital_tracking.errors import StoreNotReady
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.catalogue import GROUPINGS
from vital_tracking.queries.explored_report import explored_report
from vital_tracking.queries.filters import Filters
from vital_tracking.stores import Store


def _period(text: object) -> object:
    """A day stays a day: as a time it would be midnight in some zone."""
    return date.fromisoformat(text) if isinstance(text, str) and len(text) == len("2026-01-31") else text


@answer_type
class Sums(TypedDict):
    """The measures of a group of calls; a rate or latency of nothing is None. `catalogue.MEASURES` has their units."""

    calls: int
    cached_calls: int
    failed_calls: int
    blocked_calls: int
    unpriced_calls: int
    estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cache_read_tokens: int
    fees: Amount
    total_cost: Amount
    potential_cost: Amount
    timed_out_calls: int
    cache_savings: Amount
    hit_rate: float | None
    success_rate: float | None
    average_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    timeout_rate: float | None
    tokens_per_dollar: float | None


Period: TypeAlias = Annotated[date | datetime, BeforeValidator(_period)]
"""The first day of a day, week or month, or the beginning of an hour."""


@answer_type
class UsageRow(Sums):
    """One group of a usage report: the labels of its grouping, its sums, its share in the total cost, the cost of its days."""

    organization_id: NotRequired[str | None]
    user_id: NotRequired[str | None]
    services: NotRequired[int]
    last_day: NotRequired[date]
    service_type: NotRequired[str | None]
    agent_id: NotRequired[str | None]
    agent_name: NotRequired[str | None]
    agent_tier: NotRequired[str | None]
    panel_id: NotRequired[str | None]
    panel_position: NotRequired[int | None]
    workflow_id: NotRequired[str | None]
    workflow_step: NotRequired[str | None]
    workflow_step_name: NotRequired[str | None]
    session_id: NotRequired[str | None]
    first_day: NotRequired[date]
    solution_id: NotRequired[str | None]
    service_run_id: NotRequired[str | None]
    service_name: NotRequired[str | None]
    time: NotRequired[Period]
    provider: NotRequired[str | None]
    model: NotRequired[str | None]
    prompt_cache_rate: NotRequired[float | None]
    reported_calls: NotRequired[int]
    reported_cost: NotRequired[Decimal]
    reported_total_cost: NotRequired[Decimal]
    share: float
    days: list[tuple[Period, Decimal]]


@answer_type
class UsageReport(TypedDict):
    """A usage report: whole days of `timezone` from `since` up to, and without, `until`; the dearest rows first.

    `kept_since` is there where the calls that it was told from go back no further than that.
    """

    report: str
    since: datetime
    until: datetime
    organization: str | None
    fresh_at: datetime
    timezone: NotRequired[str]
    grain: NotRequired[str]
    kept_since: NotRequired[datetime | None]
    total: Sums
    rows: list[UsageRow]


def usage_report(
    store: Store,
    grouping: str,
    filters: Filters,
    *,
    by: str | None = None,
    timezone: str = "UTC",
    grain: str = "day",
    sort: str | None = None,
    ascending: bool = False,
    rows: int = 50,
) -> UsageReport:
    """What was spent, by one of `catalogue.GROUPINGS`: the dearest `rows` groups, and the total of all.

    It counts the whole days of `timezone` (IANA) that the time from `filters.since` up to `filters.until`, which both must be
    given, touches. `by` splits the groups once more: one of `breakdowns.DIMENSIONS`, else a key of the calls' metadata, whose
    value is then the row's `metadata.KEY`. `grain` (one of `catalogue.GRAINS`) says how `days` tell the cost's course; with the
    grain `hour` whole hours count. `sort` is one of `catalogue.MEASURES`, the largest first unless `ascending`.

    It comes from the smallest sums that hold what was asked, else from the calls themselves. Raises StoreError; StoreRejected
    for an unknown word.
    """
    since, until = filters.since, filters.until
    if since is None or until is None:
        raise ValueError("A report needs to know from when until when.")
    plain = (by, timezone, grain, sort, ascending) == (None, "UTC", "day", None, False)
    if plain and GROUPINGS[grouping].summed and filters.given.keys() <= {"organization"}:
        try:
            answer = store.call(
                "usage_report_v1",
                report=grouping,
                since=since,
                until=until,
                organization=filters.organization,
                rows=rows,
            )
            return typed(UsageReport, answer)
        except StoreNotReady as error:
            if error.sqlstate != _NOT_ALLOWED:
                raise
    answer = explored_report(
        store,
        GROUPINGS[grouping],
        filters,
        by=by,
        timezone=timezone,
        grain=grain,
        sort=sort,
        ascending=ascending,
        rows=rows,
    )
    return typed(UsageReport, answer)


def usage_summary(store: Store, filters: Filters, *, timezone: str = "UTC") -> Sums:
    """What all calls that the filters let pass come to, on the whole days of `timezone` that their time touches."""
    return usage_report(store, "organizations", filters, timezone=timezone, rows=0)["total"]


_NOT_ALLOWED: Final = "42501"
"""The sums answer operators alone."""


def first_and_last_day(report: UsageReport) -> tuple[date, date]:
    """The days of a usage report, both included."""
    zone = ZoneInfo(report.get("timezone", "UTC"))
    last = report["until"] - timedelta(microseconds=1)
    return report["since"].astimezone(zone).date(), last.astimezone(zone).date()


class Others(TypedDict):
    """What the rows come to that a usage report leaves out; no rates or latencies, which do not add up."""

    calls: int
    failed_calls: int
    blocked_calls: int
    unpriced_calls: int
    estimated_calls: int
    total_tokens: int
    fees: Amount
    total_cost: Amount
    potential_cost: Amount
    cache_savings: Amount
    share: float


def others(report: UsageReport) -> Others | None:
    """What the rows that a usage report leaves out come to; None where it has them all."""
    total, rows = report["total"], report["rows"]
    cost = total["total_cost"] - sum(row["total_cost"] for row in rows)
    rest = Others(
        calls=total["calls"] - sum(row["calls"] for row in rows),
        failed_calls=total["failed_calls"] - sum(row["failed_calls"] for row in rows),
        blocked_calls=total["blocked_calls"] - sum(row["blocked_calls"] for row in rows),
        unpriced_calls=total["unpriced_calls"] - sum(row["unpriced_calls"] for row in rows),
        estimated_calls=total["estimated_calls"] - sum(row["estimated_calls"] for row in rows),
        total_tokens=total["total_tokens"] - sum(row["total_tokens"] for row in rows),
        fees=total["fees"] - sum(row["fees"] for row in rows),
        total_cost=cost,
        potential_cost=total["potential_cost"] - sum(row["potential_cost"] for row in rows),
        cache_savings=total["cache_savings"] - sum(row["cache_savings"] for row in rows),
        share=float(cost / total["total_cost"]) if total["total_cost"] else 0.0,
    )
    return rest if rest["calls"] else None


def cost_by_day(report: UsageReport) -> dict[Period, Decimal]:
    """The cost of each day with calls, of the rows that a usage report has."""
    days: dict[Period, Decimal] = {}
    for row in report["rows"]:
        for day, cost in row["days"]:
            days[day] = days.get(day, Decimal(0)) + cost
    return days


def savings_share(potential_cost: Decimal, cache_savings: Decimal) -> float | None:
    """The share of what calls would have cost without caches that caches saved; None where they would have cost nothing."""
    return float(cache_savings / potential_cost) if potential_cost else None


@answer_type
class Breakdown(TypedDict):
    """What calls of one `key` cost; `label` is its newest name."""

    key: str | None
    label: str
    calls: int
    failed_calls: int
    cached_calls: int
    unpriced_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_cost: Amount
    potential_cost: Amount
    average_latency_ms: float | None


def cost_breakdown(
    store: Store, by: str, *, since: datetime | None = None, organization: str | None = None
) -> list[Breakdown]:
    """What calls since an instant cost, from the calls themselves, the dearest label first.

    `by` is one of `breakdowns.BREAKDOWNS`. Raises StoreError; StoreRejected, which names the closest, for another word.
    """
    return typed(list[Breakdown], store.breakdown(by, since=since, organization=organization))


# What is out of the ordinary


@answer_type
class Anomaly(TypedDict):
    """A day on which an agent, user or model cost more, took longer or failed more often than it usually does.

    `metric` says in which unit `value` and `usual` are: `cost` US dollars, `latency` milliseconds, `error_rate` percent.
    `query` is SQL that shows the calls.
    """

    subject: str
    id: str
    organization_id: str | None
    day: date
    metric: str
    measure: str
    value: Amount
    usual: Amount
    score: int | float
    cost_at_stake: Amount
    calls: int
    unpriced_calls: int
    query: str


@answer_type
class Anomalies(TypedDict):
    """Days that are out of the ordinary, those with the most at stake first."""

    since: datetime
    until: datetime
    organization: str | None
    rows: list[Anomaly]


def anomalies(
    store: Store, *, since: datetime, until: datetime, organization: str | None = None, rows: int = 50
) -> Anomalies:
    """Which agents, users and models had a day out of the ordinary; the `rows` with the most at stake.

    What is usual is told from the days before, so a day needs some history. `organization` None looks at all of them.
    """
    return typed(Anomalies, store.call("anomalies_v1", since=since, until=until, organization=organization, rows=rows))


_SEVERE: Final[tuple[tuple[Literal["high", "medium"], Decimal, int], ...]] = (
    ("high", Decimal(100), 12),
    ("medium", Decimal(10), 7),
)


def severity(row: Anomaly) -> Literal["high", "medium", "low"]:
    """How bad an anomaly is: high from 100 dollars at stake or a score of 12 on, medium from 10 dollars or a score of 7 on."""
    for level, dollars, score in _SEVERE:
        if row["cost_at_stake"] >= dollars or row["score"] >= score:
            return level
    return "low"


# Requests that were made twice


@answer_type
class Duplicate(TypedDict):
    """A request that was answered and paid for more than once, told by its keyed hash; `cost` is that of all its calls."""

    request_hash: str
    organization_id: str | None
    calls: int
    unpriced_calls: int
    model: str | None
    agent_id: str | None
    first_at: datetime
    last_at: datetime
    cost: Amount
    saved_by_caching: Amount


@answer_type
class Duplicates(TypedDict):
    """Requests that were made more than once, the dearest first.

    `requests`, `repeated_calls` and `saved_by_caching` count all of them, also those that `rows` leaves out.
    """

    since: datetime
    until: datetime
    organization: str | None
    requests: int
    repeated_calls: int
    saved_by_caching: Amount
    rows: list[Duplicate]


def duplicates(
    store: Store, *, since: datetime, until: datetime, organization: str | None = None, rows: int = 50
) -> Duplicates:
    """Which requests were made more than once, and what a cache of answers would have saved; the dearest `rows`.

    Requests are told apart by a keyed hash, which is recorded only where `VITAL_HASH_KEY` is set.
    """
    return typed(
        Duplicates, store.call("duplicates_v2", since=since, until=until, organization=organization, rows=rows)
    )


def duplicate_query(duplicate: Duplicate) -> str:
    """SQL for people to copy that shows the calls of one such request."""
    same = f"request_hash = {_literal(duplicate['request_hash'])}"
    return f"select * from token_usage_logs where {same} order by created_at;"  # noqa: S608 - shown, not run


def example_queries(organization: str) -> tuple[str, ...]:
    """SQL for people to copy: what an organization's calls cost by model, its workflows, and its newest calls."""
    mine = f"where organization_id = {_literal(organization)}"
    return (
        f"select label, calls, total_cost, unpriced_calls from cost_breakdown('model', organization => {_literal(organization)})",  # noqa: S608
        f"select service_name, status, steps, calls, total_cost, duration_ms from workflow_analytics {mine}",  # noqa: S608
        "select created_at, agent_name, model, total_tokens, total_cost from agent_usage_detailed "  # noqa: S608
        f"{mine} order by created_at desc limit 10",
    )


def _literal(text: str) -> str:
    """Text as SQL writes it, in queries that are shown and not run."""
    return "'" + text.replace("'", "''") + "'"
