"""What NULL, reversed times and numbers out of range do, in every argument of every function of the API, by the catalogue.

NULL is the default where an argument has one. Where it has none, the function refuses it and names the argument, unless NULL
means something there (MEANING). So no NULL arms what cannot be undone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from benchmarks.reports_questions import questions
from tests.sql.access_world import make_world
from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from tests.sql.helpers import ALICE, Connection, a_call, connect, record, set_budget

# Arguments without a default in which NULL means something, and what.
MEANING = {
    ("aggregate_usage_daily", "project_id"): "calls of no organization",
    ("aggregate_usage_hourly", "project_id"): "calls of no organization",
    ("audit_usage_v1", "since"): "from the first call on",
    ("audit_usage_v1", "until"): "to the last one",
    ("calls_to_price_v1", "after_id"): "from the first call on",
    ("calls_to_price_v1", "batch_size"): "as many as there may be",
    ("calls_to_price_v1", "since"): "from the beginning",
    ("inexact_calls_v1", "since"): "all",
    ("latency_percentile", "histogram"): "of no calls: NULL",
    ("latency_percentiles", "histogram"): "of no calls: NULL",
    ("organization_cost", "since"): "from the first call on",
    ("organization_cost", "until"): "to the last one",
    ("unpriced_calls_v1", "after_created_at"): "from the first call on",
    ("unpriced_calls_v1", "after_id"): "from the first call on",
    ("unpriced_calls_v1", "batch_size"): "as many as there may be",
}

# What to call functions with, by the names of their arguments, as SQL; a new name needs a line here.
SAMPLES = {
    "actor": "'u-1'",
    "advice": f"'{json.dumps(an_advice(a_recommendation()))}'",
    "again": "true",
    "allocation": """'{"month": "2026-01", "amount": "10", "organizations": ["acme"]}'""",
    "clean": "array['2026-01-01']",
    "cleaned": "array['2026-01-01']",
    "copied": """'{"copy": "0193f2c4-0000-7000-8000-000000000001"}'""",
    "copy": "'0193f2c4-0000-7000-8000-000000000001'",
    "costs": "'[]'",
    "events": "'[]'",
    "executions": "'[]'",
    "after_at": "now()",
    "before_id": "1000",
    "operation": "'insert'",
    "what": "'budget_limits'",
    "ascending": "true",
    "filters": "'{}'",
    "force": "true",
    "grain": "'day'",
    "max_calls": "20",
    "loaded": "true",
    "loading": "now()",
    "name": "'by model'",
    "place": "'1'",
    "sent": "1",
    "session": "'0193f2c4-0000-7000-8000-000000000002'",
    "target": "'https://host:8443/vital_tracking'",
    "names": "array['acme']",
    "nested": "true",
    "organizations": "'[\"acme\"]'",
    "prefix": "'r'",
    "role": "'auditor'",
    "run": "'r-1'",
    "access": """'{"operation": "read"}'""",
    "after_created_at": "now() - interval '3 days'",
    "after_id": "'80000000-0000-7000-8000-000000000000'",
    "agent": "'cardio'",
    "amount": "'1'",
    "agent_id": "'cardio'",
    "agent_tier": "'tier_1'",
    "arguments": "'{}'",
    "asked": "'[]'",
    "asks": "'[]'",
    "batch": """'{"file": {"key": "00000000000000aa", "head": "aa", "heads": ["aa"]}, "starts_at": 0, "place": 9}'""",
    "batch_size": "10",
    "budget": """'{"entity_type": "user", "daily_limit": "7"}'""",
    "budget_id": "(select max(id) from budget_limits)",
    "by": "'model'",
    "calls": "'[]'",
    "channel": "'alerts'",
    "channels": "'[\"alerts\"]'",
    "date": "current_date - 1",
    "day": "31",
    "days": "7",
    "decision": "'watch'",
    "delivered": "true",
    "finding": "(select max(id) from abuse_findings)",
    "id": "1",
    "mark": "1",
    "rule": """'{"organization_id": "acme", "action": "watch"}'""",
    "state": "'open'",
    "why": "'It is known.'",
    "drop_rows": "false",
    "due": "true",
    "recommendation": f"'{an_id(1)}'",
    "saving": "'1'",
    "note": "'Our own trial.'",
    "sizes": "'{500,2000}'",
    "eras": "array[now() - interval '2 days']",
    "repeated_within": "'1 hour'",
    "prefixes_within": "'5 minutes'",
    "status": "'open'",
    "dimensions": "'{model}'",
    "measures": "'{calls}'",
    "order_by": "'calls'",
    "top": "3",
    "dry_run": "false",
    "end_time": "now()",
    "entities": """'{"user": "u-1"}'""",
    "email": "'u-1@acme.example'",
    "entity": "'u-1'",
    "every": "'month'",
    "everybody": "true",
    "expected": "'[]'",
    "file": "'calls.parquet'",
    "first_month": "current_date",
    "fraction": "0.95",
    "fractions": "array[0.5, 0.95]",
    "heads": "'[]'",
    "held": "1",
    "histogram": "vital_private.latency_of(200)",
    "holder": "'p-1'",
    "hour": "7",
    "hour_start": "date_trunc('hour', now())",
    "hours": "48",
    "ids": "'[1]'",
    "kept": "'{}'",
    "lifetime_s": "30",
    "max_rows": "20",
    "model": "'gpt-4o'",
    "moment": "now()",
    "month": "date '2020-01-01'",
    "months": "2",
    "organization": "'acme'",
    "organization_id": "'acme'",
    "entity_id": "'u-1'",
    "entity_type": "'user'",
    "plan": """'{"name": "own", "calls": 5}'""",
    "subscription": """'{"entity_type": "user", "entity_id": "u-1", "plan": "trial"}'""",
    "subscriptions": """'[{"entity_type": "user", "entity_id": "u-2", "plan": "trial"}]'""",
    "override": """'{"entity_type": "user", "entity_id": "u-1", "daily_limit": "9"}'""",
    "p_days": "7",
    "p_project_id": "'acme'",
    "panel_id": "'board'",
    "patience_ms": "100",
    "period": "'month'",
    "price": """'{"model": "mine", "input_usd_per_mtok": "1"}'""",
    "prices": "'[]'",
    "problem": "'HTTP 500'",
    "project_id": "'acme'",
    "reading": """'{"source": "http://proxy/metrics", "series": {"gpt-4o": {"requests": "1"}}}'""",
    "readings": """'[{"resource": "disk", "bytes": 1}]'""",
    "raise_": """'{"entity_type": "user", "entity_id": "u-1", "raise_by": "9"}'""",
    "report": "'models'",
    "retention": "true",
    "rows": "20",
    "running_only": "true",
    "whole": "true",
    "quotas": "true",
    "runs": "'[]'",
    "service_type": "'workflow'",
    "session_id": "'s-1'",
    "since": "now() - interval '40 days'",
    "start_time": "now() - interval '40 days'",
    "solution_id": "'plan'",
    "subject": f"'{ALICE}'",
    "table_name": "'cost_alerts'",
    "keep": "'1 year'",
    "taken": "'[1]'",
    "tier": "2",
    "provider": "'openai'",
    "tenant_id": "'acme'",
    "timezone": "'UTC'",
    "turns": "'[]'",
    "until": "now()",
    "user_id": f"'{ALICE}'",
    "users": f"array['{ALICE}']",
    "weekday": "5",
    "weeks": "4",
    "whom": "'u-1'",
    "workflow_id": "'intake'",
}

# Where an argument of that name is of another type.
SAMPLES_OF = {
    ("call_groups_v1", "dimensions"): "'{service, agent}'",
    ("platform_explore_v1", "dimensions"): "'{day}'",
    ("platform_explore_v1", "what"): "'costs'",
    ("platform_rows_v1", "what"): "'events'",
    ("decide_recommendation_v1", "decision"): "'taken'",
    ("recommendations_v1", "id"): f"'{an_id(1)}'",
    ("decide_abuse_v1", "until"): "now() + interval '1 hour'",
    ("add_resource_price_v1", "price"): """'{"cost_type": "compute", "unit_price": "0.5"}'""",
    ("names_v1", "organizations"): "array['acme']",
    ("ask_for_report_v1", "asks"): "'my_memberships'",
    ("archive_month_v1", "ids"): "'1'",
    **{(name, "table_name"): "'token_usage_logs'" for name in ("export_days_v1", "export_save_v1")},
    **{(name, "table_name"): "'token_usage_logs'" for name in ("archive_month_v1", "months_v1", "row_totals_v1")},
    **{
        (function, "report"): "(select min(id) from saved_reports)"
        for function in (
            "ask_for_report_v1", "claim_report_v1", "schedule_report_v1", "settle_report_v1", "unschedule_report_v1",
        )
    },
}  # fmt: skip

# What differs from one call to the next: the database's clock goes on inside a transaction, and tables grow.
PASSING = re.compile(r"'now': '[^']*'|'bytes': \d+")

API = """
    select p.proname as name, coalesce(p.proargnames[1:p.pronargs], '{}') as names, p.pronargs - p.pronargdefaults as required,
      p.provolatile = 'v' as changes, array(select format_type(t, null) from unnest(p.proargtypes) as t) as kinds
    from pg_proc as p
    where p.pronamespace = 'public'::regnamespace and p.pronargs > 0
    order by p.proname, p.pronargs
