"""Many calls, as a company makes them: loaded straight into the table of calls, or as the records that the library makes."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from vital_tracking import Price
from vital_tracking.core.context import CONTEXT_FIELDS, CallContext
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage

CHUNK = 100_000
LOADERS = 2
GENERATOR = Path(__file__).with_name("usage.sql")


def install(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Make the generator, in the schema bench."""
    connection.execute(GENERATOR.read_text(encoding="utf-8").encode())


def first_day(days: int) -> datetime:
    """The first of so many days (UTC), the last of which is today."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)


def hours(connection: psycopg.Connection[tuple[object, ...]], since: datetime, days: int) -> list[float]:
    """Which part of all calls is made by when, by the hour; none is made in the future."""
    [(shares,)] = connection.execute("select bench.hours(%s, %s)", [since, days]).fetchall()
    assert isinstance(shares, list)
    passed = max(int((datetime.now(UTC) - since).total_seconds() // 3600), 1)
    return [share / shares[passed] for share in shares[: passed + 1]]


def load(url: str, calls: int, days: int, organizations: int = 300, users: int = 400) -> float:
    """Load the calls of the last days past the triggers that keep the sums, and their runs; seconds that the calls took.

    They are of so many organizations, the largest of which has so many users.
    """
    since = first_day(days)
    with psycopg.connect(url, autocommit=True) as connection:
        install(connection)
        shares = hours(connection, since, days)
        connection.execute("select ensure_partitions_v1(%s, %s)", [since.date(), days // 28 + 2])
        connection.execute("set synchronous_commit = off")
        connection.execute("alter table token_usage_logs disable trigger user")

        def load_chunk(first: int) -> None:
            with psycopg.connect(url, autocommit=True) as loader:
                loader.execute("set synchronous_commit = off")
                loader.execute(
                    "call bench.load_calls('token_usage_logs', %s, %s, %s, %s, %s, %s, %s)",
                    [first, min(first + CHUNK, calls) - 1, calls, since, shares, organizations, users],
                )

        started = time.perf_counter()
        with ThreadPoolExecutor(LOADERS) as pool:
            list(pool.map(load_chunk, range(0, calls, CHUNK)))
        took = time.perf_counter() - started
        connection.execute("alter table token_usage_logs enable trigger user")
        connection.execute("call bench.load_runs()")
        connection.execute("vacuum analyze")
    return took


PRICES = [
    Price(model=f"model-{number}", input=f"{(number + 1) * 0.15:.2f}", output=f"{(number + 1) * 0.6:.2f}")
    for number in range(9)
]
"""What the models of these calls cost, for the library to price them by."""

_TAKEN = (
    "provider",
    "model",
    "call_type",
    "run_id",
    "trace_id",
    "status",
    "error_type",
    "latency_ms",
    "ttft_ms",
    "cache_hit",
)
_TOKENS = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "reasoning_tokens")


def records(connection: psycopg.Connection[Any], calls: int) -> Generator[CallRecord, None, None]:
    """So many calls of today, in the order of their starts, as the library knows them before it prices them."""
    since = first_day(1)
    install(connection)
    connection.execute("create temporary table made (like token_usage_logs including defaults)")
    connection.execute(
        "call bench.load_calls('made', 0, %s, %s, %s, %s)", [calls - 1, calls, since, hours(connection, since, 1)]
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.stream("select * from made order by created_at, id"):
            yield CallRecord(
                id=str(row["id"]),
                created_at=row["created_at"],
                context=CallContext(**{name: row[name] for name in CONTEXT_FIELDS}),
                usage=TokenUsage(**{name: row[name] for name in _TOKENS}),
                request_hash=row["request_hash"],
                clocked=False,
                **{name: row[name] for name in _TAKEN},
            )
