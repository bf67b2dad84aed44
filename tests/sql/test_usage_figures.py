"""What functions tell from the aggregations: costs between two instants, and percentiles."""

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.sql.helpers import Connection, Row, a_call, record
from tests.sql.usage_sums import ENDS, MOMENTS, PLACES, assert_sums_are_those_of_the_calls, differences, the_call

ZONES = (
    ("Asia/Kolkata", "2026-03-10"),
    ("Pacific/Apia", "2026-03-10"),
    ("Pacific/Apia", "2011-12-29"),  # the next day never was
    ("Europe/Berlin", "2026-03-29"),  # 23 hours
    ("Europe/Berlin", "2026-10-25"),  # 25 hours
    ("Asia/Kathmandu", "2026-03-10"),
    ("UTC", "2026-03-10"),
)


def test_what_an_organization_cost_is_what_its_calls_cost_between_any_two_instants(db: Connection) -> None:
    """If this failed, a bill for a month of India or for the night of a clock change would be wrong."""
    draw = random.Random(5)
    number = itertools.count(1)
    instants: list[tuple[datetime, datetime]] = []
    calls: list[Row] = []
    for zone, day in ZONES:
        days = [datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) + timedelta(days=d) for d in range(3)]
        edges = [one.astimezone(UTC) for one in days]
        instants += itertools.pairwise(edges)
        around = [edge + timedelta(microseconds=us) for edge in edges for us in (-1, 0, 1)]
        within = [edges[0] + timedelta(seconds=draw.uniform(0, 172_800)) for _ in range(30)]
        instants += [tuple(sorted(draw.sample(around + within, 2))) for _ in range(30)]  # type: ignore[misc]
        near = [one + timedelta(seconds=draw.uniform(0, 900)) for one in within[:5]]
        instants += [*zip(within[:5], near, strict=True), (within[0], within[0])]
        for moment in around + within + near:
            organization = draw.choice(["acme", "acme", "other", None])
            end = draw.choice(ENDS)
            calls.append(the_call(next(number), moment.isoformat(), organization, "u-1", draw.choice(PLACES), end))
    hour = datetime(2026, 3, 10, 5, tzinfo=UTC)
    instants += [
        (hour, hour + timedelta(hours=1)),
        (hour - timedelta(microseconds=1), hour + timedelta(microseconds=1)),
    ]
    instants += [(datetime(1990, 1, 1, tzinfo=UTC), datetime(1991, 1, 1, tzinfo=UTC))]
    record(db, *calls)
    found = db.execute(
        """
        select i.*, to_jsonb(o) as answer, to_jsonb(r) as rows
        from unnest(%s::timestamptz[], %s::timestamptz[]) as i (since, until)
        cross join lateral organization_cost('acme', i.since, i.until) as o
        cross join lateral (
          select
            coalesce(sum(calls), 0) as calls, coalesce(sum(calls) filter (where status <> 'ok'), 0) as failed_calls,
            coalesce(sum(calls) filter (where cache_hit), 0) as cached_calls,
            coalesce(sum(calls) filter (where not priced), 0) as unpriced_calls,
            coalesce(sum(total_tokens), 0) as total_tokens, coalesce(sum(total_cost), 0) as total_cost,
            coalesce(sum(potential_cost), 0) as potential_cost,
            coalesce(sum(potential_cost), 0) - coalesce(sum(total_cost), 0) as cache_savings
          from token_usage_logs
          where organization_id = 'acme' and created_at >= i.since and created_at < i.until
        ) as r
        """,
        [[since for since, _ in instants], [until for _, until in instants]],
    ).fetchall()
    assert [row for row in found if row["answer"] != row["rows"]] == []
    assert sum(row["answer"]["calls"] > 0 for row in found) > len(found) / 2


FRACTIONS = [0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0]


def samples(draw: random.Random, kind: str, count: int) -> list[float]:
    """Latencies from 0.05 ms to 10 minutes."""
    lowest, highest = math.log(0.05), math.log(600_000)
    if kind == "wide":
        return [math.exp(draw.uniform(lowest, highest)) for _ in range(count)]
    if kind == "usual":
        return [min(max(math.exp(draw.gauss(7, 0.8)), 0.05), 600_000) for _ in range(count)]
    if kind == "two worlds":
        return [draw.choice([0.05, 600_000.0]) for _ in range(count)]
    return [1.1 ** draw.randint(-31, 139)] * count  # on a border between two buckets


def test_percentiles_of_merged_histograms_are_within_five_percent(db: Connection) -> None:
    """If this failed, "p95" in a report would not be the p95 of the calls."""
    draw = random.Random(6)
    sizes = [1, 2, 3, 10, 100, 2000]
    for kind, count in itertools.product(["wide", "usual", "two worlds", "one"], [*sizes, draw.randint(4, 1999)]):
        [row] = db.execute(
            """
            with sample as (
              select s.latency, s.number %% 7 as part from unnest(%(latencies)s::float8[]) with ordinality as s (latency, number)
            ),

            parts as (
              select sum(('1e' || 12 * vital_private.latency_bucket(latency))::numeric) as histogram from sample group by part
            )

            select
              (select latency_percentiles(sum(histogram), %(fractions)s) from parts) as told,
              (select latency_percentile(sum(histogram), 0.95) from parts) as p95,
              (select percentile_cont(%(fractions)s::float8[]) within group (order by latency) from sample) as exact,
              (select array_agg(vital_private.latency_bucket(latency) order by latency) from sample) as buckets
            """,
            {"latencies": samples(draw, kind, count), "fractions": FRACTIONS},
        ).fetchall()
        for told, exact in zip(row["told"], row["exact"], strict=True):
            assert told == pytest.approx(exact, rel=0.05), (kind, count)
        assert row["told"] == sorted(row["told"])
        assert row["p95"] == row["told"][FRACTIONS.index(0.95)]
        assert row["buckets"] == sorted(row["buckets"])


def test_absurd_latencies_and_counts_of_tokens_fail_no_batch(db: Connection) -> None:
    """If this failed, one broken clock or provider would keep its neighbours' calls out of the database."""
    huge = {
        "prompt_tokens": 9 * 10**18,
        "completion_tokens": 0,
        "total_tokens": 9 * 10**18,
        "cache_read_tokens": 9 * 10**18,
    }
    place = {"created_at": MOMENTS[0], "workflow_id": "w", "calls": 2_000_000_000, "latency_ms": 1.7e308}
    latencies = [0, 5e-324, 1e-9, 1e-4, 1, 1.15, 1e12, 1e300]
    assert record(db, *[a_call(number, **place, **huge) for number in range(5)])["inserted"] == 5
    assert record(db, *[a_call(10 + number, latency_ms=ms) for number, ms in enumerate(latencies)])["inserted"] == 8
    assert_sums_are_those_of_the_calls(db)
    [row] = db.execute(
        "select *, latency_percentiles(latency_histogram, '{0,1}') as p from usage_aggregations_hourly_totals"
    ).fetchall()
    assert (row["calls"], row["prompt_tokens"]) == (10_000_000_008, 45 * 10**18 + 800)
    assert row["p"] == [pytest.approx(1.1**-100, rel=0.05), pytest.approx(1.1**300, rel=0.05)]
    [nothing] = db.execute("select latency_percentile(null, 0.5) as a, latency_percentile(0, 0.5) as b").fetchall()
    assert nothing == {"a": None, "b": None}
    assert differences(db) == []
