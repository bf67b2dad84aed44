"""What the SQL tests share: rows as the library sends them, and a way to be somebody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

ALICE = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
CAROL = "33333333-3333-4333-8333-333333333333"
ADMIN = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
STRANGER = "99999999-9999-4999-8999-999999999999"

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

COSTS = ("input_cost", "output_cost", "total_cost", "potential_cost", "price_version")


def call_id(number: int) -> str:
    """A UUIDv7 that sorts by its number."""
    return f"01890000-0000-7000-8000-{number:012x}"


def a_call(number: int = 1, **changes: Any) -> Row:
    """A priced call as the library sends it: 100 tokens in, 20 out, $0.30 and $0.12."""
    return {
        "id": call_id(number),
        "created_at": "2026-01-15T10:00:00+00:00",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "input_cost": "0.30",
        "output_cost": "0.12",
        "total_cost": "0.42",
        "potential_cost": "0.42",
        "price_version": "test",
        "priced": True,
        **changes,
    }


def an_unpriced_call(number: int = 1, **changes: Any) -> Row:
    """A call whose model has no known price."""
    return {**{name: value for name, value in a_call(number).items() if name not in COSTS}, "priced": False, **changes}


def a_run(run_id: str = "r-1", **changes: Any) -> Row:
    """A workflow's run as the library sends it at its start."""
    return {
        "id": run_id,
        "service_type": "workflow",
        "service_id": "intake",
        "workflow_id": "intake",
        "status": "running",
        "started_at": "2026-01-15T10:00:00+00:00",
        **changes,
    }


def an_end(run_id: str = "r-1", **changes: Any) -> Row:
    """The same run as the library sends it at its end, 90 seconds later."""
    return a_run(run_id, **{"status": "ok", "ended_at": "2026-01-15T10:01:30+00:00", **changes})


def connect(url: str) -> Connection:
    """A connection of the database's owner; every statement stands for itself."""
    return psycopg.connect(url, row_factory=dict_row, autocommit=True)


def record(connection: Connection, *calls: object) -> Row:
    """Send a batch of calls; the report."""
    return report(connection, "record_calls_v1", json.dumps(calls))


def record_runs(connection: Connection, *runs: object) -> Row:
    """Send a batch of service runs; the report."""
    return report(connection, "record_runs_v1", json.dumps(runs))


def report(connection: Connection, function: str, batch: str | None) -> Row:
    """Send a batch as the text it is."""
    query = sql.SQL("select {}(%s) as report").format(sql.Identifier(function))
    with connection.transaction():
        found = connection.execute(query, [batch]).fetchone()
    assert found is not None
    return dict(found["report"])


def rejections(batch_report: Row) -> list[tuple[str | None, str, str | None]]:
    """A report's rejected rows as (id, sqlstate, rule), sorted."""
    return sorted(((bad["id"], bad["sqlstate"], bad["rule"]) for bad in batch_report["rejected"]), key=str)


@contextmanager
def acting_as(connection: Connection, role: str, claims: Row | str | None = None) -> Iterator[Connection]:
    """Inside, the connection is a request of the API: a role and a token's claims, in a transaction that is rolled back."""
    text = claims if isinstance(claims, str) else json.dumps(claims or {})
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('request.jwt.claims', %s, true)", [text])
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        yield connection
