"""Calls of all kinds, and what the aggregations must hold of them, added up in Python from the calls themselves."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from tests.sql.helpers import Connection, Row, a_call, an_unpriced_call

KEYS = {
    "usage_aggregations_hourly_totals": ("organization_id", "hour_start", "service_type"),
    "usage_aggregations_daily_totals": ("organization_id", "day", "service_type"),
    "usage_aggregations_daily_agents": (
        "organization_id",
        "day",
        "service_type",
        "agent_id",
        "agent_tier",
        "framework",
        "provider",
        "model",
        "message_type",
        "call_type",
    ),
    "usage_aggregations_daily_users": ("organization_id", "day", "user_id", "service_type", "call_type"),
    "usage_aggregations_daily_parts": (
        "organization_id",
        "day",
        "service_type",
        "panel_id",
        "panel_position",
        "workflow_id",
        "workflow_step",
        "agent_id",
    ),
}
TABLES = tuple(KEYS)
TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
)
COSTS = ("input_cost", "output_cost", "fees", "total_cost", "potential_cost")
REPORTED = ("reported_calls", "reported_cost", "reported_total_cost")
MEASURES = (
    "calls",
    "cached_calls",
    "failed_calls",
    "blocked_calls",
    "unpriced_calls",
    "estimated_calls",
    "timed_calls",
    *TOKENS,
    *COSTS,
    *REPORTED,
    "latency_us",
    "latency_histogram",
    "timed_out_calls",
)

# In the default partition, in one of their own, and in the next one.
MOMENTS = (
    "2026-01-15T10:00:00+00:00",
    "2026-01-15T10:59:59.999999+00:00",
    "2026-01-15T23:59:59.999999+00:00",
    "2026-01-16T00:00:00+05:30",
    "2033-05-31T23:30:00+00:00",
    "2033-06-01T00:00:00+00:00",
)
DAYS = ("2026-01-15", "2033-05-31", "2033-06-01")
ORGANIZATIONS = ("acme", "Ümlaut & Söhne", None)
PLACES: tuple[Row, ...] = (
    {},
    {"service_type": "1:1_conversation", "agent_id": "a-1", "agent_name": "Agent", "agent_tier": "tier_1"},
    {"service_type": "1:1_conversation", "agent_id": "a-1", "agent_name": "Agent, renamed", "agent_tier": "tier_2"},
    {"service_type": "virtual_panel", "panel_id": "p", "panel_position": 2, "agent_id": "a-1", "framework": "autogen"},
    {"service_type": "workflow", "workflow_id": "w", "workflow_step": "s", "workflow_step_name": "Step"},
    {"service_type": "solution_builder", "workflow_step": "s", "provider": "openai", "model": "gpt-4o-mini"},
)
NOTHING_PAID = dict.fromkeys(("input_cost", "output_cost", "fees", "total_cost"), "0")
A_LITTLE = "1.000000000000000000000000000001"
ENDS: tuple[Row, ...] = (
    {"latency_ms": 812.5, "cache_read_tokens": 40, "cache_write_tokens": 7, "reasoning_tokens": 11, "audio_tokens": 3},
    {"latency_ms": 0},
    {"latency_ms": 1e300, "usage_estimated": True},
    {"calls": 7, "total_cost": A_LITTLE, "input_cost": "0", "output_cost": "0", "fees": A_LITTLE},
    {"fees": "0.04", "total_cost": "0.46", "billed_units": {"web_searches": 4}, "reported_cost": "0.4600000001"},
    {"unpriced": True, "billed_units": {"web_searches": 1, "audio_seconds": 2.5}, "reported_cost": "1"},
    {"cache_hit": True, "latency_ms": 1e-9, **NOTHING_PAID},
    {"status": "blocked", "potential_cost": "0", **NOTHING_PAID},
    {"status": "error", "error_type": "RateLimitError", "latency_ms": 30_000.0},
    {"status": "error", "error_type": "APITimeoutError", "message_type": "chat", "calls": 2},
    {"status": "abandoned", "usage_estimated": True},
    {"status": "cancelled", "latency_ms": 12.0},
    {"status": "abandoned", "calls": 2},
    {"unpriced": True, "latency_ms": 333.0, "ceiling_cost": "0.5"},
    {"unpriced": True, "calls": 3},
)


def the_call(number: int, moment: str, organization: str | None, user: str | None, place: Row, end: Row) -> Row:
    """A call of that time, for those, that ended so."""
    end = dict(end)
    make = an_unpriced_call if end.pop("unpriced", False) else a_call
    facts = {"created_at": moment, "organization_id": organization, "user_id": user, **place, **end}
    return {name: value for name, value in make(number, **facts).items() if value is not None}


def some_calls(count: int, seed: int = 1, first: int = 1) -> list[Row]:
    """Calls of all kinds."""
    draw = random.Random(seed).choice
    return [
        the_call(first + number, draw(MOMENTS), draw(ORGANIZATIONS), draw(["u-1", None]), draw(PLACES), draw(ENDS))
        for number in range(count)
    ]


# Histograms have thousands of digits, and costs as many as somebody gave them.
EXACT = Context(prec=10_000)

Key = tuple[Any, ...]
Sums = dict[Key, dict[str, Decimal]]


def bucket_of(latency_ms: float) -> int:
    """The bucket of a latency: n holds what lies above 1.1^(n - 101) and up to 1.1^(n - 100) ms; by exact arithmetic."""
    exact, bucket = Fraction(latency_ms), 0
    while bucket < 400 and exact > Fraction(11, 10) ** (bucket - 100):
        bucket += 1
    return bucket


_powers: dict[float, Decimal] = {}


def measures_of(call: Row) -> dict[str, Decimal]:
    """What one row of calls adds to every sum."""
    calls, latency = call["calls"], call["latency_ms"]
    compared = call["priced"] and call["reported_cost"] is not None
    if latency is not None and latency not in _powers:
        _powers[latency] = Decimal(10 ** (12 * bucket_of(latency)))
    measured = {
        "calls": calls,
        "cached_calls": calls * call["cache_hit"],
        "failed_calls": calls * (call["status"] != "ok"),
        "blocked_calls": calls * (call["status"] == "blocked"),
        "unpriced_calls": calls * (not call["priced"]),
        "estimated_calls": calls * call["usage_estimated"],
        "timed_calls": latency is not None,
        **{name: call[name] for name in TOKENS},
        **{name: call[name] or 0 for name in COSTS},
        **dict(
            zip(REPORTED, (calls, call["reported_cost"], call["total_cost"]) if compared else (0, 0, 0), strict=True)
        ),
        "latency_us": 0 if latency is None else round(min(latency, 1e15) * 1000),
        "latency_histogram": 0 if latency is None else _powers[latency],
        "timed_out_calls": calls * (call["error_type"] == "APITimeoutError"),
    }
    return {name: Decimal(value) for name, value in measured.items() if value}


def wanted(calls: list[Row], table: str) -> Sums:
    """What a table must hold for these calls, by its key."""
    sums: Sums = defaultdict(lambda: dict.fromkeys(MEASURES, Decimal(0)))
    for call in calls:
        started: datetime = call["created_at"].astimezone(UTC)
        facts = {**call, "day": started.date(), "hour_start": started.replace(minute=0, second=0, microsecond=0)}
        into = sums[tuple(facts[name] for name in KEYS[table])]
        for name, value in measures_of(call).items():
            into[name] = EXACT.add(into[name], value)
    return dict(sums)


def held(db: Connection, table: str) -> Sums:
    """What a table holds, by its key; rows of which nothing is left are left out, if really nothing is left."""
    found: Sums = {}
    for row in db.execute(f"select * from {table}").fetchall():  # type: ignore[arg-type]
        key = tuple(row[name].astimezone(UTC) if isinstance(row[name], datetime) else row[name] for name in KEYS[table])
        assert key not in found, (table, key)
        measures = {name: Decimal(row[name]) for name in MEASURES}
        if any(measures.values()):
            found[key] = measures
    return found


def all_calls(db: Connection) -> list[Row]:
    """Every row of calls."""
    return db.execute("select * from token_usage_logs").fetchall()


def assert_sums_are_those_of_the_calls(db: Connection) -> None:
    """Each table holds what the calls come to, to the last digit."""
    calls = all_calls(db)
    for table in TABLES:
        assert held(db, table) == wanted(calls, table), table


def differences(db: Connection, since: str = "1970-01-01", until: str = "9999-01-01") -> list[Row]:
    """What the audit finds between two instants."""
    [found] = db.execute("select audit_usage_v1(%s, %s) as report", [since, until]).fetchall()
    return list(found["report"]["differences"])


def backfill(db: Connection, since: str | None = None, until: str | None = None) -> list[Row]:
    """Queue the days of a time, if one is given, and fill all days that wait; the reports, one a day."""
    if since is not None:
        db.execute("select queue_backfill_v1(%s, %s)", [since, until])
    reports: list[Row] = []
    while True:
        [found] = db.execute("select backfill_usage_v1() as report").fetchall()
        if found["report"]["day"] is None:
            return reports
        reports.append(found["report"])