"""


@dataclass(frozen=True)
class Function:
    """A function of the API, with its arguments: their names and types, and how many have no default."""

    name: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    required: int
    changes: bool

    def call(self, leave_out: str | None = None, **instead: str) -> str:
        """A call of it with samples in all arguments, but for those that are given or left out."""
        given = [
            f"{name} => ({instead.get(name) or SAMPLES_OF.get((self.name, name)) or SAMPLES[name]})::{kind}"
            for name, kind in zip(self.names, self.kinds, strict=True)
            if name != leave_out
        ]
        return f"select * from public.{self.name}({', '.join(given)})"

    def optional(self, name: str) -> bool:
        """Whether the argument has a default."""
        return self.names.index(name) >= self.required


@dataclass(frozen=True)
class Outcome:
    """What a call came to: its rows or its error, and how many rows each table had after it."""

    rows: str
    sqlstate: str | None
    message: str
    counts: dict[str, int]


@pytest.fixture(scope="module")
def world(urls: dict[str, str]) -> Iterator[Connection]:
    """A database with something in every table that a slip could delete, rolled back at the end."""
    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        make_world(connection)
        set_budget(connection, entity_id="u-1", daily_limit=1)
        record(connection, *(a_call(90 + place, created_at=f"202{place}-01-15T00:00:00Z") for place in range(4)))
        connection.execute(
            "insert into cost_alerts (budget_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at,"
            " threshold, limit_amount, spent, created_at)"
            " values (999, 'user', 'u-9', 'cost_usd', 'alert', true, 'day', '2020-01-15Z', 1, 1, 1, '2020-01-15Z')"
        )
        yield connection


def functions(connection: Connection) -> list[Function]:
    return [
        Function(row["name"], tuple(row["names"]), tuple(row["kinds"]), row["required"], row["changes"])
        for row in connection.execute(API).fetchall()
    ]


def counts(connection: Connection) -> dict[str, int]:
    """The rows of each of our tables."""
    names = connection.execute(
        "select format('%I.%I', n.nspname, c.relname) as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'vital_private') and c.relkind in ('r', 'p') and not c.relispartition"
    ).fetchall()
    each = sql.SQL(" union all ").join(
        sql.SQL("select {} as name, count(*) as rows from {}").format(row["name"], sql.SQL(row["name"]))
        for row in names
    )
    return {row["name"]: row["rows"] for row in connection.execute(each).fetchall()}


def outcome(connection: Connection, query: str) -> Outcome:
    rows: list[dict[str, Any]] = []
    state, message = None, ""
    with connection.transaction(force_rollback=True):
        try:
            with connection.transaction():
                rows = connection.execute(sql.SQL(query)).fetchall()
        except psycopg.Error as error:
            state, message = error.sqlstate, str(error)
        return Outcome(PASSING.sub("", str(rows)), state, message, counts(connection))


def test_every_argument_of_the_api_has_a_sample(world: Connection) -> None:
    """If this failed, a new function would escape the tests below."""
    names = {name for function in functions(world) for name in function.names}
    assert names - set(SAMPLES) == set(), "give them a sample"
    assert set(SAMPLES) - names == set(), "no function has them any more"
    known = {(function.name, name) for function in functions(world) for name in function.names}
    assert set(MEANING) - known == set()


def test_the_benchmark_of_reports_knows_what_to_give_each_function(world: Connection) -> None:
    """If this failed, `make bench-reports` would end before it has measured anything."""
    with psycopg.connect(world.info.dsn) as plain:
        asked = {question.name.partition("()")[0] for question in questions(plain)}
    assert {"usage_explore_v1", "budget_preview_v1", "get_dashboard_stats"} <= asked


def test_null_is_the_default_or_is_refused_by_name(world: Connection) -> None:
    """If this failed, a variable that a script has not set would delete calls, sum nothing up, or mean something nobody knows."""
    before = counts(world)
    assert before["public.cost_alerts"] > 0
    wrong = []
    for function in functions(world):
        for name in function.names:
            found = outcome(world, function.call(**{name: "null"}))
            # By its name, or by what it is: tenant_id as "tenant".
            named = name in found.message or name.partition("_")[0] in found.message.lower()
            refused = found.sqlstate in ("22004", "22023") and named
            if function.optional(name):
                default = outcome(world, function.call(leave_out=name))
                fine = (found.rows, found.sqlstate, found.counts) == (default.rows, default.sqlstate, default.counts)
            elif (function.name, name) in MEANING:
                fine = found.sqlstate is None and (found.counts == before or function.changes)
            else:
                fine = refused
            lost = [table for table, rows in found.counts.items() if rows < before[table]]
            if not (fine or refused) or (lost and not function.optional(name)):
                wrong.append((function.name, name, found.sqlstate, found.message[:90], lost))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_question_is_answered_or_refused_whatever_its_numbers_and_times(world: Connection) -> None:
    """If this failed, a slip in a number would be answered with an error of the database's inside, or with a made-up figure."""
    wrong = []
    for function in functions(world):
        if function.changes:
            continue
        for name, kind in zip(function.names, function.kinds, strict=True):
            for value in {"integer": ("-1", "0", "2147483647"), "double precision": ("-1", "95", "'NaN'")}.get(
                kind, ()
            ):
                found = outcome(world, function.call(**{name: value}))
                if found.sqlstate not in (None, "22023"):
                    wrong.append((function.name, name, value, found.sqlstate, found.message[:90]))
        if {"since", "until"} <= set(function.names):
            found = outcome(world, function.call(since="now()", until="now() - interval '1 day'"))
            if found.sqlstate != "22023":
                wrong.append((function.name, "since", "reversed", found.sqlstate, found.message[:90]))
    assert not wrong, "\n".join(map(str, wrong))
